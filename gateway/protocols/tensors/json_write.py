"""Named tensors into JSON text, in rows or in columns.

Text is compact, without the line breaks that TF Serving puts in. What it keeps: the digits of
floats, NaN and infinities as bare words, integers to the last digit, and strings that are not UTF-8
go out byte by byte, as TF Serving sends them (a name that ends in `_bytes` avoids that).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.errors import InvalidRequest, Unsupported, shown
from gateway.protocols.tensors import floats, nesting, values
from gateway.protocols.tensors.types import DType, Kind, Tensor

BYTES_SUFFIX = "_bytes"

_ENCODER = msgspec.json.Encoder()


def encode(members: Mapping[str, Any]) -> bytes:
    """Write a body."""
    return _ENCODER.encode(members)


def write_tensor(name: str, tensor: Tensor, *, exactly: bool = False) -> Any:
    """Nest a tensor's values; `exactly` for another server's reader rather than for a client's.

    Raises `Unsupported` for a shape that JSON can't hold here. The dtype must have a JSON form.
    """
    try:
        if tensor.dtype.kind is Kind.FLOAT:
            return _write_floats(tensor, exactly)
        return nesting.nest(_flat(name, tensor, exactly), tensor.shape)
    except ValueError:
        raise _too_many_lists(name) from None


def write_columns(tensors: Mapping[str, Tensor]) -> Any:
    """Write each tensor whole: by name where there are several, bare where there is one.

    Raises `InvalidRequest` for a dtype without a JSON form, and `Unsupported`.
    """
    _check_dtypes(tensors)
    columns = {name: write_tensor(name, tensor) for name, tensor in tensors.items()}
    return next(iter(columns.values())) if len(columns) == 1 else columns


def write_rows(tensors: Mapping[str, Tensor]) -> Any:
    """Write an item for each row: an object where there are several tensors, else a bare value.

    Raises `InvalidRequest` for scalars, for tensors with different numbers of rows, and for a
    dtype without a JSON form; and `Unsupported`.
    """
    _check_rows(tensors)
    if len(tensors) == 1:
        return write_columns(tensors)
    _check_dtypes(tensors)
    columns = [_rows(name, tensor) for name, tensor in tensors.items()]
    return [dict(zip(tensors, row, strict=True)) for row in zip(*columns, strict=True)]


def _rows(name: str, tensor: Tensor) -> Sequence[Any]:
    if tensor.dtype.kind is not Kind.FLOAT or 0 in tensor.shape:
        rows: Sequence[Any] = write_tensor(name, tensor)
        return rows
    try:
        texts = nesting.nest_text(_texts(tensor), tensor.shape)
    except ValueError:
        raise _too_many_lists(name) from None
    return [msgspec.Raw(text.encode("ascii")) for text in texts]


def _write_floats(tensor: Tensor, exactly: bool) -> Any:
    """Write floats in TF Serving's digits or, ten times as fast, in those of doubles."""
    if 0 in tensor.shape:
        return nesting.nest((), tensor.shape)
    numbers = values.numbers_of(tensor.dtype, tensor.data)
    if exactly and math.isfinite(sum(numbers)):
        return nesting.nest(numbers.tolist(), tensor.shape)
    if not tensor.shape:
        return floats.raws(numbers)[0]
    rows = nesting.nest_text(floats.texts(numbers), tensor.shape)
    return msgspec.Raw(f"[{','.join(rows)}]".encode("ascii"))


def _texts(tensor: Tensor) -> list[str]:
    return floats.texts(values.numbers_of(tensor.dtype, tensor.data))


def _too_many_lists(name: str) -> Unsupported:
    return Unsupported(
        f"{shown(name)!r} has more than {nesting.MAX_LISTS} lists as JSON; use gRPC", param=name
    )


def _check_dtypes(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not tensor.dtype.json:
            raise _no_form(name, tensor.dtype)


def _no_form(name: str, dtype: DType) -> InvalidRequest:
    # INVALID_ARGUMENT for an answer, where a request of that dtype is UNIMPLEMENTED: TF Serving's.
    return InvalidRequest(
        f"Failed to write JSON value for tensor type: {dtype.label} (output {shown(name)!r}); "
        "ask for it over gRPC",
        param=name,
    )


def _check_rows(tensors: Mapping[str, Tensor]) -> None:
    rows: int | None = None
    for name, tensor in tensors.items():
        if not tensor.shape:
            raise InvalidRequest(
                f"Tensor name: {shown(name)} has no shape information; ask in columnar form "
                "('inputs' in place of 'instances')",
                param=name,
            )
        if rows is not None and tensor.shape[0] != rows:
            raise InvalidRequest(
                f"Tensor name: {shown(name)} has inconsistent batch size: {tensor.shape[0]} "
                f"expecting: {rows}",
                param=name,
            )
        rows = tensor.shape[0]


def _flat(name: str, tensor: Tensor, exactly: bool) -> Sequence[Any]:
    if exactly:
        return values.to_json_exactly(tensor.dtype, tensor.data)
    as_bytes = tensor.dtype.kind is Kind.STRING and name.endswith(BYTES_SUFFIX)
    return values.to_json(tensor.dtype, tensor.data, as_bytes)
