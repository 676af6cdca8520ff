"""Named tensors out of JSON values, in rows or in columns; the same for a request and an answer.

Rules, TF Serving's: each row holds all the names and no others; columns may hold others; with one
tensor its name may be left out, with several it may not. Shapes are as the lists say, whatever a
signature expects: the backend judges that. Every error names the tensor and where in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any

from gateway.errors import InvalidRequest, Unsupported, shown
from gateway.protocols.tensors import nesting, values
from gateway.protocols.tensors.document import Document
from gateway.protocols.tensors.nesting import shown_position
from gateway.protocols.tensors.types import Kind, Tensor, TensorSpec, names

Specs = Mapping[str, TensorSpec]


def read_rows(document: Document, key: str, specs: Specs) -> dict[str, Tensor]:
    """Read a list with an item for each row. Raises `InvalidRequest` and `Unsupported`."""
    rows = document.members[key]
    if type(rows) is not list:
        raise InvalidRequest(f"{key!r} must be a list with an item for each row", param=key)
    if not rows:
        raise InvalidRequest(f"{key!r} is empty; send at least one row", param=key)
    if _is_record(rows[0]):
        columns = _columns(key, rows, specs)
        for name in specs:
            document.saw(name, len(rows))
        return {name: read_tensor(document, name, specs[name], columns[name]) for name in specs}
    return _only(document, key, specs, rows)


def read_columns(document: Document, key: str, specs: Specs) -> dict[str, Tensor]:
    """Read a value for each tensor. Raises `InvalidRequest` and `Unsupported`."""
    columns = document.members[key]
    if not _is_record(columns):
        return _only(document, key, specs, columns)
    for name in specs:
        if name not in columns:
            raise InvalidRequest(f"{key!r} lacks {shown(name)!r}; send it as well", param=name)
        document.saw(name)
    return {name: read_tensor(document, name, spec, columns[name]) for name, spec in specs.items()}


def read_tensor(document: Document, name: str, spec: TensorSpec, value: Any) -> Tensor:
    """Read one tensor. Raises `InvalidRequest` and `Unsupported`, which name it."""
    dtype = spec.dtype
    if not dtype.json:
        raise Unsupported(
            f"{shown(name)!r} is of type {dtype}, which the REST API has no form for; use gRPC",
            param=name,
        )
    try:
        shape, flat = nesting.flatten(value)
    except nesting.Ragged as ragged:
        what = f"the list at {shown_position(ragged.at)} {ragged.why}"
        raise InvalidRequest(f"{shown(name)!r} is ragged: {what}", param=name) from None
    if dtype.kind is Kind.STRING:
        document.saw("b64", sum(type(item) is dict for item in flat))
    try:
        return Tensor(dtype, shape, values.from_json(dtype, flat, document.hints))
    except values.Misfit as misfit:
        where = shown_position(nesting.position(misfit.index, shape))
        what = f"the value at {where}" if where else "the value"
        message = f"{shown(name)!r} takes {dtype}: {what} {misfit.why}"
        raise InvalidRequest(message, param=name) from None


def _only(document: Document, key: str, specs: Specs, value: Any) -> dict[str, Tensor]:
    """Read the one tensor of a signature, which needs no name."""
    if len(specs) > 1:
        raise InvalidRequest(
            f"{key!r} holds values without names, but this signature has several: {names(specs)}",
            param=key,
        )
    ((name, spec),) = specs.items()
    return {name: read_tensor(document, name, spec, value)}


def _columns(key: str, rows: list[Any], specs: Specs) -> dict[str, list[Any]]:
    """Turn rows of objects into a list for each name."""
    if set(map(type, rows)) == {dict} and set(map(len, rows)) == {len(specs)}:
        try:
            return {name: list(map(itemgetter(name), rows)) for name in specs}
        except KeyError:
            pass
    raise _bad_row(key, rows, specs)


def _bad_row(key: str, rows: list[Any], specs: Specs) -> InvalidRequest:
    """Say which row has other keys; only called once one is known to have."""
    index, row = next(
        (index, row)
        for index, row in enumerate(rows)
        if not _is_record(row) or row.keys() != specs.keys()
    )
    where = f"row {index} of {key!r}"
    if not _is_record(row):
        return InvalidRequest(f"{where} is no object, but the first row is one", param=key)
    missing = sorted(specs.keys() - row.keys())
    if missing:
        return InvalidRequest(f"{where} lacks {shown(missing[0])!r}", param=missing[0])
    extra = min(row.keys() - specs.keys())
    return InvalidRequest(
        f"{where} has {shown(extra)!r}, which this signature does not: {names(specs)}", param=extra
    )


def _is_record(value: Any) -> bool:
    """Whether an object holds values by name, rather than one string in base64."""
    return type(value) is dict and not values.is_base64(value)
