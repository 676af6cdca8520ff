"""TensorFlow Serving's gRPC contract: the official stubs, unchanged, against the real server."""

from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

pytestmark = pytest.mark.real


def request(
    model: str = "scale", version: int | None = None, signature: str = "", **inputs: Any
) -> Any:
    message = predict_pb2.PredictRequest()
    message.model_spec.name = model
    message.model_spec.signature_name = signature
    if version is not None:
        message.model_spec.version.value = version
    for alias, value in inputs.items():
        proto = value if hasattr(value, "tensor_shape") else tf.make_tensor_proto(value)
        message.inputs[alias].CopyFrom(proto)
    return message


def refused(call: Any, message: Any, code: grpc.StatusCode, words: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(message, timeout=60)
    assert caught.value.code() is code, caught.value.details()
    assert words in caught.value.details()


X = np.array([[1, 2, 3]], np.float32)


def test_predict_says_what_served(prediction: Any) -> None:
    reply = prediction.Predict(request(x=X), timeout=60)
    assert reply.model_spec.name == "scale"
    assert reply.model_spec.version.value == 2
    assert reply.model_spec.signature_name == "serving_default"
    assert list(reply.outputs["y"].float_val) == [
        3.0,
        6.0,
        9.0,
    ]  # typed fields, as clients read them
    assert [dim.size for dim in reply.outputs["y"].tensor_shape.dim] == [1, 3]
    old = prediction.Predict(request(version=1, x=X), timeout=60)
    assert old.model_spec.version.value == 1
    assert list(old.outputs["y"].float_val) == [2.0, 4.0, 6.0]


def test_raw_bytes_and_typed_fields_are_the_same(prediction: Any) -> None:
    raw = tf.make_tensor_proto(X)
    assert raw.tensor_content
    typed = tf.compat.v1.make_tensor_proto(0.0, shape=[1, 3])
    del typed.float_val[:]
    typed.float_val.extend([1, 2, 3])
    answers = [
        prediction.Predict(request(x=proto), timeout=60).outputs["y"] for proto in (raw, typed)
    ]
    assert answers[0] == answers[1]


def test_one_value_stands_for_the_whole_tensor(prediction: Any) -> None:
    reply = prediction.Predict(request(x=tf.make_tensor_proto(2.0, shape=[2, 3])), timeout=60)
    assert list(reply.outputs["y"].float_val) == [6.0] * 6


def test_several_inputs_and_the_output_filter(prediction: Any) -> None:
    message = request(
        "zoo",
        a=np.ones((2, 2), np.float32),
        b=np.array([5, 6]),
        c=np.array([b"\xff\x00", b"b"], object),
        flag=np.array([True, False]),
    )
    reply = prediction.Predict(message, timeout=60)
    assert set(reply.outputs) == {"total", "next", "text", "raw_bytes", "negated"}
    assert list(reply.outputs["next"].int64_val) == [6, 7]
    assert list(reply.outputs["raw_bytes"].string_val) == [b"\xff\x00", b"b"]
    assert list(reply.outputs["negated"].bool_val) == [False, True]
    message.output_filter.extend(["text", "next"])
    assert set(prediction.Predict(message, timeout=60).outputs) == {"text", "next"}
    message.output_filter.append("next")
    refused(
        prediction.Predict,
        message,
        grpc.StatusCode.INVALID_ARGUMENT,
        "duplicate output tensor alias: next",
    )
    message.output_filter[:] = ["absent"]
    refused(
        prediction.Predict,
        message,
        grpc.StatusCode.INVALID_ARGUMENT,
        "output tensor alias not found in signature: absent",
    )


def test_every_integer_type(prediction: Any) -> None:
    names = ("int8", "uint8", "int16", "int32", "uint32", "int64", "uint64")
    arrays = {name: np.array([np.iinfo(name).min, np.iinfo(name).max], name) for name in names}
    reply = prediction.Predict(request("zoo", signature="integers", **arrays), timeout=60)
    for name, array in arrays.items():
        answer = tf.make_ndarray(reply.outputs[f"{name}_out"])
        assert answer.dtype == array.dtype
        assert answer.tolist() == array.tolist()


def test_half_precision_works_here(prediction: Any) -> None:
    half = np.array([1.5, -2.0], np.float16)
    reply = prediction.Predict(request("zoo", signature="half_in", x=half), timeout=60)
    assert list(reply.outputs["y"].float_val) == [1.5, -2.0]
    reply = prediction.Predict(
        request("zoo", signature="half_out", x=half.astype("f4")), timeout=60
    )
    assert tf.make_ndarray(reply.outputs["y"]).tolist() == [1.5, -2.0]


def test_messages_beyond_four_mebibytes_pass(prediction: Any) -> None:
    rows = np.zeros((1_000_000, 3), np.float32)
    reply = prediction.Predict(request(x=rows), timeout=60)
    assert len(reply.outputs["y"].float_val) == 3_000_000


def _shaped(value: float, *sizes: int) -> Any:
    proto = tf.make_tensor_proto(value)
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    return proto


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (request("none", x=X), "NOT_FOUND", "Servable not found for request: Latest(none)"),
        (
            request("none", version=4, x=X),
            "NOT_FOUND",
            "Servable not found for request: Specific(none, 4)",
        ),
        (
            request(version=9, x=X),
            "NOT_FOUND",
            "Servable not found for request: Specific(scale, 9)",
        ),
        (request("", x=X), "INVALID_ARGUMENT", "no name"),
        (predict_pb2.PredictRequest(), "INVALID_ARGUMENT", "Missing ModelSpec"),
        (
            request(signature="x", x=X),
            "FAILED_PRECONDITION",
            'Serving signature key "x" not found.',
        ),
        (request(), "INVALID_ARGUMENT", "Missing but required: {x}"),
        (request(x=X, z=X), "INVALID_ARGUMENT", "Sent extra: {z}"),
        (
            request(x=X.astype("f8")),
            "INVALID_ARGUMENT",
            'input "x" of signature "serving_default" expects dtype float but got double',
        ),
        (
            request(x=X[0]),
            "INVALID_ARGUMENT",
            'input "x" of signature "serving_default" expects shape [-1,3] but got [3]',
        ),
        (request(x=X[:, :2]), "INVALID_ARGUMENT", "expects shape [-1,3] but got [1,2]"),
        (request(x=_shaped(1.0, 10**9, 3)), "INVALID_ARGUMENT", "send all values"),
        (request(x=_shaped(1.0, 2**62, 2**62)), "INVALID_ARGUMENT", "send all values"),
        (request(x=_shaped(1.0, -1, 3)), "INVALID_ARGUMENT", "tensor parsing error: x"),
        (
            request(x=tf.make_tensor_proto(X).__class__(dtype=9999)),
            "INVALID_ARGUMENT",
            "tensor parsing error: x",
        ),
        (
            request(z=X),
            "INVALID_ARGUMENT",
            "Signature input alias: x(feed name: serving_default_x:0) not found in request and no "
            "default value provided. Inputs expected to be in the request {z}",
        ),
        (
            request("zoo", signature="refuses", x=np.array([-1], np.float32)),
            "INVALID_ARGUMENT",
            "only above zero",
        ),
    ],
)
def test_what_is_refused(prediction: Any, message: Any, code: str, words: str) -> None:
    refused(prediction.Predict, message, grpc.StatusCode[code], words)


