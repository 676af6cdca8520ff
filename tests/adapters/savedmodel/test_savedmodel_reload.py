"""Labels and changes of configuration with a stand-in for TensorFlow: real folders and threads."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from adapters.savedmodel.labels import assign
from adapters.savedmodel.manager import Manager
from adapters.savedmodel.signature import Servable
from adapters.savedmodel.status import Code, ServingError
from adapters.savedmodel.versions import Policy, State
from adapters.savedmodel.watch import ModelSource

POLL = 0.01
NOT_NOW = "label to version {} of model m, which is not currently available for inference"


class FakeServable:
    checks_methods = False
    signatures: dict[str, Any] = {}  # noqa: RUF012 - never written
    signature_defs = signatures

    def metadata(self) -> dict[str, Any]:
        return {}

    def run(self, _signature: Any, _inputs: Any) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass


def _load(path: Path) -> Servable:
    if (path / "saved_model.pb").read_bytes() == b"broken":
        raise ServingError(Code.DATA_LOSS, "the file is broken")
    return FakeServable()


def _source(base: Path, policy: Policy | None = None, **labels: int) -> ModelSource:
    return ModelSource(base.name, base, policy or Policy(latest=1), labels)


def _version(base: Path, number: int, content: bytes = b"whole") -> None:
    (base / str(number)).mkdir(parents=True)
    (base / str(number) / "saved_model.pb").write_bytes(content)


def _run(
    test: Callable[[Manager], Awaitable[None]], *sources: ModelSource, early: bool = False
) -> None:
    async def main() -> None:
        manager = Manager(sources, workers=2, early_labels=early)
        await manager.look()
        await manager.step(_load)
        manager.open()
        poll = asyncio.create_task(manager.poll(_load, POLL))
        try:
            async with asyncio.timeout(20):
                await test(manager)
        finally:
            poll.cancel()
            with suppress(asyncio.CancelledError):
                await poll
            assert manager.close()

    asyncio.run(main())


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the condition is the room's own, without an event
        await asyncio.sleep(0.001)


def _served(manager: Manager, model: str, label: str | None = None) -> int:
    handle = manager.acquire(model, None, label)
    handle.release()
    return handle.version


def _states(manager: Manager, model: str) -> dict[int, State]:
    return {version: row.state for version, row in manager.states(model, None).items()}


@pytest.mark.parametrize(
    ("labels", "before", "serving", "early", "refused"),
    [
        ({}, {}, (), False, None),
        ({"a": 1}, {}, (1,), False, None),
        ({"a": 1, "b": 1}, {}, (1,), False, None),
        ({"a": 1}, {}, (), False, 1),
        ({"a": 1}, {"a": 1}, (), False, 1),
        ({"a": 2}, {"a": 1}, (1,), False, 2),
        ({"a": 1}, {}, (), True, None),
        ({"a": 1}, {"a": 1}, (), True, None),
        ({"a": 2}, {"a": 1}, (1,), True, 2),
        ({"a": 2}, {"a": 1}, (1, 2), True, None),
        ({"a": 1, "b": 2}, {"a": 1}, (1,), True, None),
    ],
)
def test_who_may_have_a_label(
    labels: dict[str, int],
    before: dict[str, int],
    serving: tuple[int, ...],
    early: bool,
    refused: int | None,
) -> None:
    source = ModelSource("m", Path("/m"), Policy(), labels)
    ask = lambda: assign([source], {"m": before}, lambda _, version: version in serving, early)  # noqa: E731
    if refused is None:
        assert ask() == ({"m": labels} if labels else {})
        return
    with pytest.raises(ServingError, match=NOT_NOW.format(refused)) as caught:
        ask()
    assert caught.value.code is Code.FAILED_PRECONDITION


def test_labels_at_a_cold_start(tmp_path: Path) -> None:
    base = tmp_path / "m"
    _version(base, 1)

    async def served(manager: Manager) -> None:
        assert _served(manager, "m", "stable") == 1

    with pytest.raises(ServingError, match=NOT_NOW.format(1)):
        _run(served, _source(base, stable=1))
    _run(served, _source(base, stable=1), early=True)


def test_a_label_moves_and_goes(tmp_path: Path) -> None:
    base = tmp_path / "m"
    _version(base, 1)
    _version(base, 2)

    async def scenario(manager: Manager) -> None:
        await manager.reload([_source(base, Policy(), stable=1, canary=2)])
        assert (_served(manager, "m", "stable"), _served(manager, "m", "canary")) == (1, 2)
        await manager.reload([_source(base, Policy(), stable=2)])
        assert _served(manager, "m", "stable") == 2
        with pytest.raises(ServingError, match="Unrecognized servable version label: canary"):
            _served(manager, "m", "canary")
        with pytest.raises(ServingError, match=NOT_NOW.format(3)):
            await manager.reload([_source(base, Policy(chosen=frozenset({1})), stable=3)])
        assert _served(manager, "m", "stable") == 2  # nothing changed
        assert manager.watches["m"].source.policy == Policy()
        assert _states(manager, "m") == {2: State.AVAILABLE, 1: State.AVAILABLE}

    _run(scenario, _source(base, Policy()))


def test_what_a_reload_leaves_out_goes_and_can_come_back(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    _version(first, 1)
    _version(second, 1)

    async def scenario(manager: Manager) -> None:
        await manager.reload([_source(second)])
        assert _served(manager, "b") == 1  # waited for
        with pytest.raises(ServingError, match=r"Servable not found for request: Latest\(a\)"):
            _served(manager, "a")
        await _until(lambda: _states(manager, "a") == {1: State.END})
        assert manager.models == {"b"}
        await manager.reload([_source(second), _source(first)])
        assert _states(manager, "a") == {1: State.AVAILABLE}
        await manager.reload([])
        await _until(lambda: _states(manager, "a") == _states(manager, "b") == {1: State.END})

    _run(scenario, _source(first))


def test_a_model_in_use_goes_after_its_last_request(tmp_path: Path) -> None:
    base = tmp_path / "m"
    _version(base, 1)

    async def scenario(manager: Manager) -> None:
        handle = manager.acquire("m", None)
        go = threading.Event()
        answer = asyncio.ensure_future(manager.run(handle, lambda: go.wait(10)))
        await manager.reload([])
        assert _states(manager, "m") == {1: State.UNLOADING}
        go.set()
        assert await answer
        await _until(lambda: _states(manager, "m") == {1: State.END})

    _run(scenario, _source(base))


def test_a_model_that_comes_back_while_it_unloads_is_waited_for(tmp_path: Path) -> None:
    base = tmp_path / "m"
    _version(base, 1)

    async def scenario(manager: Manager) -> None:
        handle = manager.acquire("m", None)
        await manager.reload([])
        waiting = asyncio.ensure_future(manager.reload([_source(base)]))
        await _until(lambda: manager.models == {"m"})
        handle.release()
        await waiting
        assert _served(manager, "m") == 1

    _run(scenario, _source(base))


def test_a_new_model_that_fails_is_told_and_mended_later(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    _version(good, 1)
    _version(bad, 7, b"broken")

    async def scenario(manager: Manager) -> None:
        words = (
            r"1 model\(s\) did not become available: \{\{\{name: bad version: 7\} due to error: "
            "DATA_LOSS: the file is broken"
        )
        with pytest.raises(ServingError, match=words) as caught:
            await manager.reload([_source(good), _source(bad)])
        assert caught.value.code is Code.UNKNOWN
        assert _served(manager, "good") == 1
        (bad / "7" / "saved_model.pb").write_bytes(b"mended!")
        await _until(lambda: _states(manager, "bad") == {7: State.AVAILABLE})

    _run(scenario, _source(good))


def test_a_reload_waits_for_a_version_and_can_be_left(tmp_path: Path) -> None:
    base = tmp_path / "m"
    base.mkdir()

    async def scenario(manager: Manager) -> None:
        waiting = asyncio.ensure_future(manager.reload([_source(base)]))
        await _until(lambda: manager.models == {"m"})
        assert not waiting.done()
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        waiting = asyncio.ensure_future(manager.reload([_source(base)]))
        await waiting  # no longer new, so not waited for
        _version(base, 1)
        await _until(lambda: manager.watches["m"].serves(1))

    _run(scenario)


def test_a_policy_changes_in_service(tmp_path: Path) -> None:
    base = tmp_path / "m"
    for number in (1, 2, 3):
        _version(base, number)

    async def scenario(manager: Manager) -> None:
        assert _states(manager, "m") == {3: State.AVAILABLE}
        await manager.reload([_source(base, Policy(chosen=frozenset({1, 2})))])
        await _until(
            lambda: _states(manager, "m") == {3: State.END, 2: State.AVAILABLE, 1: State.AVAILABLE}
        )

    _run(scenario, _source(base))


def test_the_models_that_went_do_not_pile_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.savedmodel.manager._MAX_GONE", 3)

    async def scenario(manager: Manager) -> None:
        for number in range(10):
            manager.apply([ModelSource(str(number), tmp_path, Policy())])
        manager.apply([])
        assert set(manager.watches) == {"7", "8", "9"}

    _run(scenario)
