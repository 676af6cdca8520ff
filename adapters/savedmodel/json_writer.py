"""Arrays to JSON replies, in TensorFlow Serving's number forms.

Pure numpy. A float is written as C's `%g` writes it with six digits where these name the same
float, else with as many as name it for sure (nine for float32, 17 for float64): 0.1 and not
0.10000000149011612. Where that leaves neither a point nor an exponent, `.0` is added; NaN and
infinities are written bare; integers to the last digit. Only string outputs whose name ends in
`_bytes` are written as base64 objects. The encoder writes most floats the same by itself; the
others go through as text.
"""

import base64
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from adapters.savedmodel.signature import dtype_label
from adapters.savedmodel.status import invalid_argument

Array = Any

_BYTES_SUFFIX = "_bytes"
_RESULTS = "results"
_EXACT_POWERS = 22  # 10^22 is the last power of ten that a double holds exactly
_POWERS = np.array([float(f"1e{power}") for power in range(_EXACT_POWERS + 1)])
_PLAIN = (1e-4, 1e6)  # from here, and below here, `%.6g` writes no exponent
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def write_predict(outputs: Mapping[str, Array], row: bool) -> bytes:
    """The reply to a predict request.

    Args:
        outputs: the arrays by alias; strings are object arrays of bytes.
        row: True for the row form (`predictions`), False for the columnar one (`outputs`).

    Raises:
        ServingError: INVALID_ARGUMENT for no outputs, a scalar or uneven batch sizes in row form,
            or a dtype that has no JSON form.
    """
    if not outputs:
        raise invalid_argument("Cannot convert empty tensor map to JSON")
    if row:
        _check_batch(outputs)
    values = {alias: _to_list(alias, array) for alias, array in outputs.items()}
    if len(values) == 1:
        body = next(iter(values.values()))
    elif row:
        body = [
            dict(zip(values, row_values, strict=True))
            for row_values in zip(*values.values(), strict=True)
        ]
    else:
        body = values
    return msgspec.json.encode({"predictions" if row else "outputs": body})


def write_classes(labels: Array | None, scores: Array | None) -> bytes:
    """The reply to a classify request: for each example the pairs of label and score.

    Args:
        labels: bytes, [examples, classes], or None: then each label is empty.
        scores: float32 of the same shape, or None: then each score is 0.

    Raises:
        ServingError: INVALID_ARGUMENT where there is neither.
    """
    present = labels if labels is not None else scores
    if present is None:
        raise invalid_argument("Cannot convert empty ClassificationResults to JSON")
    zeros = np.zeros(present.shape, np.float32)
    texts = _string_list("", np.full(present.shape, b"", object) if labels is None else labels)
    numbers = _float32_list("", zeros if scores is None else scores)
    rows = [list(zip(*row, strict=True)) for row in zip(texts, numbers, strict=True)]
    return msgspec.json.encode({_RESULTS: rows})


def write_values(values: Array) -> bytes:
    """The reply to a regress request: float32, one for each example."""
    return msgspec.json.encode({_RESULTS: _float32_list("", values)})


def _check_batch(outputs: Mapping[str, Array]) -> None:
    batch: int | None = None
    for alias, array in outputs.items():
        if array.ndim == 0:
            raise invalid_argument(f"Tensor name: {alias} has no shape information ")
        if batch is not None and array.shape[0] != batch:
            raise invalid_argument(
                f"Tensor name: {alias} has inconsistent batch size: {array.shape[0]} "
                f"expecting: {batch}"
            )
        batch = array.shape[0]


def _to_list(alias: str, array: Array) -> Any:
    writer = _WRITERS.get(array.dtype.name)
    if writer is None:
        raise invalid_argument(
            f"Failed to write JSON value for tensor type: {dtype_label(array.dtype.name)} (output "
            f"{alias}); ask for it over gRPC"
        )
    return writer(alias, array)


