"""JSON as text: bounds on it, and where a member stands in it, without building objects.

Forwarding keeps a body's bytes, so what the gateway must know of it (is it JSON, how deep,
where is the model's name) is read off the text itself. Cost per byte stays near memchr's for
what strangers send most: long strings and flat lists.
"""

import re
from functools import cache
from itertools import accumulate
from typing import TypeVar

import msgspec

from gateway.errors import InvalidRequest

_NOT_STRUCTURE = bytes(set(range(256)) - set(b'"[]{}'))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_STEPS = bytes.maketrans(b"[]", b"\x01\xff")  # 1 and -1, as signed bytes
_STRING = re.compile(rb'"[^"]*"')
_CHUNK = 2**16
_MAX_REPEATS = 10_000

T = TypeVar("T")


def deeper_than(body: bytes, levels: int) -> bool:
    """Whether valid JSON in `body` nests deeper than `levels`."""
    if body.count(b"[") + body.count(b"{") <= levels:
        return False
    brackets = _brackets(_without_escapes(body))
    # Cutting all innermost pairs takes off one level, and nearly all of a flat list.
    cuts = min(2, levels)
    for _ in range(cuts):
        brackets = brackets.replace(b"[]", b"")
    steps = memoryview(brackets.translate(_STEPS)).cast("b")
    depth = 0
    for at in range(0, len(steps), _CHUNK):
        depths = [*accumulate(steps[at : at + _CHUNK], initial=depth)]
        if max(depths) > levels - cuts:
            return True
        depth = depths[-1]
    return False


def _without_escapes(body: bytes) -> bytes:
    """Blank out escaped quotes and backslashes: each quote that is left ends or begins a string."""
    if b"\\" not in body:
        return body
    return body.replace(rb"\\", b"__").replace(rb"\"", b"__")


def _brackets(text: bytes) -> bytes:
    """Return the brackets outside strings, as `[` and `]`."""
    marks = text.translate(None, _NOT_STRUCTURE).replace(b'""', b"")
    return _STRING.sub(b"", marks).translate(_ONE_KIND)


def check_depth(body: bytes, levels: int) -> None:
    """Refuse a body that nests too deep. Raises `InvalidRequest`."""
    if deeper_than(body, levels):
        raise InvalidRequest(
            f"the body is nested deeper than {levels} levels, or its brackets do not match; "
            "flatten it, or raise limits.json_depth in the gateway's configuration"
        )


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode strict JSON. Raises `InvalidRequest` that says where it stops being JSON."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the body has a field of a wrong type: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None


def member_at(body: bytes, key: str) -> tuple[int, int]:
    """Where the value of the top-level member `key`, a string, stands in valid JSON that has it.

    Returns the slice of the literal with its quotes. A repeated key counts as its last value,
    as it does in the parsers behind the gateway. Raises `InvalidRequest` where there is none.
    """
    quoted, plain, escaped = _members(key)
    if body.count(quoted) == 1 and b"\\u00" not in body:  # no other can hide behind an escape
        only = plain.match(body, body.find(quoted))
        if only:
            return only.span(1)
    text = _without_escapes(body)
    found: tuple[int, int] | None = None
    depth = before = 0
    for count, member in enumerate(escaped.finditer(text)):
        if count == _MAX_REPEATS:
            raise InvalidRequest(f"the body has more than {count} members {key!r}", param=key)
        brackets = _brackets(text[before : member.start()])
        depth += 2 * brackets.count(b"[") - len(brackets)
        before = member.start()
        if depth == 1:
            found = member.span(1)
    if found is None:
        raise InvalidRequest(f"the body has no top-level string {key!r}", param=key)
    return found


@cache
def _members(key: str) -> tuple[bytes, re.Pattern[bytes], re.Pattern[bytes]]:
    """Return a key in quotes, and what matches it with a string as its value: as it is mostly
    written, and with escapes.
    """
    letters = "".join(rf"(?:{re.escape(c)}|\\u(?i:{ord(c):04x}))" for c in key)
    value = r"[ \t\r\n]*:[ \t\r\n]*"
    quoted = f'"{key}"'
    plain = rf'{re.escape(quoted)}{value}("[^"\\]*(?:\\.[^"\\]*)*")'
    return (
        quoted.encode(),
        re.compile(plain.encode(), re.DOTALL),
        re.compile(f'"{letters}"{value}("[^"]*")'.encode()),
    )
