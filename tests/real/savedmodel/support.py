"""The real server as a process of its own, and waiting for what it does."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx

ROOT = Path(__file__).resolve().parents[3]
DEADLINE = 120.0  # seconds; importing TensorFlow takes 12 and more on a cold, busy machine
_LISTENING = re.compile(r"listening: rest http://(\S+), grpc (\S+)")


def until(condition: Callable[[], object], what: str, seconds: float = DEADLINE) -> Any:
    """The condition's first true value; fails loudly at the deadline."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s: {what}")


@dataclass
class Server:
    """One server process."""

    process: "subprocess.Popen[bytes]"
    folder: Path

    @property
    def out(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "stderr").read_text()

    def addresses(self) -> tuple[str, str]:
        """REST and gRPC, as soon as the server says them."""

        def said() -> "re.Match[str] | None":
            assert self.process.poll() is None, self.err
            return _LISTENING.search(self.err)

        match = until(said, "the server listens")
        return match[1], match[2]

    def wait_ready(self) -> "Server":
        def ready() -> bool:
            assert self.process.poll() is None, self.err
            return "ready after" in self.err

        until(ready, "the server is ready")
        return self

    def http(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://{self.addresses()[0]}/v1/models", timeout=60)

    def channel(self) -> Any:
        limit = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        return grpc.insecure_channel(self.addresses()[1], options=limit)

    def states(self, model: str) -> dict[int, str]:
        with self.http() as http:
            rows = http.get(f"/{model}").json()["model_version_status"]
        return {int(row["version"]): row["state"] for row in rows}

    def processor_seconds(self) -> float:
        """Processor time spent so far; it stands still while no prediction runs."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait_busy(self) -> None:
        """Returns once a prediction is really running."""
        start = self.processor_seconds()
        until(lambda: self.processor_seconds() > start + 0.1, "a prediction runs")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends the signal and returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)


Start = Callable[..., Server]


def install(version: Path, base: Path, number: int) -> Path:
    """Copies a whole version into a model's folder, under another name until it is complete."""
    base.mkdir(parents=True, exist_ok=True)
    partial = base / f".copying-{number}"
    shutil.copytree(version, partial)
    return partial.rename(base / str(number))
