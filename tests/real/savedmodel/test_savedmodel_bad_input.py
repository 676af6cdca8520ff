"""Bad input of every kind: the status of TensorFlow Serving, and a message that names the input.

The golden vectors hold the exact words for one input; here are several inputs, size, and time.
"""

import json
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from adapters.savedmodel.json_reader import read_object
from adapters.savedmodel.json_tensors import read_predict
from adapters.savedmodel.signature import Signature, TensorSpec
from adapters.savedmodel.status import ServingError

pytestmark = pytest.mark.real

GOOD: dict[str, Any] = {"a": [[1, 2], [3, 4]], "b": [1, 2], "c": ["x", "y"], "flag": [True, False]}
MILLION = 1_000_000


def columns(**changed: Any) -> dict[str, Any]:
    return {"inputs": GOOD | changed}


def rows(**changed: Any) -> dict[str, Any]:
    good = {"a": [1, 2], "b": 1, "c": "x", "flag": True}
    return {"instances": [good, good | changed]}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (columns(a=[[1, 2], [3]]), 'unexpected size: 1 at level: 1 expected size: 2 (input "a")'),
        (columns(a=[[1, 2], 3]), 'level: 2 in the JSON DOM. Expected at level: 2 (input "a")'),
        (columns(a=[1, [2]]), 'unexpected level: 1 expected < 1 (input "a")'),
        (columns(b=[1, 2.5]), "JSON Value: 2.5 Type: Number is not of expected type: int64 (inp"),
        (columns(b=[1, 2**63]), 'Type: Number is not of expected type: int64 (input "b")'),
        (columns(c=["x", {"b64": "a"}]), 'Unable to base64 decode (input "c")'),
        (columns(c=["x", {"b64": 1}]), 'not formatted correctly for base64 data (input "c")'),
        (columns(flag=[1, 0]), 'is not of expected type: bool (input "flag")'),
        (
            rows(a=[1]),
            "element: 1 key: a of 'instances' list. Error: INVALID_ARGUMENT: Expecting t",
        ),
        (rows(a=[[1, 2]]), "Expecting shape [2] but got: [1,2]"),
        (rows(b="1"), "element: 1 key: b of 'instances' list. Error: INVALID_ARGUMENT: JSON Value"),
        (
            rows(c={"b64": "!"}),
            "element: 1 key: c of 'instances' list. Error: INVALID_ARGUMENT: Un",
        ),
        (rows(z=1), "element: 1 key: z of 'instances' list. Error: INVALID_ARGUMENT: JSON object:"),
        ({"instances": [{"a": [1, 2]}]}, "keys must be equal to: a,b,c,flag"),
        ({"inputs": {"a": [[1, 2]]}}, "Missing named input: b in 'inputs' object."),
        ({"inputs": {}, "instances": []}, "expecting only one of 'inputs' or 'instances'"),
        ({}, "Missing 'inputs' or 'instances' key"),
    ],
)
def test_several_inputs(http: httpx.Client, body: Any, words: str) -> None:
    answer = http.post("/zoo:predict", json=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]
    assert len(answer.text) < 1000


@pytest.mark.parametrize("name", ["int8", "uint8", "int16"])
def test_small_integers_are_refused_beyond_their_bounds(http: httpx.Client, name: str) -> None:
    for value in (np.iinfo(name).max + 1, np.iinfo(name).min - 1):
        body = {other: [0] for other in ("int8", "uint8", "int16", "int32", "uint32", "int64")}
        body |= {"uint64": [0], name: [value]}
        answer = http.post("/zoo:predict", json={"signature_name": "integers", "inputs": body})
        assert answer.status_code == 400
        assert answer.json()["error"] == (
            f'JSON Value: {value} Type: Number is not of expected type: {name} (input "{name}")'
        )


def test_of_a_key_that_comes_twice_the_first_counts(http: httpx.Client) -> None:
    text = '{"signature_name": "single", "signature_name": "x", "inputs": [1.5], "inputs": "no"}'
    assert http.post("/zoo:predict", content=text).json() == {"outputs": [1.5]}


def test_rows_of_a_million_elements() -> None:
    """The reader alone, since no model here takes as many."""
    spec = TensorSpec("x", "float32", (-1, MILLION))
    signatures = {"serving_default": Signature("serving_default", {"x": spec}, {"x": spec})}
    row = [0.25] * MILLION
    document = read_object(json.dumps({"instances": [row]}).encode(), 64)
    assert read_predict(document, signatures).inputs["x"].shape == (1, MILLION)
    for end, words in (
        (["x"], "Type: String is not of expected"),
        ([1, 2], "tensor size: 1000000"),
    ):
        with pytest.raises(ServingError, match=words) as caught:
            read_predict({"instances": [row, row[:-1] + end]}, signatures)
        assert len(caught.value.message) < 500


def test_many_numbers_over_http(http: httpx.Client) -> None:
    body = {"inputs": [0.5] * 100_000, "signature_name": "single"}
    assert http.post("/zoo:predict", json=body).json() == {"outputs": body["inputs"]}
    body["inputs"][-1] = "half"  # type: ignore[index]
    answer = http.post("/zoo:predict", json=body)
    assert answer.status_code == 400
    assert (
        answer.json()["error"] == 'JSON Value: "half" Type: String is not of expected type: float'
    )


def test_a_tensor_that_claims_more_than_was_sent(prediction: Any) -> None:
    message = predict_pb2.PredictRequest()
    message.model_spec.name, message.model_spec.signature_name = "zoo", "single"
    for content in (b"1234" * 3, b""):
        proto = tf.make_tensor_proto(0.0, shape=[10**9])
        proto.ClearField("float_val")
        proto.tensor_content = content
        message.inputs["x"].CopyFrom(proto)
        with pytest.raises(grpc.RpcError) as caught:
            prediction.Predict(message, timeout=60)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert 'input "x": shape [1000000000] is larger than' in caught.value.details()
