"""Single values: what JSON writes for each dtype, and the bytes that a tensor holds for it.

What belongs here: a flat list to `Data` and back, in tables by kind. Rules: C goes over the values
(`array`, `map`), Python only over strings in base64 and over a list that is already known to be
wrong. Numbers follow TF Serving's `util/json_tensor.cc`: integers serve as floats but never the
other way round, a bool is no number, a float beyond float32 becomes infinite; an integer that its
dtype can't hold is refused, where that code leaves some to wrap.
"""

from __future__ import annotations

import binascii
import json
import re
import sys
from array import array
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgspec

from gateway.protocols.tensors.types import Data, DType, Kind

_CHUNK = 4096  # values that are looked at together in search of a wrong one
_SPACE = re.compile(r"[ \t\r\n\v\f]+")
_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a bool",
    int: "an integer",
    float: "a number with a fraction or an exponent",
    type(None): "null",
}
_WANTED = {
    Kind.FLOAT: "a number",
    Kind.INTEGER: "an integer",
    Kind.BOOL: "true or false",
    Kind.STRING: 'a string or {"b64": …}',
}


class Hints(NamedTuple):
    """What is known of the text that values stand in.

    `bools`: there may be some. `strays`: strings may hold bytes that are not UTF-8, as surrogate
    escapes.
    """

    bools: bool = True
    strays: bool = False


class Misfit(Exception):
    """A value that its dtype does not take: which in the flat list, and why."""

    def __init__(self, index: int, why: str) -> None:
        super().__init__(why)
        self.index = index
        self.why = why


def little(numbers: array[Any]) -> array[Any]:
    """Return numbers with the bytes of each in little-endian order, or back in this machine's."""
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def numbers_of(dtype: DType, data: Data) -> array[Any]:
    """Return a tensor's numbers."""
    numbers = array(dtype.typecode)
    numbers.frombytes(cast(bytes, data))
    return little(numbers)


def from_json(dtype: DType, flat: list[Any], hints: Hints) -> Data:
    """Read JSON values, for a dtype that has some. Raises `Misfit`."""
    return _READERS[dtype.kind](dtype, flat, hints)


def to_json(dtype: DType, data: Data, as_bytes: bool) -> Sequence[Any]:
    """Return JSON values of a dtype that is no float; `as_bytes`: strings as base64 objects.

    A string that is not UTF-8 is returned as the text of a JSON string, byte by byte as it is.
    """
    return _WRITERS[dtype.kind](dtype, data, as_bytes)


def to_json_exactly(dtype: DType, data: Data) -> Sequence[Any]:
    """Return the same for another reader of this contract, not for a person's eye.

    Strings go as base64 where one of them is not UTF-8.
    """
    if dtype.kind is not Kind.STRING:
        return to_json(dtype, data, False)
    try:
        return list(map(bytes.decode, cast(tuple[bytes, ...], data)))
    except UnicodeDecodeError:
        return _write_strings(dtype, data, True)


def _read_numbers(dtype: DType, flat: list[Any], hints: Hints) -> bytes:
    if hints.bools and bool in set(map(type, flat)):
        raise _misfit(dtype, flat)
    try:
        return little(array(dtype.typecode, flat)).tobytes()
    except (TypeError, OverflowError):
        raise _misfit(dtype, flat) from None


def _read_bools(dtype: DType, flat: list[Any], hints: Hints) -> bytes:
    if not {bool}.issuperset(map(type, flat)):
        raise _misfit(dtype, flat)
    return bytes(flat)


def _read_strings(dtype: DType, flat: list[Any], hints: Hints) -> tuple[bytes, ...]:
    if {str}.issuperset(map(type, flat)):
        try:
            return tuple(map(str.encode, flat))
        except UnicodeEncodeError:
            pass
    errors = "surrogateescape" if hints.strays else "strict"
    return tuple(_read_string(index, value, errors) for index, value in enumerate(flat))


def _read_string(index: int, value: Any, errors: str) -> bytes:
    if type(value) is str:
        try:
            return value.encode("utf-8", errors)
        except UnicodeEncodeError:
            raise Misfit(index, "has half of a surrogate pair, which is no character") from None
    if not is_base64(value):
        raise Misfit(index, f"is {_NAMES[type(value)]}, where {_WANTED[Kind.STRING]} is expected")
    text = _SPACE.sub("", value["b64"])
    bare = text.rstrip("=")
    padding = -len(bare) % 4
    if len(text) - len(bare) in (0, padding):
        try:
            return binascii.a2b_base64(bare.encode("ascii") + b"=" * padding, strict_mode=True)
        except (binascii.Error, UnicodeEncodeError):
            pass
    raise Misfit(index, "is not base64")


def is_base64(value: Any) -> bool:
    """Whether an object stands for a string: its only key is `b64`, its value a string."""
    return type(value) is dict and len(value) == 1 and type(value.get("b64")) is str


def _misfit(dtype: DType, flat: list[Any]) -> Misfit:
    """Say which value is wrong; only called once one is known to be."""
    takes = _TAKES[dtype.kind]
    for at in range(0, len(flat), _CHUNK):
        chunk = flat[at : at + _CHUNK]
        if takes.issuperset(map(type, chunk)) and _fit(dtype, chunk):
            continue
        for index, value in enumerate(chunk, at):
            if type(value) not in takes:
                return Misfit(
                    index, f"is {_NAMES[type(value)]}, where {_WANTED[dtype.kind]} is expected"
                )
            if not _fit(dtype, [value]):
                return Misfit(index, f"is out of the range of {dtype}")
    raise AssertionError("every value fits")


def _fit(dtype: DType, numbers: list[Any]) -> bool:
    try:
        array(dtype.typecode, numbers)
    except OverflowError:
        return False
    return True


def _write_integers(dtype: DType, data: Data, as_bytes: bool) -> Sequence[Any]:
    return numbers_of(dtype, data).tolist()


def _write_bools(dtype: DType, data: Data, as_bytes: bool) -> Sequence[Any]:
    return list(map(bool, cast(bytes, data)))


def _write_strings(dtype: DType, data: Data, as_bytes: bool) -> Sequence[Any]:
    strings = cast(tuple[bytes, ...], data)
    if as_bytes:
        return [{"b64": b64encode(value).decode("ascii")} for value in strings]
    try:
        return list(map(bytes.decode, strings))
    except UnicodeDecodeError:
        return list(map(_write_string, strings))


def _write_string(value: bytes) -> msgspec.Raw:
    text = json.dumps(value.decode("utf-8", "surrogateescape"), ensure_ascii=False)
    return msgspec.Raw(text.encode("utf-8", "surrogateescape"))


_TAKES: Mapping[Kind, frozenset[type]] = {
    Kind.FLOAT: frozenset({int, float}),
    Kind.INTEGER: frozenset({int}),
    Kind.BOOL: frozenset({bool}),
}
_READERS: Mapping[Kind, Callable[[DType, list[Any], Hints], Data]] = {
    Kind.FLOAT: _read_numbers,
    Kind.INTEGER: _read_numbers,
    Kind.BOOL: _read_bools,
    Kind.STRING: _read_strings,
}
_WRITERS: Mapping[Kind, Callable[[DType, Data, bool], Sequence[Any]]] = {
    Kind.INTEGER: _write_integers,
    Kind.BOOL: _write_bools,
    Kind.STRING: _write_strings,
}
