"""A client of one form, a backend of the other. The values are the golden vectors' to check."""

import json
from collections.abc import Iterator

import grpc
import pytest
from support import (
    GatewayProcess,
    GrpcAnswer,
    GrpcUpstream,
    HttpUpstream,
    ServingClient,
    serving,
    sized,
)
from support.grpc_upstream import METADATA, PREDICT

FLOAT = 1


@pytest.fixture(scope="module")
def gateway(
    upstream: HttpUpstream, grpc_upstream: GrpcUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    signatures = grpc_upstream.wire.SignatureDefMap()
    signature = signatures.signature_def["serving_default"]
    for infos, name in ((signature.inputs, "x"), (signature.outputs, "y")):
        infos[name].dtype = FLOAT
        for size in (-1, 2):
            infos[name].tensor_shape.dim.add().size = size
    grpc_upstream.versions = {"binary": {4: "AVAILABLE"}}
    grpc_upstream.signatures = {"binary": signatures.SerializeToString()}
    models = {
        "served": {
            "adapter": "tensorflow_serving",
            "served_name": "binary",
            "backends": [{"grpc": grpc_upstream.address, "api_key": "sk-own"}],
            "versions": "discover",
        }
    }
    with serving(tmp_path_factory.mktemp("gateway"), models) as running:
        yield running


def reply(upstream: GrpcUpstream) -> GrpcAnswer:
    answer = upstream.wire.PredictResponse()
    answer.outputs["y"].dtype = FLOAT
    for size in (1, 2):
        answer.outputs["y"].tensor_shape.dim.add().size = size
    answer.outputs["y"].float_val.extend([2.5, 3.0])
    return GrpcAnswer(answer.SerializeToString())


def test_rest_predict_on_a_grpc_backend(
    gateway: GatewayProcess, grpc_upstream: GrpcUpstream
) -> None:
    grpc_upstream.answer(reply(grpc_upstream))
    answer = gateway.http.post("/v1/models/served:predict", b'{"instances": [[1.0, 2.0]]}')
    assert answer.status == 200
    assert answer.json() == {"predictions": [[2.5, 3.0]]}
    assert answer.headers["x-isthmus-model"] == "served@4"
    call = grpc_upstream.only()
    assert call.method == PREDICT
    assert call.value("authorization") == "Bearer sk-own"
    assert call.value("accept-encoding") is None
    asked = grpc_upstream.wire.PredictRequest.FromString(call.message)
    assert (asked.model_spec.name, asked.model_spec.version.value) == ("binary", 4)


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b'{"instances": [[1.0, "a"]]}', 400, "x"),
        (b'{"instances": [[1.0], [1.0, 2.0]]}', 400, "x"),
        (b'{"instances": [], "inputs": []}', 400, "instances"),
        (b'{"inputs": {"z": [[1.0, 2.0]]}}', 400, "x"),
        (b'{"signature_name": "none", "instances": [[1.0, 2.0]]}', 400, "none"),
    ],
)
def test_what_does_not_fit_never_reaches_the_backend(
    gateway: GatewayProcess, grpc_upstream: GrpcUpstream, body: bytes, status: int, word: str
) -> None:
    answer = gateway.http.post("/v1/models/served:predict", body)
    assert answer.status == status
    assert word in answer.json()["error"]
    assert grpc_upstream.calls == []


def test_a_status_of_the_backend_becomes_the_other_forms(
    gateway: GatewayProcess, grpc_upstream: GrpcUpstream
) -> None:
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    grpc_upstream.answer(GrpcAnswer(code=code, details="the queue is full"))
    answer = gateway.http.post("/v1/models/served:predict", b'{"instances": [[1.0, 2.0]]}')
    assert answer.status == 429
    assert answer.json() == {"error": "the queue is full"}


def test_rubbish_of_the_backend_is_a_502(
    gateway: GatewayProcess, grpc_upstream: GrpcUpstream
) -> None:
    grpc_upstream.answer(GrpcAnswer(b"\xff\xff rubbish"))
    answer = gateway.http.post("/v1/models/served:predict", b'{"instances": [[1.0, 2.0]]}')
    assert answer.status == 502
    assert "translated" in answer.json()["error"]


