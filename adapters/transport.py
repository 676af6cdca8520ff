"""The HTTP/1.1 client that adapters share: pooled, strict about time, never queueing.

A connection that was idle too long is not used again (peers close theirs at will), and one
that closes without a byte of an answer was stale: the request goes out once more on a fresh
one. Leaving an exchange before its end closes its connection at once, which is how a backend
learns that nobody waits any more. Nothing here retries in any other case.
"""

import asyncio
import math
import os
import socket
import ssl
from collections.abc import Callable
from types import TracebackType
from urllib.parse import urlsplit

from gateway.errors import UpstreamError, UpstreamInvalid, UpstreamTimeout, UpstreamUnreachable
from gateway.protocols.http1 import AnswerReader, write_request
from gateway.types import TLS, Head, Headers, Message, Timeouts

_IDLE = 3.0
"""Seconds after which an idle connection is closed: before any server in the field does it."""
_HIGH = 256 * 2**10
_LOW = 64 * 2**10
OVERDUE = "was not done within the time allowed for the request"


class Connection(asyncio.Protocol):
    """One connection: feeds the reader of the exchange that holds it, and wakes it."""

    def __init__(self) -> None:
        self.reader: AnswerReader | None = None
        self.error: UpstreamError | None = None
        self.closed = False
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Feed the reader; bytes that nobody asked for end the connection."""
        reader = self.reader
        if reader is None:
            self.close()
            return
        try:
            reader.feed(data)
        except UpstreamError as error:
            self.fail(error)
            return
        if reader.buffered > _HIGH and not self.paused and self._transport is not None:
            self.paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the reader that nothing more comes."""
        self.closed = True
        if self.reader is not None and self.error is None:
            try:
                self.reader.end()
            except UpstreamError as error:
                self.error = error
        self._wake()

    def send(self, data: bytes, reader: AnswerReader) -> None:
        """Begin an exchange."""
        self.reader = reader
        if self._transport is not None:
            self._transport.write(data)

    def fail(self, error: UpstreamError) -> None:
        """End the exchange with an error, and the connection with it."""
        if self.error is None:
            self.error = error
        self.close()
        self._wake()

    def check(self) -> None:
        """Raise what ended the exchange, if anything did."""
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Close at once, without sending what is still buffered."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def taken(self) -> None:
        """Read on if the reader's buffer has room again."""
        if self.paused and self.reader is not None and self.reader.buffered < _LOW:
            self.paused = False
            if self._transport is not None and not self.closed:
                self._transport.resume_reading()

    async def news(self) -> None:
        """Wait until something came or the connection ended."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Exchange:
    """One request and its answer on a connection of `client`; see `types.Answer`."""

    def __init__(
        self,
        client: "HttpClient",
        message: Message,
        extra: Headers,
        timeouts: Timeouts,
        deadline: float,
        stream: bool,
    ) -> None:
        self._client = client
        self._bytes = write_request(
            message.method, message.path, client.host, message.headers, extra, message.body
        )
        self._timeouts = timeouts
        self._deadline = deadline
        self._stream = stream
        self._limit = deadline
        self._silence = ("", 0.0)
        self._begun = False
        self._reader = AnswerReader()
        self._connection: Connection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def head(self) -> Head:
        """The answer's status and headers."""
        head = self._reader.head
        if head is None:
            raise UpstreamInvalid("has not answered")
        return head

    async def __aenter__(self) -> "Exchange":
        """Send the request and wait for the head of its answer."""
        try:
            await self._send()
        except BaseException:
            self._leave()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the connection back if the answer was read to its end, else close it."""
        self._leave()

    async def read(self) -> bytes:
        """Return the next piece as it came, `b""` at the end. Raises `UpstreamError`."""
        reader, connection = self._reader, self._held()
        if self._stream and self._begun and not reader.pieces:
            self._wait(self._timeouts.idle, "sent nothing")
        while not reader.pieces:
            if reader.complete:
                return b""
            await self._news(connection)
        piece = reader.pieces.popleft()
        reader.buffered -= len(piece)
        connection.taken()
        self._begun = True
        self._limit = self._deadline  # a client that takes its time is not the backend's fault
        return piece

    async def _send(self) -> None:
        connection, fresh = self._client.idle(), False
        while True:
            if connection is None:
                connection, fresh = await self._client.connect(self._timeouts, self._deadline), True
            self._connection = connection
            connection.send(self._bytes, self._reader)
            first = self._timeouts.first_piece if self._stream else math.inf
            self._wait(first, "sent no first piece")
            try:
                while self._reader.head is None:
                    await self._news(connection)
                return
            except UpstreamInvalid:
                if fresh or self._reader.begun:
                    raise
            connection, self._reader = None, AnswerReader()  # it was stale

    async def _news(self, connection: Connection) -> None:
        connection.check()
        if connection.closed and not self._reader.complete:
            raise UpstreamInvalid("closed the connection")
        await connection.news()
        if not self._reader.pieces:
            connection.check()

    def _held(self) -> Connection:
        if self._connection is None:
            raise UpstreamInvalid("is not connected")
        return self._connection

    def _wait(self, seconds: float, silence: str) -> None:
        """Move the limit; the one timer is set anew only when it would go off too late."""
        self._limit = min(self._loop.time() + seconds, self._deadline)
        self._silence = silence, seconds
        if self._timer is None or self._timer.when() > self._limit:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(self._limit, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._loop.time() < self._limit:
            self._timer = self._loop.call_at(self._limit, self._on_timer)
        elif self._connection is not None and not self._reader.complete:
            what, seconds = self._silence
            why = f"{what} for {seconds:g} s"
            if self._limit >= self._deadline:
                why = OVERDUE
            self._connection.fail(UpstreamTimeout(why))

    def _leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.reader = None
        if self._reader.reusable and not connection.closed and not connection.paused:
            self._client.give_back(connection)
        else:
            connection.close()


class HttpClient:
    """Connections to one server, kept and reused newest first."""

    def __init__(self, url: str, tls: TLS | None) -> None:
        parts = urlsplit(url)
        self.url = url
        self.host = parts.netloc.encode("ascii")
        self._address = parts.hostname or ""
        self._secure = ssl_context(tls) if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._secure else 80)
        self._server_name = (tls and tls.server_name) or self._address
        self._idle: list[Connection] = []
        self._sweep: asyncio.TimerHandle | None = None

    def exchange(
        self, message: Message, extra: Headers, timeouts: Timeouts, deadline: float, stream: bool
    ) -> Exchange:
        """Prepare one exchange; entering it sends. `extra` are the backend's own headers."""
        return Exchange(self, message, extra, timeouts, deadline, stream)

    def idle(self) -> Connection | None:
        """Take a kept connection that is still young enough to be trusted."""
        oldest = asyncio.get_running_loop().time() - _IDLE
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and connection.idle_since > oldest:
                return connection
            connection.close()
        return None

    async def connect(self, timeouts: Timeouts, deadline: float) -> Connection:
        """Open a connection. Raises `UpstreamUnreachable`."""
        loop = asyncio.get_running_loop()
        seconds = min(timeouts.connect, deadline - loop.time())
        try:
            async with asyncio.timeout(seconds):
                _, connection = await loop.create_connection(
                    Connection,
                    self._address,
                    self._port,
                    ssl=self._secure,
                    server_hostname=self._server_name if self._secure else None,
                )
        except TimeoutError:
            if seconds < timeouts.connect:
                raise UpstreamTimeout(OVERDUE) from None
            raise UpstreamUnreachable(f"took no connection within {seconds:g} s") from None
        except ssl.SSLError as error:
            raise UpstreamUnreachable(f"failed the TLS handshake: {error.reason}") from None
        except OSError as error:
            raise UpstreamUnreachable(f"can't be reached: {_why(error)}") from None
        return connection

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next exchange."""
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = loop.call_later(_IDLE, self._reap, loop.call_later)

    def close(self) -> None:
        """Close what is kept."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        while self._idle:
            self._idle.pop().close()

    def _reap(self, later: Callable[..., asyncio.TimerHandle]) -> None:
        self._sweep = None
        oldest = asyncio.get_running_loop().time() - _IDLE
        kept = []
        for connection in self._idle:
            if connection.closed or connection.idle_since <= oldest:
                connection.close()
            else:
                kept.append(connection)
        self._idle = kept
        if kept:
            self._sweep = later(_IDLE, self._reap, later)


class HttpClients:
    """One client for each server and way of trusting it."""

    def __init__(self) -> None:
        self._clients: dict[tuple[str, TLS | None], HttpClient] = {}

    def to(self, url: str, tls: TLS | None) -> HttpClient:
        """Return the client for a server."""
        client = self._clients.get((url, tls))
        if client is None:
            client = self._clients[url, tls] = HttpClient(url, tls)
        return client

    def close(self) -> None:
        """Close what is kept."""
        for client in self._clients.values():
            client.close()


def _why(error: OSError) -> str:
    """Say why there is no connection, without the address that an error's own text may hold."""
    if isinstance(error, socket.gaierror):
        return "its name does not resolve"
    return os.strerror(error.errno) if error.errno else type(error).__name__


def ssl_context(tls: TLS | None) -> ssl.SSLContext:
    """Make a context that verifies its peer, by the system's authorities unless told others."""
    context = ssl.create_default_context(cafile=str(tls.ca) if tls and tls.ca else None)
    if tls and tls.cert:
        context.load_cert_chain(str(tls.cert), str(tls.key) if tls.key else None)
    return context
