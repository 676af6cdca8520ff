"""Reading a request's model and re-aiming it, with protobuf's parser as the judge."""

from __future__ import annotations

import contextlib

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.protocols.wire import load, messages
from gateway.protocols.wire.scan import WireError, fields
from gateway.protocols.wire.spec import ModelSpecView, read_spec, reaim

WIRE = load()
REQUESTS = [method.request for method in WIRE.methods.values() if method.has_model_spec]

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
int64 = st.one_of(st.integers(0, 9), st.integers(-(1 << 63), (1 << 63) - 1))
UNKNOWN = b"\xba\x3e\x05later\xc0\x3e\x07"  # fields 999 and 1000, known to no release


@st.composite
def specs(draw: st.DrawFn) -> messages.ModelSpec:
    spec = WIRE.ModelSpec(name=draw(names), signature_name=draw(names))
    choice = draw(st.sampled_from(["none", "version", "label"]))
    if choice == "version":
        spec.version.value = draw(int64)
        spec.version.SetInParent()
    elif choice == "label":
        spec.version_label = draw(names)
    if draw(st.booleans()):
        spec.MergeFromString(UNKNOWN)
    return spec


@st.composite
def rests(draw: st.DrawFn) -> bytes:
    """Part of a PredictRequest without its specification, sometimes with unknown fields."""
    request = WIRE.PredictRequest(output_filter=draw(st.lists(names, max_size=2)))
    for key in draw(st.lists(names, max_size=3)):
        tensor = request.inputs[key]
        tensor.dtype = draw(st.sampled_from(WIRE.DataType))
        tensor.tensor_content = draw(st.binary(max_size=300))
        tensor.float_val.extend(draw(st.lists(st.floats(width=32, allow_nan=False), max_size=3)))
    return request.SerializeToString() + (UNKNOWN if draw(st.booleans()) else b"")


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited field, its length always in two bytes, as some encoders write it."""
    return bytes([number << 3 | 2, len(payload) & 0x7F | 0x80, len(payload) >> 7]) + payload


def view(spec: messages.ModelSpec) -> ModelSpecView:
    """What protobuf says of a specification."""
    return ModelSpecView(
        name=spec.name,
        version=spec.version.value if spec.HasField("version") else None,
        label=spec.version_label if spec.HasField("version_label") else None,
        signature=spec.signature_name,
    )


@given(rests(), specs(), rests())
def test_reads_what_protobuf_reads(before: bytes, spec: messages.ModelSpec, after: bytes) -> None:
    body = before + field(1, spec.SerializeToString()) + after
    assert read_spec(WIRE, body) == view(WIRE.PredictRequest.FromString(body).model_spec)


@given(rests(), specs(), rests(), names, st.none() | int64)
def test_reaim_changes_the_model_and_nothing_else(
    before: bytes, spec: messages.ModelSpec, after: bytes, name: str, version: int | None
) -> None:
    body = before + field(1, spec.SerializeToString()) + after
    aimed = reaim(WIRE, body, name=name, version=version)
    assert read_spec(WIRE, aimed) == ModelSpecView(name, version, None, spec.signature_name)
    assert aimed.startswith(before)
    assert aimed.endswith(after)

    # Parsed back it is the request as it was, but for the name and the version.
    wanted = WIRE.PredictRequest.FromString(body)
    wanted.model_spec.name = name
    wanted.model_spec.ClearField("version_choice")
    if version is not None:
        wanted.model_spec.version.value = version
        wanted.model_spec.version.SetInParent()
    assert plain(WIRE.PredictRequest.FromString(aimed)) == plain(wanted)


def plain(message: Message) -> bytes:
    """Every field, the unknown ones included, in an order that two equal messages share."""
    return message.SerializeToString(deterministic=True)


@given(rests(), specs(), rests())
def test_reaim_returns_the_same_object_when_nothing_changes(
    before: bytes, spec: messages.ModelSpec, after: bytes
) -> None:
    body = before + field(1, spec.SerializeToString()) + after
    aimed = reaim(WIRE, body, name="mnist", version=3)
    assert reaim(WIRE, aimed, name="mnist", version=3) is aimed
    said = read_spec(WIRE, body)
    same = reaim(WIRE, body, name=said.name, version=said.version)
    assert (same is body) == (said.label is None)


@given(rests(), specs())
def test_a_request_without_a_specification_gets_one(rest: bytes, spec: messages.ModelSpec) -> None:
    assert read_spec(WIRE, rest) == ModelSpecView("", None, None, "")
    aimed = reaim(WIRE, rest, name="mnist", version=0)
    assert read_spec(WIRE, aimed) == ModelSpecView("mnist", 0, None, "")
    assert aimed.endswith(rest)


@given(specs(), rests(), specs())
def test_two_specifications_are_refused(
    first: messages.ModelSpec, rest: bytes, second: messages.ModelSpec
) -> None:
    body = field(1, first.SerializeToString()) + rest + field(1, second.SerializeToString())
    with pytest.raises(WireError, match="field 1 occurs more than once"):
        read_spec(WIRE, body)
    with pytest.raises(WireError, match="field 1 occurs more than once"):
        reaim(WIRE, body, name="mnist", version=1)


def test_a_hidden_second_specification_would_have_been_served() -> None:
    """Why two are refused: a backend's parser lets the last one win."""
    allowed = WIRE.PredictRequest(model_spec=WIRE.ModelSpec(name="allowed")).SerializeToString()
    secret = WIRE.PredictRequest(model_spec=WIRE.ModelSpec(name="secret")).SerializeToString()
    assert WIRE.PredictRequest.FromString(allowed + secret).model_spec.name == "secret"
    with pytest.raises(WireError):
        read_spec(WIRE, allowed + secret)


