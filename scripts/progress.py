"""Progress on standard error: one line for each step, and a heartbeat while it runs.

Rules of this room: it only shows. On a terminal the heartbeat is one line that is written over,
elsewhere it is a line every 15 seconds.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

TERMINAL_BEAT = 0.5  # seconds
PLAIN_BEAT = 15.0


@dataclass
class Step:
    """A step that runs: what it is, what it does just now, and since when (monotonic seconds)."""

    what: str
    doing: str = ""
    since: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        seconds = time.monotonic() - self.since
        doing = f": {self.doing}" if self.doing else ""
        return f"{self.what}, {seconds:.0f} s{doing}"


@dataclass
class Progress:
    """What runs now, by environment, and the means to show it."""

    out: TextIO = field(default_factory=lambda: sys.stderr)
    started: float = field(default_factory=time.monotonic)
    running: dict[str, Step] = field(default_factory=dict)

    def begin(self, name: str, what: str) -> None:
        """A step of `name` begins."""
        self.running[name] = Step(what)
        self._line(name, what)

    def tell(self, name: str, doing: str) -> None:
        """What the running step of `name` does just now; empty: nothing new."""
        if doing and name in self.running:
            self.running[name].doing = doing

    def end(self, name: str, result: str) -> None:
        """`name` is done, with `result`."""
        self.running.pop(name, None)
        self._line(name, result)

    def clear(self) -> None:
        """Take the heartbeat's line off a terminal."""
        if self.out.isatty():
            print("\r\x1b[K", end="", file=self.out, flush=True)

    async def heartbeat(self) -> None:
        """Show what runs, until cancelled."""
        while True:
            await asyncio.sleep(TERMINAL_BEAT if self.out.isatty() else PLAIN_BEAT)
            running = [f"{name}: {step}" for name, step in self.running.items()]
            if self.out.isatty():
                width = shutil.get_terminal_size().columns - 1
                text = f"{self._clock()} ... {' | '.join(running)}" if running else ""
                print(f"\r\x1b[K{text[:width]}", end="", file=self.out, flush=True)
            else:
                for text in running:
                    print(f"{self._clock()} ... {text}", file=self.out, flush=True)

    def _line(self, name: str, text: str) -> None:
        self.clear()
        print(f"{self._clock()} {name}: {text}", file=self.out, flush=True)

    def _clock(self) -> str:
        return f"[{time.monotonic() - self.started:6.1f} s]"
