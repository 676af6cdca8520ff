"""TensorFlow Serving's REST API (tensorflow/serving, `model_servers/http_rest_api_handler`).

The model stands in the path, so bodies pass as they came; upstream paths are built anew from
the model's name and its version's number, never copied from the client.
"""

from urllib.parse import quote

import msgspec

from gateway.errors import Code, GatewayError, NotFound, UnknownLabel, UnknownSignature
from gateway.protocols import json_text
from gateway.protocols.headers import JSON
from gateway.protocols.tensors.reading import document_of
from gateway.types import (
    Asked,
    Form,
    Head,
    Headers,
    Limits,
    Message,
    Model,
    Operation,
    Request,
    State,
    Target,
    Version,
    View,
    Whole,
)

# Where TF Serving's own contract departs from what an error means elsewhere here.
_STATUS: dict[type[GatewayError], int] = {UnknownLabel: 400}
# One text for each protocol, by what it calls a signature's name.
_SIGNATURES = {
    "name": 'Serving signature name: "{}" not found in signature def',
    "key": 'Serving signature key "{}" not found',
}


class TensorFlowServing:
    """`types.Front` for TF Serving over REST. `about`: for questions about a model's state."""

    def __init__(self, *, about: bool = False) -> None:
        self._about = about

    def decode(self, request: Request, body: bytes, limits: Limits) -> Asked:
        """Take the JSON object of bounded depth that a body begins with; the rest is no part of it.

        Raises `InvalidRequest`.
        """
        if request.operation.method == "POST":
            json_text.check_depth(body, limits.json_depth)
            body = document_of(body)
        return Asked(request.ref, body)

    def encode(
        self, operation: Operation, asked: Asked, target: Target, headers: Headers
    ) -> Message:
        """Write the backend's own path; a question about a whole model names no version."""
        path = f"/v1/models/{quote(target.version.served_name, safe='')}"
        if target.named or not operation.about:
            path = f"{path}/versions/{target.version.number}"
        path += operation.path
        return Message(Form.TFS_REST, operation.method, path, headers, asked.body)

    def error(self, error: GatewayError) -> Whole:
        """Write `{"error": message}`."""
        status = _STATUS.get(type(error), error.status)
        body = msgspec.json.encode({"error": message(error, "name", about=self._about)})
        return Whole(Head(status, (JSON, *error.headers)), body)

    def cut(self, error: GatewayError) -> bytes:
        """Nothing fits: TF Serving streams nothing."""
        return b""


def message(error: GatewayError, signature: str, *, about: bool = False) -> str:
    """Return an error's message: TF Serving's own words first, where it has some.

    `signature` is what the protocol calls a signature's name, `about` that a model's state was
    asked for.
    """
    words = ""
    if isinstance(error, NotFound) and error.servable:
        words = error.states if about else f"Servable not found for request: {error.servable}"
    elif isinstance(error, UnknownSignature) and error.signature:
        words = _SIGNATURES[signature].format(error.signature)
    return f"{words}. {error.message}" if words else error.message


def model_status(asked: Asked, view: View) -> Whole | None:
    """Answer for a model whose versions live on different backends: none knows them all."""
    model = split_model(asked, view)
    if model is None:
        return None
    statuses = [
        {
            "version": str(number),
            "state": state,
            "status": {"error_code": code.name, "error_message": why},
        }
        for number, state, code, why in version_states(model)
    ]
    body = msgspec.json.encode({"model_version_status": statuses})
    return Whole(Head(200, (JSON,)), body)


def split_model(asked: Asked, view: View) -> Model | None:
    """Return the model asked about as a whole, if no one backend holds all its versions."""
    if asked.ref is None or asked.ref.version is not None or asked.ref.label is not None:
        return None
    model = view.models.get(asked.ref.name)
    if model is None or len({_pool(v) for v in model.versions.values()}) < 2:
        return None
    return model


def version_states(model: Model) -> list[tuple[int, State, Code, str]]:
    """Return what the gateway knows of a model's versions, newest first."""
    return [
        (
            number,
            version.state,
            Code.OK if version.state is State.AVAILABLE else Code.UNAVAILABLE,
            "" if version.state is State.AVAILABLE else version.why,
        )
        for number, version in sorted(model.versions.items(), reverse=True)
    ]


def _pool(version: Version) -> frozenset[str]:
    return frozenset(backend.id for backend in version.backends)
