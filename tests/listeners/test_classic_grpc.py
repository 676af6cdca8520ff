"""TF Serving's gRPC API: messages untouched, the specification alone written anew."""

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
    ServingClient,
    serving,
    until,
)
from support.grpc_upstream import METADATA, OWN, PREDICT, STATUS

MULTI = "/tensorflow.serving.PredictionService/MultiInference"
# Fields that the gateway's descriptors do not know: number 99, and a repeated output_filter.
UNKNOWN = b"\x9a\x06\x03new" + b"\x1a\x01y" + b"\x1a\x01z"
ALL = {1: "AVAILABLE", 2: "AVAILABLE", 3: "AVAILABLE"}


@pytest.fixture(scope="module")
def gateway(
    upstream: HttpUpstream, grpc_upstream: GrpcUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    upstream.versions = {"textual": {1: "AVAILABLE"}}
    grpc_upstream.versions = {"mnist": dict(ALL), "served": dict(ALL), "split-2": {2: "AVAILABLE"}}
    grpc_upstream.versions["split-1"] = {1: "AVAILABLE"}
    tfs = {"adapter": "tensorflow_serving"}
    own = {
        "grpc": grpc_upstream.address,
        "api_key": "sk-backend",
        "headers": {"X-Backend": "own"},
    }
    models: dict[str, Any] = {
        "mnist": {
            **tfs,
            "backends": [own],
            "versions": "discover",
            "labels": {"stable": 2, "canary": 3},
            "aliases": ["digits"],
        },
        "renamed": {**tfs, "served_name": "served", "backends": [own], "versions": "discover"},
        "quick": {
            **tfs,
            "served_name": "served",
            "backends": [own],
            "versions": "discover",
            "timeouts": {"total": "300ms"},
        },
        "split": {
            **tfs,
            "versions": {
                1: {"served_name": "split-1", "backends": [own]},
                2: {"served_name": "split-2", "backends": [{"grpc": localhost(grpc_upstream)}]},
            },
        },
        "textual": {**tfs, "backends": [{"rest": upstream.url}], "versions": "discover"},
        "chat": {"adapter": "vllm", "served_name": "served", "backends": [upstream.url]},
    }
    limits = {"max_body": "100KiB"}
    with serving(tmp_path_factory.mktemp("grpc"), models, limits=limits) as running:
        yield running


def localhost(upstream: GrpcUpstream) -> str:
    """The same server as another backend."""
    return f"localhost:{upstream.port}"


@pytest.fixture(scope="module")
def client(gateway: GatewayProcess) -> Iterator[ServingClient]:
    made = ServingClient(gateway.grpc_address)
    yield made
    made.close()


def test_a_message_that_names_the_version_is_untouched(
    client: ServingClient, grpc_upstream: GrpcUpstream
) -> None:
    sent = client.predict("mnist", 2, extra=UNKNOWN)
    said = b"\x0a\x00" + UNKNOWN
    grpc_upstream.answer(GrpcAnswer(said))
    assert client.call(PREDICT, sent) == said
    assert grpc_upstream.only().message == sent
    assert grpc_upstream.only().method == PREDICT


@pytest.mark.parametrize(
    ("name", "version", "label", "served", "number"),
    [
        ("mnist", None, "", "mnist", 2),
        ("mnist", None, "canary", "mnist", 3),
        ("mnist", None, "stable", "mnist", 2),
        ("mnist", None, "latest", "mnist", 3),
        ("mnist", 1, "", "mnist", 1),
        ("digits", 3, "", "mnist", 3),
        ("renamed", None, "", "served", 3),
        ("renamed", 1, "", "served", 1),
    ],
)
def test_only_the_specification_is_written_anew(
    client: ServingClient,
    grpc_upstream: GrpcUpstream,
    name: str,
    version: int | None,
    label: str,
    served: str,
    number: int,
) -> None:
    client.call(PREDICT, client.predict(name, version, label, extra=UNKNOWN))
    arrived = grpc_upstream.only().message
    assert arrived == client.predict(served, number, extra=UNKNOWN)


@pytest.mark.parametrize("method", [METADATA, STATUS])
def test_questions_about_a_model_are_forwarded(
    client: ServingClient, grpc_upstream: GrpcUpstream, method: str
) -> None:
    message = client.wire.GetModelStatusRequest()
    message.model_spec.name = "mnist"
    asked = message.SerializeToString()
    message.model_spec.version.value = 3
    exact = message.SerializeToString()
    for sent in (asked, exact):
        assert client.call(method, sent, [(OWN, "1")]) == b""
    first, second = grpc_upstream.calls
    assert first.method == second.method == method
    assert second.message == exact
    about_all = method == STATUS  # a version is chosen for all other questions
    assert (first.message == asked) == about_all


def test_the_status_of_a_model_on_several_backends_is_put_together(
    client: ServingClient, grpc_upstream: GrpcUpstream
) -> None:
    message = client.wire.GetModelStatusRequest()
    message.model_spec.name = "split"
    answer = client.wire.GetModelStatusResponse.FromString(
        client.call(STATUS, message.SerializeToString(), [(OWN, "1")])
    )
    found = [(one.version, one.state) for one in answer.model_version_status]
    available = client.wire.State["AVAILABLE"]
    assert found == [(2, available), (1, available)]
    assert grpc_upstream.calls == []


def test_metadata_travels_both_ways(client: ServingClient, grpc_upstream: GrpcUpstream) -> None:
    binary = bytes(range(256))
    grpc_upstream.answer(
        GrpcAnswer(
            initial=[("x-first", "a"), ("x-first-bin", binary), ("x-isthmus-model", "forged@9")],
            trailing=[("x-last", "b"), ("x-last-bin", binary)],
        )
    )
    call = client.start(
        PREDICT,
        client.predict("mnist", 1),
        [
            ("authorization", "Bearer client-key"),
            ("x-api-key", "client-key"),
            ("cookie", "client-key"),
            ("x-backend", "forged"),
            ("x-kept", "yes"),
            ("x-kept-bin", binary),
            ("x-request-id", "mine"),
        ],
    )
    call.result()
    arrived = grpc_upstream.only()
    assert "client-key" not in str(arrived.metadata)
    assert arrived.value("authorization") == "Bearer sk-backend"
    assert arrived.value("x-backend") == "own"
    assert (arrived.value("x-kept"), arrived.value("x-kept-bin")) == ("yes", binary)
    initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
    models = [value for name, value in call.initial_metadata() if name == "x-isthmus-model"]
    assert (initial["x-first"], initial["x-first-bin"]) == ("a", binary)
    assert (trailing["x-last"], trailing["x-last-bin"]) == ("b", binary)
    assert models == ["mnist@1"]
    assert initial["x-request-id"] == "mine"
    assert initial["server-timing"].startswith("gateway;dur=")


def test_a_backends_own_status_passes_through(
    client: ServingClient, grpc_upstream: GrpcUpstream
) -> None:
    for code in (
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.UNKNOWN,
    ):
        details = 'Signature "x" — not found\nü'
        grpc_upstream.answer(GrpcAnswer(code=code, details=details, trailing=[("x-why", "z")]))
        error = client.fails(PREDICT, client.predict("mnist", 1))
        assert (error.code(), error.details()) == (code, details)
        assert dict(error.trailing_metadata())["x-why"] == "z"


def test_the_time_that_remains_travels(client: ServingClient, grpc_upstream: GrpcUpstream) -> None:
    client.call(PREDICT, client.predict("mnist", 1), timeout=7)
    remaining = grpc_upstream.only().remaining
    assert remaining is not None
    assert 2 < remaining < 8  # gRPC rounds up
    grpc_upstream.reset()
    client.call(PREDICT, client.predict("mnist", 1))
    total = grpc_upstream.only().remaining  # the client's 15 s, not the 30 s of the model
    assert total is not None
    assert 7 < total < 16


def test_a_deadline_ends_the_call_at_the_backend(
    client: ServingClient, grpc_upstream: GrpcUpstream, gateway: GatewayProcess
) -> None:
    grpc_upstream.answer(GrpcAnswer(wait=GrpcWaits()))
    error = client.fails(PREDICT, client.predict("mnist", 1), timeout=0.2)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert grpc_upstream.only().ended.wait(5)
    gateway.idle()


def test_the_models_own_limit_is_a_deadline_too(
    client: ServingClient, grpc_upstream: GrpcUpstream, gateway: GatewayProcess
) -> None:
    grpc_upstream.answer(GrpcAnswer(wait=GrpcWaits()))
    error = client.fails(PREDICT, client.predict("quick", 1))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert error.details() == (
        "quick@1: the backend was not done within the time allowed for the request"
    )
    assert grpc_upstream.only().ended.wait(5)
    gateway.idle()


def test_a_cancelled_call_is_cancelled_at_the_backend(
    client: ServingClient, grpc_upstream: GrpcUpstream, gateway: GatewayProcess
) -> None:
    wait = GrpcWaits()
    grpc_upstream.answer(GrpcAnswer(wait=wait))
    call = client.start(PREDICT, client.predict("mnist", 1))
    wait.wait_reached()
    assert gateway.total("isthmus_inflight_requests") == 1
    assert not grpc_upstream.only().ended.is_set()
    call.cancel()
    assert grpc_upstream.only().ended.wait(5), "the backend works on for nobody"
    gateway.idle()
    until(lambda: gateway.total("isthmus_requests_total", code="CANCELLED") >= 1)


def test_versions_come_and_go_while_running(
    client: ServingClient, grpc_upstream: GrpcUpstream
) -> None:
    def code(version: int) -> grpc.StatusCode:
        return client.start(PREDICT, client.predict("mnist", version)).code()

    error = client.fails(PREDICT, client.predict("mnist", 4))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "Versions of mnist: 1, 2, 3" in error.details()
    grpc_upstream.versions["mnist"] = {**ALL, 4: "AVAILABLE"}
    until(lambda: code(4) is grpc.StatusCode.OK)
    grpc_upstream.versions["mnist"] = dict(ALL)
    until(lambda: code(4) is grpc.StatusCode.NOT_FOUND)


def test_what_is_not_translated_says_so(client: ServingClient, upstream: HttpUpstream) -> None:
    request = client.wire.MultiInferenceRequest()
    request.tasks.add().model_spec.name = "textual"
    error = client.fails(MULTI, request.SerializeToString())
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert error.details().startswith(
        "textual@1: MultiInference needs a gRPC address on the model's backends"
    )
    assert upstream.requests == []


def test_without_signatures_there_is_no_translation_yet(
    client: ServingClient, upstream: HttpUpstream
) -> None:
    error = client.fails(PREDICT, client.predict("textual"))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "signatures are not known yet" in error.details()
    assert upstream.requests == []


def test_all_tasks_of_a_multi_inference_go_to_one_version(
    client: ServingClient, grpc_upstream: GrpcUpstream
) -> None:
    request = client.wire.MultiInferenceRequest()
    for signature in ("a", "b"):
        task = request.tasks.add()
        task.model_spec.name = "renamed"
        task.model_spec.signature_name = signature
        task.method_name = "tensorflow/serving/regress"
    client.call(MULTI, request.SerializeToString())
    arrived = client.wire.MultiInferenceRequest.FromString(grpc_upstream.only().message)
    for task, signature in zip(arrived.tasks, ("a", "b"), strict=True):
        assert (task.model_spec.name, task.model_spec.version.value) == ("served", 3)
        assert task.model_spec.signature_name == signature
    request.tasks[1].model_spec.name = "mnist"
    error = client.fails(MULTI, request.SerializeToString())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "must access the same model name." in error.details()


def test_an_llm_has_no_predict(client: ServingClient, upstream: HttpUpstream) -> None:
    error = client.fails(PREDICT, client.predict("chat"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "chat is an LLM and has no predict" in error.details()
    assert upstream.requests == []


@pytest.mark.parametrize(
    "method",
    [
        "/tensorflow.serving.SessionService/SessionRun",
        "/tensorflow.serving.Other/Predict",
        "/inference.Other/Infer",
    ],
)
def test_other_methods_are_not_served(
    client: ServingClient, grpc_upstream: GrpcUpstream, method: str
) -> None:
    error = client.fails(method, client.predict("mnist"))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert grpc_upstream.calls == []
