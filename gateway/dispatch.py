"""A Call's one path: queue → slot → attempts. Slots, queues and retries live here, nowhere else.

A call waits here, never in a transport: one queue per (model, version), in order of arrival.
It leaves when a backend of its version has a free slot; slots belong to a backend's id, so models
that share a server share them. An attempt is *committed* when the first piece of its answer came;
until then another backend may be asked, if the failed one surely did no work.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from gateway.errors import DeadlineExceeded, Overloaded, UpstreamError, UpstreamInvalid
from gateway.policies.routing import better_of_two
from gateway.protocols import events
from gateway.types import Adapter, Answer, Backend, Call, Head

_ATTEMPTS = 3

Counted = Callable[[str, int], None]
"""Told a backend's id and its calls in flight whenever they change."""


class _Waiter:
    """A call in its queue, until `slot` is set to the backend that it may go to."""

    __slots__ = ("able", "bound", "order", "slot")

    def __init__(self, able: Mapping[str, Backend], bound: int, order: int) -> None:
        self.able = able
        self.bound = bound
        self.order = order
        self.slot: asyncio.Future[Backend] = asyncio.get_running_loop().create_future()

    def may_take(self, backend_id: str) -> bool:
        """Whether a slot there is of use; one that was cancelled has yet to leave the queue."""
        return backend_id in self.able and not self.slot.done()


class Slots:
    """Calls in flight on each backend, and the queues of those that wait for a slot there."""

    def __init__(self, counted: Counted) -> None:
        self._counted = counted
        self._inflight: dict[str, int] = {}
        self._queues: dict[tuple[str, int], deque[_Waiter]] = {}
        self._arrivals = 0

    def inflight(self, backend_id: str) -> int:
        """Return the number of calls on a backend now."""
        return self._inflight.get(backend_id, 0)

    def waiting(self, model: str, number: int) -> int:
        """Return the number of calls that wait for a version."""
        return len(self._queues.get((model, number), ()))

    async def take(self, call: Call, able: list[Backend]) -> Backend:
        """Take a slot on one of `able`, waiting for one until the call's deadline.

        Raises `Overloaded` when the queue is full, `DeadlineExceeded` when no slot came free.
        """
        version, model = call.target.version, call.target.model
        free = [b for b in able if self.inflight(b.id) < model.max_inflight]
        if free:  # nobody waits for these, or they would have been given
            return self._occupy(self._pick(free))
        waiting = self.waiting(version.model, version.number)
        if waiting >= model.max_queue:
            raise Overloaded(
                f"{version} has {waiting} calls waiting, its limit; try again later",
                headers=((b"retry-after", b"1"),),
            )
        return await self._wait(call, able)

    def release(self, backend: Backend) -> None:
        """Free a slot, and give it to the call that has waited longest for this backend."""
        count = self._inflight[backend.id] - 1
        if count:
            self._inflight[backend.id] = count
        else:
            del self._inflight[backend.id]
        self._counted(backend.id, count)
        if self._queues:
            self._wake(backend.id)

    async def _wait(self, call: Call, able: list[Backend]) -> Backend:
        version, model = call.target.version, call.target.model
        key = (version.model, version.number)
        self._arrivals += 1
        waiter = _Waiter({b.id: b for b in able}, model.max_inflight, self._arrivals)
        queue = self._queues.setdefault(key, deque())
        queue.append(waiter)
        try:
            async with asyncio.timeout_at(call.deadline):
                return await waiter.slot
        except BaseException as error:
            self._forget(key, waiter)
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(
                    f"{version}: no backend had a free slot within the time allowed"
                ) from None
            raise

    def _forget(self, key: tuple[str, int], waiter: _Waiter) -> None:
        if waiter.slot.done() and not waiter.slot.cancelled():
            self.release(waiter.slot.result())  # given in the very moment its waiter left
            return
        self._remove(key, waiter)

    def _remove(self, key: tuple[str, int], waiter: _Waiter) -> None:
        queue = self._queues[key]
        queue.remove(waiter)
        if not queue:
            del self._queues[key]

    def _wake(self, backend_id: str) -> None:
        firsts = [
            (waiter.order, key, waiter)
            for key, queue in self._queues.items()
            if (waiter := next((w for w in queue if w.may_take(backend_id)), None)) is not None
        ]
        for _, key, waiter in sorted(firsts, key=lambda first: first[0]):
            if self.inflight(backend_id) < waiter.bound:
                self._remove(key, waiter)
                waiter.slot.set_result(self._occupy(waiter.able[backend_id]))
                return

    def _occupy(self, backend: Backend) -> Backend:
        count = self.inflight(backend.id) + 1
        self._inflight[backend.id] = count
        self._counted(backend.id, count)
        return backend

    def _pick(self, free: list[Backend]) -> Backend:
        if len(free) == 1:
            return free[0]
        loads = [self.inflight(backend.id) for backend in free]
        return free[better_of_two(loads, random.random(), random.random())]


