"""What servers tell of a model, in both protocols; and errors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from protocols.tensors.cases import FLOAT, STRING, WIRE

from gateway.errors import Code, UpstreamInvalid
from gateway.protocols.tensors import (
    Signature,
    Signatures,
    TensorSpec,
    error_from_json,
    error_to_json,
    metadata_from_json,
    metadata_to_json,
    signatures_from_json,
    signatures_from_map,
    signatures_from_proto,
    signatures_to_map,
    status_from_json,
    status_to_json,
)
from gateway.protocols.tensors.failures import code_of, status_of

# As TF Serving's documentation shows a model of one input, with the fields of newer releases.
DOCUMENT = {
    "model_spec": {"name": "mnist", "signature_name": "", "version": "9007199254740993"},
    "metadata": {
        "signature_def": {
            "signature_def": {
                "serving_default": {
                    "inputs": {
                        "x": {
                            "dtype": "DT_FLOAT",
                            "tensor_shape": {
                                "dim": [{"size": "-1", "name": ""}, {"size": "784", "name": ""}],
                                "unknown_rank": False,
                            },
                            "name": "serving_default_x:0",
                        },
                        "s": {
                            "dtype": "DT_STRING",
                            "tensor_shape": {"dim": [], "unknown_rank": True},
                            "name": "serving_default_s:0",
                        },
                    },
                    "outputs": {
                        "y": {
                            "dtype": "DT_QINT8",
                            "tensor_shape": {"dim": [], "unknown_rank": False},
                            "name": "StatefulPartitionedCall:0",
                        }
                    },
                    "method_name": "tensorflow/serving/predict",
                    "defaults": {},
                }
            }
        }
    },
}
STATUS = {
    "model_version_status": [
        {
            "version": "9007199254740993",
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        },
        {
            "version": "1",
            "state": "END",
            "status": {"error_code": "NOT_FOUND", "error_message": "gone"},
        },
    ]
}


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_metadata_there_and_back() -> None:
    body = metadata_from_json(WIRE, encoded(DOCUMENT))
    assert json.loads(metadata_to_json(WIRE, body)) == DOCUMENT
    message = WIRE.GetModelMetadataResponse.FromString(body)
    assert message.model_spec.version.value == 2**53 + 1
    packed = message.metadata["signature_def"]
    assert packed.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"


def test_signatures_from_every_form() -> None:
    body = metadata_from_json(WIRE, encoded(DOCUMENT))
    packed = WIRE.GetModelMetadataResponse.FromString(body).metadata["signature_def"].value
    got = signatures_from_proto(WIRE, body)
    assert got == signatures_from_json(WIRE, encoded(DOCUMENT)) == signatures_from_map(WIRE, packed)
    signature = got.find("")
    assert signature.method == "tensorflow/serving/predict"
    assert signature.inputs == {
        "x": TensorSpec(FLOAT, (-1, 784), "serving_default_x:0"),
        "s": TensorSpec(STRING, None, "serving_default_s:0"),
    }
    assert signature.outputs["y"].shape == ()
    assert signature.outputs["y"].dtype.number == 11
    assert not signature.outputs["y"].dtype.json


def test_signatures_written() -> None:
    known = Signatures(
        {
            "a": Signature("a", {"x": TensorSpec(FLOAT, (-1, 2))}, {"y": TensorSpec(STRING)}, "m"),
            "b": Signature("b", {}, {}),
        }
    )
    assert signatures_from_map(WIRE, signatures_to_map(WIRE, known)) == known


def test_inputs_with_defaults() -> None:
    message = WIRE.SignatureDefMap()
    message.signature_def["a"].defaults["x"].dtype = 1
    known = signatures_from_map(WIRE, message.SerializeToString())
    assert known.find("a").optional == {"x"}


def test_fields_of_newer_servers() -> None:
    value = json.loads(encoded(DOCUMENT))
    definition = value["metadata"]["signature_def"]["signature_def"]["serving_default"]
    definition["colour"] = "green"
    definition["outputs"]["y"]["dtype"] = "DT_FLOAT4096"
    assert signatures_from_json(WIRE, encoded(value)).find("").inputs.keys() == {"s", "x"}


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"metadata": {}},
        {"metadata": []},
        {"metadata": {"signature_def": 1}},
        {"metadata": {"signature_def": {"signature_def": {"a": {"inputs": {"x": 1}}}}}},
    ],
)
def test_metadata_that_is_none(value: Any) -> None:
    for read in (signatures_from_json, metadata_from_json):
        with pytest.raises(UpstreamInvalid):
            read(WIRE, encoded(value))
    with pytest.raises(UpstreamInvalid, match="no 'signature_def'"):
        signatures_from_proto(WIRE, b"")


def test_status_there_and_back() -> None:
    body = status_from_json(WIRE, encoded(STATUS))
    message = WIRE.GetModelStatusResponse.FromString(body)
    assert message.model_version_status[0].state == 30
    assert message.model_version_status[1].status.error_code == Code.NOT_FOUND
    assert json.loads(status_to_json(WIRE, body)) == STATUS


@pytest.mark.parametrize(
    "text", [b"[]", b"{", b'{"model_version_status": 1}', b"\xff", b"[" * 10**5]
)
def test_status_that_is_none(text: bytes) -> None:
    with pytest.raises(UpstreamInvalid):
        status_from_json(WIRE, text)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (Code.INVALID_ARGUMENT, 400),
        (Code.FAILED_PRECONDITION, 400),
        (Code.OUT_OF_RANGE, 400),
        (Code.UNAUTHENTICATED, 401),
        (Code.PERMISSION_DENIED, 403),
        (Code.NOT_FOUND, 404),
        (Code.ALREADY_EXISTS, 409),
        (Code.ABORTED, 409),
        (Code.RESOURCE_EXHAUSTED, 429),
        (Code.CANCELLED, 499),
        (Code.UNKNOWN, 500),
        (Code.INTERNAL, 500),
        (Code.DATA_LOSS, 500),
        (Code.UNIMPLEMENTED, 501),
        (Code.UNAVAILABLE, 503),
        (Code.DEADLINE_EXCEEDED, 504),
        (77, 500),
    ],
)
def test_codes_as_statuses(code: int, status: int) -> None:
    assert status_of(code) == status
    assert error_to_json(code, 'no "x"') == (status, b'{"error":"no \\"x\\""}')
    assert code == 77 or status_of(code_of(status)) == status


@pytest.mark.parametrize(
    ("status", "body", "code", "details"),
    [
        (400, b'{"error": "no x"}', Code.INVALID_ARGUMENT, "no x"),
        (404, b"<html>", Code.NOT_FOUND, "the backend answered HTTP 404"),
        (418, b'{"error": 1}', Code.INVALID_ARGUMENT, "the backend answered HTTP 418"),
        (502, b"", Code.UNAVAILABLE, "the backend answered HTTP 502"),
        (413, b'{"error": "big"}', Code.RESOURCE_EXHAUSTED, "big"),
        (599, b"\xff", Code.UNKNOWN, "the backend answered HTTP 599"),
        (500, b'{"error": "%s"}' % (b"a" * 3000), Code.INTERNAL, "a" * 2000 + "…"),
    ],
)
def test_statuses_as_codes(status: int, body: bytes, code: Code, details: str) -> None:
    assert error_from_json(status, body) == (code, details)
