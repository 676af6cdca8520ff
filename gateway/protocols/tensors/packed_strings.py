"""Strings in `tensor_content`: all their lengths as varints, then all their bytes.

TensorFlow's own encoding (`EncodeStringList`); seldom seen, for clients send `string_val`.
"""

from __future__ import annotations

_VARINT32_BYTES = 5


def unpack(content: bytes, count: int) -> tuple[bytes, ...]:
    """Read `count` strings. Raises `ValueError` that says what is wrong with the content."""
    if count > len(content):
        raise ValueError("ends before all lengths of its strings")
    lengths = []
    at = 0
    for _ in range(count):
        length, at = _varint(content, at)
        lengths.append(length)
    if at + sum(lengths) != len(content):
        raise ValueError("does not have the length that its strings add up to")
    strings = []
    for length in lengths:
        strings.append(content[at : at + length])
        at += length
    return tuple(strings)


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(content[at : at + _VARINT32_BYTES]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value & 0xFFFFFFFF, at + index + 1
    raise ValueError("ends inside the length of a string")
