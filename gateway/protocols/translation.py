"""A client of one form, a backend of another: TF Serving's REST API ⇄ its gRPC API.

Each direction asks a question in the backend's form and knows how to read the answer back into
the client's. Values pass through `protocols.tensors`: a codec for each form, none for a pair.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import quote

import msgspec

from gateway.errors import Code, InvalidRequest, Unavailable, UpstreamInvalid
from gateway.protocols import tensors
from gateway.protocols.headers import JSON
from gateway.protocols.tensorflow_serving_grpc import METADATA, PREDICT, STATUS
from gateway.protocols.wire import Wire
from gateway.types import (
    Asked,
    Form,
    Head,
    Headers,
    Message,
    Operation,
    Signatures,
    Target,
    Whole,
)

# Fields that speak of the client's own form: of its bytes, or of its connection.
_OF_THE_FORM = (b"accept", b"content-", b"grpc-", b"user-agent", b"origin", b"referer", b"sec-")


class Question(msgspec.Struct, frozen=True):
    """A request in the backend's form, and the way back: a whole answer → the client's form."""

    message: Message
    answer: Callable[[Head, bytes], Whole]


class Translator(Protocol):
    """One direction. `operations` are the names of those that it can translate."""

    operations: frozenset[str]

    def ask(self, operation: Operation, asked: Asked, target: Target, headers: Headers) -> Question:
        """Write the question. Raises `InvalidRequest` in the words of the client's protocol."""


Directions = Mapping[tuple[Form, Form], Translator]


def directions(wire: Wire, max_bytes: int) -> Directions:
    """Return what can be translated, by the client's form and the backend's.

    `max_bytes` bounds the values of one request or answer.
    """
    return {
        (Form.TFS_REST, Form.TFS_GRPC): RestToGrpc(wire, max_bytes),
        (Form.TFS_GRPC, Form.TFS_REST): GrpcToRest(wire, max_bytes),
    }


class _Direction(ABC):
    operations = frozenset({"predict", "metadata", "status"})

    def __init__(self, wire: Wire, max_bytes: int) -> None:
        self._wire = wire
        self._max_bytes = max_bytes
        self._asks = {
            "predict": self._predict,
            "metadata": self._metadata,
            "status": self._status,
        }

    def ask(self, operation: Operation, asked: Asked, target: Target, headers: Headers) -> Question:
        """Write the question in the backend's form."""
        return self._asks[operation.name](asked, target, _neutral(headers))

    @abstractmethod
    def _predict(self, asked: Asked, target: Target, headers: Headers) -> Question: ...

    @abstractmethod
    def _metadata(self, asked: Asked, target: Target, headers: Headers) -> Question: ...

    @abstractmethod
    def _status(self, asked: Asked, target: Target, headers: Headers) -> Question: ...


class RestToGrpc(_Direction):
    """A REST client, a backend that speaks gRPC."""

    def _predict(self, asked: Asked, target: Target, headers: Headers) -> Question:
        inputs, layout = tensors.request_from_json(asked.body, _signatures(target))
        version = target.version
        body = tensors.request_to_proto(self._wire, inputs, version.served_name, version.number)

        def answer(reply: bytes) -> bytes:
            outputs = tensors.response_from_proto(self._wire, reply, self._max_bytes)
            return tensors.response_to_json(outputs, layout)

        return _over_grpc(PREDICT, headers, body, answer)

    def _metadata(self, asked: Asked, target: Target, headers: Headers) -> Question:
        message = self._wire.GetModelMetadataRequest(metadata_field=[tensors.SIGNATURE_DEF])
        message.model_spec.name = target.version.served_name
        message.model_spec.version.value = target.version.number

        def answer(reply: bytes) -> bytes:
            return tensors.metadata_to_json(self._wire, reply)

        return _over_grpc(METADATA, headers, message.SerializeToString(), answer)

    def _status(self, asked: Asked, target: Target, headers: Headers) -> Question:
        message = self._wire.GetModelStatusRequest()
        message.model_spec.name = target.version.served_name
        if target.named:
            message.model_spec.version.value = target.version.number

        def answer(reply: bytes) -> bytes:
            return tensors.status_to_json(self._wire, reply)

        return _over_grpc(STATUS, headers, message.SerializeToString(), answer)


