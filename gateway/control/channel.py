"""Questions and answers between the processes of one gateway, over a pair of sockets.

Both sides ask and answer at will. A message is a length and a pickle: it comes from our own
process alone, never from a stranger. When one side ends, the other sees the channel close.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
import struct
from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import Any

from gateway.errors import GatewayError

_LENGTH = struct.Struct("!I")

_log = logging.getLogger("isthmus.workers")

Serve = Callable[[Any], Awaitable[object]]
"""Answers a question of the other side. A `GatewayError` is raised where it was asked."""


class ChannelClosed(Exception):
    """The other process has ended."""


class ChannelFailed(Exception):
    """The other process met a bug; its log has the trace."""


class _Kind(IntEnum):
    ASK = 0
    ANSWER = 1
    ERROR = 2
    CANCEL = 3


class Channel(asyncio.Protocol):
    """One side of it. `closed` is done once the other side is gone, or this one closed it."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._came = bytearray()
        self._asked = 0
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._serving: dict[int, asyncio.Task[None]] = {}

    @classmethod
    async def over(cls, side: socket.socket, serve: Serve) -> Channel:
        """Open one side over its socket, which belongs to the channel from here on."""
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_unix_connection(lambda: cls(serve), sock=side)
        return channel

    async def ask(self, message: object) -> Any:
        """Ask, and wait for the answer; who stops waiting has the other side stop, too.

        Raises `ChannelClosed`, `ChannelFailed`, and the `GatewayError` that answered.
        """
        if self.closed.done():
            raise ChannelClosed
        self._asked += 1
        number = self._asked
        answer = self._pending[number] = self._loop.create_future()
        self._send(_Kind.ASK, number, message)
        try:
            return await answer
        except asyncio.CancelledError:
            self._send(_Kind.CANCEL, number, None)
            raise
        finally:
            del self._pending[number]

    def close(self) -> None:
        """Close it; may be called again."""
        if self._transport is not None:
            self._transport.close()

    # ── asyncio.Protocol ──

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Take what came apart into messages."""
        came = self._came
        came += data
        while len(came) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(came)[0]
            if len(came) < end:
                return
            frame = bytes(came[_LENGTH.size : end])
            del came[:end]
            self._take(*pickle.loads(frame))  # noqa: S301 - see the room's own words

    def connection_lost(self, exc: Exception | None) -> None:
        """End what waits here, and what is being answered to nobody."""
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(ChannelClosed())
        for task in self._serving.values():
            task.cancel()
        if not self.closed.done():
            self.closed.set_result(None)

    def _send(self, kind: _Kind, number: int, content: object) -> None:
        data = pickle.dumps((kind, number, content), pickle.HIGHEST_PROTOCOL)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_LENGTH.pack(len(data)) + data)

    def _take(self, kind: _Kind, number: int, content: Any) -> None:
        if kind is _Kind.ASK:
            task = self._serving[number] = self._loop.create_task(self._answer(number, content))
            task.add_done_callback(lambda _: self._serving.pop(number))
        elif kind is _Kind.CANCEL:
            if number in self._serving:
                self._serving[number].cancel()
        else:
            self._answered(kind, number, content)

    def _answered(self, kind: _Kind, number: int, content: Any) -> None:
        answer = self._pending.get(number)
        if answer is None or answer.done():
            return  # nobody waits any more
        if kind is _Kind.ERROR:
            answer.set_exception(content)
        else:
            answer.set_result(content)

    async def _answer(self, number: int, content: Any) -> None:
        try:
            self._send(_Kind.ANSWER, number, await self._serve(content))
        except GatewayError as error:
            self._send(_Kind.ERROR, number, error)
        except Exception as error:  # noqa: BLE001 - a bug: told here, and failed there
            _log.exception("another process of the gateway could not be answered")
            self._send(_Kind.ERROR, number, ChannelFailed(type(error).__name__))
