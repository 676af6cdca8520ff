"""A JSON body as Python values: bounded, exact, and without keys that say two things.

TF Serving's reader takes NaN, Infinity and -Infinity as bare words. `msgspec` is fast and refuses
them; the standard library's reader takes them and is five times slower, so it reads only what needs
it. Both give integers of any size to the last digit. The depth of a body is bounded by whoever
received it.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any

import msgspec

from gateway.errors import InvalidRequest, shown
from gateway.protocols.tensors.nesting import MAX_LISTS
from gateway.protocols.tensors.values import Hints

_DECODER = msgspec.json.Decoder()
_BARE = re.compile(rb"NaN|Infinity")
_HUGE = re.compile(rb"[eE]\+?0*[1-9][0-9]{2}|[0-9]{300}")


class Document:
    """One body, and the keys that were read in it.

    `strays`: strings may hold any bytes, as TF Serving's answers may. Raises `InvalidRequest` for
    what is no JSON object, or one of too many lists.
    """

    def __init__(self, body: bytes, *, strays: bool = False) -> None:
        # Two bytes are the least that a list takes, so short bodies need no count.
        if len(body) > 2 * MAX_LISTS and body.count(b"[") + body.count(b"{") > MAX_LISTS:
            raise InvalidRequest(
                f"the body holds more than {MAX_LISTS} lists and objects; send fewer rows at a time"
            )
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
        if self._only_top_level() or not self._suspicious():
            return
        text = self._body.decode("utf-8", "surrogateescape")
        try:
            json.loads(text, object_pairs_hook=self._refuse_repeats)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"the body is not valid JSON: {error}") from None

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
        keys = [key for key, _ in pairs if key in self._keys]
        if len(set(keys)) < len(keys):
            key = next(key for key in keys if keys.count(key) > 1)
            raise InvalidRequest(
                f"the key {shown(key)!r} stands twice in one object; send each once", param=key
            )


def _decode(body: bytes, strays: bool) -> dict[str, Any]:
    try:
        members = _DECODER.decode(body)
    except UnicodeDecodeError as error:
        if not strays:
            raise InvalidRequest(f"the body is not valid JSON: {error}") from None
        members = _decode_leniently(body, "surrogateescape")
    except (msgspec.DecodeError, RecursionError) as error:
        if not _BARE.search(body):
            raise InvalidRequest(f"the body is not valid JSON: {error}") from None
        members = _decode_leniently(body, "surrogateescape" if strays else "strict")
    if type(members) is not dict:
        raise InvalidRequest("the body is not a JSON object")
    return members


def _decode_leniently(body: bytes, errors: str) -> Any:
    try:
        text = body.decode("utf-8", errors)
        if _HUGE.search(body):
            return json.loads(text, parse_float=_finite)
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None


def _finite(digits: str) -> float:
    """Read a number. The strict reader refuses one that no double holds, and so does TF Serving."""
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number is out of the range of a double")
    return number
