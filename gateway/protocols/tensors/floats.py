"""Floats in the digits that TF Serving's REST API writes.

Its writer (`util/json_tensor.cc`, `WriteDecimal`) tries six significant digits, as C's `%g` has
them, and takes as many as name any value (9 for float32, 17 for float64) where six do not read back
as the same one: 0.1, and not 0.10000000149011612; 9e+06; 0.33333333333333331. `.0` follows where
neither a point nor an exponent stands. NaN and infinities are bare words.
"""

from __future__ import annotations

import math
from array import array

import msgspec

_CHUNK = 2**14  # values at a time: their text is some 14 bytes each
_DIGITS = {"f": 9, "d": 17}
_BEYOND = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
# `%g` writes no exponent from 1e-4 and below 1e6, and the encoder for strict JSON none either.
_PLAIN = 10.0**6
_SHORT = 7  # characters of a plain number that has six digits at most
_LONG = 15  # characters of a plain number that surely has more than six


def texts(numbers: array[float]) -> list[str]:
    """Return the text of each number: of float32s in an array of type `f`, else of doubles."""
    write = _texts if numbers.typecode == "f" else _double_texts
    done: list[str] = []
    for at in range(0, len(numbers), _CHUNK):
        done += write(numbers[at : at + _CHUNK])
    return done


def raws(numbers: array[float]) -> list[msgspec.Raw]:
    """Return the same as values for an encoder."""
    return [msgspec.Raw(text.encode("ascii")) for text in texts(numbers)]


def _texts(numbers: array[float]) -> list[str]:
    """Write all numbers in one go and read the text again; both loops are C's."""
    chosen = _written("%.6g", numbers)
    read_back = array(numbers.typecode, map(float, chosen))
    if read_back != numbers:
        many = _written(f"%.{_DIGITS[numbers.typecode]}g", numbers)
        chosen = [
            few if same == number else all_of_it
            for few, all_of_it, same, number in zip(chosen, many, read_back, numbers, strict=True)
        ]
    return _pointed(chosen, numbers)


def _double_texts(numbers: array[float]) -> list[str]:
    """Write doubles. The encoder's shortest text is quick, and often tells that it will do."""
    if not math.isfinite(sum(numbers)) or max(map(abs, numbers), default=0.0) >= _PLAIN:
        return _texts(numbers)
    text = msgspec.json.encode(numbers.tolist()).decode("ascii")[1:-1]
    shortest = text.split(",")
    if max(map(len, shortest)) <= _SHORT and "e" not in text and "0.0000" not in text:
        return shortest
    many = _written("%.17g", numbers)
    chosen = [
        all_of_it if len(short) >= _LONG else _double_text(number)
        for short, all_of_it, number in zip(shortest, many, numbers, strict=True)
    ]
    return _pointed(chosen, numbers)


def _double_text(number: float) -> str:
    few = f"{number:.6g}"
    return few if float(few) == number else f"{number:.17g}"


def _written(form: str, numbers: array[float]) -> list[str]:
    return (f"{form} " * len(numbers) % tuple(numbers)).split()


def _pointed(chosen: list[str], numbers: array[float]) -> list[str]:
    if not math.isfinite(sum(numbers)):  # also where finite ones add up to no finite sum
        chosen = [_BEYOND.get(text, text) for text in chosen]
    return [
        text if "." in text or "e" in text or text[-1] in "Ny" else f"{text}.0" for text in chosen
    ]
