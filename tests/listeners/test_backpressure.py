"""A client that does not read pauses the backend: what is on its way has a bound."""

import contextlib
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Flood, GatewayProcess, HttpUpstream, Raw, serving, until

CHAT = "/v1/chat/completions"
MIB = 2**20
OFFERED = 512 * MIB
CLIENTS = 50
_RESIDENT = re.compile(r"VmRSS:\s+(\d+) kB")


@pytest.fixture(scope="module")
def gateway(
    upstream: HttpUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    upstream.names = ["chat"]
    models = {
        "chat": {"adapter": "vllm", "backends": [upstream.url], "max_inflight": 200},
        "short": {
            "adapter": "vllm",
            "served_name": "chat",
            "backends": [upstream.url],
            "timeouts": {"total": "500ms"},
        },
    }
    with serving(tmp_path_factory.mktemp("pressure"), models) as running:
        yield running


def resident(gateway: GatewayProcess) -> int:
    """Return the bytes of memory that the gateway holds."""
    found = _RESIDENT.search(Path(f"/proc/{gateway.process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def answers(size: int, form: str) -> tuple[list[bytes | Flood], Flood]:
    """Script an answer of `size` bytes in one of HTTP's forms."""
    if form == "length":
        flood = Flood(size, b"x" * 65536)
        return [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size, flood], flood
    kind = b"text/event-stream" if form == "events" else b"text/plain"
    piece = b"data: %b\n\n" % (b"x" * 65528)
    flood = Flood(size, b"%x\r\n%b\r\n" % (len(piece), piece))
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % kind
    return [head, flood, b"0\r\n\r\n"], flood


def ask(raw: Raw, model: str = "chat", stream: bool = True) -> None:
    body = b'{"model":"%b","stream":%b}' % (model.encode(), b"true" if stream else b"false")
    raw.send(
        f"POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    )


@contextlib.contextmanager
def reader(gateway: GatewayProcess) -> Iterator[Raw]:
    """A connection whose own buffer is small."""
    with Raw(gateway.port("http")) as raw:
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        yield raw


def settled(*floods: Flood) -> int:
    """Wait until the backend gets rid of no more, and return how much it did."""

    def still() -> bool:
        before = [flood.sent for flood in floods]
        time.sleep(0.3)
        return before == [flood.sent for flood in floods] and all(before)

    until(still, "a pause of the backend", 60)
    return sum(flood.sent for flood in floods)


@pytest.mark.parametrize("form", ["events", "chunks", "length"])
def test_a_client_that_does_not_read_pauses_the_backend(
    gateway: GatewayProcess, upstream: HttpUpstream, form: str
) -> None:
    script, flood = answers(OFFERED, form)
    upstream.answer(script)
    before = resident(gateway)
    with reader(gateway) as raw:
        ask(raw, stream=form == "events")
        sent = settled(flood)
        assert sent < 32 * MIB, "the gateway reads on and on"
        assert resident(gateway) - before < 8 * MIB
        assert raw.socket.recv(65536, socket.MSG_WAITALL)
        got = 65536
        while got < 64 * MIB:  # and now that it reads, the backend goes on
            got += len(raw.socket.recv(MIB))
        until(lambda: flood.sent > sent + 16 * MIB, "the backend goes on")
        assert resident(gateway) - before < 8 * MIB
    until(lambda: upstream.open_connections == 0 or upstream.requests[0].closed.is_set())
    gateway.idle()


def test_nothing_is_lost_between_pauses(gateway: GatewayProcess, upstream: HttpUpstream) -> None:
    size = 48 * MIB
    script, flood = answers(size, "length")
    upstream.answer(script)
    with reader(gateway) as raw:
        ask(raw)
        settled(flood)
        head, got = b"", 0
        while b"\r\n\r\n" not in head:
            head += raw.socket.recv(1)
        for _ in range(3):
            for _ in range(200):
                got += len(raw.socket.recv(65536))
            settled(flood)
        while got < size:
            got += len(raw.socket.recv(MIB))
        assert got == size
        assert raw.silent()
        ask(raw)
        assert raw.answer().status == 200


def test_many_clients_that_do_not_read_cost_little_and_hold_up_nobody(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    scripts = [answers(32 * MIB, "events") for _ in range(CLIENTS)]
    upstream.answer(*(script for script, _ in scripts))
    before = resident(gateway)
    with contextlib.ExitStack() as stack:
        raws = [stack.enter_context(reader(gateway)) for _ in range(CLIENTS)]
        for raw in raws:
            ask(raw)
        settled(*(flood for _, flood in scripts))
        assert resident(gateway) - before < CLIENTS * MIB * 1.5
        assert gateway.http.post(CHAT, b'{"model":"chat"}').status == 200
        assert gateway.total("isthmus_inflight_requests") in (CLIENTS, 0)
    gateway.idle()
    until(lambda: upstream.open_connections <= 1, "the backend's connections are closed")


def test_a_client_that_does_not_read_holds_its_slot_until_its_time_is_over(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    script, _ = answers(OFFERED, "events")
    upstream.answer(script)
    with reader(gateway) as raw:
        ask(raw, "short")
        assert upstream.next_request().closed.wait(10), "the backend is held for nobody"
        gateway.idle()
        until(lambda: gateway.total("isthmus_rejected_total", model="short") == 1)
        with contextlib.suppress(ConnectionError):
            while raw.socket.recv(MIB):
                pass
