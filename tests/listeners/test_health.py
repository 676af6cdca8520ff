"""Is it alive, is it ready, what does it count: for probes, balancers and scrapers."""

import random
import signal
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from support import (
    DEADLINE,
    SILENCE,
    Gate,
    GatewayProcess,
    GrpcUpstream,
    GrpcWaits,
    HttpUpstream,
    ServingClient,
    events,
    free_port,
    serving,
    sized,
    until,
)
from support.grpc_upstream import PREDICT, GrpcAnswer

CHAT = "/v1/chat/completions"
SERVING, NOT_SERVING = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
)
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def models(upstream: HttpUpstream, grpc_upstream: GrpcUpstream) -> dict[str, Any]:
    upstream.names = ["served"]
    grpc_upstream.versions = {"mnist": {1: "AVAILABLE"}}
    nobody = f"http://127.0.0.1:{free_port()}"
    return {
        "org/chat": {"adapter": "vllm", "served_name": "served", "backends": [upstream.url]},
        "mnist": {
            "adapter": "tensorflow_serving",
            "backends": [{"grpc": grpc_upstream.address}],
            "versions": "discover",
        },
        "down": {"adapter": "vllm", "backends": [nobody]},
        "absent": {"adapter": "vllm", "backends": [upstream.url], "labels": {"stable": 1}},
    }


@pytest.fixture(scope="module")
def gateway(
    upstream: HttpUpstream, grpc_upstream: GrpcUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    with serving(tmp_path_factory.mktemp("health"), models(upstream, grpc_upstream)) as running:
        yield running


@pytest.fixture(scope="module")
def channel(gateway: GatewayProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(gateway.grpc_address) as made:
        yield made


@pytest.mark.parametrize("listener", ["http", "metrics"])
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/readyz/mnist", 200),
        ("/readyz/org/chat", 200),
        ("/readyz/org%2Fchat", 200),
        ("/readyz/down", 503),
        ("/readyz/absent", 503),
        ("/readyz/nobody", 404),
        ("/readyz/", 404),
        ("/readyz/mnist%2561", 404),
    ],
)
def test_health_paths(gateway: GatewayProcess, listener: str, path: str, status: int) -> None:
    answer = gateway.listener(listener).get(path)
    assert answer.status == status
    assert answer.json()["status"]
    assert gateway.listener(listener).ask("HEAD", path).status == status