def shortest(array: Array) -> Array:
    """float32 as doubles whose shortest decimal form is the short form of the float32.

    The form is that of C's `%.6g` where it reads back as the same float32, else that of `%.9g`,
    which always does.
    """
    wide = array.astype(np.float64)
    with np.errstate(all="ignore"):
        exponent = _exponent(wide)
        nine, nine_exact = _round(wide, 8 - exponent)
        six, six_exact = _round(wide, 5 - exponent)
        result: Array = np.where(six.astype(np.float32) == array, six, nine)
        good = nine_exact & six_exact & (result.astype(np.float32) == array)
    odd: Array = ~good & np.isfinite(wide)
    if odd.any():  # tiny and huge values, which doubles can't scale exactly
        result[odd] = [_short_float(value) for value in array[odd]]
    return np.where(np.isfinite(wide), result, wide)


def _exponent(wide: Array) -> Array:
    exponent: Array = np.floor(np.log10(np.abs(wide)))
    return np.where(np.isfinite(exponent), exponent, 0).astype(np.int64)


def _round(values: Array, places: Array) -> tuple[Array, Array]:
    """Values rounded to decimal places each, and where that is exact.

    One rounding of two exact numbers.
    """
    in_reach = np.abs(places) <= _EXACT_POWERS
    power = _POWERS[np.where(in_reach, np.abs(places), 0)]
    rounded = np.where(
        places >= 0, np.rint(values * power) / power, np.rint(values / power) * power
    )
    return rounded, in_reach


def _short_float(value: Any) -> float:
    six = float(f"{value:.6g}")
    return six if np.float32(six) == value else float(f"{value:.9g}")


def _plain_list(_alias: str, array: Array) -> Any:
    return array.tolist()


def _float32_list(_alias: str, array: Array) -> Any:
    with np.errstate(over="ignore"):  # six digits of the largest float32 name none any more
        return _with_texts(shortest(array), _is_plain(array), array, _text_of_float32)


def _float64_list(_alias: str, array: Array) -> Any:
    with np.errstate(all="ignore"):
        six, exact = _round(array, 5 - _exponent(array))
        plain = _is_plain(array) & exact & (six == array)
    return _with_texts(array, plain, array, _text_of_float64)


def _is_plain(array: Array) -> Array:
    """Where a value is 0 or one that is written without an exponent."""
    size = np.abs(array)
    return (size == 0) | ((size >= _PLAIN[0]) & (size < _PLAIN[1]))


def _with_texts(
    values: Array, plain: Array, array: Array, write: Callable[[float], msgspec.Raw]
) -> Any:
    """Nested lists of the values, those that are not plain as text in C's form."""
    if plain.all():
        return values.tolist()
    mixed = values.astype(object)
    mixed[~plain] = _objects(list(map(write, array[~plain].tolist())))
    return mixed.tolist()


def _objects(values: list[Any]) -> Array:
    """A list as a flat array of just these objects; numpy would look into those with a buffer."""
    array = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        array[index] = value
    return array


def _text_of_float32(value: float) -> msgspec.Raw:
    text = f"{value:.6g}"
    return _number(text if np.float32(text) == value else f"{value:.9g}", value)


def _text_of_float64(value: float) -> msgspec.Raw:
    text = f"{value:.6g}"
    return _number(text if float(text) == value else f"{value:.17g}", value)


def _number(text: str, value: float) -> msgspec.Raw:
    if not math.isfinite(value):
        text = _NOT_FINITE[str(value)]
    elif "." not in text and "e" not in text:
        text += ".0"
    return msgspec.Raw(text.encode())


def _string_list(alias: str, array: Array) -> Any:
    form = _base64_object if alias.endswith(_BYTES_SUFFIX) else _text
    texts = _objects([form(value) for value in array.ravel().tolist()])
    return texts.reshape(array.shape).tolist()


def _text(value: bytes) -> str | msgspec.Raw:
    try:
        return value.decode()
    except UnicodeDecodeError:
        # Bytes that are no UTF-8 leave as they are, as TensorFlow Serving sends them; `_bytes` in
        # the name avoids that.
        text = json.dumps(value.decode("utf-8", "surrogateescape"), ensure_ascii=False)
        return msgspec.Raw(text.encode("utf-8", "surrogateescape"))


def _base64_object(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode("ascii")}


_WRITERS: Mapping[str, Callable[[str, Array], Any]] = {
    "float32": _float32_list,
    "float64": _float64_list,
    "object": _string_list,
    **dict.fromkeys(
        ("bool", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"), _plain_list
    ),
}
