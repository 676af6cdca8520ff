"""What the bench does now, on standard error: a line for each result, and how far it is.

Rules of this room: it only shows. On a terminal the line of what runs is written over.
"""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass, field
from typing import TextIO


@dataclass
class Progress:
    """Shows the steps of a course; `total` is how many runs it has."""

    total: int
    done: int = 0
    out: TextIO = field(default_factory=lambda: sys.stderr)
    started: float = field(default_factory=time.monotonic)

    def begin(self, what: str) -> None:
        """Something begins."""
        if self.out.isatty():
            width = shutil.get_terminal_size().columns - 1
            text = f"{self._clock()} {self.done} of {self.total} runs; {what}"
            self._write("\r\x1b[K" + text[:width])

    def step(self) -> None:
        """One run is over."""
        self.done += 1

    def say(self, text: str) -> None:
        """Something is known now."""
        clear = "\r\x1b[K" if self.out.isatty() else ""
        self._write(f"{clear}{self._clock()} {self.done:3}/{self.total} {text}\n")

    def _write(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()

    def _clock(self) -> str:
        return f"[{time.monotonic() - self.started:6.1f} s]"
