"""Holds the loaded versions: loads them, lends them to requests, unloads them once the last request
is done.

Belongs here: the state tables, the polling of folders, the threads that load and predict. What to
do next is decided in `versions`; this room does it. The tables belong to the event loop's thread;
only a handle's count is shared between threads, under its lock.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from adapters.savedmodel.signature import Servable
from adapters.savedmodel.status import Code, ServingError, invalid_argument
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
Result = TypeVar("Result")

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

    Its name, the folder that holds its numbered versions, and which of them are wanted.
    """

    name: str
    base: Path
    policy: Policy


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
                f"no numbered version folder in {self.source.base}; expected one such as "
                f"{self.source.base}/1"
            )
        elif self._handles:
            self._complaint = ""
        return True

    async def step(self, load: Loader) -> None:
        """One poll.

        Looks at the folder, then acts until the loaded versions are the wanted ones.
        """
        if not await self.look():
            return
        present = frozenset(self._seen)
        while True:
            wanted = aspired(present, self._whole, self.table, self.source.policy)
            for version in wanted - self.table.keys():
                self.table[version] = VersionState(State.START)
            action = next_action(wanted, self.table)
            if action is None:
                return
            await self._perform(action, load)

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


class Manager:
    """All models of the server, and the threads that run them.

    Args:
        sources: the models; their names are unique.
        workers: how many predictions may run at once.
    """

    def __init__(self, sources: tuple[ModelSource, ...], workers: int) -> None:
        self._loader_thread = Workers(1, "loader")
        self._predictors = Workers(workers, "predict")
        self._watches = {source.name: ModelWatch(source, self._loader_thread) for source in sources}
        self._ready = False

    @property
    def watches(self) -> Mapping[str, ModelWatch]:
        """Each model's versions by the model's name."""
        return self._watches

    def require_ready(self) -> None:
        """Refuses (UNAVAILABLE) until the first round of loading is over, whatever came of it."""
        if not self._ready:
            raise ServingError(
                Code.UNAVAILABLE,
                "starting: TensorFlow and the models are being loaded; try again soon",
            )

    def acquire(self, model: str, version: int | None, label: str | None = None) -> Handle:
        """A held handle; `run` gives it back.

        Raises:
            ServingError: NOT_FOUND for an unknown model or version, INVALID_ARGUMENT for a label
                (this server has
                none) or an empty name, UNAVAILABLE while starting.
        """
        self.require_ready()
        if not model:
            raise invalid_argument("ModelSpec has no name specified.")
        if label is not None:
            raise unknown_label(label)
        watch = self._watches.get(model)
        if watch is None:
            raise not_found(model, version)
        return watch.acquire(version)

    def refuse_label(self, model: str, label: str) -> None:
        """Answers a status request by label, of which this server has none.

        Raises:
            ServingError: always; NOT_FOUND for an unknown model, else INVALID_ARGUMENT.
        """
        self.states(model, None)
        raise unknown_label(label)

    def states(self, model: str, version: int | None) -> dict[int, VersionState]:
        """The state table's rows, highest version first.

        Raises:
            ServingError: NOT_FOUND where there is none, UNAVAILABLE while starting.
        """
        self.require_ready()
        watch = self._watches.get(model)
        table = watch.table if watch else {}
        if version is None:
            if not table:
                raise ServingError(Code.NOT_FOUND, f"Could not find any versions of model {model}")
            return dict(sorted(table.items(), reverse=True))
        if version not in table:
            raise ServingError(Code.NOT_FOUND, f"Could not find version {version} of model {model}")
        return {version: table[version]}

    def submit(self, handle: Handle, work: Callable[[], Result]) -> "Future[Result]":
        """Runs work in a prediction thread; gives the handle back when it ends, even unawaited."""
        future = self._predictors.submit(work)
        future.add_done_callback(lambda _: handle.release())
        return future

    def run(self, handle: Handle, work: Callable[[], Result]) -> Awaitable[Result]:
        """`submit` for the event loop. A caller who leaves cancels what has not begun."""
        return asyncio.wrap_future(self.submit(handle, work))

    async def in_loader_thread(self, work: Callable[[], Result]) -> Result:
        """Runs slow start-up work in the loader's thread."""
        return await asyncio.wrap_future(self._loader_thread.submit(work))

    async def look(self) -> None:
        """The first look at all folders, so that the first `step` can tell what is whole."""
        for watch in self._watches.values():
            await watch.look()

    async def step(self, load: Loader) -> None:
        """One round: brings all models in step with their folders."""
        for watch in self._watches.values():
            await watch.step(load)

    def open(self) -> None:
        """Lets requests in."""
        self._ready = True

    async def poll(self, load: Loader, every: float) -> None:
        """A round every so many seconds, for ever."""
        while True:
            await asyncio.sleep(every)
            await self.step(load)

    def close(self) -> bool:
        """Takes no more work; False while a thread is still at some."""
        return all([self._predictors.close(), self._loader_thread.close()])


def not_found(model: str, version: int | None) -> ServingError:
    """The answer for a model or version that does not serve."""
    what = f"Latest({model})" if version is None else f"Specific({model}, {version})"
    return ServingError(Code.NOT_FOUND, f"Servable not found for request: {what}")


def unknown_label(label: str) -> ServingError:
    """The answer for a label; this server has none configured."""
    return invalid_argument(f"Unrecognized servable version label: {label}")
