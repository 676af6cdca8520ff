"""HTTP/1.1 as a client speaks it, without sockets: bytes in and out (RFC 9112).

Reading stands on httptools (llhttp, strict). What is written is framed anew from its parts;
a field never carries a line break, because what reads fields refuses them.
"""

from collections import deque

import httptools

from gateway.errors import UpstreamInvalid
from gateway.protocols.headers import end_to_end
from gateway.types import Head, Headers

_MAX_HEAD = 64 * 2**10
_MAX_FIELDS = 256
_VERSIONS = ("1.1", "1.0")
_FRAMES = (b"content-length", b"transfer-encoding")
_NO_BODY = frozenset({204, 304})
_SWITCHING = 101  # never asked for


def write_request(
    method: str, target: str, host: bytes, headers: Headers, extra: Headers, body: bytes
) -> bytes:
    """Write a request with a length-framed body; `extra` fields replace those of one name."""
    parts = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (method.encode(), target.encode("ascii"), host)]
    if extra:
        names = {name for name, _ in extra}
        headers = (*(field for field in headers if field[0] not in names), *extra)
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    if body or method != "GET":
        parts.append(b"content-length: %d\r\n" % len(body))
    parts += (b"\r\n", body)
    return b"".join(parts)


class AnswerReader:
    """Reads the answers of one connection, each when `begin` was called for it.

    `head` is set once the headers are whole, `pieces` fill with the body as it came, and
    `complete` says that it is over. Informational answers (1xx) are passed over, and fields that
    speak of the connection are dropped. The caller takes pieces out, and keeps `buffered` true to
    what is left.
    """

    __slots__ = (
        "_fields", "_parser", "_seen", "_size", "_until_close",
        "buffered", "complete", "head", "pieces", "reusable",
    )  # fmt: skip

    def __init__(self) -> None:
        self.pieces: deque[bytes] = deque()
        self._parser = httptools.HttpResponseParser(self)
        self.begin()

    def begin(self) -> None:
        """Be ready for the next answer, behind one that was read to its end."""
        self.head: Head | None = None
        self.pieces.clear()
        self.buffered = 0
        self.complete = False
        self.reusable = False
        self._seen = self._until_close = False
        self._fields: list[tuple[bytes, bytes]] = []
        self._size = 0

    @property
    def begun(self) -> bool:
        """Whether any byte of an answer came."""
        return self._seen

    def feed(self, data: bytes) -> None:
        """Take in bytes. Raises `UpstreamInvalid` for what is no HTTP/1.1 answer."""
        self._seen = True
        if self.complete:
            raise UpstreamInvalid("sent bytes after the end of its answer")
        self._size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, UpstreamInvalid):
                raise cause from None
            raise UpstreamInvalid(f"did not answer in HTTP/1.1 ({type(error).__name__})") from None
        if self._size > _MAX_HEAD and not self.complete:
            what = "headers" if self.head is None else "framing with no body between"
            raise UpstreamInvalid(f"sent more than {_MAX_HEAD} bytes of {what}")

    def end(self, reset: bool = False) -> None:
        """Take in the end of the connection. Raises `UpstreamInvalid` if the answer is cut.

        `reset`: it did not end well, so that is not how an answer ends.
        """
        if self.complete:
            return
        if self.head is not None and self._until_close and not reset:
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
        """Note a field; trailers are not passed on."""
        if self.head is None:
            self._fields.append((name, value))
            if len(self._fields) > _MAX_FIELDS:
                raise UpstreamInvalid(f"sent more than {_MAX_FIELDS} header fields")

    def on_headers_complete(self) -> None:
        """Make the head, unless the answer is an interim one."""
        parser = self._parser
        status = parser.get_status_code()
        if parser.get_http_version() not in _VERSIONS:
            raise UpstreamInvalid("did not answer in HTTP/1.1")
        if not 100 <= status < 600 or status == _SWITCHING:
            raise UpstreamInvalid(f"answered with the status {status}")
        found, self._fields = self._fields, []
        if status >= 200:
            self.head = Head(status, self._end_to_end(found, status))

    def _end_to_end(self, found: list[tuple[bytes, bytes]], status: int) -> Headers:
        """Return the fields that are not the connection's own; note what frames the body."""
        fields = [(name.lower(), value) for name, value in found]
        size, framed = 0, False
        for name, value in fields:
            size += len(name) + len(value)
            framed = framed or name in _FRAMES
        if size > _MAX_HEAD:
            raise UpstreamInvalid(f"sent more than {_MAX_HEAD} bytes of headers")
        self._until_close = not framed and status not in _NO_BODY
        return end_to_end(fields)

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body as it came."""
        self.pieces.append(data)
        self.buffered += len(data)
        self._size = 0

    def on_message_complete(self) -> None:
        """Note the end, and whether another request may follow on the connection."""
        if self.head is not None:
            self.complete = True
            self.reusable = self._parser.should_keep_alive() and not self._until_close
