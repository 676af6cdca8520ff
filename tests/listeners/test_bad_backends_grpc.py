"""gRPC backends that are down, slow, or answer rubbish: told, never hung on."""

import re
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from support import (
    GatewayProcess,
    GrpcAnswer,
    GrpcUpstream,
    GrpcWaits,
    HttpUpstream,
    LoopThread,
    Relay,
    ServingClient,
    free_port,
    serving,
    until,
)
from support.grpc_upstream import METADATA, OWN, PREDICT, STATUS

ADDRESS = re.compile(r"127\.0\.0\.1|localhost|:\d{4,5}\b|Traceback|Errno|ipv4|Socket")
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def relay(loop_thread: LoopThread, grpc_upstream: GrpcUpstream) -> Iterator[Relay]:
    made = Relay(loop_thread, grpc_upstream.port)
    yield made
    made.cut()


@pytest.fixture(scope="module")
def gateway(
    grpc_upstream: GrpcUpstream,
    upstream: HttpUpstream,
    relay: Relay,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[GatewayProcess]:
    grpc_upstream.versions = {"mnist": {1: "AVAILABLE"}}
    nobody = f"127.0.0.1:{free_port()}"
    tfs = {"adapter": "tensorflow_serving"}
    times = {"timeouts": {"connect": "500ms", "total": "1s"}}
    models: dict[str, Any] = {
        "mnist": {
            **tfs,
            **times,
            "versions": {1: {"backends": [{"grpc": grpc_upstream.address}]}},
        },
        "wired": {
            **tfs,
            **times,
            "served_name": "mnist",
            "versions": {1: {"backends": [{"grpc": relay.address}]}},
        },
        "down": {**tfs, **times, "versions": {1: {"backends": [{"grpc": nobody}]}}},
        "found": {**tfs, **times, "backends": [{"grpc": nobody}], "versions": "discover"},
        "http": {
            **tfs,
            **times,
            "versions": {1: {"backends": [{"grpc": f"127.0.0.1:{upstream.port}"}]}},
        },
    }
    with serving(tmp_path_factory.mktemp("backends"), models) as running:
        yield running


@pytest.fixture(scope="module")
def client(gateway: GatewayProcess) -> Iterator[ServingClient]:
    made = ServingClient(gateway.grpc_address)
    yield made
    made.close()


def fails(client: ServingClient, name: str, code: grpc.StatusCode, method: str = PREDICT) -> str:
    error = client.fails(method, client.predict(name), [(OWN, "1")])
    assert error.code() is code, error.details()
    details: str = error.details()
    assert details.startswith(name)
    assert not ADDRESS.search(details), details
    return details


@pytest.mark.parametrize("method", [PREDICT, METADATA, STATUS])
@pytest.mark.parametrize("name", ["down", "found", "http"])
def test_a_backend_that_was_never_there_is_unavailable(
    client: ServingClient, name: str, method: str
) -> None:
    fails(client, name, Code.UNAVAILABLE, method)


def test_a_silent_backend_is_late(
    client: ServingClient, grpc_upstream: GrpcUpstream, gateway: GatewayProcess
) -> None:
    grpc_upstream.answer(GrpcAnswer(wait=GrpcWaits()))
    details = fails(client, "mnist", Code.DEADLINE_EXCEEDED)
    assert details.startswith("mnist@1: the backend was not done within the time allowed")
    assert grpc_upstream.only().ended.wait(5)
    gateway.idle()


def test_rubbish_as_a_message_is_the_clients_to_read(
    client: ServingClient, grpc_upstream: GrpcUpstream
) -> None:
    grpc_upstream.answer(GrpcAnswer(b"\xff\xff no message"))
    assert client.call(PREDICT, client.predict("mnist", 1)) == b"\xff\xff no message"


def test_a_backend_that_dies_in_a_call_is_unavailable_and_not_asked_twice(
    client: ServingClient, grpc_upstream: GrpcUpstream, gateway: GatewayProcess
) -> None:
    wait = GrpcWaits()
    grpc_upstream.answer(GrpcAnswer(wait=wait))
    call = client.start(PREDICT, client.predict("mnist", 1))
    wait.wait_reached()
    grpc_upstream.stop()
    try:
        error = call.exception()
        assert error.code() in (Code.UNAVAILABLE, Code.CANCELLED)
        assert not ADDRESS.search(error.details()), error.details()
        assert len(grpc_upstream.calls) == 1
        fails(client, "mnist", Code.UNAVAILABLE)
    finally:
        wait.opened.set()
        grpc_upstream.start()
    gateway.model_ready("mnist")
    gateway.idle()
    until(lambda: client.start(PREDICT, client.predict("mnist", 1)).code() is Code.OK)


def test_a_connection_that_breaks_in_a_call_is_the_backends_failure(
    gateway: GatewayProcess, client: ServingClient, grpc_upstream: GrpcUpstream, relay: Relay
) -> None:
    gateway.model_ready("wired")
    wait = GrpcWaits()
    grpc_upstream.answer(GrpcAnswer(wait=wait))
    call = client.start(PREDICT, client.predict("wired", 1))
    wait.wait_reached()
    relay.cut()
    error = call.exception()
    assert error.code() is Code.UNAVAILABLE
    assert error.details() == "wired@1: the backend closed the connection without an answer"
    assert len(grpc_upstream.calls) == 1, "work may have been done: it must not be asked again"
    fails(client, "wired", Code.UNAVAILABLE)
    relay.mend()
    gateway.model_ready("wired")
    gateway.idle()


def test_with_one_of_two_backends_down_every_call_succeeds(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    pair = [GrpcUpstream(), GrpcUpstream()]
    for one in pair:
        one.versions = {"mnist": {1: "AVAILABLE"}}
    models = {
        "mnist": {
            "adapter": "tensorflow_serving",
            "backends": [{"grpc": one.address} for one in pair],
            "versions": "discover",
        }
    }
    with serving(tmp_path_factory.mktemp("pair"), models) as gateway:
        client = ServingClient(gateway.grpc_address)
        until(lambda: len(gateway.model("mnist")["versions"][0]["backends"]) == 2)
        client.call(PREDICT, client.predict("mnist", 1))
        pair[0].stop()
        for _ in range(30):
            client.call(PREDICT, client.predict("mnist", 1))
        pair[0].start()
        pair[0].reset()

        def used_again() -> bool:
            client.call(PREDICT, client.predict("mnist", 1))
            return bool(pair[0].calls)

        until(used_again)
        client.close()
    for one in pair:
        one.stop()
