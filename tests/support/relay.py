"""A wire between the gateway and a server, for a test to cut without either having a say."""

import asyncio

from support.waiting import LoopThread, close_server


class Relay:
    """Passes bytes both ways between its own port and another one, until it is cut."""

    def __init__(self, loop: LoopThread, to: int) -> None:
        self.to = to
        self.live: set[_End] = set()
        self.joining: set[asyncio.Task[None]] = set()
        self.closed = False
        self._loop = loop
        self._server: asyncio.Server | None = None
        self.port = 0
        loop.run(self._listen())

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Reset every connection, and take no more."""
        self._loop.run(self._cut())

    def mend(self) -> None:
        """Take connections again, on the same port."""
        self._loop.run(self._listen())

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        self.closed = False
        self._server = await loop.create_server(lambda: _Front(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        self.closed = True
        if self._server is not None:
            await close_server(self._server)
        await asyncio.gather(*self.joining, return_exceptions=True)
        while self.live:
            for end in list(self.live):
                end.transport.abort()
            await asyncio.sleep(0.001)


class _End(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.other: _End | None = None
        self.waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.relay.live.add(self)
        if self.relay.closed:  # it was in the listener's queue
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.relay.live.discard(self)
        if self.other is not None:
            self.other.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.waiting += data
        else:
            self.other.transport.write(data)


class _Front(_End):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        task = asyncio.get_running_loop().create_task(self._join())
        self.relay.joining.add(task)
        task.add_done_callback(self.relay.joining.discard)

    async def _join(self) -> None:
        loop = asyncio.get_running_loop()
        _, back = await loop.create_connection(lambda: _End(self.relay), "127.0.0.1", self.relay.to)
        self.other, back.other = back, self
        back.transport.write(self.waiting)
        if self not in self.relay.live:
            back.transport.abort()
