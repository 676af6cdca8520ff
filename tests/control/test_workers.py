"""The workers' keeper, over real processes: what it tells, and what it does with a silent one."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.configuring import loaded
from support.waiting import DEADLINE, free_port

from gateway.control import workers as room
from gateway.control.supervisor import Backoff
from gateway.control.worker_orders import World
from gateway.control.workers import WorkerError, Workers, WorkerStatus
from gateway.types import Address, Configuration, Snapshot, Totals

FAST = Backoff(first=0.01)


class Record:
    """`Watcher` that keeps what it is told."""

    def __init__(self) -> None:
        self.told_of: dict[str, Totals] = {}
        self.lost_of: list[str] = []
        self.restarts: list[str] = []

    def told(self, worker: str, totals: Totals) -> None:
        self.told_of[worker] = totals

    def lost(self, worker: str) -> None:
        self.lost_of.append(worker)

    def restarted(self, worker: str) -> None:
        self.restarts.append(worker)


class Keeping:
    """Workers of a gateway without models; `world` may be changed."""

    def __init__(self, configuration: Configuration, silence: float = 30.0) -> None:
        self.record = Record()
        self.world = World(Snapshot(), settled=True, draining=False)
        self.workers = Workers(configuration, lambda: self.world, self.record, {}, FAST, silence)

    def all(self, *pids_before: int) -> tuple[WorkerStatus, ...]:
        """All workers if they listen, as other processes than those."""
        found = self.workers.status()
        good = all(one.listening and one.pid not in pids_before for one in found)
        return found if good else ()


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    found = loaded(tmp_path, "server: {grpc: off, workers: 2}\nmodels: {}")
    server = replace(found.server, http=Address("127.0.0.1", free_port()))
    return replace(found, server=server)


def run(configuration: Configuration, work: Callable[[Keeping], Awaitable[None]]) -> None:
    async def whole() -> None:
        keeping = Keeping(configuration, silence=2.0)
        try:
            await keeping.workers.start()
            await work(keeping)
        finally:
            await keeping.workers.stop(1)
        assert all(one.pid is None for one in keeping.workers.status())

    asyncio.run(whole())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


async def ask(configuration: Configuration, path: str) -> bytes:
    assert configuration.server.http is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", configuration.server.http.port)
    writer.write(b"GET %b HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n" % path.encode())
    answer = await reader.read()
    writer.close()
    return answer.split(b" ")[1]


def test_a_change_is_spread_when_every_worker_knows_it(configuration: Configuration) -> None:
    async def work(keeping: Keeping) -> None:
        for settled in (False, True, False, True):
            keeping.world = World(Snapshot(), settled, draining=False)
            keeping.workers.changed()
            await keeping.workers.spread()
            answers = await asyncio.gather(*(ask(configuration, "/readyz") for _ in range(20)))
            assert set(answers) == {b"200" if settled else b"503"}

    run(configuration, work)


def test_a_silent_worker_is_killed_and_replaced(
    configuration: Configuration, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(room, "_SPREAD", 0.1)

    async def work(keeping: Keeping) -> None:
        silent, _ = keeping.all()
        assert silent.pid is not None
        os.kill(silent.pid, signal.SIGSTOP)
        keeping.workers.changed()
        await keeping.workers.spread()  # bounded: a worker that hangs does not hang all
        await until(lambda: keeping.all(silent.pid or 0))
        assert keeping.record.restarts == ["1"]
        assert keeping.record.lost_of == ["1"]
        keeping.record.told_of.clear()
        await keeping.workers.figures()
        assert set(keeping.record.told_of) == {"1", "2"}

    run(configuration, work)
    assert "worker 1 does not know of a change yet" in caplog.text
    assert "worker 1 is silent for 2 s; killed" in caplog.text


def test_a_restart_that_fails_is_tried_again(
    configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(keeping: Keeping) -> None:
        monkeypatch.setattr(room.sys, "executable", "/nowhere/python")
        first, second = keeping.all()
        os.kill(first.pid or 0, signal.SIGKILL)
        await until(lambda: len(keeping.record.restarts) >= 3)
        assert keeping.workers.status()[1] == second
        monkeypatch.undo()
        await until(keeping.all)

    run(configuration, work)


def test_workers_that_never_come_up_are_an_error(
    configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room.sys, "executable", "/bin/false")

    async def work(keeping: Keeping) -> None:
        raise AssertionError("started")

    with pytest.raises(WorkerError, match="did not come up"):
        run(configuration, work)


@pytest.mark.parametrize("steps", range(12))
def test_whenever_it_is_stopped_no_process_is_left(
    configuration: Configuration, steps: int
) -> None:
    """Also in the middle of a start, step by step."""

    async def work() -> None:
        keeping = Keeping(configuration)
        starting = asyncio.create_task(keeping.workers.start())
        for _ in range(steps):
            await asyncio.sleep(0)
        processes = [one.pid for one in keeping.workers.status() if one.pid is not None]
        await keeping.workers.stop(1)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        assert all(one.pid is None for one in keeping.workers.status())
        left.extend(processes)

    left: list[int] = []
    asyncio.run(work())
    for pid in left:
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # waited for already
