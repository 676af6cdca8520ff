"""Which model a TensorFlow Serving request means, and pointing it at another.

What belongs here: reading and writing ``model_spec``, field 1 of every request whose
``Method.has_model_spec`` is true, in the request's serialized form. Rules: the inputs are never
parsed nor changed; a request with two specifications is refused, because a backend would merge them
and serve another model than the one that was authorized.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from gateway.protocols.wire.scan import LENGTH_DELIMITED, Field, WireError, replace, single

if TYPE_CHECKING:
    from gateway.protocols.wire import Wire, messages

MODEL_SPEC = 1


@dataclass(frozen=True, slots=True)
class ModelSpecView:
    """What a request says of its model: at most one of ``version`` and ``label`` is set.

    A request without a specification has an empty name, as one with an empty specification does.
    """

    name: str
    version: int | None
    label: str | None
    signature: str


def read_spec(wire: Wire, body: bytes) -> ModelSpecView:
    """The model specification of a serialized request.

    Raises ``WireError`` when the request is not a sound message, has two specifications, or has one
    that does not parse (a name that is not UTF-8, say).
    """
    spec, _ = _parse(wire, body)
    choice = spec.WhichOneof("version_choice")
    return ModelSpecView(
        name=spec.name,
        version=spec.version.value if choice == "version" else None,
        label=spec.version_label if choice == "version_label" else None,
        signature=spec.signature_name,
    )


def reaim(wire: Wire, body: bytes, *, name: str, version: int | None) -> bytes:
    """The request, pointed at a name and a version number, or at no version when it is None.

    A label goes; the signature, fields of the specification that we do not know, and every byte
    outside of it stay. Returns ``body`` itself when it says all that already.
    Raises what ``read_spec`` does, and ``ValueError`` for a version that is no 64-bit number.
    """
    spec, span = _parse(wire, body)
    choice = spec.WhichOneof("version_choice")
    said = spec.version.value if choice == "version" else None
    if spec.name == name and said == version and choice != "version_label":
        return body
    spec.name = name
    if version is None:
        spec.ClearField("version_choice")
    else:
        spec.version.value = version  # sets the field even where the number is 0
    return replace(body, span, MODEL_SPEC, spec.SerializeToString())


def _parse(wire: Wire, body: bytes) -> tuple[messages.ModelSpec, Field | None]:
    span = single(body, MODEL_SPEC)
    if span is None:
        return wire.ModelSpec(), None
    if span.wire_type != LENGTH_DELIMITED:
        raise WireError("the model specification is not a message", span.start)
    try:
        return wire.ModelSpec.FromString(body[span.value : span.end]), span
    except (DecodeError, UnicodeDecodeError) as error:  # the latter is pure-Python protobuf's
        raise WireError("the model specification does not parse", span.start) from error
