"""HTTP/1.1 as a server speaks it, without sockets: requests read, answers written (RFC 9112).

Reading stands on httptools (llhttp, strict): what two readers could understand differently is
refused, never repaired. Fields are read into parts, and written anew by whoever sends next.
"""

from http import HTTPStatus
from typing import Protocol

import httptools
import msgspec

from gateway.errors import GatewayError, HeadersTooLarge, InvalidRequest, Unsupported
from gateway.protocols.headers import end_to_end
from gateway.types import Headers

_MAX_FIELDS = 128
_CHUNK_OVERHEAD = 24
"""Bytes of framing that a chunk may cost: its size in hex, two line ends, a short extension."""
_FREE_OVERHEAD = 16 * 2**10
NO_BODY = frozenset({204, 304})
"""Statuses of answers that have no body (RFC 9112 6.3)."""
_REASONS = {status.value: status.phrase for status in HTTPStatus} | {499: "Client Closed Request"}
_ABSOLUTE = (b"http://", b"https://")
_OWN = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})
_METHODS = {name.encode(): name for name in ("GET", "POST", "HEAD", "OPTIONS", "DELETE", "PUT")}
_HTTP_10 = "1.0"
_HTTP_11 = "1.1"
_VERSIONS = (_HTTP_11, _HTTP_10)


class RequestHead(msgspec.Struct, gc=False):
    """How a request begins. `target` is the path with its query, undecoded.

    `length` is the body's size in bytes, None where it comes in chunks. `expects`: the client
    waits for a 100 before it sends its body.
    """

    method: str
    target: bytes
    headers: Headers
    length: int | None
    keep_alive: bool
    chunks: bool
    expects: bool


class Sink(Protocol):
    """Who is told what was read, in order."""

    def begin(self, head: RequestHead) -> None:
        """A request's headers are whole."""

    def body(self, data: bytes) -> None:
        """A piece of its body came."""

    def end(self) -> None:
        """It is whole."""


