"""Streams of bytes that are almost HTTP/1.1: what `fuzz_http.py` sends."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from itertools import pairwise

CHAT = "/v1/chat/completions"
LAST = b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n"
"""What ends each stream, so that it is soon known which server still waits for more."""

LENGTHS = (
    b"+%d",
    b"%d ",
    b"0%d",
    b"0x%d",
    b"%d, %d",
    b"-%d",
    b"%d;",
    b"\t%d",
    b"%d\x00",
    b"1%d",
    b"",
)
CODINGS = (
    b"chunked", b" chunked", b"Chunked", b"chunked,", b",chunked", b"identity", b"gzip, chunked",
    b"chunked, chunked", b"\x0bchunked", b"xchunked", b"chunked\x00", b"chunked ", b"chunked;q=1",
    b"\"chunked\"", b"chunked, identity",
)  # fmt: skip
NAMES = (b"%b ", b" %b", b"%b\t", b"\t%b", b"%b\x00", b"x-%b", b"%b:", b"\r\n%b", b"%b\r")
SIZES = (b"0%b", b"000000%b", b"%b ", b" %b", b"%b;a=b", b"%b;a=\"\r\n\"", b"0x%b", b"+%b", b"-%b",
         b"%b\t", b"%b;\n", b"%bg", b"fffffffffffffff%b", b"1%b", b"")  # fmt: skip
ENDS = (b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n ", b"\r\n\t", b"\r\n\r\n", b"\x00\r\n", b"")
FIELDS = (
    b"content-length: 0", b"content-length: 5", b"transfer-encoding: chunked",
    b"transfer-encoding: identity", b"transfer-encoding:\r\n chunked", b"connection: close",
    b"connection: upgrade\r\nupgrade: h2c", b"connection: transfer-encoding", b"host: b",
    b"expect: 100-continue", b"connection: content-length", b"x: y\r\n z", b"content-length : 3",
)  # fmt: skip
_LENGTH_FIELD = re.compile(rb"content-length: (\d+)")
_CODING_FIELD = re.compile(rb"transfer-encoding: (chunked)")
_FRAME_NAME = re.compile(rb"(content-length|transfer-encoding)(?=:)")
_CHUNK_SIZE = re.compile(rb"(?<=\r\n)([0-9a-f]{1,2})(?=\r\n)")
_LINE_END = re.compile(rb"\r\n")


_Change = Callable[[bytes], bytes]


class Mutator:
    """Makes the streams of one seed."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)

    def stream(self, model: str) -> list[bytes]:
        """Make a stream, in the pieces in which it is to be sent."""
        draw = self._draw
        data = b"".join(self._request(model) for _ in range(draw.randint(1, 3)))
        for _ in range(draw.choice((0, 1, 1, 1, 2, 3))):
            data = draw.choice(self._changes())(data)
        data += LAST
        cuts = sorted(
            {0, len(data), *(draw.randrange(len(data)) for _ in range(draw.choice((0, 0, 1, 3))))}
        )
        return [data[a:b] for a, b in pairwise(cuts)]

    def _changes(self) -> Sequence[_Change]:
        return (
            self._length, self._length, self._coding, self._name, self._size, self._size,
            self._end, self._end, self._field, self._field, self._bytes, self._copy,
        )  # fmt: skip

    def _request(self, model: str) -> bytes:
        draw = self._draw
        body = json.dumps({"model": model, "x": "y" * draw.choice((0, 1, 9, 40, 200))}).encode()
        version = draw.choice((b"1.1",) * 9 + (b"1.0\r\nconnection: keep-alive",))
        start = b"POST %b HTTP/%b\r\nhost: a\r\n" % (CHAT.encode(), version)
        kind = draw.randrange(10)
        if kind == 0:
            return b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n"
        if kind < 5:
            return start + b"content-length: %d\r\n\r\n%b" % (len(body), body)
        if kind == 5:  # a body that holds a request, for whoever takes its length from elsewhere
            body = b'{"model":"%b","x":"%b"}' % (model.encode(), LAST.replace(b"\r\n", b"\\r\\n"))
            return start + b"content-length: %d\r\n\r\n%b" % (len(body), body)
        if kind == 6:
            start += (
                b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMA\r\n"
            )
        at = draw.randrange(1, len(body))
        parts = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:at], body[at:]) if p)
        trailer = draw.choice((b"", b"", b"x-trailer: 1\r\n", b"content-length: 3\r\n"))
        return start + b"transfer-encoding: chunked\r\n\r\n" + parts + b"0\r\n" + trailer + b"\r\n"

    def _length(self, data: bytes) -> bytes:
        form = self._draw.choice(LENGTHS)
        return self._swap(_LENGTH_FIELD, data, lambda old: form.replace(b"%d", old))

    def _coding(self, data: bytes) -> bytes:
        form = self._draw.choice(CODINGS)
        return self._swap(_CODING_FIELD, data, lambda _: form)

    def _name(self, data: bytes) -> bytes:
        form = self._draw.choice(NAMES)
        return self._swap(_FRAME_NAME, data, lambda old: form % old)

    def _size(self, data: bytes) -> bytes:
        form = self._draw.choice(SIZES)
        return self._swap(_CHUNK_SIZE, data, lambda old: form.replace(b"%b", old))

    def _end(self, data: bytes) -> bytes:
        form = self._draw.choice(ENDS)
        return self._swap(_LINE_END, data, lambda _: form)

    def _field(self, data: bytes) -> bytes:
        form = self._draw.choice(FIELDS)
        return self._swap(_LINE_END, data, lambda _: b"\r\n" + form + b"\r\n")

    def _bytes(self, data: bytes) -> bytes:
        at = self._draw.randrange(len(data))
        new = self._draw.choice(
            (b"", b"\x00", b"\r", b"\n", b" ", b"0", b":", self._draw.randbytes(1))
        )
        return data[:at] + new + data[at + self._draw.randint(0, 2) :]

    def _copy(self, data: bytes) -> bytes:
        start, to = self._draw.randrange(len(data)), self._draw.randrange(len(data))
        return data[:to] + data[start : start + self._draw.randint(1, 60)] + data[to:]

    def _swap(self, pattern: re.Pattern[bytes], data: bytes, new: _Change) -> bytes:
        found = list(pattern.finditer(data))
        if not found:
            return self._bytes(data)
        one = self._draw.choice(found)
        group = 1 if pattern.groups else 0
        return data[: one.start(group)] + new(one[group]) + data[one.end(group) :]