class Flight:
    """A call on its way, and its answer once committed. Holds a slot as long as it is entered."""

    def __init__(self, slots: Slots, adapters: Mapping[str, Adapter], call: Call) -> None:
        self._slots = slots
        self._adapters = adapters
        self._call = call
        self._first: bytes | None = None
        self._backend: Backend | None = None
        self._exchange: AbstractAsyncContextManager[Answer] | None = None
        self._answer: Answer | None = None
        self._clock = time.monotonic  # the loop's own ticks in milliseconds
        self.queued = 0.0
        self.upstream = 0.0

    @property
    def head(self) -> Head:
        """How the committed answer begins."""
        return self._committed().head

    async def read(self) -> bytes:
        """Return the next piece of the answer, `b""` at its end. Raises `UpstreamError`."""
        first, self._first = self._first, None
        if first is not None:
            return first
        try:
            return await self._committed().read()
        except UpstreamError as error:
            raise self._named(error) from None

    async def __aenter__(self) -> "Flight":
        """Go through the queue and as many attempts as are safe; return once committed."""
        version = self._call.target.version
        able = list(version.ready or version.backends)
        tried = 0
        while True:
            began = self._clock()
            self._backend = await self._slots.take(self._call, able)
            sent = self._clock()
            self.queued += sent - began
            tried += 1
            try:
                await self._attempt(self._backend)
            except BaseException as error:
                able = [b for b in able if b is not self._backend]
                named = self._named(error) if isinstance(error, UpstreamError) else None
                await self._leave(error)
                if named is None:
                    raise
                if not named.retryable or not able or tried >= _ATTEMPTS:
                    raise named from None
            else:
                self.upstream = self._clock() - sent
                return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Free the slot; an answer that was not read to its end is given up upstream."""
        await self._leave(error)

    async def _attempt(self, backend: Backend) -> None:
        adapter = self._adapters[backend.adapter]
        exchange = adapter.open(backend, self._call, self._call.target.model.timeouts)
        self._answer = await exchange.__aenter__()
        self._exchange = exchange
        self._first = await _first_piece(self._answer)

    async def _leave(self, error: BaseException | None) -> None:
        exchange, self._exchange = self._exchange, None
        backend, self._backend = self._backend, None
        try:
            if exchange is not None:
                await exchange.__aexit__(type(error) if error else None, error, None)
        finally:
            if backend is not None:
                self._slots.release(backend)

    def _committed(self) -> Answer:
        if self._answer is None:
            raise UpstreamInvalid("has not answered")
        return self._answer

    def _named(self, error: UpstreamError) -> UpstreamError:
        """Say which version failed; the backend's address is for the log alone."""
        named = type(error)(f"{self._call.target.version}: the backend {error.message}")
        named.backend = self._backend.id if self._backend else ""
        return named


class Dispatch:
    """Sends calls. One for the process: its slots are what all requests share."""

    def __init__(self, adapters: Mapping[str, Adapter], counted: Counted) -> None:
        self.slots = Slots(counted)
        self._adapters = adapters

    def open(self, call: Call) -> Flight:
        """Prepare a call; entering the flight sends it."""
        return Flight(self.slots, self._adapters, call)


async def _first_piece(answer: Answer) -> bytes:
    """Read until it is known that an answer is not a stream that begins with an error."""
    first = await answer.read()
    if not events.is_stream(answer.head.headers):
        return first
    while first and (failed := events.begins_with_error(first)) is not False:
        if failed:
            raise UpstreamInvalid("began its stream with an error")
        more = await answer.read()
        if not more:
            break
        first += more
    return first
