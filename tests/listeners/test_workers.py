"""Several processes behind one address: spread, in step, counted as one, and replaced when lost."""

import contextlib
import http.client
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from support import (
    DEADLINE,
    Gate,
    GatewayProcess,
    GrpcUpstream,
    HttpUpstream,
    ServingClient,
    events,
    serving,
    sized,
    until,
)
from support.grpc_upstream import PREDICT

CHAT = "/v1/chat/completions"
RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
ASKED = {"model": "chat"}
MANY = 40
"""Fresh connections, each at a worker by chance: that one of two gets none is one in 2^39."""


def models(upstream: HttpUpstream, **more: Any) -> dict[str, Any]:
    upstream.names, upstream.loras, upstream.healthy = ["served"], {}, True
    return {
        "chat": {"adapter": "vllm", "served_name": "served", "backends": [upstream.url], **more}
    }


@pytest.fixture(scope="module")
def classic(grpc_upstream: GrpcUpstream, tmp_path_factory: pytest.TempPathFactory) -> Any:
    grpc_upstream.versions = {name: {1: "AVAILABLE"} for name in ("mnist", "second")}
    file = tmp_path_factory.mktemp("server") / "models.config"
    entries = " ".join(f'config {{ name: "{n}" base_path: "/m/{n}" }}' for n in ("mnist", "second"))
    file.write_text(f"model_config_list {{ {entries} }}")
    backend = {"grpc": grpc_upstream.address, "model_config_file": str(file)}
    tfs = {"adapter": "tensorflow_serving", "versions": "discover", "backends": [backend]}
    return {"mnist": tfs, "second": tfs}


