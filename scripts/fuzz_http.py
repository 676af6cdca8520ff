"""Sends mutated HTTP to the gateway and to nginx, and compares how both were framed.

    fuzz_http.py NUMBER SEED [--program ISTHMUS]

Both stand in front of one upstream that answers with a digest of what it saw. For each stream of
bytes the answers must agree, one by one, on the bodies that went through, until one of the two
refuses the rest. What the gateway refuses for its content (a body that is no JSON) says nothing
of its framing, so the codec alone reads the same bytes too, and is held against nginx as well.
A disagreement is tried again with more time, printed, and ends the program with 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from fuzz_streams import CHAT, LAST, Mutator

from gateway.errors import GatewayError
from gateway.protocols.http1_requests import RequestHead, RequestReader

LANES = ("alpha", "bravo", "charlie", "delta", "foxtrot", "golf", "hotel", "india")
"""Streams that are under way at a time; each has its model, so that none gets another's."""
QUIET, PATIENT = 0.08, 1.0
"""Seconds without a byte after which an answer is not waited for any more."""
REFUSED = "!"
HEAD_BYTES = 32 * 2**10
MODELS = "/v1/models"
_LISTENS = re.compile(r"http listens on 127\.0\.0\.1:(\d+)")


class Saw(NamedTuple):
    """How one server framed a stream: a digest for each body that is known, and how it ended.

    An item is "" where something was answered of which no body is known, "!" for a refusal.
    """

    items: tuple[str, ...]
    closed: bool


def digest(body: bytes) -> str:
    """Tell bodies apart."""
    return f"{len(body)}:{blake2b(body, digest_size=8).hexdigest()}"


def disagree(one: Saw, other: Saw) -> bool:
    """Whether two servers framed a stream differently, and neither refused what came then."""
    for mine, theirs in zip(one.items, other.items, strict=False):
        if _known(mine) and _known(theirs) and mine != theirs:
            return True
    shorter, longer = sorted((one, other), key=lambda saw: len(saw.items))
    more = longer.items[len(shorter.items) :]
    refused = longer.closed and more == (REFUSED,)
    return bool(more) and not shorter.closed and not refused


def _known(item: str) -> bool:
    return item not in ("", REFUSED)


# ── servers ──


@dataclass
class Upstream:
    """Answers with a digest of what it saw; what it can't read itself is a finding."""

    broken: list[bytes] = field(default_factory=list)
    port: int = 0

    async def start(self) -> None:
        """Listen on a free port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20)
        self.port = server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                method, target, *_ = head.split(b" ", 2)
                lengths = re.findall(rb"\r\ncontent-length: *(\d+)\r\n", head, re.IGNORECASE)
                if len(lengths) > 1 or b"\ntransfer-encoding:" in head.lower():
                    self.broken.append(head)
                body = await reader.readexactly(int(lengths[0]) if lengths else 0)
                writer.write(_answer(method, target, body))
        writer.close()


def _answer(method: bytes, target: bytes, body: bytes) -> bytes:
    models = {"data": [{"id": name} for name in LANES]}
    probe = method == b"GET" and not body and target.startswith(MODELS.encode())
    text = json.dumps(models if probe else {"saw": digest(body)}).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(text) + text


def start_gateway(program: str, folder: Path, upstream: int) -> subprocess.Popen[bytes]:
    """Start the gateway; its log tells its port."""
    backend = f"http://127.0.0.1:{upstream}"
    models = {
        name: {"adapter": "vllm", "backends": [backend], "max_inflight": 64} for name in LANES
    }
    server = {"http": "127.0.0.1:0", "grpc": "off", "admin": "off", "metrics": "off"}
    path = folder / "isthmus.yaml"
    path.write_text(json.dumps({"server": server | {"drain": "1s"}, "models": models}))
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [program, "serve", "-c", str(path)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )


def start_nginx(folder: Path, port: int, upstream: int) -> subprocess.Popen[bytes]:
    """Start nginx as a proxy that keeps its connections."""
    path = folder / "nginx.conf"
    path.write_text(
        f"""daemon off; master_process off; pid {folder}/nginx.pid; error_log /dev/null;
        events {{ worker_connections 1024; }}
        http {{
          access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
          fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
          upstream up {{ server 127.0.0.1:{upstream}; keepalive 64; }}
          server {{
            listen 127.0.0.1:{port}; client_max_body_size 0; lingering_close off;
            keepalive_requests 1000; large_client_header_buffers 4 32k;
            location / {{
              proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
            }}
          }}
        }}"""
    )
    return subprocess.Popen(
        [_nginx(), "-c", str(path), "-p", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _nginx() -> str:
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise SystemExit("nginx is not installed")
    return found


# ── what each saw ──


async def asked(port: int, pieces: Sequence[bytes], quiet: float) -> Saw:
    """Send a stream, and read its answers until the server closes or has no more to say."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    items: list[str] = []
    closed = False
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        while (item := await asyncio.wait_for(_item(reader), quiet)) is not None:
            items.append(item)
        closed = True
    except TimeoutError:
        pass
    except (ConnectionError, asyncio.IncompleteReadError):
        closed = True
    finally:
        writer.transport.abort()
    return Saw(tuple(items), closed)


