"""The keeper: a small program that stands between the gateway and one launched backend.

    python -I -S keeper.py GRACE COMMAND [ARGUMENT...]

It runs COMMAND and sees to it that nothing of it outlives the gateway. A backend may leave
children behind (vLLM leaves its engine), also in sessions of their own; on Linux the keeper is
their subreaper (prctl(2)), so each orphan below it becomes its child and none can escape by
forking twice.

Standard streams: input is the lifeline, its end of file asks for the end (the gateway closed it, or
died, even by kill -9); output takes the report lines below; error is the backend's log, which
becomes both output streams of COMMAND.

    started PID      COMMAND runs as process PID, the leader of its own session
    failed REASON    COMMAND could not be executed
    exited CODE      it ended; negative: the signal's number. Its leftovers are being ended
    (end of file)    nothing below the keeper is left

The end comes when the lifeline ends, on SIGTERM, SIGINT or SIGHUP, or when COMMAND exits: SIGTERM
to COMMAND, SIGTERM to what it leaves behind when it exits, and GRACE seconds after the first,
SIGKILL, again and again, to all that still lives. Only COMMAND itself hears the first one: vLLM
finishes the requests in flight then, unless its workers get the signal too. The exit status
mirrors COMMAND's (128 + N for signal N).

The keeper is two processes, each in its own session, so that it has no weak spot of its own: the
outer one is subreaper above the inner one, which runs COMMAND. Kill the outer one and the inner
one's lifeline ends; kill the inner one and all that it kept falls to the outer one. Should both be
killed in the same instant, COMMAND itself dies with its parent (PR_SET_PDEATHSIG) and the
supervisor kills its process group; only children in further sessions could then be left.

On systems without prctl and /proc (macOS) this degrades to process groups: a child of COMMAND that
makes a session of its own is not found.

Rules of this room: standard library only, cheap imports only (it starts in about 20 ms), no import
of the package, one thread (PR_SET_PDEATHSIG is tied to the thread that forked).
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing and collections.abc would double the start time
    from collections.abc import Callable, Iterable

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
NEVER = float("inf")
RECHECK = 0.1  # seconds between two looks at the leftovers while they are being ended
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # exit codes of a shell for the same failures


def main(arguments: list[str]) -> int:
    """Runs the outer process, forks the inner one; returns the exit status of either."""
    grace, command = float(arguments[0]), arguments[1:]
    lifeline, report = take_standard_streams()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    inner_lifeline, hold = os.pipe()
    inner = os.fork()
    if inner == 0:
        os.close(hold)
        os.close(lifeline)
        os.setsid()
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        return run_inner(command, inner_lifeline, report, grace)
    os.close(inner_lifeline)
    # The inner process keeps the time while it lives: the outer one has only to pass the word on.
    code = keep(inner, lifeline, lambda: os.close(hold), patience=NEVER, grace=grace)
    return mirrored(code)


def run_inner(command: list[str], lifeline: int, report: int, grace: float) -> int:
    """Starts the command, reports on it and keeps it; returns the exit status to leave with."""
    child, failure = spawn(command)
    if failure:
        say(report, "failed " + os.strerror(failure))
        return NOT_FOUND if failure == 2 else NOT_EXECUTABLE
    say(report, f"started {child}")
    code = keep(
        child,
        lifeline,
        lambda: strike([child], signal.SIGTERM),
        patience=grace,
        grace=grace,
        on_exit=lambda code: say(report, f"exited {code}"),
    )
    return mirrored(code)


def keep(
    child: int,
    lifeline: int,
    ask: Callable[[], object],
    *,
    patience: float,
    grace: float,
    on_exit: Callable[[int], object] = lambda code: None,
) -> int:
    """Waits for `child` and ends all that it leaves; returns its exit code when nothing is left.

    `ask` is called once when the end is asked for; the child then has `patience` seconds before
    everything is killed. What it leaves behind when it exits has `grace` seconds.
    """
    signals = signal_pipe()
    code: int | None = None
    asked, deadline = False, NEVER
    warned: set[int] = set()
    while True:
        ended, childless = reap(child)
        if ended is not None:
            code, deadline = ended, min(deadline, time.monotonic() + grace)
            on_exit(code)
        if code is not None and childless and not living(child):
            return code
        overdue = time.monotonic() >= deadline
        if code is not None or overdue:
            left = living(child)
            targets = left if overdue else [pid for pid in left if pid not in warned]
            warned.update(targets)
            reached = strike(targets, signal.SIGKILL if overdue else signal.SIGTERM)
            if code is not None and overdue and left and not reached:
                complain(f"cannot end processes {left}: they belong to another user")
                return code
        pause = None if deadline == NEVER else max(0.0, min(RECHECK, deadline - time.monotonic()))
        if stop_asked(lifeline, signals, listen=not asked, pause=pause):
            asked, deadline = True, min(deadline, time.monotonic() + patience)
            ask()


def stop_asked(lifeline: int, signals: int, *, listen: bool, pause: float | None) -> bool:
    """Waits for a signal, the lifeline or `pause` seconds; true if one of the first two says stop.

    `listen` false: only waits, for a stop that has been asked for is not asked for again.
    """
    ready, _, _ = select.select([lifeline, signals] if listen else [signals], [], [], pause)
    asked = lifeline in ready and at_end(lifeline)
    if signals in ready:
        asked |= any(number in STOP_SIGNALS for number in os.read(signals, 4096))
    return asked and listen


def at_end(lifeline: int) -> bool:
    """Whether the lifeline is at its end; bytes in it mean nothing and are dropped."""
    try:
        return not os.read(lifeline, 4096)
    except OSError:
        return True


def reap(child: int) -> tuple[int | None, bool]:
    """Collects all ended children: the exit code of `child` if it is among them; if none are left.

    A subreaper without children has no descendants either: an orphan becomes its child at once.
    """
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code, True
        if pid == 0:
            return code, False
        if pid == child:
            code = os.waitstatus_to_exitcode(status)


def living(child: int) -> list[int]:
    """Processes below this one, zombies left out; without /proc: `child`'s process group, if any.

    A group is given as a negative number, as kill(2) takes it.
    """
    if os.path.exists("/proc/self/stat"):
        return descendants(os.getpid())
    return [-child] if strike([-child], 0) else []


def descendants(root: int) -> list[int]:
    """Process ids below `root`, zombies left out, found in /proc (see proc(5), `stat`)."""
    children: dict[int, list[int]] = {}
    zombies: set[int] = set()
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                stat = file.read()
        except OSError:
            continue  # it ended while we looked
        # The name stands in parentheses and may hold any byte, so read on from the last one.
        state, parent = stat[stat.rindex(b")") + 2 :].split(None, 2)[:2]
        children.setdefault(int(parent), []).append(int(entry))
        if state in b"ZX":
            zombies.add(int(entry))
    found: list[int] = []
    queue = list(children.get(root, ()))
    while queue:
        pid = queue.pop()
        queue.extend(children.get(pid, ()))
        if pid not in zombies:
            found.append(pid)
    return found


def strike(targets: Iterable[int], number: int) -> int:
    """Sends a signal to processes, or groups (negative); returns how many it may have reached."""
    reached = 0
    for target in targets:
        try:
            os.kill(target, number)
        except ProcessLookupError:
            continue
        except PermissionError:
            continue  # for instance sudo's: see keep
        reached += 1
    return reached


def spawn(command: list[str]) -> tuple[int, int]:
    """Starts the command in a session of its own: its process id, and errno if it could not be."""
    read, write = os.pipe()  # closed by a successful exec, else it brings the errno
    keeper = os.getpid()
    child = os.fork()
    if child == 0:
        failure = 255
        try:
            os.setsid()
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != keeper:  # it died before prctl could take effect
                os._exit(NOT_EXECUTABLE)
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, exec keeps that
                signal.signal(number, signal.SIG_DFL)
            os.execvp(command[0], command)
        except OSError as error:
            failure = error.errno or failure
        finally:
            os.write(write, bytes([failure]))
            os._exit(NOT_EXECUTABLE)
    os.close(write)
    failure_byte = os.read(read, 1)
    os.close(read)
    if failure_byte:
        os.waitpid(child, 0)
    return child, failure_byte[0] if failure_byte else 0


def take_standard_streams() -> tuple[int, int]:
    """Moves lifeline and report away from the standard streams, which the command is to inherit."""
    lifeline, report = os.dup(0), os.dup(1)  # os.dup's copies are not inherited
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    return lifeline, report


def signal_pipe() -> int:
    """A pipe that carries each signal's number, so that select wakes up for it; its reading end."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (*STOP_SIGNALS, signal.SIGCHLD):
        signal.signal(number, lambda number, frame: None)
    return read


def prctl(option: int, value: int) -> None:
    """prctl(2) where there is one; elsewhere nothing happens (see the degraded mode above)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def say(report: int, line: str) -> None:
    """One report line; a gateway that is gone does not miss it."""
    try:
        os.write(report, line.encode() + b"\n")
    except BrokenPipeError:
        return


def complain(line: str) -> None:
    """One line of the keeper's own into the backend's log."""
    os.write(2, b"[keeper] " + line.encode() + b"\n")


def mirrored(code: int) -> int:
    """The exit status that stands for an exit code, in which signals are negative."""
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
