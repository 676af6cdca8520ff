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
_SMALL = 2**13
"""Bytes of a body up to which a search for its members is cheaper than a second decoding."""
_MAX_REPEATS = 10_000

T = TypeVar("T")


def deeper_than(body: bytes, levels: int) -> bool:
    """Whether valid JSON in `body` nests deeper than `levels`."""
    if _has_few_brackets(body, levels):
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


def _has_few_brackets(body: bytes, most: int) -> bool:
    """Whether at most so many open anywhere. Looks for one after the other: prose has none."""
    for bracket in (b"[", b"{"):
        at = body.find(bracket)
        while at >= 0:
            most -= 1
            if most < 0:
                return False
            at = body.find(bracket, at + 1)
    return True


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
    if len(body) <= _SMALL:
        if body.count(quoted) == 1 and b"\\u00" not in body:  # no other hides behind an escape
            only = plain.match(body, body.find(quoted))
            if only:
                return only.span(1)
    else:
        first = plain.match(body, body.find(quoted, 0, _SMALL))
        if first and _depth(body[: first.start()]) == 1 and _count(body, key) == 1:
            return first.span(1)
    text = _without_escapes(body)
    found: tuple[int, int] | None = None
    depth = before = 0
    for count, member in enumerate(escaped.finditer(text)):
        if count == _MAX_REPEATS:
            raise InvalidRequest(f"the body has more than {count} members {key!r}", param=key)
        depth += _opened(text[before : member.start()])
        before = member.start()
        if depth == 1:
            found = member.span(1)
    if found is None:
        raise InvalidRequest(f"the body has no top-level string {key!r}", param=key)
    return found


def _depth(start: bytes) -> int:
    """How deep the text behind the start of a JSON document stands."""
    return _opened(_without_escapes(start))


def _opened(text: bytes) -> int:
    brackets = _brackets(text)
    return 2 * brackets.count(b"[") - len(brackets)


def _count(body: bytes, key: str) -> int:
    """How often a top-level member stands in valid JSON, by whatever escapes its key is written.

    A decoder tells of each value that it meets; it skips the rest of a large body faster than any
    search for the key goes through it.
    """
    met: list[object] = []

    def meet(_: type, value: object) -> _Value:
        met.append(value)
        return _Value()

    msgspec.json.Decoder(_form(key), dec_hook=meet).decode(body)
    return len(met)


class _Value:
    """A member's value, whatever it is."""


@cache
def _form(key: str) -> type[msgspec.Struct]:
    return msgspec.defstruct("Form", [(key, _Value, None)])


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
