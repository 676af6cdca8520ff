"""Knows the world: probes every backend, follows its versions, and keeps the Snapshot true."""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping

from gateway.control import world
from gateway.types import Adapter, Backend, Configuration, Seen, Snapshot

_log = logging.getLogger("isthmus.registry")

Changed = Callable[[str, Seen], None]
"""Told a backend's id and what was seen of it, after each probe that changed the world."""


class Registry:
    """Holds the Snapshot. `start` probes each backend once, then goes on until `stop`."""

    def __init__(
        self,
        configuration: Configuration,
        adapters: Mapping[str, Adapter],
        changed: Changed,
        interval: float = 1.0,
    ) -> None:
        self._configuration = configuration
        self._adapters = adapters
        self._changed = changed
        self._interval = interval
        self._sights: dict[world.Place, Seen] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._snapshot = world.snapshot(configuration, {})

    def snapshot(self) -> Snapshot:
        """Return the world as it is now."""
        return self._snapshot

    async def start(self) -> None:
        """Probe every backend once, then keep probing in the background."""
        wanted = world.wanted_names(self._configuration.models)
        backends = {
            world.place(b): b for model in self._configuration.models for b in model.backends
        }
        await asyncio.gather(*(self._look(b, wanted[place]) for place, b in backends.items()))
        self._tasks = [
            asyncio.create_task(self._follow(backend, wanted[place]))
            for place, backend in backends.items()
        ]

    async def stop(self) -> None:
        """End the probes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, backend: Backend, wanted: frozenset[str]) -> None:
        while True:
            # Spread out, so that many backends are not all asked in the same moment.
            await asyncio.sleep(self._interval * random.uniform(0.9, 1.1))
            await self._look(backend, wanted)

    async def _look(self, backend: Backend, wanted: frozenset[str]) -> None:
        seen = await self._probe(backend, wanted)
        place = world.place(backend)
        before = self._sights.get(place)
        if seen == before:
            return
        self._sights[place] = seen
        self._snapshot = world.snapshot(self._configuration, self._sights)
        if before is None or before.up != seen.up:
            _tell(backend, seen)
        self._changed(backend.id, seen)

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
