"""JSON request bodies to named arrays: TensorFlow Serving's row form (`instances`) and columnar
form (`inputs`).

Pure numpy. Rules: shapes, types and lengths are checked on whole levels at once (`set(map(len,
level))`), never value by value in Python; only once something is wrong are the rows gone through
one by one, to say which. A number with a fraction or an exponent is no integer, `true` is no
number, and nothing is rounded in silence.
"""

import base64
import binascii
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapters.savedmodel.json_reader import excerpt
from adapters.savedmodel.signature import (
    DEFAULT_SIGNATURE,
    Signature,
    TensorSpec,
    dtype_label,
    shape_label,
)
from adapters.savedmodel.status import Code, ServingError, invalid_argument

Array = Any
"""A numpy array.

Numpy is not installed where the gateway is type-checked, so the name stays loose.
"""

_BLANK = re.compile(r"\s+")
_JSON_NAMES = {
    dict: "Object",
    list: "Array",
    str: "String",
    int: "Number",
    float: "Number",
    type(None): "Null",
}


@dataclass(frozen=True, slots=True)
class _Rule:
    """Which JSON types a dtype takes, and how a flat list of such values becomes an array."""

    accepts: frozenset[type]
    build: Callable[[list[Any]], Array]


@dataclass(frozen=True, slots=True)
class PredictBody:
    """A decoded predict request: `row` tells the form, which the reply repeats."""

    signature: Signature
    inputs: dict[str, Array]
    row: bool


def signature_name(document: Mapping[str, Any]) -> str:
    """The signature a body asks for, `serving_default` where it names none.

    Raises:
        ServingError: INVALID_ARGUMENT where `signature_name` is no string.
    """
    name = document.get("signature_name", "")
    if type(name) is not str:
        raise invalid_argument(
            f"JSON Value: {excerpt(document)} not formatted correctly. 'signature_name' key must "
            "be a string value."
        )
    return name or DEFAULT_SIGNATURE


def read_predict(document: Mapping[str, Any], signatures: Mapping[str, Signature]) -> PredictBody:
    """Turns a parsed body into arrays for the signature that it names.

    Raises:
        ServingError: INVALID_ARGUMENT with the row, the input and what was expected; UNIMPLEMENTED
            for a dtype that
            has no JSON form (half, bfloat16, complex).
    """
    name = signature_name(document)
    signature = signatures.get(name)
    if signature is None:
        raise invalid_argument(f'Serving signature name: "{name}" not found in signature def')
    if not signature.inputs:
        raise invalid_argument(f"Failed to get input map for signature: {name}")
    has_rows, has_columns = "instances" in document, "inputs" in document
    if has_rows and has_columns:
        raise invalid_argument(
            f"JSON Value: {excerpt(document)} Not formatted correctly expecting only one of "
            "'inputs' or "
            "'instances' keys to exist "
        )
    if has_rows:
        return PredictBody(
            signature, _read_rows(document["instances"], document, signature), row=True
        )
    if has_columns:
        return PredictBody(signature, _read_columns(document["inputs"], signature), row=False)
    raise invalid_argument("Missing 'inputs' or 'instances' key")


def _read_rows(rows: Any, document: Mapping[str, Any], signature: Signature) -> dict[str, Array]:
    if type(rows) is not list:
        raise invalid_argument(
            f"JSON Value: {excerpt(document)} Expecting 'instances' to be an list/array"
        )
    if not rows:
        raise invalid_argument(f"JSON Value: {excerpt(document)} No values in 'instances' array")
    if _is_record(rows[0]):
        return _read_records(rows, signature)
    if len(signature.inputs) > 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per "
            f"tensorinfo_map: {','.join(sorted(signature.inputs))}"
        )
    spec = next(iter(signature.inputs.values()))
    return {spec.alias: _stack(rows, spec, "")}


def _read_records(rows: list[Any], signature: Signature) -> dict[str, Array]:
    wanted = signature.inputs.keys()
    for index, row in enumerate(rows):
        if not _is_record(row):
            raise invalid_argument(f"Expecting object but got list at item {index} of input list")
        if row.keys() != wanted:
            unknown = sorted(row.keys() - wanted)
            if unknown:
                raise invalid_argument(
                    f"Failed to process element: {index} key: {unknown[0][:256]} of 'instances' "
                    "list. Error: "
                    f"INVALID_ARGUMENT: JSON object: does not have named input: {unknown[0][:256]}"
                )
            raise invalid_argument(
                f"Failed to process element: {index} of 'instances' list. JSON object: "
                f"{excerpt(row)} keys must be "
                f"equal to: {','.join(sorted(wanted))}"
            )
    return {
        alias: _stack([row[alias] for row in rows], spec, f" key: {alias}")
        for alias, spec in signature.inputs.items()
    }


def _read_columns(columns: Any, signature: Signature) -> dict[str, Array]:
    if _is_record(columns):
        missing = sorted(signature.inputs.keys() - columns.keys())
        if missing:
            raise invalid_argument(f"Missing named input: {missing[0]} in 'inputs' object.")
        return {alias: tensor(columns[alias], spec) for alias, spec in signature.inputs.items()}
    if len(signature.inputs) > 1:
        raise invalid_argument(
            "inputs is a plain value/list, but expecting an object as multiple input tensors "
            "required as per "
            f"tensorinfo_map: {','.join(sorted(signature.inputs))}"
        )
    spec = next(iter(signature.inputs.values()))
    return {spec.alias: tensor(columns, spec)}


