"""Real TensorFlow behind TF Serving's contract, through the gateway and directly."""

import json

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.wrappers_pb2 import Int64Value
from real.road import MODELS, Road, Side
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

SAMPLES = json.loads((MODELS / "digits" / "samples.json").read_text())["samples"]
PIXELS = [sample["pixels"] for sample in SAMPLES]
DIGITS = [sample["digit"] for sample in SAMPLES]


def _request(name: str, version: int | None = None, label: str = "") -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.CopyFrom(Int64Value(value=version))
    if label:
        request.model_spec.version_label = label
    request.inputs["pixels"].CopyFrom(tf.make_tensor_proto(PIXELS, dtype=tf.float32))
    return request


@pytest.fixture
def channel(side: Side) -> grpc.Channel:
    with grpc.insecure_channel(side.tfs_grpc) as channel:
        yield channel


@pytest.mark.parametrize("version", [1, 2])
def test_grpc_predict_by_version(channel: grpc.Channel, side: Side, version: int) -> None:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    answer = stub.Predict(_request(side.classic, version), timeout=30)
    assert answer.model_spec.version.value == version
    assert list(tf.make_ndarray(answer.outputs["digit"])) == DIGITS
    probabilities = tf.make_ndarray(answer.outputs["probabilities"])
    assert probabilities.shape == (len(DIGITS), 10)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_grpc_metadata(channel: grpc.Channel, side: Side) -> None:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = side.classic
    answer = stub.GetModelMetadata(request, timeout=30)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    assert "pixels" in signatures.signature_def["serving_default"].inputs


def test_grpc_status(channel: grpc.Channel, side: Side) -> None:
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = side.classic
    answer = stub.GetModelStatus(request, timeout=30)
    states = {entry.version: entry.state for entry in answer.model_version_status}
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert states == {1: available, 2: available}


def test_grpc_unknown_version(channel: grpc.Channel, side: Side) -> None:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(_request(side.classic, 9), timeout=30)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "Specific(digits, 9)" in caught.value.details()


def test_grpc_a_wrong_shape_is_the_backends_to_refuse(channel: grpc.Channel, side: Side) -> None:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = _request(side.classic, 1)
    request.inputs["pixels"].CopyFrom(tf.make_tensor_proto([[1.0, 2.0]], dtype=tf.float32))
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request, timeout=30)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_rest_predict_row_and_columnar(side: Side) -> None:
    url = f"{side.tfs_rest}/v1/models/{side.classic}/versions/2:predict"
    rows = httpx.post(url, json={"instances": [{"pixels": row} for row in PIXELS]}, timeout=30)
    columns = httpx.post(url, json={"inputs": {"pixels": PIXELS}}, timeout=30)
    assert rows.status_code == columns.status_code == 200
    assert [row["digit"] for row in rows.json()["predictions"]] == DIGITS
    assert columns.json()["outputs"]["digit"] == DIGITS


def test_rest_status_and_metadata(side: Side) -> None:
    base = f"{side.tfs_rest}/v1/models/{side.classic}"
    status = httpx.get(base, timeout=30).json()["model_version_status"]
    assert {entry["version"]: entry["state"] for entry in status} == {
        "1": "AVAILABLE",
        "2": "AVAILABLE",
    }
    metadata = httpx.get(f"{base}/versions/1/metadata", timeout=30).json()
    assert metadata["model_spec"]["version"] == "1"
    assert "serving_default" in metadata["metadata"]["signature_def"]["signature_def"]


def test_rest_unknown_model_and_version(side: Side) -> None:
    body = {"instances": [[0.0] * 64]}
    nobody = httpx.post(f"{side.tfs_rest}/v1/models/nobody:predict", json=body, timeout=30)
    assert nobody.status_code == 404
    assert nobody.json()["error"].startswith("Servable not found for request: Latest(nobody)")
    base = f"{side.tfs_rest}/v1/models/{side.classic}"
    ninth = httpx.post(f"{base}/versions/9:predict", json=body, timeout=30)
    assert ninth.status_code == 404
    assert "Specific(digits, 9)" in ninth.json()["error"]


def test_labels_are_the_gateways_to_resolve(road: Road) -> None:
    base = f"{road.gateway.tfs_rest}/v1/models/digits/labels"
    for label, version in (("stable", 1), ("canary", 2)):
        answer = httpx.post(f"{base}/{label}:predict", json={"instances": PIXELS}, timeout=30)
        assert answer.headers["x-isthmus-model"] == f"digits@{version}"
    with grpc.insecure_channel(road.gateway.tfs_grpc) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        answer = stub.Predict(_request("digits", label="canary"), timeout=30)
        assert answer.model_spec.version.value == 2
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(_request("digits", label="nobody"), timeout=30)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_the_same_bytes_come_back_through_the_gateway(road: Road) -> None:
    path = "/v1/models/digits/versions/1:predict"
    body = json.dumps({"instances": PIXELS[:3]})
    answers = [httpx.post(f"{s.tfs_rest}{path}", content=body) for s in (road.gateway, road.direct)]
    assert answers[0].content == answers[1].content
    raw = []
    for side in (road.gateway, road.direct):
        with grpc.insecure_channel(side.tfs_grpc) as channel:
            predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
            raw.append(predict(_request("digits", 1).SerializeToString(deterministic=True)))
    first, second = (predict_pb2.PredictResponse.FromString(answer) for answer in raw)
    assert first == second