@pytest.fixture(scope="module")
def gateway(
    upstream: HttpUpstream, classic: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("workers")
    found = {**models(upstream), **classic}
    with serving(folder, found, arguments=("--workers", "2")) as running:
        yield running


@pytest.fixture
def own(
    upstream: HttpUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """A gateway that a test may hurt."""
    folder = tmp_path_factory.mktemp("own")
    with serving(folder, models(upstream), server={"workers": 2}) as running:
        yield running


def workers(gateway: GatewayProcess) -> list[dict[str, Any]]:
    answer = gateway.listener("admin").get("/api/workers")
    assert answer.status == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


def pids(gateway: GatewayProcess) -> list[int]:
    return [worker["pid"] for worker in workers(gateway)]


def served(gateway: GatewayProcess) -> list[int]:
    return [worker["requests"] for worker in workers(gateway)]


def lives(pid: int) -> bool:
    """Whether any thread of a process runs: until then it holds its sockets."""
    try:
        stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}").exists()  # a thread ended while we looked
    return any(stat.rpartition(")")[2].split()[0] not in "ZX" for stat in stats)


@contextlib.contextmanager
def client(gateway: GatewayProcess) -> Iterator[ServingClient]:
    """A gRPC client with a connection of its own."""
    with contextlib.closing(ServingClient(gateway.grpc_address)) as made:
        made.channel.close()
        options = [("grpc.use_local_subchannel_pool", 1)]
        made.channel = grpc.insecure_channel(gateway.grpc_address, options)
        yield made


# ── spread, and counted as one ──


def test_connections_are_spread_and_counted_as_one(gateway: GatewayProcess) -> None:
    before = gateway.total("isthmus_requests_total"), served(gateway)
    for _ in range(MANY):
        assert gateway.http.post(CHAT, ASKED).status == 200
    until(lambda: gateway.total("isthmus_requests_total") == before[0] + MANY, "all are counted")
    shares = [after - first for first, after in zip(before[1], served(gateway), strict=True)]
    assert sum(shares) == MANY
    assert min(shares) > 0
    assert len({gateway.process.pid, *pids(gateway)}) == 3
    count = gateway.total("isthmus_request_duration_seconds_count", operation="chat")
    assert count == gateway.total("isthmus_requests_total", operation="chat")


def test_grpc_connections_are_spread_too(gateway: GatewayProcess) -> None:
    before = served(gateway)
    for _ in range(MANY):
        with client(gateway) as one:
            one.call(PREDICT, one.predict("mnist"))
    wanted = sum(before) + MANY
    until(lambda: sum(served(gateway)) == wanted, "all are counted")
    assert all(after > first for first, after in zip(before, served(gateway), strict=True))


def test_calls_of_all_workers_are_shown_as_one(
    upstream: HttpUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Slots are divided: two for two workers is one each."""
    gate, calls = Gate(), 8
    found = models(upstream, max_inflight=2)
    folder = tmp_path_factory.mktemp("slots")
    with serving(folder, found, server={"workers": 2}) as gateway, ExitStack() as asked:

        def busy() -> tuple[int, int]:
            (version,) = gateway.model("chat")["versions"]
            return version["backends"][0]["inflight"], version["waiting"]

        upstream.otherwise(lambda _: [gate, *sized()])
        connections = [
            asked.enter_context(gateway.http.asking("POST", CHAT, ASKED)) for _ in range(calls)
        ]
        until(lambda: sum(busy()) == calls, "all calls are under way")
        inflight, waiting = busy()
        assert 1 <= inflight <= 2
        assert gateway.total("isthmus_inflight_requests") == inflight
        assert gateway.total("isthmus_queue_depth", model="chat", version="1") == waiting
        gate.open()
        assert {connection.getresponse().status for connection in connections} == {200}
        until(lambda: busy() == (0, 0), "all calls ended")


# ── in step ──


def test_the_next_request_finds_an_adapter_at_every_worker(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    path = "/api/models/chat/adapters"
    for _ in range(3):
        adapter = {"name": "sql", "path": "/a/sql"}
        assert gateway.listener("admin").post(path, adapter).status == 200
        found = {gateway.http.post(CHAT, {"model": "sql"}).status for _ in range(MANY // 2)}
        assert found == {200}
        assert gateway.listener("admin").ask("DELETE", f"{path}/sql").status == 200
        found = {gateway.http.post(CHAT, {"model": "sql"}).status for _ in range(MANY // 2)}
        assert found == {404}


def test_a_change_of_the_world_reaches_every_worker(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    def everywhere(status: int) -> bool:
        return {gateway.http.get("/readyz/chat").status for _ in range(MANY // 2)} == {status}

    assert everywhere(200)
    upstream.healthy = False
    until(lambda: everywhere(503), "no worker is ready")
    upstream.healthy = True
    until(lambda: everywhere(200), "every worker is ready")


def test_a_reload_is_carried_out_and_remembered_for_all(
    gateway: GatewayProcess, grpc_upstream: GrpcUpstream
) -> None:
    """Each reload goes through a worker by chance; each names one model, and no other is lost."""
    expected = {"mnist": "/m/mnist", "second": "/m/second"}
    for number in range(12):
        name = ("mnist", "second")[number % 2]
        with client(gateway) as one:
            request = one.wire.ReloadConfigRequest()
            expected[name] = f"/new/{number}"
            request.config.model_config_list.config.add(name=name, base_path=expected[name])
            one.call(RELOAD, request.SerializeToString())
        sent = grpc_upstream.wire.ReloadConfigRequest.FromString(grpc_upstream.calls[-1].message)
        listed = sent.config.model_config_list.config
        assert {entry.name: entry.base_path for entry in listed} == expected


def test_an_error_of_the_parent_is_the_clients(gateway: GatewayProcess) -> None:
    with client(gateway) as one:
        request = one.wire.ReloadConfigRequest()
        for _ in range(2):
            request.config.model_config_list.config.add(name="mnist", base_path="/m/mnist")
        error = one.fails(RELOAD, request.SerializeToString())
    assert error.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT)
    assert error.details()


# ── lost and replaced ──


def test_a_killed_worker_is_replaced_and_nothing_goes_backwards(own: GatewayProcess) -> None:
    for _ in range(MANY):
        assert own.http.post(CHAT, ASKED).status == 200
    until(lambda: own.total("isthmus_requests_total") == MANY, "all are counted")
    lost, stays = pids(own)
    totals = [own.total("isthmus_requests_total")]
    os.kill(lost, signal.SIGKILL)
    until(lambda: not lives(lost), "the worker is gone")
    for _ in range(MANY):
        assert own.http.post(CHAT, ASKED).status == 200
        totals.append(own.total("isthmus_requests_total"))

    def back() -> bool:
        totals.append(own.total("isthmus_requests_total"))
        return all(worker["listening"] for worker in workers(own))

    until(back, "the worker is back")
    again, same = pids(own)
    assert same == stays
    assert again not in (lost, stays, own.process.pid)
    assert [worker["restarts"] for worker in workers(own)] == [1, 0]
    assert own.total("isthmus_worker_restarts_total", worker="1") == 1
    for _ in range(MANY):
        assert own.http.post(CHAT, ASKED).status == 200
    until(lambda: own.total("isthmus_requests_total") == 3 * MANY, "all are counted")
    assert totals == sorted(totals)
    assert served(own)[0] > 0
    assert own.http.get("/readyz").status == 200


def test_requests_of_other_workers_go_on_when_one_is_lost(
    own: GatewayProcess, upstream: HttpUpstream
) -> None:
    gate = Gate()
    upstream.otherwise(lambda _: [gate, *sized()])
    with ExitStack() as asked:
        connections = [
            asked.enter_context(own.http.asking("POST", CHAT, ASKED)) for _ in range(MANY)
        ]
        calls = "isthmus_inflight_requests"
        until(lambda: own.total(calls) == MANY, "all calls are under way")
        own_share = until(lambda: workers(own), "the workers")
        os.kill(own_share[0]["pid"], signal.SIGKILL)
        until(lambda: own.total(calls) < MANY, "its calls are lost")
        left = own.total(calls)
        gate.open()
        good = sum(_status(connection) == 200 for connection in connections)
    assert 0 < good == left


def _status(connection: http.client.HTTPConnection) -> int:
    try:
        return connection.getresponse().status
    except (ConnectionError, http.client.HTTPException):
        return 0


# ── ends ──


def test_a_drain_drops_nothing_under_load(own: GatewayProcess, upstream: HttpUpstream) -> None:
    gate, streams = Gate(), 6
    upstream.answer(*[events(b"data: 1\n\n", gate, b"data: 2\n\n")] * streams)
    bad: list[object] = []
    with ExitStack() as opened:
        answers = [
            opened.enter_context(own.http.open("POST", CHAT, {**ASKED, "stream": True}))
            for _ in range(streams)
        ]
        for answer in answers:
            assert answer.read1() == b"data: 1\n\n"
        load = [threading.Thread(target=_hammer, args=(own, bad)) for _ in range(4)]
        for thread in load:
            thread.start()
        own.process.send_signal(signal.SIGTERM)
        metrics = own.listener("metrics")
        until(lambda: metrics.get("/readyz").status == 503, "it says that it drains")
        for thread in load:
            thread.join(DEADLINE)
        assert own.process.poll() is None
        gate.open()
        for answer in answers:
            assert answer.read() == b"data: 2\n\n"
    assert bad == []
    assert own.process.wait(DEADLINE) == 0


def _hammer(gateway: GatewayProcess, bad: list[object]) -> None:
    """Ask until nobody takes connections; note what was answered badly or in part."""
    for _ in range(10_000):
        try:
            with socket.create_connection(("127.0.0.1", gateway.port("http")), DEADLINE) as raw:
                body = b'{"model":"chat"}'
                raw.sendall(b"POST %s HTTP/1.1\r\nhost: a\r\n" % CHAT.encode())
                raw.sendall(b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
                answer = b"".join(iter(lambda: raw.recv(65536), b""))
        except ConnectionRefusedError:
            return
        except ConnectionError:
            continue  # never accepted: it was in the queue of a socket that closed
        if answer and not (
            answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b'{"ok": true}')
        ):
            bad.append(answer)


def test_workers_end_with_their_parent(
    upstream: HttpUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("orphans")
    gateway = GatewayProcess(folder, models(upstream), server={"workers": 3})
    found = pids(gateway)
    upstream.answer([Gate()])
    with gateway.http.asking("POST", CHAT, ASKED):
        upstream.next_request()
        gateway.process.kill()
        gateway.process.wait()
        until(lambda: not any(lives(pid) for pid in found), "no worker is left")
    with pytest.raises(ConnectionRefusedError):
        gateway.http.get("/healthz")


def test_signals_to_all_processes_are_one_drain(own: GatewayProcess) -> None:
    """A service manager may signal every process; a terminal's Ctrl-C reaches all of a group."""
    for pid in (*pids(own), own.process.pid):
        os.kill(pid, signal.SIGTERM)
    assert own.process.wait(DEADLINE) == 0
    assert "starts again" not in own.log()


# ── beginnings ──


def test_a_taken_port_is_found_out(
    own: GatewayProcess, upstream: HttpUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Even another gateway's, which would share it."""
    for listener in ("http", "grpc"):
        folder = tmp_path_factory.mktemp("taken")
        server = {listener: f"127.0.0.1:{own.port(listener)}", "workers": 2}
        with (
            pytest.raises(AssertionError, match=f"server.{listener}: can't listen on"),
            serving(folder, models(upstream), server=server),
        ):
            pytest.fail("it came up")


def test_one_worker_is_this_process(
    upstream: HttpUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("one")
    with serving(folder, models(upstream), server={"workers": 1}) as gateway:
        assert workers(gateway) == []
        assert gateway.http.post(CHAT, ASKED).status == 200
        assert "worker" not in gateway.log()
