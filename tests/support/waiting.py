"""Waiting for conditions, and a loop of its own for what must answer while a test waits."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

DEADLINE = 15.0
_POLL = 0.005

T = TypeVar("T")


def until(condition: Callable[[], T], what: str = "", seconds: float = DEADLINE) -> T:
    """Poll until `condition` gives something true, and return it; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"did not come true in {seconds:g} s: {what or condition}")
        time.sleep(_POLL)
    return found


def free_port() -> int:
    """Return a port on loopback where nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class LoopThread:
    """An asyncio loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="upstreams", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(DEADLINE)

    def soon(self, call: Callable[..., object], *arguments: object) -> None:
        """Have something called there."""
        self.loop.call_soon_threadsafe(call, *arguments)

    def stop(self) -> None:
        """End the loop, and what still runs on it."""
        self.run(_cancel_all())
        self.soon(self.loop.stop)
        self._thread.join(DEADLINE)
        self.loop.close()


async def close_server(server: asyncio.Server) -> None:
    """Stop listening. What was accepted just before is let in first: asyncio would leak it."""
    loop = asyncio.get_running_loop()
    for listening in server.sockets:
        loop.remove_reader(listening.fileno())
    for _ in range(3):
        await asyncio.sleep(0)
    server.close()


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