def _stack(rows: list[Any], spec: TensorSpec, key: str) -> Array:
    """All rows of one input as one array.

    On an error, goes through the rows to say which one it is.
    """
    try:
        return tensor(rows, spec)
    except ServingError as error:
        failure = error
    first: tuple[int, ...] | None = None
    for index, row in enumerate(rows):
        where = f"Failed to process element: {index}{key} of 'instances' list. Error: "
        if _is_record(row) and not key:
            raise invalid_argument(
                f"Expecting value/list but got object at item {index} of input list"
            )
        try:
            shape = tensor(row, spec).shape
        except ServingError as error:
            raise ServingError(error.code, f"{where}{error.code.name}: {error.message}") from None
        if first is None:
            first = shape
        elif shape != first:
            raise invalid_argument(
                f"{where}INVALID_ARGUMENT: Expecting shape {shape_label(first)} but got: "
                f"{shape_label(shape)}"
            )
    raise failure


def tensor(value: Any, spec: TensorSpec) -> Array:
    """One JSON value (a scalar, or lists nested evenly) as an array of the input's dtype.

    Raises:
        ServingError: INVALID_ARGUMENT for ragged lists, a wrong type, a number out of range or
            broken base64;
            UNIMPLEMENTED for a dtype without a JSON form.
    """
    shape, flat = _flatten(value)
    rule = _RULES.get(spec.dtype)
    if rule is None:
        shown = excerpt(flat[0] if flat else value)
        raise ServingError(
            Code.UNIMPLEMENTED,
            f"Conversion of JSON Value: {shown} to type: {dtype_label(spec.dtype)}",
        )
    if not rule.accepts.issuperset(map(type, flat)):
        wrong = next(item for item in flat if type(item) not in rule.accepts)
        raise _type_error(wrong, spec.dtype)
    try:
        return rule.build(flat).reshape(shape)
    except (OverflowError, ValueError) as error:
        raise invalid_argument(
            f"JSON Value: {excerpt(value)} can't be read as {dtype_label(spec.dtype)}: {error}"
        ) from None


def _flatten(value: Any) -> tuple[tuple[int, ...], list[Any]]:
    """The shape of evenly nested lists and their values in order, one whole level at a time."""
    shape: list[int] = []
    level = [value]
    while level:
        kinds = set(map(type, level))
        if list not in kinds:
            break
        if len(kinds) > 1:
            odd = next(item for item in level if type(item) is not list)
            raise invalid_argument(
                f"JSON Value: {excerpt(odd)} found at incorrect level: {len(shape) + 1} in the "
                "JSON DOM. "
                "Expected a list there, as beside it"
            )
        lengths = set(map(len, level))
        if len(lengths) > 1:
            want = len(level[0])
            odd = next(item for item in level if len(item) != want)
            raise invalid_argument(
                f"Encountered list at unexpected size: {len(odd)} at level: {len(shape)} expected "
                f"size: {want}"
            )
        shape.append(lengths.pop())
        level = list(itertools.chain.from_iterable(level))
    return tuple(shape), level


def _is_record(value: Any) -> bool:
    """An object that is not the base64 form of a string."""
    return type(value) is dict and not _is_base64(value)


def _is_base64(value: dict[str, Any]) -> bool:
    return len(value) == 1 and type(value.get("b64")) is str


def _type_error(value: Any, dtype: str) -> ServingError:
    found = str(value) if type(value) is bool else _JSON_NAMES[type(value)]
    return invalid_argument(
        f"JSON Value: {excerpt(value)} Type: {found} is not of expected type: {dtype_label(dtype)}"
    )


def _floats(dtype: str) -> _Rule:
    def build(flat: list[Any]) -> Array:
        # A double beyond float32's range becomes infinite, as in TensorFlow Serving; not worth a
        # warning.
        with np.errstate(over="ignore"):
            return np.array(flat, dtype=dtype)

    return _Rule(frozenset({int, float}), build)


def _integers(dtype: str) -> _Rule:
    bounds = np.iinfo(dtype)
    widest = "uint64" if dtype == "uint64" else "int64"

    def build(flat: list[Any]) -> Array:
        wide = np.array(flat, dtype=widest)
        if flat and (int(wide.min()) < bounds.min or int(wide.max()) > bounds.max):
            raise OverflowError(f"outside {bounds.min} to {bounds.max}")
        return wide.astype(dtype, copy=False)

    return _Rule(frozenset({int}), build)


def _strings(flat: list[Any]) -> Array:
    # The dtype must be object: numpy's own bytes type would cut trailing zero bytes off.
    array = np.empty(len(flat), dtype=object)
    array[:] = [item.encode() if type(item) is str else _decode_base64(item) for item in flat]
    return array


def _decode_base64(value: dict[str, Any]) -> bytes:
    if not _is_base64(value):
        raise invalid_argument(
            f"JSON Value: {excerpt(value)} not formatted correctly for base64 data"
        )
    text = _BLANK.sub("", value["b64"]).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid_argument("Unable to base64 decode") from None


_RULES: Mapping[str, _Rule] = {
    "float32": _floats("float32"),
    "float64": _floats("float64"),
    **{
        name: _integers(name)
        for name in ("int8", "int16", "int32", "int64", "uint8", "uint32", "uint64")
    },
    "bool": _Rule(frozenset({bool}), lambda flat: np.array(flat, dtype=bool)),
    "string": _Rule(frozenset({str, dict}), _strings),
}
