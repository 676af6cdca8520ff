"""Loading, lending and unloading with a stand-in for TensorFlow: real folders, threads, loop."""

import asyncio
import shutil
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from adapters.savedmodel.manager import Manager
from adapters.savedmodel.signature import Servable, Signature
from adapters.savedmodel.status import Code, ServingError
from adapters.savedmodel.versions import Policy, State, parse_policy
from adapters.savedmodel.watch import Handle, ModelSource


class FakeServable:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.closed = threading.Event()

    @property
    def signatures(self) -> Mapping[str, Signature]:
        return {}

    @property
    def signature_defs(self) -> Mapping[str, Any]:
        return {}

    @property
    def checks_methods(self) -> bool:
        return False

    def metadata(self) -> dict[str, Any]:
        return {}

    def run(self, signature: Signature, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        self.closed.set()


class FakeLoader:
    """Loads any folder, except one whose saved_model.pb says `broken`."""

    def __init__(self) -> None:
        self.loaded: list[int] = []
        self.during: Callable[[Path], object] = lambda _: None

    def __call__(self, path: Path) -> Servable:
        self.loaded.append(int(path.name))
        self.during(path)
        if (path / "saved_model.pb").read_bytes() == b"broken":
            raise ServingError(Code.DATA_LOSS, "the file is broken")
        return FakeServable(path)


def _version(base: Path, number: int, content: bytes = b"whole") -> Path:
    folder = base / str(number)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "saved_model.pb").write_bytes(content)
    return folder


def _run(
    base: Path, test: Callable[[Manager, FakeLoader], Awaitable[None]], policy: str = "latest:1"
) -> None:
    async def main() -> None:
        manager = Manager((ModelSource("m", base, parse_policy(policy)),), workers=2)
        manager.open()
        try:
            await test(manager, FakeLoader())
        finally:
            assert manager.close()

    asyncio.run(main())


async def _rounds(manager: Manager, loader: FakeLoader, count: int = 2) -> None:
    for _ in range(count):
        await manager.step(loader)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the condition is the room's own, without an event
            await asyncio.sleep(0.001)


def _states(manager: Manager) -> dict[int, State]:
    return {version: row.state for version, row in manager.watches["m"].table.items()}


def _take(manager: Manager, version: int | None = None) -> Handle:
    return manager.acquire("m", version)


def test_the_new_version_serves_before_the_old_one_goes(tmp_path: Path) -> None:
    _version(tmp_path, 1)

    async def scenario(manager: Manager, loader: FakeLoader) -> None:
        await _rounds(manager, loader)
        assert _states(manager) == {1: State.AVAILABLE}
        _version(tmp_path, 2)
        seen: list[dict[int, State]] = []
        loader.during = lambda _: seen.append(_states(manager))
        await _rounds(manager, loader)
        assert seen == [{1: State.AVAILABLE, 2: State.LOADING}]
        assert _take(manager).version == 2
        await _until(lambda: _states(manager) == {1: State.END, 2: State.AVAILABLE})

    _run(tmp_path, scenario)


def test_a_folder_is_left_alone_until_two_looks_agree(tmp_path: Path) -> None:
    folder = _version(tmp_path, 1)

    async def scenario(manager: Manager, loader: FakeLoader) -> None:
        for size in range(3):
            (folder / "variables").write_bytes(b"x" * size)
            await _rounds(manager, loader, 1)
            assert loader.loaded == []
        await _rounds(manager, loader, 1)
        assert _states(manager) == {1: State.AVAILABLE}

    _run(tmp_path, scenario)


def test_a_request_in_flight_keeps_its_version(tmp_path: Path) -> None:
    _version(tmp_path, 1)

    async def scenario(manager: Manager, loader: FakeLoader) -> None:
        await _rounds(manager, loader)
        handle = _take(manager)
        servable = handle.servable
        assert isinstance(servable, FakeServable)
        go = threading.Event()
        answer = asyncio.ensure_future(
            manager.run(handle, lambda: (go.wait(10), servable.closed.is_set()))
        )
        _version(tmp_path, 2)
        await _rounds(manager, loader)
        assert _states(manager) == {1: State.UNLOADING, 2: State.AVAILABLE}
        with pytest.raises(ServingError, match=r"Specific\(m, 1\)"):
            _take(manager, 1)
        go.set()
        assert await answer == (True, False)
        await _until(lambda: _states(manager)[1] is State.END)
        assert servable.closed.is_set()

    _run(tmp_path, scenario)


def test_a_caller_who_leaves_does_not_free_the_model_under_its_own_prediction(
    tmp_path: Path,
) -> None:
    _version(tmp_path, 1)

    async def scenario(manager: Manager, loader: FakeLoader) -> None:
        await _rounds(manager, loader)
        handle = _take(manager)
        servable = handle.servable
        assert isinstance(servable, FakeServable)
        started, go = threading.Event(), threading.Event()
        task = asyncio.ensure_future(manager.run(handle, lambda: (started.set(), go.wait(10))))
        await _until(started.is_set)
        task.cancel()
        shutil.rmtree(tmp_path / "1")
        await _rounds(manager, loader)
        assert _states(manager) == {1: State.UNLOADING}
        assert not servable.closed.is_set()
        go.set()
        await _until(lambda: _states(manager) == {1: State.END})
        assert servable.closed.is_set()

    _run(tmp_path, scenario)


