"""What the admin API shows of the world: the forms of its answers, made from the Snapshot."""

from collections.abc import Awaitable, Callable

from pydantic import BaseModel

from gateway.types import Backend, Model, Version


class BackendView(BaseModel):
    """One server of models, and the calls on it now."""

    id: str
    forms: list[str]
    ready: bool
    inflight: int


class VersionView(BaseModel):
    """One version: its state, and why it is so."""

    version: int
    state: str
    why: str
    served_name: str
    ready: bool
    waiting: int
    backends: list[BackendView]


class ModelView(BaseModel):
    """One model, with all that decides where its requests go.

    `parent` is set for a LoRA adapter: the model that it adapts.
    """

    name: str
    aliases: list[str]
    adapter: str
    parent: str | None
    discovers: bool
    labels: dict[str, int]
    traffic: dict[str, float]
    versions: list[VersionView]


class WorkerView(BaseModel):
    """One of the gateway's own processes; `requests` are those since it was started."""

    worker: str
    pid: int | None
    listening: bool
    restarts: int
    requests: int


async def _fresh() -> None:
    """Nothing is known by hearsay."""


class Loads:
    """How busy things are, as the admin API needs it.

    `fresh` is awaited before the others are asked; `workers` are none where one process does all.
    """

    def __init__(
        self,
        inflight: Callable[[str], int],
        waiting: Callable[[str, int], int],
        fresh: Callable[[], Awaitable[None]] = _fresh,
        workers: Callable[[], list[WorkerView]] = list,
    ) -> None:
        self.inflight = inflight
        self.waiting = waiting
        self.fresh = fresh
        self.workers = workers


def model_view(model: Model, loads: Loads) -> ModelView:
    """Show one model."""
    return ModelView(
        name=model.name,
        aliases=list(model.aliases),
        adapter=model.adapter,
        parent=model.parent,
        discovers=model.discovers,
        labels=dict(model.labels),
        traffic={str(share): weight for share, weight in model.traffic},
        versions=[_version(model.versions[number], loads) for number in sorted(model.versions)],
    )


def _version(version: Version, loads: Loads) -> VersionView:
    ready = {backend.id for backend in version.ready}
    return VersionView(
        version=version.number,
        state=version.state,
        why=version.why,
        served_name=version.served_name,
        ready=bool(ready),
        waiting=loads.waiting(version.model, version.number),
        backends=[_backend(backend, backend.id in ready, loads) for backend in version.backends],
    )


def _backend(backend: Backend, ready: bool, loads: Loads) -> BackendView:
    return BackendView(
        id=backend.id,
        forms=sorted(backend.forms),
        ready=ready,
        inflight=loads.inflight(backend.id),
    )