@pytest.mark.parametrize("content", [b"1" * 11, b"1" * 13, b"1" * 24, b"1" * 8])
def test_content_that_does_not_fill_the_shape_is_refused(prediction: Any, content: bytes) -> None:
    proto = tf.make_tensor_proto(X)
    proto.tensor_content = content
    words = "tensor parsing error: x"
    refused(prediction.Predict, request(x=proto), grpc.StatusCode.INVALID_ARGUMENT, words)


def test_typed_values_are_cut_filled_and_left_out_as_tensorflow_does(prediction: Any) -> None:
    for sent, read in (([1, 2, 3, 4, 5], [1, 2, 3]), ([1, 2], [1, 2, 2]), ([], [0, 0, 0])):
        proto = tf.make_tensor_proto(X)
        proto.ClearField("tensor_content")
        proto.float_val.extend(sent)
        reply = prediction.Predict(request(x=proto), timeout=60)
        assert list(reply.outputs["y"].float_val) == [3.0 * value for value in read]


def test_strings_may_come_as_content(prediction: Any) -> None:
    proto = tf.make_tensor_proto(np.array([b"", b""], object))
    proto.ClearField("string_val")
    proto.tensor_content = b"\x01\x03a\x00b\x00"  # the lengths, then the bytes
    reply = prediction.Predict(request("zoo", signature="text", x=proto), timeout=60)
    assert list(reply.outputs["y"].string_val) == [b"a", b"\x00b\x00"]


