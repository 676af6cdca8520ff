"""What is written about a launched backend, and what of it is shown; the ports it may get."""

import os
from pathlib import Path

import pytest

from gateway.control import launch_log
from gateway.control.launch_log import LaunchLog, printable, shown
from gateway.control.ports import free_ports


def test_log_is_private_headed_and_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_log, "ROTATE_ABOVE", 200)
    path = tmp_path / "some" / "where" / "it.log"
    log = LaunchLog(path)
    for text in ("first", "x" * 200, "third"):
        descriptor = log.open(["serve", "--api-key", "secret", "--token=secret", "--port", "1"])
        assert log.tail() == (), "an earlier run's lines are not this run's"
        os.write(descriptor, text.encode() + b"\n\n")
        os.close(descriptor)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().startswith("=== 20")
    assert path.read_text().endswith(" serve --api-key *** --token=*** --port 1\nthird\n\n")
    assert "first" in path.with_name("it.log.1").read_text()
    assert log.newest() == "third"


def test_tail_is_bounded(tmp_path: Path) -> None:
    log = LaunchLog(tmp_path / "log")
    descriptor = log.open(["serve"])
    for number in range(2000):
        os.write(descriptor, f"line {number}\n".encode())
    assert log.tail() == tuple(f"line {number}" for number in range(1985, 2000))
    os.write(descriptor, b"x" * 2**20)
    os.close(descriptor)
    assert log.tail() == ("x" * 300,)


@pytest.mark.parametrize(
    ("line", "screen"),
    [
        ("\x1b[1;32mINFO\x1b[0m up\r", "INFO up"),
        ("loading  1%\rloading 50%", "loading 50%"),
        ("\x1b]0;title\x07beep\x07 \x9b5n", "beep 5n"),
        ("\ttab", "\ttab"),
        ("x" * 1000, "x" * 300),
    ],
)
def test_log_lines_are_safe_to_print(line: str, screen: str) -> None:
    assert printable(line) == screen


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (["vllm", "--hf-token", "abc", "m"], "vllm --hf-token *** m"),
        (["vllm", "--API_KEY=abc"], "vllm --API_KEY=***"),
        (["vllm", "--max-tokens", "5", "--tokenizer", "t"], "vllm --max-tokens 5 --tokenizer t"),
        (["vllm", "--token", "--fast"], "vllm --token --fast"),
    ],
)
def test_secrets_of_a_command_are_not_shown(command: list[str], text: str) -> None:
    assert shown(command) == text


def test_free_ports_are_distinct_and_not_to_be_avoided() -> None:
    ports = free_ports(50)
    assert len(set(ports)) == 50
    middle = sorted(ports)[25]
    assert min(free_ports(20, avoid=range(middle))) >= middle
