"""One model's versions: loads them, lends them to requests, unloads them once the last request is
done.

Belongs here: the state table of a model, the polling of its folder, the count of a version's
holders. What to do next is decided in `versions`; this room does it. A table belongs to the event
loop's thread; only a handle's count is shared between threads, under its lock. A model that was
taken out keeps its table, as TensorFlow Serving's monitor does, so that its end can be seen.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from adapters.savedmodel.signature import Servable
from adapters.savedmodel.status import Code, ServingError
from adapters.savedmodel.versions import (
    Action,
    Fingerprint,
    Folder,
    Policy,
    State,
    Step,
    VersionState,
    aspired,
    fingerprint,
    next_action,
    scan,
    settled,
)
from adapters.savedmodel.workers import Workers

Loader = Callable[[Path], Servable]

_MAX_ENDED = 100  # rows of ended versions that a state table keeps
_MAX_MESSAGE = 1024
_log = logging.getLogger("isthmus.savedmodel")


class Handle:
    """One loaded version and the number of requests that hold it.

    While any does, it stays in memory.
    """

    def __init__(
        self, model: str, version: int, servable: Servable, on_idle: Callable[[], None]
    ) -> None:
        self.model = model
        self.version = version
        self.servable = servable
        self._on_idle = on_idle
        self._lock = threading.Lock()
        self._holders = 1  # the manager's own hold, given up by `retire`

    def hold(self) -> None:
        """Counts one more holder."""
        with self._lock:
            self._holders += 1

    def release(self) -> None:
        """Counts one holder less.

        The last one out calls `on_idle`, from whatever thread it is in.
        """
        with self._lock:
            self._holders -= 1
            idle = self._holders == 0
        if idle:
            self._on_idle()


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model to serve.

    Its name, the folder that holds its numbered versions, which of them are wanted, and the labels
    that stand for some.
    """

    name: str
    base: Path
    policy: Policy
    labels: Mapping[str, int] = field(default_factory=dict)


