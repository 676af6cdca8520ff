"""What is wrong with values in JSON, in the order and the words of TF Serving.

Source of order and texts: its `util/json_tensor.cc`. Rules: only called once a body is known to be
wrong; what is right is passed over in chunks, by the readers themselves; nothing recurs. TF Serving
repeats the value, and so is it here, shortened: such an error says that it `quotes`. Where those
texts leave out which tensor it is, its name is added in brackets at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from gateway.errors import GatewayError, InvalidRequest, Unsupported, shown
from gateway.protocols.tensors import nesting, values
from gateway.protocols.tensors.reading import excerpt
from gateway.protocols.tensors.types import DType, Kind, TensorSpec
from gateway.protocols.tensors.values import Hints

Specs = Mapping[str, TensorSpec]
Shape = tuple[int, ...]
_CHUNK = 1024  # rows, or items of a list, at a time
_TYPES: Mapping[type, str] = {
    dict: "Object",
    list: "Array",
    str: "String",
    int: "Number",
    float: "Number",
    type(None): "Null",
}


class Fault(NamedTuple):
    """What is wrong with one tensor's value. `unsupported`: its dtype has no form in JSON."""

    text: str
    unsupported: bool = False


def in_column(name: str, spec: TensorSpec, value: Any, hints: Hints, noun: str) -> GatewayError:
    """Return the error for the value of one tensor."""
    fault = _of_value(spec.dtype, value, hints) or Fault(f"{shown(name)!r} is no {spec.dtype}")
    kind = Unsupported if fault.unsupported else InvalidRequest
    return kind(f'{fault.text} ({noun} "{shown(name)}")', param=name, quotes=True)


def in_rows(key: str, rows: list[Any], specs: Specs, hints: Hints, noun: str) -> GatewayError:
    """Return the error for a list of rows: bare values, or objects that hold one by name."""
    records = is_record(rows[0])
    find = _of_record if records else _of_row
    first = rows[0] if records else dict.fromkeys(specs, rows[0])
    shapes = {name: _promised(value) for name, value in first.items()}
    for index, row in _suspects(rows, specs, hints):
        if is_record(row) is not records:
            wanted, got = ("object", "list") if records else ("value/list", "object")
            return InvalidRequest(f"Expecting {wanted} but got {got} at item {index} of input list")
        error = find(row, specs, hints, shapes)
        if error is not None:
            tail = "" if records else f' ({noun} "{shown(error.name)}")'
            where = f"{index}{error.at} of {key!r} list"
            text = f"Failed to process element: {where}. {error.text}{tail}"
            return InvalidRequest(text, param=error.name, quotes=True)
    return InvalidRequest(f"{key!r} can't be read as {', '.join(map(shown, specs))}", param=key)


class _OfRow(NamedTuple):
    """What is wrong with one row, with which tensor, and `at` which key of the row."""

    text: str
    name: str
    at: str = ""


def is_record(value: Any) -> bool:
    """Whether an object holds values by name, rather than one string in base64."""
    return type(value) is dict and not values.is_base64(value)


def _suspects(rows: list[Any], specs: Specs, hints: Hints) -> Iterator[tuple[int, Any]]:
    """Yield the rows of chunks that the readers do not take, each chunk together with row 0."""
    for at in range(0, len(rows), _CHUNK):
        chunk = rows[at : at + _CHUNK]
        if not _is_sound([rows[0], *chunk], specs, hints):
            yield from enumerate(chunk, at)


def _is_sound(rows: list[Any], specs: Specs, hints: Hints) -> bool:
    columns = {next(iter(specs)): rows}
    if is_record(rows[0]):
        if not all(is_record(row) and row.keys() == specs.keys() for row in rows):
            return False
        columns = {name: [row[name] for row in rows] for name in specs}
    try:
        for name, column in columns.items():
            dtype = specs[name].dtype
            if not dtype.json:
                return False
            values.from_json(dtype, nesting.flatten(column)[1], hints)
    except (nesting.Ragged, values.Misfit):
        return False
    return True


def _of_row(row: Any, specs: Specs, hints: Hints, shapes: Mapping[str, Shape]) -> _OfRow | None:
    name = next(iter(specs))
    fault = _beside_others(name, row, specs, hints, shapes)
    return None if fault is None else _OfRow(f"Error: {fault}", name)


