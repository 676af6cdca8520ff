"""Run the commands that make an environment, each followed line by line.

Rules of this room: a command's whole output goes to the log, its errors become advice, and it never
outlives us: what we started is ended with us, and if we are killed it keeps the lock until it ends.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from advice import advise, relevant
from progress import Progress

UNFINISHED = ".isthmus-unfinished"  # stands in a venv while pip changes its packages
_CHANGING = ("Installing collected packages", "Found existing installation")
_DOING = re.compile(r"(?P<verb>Collecting|Downloading|Building|Preparing|Installing) (?P<what>.+)")
_LIMIT = 1 << 22  # bytes in a line; pip writes long lists of versions on one
_GRACE = 5.0  # seconds between asking a command to end and ending it


class Failed(Exception):
    """An environment could not be made; the message says why and what to do."""


def clean_environ() -> dict[str, str]:
    """Our environment variables, without those that would lead pip or Python elsewhere."""
    leading_astray = {"PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT"}
    # The checks leave byte code behind, without which every start of vLLM takes 12 s more.
    leading_astray |= {"PYTHONDONTWRITEBYTECODE"}
    kept = {key: value for key, value in os.environ.items() if key not in leading_astray}
    return kept | {
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_USER": "0",
        "PYTHONUNBUFFERED": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "VLLM_NO_USAGE_STATS": "1",
    }


def doing(line: str) -> str:
    """What a line of pip's says it does now, in few words; empty when it says nothing of it."""
    found = _DOING.match(line.strip())
    if not found:
        return ""
    verb, what = found["verb"].lower(), found["what"]
    if what.startswith("collected packages"):
        return f"installing {what.count(',') + 1} packages"
    return f"{verb} {what.rpartition('/')[2].partition(' (from')[0]}"


@dataclass
class Runner:
    """Runs commands for one environment.

    Attributes:
        name: the environment's.
        folder: the venv, in which UNFINISHED is set while pip changes packages.
        log: file to which all output is appended.
        lock: open file whose lock a command inherits, so that an orphan still holds it.
    """

    name: str
    folder: Path
    log: Path
    progress: Progress
    lock: IO[str]

    async def run(self, what: str, command: Sequence[str], cwd: Path) -> list[str]:
        """Run `command` to its end and return its lines that are not empty.

        Raises:
            Failed: it ended with an error; the message holds its last lines and what to do.
        """
        self.progress.begin(self.name, what)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=cwd,
                env=clean_environ(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(self.lock.fileno(),),
                limit=_LIMIT,
            )
        except OSError as error:
            raise Failed(f"{what} failed: {error}\n{advise([str(error)], 1)}") from error
        try:
            lines = await self._follow(process, command)
        finally:
            await _end(process)
        if process.returncode:
            shown = "".join(f"\n    {line}" for line in relevant(lines))
            advice = advise(lines, process.returncode)
            raise Failed(f"{what} failed; its whole output is in {self.log}{shown}\n{advice}")
        return lines

    async def _follow(
        self, process: asyncio.subprocess.Process, command: Sequence[str]
    ) -> list[str]:
        """Read the output to its end: to the log, to the heartbeat, and back to the caller."""
        if process.stdout is None:
            return []
        lines: list[str] = []
        changing = False
        with self.log.open("a") as log:
            print("$", *command, file=log, flush=True)
            async for raw in process.stdout:
                line = raw.decode(errors="replace").rstrip()
                print(line, file=log, flush=True)
                if line.strip():
                    lines.append(line)
                if line.startswith(_CHANGING):
                    changing = True
                    (self.folder / UNFINISHED).touch()
                self.progress.tell(self.name, doing(line))
        if await process.wait() == 0 and changing:
            (self.folder / UNFINISHED).unlink(missing_ok=True)
        return lines


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a command that still runs, with all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        try:
            os.killpg(process.pid, number)
            await asyncio.wait_for(process.wait(), _GRACE)
        except (ProcessLookupError, TimeoutError):
            continue
