"""The data plane's HTTP listener: a socket, its connections, their time and their end."""

from __future__ import annotations

import asyncio
import ssl
import time
from email.utils import formatdate

from gateway.listeners.certificates import Certificates
from gateway.listeners.http_connection import Connection, Serving, Shared
from gateway.listeners.http_exchange import Budget
from gateway.listeners.servers import bind
from gateway.types import Address, Limits, Patience

_BACKLOG = 2048
_SWEEP = 0.5
_HANDSHAKE = 10.0


class HttpListener:
    """Serves one address. The socket is bound at once, so that a taken address is known at once.

    With `certificates` it speaks TLS; when they change on disk, new connections get the new ones.
    A `shared` address is other workers' as well.
    """

    def __init__(
        self,
        serving: Serving,
        address: Address,
        limits: Limits,
        patience: Patience,
        certificates: Certificates | None = None,
        shared: bool = False,
    ) -> None:
        self._socket = bind(address, shared)
        self.port: int = self._socket.getsockname()[1]
        self._certificates = certificates
        self._shared = Shared(serving, limits, patience, Budget(limits.body_budget), set(), set())
        self._server: asyncio.Server | None = None
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to serve; returns when connections are taken."""
        self._shared.date = formatdate(usegmt=True).encode()
        await self._listen(self._certificates.context() if self._certificates else None)
        self._sweeping = asyncio.create_task(self._sweep())

    async def stop(self, grace: float) -> None:
        """Take no more connections, and end what is under way after `grace` seconds."""
        shared = self._shared
        shared.draining = True
        if self._server is not None:
            self._server.close()
        self._socket.close()
        for connection in tuple(shared.connections):
            connection.drain()
        if not await self._emptied(grace):
            for connection in tuple(shared.connections):
                connection.cut()
            if not await self._emptied(1.0):
                for connection in tuple(shared.connections):
                    connection.abort()
        for connection in tuple(shared.turned_away):
            connection.abort()
        if self._sweeping is not None:
            self._sweeping.cancel()

    async def _listen(self, context: ssl.SSLContext | None) -> None:
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self._shared),
            sock=self._socket.dup(),
            backlog=_BACKLOG,
            ssl=context,
            ssl_handshake_timeout=_HANDSHAKE if context else None,
        )

    async def _sweep(self) -> None:
        """Look at every connection's time, twice a second."""
        while True:
            await asyncio.sleep(_SWEEP)
            now = time.monotonic()
            self._shared.date = formatdate(usegmt=True).encode()
            for connection in (*self._shared.connections, *self._shared.turned_away):
                connection.check(now)
            if self._certificates is not None and (context := self._certificates.renewed()):
                await self._renew(context)

    async def _renew(self, context: ssl.SSLContext) -> None:
        """Listen anew on the same socket; connections that are there go on."""
        old = self._server
        await self._listen(context)
        if old is not None:
            old.close()

    async def _emptied(self, seconds: float) -> bool:
        """Wait until no connection is left; whether that came in time."""
        shared = self._shared
        if shared.connections:
            shared.emptied = asyncio.get_running_loop().create_future()
            await asyncio.wait({shared.emptied}, timeout=seconds)
        return not shared.connections
