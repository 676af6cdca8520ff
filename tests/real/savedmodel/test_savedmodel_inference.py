"""Classify, Regress and MultiInference: over both protocols, against the real server.

What the golden vectors hold is not repeated here: the method names, the shapes that an answer may
have, several examples with a context, and where errors stand in line.
"""

import base64
import json
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import tensorflow as tf
from real.savedmodel.support import Server, Start, install
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

pytestmark = pytest.mark.real

EXAMPLES = [{"name": "cat", "weight": 0.25, "count": 2}, {"name": "dog", "weight": 0.5}]


def example(**features: Any) -> Any:
    message = tf.train.Example()
    for name, value in features.items():
        kind = {float: "float_list", int: "int64_list", bytes: "bytes_list"}[type(value)]
        getattr(message.features.feature[name], kind).value.append(value)
    return message


def filled(message: Any, *examples: Any, context: Any = None, **spec: Any) -> Any:
    target = message.input.example_list
    if context is not None:
        target = message.input.example_list_with_context
        target.context.CopyFrom(context)
    target.examples.extend(examples or (example(weight=0.25),))
    if hasattr(message, "model_spec"):
        message.model_spec.name = "judge"
        message.model_spec.signature_name = spec.get("signature", "")
    return message


def post(http: httpx.Client, verb: str, body: Any, path: str = "judge") -> httpx.Response:
    return http.post(f"/{path}:{verb}", content=body if type(body) is bytes else json.dumps(body))