class ModelWatch:
    """One model's versions. All methods run in the event loop's thread."""

    def __init__(self, source: ModelSource, loader_thread: Workers) -> None:
        self.source = source
        self.table: dict[int, VersionState] = {}
        self._handles: dict[int, Handle] = {}
        self._seen: dict[int, Folder] = {}
        self._whole: dict[int, Fingerprint] = {}
        self._thread = loader_thread
        self._complaint = ""
        self._wanted = True

    @property
    def wanted(self) -> bool:
        """False for a model that was taken out; its table tells how it ended."""
        return self._wanted

    @property
    def forgettable(self) -> bool:
        """True once a model that was taken out is gone for good."""
        ended = all(row.state is State.END for row in self.table.values())
        return not self._wanted and ended

    def remove(self) -> None:
        """Takes the model out: each version goes when its last request is done."""
        self._wanted = False
        for version in list(self._handles):
            self._retire(version)

    def restore(self, source: ModelSource) -> None:
        """Takes a new source; a model that was taken out starts afresh."""
        self.source = source
        if not self._wanted:
            self._wanted = True
            self._seen, self._whole = {}, {}
            self.table = {v: row for v, row in self.table.items() if row.state is not State.END}

    def serves(self, version: int) -> bool:
        """True where this version is AVAILABLE."""
        return version in self._handles

    def outcome(self) -> bool | None:
        """True once a version serves, False once all have failed, None before that.

        A version that ended well, such as one that was still unloading when the model came back,
        says nothing.
        """
        if self._handles:
            return True
        rows = self.table.values()
        ended = all(row.state is State.END for row in rows)
        return False if ended and any(row.code is not Code.OK for row in rows) else None

    def acquire(self, version: int | None) -> Handle:
        """A held handle on a version that serves; the highest one where none is named.

        Raises:
            ServingError: NOT_FOUND.
        """
        wanted = max(self._handles, default=None) if version is None else version
        handle = self._handles.get(wanted) if wanted is not None else None
        if handle is None:
            raise not_found(self.source.name, version)
        handle.hold()
        return handle

    async def look(self) -> bool:
        """Reads the folder once more, without acting on it; False where it can't be read."""
        loaded = frozenset(self._handles)
        before = self._seen
        try:
            self._seen = await asyncio.wrap_future(
                self._thread.submit(lambda: scan(self.source.base, loaded))
            )
        except OSError as error:
            # Nothing is unloaded: a folder that is out of reach for a moment is not an empty one.
            self._complain(
                f"can't read {self.source.base}: {error.strerror}; keeping what is loaded"
            )
            return False
        self._whole = settled(before, self._seen)
        if not self._seen:
            self._complain(
                f"no numbered version folder in {self.source.base}; "
                f"expected one such as {self.source.base}/1"
            )
        elif self._handles:
            self._complaint = ""
        return True

    async def step(self, load: Loader) -> None:
        """One poll.

        Looks at the folder, then acts until the loaded versions are the wanted ones.
        """
        if self._wanted and not await self.look():
            return
        while True:
            wanted = self._aspired()
            for version in wanted - self.table.keys():
                self.table[version] = VersionState(State.START)
            action = next_action(wanted, self.table)
            if action is None:
                return
            await self._perform(action, load)

    def _aspired(self) -> frozenset[int]:
        if not self._wanted:
            return frozenset()
        return aspired(frozenset(self._seen), self._whole, self.table, self.source.policy)

    async def _perform(self, action: Action, load: Loader) -> None:
        if action.step is Step.UNLOAD:
            self._retire(action.version)
        else:
            await self._load(action.version, load)

    async def _load(self, version: int, load: Loader) -> None:
        loop = asyncio.get_running_loop()
        files = self._whole[version]
        path = self._seen[version].path
        self.table[version] = VersionState(State.LOADING, files)
        _log.info("%s: loading version %d from %s", self.source.name, version, path)
        start = time.perf_counter()

        def work() -> Servable:
            servable = load(path)
            if fingerprint(path) != files:
                servable.close()
                raise ServingError(
                    Code.UNAVAILABLE,
                    f"{path} changed while it was loaded; waiting until it is whole",
                )
            return servable

        try:
            servable = await asyncio.wrap_future(self._thread.submit(work))
        except ServingError as error:
            self.table[version] = VersionState(
                State.END, files, error.code, error.message[:_MAX_MESSAGE]
            )
            _log.warning(
                "%s: version %d failed to load: %s", self.source.name, version, error.message[:300]
            )
            return

        def on_idle() -> None:
            loop.call_soon_threadsafe(self._unload, version, servable)

        self._handles[version] = Handle(self.source.name, version, servable, on_idle)
        self._set(version, State.AVAILABLE)
        took = time.perf_counter() - start
        _log.info("%s: version %d available after %.2f s", self.source.name, version, took)

    def _retire(self, version: int) -> None:
        self._set(version, State.UNLOADING)
        self._handles.pop(version).release()

    def _unload(self, version: int, servable: Servable) -> None:
        closing = self._thread.submit(servable.close)
        loop = asyncio.get_running_loop()
        closing.add_done_callback(lambda _: loop.call_soon_threadsafe(self._ended, version))

    def _ended(self, version: int) -> None:
        self._set(version, State.END)
        _log.info("%s: version %d unloaded", self.source.name, version)
        ended = [number for number, row in self.table.items() if row.state is State.END]
        for number in sorted(ended)[:-_MAX_ENDED]:
            del self.table[number]

    def _set(self, version: int, state: State) -> None:
        self.table[version] = replace(self.table[version], state=state)

    def _complain(self, text: str) -> None:
        """Says a thing once, not at each poll."""
        if text != self._complaint:
            self._complaint = text
            _log.warning("%s: %s", self.source.name, text)


def not_found(model: str, version: int | None) -> ServingError:
    """The answer for a model or version that does not serve."""
    what = f"Latest({model})" if version is None else f"Specific({model}, {version})"
    return ServingError(Code.NOT_FOUND, f"Servable not found for request: {what}")