def test_the_admin_api_says_why_a_model_is_not_ready(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    found = {model["name"]: model for model in gateway.listener("admin").get("/api/models").json()}
    assert sorted(found) == ["absent", "down", "mnist", "org/chat"]
    chat, absent = found["org/chat"]["versions"][0], found["absent"]["versions"][0]
    assert (chat["state"], chat["ready"], chat["backends"][0]["id"]) == (
        "AVAILABLE",
        True,
        upstream.url,
    )
    assert absent["why"].endswith("does not serve 'absent'; it serves served")
    assert found["down"]["versions"][0]["why"]
    assert gateway.model("org/chat") == found["org/chat"]
    assert gateway.listener("admin").get("/api/models/none").status == 404
    assert gateway.listener("admin").get("/docs").status == 200


@pytest.mark.parametrize(
    ("service", "status"),
    [
        ("", SERVING),
        ("tensorflow.serving.PredictionService", SERVING),
        ("tensorflow.serving.ModelService", SERVING),
        ("mnist", SERVING),
        ("org/chat", SERVING),
        ("down", NOT_SERVING),
    ],
)
def test_grpc_health(channel: grpc.Channel, service: str, status: int) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    asked = health_pb2.HealthCheckRequest(service=service)
    assert stub.Check(asked, timeout=DEADLINE).status == status
    watch = stub.Watch(asked, timeout=DEADLINE)
    assert next(watch).status == status
    watch.cancel()


def test_grpc_health_of_what_is_not_there(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    asked = health_pb2.HealthCheckRequest(service="nobody")
    with pytest.raises(grpc.RpcError) as failed:
        stub.Check(asked, timeout=DEADLINE)
    assert failed.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
    watch = stub.Watch(asked, timeout=DEADLINE)
    assert next(watch).status == UNKNOWN
    watch.cancel()


def test_a_watch_tells_of_changes(
    gateway: GatewayProcess, channel: grpc.Channel, grpc_upstream: GrpcUpstream
) -> None:
    asked = health_pb2.HealthCheckRequest(service="mnist")
    watch = health_pb2_grpc.HealthStub(channel).Watch(asked, timeout=DEADLINE)
    assert next(watch).status == SERVING
    grpc_upstream.versions = {"mnist": {1: "LOADING"}}
    assert next(watch).status == NOT_SERVING
    assert gateway.http.get("/readyz/mnist").status == 503
    grpc_upstream.versions = {"mnist": {1: "AVAILABLE"}}
    assert next(watch).status == SERVING
    watch.cancel()


def test_reflection_lists_the_services_and_finds_their_files(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    names = set(database.get_services())
    assert names == {
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    for name in names:
        file = database.FindFileContainingSymbol(name)
        assert name.rpartition(".")[2] in [service.name for service in file.service]
    predict = database.FindFileContainingSymbol("tensorflow.serving.PredictRequest")
    assert predict.name == "tensorflow_serving/apis/predict.proto"
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="no.Such")
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    answer = next(stub.ServerReflectionInfo(iter([request]), timeout=DEADLINE))
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


# ── metrics ──


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/metrics", 200),
        ("HEAD", "/metrics", 200),
        ("POST", "/metrics", 405),
        ("GET", "/", 404),
        ("GET", "/metrics/", 404),
        ("GET", "/v1/models", 404),
        ("POST", CHAT, 404),
        ("GET", "/api/models", 404),
        ("GET", "/docs", 404),
        ("POST", "/readyz", 405),
    ],
)
def test_the_metrics_port_serves_nothing_else(
    gateway: GatewayProcess, method: str, path: str, status: int
) -> None:
    assert gateway.listener("metrics").ask(method, path).status == status


def test_requests_are_counted_by_how_they_ended(
    gateway: GatewayProcess, upstream: HttpUpstream, grpc_upstream: GrpcUpstream
) -> None:
    name = "isthmus_requests_total"
    chat = {"model": "org/chat", "version": "1", "protocol": "openai", "operation": "chat"}
    none = {"model": "other", "version": "", "operation": "chat", "code": "404"}
    mnist = {"model": "mnist", "version": "1", "operation": "predict"}
    upstream.answer(sized(), sized(b"{}", "429 Too Many Requests"))
    before = gateway.total(name, **none)
    gateway.http.post(CHAT, {"model": "org/chat"})
    gateway.http.post(CHAT, {"model": "org/chat"})
    gateway.http.post(CHAT, {"model": "nobody"})
    client = ServingClient(gateway.grpc_address)
    grpc_upstream.answer(GrpcAnswer(code=grpc.StatusCode.ABORTED))
    client.fails(PREDICT, client.predict("mnist"))
    client.call(PREDICT, client.predict("mnist"))
    client.close()
    until(lambda: gateway.total(name, code="OK", **mnist) == 1)
    assert gateway.total(name, code="ABORTED", **mnist) == 1
    assert gateway.total(name, code="200", **chat) == 1
    assert gateway.total(name, code="429", **chat) == 1
    assert gateway.total(name, **none) == before + 1
    assert gateway.total("isthmus_request_duration_seconds_count", model="org/chat") == 2
    assert gateway.total("isthmus_rejected_total", reason="unknown_model", model="other") >= 1
    assert gateway.total("isthmus_backend_up", backend=upstream.url) == 1
    assert gateway.total("isthmus_backend_up") == 2


def test_names_of_strangers_add_no_series(gateway: GatewayProcess) -> None:
    def count() -> int:
        return len(gateway.listener("metrics").get("/metrics").text.splitlines())

    draw = random.Random(7)

    def burst(requests: int) -> None:
        for _ in range(requests):
            name = f"m{draw.getrandbits(64):x}"
            gateway.http.post(CHAT, {"model": name})
            gateway.http.post(f"/v1/models/{name}/versions/{draw.getrandbits(40)}:predict", b"{}")
            gateway.http.ask("POST", f"/{name}")
            gateway.http.post(CHAT, {"model": f"org/chat@{draw.getrandbits(40)}"})

    burst(1)
    before = count()
    burst(250)
    assert count() == before


# ── beginning and end ──


def test_it_is_ready_once_its_backends_were_looked_at(
    upstream: HttpUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    upstream.names = ["served"]
    gate = Gate()
    upstream.probe_script = [gate, *sized(b"{}")]
    chat = {"adapter": "vllm", "served_name": "served", "backends": [upstream.url]}
    folder = tmp_path_factory.mktemp("begin")
    with serving(folder, {"chat": chat}, ready=False) as gateway:
        gate.wait_reached()
        assert gateway.http.get("/healthz").status == 200
        answer = gateway.http.get("/readyz")
        assert (answer.status, answer.json()["status"]) == (
            503,
            "the first round of probes is not done",
        )
        upstream.probe_script = None
        gate.open()
        gateway.wait_ready()


def test_models_may_be_required(
    upstream: HttpUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    upstream.names = []
    chat = {"adapter": "vllm", "served_name": "served", "backends": [upstream.url]}
    folder = tmp_path_factory.mktemp("required")
    server = {"ready_requires": ["chat"]}
    with serving(folder, {"chat": chat}, server=server, ready=False) as gateway:
        metrics = gateway.listener("metrics")
        until(lambda: "chat" in metrics.get("/readyz").json()["status"])
        assert metrics.get("/readyz").status == 503
        upstream.names = ["served"]
        gateway.wait_ready()


def test_requests_in_flight_finish_while_it_drains(
    upstream: HttpUpstream, grpc_upstream: GrpcUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = models(upstream, grpc_upstream)
    with serving(tmp_path_factory.mktemp("drain"), found) as gateway:
        client = ServingClient(gateway.grpc_address)
        watch = health_pb2_grpc.HealthStub(client.channel).Watch(
            health_pb2.HealthCheckRequest(), timeout=DEADLINE
        )
        assert next(watch).status == SERVING
        gate, held = Gate(), GrpcWaits()
        upstream.answer(events(b"data: 1\n\n", gate, b"data: 2\n\n"))
        grpc_upstream.answer(GrpcAnswer(b"", wait=held))
        call = client.start(PREDICT, client.predict("mnist"))
        held.wait_reached()
        with gateway.http.open("POST", CHAT, {"model": "org/chat", "stream": True}) as answer:
            assert answer.read1() == b"data: 1\n\n"
            gateway.process.send_signal(signal.SIGTERM)
            metrics = gateway.listener("metrics")
            until(lambda: metrics.get("/readyz").status == 503, "it says that it drains")
            assert metrics.get("/readyz").json()["status"] == "draining"
            assert metrics.get("/healthz").status == 200
            assert [told.status for told in watch] == [NOT_SERVING]
            assert gateway.process.poll() is None
            gate.open()
            held.opened.set()
            assert answer.read() == b"data: 2\n\n"
            assert call.result() == b""
        client.close()


def test_what_does_not_finish_in_time_is_told_so(
    upstream: HttpUpstream, grpc_upstream: GrpcUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = models(upstream, grpc_upstream)
    server = {"drain": "1s"}
    with serving(tmp_path_factory.mktemp("cut"), found, server=server) as gateway:
        upstream.answer([SILENCE])
        with gateway.http.asking("POST", CHAT, {"model": "org/chat"}) as asked:
            upstream.next_request()
            gateway.process.send_signal(signal.SIGTERM)
            answer = asked.getresponse()
            assert answer.status == 503
            assert b"the gateway is ending" in answer.read()
    assert upstream.only().closed.wait(5)
