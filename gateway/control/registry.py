"""Knows the world: probes every backend, follows its versions, and keeps the Snapshot true."""

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace

from gateway.control import world
from gateway.types import Adapter, Backend, Configuration, Seen, Snapshot

_log = logging.getLogger("isthmus.registry")

_MAX_NOTES = 1000
"""Different things told of LoRA adapters; who fills a log with names is told no more."""

Changed = Callable[[str, Seen], None]
"""Told a backend's id and what was seen of it, after each probe that changed the world."""
Spread = Callable[[], Awaitable[None]]


class Registry:
    """Holds the Snapshot. `start` probes each backend once, then goes on until `stop`.

    `spread` returns when all who serve by the Snapshot have the newest one.
    """

    def __init__(
        self,
        configuration: Configuration,
        adapters: Mapping[str, Adapter],
        changed: Changed,
        spread: Spread | None = None,
        interval: float = 1.0,
    ) -> None:
        self._configuration = configuration
        self._adapters = adapters
        self._changed = changed
        self._spread = spread
        self._interval = interval
        self._wanted = world.wanted_names(configuration.models)
        self._sights: dict[world.Place, Seen] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._looking: defaultdict[world.Place, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._noted: set[str] = set()
        self._snapshot = world.snapshot(configuration, {})

    def snapshot(self) -> Snapshot:
        """Return the world as it is now."""
        return self._snapshot

    async def start(self) -> None:
        """Probe every backend once, then keep probing in the background."""
        backends = {
            world.place(b): b for model in self._configuration.models for b in model.backends
        }
        await self.look_again(backends.values())
        self._tasks = [asyncio.create_task(self._follow(backend)) for backend in backends.values()]

    async def look_again(self, backends: Iterable[Backend]) -> None:
        """Probe backends now; returns when the Snapshot shows what is there at this moment."""
        await asyncio.gather(*(self._look(backend) for backend in backends))
        if self._spread is not None:
            await self._spread()

    def seen(self, backend: Backend) -> Seen | None:
        """Return what the last probe of a backend saw."""
        return self._sights.get(world.place(backend))

    async def stop(self) -> None:
        """End the probes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, backend: Backend) -> None:
        while True:
            # Spread out, so that many backends are not all asked in the same moment.
            await asyncio.sleep(self._interval * random.uniform(0.9, 1.1))
            await self._look(backend)

    async def _look(self, backend: Backend) -> None:
        """Probe a backend; one probe at a time, so that an older one can't undo a newer one."""
        place = world.place(backend)
        async with self._looking[place]:
            self._note(backend, await self._probe(backend, self._wanted[place]))

    def _note(self, backend: Backend, seen: Seen) -> None:
        place = world.place(backend)
        before = self._sights.get(place)
        if before is not None and not seen.up:  # its adapters are down with it, not gone
            seen = replace(seen, loras=before.loras)
        if seen == before:
            return
        self._sights[place] = seen
        self._snapshot = world.snapshot(self._configuration, self._sights, self._tell_once)
        if before is None or before.up != seen.up:
            _tell(backend, seen)
        self._changed(backend.id, seen)

    def _tell_once(self, note: str) -> None:
        if note not in self._noted and len(self._noted) < _MAX_NOTES:
            self._noted.add(note)
            _log.warning("%s", note)

    async def _probe(self, backend: Backend, wanted: frozenset[str]) -> Seen:
        try:
            return await self._adapters[backend.adapter].probe(backend, wanted)
        except Exception as error:  # noqa: BLE001 - a bug in an adapter: told, and probed again
            _log.exception("the probe of backend %s failed", backend.id)
            return Seen(False, f"its probe failed: {type(error).__name__}")


def _tell(backend: Backend, seen: Seen) -> None:
    if seen.up:
        _log.info("backend %s is up", backend.id)
    else:
        _log.warning("backend %s is down: %s", backend.id, seen.why)