def test_an_unknown_label_is_refused_but_its_status_is_that_of_all_versions(
    prediction: Any, model_service: Any
) -> None:
    message = request(x=X)
    message.model_spec.version_label = "stable"
    words = "Unrecognized servable version label: stable"
    refused(prediction.Predict, message, grpc.StatusCode.INVALID_ARGUMENT, words)
    status = get_model_status_pb2.GetModelStatusRequest(model_spec=message.model_spec)
    rows = model_service.GetModelStatus(status, timeout=60).model_version_status
    assert [row.version for row in rows] == [2, 1]


def test_metadata(prediction: Any) -> None:
    message = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    message.model_spec.name = "scale"
    reply = prediction.GetModelMetadata(message, timeout=60)
    assert (reply.model_spec.name, reply.model_spec.version.value) == ("scale", 2)
    definitions = get_model_metadata_pb2.SignatureDefMap()
    assert reply.metadata["signature_def"].Unpack(definitions)
    inputs = definitions.signature_def["serving_default"].inputs
    assert inputs["x"].dtype == tf.float32.as_datatype_enum
    message.metadata_field[:] = ["other"]
    refused(
        prediction.GetModelMetadata,
        message,
        grpc.StatusCode.INVALID_ARGUMENT,
        "other is not supported",
    )
    message.metadata_field[:] = []
    refused(
        prediction.GetModelMetadata,
        message,
        grpc.StatusCode.INVALID_ARGUMENT,
        "at least one metadata_field",
    )


def test_status(model_service: Any) -> None:
    message = get_model_status_pb2.GetModelStatusRequest()
    message.model_spec.name = "scale"
    rows = model_service.GetModelStatus(message, timeout=60).model_version_status
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert [(row.version, row.state, row.status.error_code) for row in rows] == [
        (2, available, 0),
        (1, available, 0),
    ]
    message.model_spec.version.value = 1
    assert [
        row.version
        for row in model_service.GetModelStatus(message, timeout=60).model_version_status
    ] == [1]
    message.model_spec.version.value = 7
    words = "Could not find version 7 of model scale"
    refused(model_service.GetModelStatus, message, grpc.StatusCode.NOT_FOUND, words)
    empty = get_model_status_pb2.GetModelStatusRequest()
    refused(
        model_service.GetModelStatus, empty, grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec"
    )


def test_an_unknown_method_is_unimplemented(channel: Any) -> None:
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Absent")
    refused(call, b"", grpc.StatusCode.UNIMPLEMENTED, "")


def test_long_errors_are_cut(prediction: Any) -> None:
    message = request(**{"z" * 5000: X})
    with pytest.raises(grpc.RpcError) as caught:
        prediction.Predict(message, timeout=60)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details().endswith("...TRUNCATED")
