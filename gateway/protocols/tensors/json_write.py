"""Named tensors into JSON text, in rows or in columns.

Text is compact, without the line breaks that TF Serving puts in. What it keeps: whole floats have
`.0`, NaN and infinities are bare words, integers have all their digits, and strings that are not
UTF-8 go out byte by byte, as TF Serving sends them (a name that ends in `_bytes` avoids that).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.errors import InvalidRequest, Unsupported, shown
from gateway.protocols.tensors import nesting, values
from gateway.protocols.tensors.types import DType, Kind, Tensor

BYTES_SUFFIX = "_bytes"

_STRICT = msgspec.json.Encoder()
_LENIENT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)


class Values(msgspec.Struct, frozen=True):
    """JSON values of one or more tensors. `strict`: an encoder of plain JSON may write them."""

    value: Any
    strict: bool


def encode(members: Mapping[str, Any], strict: bool) -> bytes:
    """Write a body."""
    if strict:
        return _STRICT.encode(members)
    return _LENIENT.encode(members).encode("utf-8", "surrogateescape")


def write_tensor(name: str, tensor: Tensor, *, exactly: bool = False) -> Values:
    """Nest a tensor's values; `exactly` for another server's reader rather than for a client's.

    Raises `Unsupported` for a shape that JSON can't hold here. The dtype must have a JSON form.
    """
    flat, strict = _flat(name, tensor, exactly)
    try:
        return Values(nesting.nest(flat, tensor.shape), strict)
    except ValueError:
        raise Unsupported(
            f"{shown(name)!r} has more than {nesting.MAX_LISTS} lists as JSON; use gRPC", param=name
        ) from None


def write_columns(tensors: Mapping[str, Tensor]) -> Values:
    """Write each tensor whole: by name where there are several, bare where there is one.

    Raises `InvalidRequest` for a dtype without a JSON form, and `Unsupported`.
    """
    columns = _columns(tensors)
    strict = all(column.strict for column in columns.values())
    if len(columns) == 1:
        return Values(next(iter(columns.values())).value, strict)
    return Values({name: column.value for name, column in columns.items()}, strict)


def write_rows(tensors: Mapping[str, Tensor]) -> Values:
    """Write an item for each row: an object where there are several tensors, else a bare value.

    Raises `InvalidRequest` for scalars, for tensors with different numbers of rows, and for a
    dtype without a JSON form; and `Unsupported`.
    """
    _check_rows(tensors)
    columns = _columns(tensors)
    strict = all(column.strict for column in columns.values())
    if len(columns) == 1:
        return Values(next(iter(columns.values())).value, strict)
    rows = zip(*(column.value for column in columns.values()), strict=True)
    return Values([dict(zip(columns, row, strict=True)) for row in rows], strict)


def _columns(tensors: Mapping[str, Tensor]) -> dict[str, Values]:
    for name, tensor in tensors.items():
        if not tensor.dtype.json:
            raise _no_form(name, tensor.dtype)
    return {name: write_tensor(name, tensor) for name, tensor in tensors.items()}


def _no_form(name: str, dtype: DType) -> InvalidRequest:
    # INVALID_ARGUMENT for an answer, where a request of that dtype is UNIMPLEMENTED: TF Serving's.
    return InvalidRequest(
        f"the output {shown(name)!r} is of type {dtype}, which the REST API can't write; use gRPC",
        param=name,
    )


def _check_rows(tensors: Mapping[str, Tensor]) -> None:
    rows: int | None = None
    for name, tensor in tensors.items():
        if not tensor.shape:
            raise InvalidRequest(
                f"the output {shown(name)!r} is a scalar and has no rows; send the request in "
                "columnar form ('inputs' in place of 'instances')",
                param=name,
            )
        if rows is not None and tensor.shape[0] != rows:
            raise InvalidRequest(
                f"the output {shown(name)!r} has {tensor.shape[0]} rows where another has {rows}; "
                "send the request in columnar form ('inputs' in place of 'instances')",
                param=name,
            )
        rows = tensor.shape[0]


def _flat(name: str, tensor: Tensor, exactly: bool) -> tuple[Sequence[Any], bool]:
    if exactly:
        return values.to_json_exactly(tensor.dtype, tensor.data)
    as_bytes = tensor.dtype.kind is Kind.STRING and name.endswith(BYTES_SUFFIX)
    return values.to_json(tensor.dtype, tensor.data, as_bytes)
