"""float32 in the digits that TF Serving's REST API writes.

Its writer (`util/json_tensor.cc`) tries six significant digits and takes nine where these do not
read back as the same float32: 0.1, and not 0.10000000149011612, which is the same number as a
double. A JSON reader that takes numbers for doubles sees a difference between the two, so the rule
is kept to the digit. Not kept is the notation: 9e+06 is 9000000.0 here, the same double.
"""

from __future__ import annotations

from array import array

_CHUNK = 2**14  # values at a time: their text is some 14 bytes each


def short(numbers: array[float]) -> list[float]:
    """Return doubles whose shortest text is the short text of the float32s in `numbers`."""
    done: list[float] = []
    for at in range(0, len(numbers), _CHUNK):
        done += _short(numbers[at : at + _CHUNK])
    return done


def _short(numbers: array[float]) -> list[float]:
    six = _rounded("%.6g ", numbers)
    read_back = array("f", six)
    if read_back == numbers:
        return six
    nine = _rounded("%.9g ", numbers)
    return [
        few if same == number else many
        for few, many, same, number in zip(six, nine, read_back, numbers, strict=True)
    ]


def _rounded(form: str, numbers: array[float]) -> list[float]:
    """Write all numbers in one go and read the text again; both loops are C's."""
    return list(map(float, (form * len(numbers) % tuple(numbers)).split()))
