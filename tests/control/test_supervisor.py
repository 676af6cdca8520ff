"""Launched backends as an operator meets them: started, found wanting, watched, restarted."""

import asyncio
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from control.launched import (
    BROKEN,
    DAEMON_AND_DIE,
    NEVER_READY,
    POLITE,
    Steps,
    alive,
    launch,
    main_pid,
    number_in,
    run,
    server,
    supervising,
    until,
)

from gateway.control.ports import free_port
from gateway.control.supervisor import Backoff, LaunchError, State, Supervisor
from gateway.types import Launch

# ── Starting ─────────────────────────────────────────────────────────────────────────────────


def test_starts_side_by_side_and_returns_when_all_are_ready(tmp_path: Path) -> None:
    """Two backends are started before the first is ready; progress tells the way there."""

    async def main() -> None:
        steps = Steps()
        slow = server(
            tmp_path, 0.3, name="slow", log=tmp_path / "slow.log", env={"GREETING": "you"}
        )
        quick = server(tmp_path, name="quick", log=tmp_path / "quick.log")
        async with supervising(steps, slow, quick) as supervisor:
            assert [(one.name, one.state, one.restarts) for one in supervisor.status()] == [
                ("slow", State.READY, 0),
                ("quick", State.READY, 0),
            ]
            assert [step.name for step in steps.of(State.STARTING)] == ["slow", "quick"]
            assert [step.name for step in steps.of(State.READY)] == ["quick", "slow"]
            waiting = [step for step in steps.of(State.WAITING) if step.name == "slow"]
            assert waiting[-1].line == "hello from you"
            assert 0 < waiting[0].elapsed < waiting[-1].elapsed
            assert not {State.READY, State.DIED} & {step.state for step in waiting}
        assert supervisor.status() == ()
        assert steps.states("slow")[-1] is State.STOPPED

    run(main, tmp_path)


def test_never_ready_is_one_clear_error_and_nothing_is_left(tmp_path: Path) -> None:
    """The late one's error carries its log; the one that was ready is stopped as well."""

    async def main() -> None:
        other = server(tmp_path, name="other", log=tmp_path / "other.log")
        url = f"http://127.0.0.1:{free_port()}/health"
        late = launch(tmp_path, NEVER_READY, ready_url=url, start_timeout=0.7)
        steps = Steps()
        supervisor = Supervisor(steps)
        with pytest.raises(LaunchError) as caught:
            await supervisor.start([other, late])
        assert supervisor.status() == ()
        assert caught.value.name == "it"
        assert f"not ready after 0.7 s: GET {url} does not answer 200" in caught.value.reason
        assert caught.value.log == tmp_path / "log"
        assert caught.value.tail == ("loading weights",)
        assert str(tmp_path / "log") in str(caught.value)
        assert "  | loading weights" in str(caught.value)
        assert steps.states("other")[-1] is State.STOPPED
        assert not alive(number_in(tmp_path / "starts"))

    run(main, tmp_path)


def test_death_before_readiness_names_the_exit_code(tmp_path: Path) -> None:
    async def main() -> None:
        broken = launch(tmp_path, BROKEN, ready_url=f"http://127.0.0.1:{free_port()}/")
        with pytest.raises(LaunchError, match="launch it: exited with code 7 before it was ready"):
            await Supervisor().start([broken])

    run(main, tmp_path)


def test_command_not_found_is_one_line(tmp_path: Path) -> None:
    async def main() -> None:
        missing = Launch(name="it", command=("no-such-server", "--fast"), log=tmp_path / "log")
        with pytest.raises(LaunchError) as caught:
            await Supervisor().start([missing])
        assert str(caught.value) == (
            "launch it: cannot run no-such-server: No such file or directory; "
            f"is it installed and on PATH? (log: {tmp_path / 'log'})"
        )

    run(main, tmp_path)


def test_a_log_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "file").touch()
        blocked = launch(tmp_path, POLITE, log=tmp_path / "file" / "log")
        with pytest.raises(LaunchError, match=r"cannot be started: .*file"):
            await Supervisor().start([blocked])

    run(main, tmp_path)


def test_a_stranger_on_the_port_is_not_taken_for_the_backend(tmp_path: Path) -> None:
    async def main() -> None:
        steps = Steps()
        first = server(tmp_path)
        second = replace(first, name="second", log=tmp_path / "second.log")
        async with supervising(steps, first) as supervisor:
            with pytest.raises(LaunchError, match="another process answers at http://127"):
                await supervisor.start([second])
            assert [one.name for one in supervisor.status()] == ["it"]
            assert not (tmp_path / "second.log").exists()

    run(main, tmp_path)