class RequestReader:
    """Reads the requests of one connection, one behind the other, and tells `sink`.

    After an error it reads no more: where the next request would begin is not known then.
    """

    __slots__ = (
        "_body", "_chunks", "_expects", "_fed", "_fields", "_head_bytes",
        "_length", "_max_head", "_muted", "_new", "_parser", "_sink", "_url",
        "between", "in_head",
    )  # fmt: skip

    _new: bool

    def __init__(self, sink: Sink, max_head: int) -> None:
        self.between = True
        """Whether no request is half read."""
        self._sink = sink
        self._max_head = max_head
        self._muted = False
        self.in_head = False
        """Whether a head is half read."""
        self._head_bytes = 0
        self._fed = self._body = self._chunks = 0
        self._begin_head()
        self._parser = httptools.HttpRequestParser(self)

    def feed(self, data: bytes) -> None:
        """Take in bytes. Raises `InvalidRequest`, `HeadersTooLarge`, `Unsupported`."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, GatewayError):
                raise cause from None
            raise InvalidRequest(f"this is not HTTP/1.1: {error}") from None
        if not self.between:
            self._check_growth(len(data))

    def _check_growth(self, size: int) -> None:
        """Bound what the parser tells nothing of yet: a field without end, a chunk's extension.

        Bytes in which a head or a body began are not counted: they may hold much of what was
        before it, and one read has a bound of its own.
        """
        if self._new:
            self._new = False
        elif self.in_head:
            self._head_bytes += size
            if self._head_bytes > self._max_head:
                raise self._too_large()
        else:
            self._fed += size
            if self._fed - self._body > _FREE_OVERHEAD + _CHUNK_OVERHEAD * self._chunks:
                raise InvalidRequest("the body's chunks have extensions out of all proportion")

    def _decline(self, rest: bytes) -> None:
        """Go on as if no upgrade had been offered (RFC 9110 7.8: it may be ignored).

        The parser stops at such a head, so a fresh one is brought to the point behind it.
        """
        self._parser = httptools.HttpRequestParser(self)
        if self._length == 0:
            self._finish()
        else:
            framing = (
                b"transfer-encoding: chunked"
                if self._length is None
                else b"content-length: %d" % self._length
            )
            self._muted = True
            self._parser.feed_data(b"POST / HTTP/1.1\r\nhost: -\r\n%b\r\n\r\n" % framing)
            self._muted = False
        if rest:
            self.feed(rest)

    @property
    def target(self) -> bytes:
        """The target of the request that is being read, as far as it came."""
        return self._url

    # ── called by the parser ──

    def on_message_begin(self) -> None:
        """Begin to count."""
        if not self._muted:
            self.between = False
            self.in_head = True
            self._begin_head()

    def on_url(self, url: bytes) -> None:
        """Note the target, or a part of it."""
        if not self._muted:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a field; trailers are dropped."""
        if self.in_head:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Check what the parser lets pass, and begin the request."""
        if self._muted:
            return
        self.in_head = False
        self._new = True
        self._fed = self._body = self._chunks = 0
        parser = self._parser
        version = parser.get_http_version()
        headers = self._read_fields(version)
        head = RequestHead(
            _METHODS.get(method := parser.get_method()) or method.decode("ascii"),
            self._url if self._url[:1] == b"/" else _path(self._url),
            headers,
            self._length,
            parser.should_keep_alive(),
            version == _HTTP_11,
            self._expects and version == _HTTP_11,
        )
        self._sink.begin(head)

    def on_chunk_header(self) -> None:
        """Count a chunk."""
        self._chunks += 1

    def on_body(self, data: bytes) -> None:
        """Pass a piece on."""
        self._body += len(data)
        self._sink.body(data)

    def on_message_complete(self) -> None:
        """End the request; one that offers an upgrade is ended once its body is there."""
        if not self._muted and not self._parser.should_upgrade():
            self._finish()

    # ──

    def _finish(self) -> None:
        self.between = True
        self._sink.end()

    def _begin_head(self) -> None:
        self._new = True
        self._head_bytes = 0
        self._url = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._length: int | None = 0
        self._expects = False

    def _too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(
            f"the request's line and headers are larger than {self._max_head} bytes, the limit here"
        )

    def _read_fields(self, version: str) -> Headers:
        """Return the fields that are not the connection's own, and read those that frame the body.

        Raises where a reader behind could see them differently.
        """
        if len(self._fields) > _MAX_FIELDS:
            raise HeadersTooLarge(f"the request has more than {_MAX_FIELDS} header fields")
        fields = [(name.lower(), value) for name, value in self._fields]
        size = len(self._url)
        for name, value in fields:
            size += len(name) + len(value) + 4
        if size > self._max_head:
            raise self._too_large()
        if version not in _VERSIONS:
            raise InvalidRequest("speak HTTP/1.1 here")
        self._read_own([field for field in fields if field[0] in _OWN], version)
        return end_to_end(fields)

    def _read_own(self, fields: list[tuple[bytes, bytes]], version: str) -> None:
        hosts = 0
        for name, value in fields:
            if name == b"host":
                hosts += 1
            elif name == b"content-length":
                self._length = int(value)
            elif name == b"transfer-encoding":
                self._read_coding(value, version)
            elif name == b"expect":
                self._expects = value.lower() == b"100-continue"
        if hosts > 1 or (hosts == 0 and version == _HTTP_11):
            raise InvalidRequest("a request has exactly one host field")

    def _read_coding(self, value: bytes, version: str) -> None:
        if value.lower() != b"chunked":
            raise Unsupported("the only transfer-encoding taken is chunked")
        if version == _HTTP_10:
            raise InvalidRequest("HTTP/1.0 has no transfer-encoding")
        self._length = None


def _path(url: bytes) -> bytes:
    """Return the origin form of a target; an absolute one names a host that does not matter."""
    if url[:1] == b"/" or url == b"*":
        return url
    if url.lower().startswith(_ABSOLUTE):
        slash = url.find(b"/", len(b"https://"))
        return url[slash:] if slash >= 0 else b"/"
    raise InvalidRequest("the request's target is not a path")


def write_head(
    status: int, headers: Headers, date: bytes, *, length: int | None, chunked: bool, close: bool
) -> bytes:
    """Write an answer's head. `length` is for bodies whose size the headers do not say."""
    parts = [_status_line(status), b"date: ", date, b"\r\n"]
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    if length is not None:
        parts.append(b"content-length: %d\r\n" % length)
    if chunked:
        parts.append(b"transfer-encoding: chunked\r\n")
    if close:
        parts.append(b"connection: close\r\n")
    parts.append(b"\r\n")
    return b"".join(parts)


def _status_line(status: int) -> bytes:
    line = _LINES.get(status)
    return line if line is not None else b"HTTP/1.1 %d \r\n" % status


_LINES = {
    status: f"HTTP/1.1 {status} {reason}\r\n".encode("ascii") for status, reason in _REASONS.items()
}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
