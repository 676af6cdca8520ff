"""JSON as TF Serving reads it, and what it says of JSON that it can't read.

Its parser (RapidJSON, in `util/json_tensor.cc`) takes bare NaN, Infinity and Inf, and stops where
the document ends: what follows is no part of it. The words of its errors are kept; an offset is
where this reader noticed, in bytes, which may be a few further on. Nothing is built here: a body is
looked at by C, and once more in a text of the same length where it holds bare words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice

import msgspec

from gateway.errors import InvalidRequest

MAX_EXCERPT = 256
"""Characters of a value that an error repeats."""

_BARE = re.compile(rb"-?\b(?:NaN|Inf(?:inity)?)\b")
_AS_DIGITS = bytes.maketrans(b"NaInfity", b"11111111")
_STRING_OR_BARE = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*")|-?(NaN)|Inf(?!inity)', re.DOTALL)
_AT_BYTE = re.compile(r"(?:JSON is malformed: )?(.*?)(?: \(byte ([0-9]+)\))?(?: - at .*)?")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_HUGE = re.compile(rb"-?[0-9.]{1,40}[eE]\+?0*[1-9][0-9]{2}|[0-9]{309}")
_NO_VALUE, _NO_END = "Invalid value.", "Missing a closing quotation mark in string."
_NO_MEMBER = "Missing a name for object member."
_NO_SURROGATE = "The surrogate pair in string is invalid."
_AFTER = {
    b"[": "Missing a comma or ] after an array element.",
    b"{": "Missing a comma or } after an object member.",
}
TOO_BIG = "Number too big to be stored in double."
_WORDS: Mapping[str, str] = {
    "expected ',' or ']'": _AFTER[b"["],
    "expected ',' or '}'": _AFTER[b"{"],
    "expected ':'": "Missing a colon after a name of object member.",
    "object keys must be strings": _NO_MEMBER,
    "trailing comma in object": _NO_MEMBER,
    "invalid escaped character": "Invalid escape character in string.",
    "invalid escape character in string": "Invalid escape character in string.",
    "invalid character in unicode escape": "Incorrect hex digit after \\u escape in string.",
}


class _Anything(msgspec.Struct):
    """A JSON object, whatever it holds."""


_OBJECT = msgspec.json.Decoder(_Anything)


def document_of(body: bytes) -> bytes:
    """Return the JSON object that a body consists of or begins with.

    Its depth must be bounded. Numbers and the text of strings are not looked at. Raises
    `InvalidRequest` in TF Serving's words.
    """
    try:
        _OBJECT.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return _begun_with(body)
    return body


def plain(document: bytes) -> bytes:
    """Return a document with `Inf` as Infinity and `-NaN` as NaN, which Python's reader takes."""
    return _STRING_OR_BARE.sub(lambda found: found[1] or found[2] or b"Infinity", document)


def malformed(words: str, offset: int) -> InvalidRequest:
    """Return the error for a body that is no JSON."""
    return InvalidRequest(f"JSON Parse error: {words} at offset: {offset}")


def too_big(body: bytes) -> InvalidRequest:
    """Return the error for a body with a number that no double holds."""
    found = _HUGE.search(body)
    return malformed(TOO_BIG, found.start() if found else 0)


def excerpt(value: object) -> str:
    """Return the beginning of a value as JSON text. Costs about what it shows."""
    short = _shortened(value, MAX_EXCERPT)
    text = json.dumps(short, ensure_ascii=False)
    return (text if text.isprintable() else json.dumps(short))[:MAX_EXCERPT]


def _begun_with(body: bytes) -> bytes:
    if not body:
        raise InvalidRequest("JSON Parse error: The document is empty")
    same_length = _BARE.sub(lambda found: found[0].translate(_AS_DIGITS), body)
    try:
        _OBJECT.decode(same_length)
    except msgspec.ValidationError:
        text = body[:MAX_EXCERPT].decode("utf-8", "replace").strip()
        shown = text if text.isprintable() else ascii(text)[1:-1]
        raise InvalidRequest(f"JSON Value: {shown} Is not object", quotes=True) from None
    except RecursionError:
        raise InvalidRequest("JSON Parse error: nested too deep; flatten the body") from None
    except msgspec.DecodeError as error:
        found = _AT_BYTE.fullmatch(str(error))
        what, at = (found[1], int(found[2] or len(body))) if found else (str(error), len(body))
        if what == "trailing characters":
            return body[: at - 1]  # it has read the first of them
        raise malformed(_words(what, at, body), at) from None
    return body


def _words(what: str, at: int, body: bytes) -> str:
    if what == "Input data was truncated":
        return _truncated(body)
    if "surrogate" in what or "end of hex escape" in what:
        return _NO_SURROGATE
    if what == "invalid number":
        return _bad_number(body[at - 1 : at])
    if body[at : at + 1] < b" ":
        return "Invalid encoding in string."
    return _WORDS.get(what, _NO_VALUE)


def _bad_number(before: bytes) -> str:
    if before == b".":
        return "Miss fraction part in number."
    return "Miss exponent in number." if before and before in b"eE+-" else _NO_VALUE


def _truncated(body: bytes) -> str:
    """Say what a body lacks at its end: a value, or the end of a string, a list or an object."""
    if not body.strip():
        return "The document is empty."
    # Escaped backslashes first, so that the quotes which are left begin and end strings.
    parts = body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
    if len(parts) % 2 == 0:
        return _NO_END
    outside = b"0".join(parts[::2])
    last = outside.rstrip()[-1:]
    if last == b"{":
        return _NO_MEMBER
    if last in b":,[":
        return _NO_VALUE
    open_ones = outside.translate(None, _NOT_BRACKETS)
    while open_ones != (fewer := open_ones.replace(b"[]", b"").replace(b"{}", b"")):
        open_ones = fewer
    return _AFTER.get(open_ones[-1:], _NO_SURROGATE)


def _shortened(value: object, limit: int) -> object:
    deeper = max(1, limit // 8)
    if isinstance(value, list):
        return [_shortened(item, deeper) for item in value[:limit]]
    if isinstance(value, dict):
        pairs = islice(value.items(), limit)
        return {key[:limit]: _shortened(item, deeper) for key, item in pairs}
    if isinstance(value, int) and abs(value) >= 10**MAX_EXCERPT:
        return "a very long number"
    return value[:limit] if isinstance(value, str) else value
