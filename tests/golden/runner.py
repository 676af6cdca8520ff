"""Plays golden vectors against a server of TF Serving's contract.

Belongs here: a target, and `Runner`, which sends it a vector over real sockets (httpx, the official
stubs) and says how the answer differs. Knows no server in particular. The
stubs import TensorFlow, so they are looked up by name, and only when a gRPC vector is played.
"""

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import grpc
import httpx
from golden.compare import differences, parse
from golden.vectors import Vector

TIMEOUT = 60.0  # seconds for one call
_LONGEST = 400  # characters of a body in a difference

# Each method: the service's stub module and class, and the module and name of its request message.
_METHODS: Mapping[str, tuple[str, str, str, str]] = {
    name: (f"{service}_pb2_grpc", stub, f"{module}_pb2", message)
    for name, service, stub, module, message in (
        ("Predict", "prediction_service", "PredictionServiceStub", "predict", "PredictRequest"),
        ("Classify", "prediction_service", "PredictionServiceStub", "classification",
         "ClassificationRequest"),
        ("Regress", "prediction_service", "PredictionServiceStub", "regression",
         "RegressionRequest"),
        ("MultiInference", "prediction_service", "PredictionServiceStub", "inference",
         "MultiInferenceRequest"),
        ("GetModelMetadata", "prediction_service", "PredictionServiceStub", "get_model_metadata",
         "GetModelMetadataRequest"),
        ("GetModelStatus", "model_service", "ModelServiceStub", "get_model_status",
         "GetModelStatusRequest"),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """Where a server listens: `host:port` of each protocol, None where it has none."""

    rest: str | None
    grpc: str | None


class Runner:
    """Plays vectors against one target; a context manager that holds its connections."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._http = httpx.Client(base_url=f"http://{target.rest}", timeout=TIMEOUT)
        limits = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(target.grpc or "127.0.0.1:1", options=limits)

    def __enter__(self) -> "Runner":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._http.close()
        self._channel.close()

    def can(self, vector: Vector) -> bool:
        """Whether the target has the vector's protocol."""
        return getattr(self._target, vector.protocol) is not None

    def run(self, vector: Vector) -> list[str]:
        """Plays one vector; the differences, one a line, empty where the answer is the golden one.

        Raises:
            httpx.TransportError: the target can't be reached over REST.
        """
        return self._rest(vector) if vector.protocol == "rest" else self._grpc(vector)

    def _rest(self, vector: Vector) -> list[str]:
        call, expect = vector.call, vector.expect
        body = call.get("body")
        answer = self._http.request(
            call["method"],
            call["path"],
            content=None if body is None else body.encode(),
            headers={} if body is None else {"content-type": "application/json"},
        )
        lines = []
        if answer.status_code != int(expect["status"]):
            lines.append(f"status: expected {expect['status']}, got {answer.status_code}")
        return lines + _body_differences(answer, expect)

    def _grpc(self, vector: Vector) -> list[str]:
        from google.protobuf import json_format  # comes with the stubs

        call, expect = vector.call, vector.expect
        stub_module, stub, module, message = _METHODS[call["method"]]
        apis = "tensorflow_serving.apis"
        request = getattr(importlib.import_module(f"{apis}.{module}"), message)()
        json_format.ParseDict(call["request"], request)
        service = getattr(importlib.import_module(f"{apis}.{stub_module}"), stub)(self._channel)
        try:
            answer = getattr(service, call["method"])(request, timeout=TIMEOUT)
        except grpc.RpcError as error:
            return _error_differences(error, expect)
        if expect["code"] != "OK":
            return [f"code: expected {expect['code']}, got OK with {_shorten(str(answer))}"]
        wanted = json_format.ParseDict(expect["response"], type(answer)())
        return differences(_tree(wanted), _tree(answer), subset=expect.get("match") == "subset")


def _tree(message: Any) -> Any:
    from google.protobuf import json_format

    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def _body_differences(answer: httpx.Response, expect: Mapping[str, Any]) -> list[str]:
    if expect.get("body") == "any":
        return []
    lines = []
    kind = answer.headers.get("content-type", "")
    if not kind.startswith("application/json"):
        lines.append(f"content-type: expected application/json, got {kind!r}")
    try:
        document = parse(answer.text)
    except ValueError as error:
        return [*lines, f"body: no JSON ({error}): {_shorten(answer.text)}"]
    if "error" in expect:
        return lines + _message_differences(document, expect["error"])
    wanted = parse(expect["json_text"]) if "json_text" in expect else expect["json"]
    return lines + differences(
        wanted,
        document,
        subset=expect.get("match") == "subset",
        written=expect.get("floats") == "written",
    )


def _message_differences(document: Any, pattern: str) -> list[str]:
    if not isinstance(document, dict) or document.keys() != {"error"}:
        return [f'body: expected {{"error": …}} and nothing else, got {_shorten(str(document))}']
    return _pattern_differences("error", document["error"], pattern)


def _error_differences(error: Any, expect: Mapping[str, Any]) -> list[str]:
    lines = []
    if error.code().name != expect["code"]:
        lines.append(f"code: expected {expect['code']}, got {error.code().name}")
    return lines + _pattern_differences("details", error.details() or "", expect.get("details", ""))


def _pattern_differences(where: str, text: str, pattern: str) -> list[str]:
    if isinstance(text, str) and re.search(pattern, text, re.DOTALL):
        return []
    return [f"{where}: expected to match {pattern!r}, got {_shorten(text)!r}"]


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