def test_about_the_model(gateway: GatewayProcess, grpc_upstream: GrpcUpstream) -> None:
    status = grpc_upstream.wire.GetModelStatusResponse()
    one = status.model_version_status.add()
    one.version, one.state = 4, grpc_upstream.wire.State["AVAILABLE"]
    metadata = grpc_upstream.wire.GetModelMetadataResponse()
    metadata.model_spec.name = "binary"
    packed = metadata.metadata["signature_def"]
    packed.type_url = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    packed.value = grpc_upstream.signatures["binary"]
    grpc_upstream.answer(GrpcAnswer(metadata.SerializeToString()))
    answer = gateway.http.get("/v1/models/served/metadata")
    assert grpc_upstream.only().method == METADATA
    found = answer.json()["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert found["inputs"]["x"]["dtype"] == "DT_FLOAT"
    grpc_upstream.reset()
    grpc_upstream.answer(GrpcAnswer(status.SerializeToString()))
    answer = gateway.http.get("/v1/models/served/versions/4")
    assert answer.json()["model_version_status"][0]["version"] == "4"


def test_a_slow_backend_is_late_here_too(
    gateway: GatewayProcess, grpc_upstream: GrpcUpstream
) -> None:
    code = grpc.StatusCode.DEADLINE_EXCEEDED
    grpc_upstream.answer(GrpcAnswer(code=code, details="too late"))
    answer = gateway.http.post("/v1/models/served:predict", b'{"instances": [[1.0, 2.0]]}')
    assert answer.status == 504


@pytest.fixture(scope="module")
def textual(
    upstream: HttpUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    upstream.versions = {"textual": {1: "AVAILABLE"}}
    info = {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1", "name": ""}]}}
    signature = {"inputs": {"x": info}, "outputs": {"y": info}, "method_name": "m"}
    upstream.metadata = {
        "model_spec": {"name": "textual", "signature_name": "", "version": "1"},
        "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
    }
    models = {
        "textual": {
            "adapter": "tensorflow_serving",
            "backends": [{"rest": upstream.url}],
            "versions": "discover",
        }
    }
    with serving(tmp_path_factory.mktemp("textual"), models) as running:
        yield running


def test_grpc_predict_on_a_rest_backend(textual: GatewayProcess, upstream: HttpUpstream) -> None:
    upstream.answer(sized({"outputs": [0.5]}))
    client = ServingClient(textual.grpc_address)
    request = client.wire.PredictRequest()
    request.model_spec.name = "textual"
    request.inputs["x"].dtype = FLOAT
    request.inputs["x"].tensor_shape.dim.add().size = 1
    request.inputs["x"].float_val.append(1.0)
    answer = client.wire.PredictResponse.FromString(
        client.call(PREDICT, request.SerializeToString())
    )
    assert list(answer.outputs["y"].float_val) == [0.5]
    assert answer.model_spec.version.value == 1
    asked = upstream.only()
    assert asked.path == "/v1/models/textual/versions/1:predict"
    assert json.loads(asked.body) == {"signature_name": "serving_default", "inputs": {"x": [1.0]}}
    upstream.answer(sized({"error": "no such thing"}, "404 Not Found"))
    error = client.fails(PREDICT, request.SerializeToString())
    client.close()
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "no such thing"


def test_rest_classify_on_a_grpc_backend(
    gateway: GatewayProcess, grpc_upstream: GrpcUpstream
) -> None:
    answer = grpc_upstream.wire.ClassificationResponse()
    classes = answer.result.classifications.add().classes
    classes.add(label="cat", score=0.1)
    classes.add(label="dog", score=float("nan"))
    grpc_upstream.answer(GrpcAnswer(answer.SerializeToString()))
    body = b'{"signature_name": "s", "context": {"c": 1}, "examples": [{"x": [1.5], "n": "a"}]}'
    got = gateway.http.post("/v1/models/served:classify", body)
    assert (got.status, got.body) == (200, b'{"results":[[["cat",0.1],["dog",NaN]]]}')
    call = grpc_upstream.only()
    assert call.method == "/tensorflow.serving.PredictionService/Classify"
    asked = grpc_upstream.wire.ClassificationRequest.FromString(call.message)
    spec = asked.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("binary", 4, "s")
    given = asked.input.example_list_with_context
    assert list(given.context.features.feature["c"].int64_list.value) == [1]
    (example,) = given.examples
    assert list(example.features.feature["x"].float_list.value) == [1.5]
    assert list(example.features.feature["n"].bytes_list.value) == [b"a"]
    grpc_upstream.reset()
    got = gateway.http.post("/v1/models/served:regress", b'{"examples": [{"x": [null]}]}')
    assert got.status == 400
    assert got.json() == {"error": "Feature: x has element with unexpected JSON type: Null"}
    assert grpc_upstream.calls == []


def test_grpc_regress_on_a_rest_backend(textual: GatewayProcess, upstream: HttpUpstream) -> None:
    upstream.answer(sized({"results": [0.5]}))
    client = ServingClient(textual.grpc_address)
    request = client.wire.RegressionRequest()
    request.model_spec.name = "textual"
    features = request.input.example_list.examples.add().features.feature
    features["x"].float_list.value.append(1.0)
    features["raw"].bytes_list.value.append(b"\xff")
    method = "/tensorflow.serving.PredictionService/Regress"
    answer = client.wire.RegressionResponse.FromString(
        client.call(method, request.SerializeToString())
    )
    client.close()
    assert [one.value for one in answer.result.regressions] == [0.5]
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("textual", 1, "serving_default")
    asked = upstream.only()
    assert asked.path == "/v1/models/textual/versions/1:regress"
    assert json.loads(asked.body) == {
        "signature_name": "serving_default",
        "examples": [{"x": [1.0], "raw": [{"b64": "/w=="}]}],
    }
