"""OpenAI's audio calls as vLLM serves them: forms in parts, with the model's name in one of them.

Bodies are forwarded, never re-modelled: the fields `model` and `stream` are read, and the model's
name is written anew, alone and in place, only when the backend knows it by another.
"""

from gateway.errors import InvalidRequest, UnsupportedMedia
from gateway.protocols import multipart
from gateway.protocols.multipart import Part
from gateway.protocols.names import parse_ref
from gateway.protocols.openai import OpenAI
from gateway.types import (
    Asked,
    Form,
    Headers,
    Limits,
    Message,
    Operation,
    Request,
    Target,
)

_READ = (b"model", b"stream")
_TRUE = frozenset((b"true", b"1", b"t", b"on", b"yes", b"y"))  # as vLLM's own parser reads it
_PLAIN = frozenset((b"content-disposition", b"content-type", b"content-length"))
_TEXT = frozenset((b"text/plain", b"text/plain; charset=utf-8", b"text/plain;charset=utf-8"))
_MAX_VALUE = 256
_HEAD_END = b"\r\n\r\n"


class Audio(OpenAI):
    """`types.Front` for calls that carry a file, and their model beside it."""

    def decode(self, request: Request, body: bytes, limits: Limits) -> Asked:
        """Find the model and whether a stream is wanted. Raises `InvalidRequest`."""
        types = [value for name, value in request.headers if name == b"content-type"]
        if len(types) != 1:
            raise UnsupportedMedia("this call takes a form: send it as multipart/form-data")
        found: dict[bytes, Part] = {}
        for part in multipart.parts(body, multipart.boundary(types[0])):
            if part.name not in _READ:
                continue
            name = part.name.decode()
            if part.name in found:
                raise InvalidRequest(f"the form has two fields {name!r}; send one", param=name)
            _check_plain(part, body, name)
            found[part.name] = part
        model, stream = found.get(b"model"), found.get(b"stream")
        if model is None:
            raise InvalidRequest(
                'the form names no model; add a field "model": one of those that '
                "GET /v1/models lists",
                param="model",
            )
        ref = parse_ref(body[model.start : model.end].decode("utf-8", "replace"))
        streams = stream is not None and body[stream.start : stream.end].lower() in _TRUE
        # A part may tell its own length, which must stay true.
        start, _ = model.fields.get(b"content-length", (model.start, model.end))
        return Asked(ref, body, streams, name_at=(start, model.end))

    def encode(
        self, operation: Operation, asked: Asked, target: Target, headers: Headers
    ) -> Message:
        """Write the backend's name for the model into the form, if it has another."""
        body, served = asked.body, target.version.served_name
        if asked.name_at is not None and str(asked.ref) != served:
            start, end = asked.name_at
            view = memoryview(body)
            body = b"".join((view[:start], _renamed(body[start:end], served), view[end:]))
        return Message(Form.OPENAI, operation.method, operation.path, headers, body)


def _renamed(old: bytes, served: str) -> bytes:
    """Write a name, and its length where `old` begins with that and with what lies between."""
    name = served.encode()
    head, end, _ = old.rpartition(_HEAD_END)
    if not end:
        return name
    _, line, rest = head.partition(b"\r\n")
    return b"".join((str(len(name)).encode(), line, rest, end, name))


def _check_plain(part: Part, body: bytes, name: str) -> None:
    """Refuse a field that others could read as something else than its plain bytes."""
    start, end = part.fields.get(b"content-type", (0, 0))
    kind = body[start:end].strip().lower() or b"text/plain"
    length = part.end - part.start
    if part.file or not part.fields.keys() <= _PLAIN or kind not in _TEXT or length > _MAX_VALUE:
        raise InvalidRequest(
            f"the form's field {name!r} must be plain text: no file, no encoding, "
            f"at most {_MAX_VALUE} bytes",
            param=name,
        )
