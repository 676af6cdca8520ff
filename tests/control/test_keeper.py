"""Ends, gentle and violent, of backends, keepers and gateways: nothing is left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from control.launched import (
    CHILD_IN_GROUP,
    DAEMON_AND_STAY,
    DEADLINE,
    DEAF,
    GATEWAY,
    POLITE,
    POLITE_CHILD,
    ROOT,
    WITH_WORKER,
    Steps,
    alive,
    launch,
    main_pid,
    number_in,
    parent,
    run,
    said,
    stat,
    supervising,
    until,
)

from gateway.control.supervisor import State
from gateway.types import Launch


def test_stop_lets_a_polite_backend_leave_by_itself(tmp_path: Path) -> None:
    async def main() -> None:
        steps = Steps()
        async with supervising(steps, launch(tmp_path, POLITE, stop_grace=DEADLINE)) as supervisor:
            pid = main_pid(supervisor)
            await until(lambda: said(tmp_path, "polite"))
        assert not alive(pid)
        assert said(tmp_path, "goodbye")
        assert State.DIED not in steps.states()

    run(main, tmp_path)


def test_stop_lets_what_a_backend_leaves_behind_leave_by_itself(tmp_path: Path) -> None:
    async def main() -> None:
        async with supervising(Steps(), launch(tmp_path, POLITE_CHILD, stop_grace=DEADLINE)):
            await until(lambda: said(tmp_path, "polite child"))
        assert said(tmp_path, "goodbye from the child")

    run(main, tmp_path)


def test_stop_leaves_the_workers_of_a_backend_to_the_backend(tmp_path: Path) -> None:
    """A worker that gets the signal as well drops the requests that the backend would finish."""

    async def main() -> None:
        it = launch(tmp_path, WITH_WORKER, stop_grace=DEADLINE)
        async with supervising(Steps(), it):
            await until(lambda: said(tmp_path, "worker up"))
        assert said(tmp_path, "worker finished")
        assert not said(tmp_path, "worker disturbed")

    run(main, tmp_path)


def test_stop_kills_what_ignores_sigterm_after_the_grace(tmp_path: Path) -> None:
    async def main() -> None:
        async with supervising(Steps(), launch(tmp_path, DEAF)) as supervisor:
            pid = main_pid(supervisor)
            await until(lambda: said(tmp_path, "deaf"))
        assert not alive(pid)

    run(main, tmp_path)


def test_stop_ends_a_daemon_in_its_own_session(tmp_path: Path) -> None:
    async def main() -> None:
        async with supervising(Steps(), launch(tmp_path, DAEMON_AND_STAY, tmp_path)) as supervisor:
            await until((tmp_path / "daemon").exists)
            daemon, pid = number_in(tmp_path / "daemon"), main_pid(supervisor)
            assert alive(daemon)
            assert stat(daemon)[3] != stat(pid)[3], "the daemon has no session of its own"
        assert not alive(daemon)
        assert not alive(pid)

    run(main, tmp_path)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has launched a backend with a daemon."""
    backend = [sys.executable, "-c", DAEMON_AND_STAY, str(tmp_path)]
    command = [sys.executable, "-c", GATEWAY, str(tmp_path), *backend]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment) as process:
        yield process
        process.kill()


def test_nothing_survives_a_killed_gateway(
    tmp_path: Path, gateway: subprocess.Popen[bytes]
) -> None:
    """kill -9, so no code of the gateway's runs any more."""

    async def main() -> None:
        await until(lambda: (tmp_path / "daemon").exists() and (tmp_path / "backend").exists())
        pids = [number_in(tmp_path / "daemon"), number_in(tmp_path / "backend")]
        inner = parent(pids[1])
        pids += [inner, parent(inner)]
        assert [alive(pid) for pid in pids] == [True] * 4
        gateway.kill()
        await until(lambda: not any(alive(pid) for pid in pids))

    run(main, tmp_path)


def test_a_backend_does_not_survive_gateway_and_keeper(
    tmp_path: Path, gateway: subprocess.Popen[bytes]
) -> None:
    """All three killed: its daemon then lives (the fixture ends it), the backend does not."""

    async def main() -> None:
        await until(lambda: (tmp_path / "daemon").exists() and (tmp_path / "backend").exists())
        backend = number_in(tmp_path / "backend")
        gateway.send_signal(signal.SIGSTOP)
        kill_both_keepers(backend)
        await until(lambda: not alive(backend))

    run(main, tmp_path)


@pytest.mark.parametrize("generations", [1, 2], ids=["inner", "outer"])
def test_nothing_survives_a_killed_keeper(tmp_path: Path, generations: int) -> None:
    """Either process of the keeper; the backend is gone with its daemon, and started anew."""

    async def main() -> None:
        steps = Steps()
        async with supervising(steps, launch(tmp_path, DAEMON_AND_STAY, tmp_path)) as supervisor:
            await until((tmp_path / "daemon").exists)
            keeper = pid = main_pid(supervisor)
            daemon = number_in(tmp_path / "daemon")
            (tmp_path / "daemon").unlink()
            for _ in range(generations):
                keeper = parent(keeper)
            os.kill(keeper, signal.SIGKILL)
            await until(lambda: steps.of(State.RESTARTING))
            assert not alive(pid)
            assert not alive(daemon)
            await until((tmp_path / "daemon").exists)
            assert main_pid(supervisor) != pid

    run(main, tmp_path)


def kill_both_keepers(backend: int) -> None:
    """Stops them first, so that neither can react to the death of the other."""
    pair = (parent(parent(backend)), parent(backend))
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for keeper in pair:
            os.kill(keeper, number)


def test_the_group_of_a_backend_dies_with_both_processes_of_its_keeper(tmp_path: Path) -> None:
    async def main() -> None:
        steps = Steps()
        it = launch(tmp_path, CHILD_IN_GROUP, tmp_path)
        async with supervising(steps, it) as supervisor:
            await until((tmp_path / "daemon").exists)
            pid, child = main_pid(supervisor), number_in(tmp_path / "daemon")
            kill_both_keepers(pid)
            await until(lambda: len(steps.of(State.READY)) == 2)
            assert steps.of(State.DIED)[0].code == -9
            assert not alive(pid)
            await until(lambda: not alive(child))

    run(main, tmp_path)


def test_backend_inherits_neither_descriptors_nor_ignored_signals(tmp_path: Path) -> None:
    """Its input is empty, its outputs are the log, and Python's habits are not passed on."""
    script = (
        "read line || echo no input; ls /proc/$$/fd; "
        "grep SigIgn /proc/$$/status; readlink /proc/$$/fd/1 /proc/$$/fd/2; echo done; sleep 600"
    )
    log = tmp_path / "log"
    it = Launch(name="it", command=("sh", "-c", script), log=log, stop_grace=0.3)

    async def main() -> None:
        async with supervising(Steps(), it):
            await until(lambda: said(tmp_path, "done"))

    run(main, tmp_path)
    _, *lines = log.read_text().splitlines()
    ignored = int(lines.pop(4).removeprefix("SigIgn:"), 16)
    assert not ignored & 0x7FFFFFFF  # the C library keeps those from 32 on to itself
    assert lines == ["no input", "0", "1", "2", str(log), str(log), "done"]