def test_a_broken_version_is_reported_and_tried_again_when_it_changes(tmp_path: Path) -> None:
    _version(tmp_path, 1)

    async def scenario(manager: Manager, loader: FakeLoader) -> None:
        await _rounds(manager, loader)
        _version(tmp_path, 2, b"broken")
        await _rounds(manager, loader, 5)
        row = manager.states("m", 2)[2]
        assert (row.state, row.code, row.message) == (
            State.END,
            Code.DATA_LOSS,
            "the file is broken",
        )
        assert loader.loaded == [1, 2]  # not again and again
        assert _take(manager).version == 1
        _version(tmp_path, 2, b"mended!")
        await _rounds(manager, loader)
        assert manager.states("m", 2)[2].code is Code.OK
        assert _take(manager).version == 2

    _run(tmp_path, scenario)


def test_a_broken_newest_version_at_a_cold_start_leaves_the_one_before(tmp_path: Path) -> None:
    _version(tmp_path, 1)
    _version(tmp_path, 2, b"broken")

    async def scenario(manager: Manager, loader: FakeLoader) -> None:
        await _rounds(manager, loader)
        assert _take(manager).version == 1

    _run(tmp_path, scenario)


def test_a_folder_that_changes_while_it_loads_is_not_served(tmp_path: Path) -> None:
    folder = _version(tmp_path, 1)

    async def scenario(manager: Manager, loader: FakeLoader) -> None:
        loader.during = lambda _: (folder / "late").write_bytes(b"more")
        await _rounds(manager, loader)
        assert manager.states("m", 1)[1].code is Code.UNAVAILABLE
        loader.during = lambda _: None
        await _rounds(manager, loader)
        assert _states(manager) == {1: State.AVAILABLE}

    _run(tmp_path, scenario)


def test_all_folders_gone_unloads_all_but_a_missing_base_unloads_none(tmp_path: Path) -> None:
    base = tmp_path / "base"
    _version(base, 1)
    _version(base, 2)

    async def scenario(manager: Manager, loader: FakeLoader) -> None:
        await _rounds(manager, loader)
        assert _states(manager) == {1: State.AVAILABLE, 2: State.AVAILABLE}
        base.rename(tmp_path / "moved")
        await _rounds(manager, loader)
        assert _states(manager) == {1: State.AVAILABLE, 2: State.AVAILABLE}
        base.mkdir()
        await _rounds(manager, loader)
        await _until(lambda: _states(manager) == {1: State.END, 2: State.END})
        with pytest.raises(ServingError, match=r"Servable not found for request: Latest\(m\)"):
            _take(manager)

    _run(base, scenario, "all")


def test_nothing_is_answered_before_the_first_round(tmp_path: Path) -> None:
    async def main() -> None:
        manager = Manager((ModelSource("m", tmp_path, Policy()),), workers=1)
        for ask in (lambda: manager.acquire("m", None), lambda: manager.states("m", None)):
            with pytest.raises(ServingError) as caught:
                ask()
            assert caught.value.code is Code.UNAVAILABLE
        assert manager.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("model", "version", "label", "code", "words"),
    [
        ("x", None, None, Code.NOT_FOUND, r"Latest\(x\)"),
        ("x", 3, None, Code.NOT_FOUND, r"Specific\(x, 3\)"),
        ("m", 3, None, Code.NOT_FOUND, r"Specific\(m, 3\)"),
        ("m", None, "stable", Code.INVALID_ARGUMENT, "Unrecognized servable version label: stable"),
        ("x", None, "stable", Code.INVALID_ARGUMENT, "Unrecognized servable version label: stable"),
        ("", None, None, Code.INVALID_ARGUMENT, "no name"),
    ],
)
def test_what_is_not_there(
    tmp_path: Path, model: str, version: int | None, label: str | None, code: Code, words: str
) -> None:
    async def scenario(manager: Manager, loader: FakeLoader) -> None:
        with pytest.raises(ServingError, match=words) as caught:
            manager.acquire(model, version, label)
        assert caught.value.code is code

    _run(tmp_path, scenario)


def test_the_state_table_does_not_grow_without_end(tmp_path: Path) -> None:
    async def scenario(manager: Manager, loader: FakeLoader) -> None:
        for number in range(1, 121):
            _version(tmp_path, number)
            await _rounds(manager, loader)
        await _until(lambda: list(_states(manager).values()).count(State.END) == 100)
        assert manager.states("m", None)[120].state is State.AVAILABLE

    _run(tmp_path, scenario)
