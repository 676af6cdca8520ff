"""TF Serving's REST JSON ⇄ its gRPC messages, by way of named tensors.

What belongs here: a codec for each form, bytes to `Tensors` and back; never one from form to form.
Rules: pure, no sockets; no numpy and no TensorFlow; bytes come from strangers, so sizes are bounded
before memory is taken; errors name the input and never repeat its values.

A REST client and a backend that speaks gRPC:

    tensors, layout = request_from_json(body, signatures)
    ask = request_to_proto(wire, tensors, served_name, version)
    answer = response_to_json(response_from_proto(wire, reply, max_bytes), layout)

A gRPC client and a backend that speaks REST:

    tensors = request_from_proto(wire, body, max_bytes)
    signature = signatures.find(tensors.signature)
    ask = request_to_json(tensors, signature)
    outputs = response_from_json(reply, signature, tensors.output_filter)
    answer = response_to_proto(wire, outputs, name, version)

`metadata` reads the signatures and translates the answers about a model, `failures` its errors.
`example_calls` translates classify and regress, whose tf.Examples are messages in both forms.
Exact both ways but for what JSON lacks: the payload and sign of a NaN, and sizes after a 0.
"""

from gateway.protocols.tensors.example_calls import (
    classes_from_json,
    classes_to_json,
    examples_from_proto,
    examples_to_proto,
    values_from_json,
    values_to_json,
)
from gateway.protocols.tensors.failures import error_from_json, error_to_json
from gateway.protocols.tensors.json_request import request_from_json, request_to_json
from gateway.protocols.tensors.json_response import response_from_json, response_to_json
from gateway.protocols.tensors.metadata import (
    SIGNATURE_DEF,
    metadata_from_json,
    metadata_to_json,
    signatures_from_json,
    signatures_from_map,
    signatures_from_proto,
    signatures_to_map,
    status_from_json,
    status_to_json,
)
from gateway.protocols.tensors.proto import (
    request_from_proto,
    request_to_proto,
    response_from_proto,
    response_to_proto,
)
from gateway.protocols.tensors.types import (
    DEFAULT_SIGNATURE,
    DTYPES,
    DType,
    Layout,
    Signature,
    Signatures,
    Tensor,
    Tensors,
    TensorSpec,
    UnknownSignature,
    dtype_of,
)

__all__ = [
    "DEFAULT_SIGNATURE",
    "DTYPES",
    "SIGNATURE_DEF",
    "DType",
    "Layout",
    "Signature",
    "Signatures",
    "Tensor",
    "TensorSpec",
    "Tensors",
    "UnknownSignature",
    "classes_from_json",
    "classes_to_json",
    "dtype_of",
    "error_from_json",
    "error_to_json",
    "examples_from_proto",
    "examples_to_proto",
    "metadata_from_json",
    "metadata_to_json",
    "request_from_json",
    "request_from_proto",
    "request_to_json",
    "request_to_proto",
    "response_from_json",
    "response_from_proto",
    "response_to_json",
    "response_to_proto",
    "signatures_from_json",
    "signatures_from_map",
    "signatures_from_proto",
    "signatures_to_map",
    "status_from_json",
    "status_to_json",
    "values_from_json",
    "values_to_json",
]
