"""HTTP/1.1 as a client speaks it, without sockets: bytes in and out (RFC 9112).

Reading stands on httptools (llhttp, strict). What is written is framed anew from its parts;
a field never carries a line break, because what reads fields refuses them.
"""

from collections import deque

import httptools

from gateway.errors import UpstreamInvalid
from gateway.types import Head, Headers

_MAX_HEAD = 64 * 2**10
_MAX_FIELDS = 256
_VERSIONS = ("1.1", "1.0")
_NO_BODY = frozenset({204, 304})
_SWITCHING = 101  # never asked for


def write_request(
    method: str, target: str, host: bytes, headers: Headers, extra: Headers, body: bytes
) -> bytes:
    """Write a request with a length-framed body; `extra` fields replace those of one name."""
    names = {name for name, _ in extra}
    parts = [method.encode(), b" ", target.encode("ascii"), b" HTTP/1.1\r\nhost: ", host]
    for name, value in headers:
        if name not in names:
            parts += (b"\r\n", name, b": ", value)
    for name, value in extra:
        parts += (b"\r\n", name, b": ", value)
    if body or method != "GET":
        parts += (b"\r\ncontent-length: ", str(len(body)).encode())
    parts += (b"\r\n\r\n", body)
    return b"".join(parts)


class AnswerReader:
    """Reads one answer from the bytes of a connection.

    `head` is set once the headers are whole, `pieces` fill with the body as it came, and
    `complete` says that it is over. Informational answers (1xx) are passed over. The caller
    takes pieces out, and keeps `buffered` true to what is left.
    """

    __slots__ = (
        "_field_bytes", "_fields", "_parser", "_seen", "_size", "_until_close",
        "buffered", "complete", "head", "pieces", "reusable",
    )  # fmt: skip

    def __init__(self) -> None:
        self.head: Head | None = None
        self.pieces: deque[bytes] = deque()
        self.buffered = 0
        self.complete = False
        self.reusable = False
        self._seen = False
        self._until_close = False
        self._fields: list[tuple[bytes, bytes]] = []
        self._field_bytes = 0
        self._size = 0
        self._parser = httptools.HttpResponseParser(self)

    @property
    def begun(self) -> bool:
        """Whether any byte of an answer came."""
        return self._seen

    def feed(self, data: bytes) -> None:
        """Take in bytes. Raises `UpstreamInvalid` for what is no HTTP/1.1 answer."""
        self._seen = True
        if self.complete:
            raise UpstreamInvalid("sent bytes after the end of its answer")
        if self.head is None:
            self._size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, UpstreamInvalid):
                raise cause from None
            raise UpstreamInvalid(f"did not answer in HTTP/1.1 ({type(error).__name__})") from None
        if self.head is None and self._size > _MAX_HEAD:
            raise UpstreamInvalid(f"sent more than {_MAX_HEAD} bytes of headers")

    def end(self) -> None:
        """Take in the end of the connection. Raises `UpstreamInvalid` if the answer is cut."""
        if self.complete:
            return
        if self.head is not None and self._until_close:
            self.complete = True
            return
        raise UpstreamInvalid(
            "closed the connection in the middle of its answer"
            if self._seen
            else "closed the connection without an answer"
        )

    # ── called by the parser ──

    def on_message_begin(self) -> None:
        """Refuse another answer behind the first one."""
        if self.complete:
            raise UpstreamInvalid("sent bytes after the end of its answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a field."""
        self._field_bytes += len(name) + len(value)
        if self._field_bytes > _MAX_HEAD:
            raise UpstreamInvalid(f"sent more than {_MAX_HEAD} bytes of headers")
        if len(self._fields) >= _MAX_FIELDS:
            raise UpstreamInvalid(f"sent more than {_MAX_FIELDS} header fields")
        if self.head is None:  # trailers are not passed on
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Make the head, unless the answer is an interim one."""
        status = self._parser.get_status_code()
        if self._parser.get_http_version() not in _VERSIONS:
            raise UpstreamInvalid("did not answer in HTTP/1.1")
        if not 100 <= status < 600 or status == _SWITCHING:
            raise UpstreamInvalid(f"answered with the status {status}")
        if status < 200:
            self._fields = []
            return
        fields = tuple(self._fields)
        names = {name for name, _ in fields}
        framed = b"content-length" in names or b"transfer-encoding" in names
        self._until_close = not framed and status not in _NO_BODY
        self.head = Head(status, fields)

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body as it came."""
        self.pieces.append(data)
        self.buffered += len(data)

    def on_message_complete(self) -> None:
        """Note the end, and whether another request may follow on the connection."""
        if self.head is not None:
            self.complete = True
            self.reusable = self._parser.should_keep_alive() and not self._until_close