def test_two_launches_of_one_name_are_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with supervising(Steps(), launch(tmp_path, POLITE)) as supervisor:
            with pytest.raises(ValueError, match="two launches are named 'it'"):
                await supervisor.start([launch(tmp_path, POLITE)])
            assert alive(main_pid(supervisor))

    run(main, tmp_path)


def test_start_given_up_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C while a model loads."""

    async def main() -> None:
        supervisor = Supervisor()
        never = replace(server(tmp_path, wait=600), start_timeout=600.0)
        start = asyncio.create_task(supervisor.start([never]))
        await until((tmp_path / "starts").exists)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert not alive(number_in(tmp_path / "starts"))
        assert supervisor.status() == ()

    run(main, tmp_path)


# ── Watching ─────────────────────────────────────────────────────────────────────────────────


def test_dies_and_is_restarted_with_growing_delays(tmp_path: Path) -> None:
    async def main() -> None:
        steps = Steps()
        async with supervising(steps, server(tmp_path)) as supervisor:
            for restart in range(3):
                os.kill(main_pid(supervisor), signal.SIGKILL)
                await until(lambda: len(steps.of(State.READY)) == restart + 2)  # noqa: B023
            assert [step.code for step in steps.of(State.DIED)] == [-9, -9, -9]
            assert [step.delay for step in steps.of(State.RESTARTING)] == [0.02, 0.04, 0.08]
            assert supervisor.status()[0].restarts == 3
            assert main_pid(supervisor) == int((tmp_path / "starts").read_text().split()[-1])

    run(main, tmp_path)


def test_being_up_for_long_makes_the_delay_short_again(tmp_path: Path) -> None:
    """With a clock that says that hours passed between readiness and death."""

    async def main() -> None:
        steps = Steps()
        hours = 0

        def clock() -> float:
            return time.monotonic() + 3600 * hours

        supervisor = Supervisor(steps, Backoff(first=0.02), clock, poll=0.02)
        await supervisor.start([server(tmp_path)])
        for deaths in (1, 2, 3):
            hours += deaths == 3
            os.kill(main_pid(supervisor), signal.SIGTERM)
            await until(lambda: len(steps.of(State.READY)) == deaths + 1)  # noqa: B023
        await supervisor.stop()
        assert [step.delay for step in steps.of(State.RESTARTING)] == [0.02, 0.04, 0.02]

    run(main, tmp_path)


def test_leftovers_of_a_dead_backend_go_before_its_restart(tmp_path: Path) -> None:
    async def main() -> None:
        steps = Steps()
        found: list[bool] = []

        async def sleep(delay: float) -> None:
            found.append(alive(number_in(tmp_path / "daemon")))
            await asyncio.Event().wait()

        supervisor = Supervisor(steps, sleep=sleep)
        await supervisor.start([launch(tmp_path, DAEMON_AND_DIE, tmp_path)])
        await until(lambda: found)
        await supervisor.stop()
        assert found == [False]
        assert steps.of(State.DIED)[0].code == 3
        assert steps.of(State.DIED)[0].line == "daemon made"

    run(main, tmp_path)


def test_a_restart_that_fails_is_tried_again(tmp_path: Path) -> None:
    async def main() -> None:
        steps = Steps()
        program = tmp_path / "program"
        program.write_text(f"#!{sys.executable}\n{POLITE}")
        program.chmod(0o700)
        it = Launch(name="it", command=(str(program),), log=tmp_path / "log", stop_grace=0.3)
        async with supervising(steps, it) as supervisor:
            program.rename(tmp_path / "away")
            os.kill(main_pid(supervisor), signal.SIGKILL)
            await until(lambda: len(steps.of(State.DIED)) > 2)
            assert "cannot run" in steps.of(State.DIED)[1].line
            (tmp_path / "away").rename(program)
            await until(lambda: len(steps.of(State.READY)) == 2)

    run(main, tmp_path)


@pytest.mark.parametrize(("attempt", "delay"), [(0, 1), (1, 2), (4, 16), (5, 30), (10**6, 30)])
def test_backoff_doubles_up_to_its_limit(attempt: int, delay: float) -> None:
    assert Backoff().delay(attempt) == delay