class GrpcToRest(_Direction):
    """A gRPC client, a backend that speaks REST."""

    def _predict(self, asked: Asked, target: Target, headers: Headers) -> Question:
        inputs = tensors.request_from_proto(self._wire, asked.body, self._max_bytes)
        signature = _signatures(target).find(inputs.signature)
        body = tensors.request_to_json(inputs, signature)
        name = asked.ref.name if asked.ref else target.model.name
        number = target.version.number

        def answer(reply: bytes) -> bytes:
            outputs = tensors.response_from_json(reply, signature, inputs.output_filter)
            return tensors.response_to_proto(self._wire, outputs, name, number)

        return _over_rest("POST", f"{_path(target)}:predict", headers, body, answer)

    def _metadata(self, asked: Asked, target: Target, headers: Headers) -> Question:
        wanted = list(self._wire.GetModelMetadataRequest.FromString(asked.body).metadata_field)
        if wanted != [tensors.SIGNATURE_DEF]:
            raise InvalidRequest(
                f"metadata_field must be {tensors.SIGNATURE_DEF!r} alone", param="metadata_field"
            )

        def answer(reply: bytes) -> bytes:
            return tensors.metadata_from_json(self._wire, reply)

        return _over_rest("GET", f"{_path(target)}/metadata", headers, b"", answer)

    def _status(self, asked: Asked, target: Target, headers: Headers) -> Question:
        def answer(reply: bytes) -> bytes:
            return tensors.status_from_json(self._wire, reply)

        return _over_rest("GET", _path(target, whole=not target.named), headers, b"", answer)


def _over_grpc(
    path: str, headers: Headers, body: bytes, read: Callable[[bytes], bytes]
) -> Question:
    def answer(head: Head, reply: bytes) -> Whole:
        if head.status != Code.OK:
            status, text = tensors.error_to_json(head.status, head.detail)
            return Whole(Head(status, (JSON,)), text)
        return Whole(Head(200, (JSON,)), _read(read, reply))

    return Question(Message(Form.TFS_GRPC, "grpc", path, headers, body), answer)


def _over_rest(
    method: str, path: str, headers: Headers, body: bytes, read: Callable[[bytes], bytes]
) -> Question:
    def answer(head: Head, reply: bytes) -> Whole:
        if head.status != 200:
            code, details = tensors.error_from_json(head.status, reply)
            return Whole(Head(code, detail=details), b"")
        return Whole(Head(Code.OK), _read(read, reply))

    sent = (*headers, JSON) if body else headers
    return Question(Message(Form.TFS_REST, method, path, sent, body), answer)


def _read(read: Callable[[bytes], bytes], reply: bytes) -> bytes:
    try:
        return read(reply)
    except UpstreamInvalid as error:
        raise UpstreamInvalid(
            f"the backend's answer can't be translated: {error.message}"
        ) from None


def _signatures(target: Target) -> Signatures:
    found = target.version.signatures
    if found is None:
        raise Unavailable(
            f"{target.version}: its signatures are not known yet, which translation needs; "
            "try again shortly",
            headers=((b"retry-after", b"1"),),
        )
    return found


def _path(target: Target, whole: bool = False) -> str:
    path = f"/v1/models/{quote(target.version.served_name, safe='')}"
    return path if whole else f"{path}/versions/{target.version.number}"


def _neutral(headers: Headers) -> Headers:
    """Return the fields that mean the same in either form; binary ones are gRPC's alone."""
    return tuple(
        field
        for field in headers
        if not field[0].startswith(_OF_THE_FORM) and not field[0].endswith(b"-bin")
    )
