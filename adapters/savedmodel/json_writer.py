"""Arrays to JSON replies, in TensorFlow Serving's number forms.

Pure numpy. A float32 is written with six digits where these name the same float32, else with nine:
0.1 and not 0.10000000149011612. Whole floats keep their `.0`; NaN and infinities are written bare;
integers to the last digit. Only string outputs whose name ends in `_bytes` are written as base64
objects.
"""

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from adapters.savedmodel.signature import dtype_label
from adapters.savedmodel.status import invalid_argument

Array = Any

_BYTES_SUFFIX = "_bytes"
_EXACT_POWERS = 22  # 10^22 is the last power of ten that a double holds exactly
_POWERS = np.array([float(f"1e{power}") for power in range(_EXACT_POWERS + 1)])


def write_predict(outputs: Mapping[str, Array], row: bool) -> bytes:
    """The reply to a predict request.

    Args:
        outputs: the arrays by alias; strings are object arrays of bytes.
        row: True for the row form (`predictions`), False for the columnar one (`outputs`).

    Raises:
        ServingError: INVALID_ARGUMENT for no outputs, a scalar or uneven batch sizes in row form,
            or a dtype that
            has no JSON form.
    """
    if not outputs:
        raise invalid_argument("Cannot convert empty tensor map to JSON")
    if row:
        _check_batch(outputs)
    # Floats that are not finite and strings need the slower writer: the quick one knows neither.
    plain = all(_is_plain(array) for array in outputs.values())
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
    document = {"predictions" if row else "outputs": body}
    if plain:
        return msgspec.json.encode(document)
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogateescape")


def _check_batch(outputs: Mapping[str, Array]) -> None:
    batch: int | None = None
    for alias, array in outputs.items():
        if array.ndim == 0:
            raise invalid_argument(f"Tensor name: {alias} has no shape information ")
        if batch is not None and array.shape[0] != batch:
            raise invalid_argument(
                f"Tensor name: {alias} has inconsistent batch size: {array.shape[0]} expecting: "
                f"{batch}"
            )
        batch = array.shape[0]


def _is_plain(array: Array) -> bool:
    if array.dtype.kind == "f":
        return bool(np.isfinite(array).all())
    return bool(array.dtype.kind in "iub")


def _to_list(alias: str, array: Array) -> Any:
    writer = _WRITERS.get(array.dtype.name)
    if writer is None:
        raise invalid_argument(
            f"Failed to write JSON value for tensor type: {dtype_label(array.dtype.name)} (output "
            f"{alias}); "
            "ask for it over gRPC"
        )
    return writer(alias, array)


def shortest(array: Array) -> Array:
    """float32 as doubles whose shortest decimal form is the short form of the float32.

    The form is that of C's `%.6g` where it reads back as the same float32, else that of `%.9g`,
    which always does.
    """
    wide = array.astype(np.float64)
    with np.errstate(all="ignore"):
        exponent: Array = np.floor(np.log10(np.abs(wide)))
        exponent = np.where(np.isfinite(exponent), exponent, 0).astype(np.int64)
        nine, nine_exact = _round(wide, 8 - exponent)
        six, six_exact = _round(wide, 5 - exponent)
        result: Array = np.where(six.astype(np.float32) == array, six, nine)
        good = nine_exact & six_exact & (result.astype(np.float32) == array)
    odd: Array = ~good & np.isfinite(wide)
    if odd.any():  # tiny and huge values, which doubles can't scale exactly
        result[odd] = [_short_float(value) for value in array[odd]]
    return np.where(np.isfinite(wide), result, wide)


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
    return shortest(array).tolist()


def _string_list(alias: str, array: Array) -> Any:
    form = _base64_object if alias.endswith(_BYTES_SUFFIX) else _text
    texts = np.empty(array.shape, dtype=object)
    texts.ravel()[:] = [form(value) for value in array.ravel().tolist()]
    return texts.tolist()


def _text(value: bytes) -> str:
    # Bytes that are no UTF-8 leave as they are, as TensorFlow Serving sends them; `_bytes` in the
    # name avoids that.
    return value.decode("utf-8", "surrogateescape")


def _base64_object(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode("ascii")}


_WRITERS: Mapping[str, Callable[[str, Array], Any]] = {
    "float32": _float32_list,
    "object": _string_list,
    **dict.fromkeys(
        ("float64", "bool", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"),
        _plain_list,
    ),
}
