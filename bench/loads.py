"""The loads: what is sent, with how many clients, and which program sends it.

Rules of this room: one entry in the table for each load; a load is a command that ends by itself
and writes one line of figures (`samples.read`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import payloads
from bench.processes import HOST

STREAM_PIECES = 100
STREAM_TICK = 3.0  # milliseconds

Command = Callable[[int, str, float], tuple[str, ...]]
"""From a port, the file with the body and the seconds, the command of a load."""


@dataclass(frozen=True)
class Load:
    """One load.

    Attributes:
        name: by which it is chosen.
        title: in the table.
        about: a sentence on what is sent.
        kind: which upstream and which peers serve it.
        body: the message that is sent.
        command: the program that sends it.
        unit: what is counted.
        columns: of the table, by their names in `table.COLUMNS`.
        shown: the column that the plot shows.
        path: of the request, to ask once before anything is measured; empty for gRPC.
        good: what stands in a right answer.
        across: whether direct has its upstream on the other core: one hop between cores, of which
            a peer makes two. Latencies compare to that; without it, direct makes none.
    """

    name: str
    title: str
    about: str
    kind: str
    body: bytes
    command: Command
    unit: str
    columns: tuple[str, ...]
    shown: str
    path: str = payloads.CHAT_PATH
    good: bytes = b'"better than complex.'
    across: bool = False


_THROUGHPUT = ("rate", "faster", "cost", "leaner", "p50", "p99", "rss", "failed")
_LATENCY = ("p50", "added", "p99", "cost", "leaner", "rss", "failed")
_STREAMS = ("rate", "cost", "leaner", "first", "first_added", "rss", "failed")


def _wrk(connections: int, path: str = payloads.CHAT_PATH) -> Command:
    script = str(Path(__file__).with_name("load.lua"))

    def command(port: int, file: str, seconds: float) -> tuple[str, ...]:
        options = ("-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s")
        url = f"http://{HOST}:{port}{path}"
        return ("wrk", *options, "--latency", "-s", script, url, "--", file, payloads.KEY)

    return command


def _program(module: str, *numbers: int) -> Command:
    def command(port: int, file: str, seconds: float) -> tuple[str, ...]:
        start = (sys.executable, "-m", module, f"{HOST}:{port}", file, payloads.KEY)
        return (*start, *map(str, numbers), str(seconds))

    return command


LOADS = (
    Load(
        "chat",
        "Small chats",
        "Chats of 250 bytes on 32 connections.",
        "chat",
        payloads.chat(250),
        _wrk(32),
        "request",
        _THROUGHPUT,
        "per_core",
    ),
    Load(
        "alone",
        "One client alone",
        "The same chats on one connection: what each hop adds to an answer's time.",
        "chat",
        payloads.chat(250),
        _wrk(1),
        "request",
        _LATENCY,
        "added",
        across=True,
    ),
    Load(
        "prompts",
        "Prompts of 256 KB",
        "Chats with a prompt of 256 KiB on 16 connections.",
        "chat",
        payloads.chat(256 * 1024),
        _wrk(16),
        "request",
        _THROUGHPUT,
        "per_core",
    ),
    Load(
        "connections",
        "1,000 connections",
        "Small chats on 1,000 connections.",
        "chat",
        payloads.chat(250),
        _wrk(1000),
        "request",
        _THROUGHPUT,
        "per_core",
    ),
    Load(
        "streams",
        "Streams",
        f"64 streams of {STREAM_PIECES} pieces, a piece for each every {STREAM_TICK:g} ms"
        " (21,000 pieces/s in all): the figure is CPU for each piece.",
        "streams",
        payloads.chat(250, stream=True),
        _program("bench.sse_load", 64, STREAM_PIECES),
        "piece",
        _STREAMS,
        "cost",
        good=b"[DONE]",
        across=True,
    ),
    Load(
        "grpc",
        "gRPC, unary",
        "TF Serving's Predict with 3.2 KB of floats, 8 connections with 8 calls each, by the"
        " official Python client. (The upstream answers before it has read all, which nginx as a"
        " proxy takes for a failure now and then.)",
        "grpc",
        payloads.predict_message(),
        _program("bench.grpc_load", 8, 8),
        "call",
        _THROUGHPUT,
        "cost",
        path="",
    ),
    Load(
        "predict",
        "TF Serving's REST",
        "Predict with one row of 64 numbers on 32 connections.",
        "rest",
        payloads.rows(),
        _wrk(32, payloads.PREDICT_PATH),
        "request",
        _THROUGHPUT,
        "per_core",
        path=payloads.PREDICT_PATH,
        good=b'"predictions"',
    ),
)
