"""The log file of one launched backend: opened for it, and read back to show how it fares.

The backend writes it, a stranger as any: what is read back is bounded and loses its control
characters. Values of flags that name a secret do not reach the file through the gateway.
"""

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

ROTATE_ABOVE = 50 * 2**20
"""Bytes; a larger file is moved to NAME.1 before the next start, over the one that was there."""
TAIL_BYTES = 32 * 1024
LINE_CHARACTERS = 300

_SECRET_FLAG = re.compile(r"--?(?:\S*[-_])?(?:key|token|secret|password)", re.IGNORECASE)
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")
_BREAK = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class LaunchLog:
    """One log file; reads only what was written since it was last opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._from = 0

    def open(self, command: Sequence[str]) -> int:
        """Writes a header with time and command; returns a descriptor for appending (mode 0600).

        Makes missing folders, rotates a large file. OSError when the file cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size > ROTATE_ABOVE:
            self.path.replace(self.path.with_name(self.path.name + ".1"))
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        os.write(descriptor, f"=== {stamp} {shown(command)}\n".encode())
        self._from = os.fstat(descriptor).st_size
        return descriptor

    def tail(self, lines: int = 15) -> tuple[str, ...]:
        """The last lines that are not blank, ready to be printed; none if the file is gone."""
        try:
            with self.path.open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(self._from, end - TAIL_BYTES))
                text = file.read(TAIL_BYTES).decode(errors="replace")
        except OSError:
            return ()
        shown_lines = (printable(line) for line in text.split("\n"))
        return tuple(line for line in shown_lines if line)[-lines:]

    def newest(self) -> str:
        """The last line that is not blank; empty if there is none."""
        return "".join(self.tail(1))


def printable(line: str) -> str:
    """A line as it would stand on a screen: no escapes, the last state of a progress bar, short."""
    last_state = _ESCAPE.sub("", line).rstrip().rpartition("\r")[2]
    return _CONTROL.sub("", last_state).rstrip()[:LINE_CHARACTERS]


def shown(command: Sequence[str]) -> str:
    """The command on one line for people; the value of a flag such as --api-key becomes `***`."""
    words: list[str] = []
    hide_next = False
    for word in command:
        flag, equals, _ = word.partition("=")
        secret = bool(_SECRET_FLAG.fullmatch(flag))
        if hide_next and not word.startswith("-"):
            words.append("***")
        else:
            words.append(f"{flag}=***" if secret and equals else word)
        hide_next = secret and not equals
    return _BREAK.sub(" ", " ".join(words))
