"""Named tensors out of JSON values, in rows or in columns; the same for a request and an answer.

Rules, TF Serving's: each row holds all the names and no others; columns may hold others; with one
tensor its name may be left out, with several it may not. Shapes are as the lists say, whatever a
signature expects: the backend judges that. What is wrong is told by `faults`.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any

from gateway.errors import GatewayError, InvalidRequest, shown
from gateway.protocols.tensors import faults, nesting, values
from gateway.protocols.tensors.document import Document
from gateway.protocols.tensors.faults import is_record
from gateway.protocols.tensors.reading import excerpt
from gateway.protocols.tensors.types import Kind, Tensor, TensorSpec

Specs = Mapping[str, TensorSpec]


class _Unfit(Exception):
    """Rows or a value that make no tensors; `faults` finds out why."""


def read_rows(document: Document, key: str, specs: Specs) -> dict[str, Tensor]:
    """Read a list with an item for each row. Raises `InvalidRequest`."""
    rows = document.members[key]
    if type(rows) is not list or not rows:
        why = f"Expecting {key!r} to be an list/array"
        if type(rows) is list:
            why = f"No values in {key!r} array"
        raise InvalidRequest(
            f"JSON Value: {excerpt(document.members)} {why}", param=key, quotes=True
        )
    if not is_record(rows[0]) and len(specs) > 1:
        raise _nameless(key, "list", "list of objects", specs)
    try:
        return _read_rows(document, rows, specs)
    except _Unfit:
        raise faults.in_rows(key, rows, specs, document.hints, document.noun) from None


def read_columns(document: Document, key: str, specs: Specs) -> dict[str, Tensor]:
    """Read a value for each tensor. Raises `InvalidRequest` and `Unsupported`."""
    columns = document.members[key]
    if not is_record(columns):
        if len(specs) > 1:
            raise _nameless(key, "value/list", "object", specs)
        columns = dict.fromkeys(specs, columns)
    else:
        for name in specs:
            if name not in columns:
                raise InvalidRequest(
                    f"Missing named {document.noun}: {shown(name)} in {key!r} object.", param=name
                )
            document.saw(name)
    return {name: _column(document, name, spec, columns[name]) for name, spec in specs.items()}


def _column(document: Document, name: str, spec: TensorSpec, value: Any) -> Tensor:
    try:
        return _read_tensor(document, spec, value)
    except _Unfit:
        raise faults.in_column(name, spec, value, document.hints, document.noun) from None


def _read_rows(document: Document, rows: list[Any], specs: Specs) -> dict[str, Tensor]:
    if not is_record(rows[0]):
        return {name: _read_tensor(document, spec, rows) for name, spec in specs.items()}
    columns = _columns(rows, specs)
    for name in specs:
        document.saw(name, len(rows))
    return {name: _read_tensor(document, spec, columns[name]) for name, spec in specs.items()}


def _read_tensor(document: Document, spec: TensorSpec, value: Any) -> Tensor:
    dtype = spec.dtype
    if not dtype.json:
        raise _Unfit
    try:
        shape, flat = nesting.flatten(value)
        if dtype.kind is Kind.STRING:
            document.saw("b64", sum(type(item) is dict for item in flat))
        return Tensor(dtype, shape, values.from_json(dtype, flat, document.hints))
    except (nesting.Ragged, values.Misfit):
        raise _Unfit from None


def _columns(rows: list[Any], specs: Specs) -> dict[str, list[Any]]:
    """Turn rows of objects into a list for each name."""
    if set(map(type, rows)) == {dict} and set(map(len, rows)) == {len(specs)}:
        try:
            return {name: list(map(itemgetter(name), rows)) for name in specs}
        except KeyError:
            pass
    raise _Unfit


def _nameless(key: str, got: str, wanted: str, specs: Specs) -> GatewayError:
    listed = ",".join(shown(name) for name in sorted(specs))
    article = "an " if wanted == "object" else ""
    return InvalidRequest(
        f"{key} is a plain {got}, but expecting {article}{wanted} as multiple input tensors "
        f"required as per tensorinfo_map: {listed}",
        param=key,
    )
