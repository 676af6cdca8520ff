"""A client of one form, a backend of another: TF Serving's REST API ⇄ its gRPC API.

Each direction asks a question in the backend's form and knows how to read the answer back into
the client's. Values pass through `protocols.tensors`: a codec for each form, none for a pair.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, Protocol
from urllib.parse import quote

import msgspec

from gateway.errors import (
    Code,
    InvalidRequest,
    Unavailable,
    Unsupported,
    UpstreamInvalid,
    shown,
)
from gateway.protocols import tensors
from gateway.protocols.headers import JSON
from gateway.protocols.tensorflow_serving_grpc import (
    CLASSIFY,
    METADATA,
    PREDICT,
    REGRESS,
    STATUS,
)
from gateway.protocols.wire import Wire, messages
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
    """One direction."""

    @property
    def operations(self) -> frozenset[str]:
        """Return the names of what can be asked in this direction."""

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


class _OfExamples(NamedTuple):
    """Classify or Regress: its method over gRPC, its request there, and how answers are read."""

    path: str
    request: type[messages.ExamplesRequest]
    to_json: Callable[[Wire, bytes], bytes]
    from_json: Callable[[Wire, bytes, str, int, str], bytes]


class _Direction(ABC):
    def __init__(self, wire: Wire, max_bytes: int) -> None:
        self._wire = wire
        self._max_bytes = max_bytes
        classify = _OfExamples(
            CLASSIFY,
            wire.ClassificationRequest,
            tensors.classes_to_json,
            tensors.classes_from_json,
        )
        regress = _OfExamples(
            REGRESS, wire.RegressionRequest, tensors.values_to_json, tensors.values_from_json
        )
        self._asks: dict[str, Callable[[Asked, Target, Headers], Question]] = {
            "predict": self._predict,
            "classify": partial(self._examples, classify),
            "regress": partial(self._examples, regress),
            "metadata": self._metadata,
            "status": self._status,
        }

    @property
    def operations(self) -> frozenset[str]:
        """Return the names of what can be asked in this direction."""
        return frozenset(self._asks)

    def ask(self, operation: Operation, asked: Asked, target: Target, headers: Headers) -> Question:
        """Write the question in the backend's form."""
        return self._asks[operation.name](asked, target, _neutral(headers))

    @abstractmethod
    def _predict(self, asked: Asked, target: Target, headers: Headers) -> Question: ...

    @abstractmethod
    def _examples(
        self, kind: _OfExamples, asked: Asked, target: Target, headers: Headers
    ) -> Question: ...

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

    def _examples(
        self, kind: _OfExamples, asked: Asked, target: Target, headers: Headers
    ) -> Question:
        version = target.version
        body = tensors.examples_to_proto(
            kind.request, asked.body, version.served_name, version.number
        )
        return _over_grpc(kind.path, headers, body, partial(kind.to_json, self._wire))

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

    def __init__(self, wire: Wire, max_bytes: int) -> None:
        super().__init__(wire, max_bytes)
        self._asks["multi_inference"] = self._several

    def _predict(self, asked: Asked, target: Target, headers: Headers) -> Question:
        inputs = tensors.request_from_proto(self._wire, asked.body, self._max_bytes)
        signature = _signatures(target).find(inputs.signature)
        body = tensors.request_to_json(inputs, signature)
        name, number = _name(asked, target), target.version.number

        def answer(reply: bytes) -> bytes:
            outputs = tensors.response_from_json(reply, signature, inputs.output_filter)
            return tensors.response_to_proto(self._wire, outputs, name, number)

        return _over_rest("POST", f"{_path(target)}:predict", headers, body, answer)

    def _examples(
        self, kind: _OfExamples, asked: Asked, target: Target, headers: Headers
    ) -> Question:
        body, signature = tensors.examples_from_proto(kind.request, asked.body)
        name, number = _name(asked, target), target.version.number

        def answer(reply: bytes) -> bytes:
            return kind.from_json(self._wire, reply, name, number, signature)

        path = f"{_path(target)}:{kind.path.rpartition('/')[2].lower()}"
        return _over_rest("POST", path, headers, body, answer)

    def _several(self, asked: Asked, target: Target, headers: Headers) -> Question:
        raise Unsupported(
            f"{target.version}: MultiInference needs a gRPC address on the model's backends, "
            "which have REST alone, and that API has no such call; call Classify and Regress, "
            "or give the backends an address for gRPC"
        )

    def _metadata(self, asked: Asked, target: Target, headers: Headers) -> Question:
        wanted = list(self._wire.GetModelMetadataRequest.FromString(asked.body).metadata_field)
        unknown = [name for name in wanted if name != tensors.SIGNATURE_DEF]
        if unknown or not wanted:
            why = "GetModelMetadataRequest must specify at least one metadata_field"
            if unknown:
                why = f"Metadata field {shown(unknown[0])} is not supported"
            raise InvalidRequest(why, param="metadata_field")

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


def _name(asked: Asked, target: Target) -> str:
    """Return the model's name as the client knows it; it may have asked by an alias."""
    return asked.ref.name if asked.ref else target.model.name


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
