"""What strangers send over gRPC: refused with a status, before any backend sees it."""

import random
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.message import DecodeError, Message
from support import GatewayProcess, GrpcUpstream, ServingClient, serving
from support.grpc_upstream import METADATA, OWN, PREDICT, STATUS

MAX_BODY = 100 * 2**10
SPEC = b"\x0a\x07\x0a\x05mnist"
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def gateway(
    grpc_upstream: GrpcUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    grpc_upstream.versions = {"mnist": {1: "AVAILABLE", 2: "AVAILABLE"}}
    models = {
        "mnist": {
            "adapter": "tensorflow_serving",
            "backends": [{"grpc": grpc_upstream.address}],
            "versions": "discover",
            "labels": {"stable": 2},
        }
    }
    limits = {"max_body": MAX_BODY, "header_bytes": 8192}
    with serving(tmp_path_factory.mktemp("bad"), models, limits=limits) as running:
        yield running


@pytest.fixture(scope="module")
def client(gateway: GatewayProcess) -> Iterator[ServingClient]:
    made = ServingClient(gateway.grpc_address)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _unseen(grpc_upstream: GrpcUpstream) -> Iterator[None]:
    yield
    assert grpc_upstream.calls == []


@pytest.mark.parametrize("method", [PREDICT, METADATA, STATUS])
@pytest.mark.parametrize(
    ("name", "version", "label", "code", "text"),
    [
        ("gpt", None, "", Code.NOT_FOUND, "gpt{}. The model `gpt` does not exist. Models here: "),
        ("gpt", 3, "", Code.NOT_FOUND, "{}. The model `gpt` does not exist. Models here: mnist."),
        ("Mnist", None, "", Code.NOT_FOUND, "Models here: mnist."),
        ("mnist", 9, "", Code.NOT_FOUND, "mnist has no version 9. Versions of mnist: 1, 2;"),
        ("mnist", None, "canary", Code.INVALID_ARGUMENT, "label: canary. Versions of mnist: 1, 2"),
        ("mnist", None, "La\x1bbel", Code.INVALID_ARGUMENT, "label: La\\x1bbel."),
        ("mnist", -1, "", Code.INVALID_ARGUMENT, "model_spec.version is negative"),
        ("", None, "", Code.INVALID_ARGUMENT, "ModelSpec has no name specified."),
        ("a/b", None, "", Code.INVALID_ARGUMENT, "'a/b' is not a model's name"),
        ("../mnist", None, "", Code.INVALID_ARGUMENT, "is not a model's name"),
        ("mnist@1", None, "", Code.INVALID_ARGUMENT, "is not a model's name"),
        ("x" * 129, None, "", Code.INVALID_ARGUMENT, "is not a model's name"),
    ],
)
def test_names_that_are_not_there(
    client: ServingClient,
    method: str,
    name: str,
    version: int | None,
    label: str,
    code: grpc.StatusCode,
    text: str,
) -> None:
    error = client.fails(method, client.predict(name, version, label), [(OWN, "1")])
    assert error.code() is code
    words, end = "Servable not found for request: ", ")"
    if method == STATUS:
        words, end = "Could not find ", ""
    assert text.format(end) in error.details()
    assert code is not Code.NOT_FOUND or error.details().startswith(words)
    assert dict(error.initial_metadata())["x-request-id"]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff",
        b"not a message",
        b"\x0a\x7f",
        b"\x0a\x02\x0a\xff",
        b"\x0a\x03\x0a\x01\xff",
        b"\x08\x01",
        SPEC + SPEC,
        SPEC + b"\x0a\x00",
        SPEC + b"\x12",
        SPEC + b"\x0b" * 500,
        SPEC + b"\xff" * 20,
    ],
)
def test_messages_that_are_none(client: ServingClient, message: bytes) -> None:
    error = client.fails(PREDICT, message)
    assert error.code() is Code.INVALID_ARGUMENT
    assert error.details().startswith(("the message can't be read: ", "Missing ModelSpec"))


def test_messages_that_are_too_large(client: ServingClient, grpc_upstream: GrpcUpstream) -> None:
    error = client.fails(PREDICT, client.predict("mnist", extra=b"\x1a\x80\x80\x08" + b"x" * 2**17))
    assert error.code() is Code.RESOURCE_EXHAUSTED
    assert str(MAX_BODY) in error.details()


def test_messages_that_are_too_large_once_unpacked(client: ServingClient) -> None:
    big = client.predict("mnist", extra=b"\x1a\x80\x80\x80\x08" + b"x" * 2**24)
    error = client.fails(PREDICT, big, compression=grpc.Compression.Gzip)
    assert error.code() is Code.RESOURCE_EXHAUSTED


def test_metadata_that_is_too_large(client: ServingClient) -> None:
    error = client.fails(PREDICT, client.predict("mnist"), [("x-huge", "x" * 10_000)])
    assert error.code() is Code.RESOURCE_EXHAUSTED


def test_a_call_without_a_message_is_no_call(client: ServingClient) -> None:
    call = client.channel.stream_unary(PREDICT).future(iter(()), timeout=10)
    error = call.exception()
    assert error.code() is Code.INVALID_ARGUMENT
    assert error.details() == "the call ended without a message; send one request"


def test_the_gateway_lives_on(client: ServingClient, grpc_upstream: GrpcUpstream) -> None:
    draw = random.Random(7)
    seed = client.predict("mnist", 2)
    for _ in range(300):
        message = bytearray(seed)
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(len(message))
            message[at : at + draw.randint(0, 2)] = draw.randbytes(draw.randint(0, 2))
        call = client.start(PREDICT, bytes(message))
        assert call.code() in (Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND), bytes(message)
    spec = client.wire.PredictRequest
    for recorded in grpc_upstream.calls:
        parsed = spec()
        if not survives(parsed, recorded.message):
            continue  # its tensors are the backend's to refuse
        assert parsed.model_spec.name == "mnist"
        assert parsed.model_spec.version.value in (1, 2)
    grpc_upstream.reset()


def survives(message: Message, data: bytes) -> bool:
    try:
        message.ParseFromString(data)
    except DecodeError:
        return False
    return True
