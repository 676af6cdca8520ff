"""JSON as text: bounds on it, and where a member stands in it, without building objects.

Forwarding keeps a body's bytes, so what the gateway must know of it (is it JSON, how deep,
where is the model's name) is read off the text itself. Cost per byte stays near memchr's for
what strangers send most: long strings and flat lists.
"""

import json
import re
from typing import TypeVar

import msgspec

from gateway.errors import InvalidRequest

_NOT_STRUCTURE = bytes(set(range(256)) - set(b'"[]{}'))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_STRING = re.compile(rb'"[^"]*"')
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}:,]', re.DOTALL)
_BARE_NUMBER = re.compile(rb"NaN|Infinity")
_SPACE = b" \t\r\n"

T = TypeVar("T")


def deeper_than(body: bytes, levels: int) -> bool:
    """Whether valid JSON in `body` nests deeper than `levels`; unbalanced brackets count too.

    Strings are cut out, the brackets that remain are of one kind, and each pass removes the
    innermost pairs: what is left after `levels` passes is deeper.
    """
    if body.count(b"[") + body.count(b"{") <= levels:
        return False
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = _STRING.sub(b"", body.translate(None, _NOT_STRUCTURE)).translate(_ONE_KIND)
    for _ in range(levels):
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


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


def decode_lenient(decoder: msgspec.json.Decoder[T], body: bytes) -> None:
    """Check JSON that may hold bare NaN and Infinity, as TF Serving's may.

    Raises `InvalidRequest`.
    """
    try:
        decode(decoder, body)
    except InvalidRequest:
        if not _BARE_NUMBER.search(body):
            raise
        _decode_bare_numbers(body)


def _decode_bare_numbers(body: bytes) -> None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidRequest("the body must be a JSON object")


def member_at(body: bytes, key: str) -> tuple[int, int]:
    """Where the value of the top-level member `key`, a string, stands in valid JSON.

    Returns the slice of the literal with its quotes. A repeated key counts as its last value,
    as it does in the parsers behind the gateway. Raises `InvalidRequest` where there is none.
    """
    literal = re.compile(
        rb'"%s"[ \t\r\n]*:[ \t\r\n]*("[^"\\]*(?:\\.[^"\\]*)*")' % re.escape(key.encode()),
        re.DOTALL,
    )
    if b"\\u00" not in body:  # no key can be hiding behind an escape
        found = literal.search(body)
        if found and not literal.search(body, found.end()):
            return found.span(1)
    return _walk_to_member(body, key)


def _walk_to_member(body: bytes, key: str) -> tuple[int, int]:
    at: tuple[int, int] | None = None
    depth = 0
    before = b""
    last_key = ""
    for token in _TOKEN.finditer(body):
        text = token.group()
        if text in b"[{":
            depth += 1
        elif text in b"]}":
            depth -= 1
        elif depth == 1 and text[0] == 0x22:
            if before == b":":
                at = token.span() if last_key == key else at
            else:
                last_key = msgspec.json.decode(text, type=str)
        before = text
    if at is None:
        raise InvalidRequest(f"the body has no top-level string {key!r}", param=key)
    return at
