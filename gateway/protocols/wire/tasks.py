"""Which model a MultiInferenceRequest means: every task names one, and all must name the same.

What belongs here: reading and writing the `model_spec` of each task (field 1 of `InferenceTask`,
which is field 1 of the request) on the wire. Rules: as in `spec.py`; the input is never parsed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.protocols.wire.scan import LENGTH_DELIMITED, Field, WireError, fields, replace
from gateway.protocols.wire.spec import ModelSpecView, read_spec, reaim

if TYPE_CHECKING:
    from gateway.protocols.wire import Wire

_TASKS = 1
_MAX_TASKS = 256


class TasksError(ValueError):
    """Tasks that do not go together, in the words of TF Serving where it has some."""


def read_tasks_spec(wire: Wire, body: bytes) -> ModelSpecView:
    """Return the model that all tasks mean; its signature is the first task's.

    Without a task the name is empty. Raises `WireError`, and `TasksError` when two mean different
    models or versions: one call goes to one version.
    """
    specs = [read_spec(wire, body[task.value : task.end]) for task in _tasks(body)]
    if not specs:
        return ModelSpecView(name="", version=None, label=None, signature="")
    first = specs[0]
    if len({spec.name for spec in specs}) > 1:
        raise TasksError(
            "All ModelSpecs in a MultiInferenceRequest must access the same model name."
        )
    aims = {(spec.name, spec.version, spec.label) for spec in specs}
    if len(aims) > 1:
        raise TasksError("the tasks name different versions; ask once for each")
    return first


def reaim_tasks(wire: Wire, body: bytes, *, name: str, version: int | None) -> bytes:
    """Return the request with every task pointed at a name and version, all else as it was."""
    for task in reversed(_tasks(body)):  # from the end, so that earlier places stay true
        payload = body[task.value : task.end]
        aimed = reaim(wire, payload, name=name, version=version)
        if aimed is not payload:
            body = replace(body, task, _TASKS, aimed)
    return body


def _tasks(body: bytes) -> list[Field]:
    found = [field for field in fields(body) if field.number == _TASKS]
    if len(found) > _MAX_TASKS:
        raise WireError(f"the request has more than {_MAX_TASKS} tasks", found[_MAX_TASKS].start)
    for task in found:
        if task.wire_type != LENGTH_DELIMITED:
            raise WireError("a task is not a message", task.start)
    return found
