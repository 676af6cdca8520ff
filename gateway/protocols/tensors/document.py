"""A JSON body as Python values: bounded, exact, and without keys that say two things.

TF Serving's reader takes NaN, Infinity and Inf as bare words. `msgspec` is fast and refuses them;
the standard library's reader takes the first two and is five times slower, so it reads only what
needs it. Both give integers of any size to the last digit. The depth of a body is bounded by who
received it.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from gateway.errors import InvalidRequest, shown
from gateway.protocols.tensors import reading
from gateway.protocols.tensors.nesting import MAX_LISTS
from gateway.protocols.tensors.values import Hints

_DECODER = msgspec.json.Decoder()
_SHORT_WORDS = re.compile(rb"Inf(?!inity)|-NaN")
_HUGE = re.compile(rb"[eE]\+?0*[1-9][0-9]{2}|[0-9]{300}")


class Document:
    """One body, and the keys that were read in it.

    `strays`: it is an answer, whose strings may hold any bytes. `noun` is what it holds. Raises
    `InvalidRequest` for what is no JSON object, or one of too many lists.
    """

    def __init__(self, body: bytes, *, strays: bool = False) -> None:
        # Two bytes are the least that a list takes, so short bodies need no count.
        if len(body) > 2 * MAX_LISTS and body.count(b"[") + body.count(b"{") > MAX_LISTS:
            raise InvalidRequest(
                f"the body holds more than {MAX_LISTS} lists and objects; send fewer rows at a time"
            )
        self.noun = "output" if strays else "input"
        self._body = body
        self.members: dict[str, Any] = _decode(body, strays)
        # Of the letters of true and false, `u` and `l` stand in no number and in few keys.
        self.hints = Hints(b"u" in body or b"l" in body, strays)
        self._keys = Counter[str]()

    def saw(self, key: str, times: int = 1) -> None:
        """Note that a key was read so many times."""
        self._keys[key] += times

    def check_repeats(self) -> None:
        """Refuse a body in which a key that was read stands twice in one object.

        Readers of JSON differ on which of the two counts: TF Serving's takes the first or both,
        most others the last. Raises `InvalidRequest`.
        """
        if not self._only_top_level() and self._suspicious():
            self._scan(self._refuse_repeats)

    def check_no_repeats(self, keys: int) -> None:
        """Refuse a body in which any object has a key twice; it has been read to `keys` of them.

        For keys that are the sender's own, of which there may be very many: a body with no more
        colons than keys repeats none. Raises `InvalidRequest`.
        """
        if self._body.count(b":") == keys or _outside_strings(self._body).count(b":") == keys:
            return
        self._scan(_refuse_any_repeat)

    def _scan(self, look: Callable[[list[tuple[str, Any]]], None]) -> None:
        text = reading.plain(reading.document_of(self._body)).decode("utf-8", "surrogateescape")
        try:
            json.loads(text, object_pairs_hook=look)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"JSON Parse error: {error}") from None

    def _only_top_level(self) -> bool:
        """Whether there are no more quotes than the keys of the body itself take."""
        at = -1
        for _ in range(2 * len(self.members) + 1):
            at = self._body.find(b'"', at + 1)
            if at < 0:
                return True
        return False

    def _suspicious(self) -> bool:
        """Whether some key occurs more often than it was read, or may hide behind an escape."""
        if b"\\u" in self._body or b"\\/" in self._body:
            return True
        quoted = {msgspec.json.encode(key): times for key, times in self._keys.items()}
        return any(b"\\" in key or self._body.count(key) > n for key, n in quoted.items())

    def _refuse_repeats(self, pairs: list[tuple[str, Any]]) -> None:
        _refuse_any_repeat([pair for pair in pairs if pair[0] in self._keys])


def _refuse_any_repeat(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) == len(pairs):
        return
    counts = Counter(key for key, _ in pairs)
    key = next(key for key, times in counts.items() if times > 1)
    raise InvalidRequest(
        f"the key {shown(key)!r} stands twice in one object; send each once", param=key
    )


def _outside_strings(body: bytes) -> bytes:
    if b"\\" in body:  # backslashes first, so that the quotes left are not escaped
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(body.split(b'"')[::2])


def _decode(body: bytes, strays: bool) -> dict[str, Any]:
    try:
        members = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        errors = "surrogateescape" if strays else "strict"
        return _decode_leniently(reading.document_of(body), errors)
    # Anything else than an object is refused in TF Serving's words.
    return members if type(members) is dict else _decode_leniently(reading.document_of(body), "")


def _decode_leniently(document: bytes, errors: str) -> dict[str, Any]:
    """Read an object, of which no more is wrong than its numbers or its strings."""
    plain = reading.plain(document) if _SHORT_WORDS.search(document) else document
    try:
        text = plain.decode("utf-8", errors)
        parse = _finite if _HUGE.search(plain) else None
        members: dict[str, Any] = json.loads(text, parse_float=parse)
    except UnicodeDecodeError as error:
        raise reading.malformed("Invalid encoding in string.", error.start) from None
    except json.JSONDecodeError as error:
        raise reading.malformed("Invalid value.", error.pos) from None
    except ValueError:
        raise reading.too_big(document) from None
    except RecursionError:
        raise InvalidRequest("JSON Parse error: nested too deep; flatten the body") from None
    return members


def _finite(digits: str) -> float:
    """Read a number. The strict reader refuses one that no double holds, and so does TF Serving."""
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number is out of the range of a double")
    return number
