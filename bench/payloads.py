"""What is sent and answered: the same bytes for every peer.

Rules of this room: pure functions; sizes are exact, so that a figure can be repeated.
"""

from __future__ import annotations

import hashlib
import json
import struct

from gateway.protocols import wire

KEY = "bench-key"
DIGEST = hashlib.sha256(KEY.encode()).hexdigest()
MODEL = "chat"
CLASSIC = "digits"
SERVED = ("tiny-1", "tiny-2", "numbers")
"""The models' other names, which the backends know: the gateway splices them in."""

CHAT_PATH = "/v1/chat/completions"
PREDICT_PATH = f"/v1/models/{CLASSIC}:predict"
SERVICE = "tensorflow.serving.PredictionService"
GRPC_METHOD = f"/{SERVICE}/Predict"
STATUS_METHOD = "/tensorflow.serving.ModelService/GetModelStatus"

PIECE = " better"
"""Stands once in each streamed piece, whatever a peer does to the rest: pieces are counted by it"""

_PROSE = "Simple is better than complex. Complex is better than complicated.\n"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def chat(size: int, stream: bool = False) -> bytes:
    """Write a chat request of exactly `size` bytes; its prompt is prose with escaped line ends.

    Raises:
        ValueError: `size` is too small for any prompt.
    """

    def body(prompt: str) -> bytes:
        messages = [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": prompt},
        ]
        more = {"max_tokens": 30, "temperature": 0} | ({"stream": True} if stream else {})
        return _json({"model": MODEL, "messages": messages, **more})

    room = size - len(body(""))
    if room < 0:
        raise ValueError(f"a chat request has at least {len(body(''))} bytes")
    line = len(_json(_PROSE)) - 2
    whole, rest = divmod(room, line)
    return body(_PROSE * whole + "x" * rest)


def chat_answer() -> bytes:
    """Write what the instant upstream answers to a chat."""
    text = "better than complex. Flat is better than nested. Readability counts."
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 30, "total_tokens": 33}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000}
    return _json({**head, "model": SERVED[0], "choices": [choice], "usage": usage})


def piece() -> bytes:
    """Write one server-sent event of a streamed chat."""
    choice = {"index": 0, "delta": {"content": PIECE}, "finish_reason": None}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000}
    return b"data: " + _json({**head, "model": SERVED[0], "choices": [choice]}) + b"\n\n"


def models() -> bytes:
    """List the models of an upstream in OpenAI's form."""
    more = {"object": "model", "created": 1700000000, "owned_by": "vllm", "max_model_len": 2048}
    data = [{"id": name, "root": name, **more} for name in (MODEL, *SERVED[:2])]
    return _json({"object": "list", "data": data})


def facts() -> dict[str, bytes]:
    """Return what routers ask of a worker before they use it, by path."""
    server = {"model_path": MODEL, "served_model_name": MODEL, "model_id": MODEL}
    return {
        "/health": b"{}",
        "/v1/models": models(),
        "/server_info": _json({**server, "tp_size": 1, "dp_size": 1, "version": "0.32.0"}),
        "/get_server_info": _json({**server, "tp_size": 1, "dp_size": 1, "version": "0.32.0"}),
        "/get_model_info": _json({"model_path": MODEL, "is_generation": True}),
        "/model_info": _json({"model_path": MODEL, "is_generation": True}),
        "/version": _json({"version": "0.32.0"}),
    }


def rows() -> bytes:
    """Write a TF Serving predict request: one row of 64 numbers."""
    return _json({"instances": [[index / 64 for index in range(64)]]})


def rows_answer() -> bytes:
    """Write its answer: ten probabilities."""
    return _json({"predictions": [[0.1] * 10]})


def status() -> bytes:
    """Write TF Serving's status of a model with two versions."""
    state = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    versions = [{"version": number, **state} for number in ("2", "1")]
    return _json({"model_version_status": versions})


def predict_message() -> bytes:
    """Write a PredictRequest: one row of 784 floats, 3.2 KB."""
    words = wire.load()
    message = words.PredictRequest()
    message.model_spec.name = CLASSIC
    message.model_spec.signature_name = "serving_default"
    tensor = message.inputs["pixels"]
    tensor.dtype = words.DataType["DT_FLOAT"]
    for size in (1, 784):
        tensor.tensor_shape.dim.add().size = size
    tensor.tensor_content = struct.pack("<784f", *(index / 784 for index in range(784)))
    return bytes(message.SerializeToString())


def predict_answer() -> bytes:
    """Write its PredictResponse: ten probabilities."""
    words = wire.load()
    message = words.PredictResponse()
    message.model_spec.name = SERVED[2]
    message.model_spec.version.value = 1
    tensor = message.outputs["probabilities"]
    tensor.dtype = words.DataType["DT_FLOAT"]
    for size in (1, 10):
        tensor.tensor_shape.dim.add().size = size
    tensor.tensor_content = struct.pack("<10f", *[0.1] * 10)
    return bytes(message.SerializeToString())


def status_answer() -> bytes:
    """Write a GetModelStatusResponse with two versions."""
    words = wire.load()
    message = words.GetModelStatusResponse()
    for number in (1, 2):
        one = message.model_version_status.add()
        one.version, one.state = number, words.State["AVAILABLE"]
    return bytes(message.SerializeToString())


def framed(message: bytes) -> bytes:
    """Put gRPC's length before a message."""
    return b"\0" + len(message).to_bytes(4, "big") + message
