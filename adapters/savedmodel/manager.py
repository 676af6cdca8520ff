"""All models of the server: which there are, what their labels stand for, and the threads that run
them.

Belongs here: the configuration in force and its change. One task alone, `poll`, loads and unloads;
a change of configuration only tells it to hurry, and may wait for what came of it. Everything but
`submit` runs in the event loop's thread.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import TypeVar

from adapters.savedmodel.labels import Labels, assign
from adapters.savedmodel.status import Code, ServingError, invalid_argument
from adapters.savedmodel.versions import State, VersionState
from adapters.savedmodel.watch import Handle, Loader, ModelSource, ModelWatch, not_found
from adapters.savedmodel.workers import Workers

Result = TypeVar("Result")

SETTLE = 1.0  # seconds, at most, between the two looks that a new model's folder gets
_MAX_GONE = 1000  # models taken out whose end can still be seen


class Manager:
    """All models of the server, and the threads that run them.

    Args:
        sources: the models; their names are unique.
        workers: how many predictions may run at once.
        early_labels: labels may be given before their version serves; see `labels.assign`.

    Raises:
        ServingError: FAILED_PRECONDITION for a label that may not be given.
    """

    def __init__(
        self, sources: tuple[ModelSource, ...], workers: int, early_labels: bool = False
    ) -> None:
        self._loader_thread = Workers(1, "loader")
        self._predictors = Workers(workers, "predict")
        self._watches: dict[str, ModelWatch] = {}
        self._labels: Labels = {}
        self._early_labels = early_labels
        self._ready = False
        self._hurry = asyncio.Event()
        self._round = asyncio.Condition()
        self._reloading = asyncio.Lock()
        self.apply(sources)

    @property
    def watches(self) -> Mapping[str, ModelWatch]:
        """Each model's versions by the model's name, those taken out included."""
        return self._watches

    @property
    def models(self) -> frozenset[str]:
        """The names of the models in the configuration."""
        return frozenset(name for name, watch in self._watches.items() if watch.wanted)

    def apply(self, sources: Iterable[ModelSource]) -> frozenset[str]:
        """Puts a configuration in place of the one before; a model it leaves out is taken out.

        Returns:
            The names of the models that are new in it. Their versions load with the next rounds.

        Raises:
            ServingError: FAILED_PRECONDITION for a label that may not be given; then nothing
                changed.
        """
        wanted = {source.name: source for source in sources}
        self._labels = assign(wanted.values(), self._labels, self._serves, self._early_labels)
        new = frozenset(wanted.keys() - self.models)
        for name, watch in self._watches.items():
            if watch.wanted and name not in wanted:
                watch.remove()
        for name, source in wanted.items():
            if name in self._watches:
                self._watches[name].restore(source)
            else:
                self._watches[name] = ModelWatch(source, self._loader_thread)
        gone = [name for name, watch in self._watches.items() if watch.forgettable]
        for name in gone[:-_MAX_GONE]:
            del self._watches[name]
        self._hurry.set()
        return new

    async def reload(self, sources: Iterable[ModelSource]) -> None:
        """`apply`, then waits until each new model serves; for ever where it has no version yet.

        Raises:
            ServingError: as `apply`; UNKNOWN where a new model's versions failed to load. It stays
                in the configuration then.
        """
        async with self._reloading:
            new = self.apply(sources)

            def settled() -> bool:
                return all(self._outcome(name) is not None for name in new)

            async with self._round:
                await self._round.wait_for(settled)
        failed = [name for name in sorted(new) if self._outcome(name) is False]
        if failed:
            raise ServingError(Code.UNKNOWN, _failures(failed, self._watches))

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
            ServingError: NOT_FOUND for a model or version that does not serve, INVALID_ARGUMENT for
                an unknown label or an empty name, UNAVAILABLE while starting.
        """
        self.require_ready()
        if not model:
            raise invalid_argument("ModelSpec has no name specified.")
        if label is not None:
            version = self._labels.get(model, {}).get(label)
            if version is None:
                raise invalid_argument(f"Unrecognized servable version label: {label}")
        watch = self._watches.get(model)
        if watch is None:
            raise not_found(model, version)
        return watch.acquire(version)

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

    async def aside(self, work: Callable[[], Result]) -> Result:
        """Runs work that needs no model in a prediction thread."""
        return await asyncio.wrap_future(self._predictors.submit(work))

    async def in_loader_thread(self, work: Callable[[], Result]) -> Result:
        """Runs slow start-up work in the loader's thread."""
        return await asyncio.wrap_future(self._loader_thread.submit(work))

    async def look(self) -> None:
        """A look at all folders without acting, so that the next `step` can tell what is whole."""
        for watch in list(self._watches.values()):
            if watch.wanted:
                await watch.look()

    async def step(self, load: Loader) -> None:
        """One round: brings all models in step with their folders."""
        for watch in list(self._watches.values()):
            await watch.step(load)
        async with self._round:
            self._round.notify_all()

    def open(self) -> None:
        """Lets requests in."""
        self._hurry.clear()
        self._ready = True

    async def poll(self, load: Loader, every: float) -> None:
        """A round every so many seconds, for ever, and soon after each change of configuration."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await self._hurry.wait()
            if self._hurry.is_set():
                self._hurry.clear()
                await self.look()
                await asyncio.sleep(min(every, SETTLE))
            await self.step(load)

    def close(self) -> bool:
        """Takes no more work; False while a thread is still at some."""
        return all([self._predictors.close(), self._loader_thread.close()])

    def _serves(self, model: str, version: int) -> bool:
        watch = self._watches.get(model)
        return watch is not None and watch.serves(version)

    def _outcome(self, model: str) -> bool | None:
        watch = self._watches.get(model)
        # A model that a later change took out again is not waited for.
        return watch.outcome() if watch is not None and watch.wanted else True


def _failures(models: Iterable[str], watches: Mapping[str, ModelWatch]) -> str:
    texts = []
    for name in models:
        version, row = max(
            (item for item in watches[name].table.items() if item[1].state is State.END),
            key=lambda item: item[0],
        )
        why = f" due to error: {row.code.name}: {row.message}" if row.code is not Code.OK else ""
        texts.append(f"{{{{name: {name} version: {version}}}{why}}}, ")
    return f"{len(texts)} model(s) did not become available: {{{''.join(texts)}}}"
