"""Small programs to launch, each with one habit, and the tools to watch what becomes of them."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.control.ports import free_port
from gateway.control.supervisor import Backoff, Progress, State, Supervisor
from gateway.types import Launch

DEADLINE = 15.0
ROOT = Path(__file__).parents[2]

# ── Backends: small programs with one habit each ─────────────────────────────────────────────

SERVER = """
import os, sys, time, http.server
port, wait, folder = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
print("hello from", os.environ.get("GREETING"), flush=True)
with open(os.path.join(folder, "starts"), "a") as starts:
    starts.write(f"{os.getpid()}\\n")
born = time.monotonic()
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if time.monotonic() - born > wait else 503)
        self.end_headers()
    def log_message(self, *words):
        pass
http.server.HTTPServer(("127.0.0.1", port), Ready).serve_forever()
"""

# Leaves a daemon as they are made: forked twice, in a session of its own, deaf to SIGTERM.
DAEMON = """
import os, signal, sys, time
folder = sys.argv[1]
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        path = os.path.join(folder, "daemon")
        with open(path + ".new", "w") as file:
            file.write(str(os.getpid()))
        os.rename(path + ".new", path)
        time.sleep(600)
    os._exit(0)
os.wait()
while not os.path.exists(os.path.join(folder, "daemon")):
    time.sleep(0.005)
print("daemon made", flush=True)
"""
DAEMON_AND_STAY = DAEMON + "time.sleep(600)\n"
DAEMON_AND_DIE = DAEMON + "sys.exit(3)\n"
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""
POLITE = """
import signal, sys, time
def leave(number, frame):
    print("goodbye", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("polite", flush=True)
time.sleep(600)
"""
POLITE_CHILD = """
import os, signal, sys, time
def leave(number, frame):
    print("goodbye from the child", flush=True)
    os._exit(0)
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, leave)
    print("polite child", flush=True)
    time.sleep(600)
time.sleep(600)
"""
CHILD_IN_GROUP = """
import os, sys, time
path = os.path.join(sys.argv[1], "daemon")
child = os.fork()
if child:
    with open(path + ".new", "w") as file:
        file.write(str(child))
    os.rename(path + ".new", path)
time.sleep(600)
"""
# Ends its worker in its own way when told to leave; a worker that is told itself says so.
WITH_WORKER = """
import os, signal, sys
from_main, to_worker = os.pipe()
def leave(number, frame):
    os.write(to_worker, b"x")
    os.wait()
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
if os.fork() == 0:
    os.close(to_worker)
    signal.signal(signal.SIGTERM, lambda number, frame: print("worker disturbed", flush=True))
    print("worker up", flush=True)
    os.read(from_main, 1)
    print("worker finished", flush=True)
    os._exit(0)
while True:
    signal.pause()
"""
NEVER_READY = """
import time
print("loading\\x1b[31m weights", flush=True)
time.sleep(600)
"""
BROKEN = "print('cannot load weights'); raise SystemExit(7)\n"

# A gateway in miniature: it launches what it is told and lives until it is killed.
GATEWAY = """
import asyncio, sys
from pathlib import Path
from gateway.control.supervisor import Supervisor
from gateway.types import Launch
async def main():
    supervisor = Supervisor()
    folder = Path(sys.argv[1])
    launch = Launch(name="daemon", command=tuple(sys.argv[2:]), log=folder / "log", stop_grace=0.2)
    await supervisor.start([launch])
    (folder / "backend.new").write_text(str(supervisor.status()[0].pid))
    (folder / "backend.new").rename(folder / "backend")
    await asyncio.sleep(600)
asyncio.run(main())
"""


# ── Tools ────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Steps:
    """Hears the supervisor and can be asked what it heard."""

    all: list[Progress] = field(default_factory=list)

    def __call__(self, progress: Progress) -> None:
        self.all.append(progress)

    def of(self, state: State) -> list[Progress]:
        return [progress for progress in self.all if progress.state is state]

    def states(self, name: str = "it") -> list[State]:
        return [progress.state for progress in self.all if progress.name == name]


def run(main: Callable[[], Coroutine[Any, Any, None]], folder: Path) -> None:
    """Runs a test, bounded in time; errors that only the event loop sees fail it too.

    Backends leave their process ids in `folder`; what a failed test left running is killed.
    """
    unseen: list[dict[str, Any]] = []

    async def bounded() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        async with asyncio.timeout(2 * DEADLINE):
            await main()

    try:
        asyncio.run(bounded())
    finally:
        sweep(folder)
    assert unseen == []


def sweep(folder: Path) -> None:
    for name in ("daemon", "backend", "starts"):
        path = folder / name
        for word in path.read_text().split() if path.exists() else ():
            if alive(int(word)):
                os.kill(int(word), signal.SIGKILL)


@asynccontextmanager
async def supervising(steps: Steps, *launches: Launch) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(report=steps, backoff=Backoff(first=0.02), poll=0.02, news=0.05)
    try:
        await supervisor.start(launches)
        yield supervisor
    finally:
        await supervisor.stop()


def launch(folder: Path, program: str, *arguments: object, **settings: Any) -> Launch:
    """A launch of one of the programs above, named `it` unless said."""
    command = (sys.executable, "-c", program, *(str(argument) for argument in arguments))
    known: dict[str, Any] = {"name": "it", "log": folder / "log", "stop_grace": 0.3}
    return Launch(command=command, **(known | settings))


def server(folder: Path, wait: float = 0.0, **settings: Any) -> Launch:
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    return launch(folder, SERVER, port, wait, folder, **({"ready_url": url} | settings))


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def alive(pid: int) -> bool:
    try:
        return stat(pid)[0] not in "ZX"
    except OSError:
        return False


def parent(pid: int) -> int:
    return int(stat(pid)[1])


def said(folder: Path, line: str) -> bool:
    """Whether the backend has written this line (the log's header shows its whole program)."""
    return line in (folder / "log").read_text().splitlines()


def number_in(path: Path) -> int:
    return int(path.read_text())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - it is the world that changes, not this program
            await asyncio.sleep(0.01)


def main_pid(supervisor: Supervisor) -> int:
    (status,) = supervisor.status()
    assert status.pid is not None
    return status.pid