def _of_record(
    row: dict[str, Any], specs: Specs, hints: Hints, shapes: Mapping[str, Shape]
) -> _OfRow | None:
    for name, value in row.items():
        fault = _beside_others(name, value, specs, hints, shapes)
        if fault is not None:
            return _OfRow(f"Error: {fault}", name, f" key: {shown(name)}")
    if row.keys() != specs.keys():
        wanted = ",".join(shown(name) for name in sorted(specs))
        missing = min(specs.keys() - row.keys())
        text = f"JSON object: {excerpt(row)} keys must be equal to: {wanted}"
        return _OfRow(text, missing)
    return None


def _beside_others(
    name: str, value: Any, specs: Specs, hints: Hints, shapes: Mapping[str, Shape]
) -> str | None:
    """Say what is wrong with one row's value, by itself or beside the first row's."""
    spec = specs.get(name)
    if spec is None:
        return f"INVALID_ARGUMENT: JSON object: does not have named input: {shown(name)}"
    fault = _of_value(spec.dtype, value, hints)
    if fault is not None:
        return f"{'UNIMPLEMENTED' if fault.unsupported else 'INVALID_ARGUMENT'}: {fault.text}"
    got = _promised(value)
    first = shapes.get(name, got)
    if math.prod(got) != math.prod(first):
        return (
            f"INVALID_ARGUMENT: Expecting tensor size: {math.prod(first)} but got: {math.prod(got)}"
        )
    if got != first:
        return f"INVALID_ARGUMENT: Expecting shape {_label(first)} but got: {_label(got)}"
    return None


def _label(shape: Shape) -> str:
    return f"[{','.join(map(str, shape))}]"


def _promised(value: Any) -> Shape:
    """Return the shape that the first values promise."""
    shape: list[int] = []
    while type(value) is list:
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(shape)


def _of_value(dtype: DType, value: Any, hints: Hints) -> Fault | None:
    """Find the first fault in reading order."""
    shape = _promised(value)
    levels: list[Iterator[Any]] = [iter((value,))]
    while levels:
        level = len(levels) - 1
        item = next(levels[-1], levels)
        if item is levels:
            levels.pop()
        elif type(item) is not list:
            fault = _of_leaf(dtype, item, level, shape, hints)
            if fault is not None:
                return fault
        elif level >= len(shape):
            return Fault(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
        elif len(item) != shape[level]:
            return Fault(
                f"Encountered list at unexpected size: {len(item)} at level: {level} "
                f"expected size: {shape[level]}"
            )
        else:
            odd = _first_odd(dtype, item, shape[level + 1 :], hints)
            levels.append(islice(item, odd, None))
    return None


def _first_odd(dtype: DType, items: list[Any], inner: Shape, hints: Hints) -> int:
    """Return how many of a list's items need no look: those of chunks that the readers take."""
    if not dtype.json:
        return 0
    for at in range(0, len(items), _CHUNK):
        try:
            shape, flat = nesting.flatten(items[at : at + _CHUNK])
            if shape[1:] != inner:
                return at
            values.from_json(dtype, flat, hints)
        except (nesting.Ragged, values.Misfit):
            return at
    return len(items)


def _of_leaf(dtype: DType, value: Any, level: int, shape: Shape, hints: Hints) -> Fault | None:
    if level != len(shape):
        return Fault(
            f"JSON Value: {excerpt(value)} found at incorrect level: {level + 1} in the JSON DOM. "
            f"Expected at level: {len(shape)}"
        )
    if not dtype.json and type(value) is not dict:
        text = f"Conversion of JSON Value: {excerpt(value)} to type: {dtype.label}"
        return Fault(text, unsupported=True)
    try:
        if dtype.json:
            values.from_json(dtype, [value], hints)
            return None
    except values.Misfit:
        pass
    if dtype.kind is Kind.STRING and type(value) is dict:
        if values.is_base64(value):
            return Fault("Unable to base64 decode")
        return Fault(f"JSON Value: {excerpt(value)} not formatted correctly for base64 data")
    name = str(value) if type(value) is bool else _TYPES[type(value)]
    return Fault(
        f"JSON Value: {excerpt(value)} Type: {name} is not of expected type: {dtype.label}"
    )