pieces = st.one_of(
    specs().map(lambda spec: field(1, spec.SerializeToString())),
    specs().map(lambda spec: b"\x8a\x80\x00" + field(1, spec.SerializeToString())[1:]),
    st.binary(max_size=12).map(lambda raw: field(1, raw)),
    st.integers(0, 127).map(lambda number: bytes([8, number])),
    rests(),
    st.binary(max_size=6),
)


@given(st.lists(pieces, max_size=4).map(b"".join))
def test_whatever_is_accepted_says_what_the_backend_will_read(body: bytes) -> None:
    try:
        said = read_spec(WIRE, body)
    except WireError:
        return
    try:
        request = WIRE.PredictRequest.FromString(body)
    except DecodeError:
        assume(False)
    assert said == view(request.model_spec)


@given(st.binary(max_size=80))
def test_random_bytes_raise_nothing_but_wire_errors(body: bytes) -> None:
    with contextlib.suppress(WireError):
        read_spec(WIRE, body)
    with contextlib.suppress(WireError):
        reaim(WIRE, body, name="mnist", version=1)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (field(1, field(1, b"\xff\xfe")), "does not parse"),  # a name that is not UTF-8
        (field(1, b"\x0a\x09short"), "does not parse"),
        (b"\x08\x01", "is not a message"),
        (b"\x0a\x05abc", "runs beyond the end"),
    ],
)
def test_a_broken_specification_is_refused(body: bytes, problem: str) -> None:
    with pytest.raises(WireError, match=problem):
        read_spec(WIRE, body)
    with pytest.raises(WireError, match=problem):
        reaim(WIRE, body, name="mnist", version=1)


@pytest.mark.parametrize("request_class", REQUESTS, ids=lambda cls: cls.DESCRIPTOR.name)
def test_every_request_with_a_specification_can_be_read_and_aimed(
    request_class: type[Message],
) -> None:
    spec = WIRE.ModelSpec(name="mnist", version_label="stable", signature_name="classify")
    body = request_class(model_spec=spec).SerializeToString()
    assert read_spec(WIRE, body) == ModelSpecView("mnist", None, "stable", "classify")
    aimed = reaim(WIRE, body, name="mnist-v2", version=7)
    assert read_spec(WIRE, aimed) == ModelSpecView("mnist-v2", 7, None, "classify")


def test_unknown_fields_of_a_specification_travel_along() -> None:
    spec = WIRE.ModelSpec(name="mnist").SerializeToString() + UNKNOWN
    aimed = reaim(WIRE, field(1, spec), name="other", version=2)
    (only,) = fields(aimed)
    assert [f.number for f in fields(aimed[only.value : only.end])] == [1, 2, 999, 1000]


def test_a_version_beyond_64_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="range"):
        reaim(WIRE, b"", name="mnist", version=1 << 63)
