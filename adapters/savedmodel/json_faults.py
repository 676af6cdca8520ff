"""What is wrong with a tensor in JSON, in the order and the words of TensorFlow Serving.

Pure, and slow on purpose: it goes value by value, and only once a body is known to be wrong. Source
of order and texts: its json_tensor. Where a signature has several inputs and those texts leave out
which it is, its name is added in brackets at the end.
"""

import math
from collections.abc import Mapping
from typing import Any

from adapters.savedmodel import base64_strings
from adapters.savedmodel.base64_strings import is_base64
from adapters.savedmodel.json_reader import excerpt, type_name
from adapters.savedmodel.signature import Signature, TensorSpec, dtype_label, shape_label
from adapters.savedmodel.status import Code, ServingError, invalid_argument

INTEGERS: Mapping[str, tuple[int, int]] = {
    f"{sign}int{bits}": (0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for sign, bits in (
        ("", 8), ("", 16), ("", 32), ("", 64), ("u", 8), ("u", 32), ("u", 64),
    )
}  # fmt: skip
"""The integer dtypes that have a JSON form, with their bounds; uint16 has none there."""

Shape = tuple[int, ...]


def column_fault(value: Any, spec: TensorSpec, alone: bool, reason: str) -> ServingError:
    """The error for one input's value.

    Args:
        value: the JSON value.
        spec: the input.
        alone: the signature has no other input.
        reason: what to say where each value by itself is fine.
    """
    fault = _fault(value, spec.dtype)
    if fault is None:
        return invalid_argument(
            f'input "{spec.alias}": JSON Value: {excerpt(value)} can\'t be read as '
            f"{dtype_label(spec.dtype)}: {reason}"
        )
    if alone:
        return fault
    return ServingError(fault.code, f'{fault.message} (input "{spec.alias}")')


def row_fault(rows: list[Any], signature: Signature, reason: str) -> ServingError:
    """The error for a list of `instances`; see `column_fault`."""
    records = _is_record(rows[0])
    shapes: dict[str, Shape] = {}
    for index, row in enumerate(rows):
        if records is not _is_record(row):
            wanted, got = ("object", "list") if records else ("value/list", "object")
            return invalid_argument(
                f"Expecting {wanted} but got {got} at item {index} of input list"
            )
        find = _record_fault if records else _plain_fault
        error = find(index, row, signature, shapes)
        if error is not None:
            return error
    return invalid_argument(
        f"'instances' can't be read as {', '.join(sorted(signature.inputs))}: {reason}"
    )


def _plain_fault(
    index: int, row: Any, signature: Signature, shapes: dict[str, Shape]
) -> ServingError | None:
    fault = _item_fault(row, next(iter(signature.inputs)), signature, shapes)
    if fault is None:
        return None
    return invalid_argument(
        f"Failed to process element: {index} of 'instances' list. "
        f"Error: {fault.code.name}: {fault.message}"
    )


def _record_fault(
    index: int, row: dict[str, Any], signature: Signature, shapes: dict[str, Shape]
) -> ServingError | None:
    for alias, value in row.items():
        fault = _item_fault(value, alias, signature, shapes)
        if fault is not None:
            return invalid_argument(
                f"Failed to process element: {index} key: {alias[:256]} of 'instances' list. "
                f"Error: {fault.code.name}: {fault.message}"
            )
    if row.keys() != signature.inputs.keys():
        return invalid_argument(
            f"Failed to process element: {index} of 'instances' list. JSON object: "
            f"{excerpt(row)} keys must be equal to: {','.join(sorted(signature.inputs))}"
        )
    return None


def _item_fault(
    value: Any, alias: str, signature: Signature, shapes: dict[str, Shape]
) -> ServingError | None:
    """What is wrong with one row's value, by itself or beside the first row's."""
    spec = signature.inputs.get(alias)
    if spec is None:
        return invalid_argument(f"JSON object: does not have named input: {alias[:256]}")
    fault = _fault(value, spec.dtype)
    if fault is not None:
        return fault
    got = _shape(value)
    want = shapes.setdefault(alias, got)
    if math.prod(got) != math.prod(want):
        return invalid_argument(
            f"Expecting tensor size: {math.prod(want)} but got: {math.prod(got)}"
        )
    if got != want:
        return invalid_argument(f"Expecting shape {shape_label(want)} but got: {shape_label(got)}")
    return None


def _fault(value: Any, dtype: str) -> ServingError | None:
    return _walk(value, 0, _shape(value), dtype)


def _shape(value: Any) -> Shape:
    """The shape that the first values promise."""
    shape: list[int] = []
    while type(value) is list:
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(shape)


def _walk(value: Any, level: int, shape: Shape, dtype: str) -> ServingError | None:
    """The first fault in reading order. Recursion is as deep as the body, which is bounded."""
    if type(value) is not list:
        if level != len(shape):
            return invalid_argument(
                f"JSON Value: {excerpt(value)} found at incorrect level: {level + 1} in the JSON "
                f"DOM. Expected at level: {len(shape)}"
            )
        return _value_fault(value, dtype)
    if level >= len(shape):
        return invalid_argument(
            f"Encountered list at unexpected level: {level} expected < {len(shape)}"
        )
    if len(value) != shape[level]:
        return invalid_argument(
            f"Encountered list at unexpected size: {len(value)} at level: {level} "
            f"expected size: {shape[level]}"
        )
    for item in value:
        fault = _walk(item, level + 1, shape, dtype)
        if fault is not None:
            return fault
    return None


def _value_fault(value: Any, dtype: str) -> ServingError | None:
    kind = type(value)
    if kind is dict and dtype == "string":
        return _base64_fault(value)
    accepts = (int,) if dtype in INTEGERS else _ACCEPTS.get(dtype)
    if accepts is None and kind is not dict:
        return ServingError(
            Code.UNIMPLEMENTED,
            f"Conversion of JSON Value: {excerpt(value)} to type: {dtype_label(dtype)}",
        )
    fits = accepts is not None and kind in accepts
    if fits and dtype in INTEGERS:
        low, high = INTEGERS[dtype]
        fits = low <= value <= high
    if fits:
        return None
    return invalid_argument(
        f"JSON Value: {excerpt(value)} Type: {type_name(value)} is not of expected "
        f"type: {dtype_label(dtype)}"
    )


def _base64_fault(value: dict[str, Any]) -> ServingError | None:
    try:
        base64_strings.decode(value)
    except ServingError as error:
        return error
    return None


def _is_record(value: Any) -> bool:
    return type(value) is dict and not is_base64(value)


_ACCEPTS: Mapping[str, tuple[type, ...]] = {
    "float32": (int, float),
    "float64": (int, float),
    "bool": (bool,),
    "string": (str,),
}