def refused(call: Any, message: Any, code: str, words: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(message, timeout=60)
    assert caught.value.code() is grpc.StatusCode[code], caught.value.details()
    assert words in caught.value.details()


def test_classify_over_rest(http: httpx.Client) -> None:
    answer = post(http, "classify", {"examples": EXAMPLES})
    assert answer.text == ('{"results":[[["cat",0.25],["rest",0.75]],[["dog",0.5],["rest",0.5]]]}')
    answer = post(http, "classify", {"examples": EXAMPLES, "signature_name": "scores"})
    assert answer.json() == {"results": [[["", 0.25]], [["", 0.5]]]}
    answer = post(http, "classify", {"examples": EXAMPLES, "signature_name": "labels"})
    assert answer.text == '{"results":[[["cat",0.0]],[["dog",0.0]]]}'


def test_regress_over_rest(http: httpx.Client) -> None:
    body = {"examples": EXAMPLES, "signature_name": "regress"}
    assert post(http, "regress", body).text == '{"results":[2.25,0.5]}'
    body["signature_name"] = "flat"
    assert post(http, "regress", body, "judge/versions/1").text == '{"results":[0.25,0.5]}'
    text = b'{"signature_name": "flat", "examples": [{"weight": [NaN]}, {"weight": 1e7}]}'
    assert post(http, "regress", text).text == '{"results":[NaN,1e+07]}'


def test_a_context_stands_in_for_what_an_example_leaves_out(
    http: httpx.Client, prediction: Any
) -> None:
    body = {
        "signature_name": "regress",
        "context": {"weight": 4.0, "count": [1]},
        "examples": [{}, {"count": 5}, {"weight": [0.5]}],
    }
    assert post(http, "regress", body).json() == {"results": [5.0, 9.0, 1.5]}
    message = filled(
        regression_pb2.RegressionRequest(),
        example(),
        example(count=5),
        example(weight=0.5),
        context=example(weight=4.0, count=1),
        signature="regress",
    )
    reply = prediction.Regress(message, timeout=60)
    assert [value.value for value in reply.result.regressions] == [5.0, 9.0, 1.5]
    assert (reply.model_spec.name, reply.model_spec.version.value) == ("judge", 1)
    assert reply.model_spec.signature_name == "regress"


def test_bytes_in_base64_reach_the_model(http: httpx.Client) -> None:
    body = {"examples": [{"name": {"b64": "5pel5pys"}, "weight": 0.5}], "signature_name": "labels"}
    assert post(http, "classify", body).json() == {"results": [[["日本", 0.0]]]}


def test_multi_inference_runs_each_task_over_the_same_examples(prediction: Any) -> None:
    message = inference_pb2.MultiInferenceRequest()
    for signature, method in (("regress", "regress"), ("", "classify"), ("flat", "regress")):
        task = message.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = "judge", signature
    filled(message, example(name=b"cat", weight=0.25, count=2))
    results = prediction.MultiInference(message, timeout=60).results
    assert [result.model_spec.signature_name for result in results] == [
        "regress",
        "serving_default",
        "flat",
    ]
    assert results[0].regression_result.regressions[0].value == 2.25
    assert [
        (c.label, c.score) for c in results[1].classification_result.classifications[0].classes
    ] == [
        ("cat", 0.25),
        ("rest", 0.75),
    ]
    assert results[2].regression_result.regressions[0].value == 0.25
    message.tasks[2].model_spec.name = ""
    refused(prediction.MultiInference, message, "INVALID_ARGUMENT", "with an empty model name")


TWO = {"examples": EXAMPLES}


@pytest.mark.parametrize(
    ("verb", "signature", "words"),
    [
        ("regress", "wide", "shape to be either [batch_size] or [batch_size, 1] but got [2,2]"),
        ("regress", "whole", "Expected output Tensor of DT_FLOAT.  Got: DT_INT64"),
        ("regress", "short", "Input batch size did not match output batch size: 2 vs. 1"),
        ("regress", "serving_default", "Expected one output Tensor."),
        ("regress", "other", "No regression outputs found in SignatureDef: inputs"),
        ("regress", "misnamed", "No regression inputs found in SignatureDef: inputs"),
        ("regress", "typed", 'input "inputs" of signature "typed" expects dtype int64 but got st'),
        ("regress", "absent", "No signature was found with the name: absent"),
        ("classify", "cube", "Tensor shape: [batch_size num_classes] but got [2,1,1]"),
        ("classify", "fine", "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE"),
        ("classify", "numbers", "Expected classes Tensor of DT_STRING. Got: DT_FLOAT"),
        ("classify", "few", "Expected classes output batch size of 2. Got: 1"),
        ("classify", "uneven", "class and score should match in dim_size(1). Got 1 vs. 2"),
        ("classify", "three", "Expected one or two output Tensors, found 3"),
        ("classify", "other", 'to contain at least one of "classes" or "scores". Signature was'),
        ("classify", "misnamed", "No classification inputs found in SignatureDef: inputs"),
    ],
)
def test_signatures_and_answers_that_do_not_fit(
    http: httpx.Client, prediction: Any, verb: str, signature: str, words: str
) -> None:
    answer = post(http, verb, TWO | {"signature_name": signature})
    assert answer.status_code == 400
    assert words in answer.json()["error"]
    message = {
        "regress": regression_pb2.RegressionRequest,
        "classify": classification_pb2.ClassificationRequest,
    }[verb]()
    filled(message, example(weight=0.5), example(weight=0.5), signature=signature)
    call = prediction.Regress if verb == "regress" else prediction.Classify
    refused(call, message, "INVALID_ARGUMENT", words)


def test_the_feature_that_the_model_misses_is_named(http: httpx.Client) -> None:
    answer = post(http, "classify", {"examples": [{"weight": 1.0}, {"name": "cat"}]})
    assert answer.status_code == 400
    assert "weight" in answer.json()["error"]
    assert "Traceback" not in answer.text


def test_an_example_that_the_model_can_not_parse_is_refused(prediction: Any) -> None:
    message = filled(regression_pb2.RegressionRequest(), example(weight=b"text"), signature="flat")
    refused(prediction.Regress, message, "INVALID_ARGUMENT", "weight")


def test_a_body_that_can_not_be_read_is_told_before_a_model_that_is_not_there(
    http: httpx.Client,
) -> None:
    for verb, body, words in (
        ("predict", b"{", "JSON Parse error"),
        ("predict", {"signature_name": 1}, "must be a string value"),
        ("classify", {"examples": []}, "'examples' value is an empty array"),
        ("regress", {"examples": [{"a": None}]}, "Feature: a has element with unexpected JSON"),
    ):
        answer = post(http, verb, body, "none")
        assert answer.status_code == 400
        assert words in answer.json()["error"]
    for verb in ("classify", "regress"):
        answer = post(http, verb, TWO, "none/versions/3")
        assert answer.status_code == 404
        assert answer.json() == {"error": "Servable not found for request: Specific(none, 3)"}


@pytest.fixture(scope="module")
def checking(
    start: Start, versions: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Server:
    """A server that looks at method names; `judge` alone."""
    base = tmp_path_factory.mktemp("checking") / "judge"
    install(versions["judge"], base, 1)
    return start({"judge": base}, "--enable_signature_method_name_check=true").wait_ready()


def test_method_names_are_looked_at_where_asked(checking: Server) -> None:
    with checking.http() as http, checking.channel() as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        assert post(http, "classify", TWO).status_code == 200
        assert post(http, "regress", TWO | {"signature_name": "regress"}).status_code == 200
        answer = post(http, "regress", TWO | {"signature_name": "flat"})
        assert (answer.status_code, answer.json()["error"]) == (
            400,
            "Expected regression signature method_name to be tensorflow/serving/regress. "
            "Was: tensorflow/serving/predict",
        )
        refused(
            stub.Classify,
            filled(classification_pb2.ClassificationRequest(), signature="scores"),
            "INVALID_ARGUMENT",
            "Expected classification signature method_name to be tensorflow/serving/classify",
        )
        # Predict takes all three.
        encoded = base64.b64encode(example(weight=0.5).SerializeToString()).decode()
        for signature in ("serving_default", "regress", "flat"):
            body = {"signature_name": signature, "instances": [{"b64": encoded}]}
            assert post(http, "predict", body).status_code == 200