async def _item(reader: asyncio.StreamReader) -> str | None:
    """Read one answer; None at the end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as end:
        if end.partial.strip():  # nginx answers HTTP/0.9 with a body alone, and closes
            return REFUSED
        return None
    if head.startswith(b"HTTP/1.1 1"):
        return await _item(reader)
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    body = await reader.readexactly(int(length[1])) if length else await _chunks(reader, head)
    with suppress(ValueError):
        found = json.loads(body)
        if head.startswith(b"HTTP/1.1 200") and "saw" in found:
            return str(found["saw"])
    return "" if head.startswith(b"HTTP/1.1 2") else REFUSED


async def _chunks(reader: asyncio.StreamReader, head: bytes) -> bytes:
    if b"chunked" not in head.lower():
        return b""
    parts = []
    while size := int(await reader.readline(), 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    await reader.readline()
    return b"".join(parts)


class Codec:
    """How the gateway's own codec frames a stream (`http1_requests.Sink`)."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self._body: list[bytes] = []
        self._last = False

    def begin(self, head: RequestHead) -> None:
        """Begin a request."""
        self._body = []
        self._last = not head.keep_alive

    def body(self, data: bytes) -> None:
        """Keep a piece."""
        self._body.append(data)

    def end(self) -> None:
        """End it."""
        self.items.append(digest(b"".join(self._body)))

    def saw(self, pieces: Sequence[bytes]) -> Saw:
        """Read a stream."""
        reader = RequestReader(self, HEAD_BYTES)
        try:
            for piece in pieces:
                reader.feed(piece)
        except GatewayError:
            return Saw((*self.items, REFUSED), closed=True)
        return Saw(tuple(self.items), self._last and reader.between)


# ── the run ──


@dataclass
class Run:
    """Counts, and what was found."""

    gateway: int
    nginx: int
    streams: Mutator
    left: int
    counts: Counter[str] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)

    async def lane(self, model: str) -> None:
        """Send one stream after the other."""
        while self.left > 0:
            self.left -= 1
            pieces = self.streams.stream(model)
            gateway, codec, nginx = await self._saw(pieces, QUIET)
            if disagree(gateway, nginx) or disagree(codec, nginx):
                gateway, codec, nginx = await self._saw(pieces, PATIENT)
                if disagree(gateway, nginx) or disagree(codec, nginx):
                    self.found.append(f"{pieces}\n  {gateway=}\n  {codec=}\n  {nginx=}")
                self.counts["tried again"] += 1
            self.counts[_verdict(codec, nginx)] += 1
            self.counts["bodies compared"] += sum(
                _known(a) and _known(b) for a, b in zip(gateway.items, nginx.items, strict=False)
            )

    async def _saw(self, pieces: Sequence[bytes], quiet: float) -> tuple[Saw, Saw, Saw]:
        gateway, nginx = await asyncio.gather(
            asked(self.gateway, pieces, quiet), asked(self.nginx, pieces, quiet)
        )
        return gateway, Codec().saw(pieces), nginx


def _verdict(codec: Saw, nginx: Saw) -> str:
    if codec.closed:
        return "both refused" if nginx.closed else "the gateway alone refused"
    return "nginx alone refused" if nginx.closed else "both read to the end"


async def run(number: int, seed: int, program: str, folder: Path) -> int:
    """Send `number` streams; return how many disagreements were found."""
    upstream = Upstream()
    await upstream.start()
    front = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = front.sockets[0].getsockname()[1]
    front.close()
    processes = [start_nginx(folder, port, upstream.port)]
    try:
        processes.append(start_gateway(program, folder, upstream.port))
        test = Run(await _ready(folder, port), port, Mutator(seed), number)
        await asyncio.gather(*(test.lane(model) for model in LANES))
        log = (folder / "log").read_text()
        alive = processes[1].poll() is None and "Traceback" not in log
    finally:
        for process in processes:
            process.terminate()
            await asyncio.to_thread(process.wait, 15)
    for one in [*test.found[:20], *map(repr, upstream.broken[:20])]:
        print(one)
    if not alive:
        print(log[-4000:])
    for name, count in sorted(test.counts.items()):
        print(f"{count:9,} {name}")
    findings = len(test.found) + len(upstream.broken) + (not alive)
    print(f"{number:,} streams, seed {seed}: {findings} disagreements")
    return findings


async def _ready(folder: Path, nginx: int) -> int:
    """Wait until both serve, and return the gateway's port."""
    async with asyncio.timeout(30):
        while True:
            await asyncio.sleep(0.05)
            listens = _LISTENS.search((folder / "log").read_text())
            with suppress(OSError):
                if listens and (await asked(nginx, [LAST], PATIENT)).items == ("",):
                    body = b'{"model":"alpha"}'
                    head = f"POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n"
                    saw = await asked(int(listens[1]), [head.encode() + body], PATIENT)
                    if saw.items == (digest(body),):
                        return int(listens[1])


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("number", type=int)
    parser.add_argument("seed", type=int)
    beside = Path(sys.executable).with_name("isthmus")
    parser.add_argument("--program", default=str(beside))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(run(given.number, given.seed, given.program, Path(folder)))
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
