"""ASGI applications on sockets: uvicorn inside the gateway's own loop and life."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.types import Address

_BACKLOG = 2048
_KEEP_ALIVE = 75
_HEAD_BYTES = 128 * 2**10


class _Protocol(HttpToolsProtocol):
    """uvicorn's, for strangers: a head has an end, and what follows a body is no header."""

    _in_head = False
    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Take in bytes, and refuse a head that grows on and on."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES and not self.transport.is_closing():
                self._refuse_head()

    def on_message_begin(self) -> None:
        """Begin to count."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a field, but no trailer: nobody here would look at it as one."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop counting: bodies have a limit of their own."""
        self._in_head = False
        super().on_headers_complete()

    def _refuse_head(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(
                STATUS_LINE[431] + b"connection: close\r\ncontent-length: 0\r\n\r\n"
            )
        self.transport.close()


class _Server(uvicorn.Server):
    """Signals are the gateway's to handle, not each listener's; `up` is set once it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """One listener. The socket is bound at once, so that a taken address is known at once."""

    def __init__(self, app: Any, address: Address) -> None:
        self._socket = bind(address)
        self.port: int = self._socket.getsockname()[1]
        self._server = _Server(
            uvicorn.Config(
                app,
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE,
                backlog=_BACKLOG,
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to serve; returns when connections are taken."""
        self._task = asyncio.create_task(self._server.serve([self._socket]))
        await self._server.up.wait()

    async def stop(self, grace: float) -> None:
        """Take no more connections, and end what is under way after `grace` seconds."""
        self._server.config.timeout_graceful_shutdown = max(int(grace), 1)
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._socket.close()


def bind(address: Address, shared: bool = False) -> socket.socket:
    """Bind a socket to listen on; a `shared` address may be others' too. Raises `OSError`."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((address.host, address.port))
    except OSError:
        bound.close()
        raise
    bound.set_inheritable(False)
    return bound
