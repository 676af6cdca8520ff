"""Threads that do work, and can tell whether any of it still runs.

A wrapper of ThreadPoolExecutor: its shutdown either waits without bound or says nothing of what it
left behind.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


class Workers:
    """`size` threads; more work than that waits its turn."""

    def __init__(self, size: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(size, thread_name_prefix=name)
        self._open: set[object] = set()

    def submit(self, work: Callable[[], Result]) -> "Future[Result]":
        """Queues work; the future holds its result or error."""
        future = self._pool.submit(work)
        self._open.add(future)
        future.add_done_callback(self._open.discard)
        return future

    def close(self) -> bool:
        """Cancels what waits, takes no more, and tells whether all is done.

        False while something still runs.
        """
        self._pool.shutdown(wait=False, cancel_futures=True)
        return not self._open
