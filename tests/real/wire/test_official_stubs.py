"""Our descriptors against those of TensorFlow and of the official stubs, in one process.

Runs where ``tensorflow-serving-api`` is installed. Compared is all that shows on the wire, in JSON
or to a client that links the files: names, numbers, types, labels, presence, packing, JSON names,
oneofs, enumerations, methods, imports. Not compared: options for code generators, reserved ranges.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from gateway.protocols.wire import load, serving, tensorflow
from gateway.protocols.wire.spec import read_spec, reaim

pytestmark = pytest.mark.real

BEFORE = load()  # before the official stubs come into the process; `WIRE` below comes after them
pytest.importorskip("tensorflow_serving", reason="needs tensorflow-serving-api")
predict_pb2, prediction_service_pb2, model_service_pb2 = (
    importlib.import_module(f"tensorflow_serving.apis.{name}_pb2")
    for name in ("predict", "prediction_service", "model_service")
)
WIRE = load()
OFFICIAL = descriptor_pool.Default()

FILES = [
    line.split()[1]
    for table in (tensorflow.TABLE, serving.TABLE)
    for line in table.splitlines()
    if line.startswith("file ")
]
# The documented subset: the only file that is not whole, and the messages of it that we have.
PARTIAL = {"tensorflow/core/protobuf/meta_graph.proto": {"TensorInfo", "SignatureDef"}}


def messages_in(found: FileDescriptor | Descriptor) -> Iterator[Descriptor]:
    """Every message of a file or of a message, the nested ones after their outer one."""
    own = (
        found.nested_types
        if isinstance(found, Descriptor)
        else found.message_types_by_name.values()
    )
    for message in own:
        yield message
        yield from messages_in(message)


OURS = [m for name in FILES for m in messages_in(WIRE.pool.FindFileByName(name))]
ENUMS = [
    enum
    for name in FILES
    for enum in (
        *WIRE.pool.FindFileByName(name).enum_types_by_name.values(),
        *(e for m in messages_in(WIRE.pool.FindFileByName(name)) for e in m.enum_types),
    )
]


def told(message: Descriptor) -> dict[str, Any]:
    """What a message's descriptor says, apart from the order of the fields in the file."""
    proto = DescriptorProto()
    message.CopyToProto(proto)
    return {
        "name": message.full_name,
        "file": message.file.name,
        "map entry": proto.options.map_entry,
        "nested": sorted(inner.name for inner in message.nested_types),
        "enums": sorted(enum.name for enum in message.enum_types),
        "oneofs": [oneof.name for oneof in message.oneofs],
        "fields": {
            field.name: {
                "number": field.number,
                "type": (field.type, raw.type_name),
                "label": raw.label,
                "presence": field.has_presence,
                "packed": field.is_packed,
                "json": field.json_name,
                "oneof": field.containing_oneof and field.containing_oneof.name,
                "optional": raw.proto3_optional,
                "default": field.default_value if field.message_type is None else None,
            }
            for field, raw in ((message.fields_by_name[raw.name], raw) for raw in proto.field)
        },
    }


def values(enum: EnumDescriptor) -> dict[str, int]:
    return {value.name: value.number for value in enum.values}


@pytest.mark.parametrize("name", FILES)
def test_files_hold_what_the_official_files_hold(name: str) -> None:
    ours, theirs = WIRE.pool.FindFileByName(name), OFFICIAL.FindFileByName(name)
    assert ours.package == theirs.package
    assert set(ours.enum_types_by_name) == set(theirs.enum_types_by_name)
    assert set(ours.services_by_name) == set(theirs.services_by_name)
    assert [d.name for d in ours.public_dependencies] == [
        d.name for d in theirs.public_dependencies
    ]
    assert not theirs.extensions_by_name
    if name in PARTIAL:
        assert set(ours.message_types_by_name) == PARTIAL[name]
        assert {d.name for d in ours.dependencies} <= {d.name for d in theirs.dependencies}
    else:
        assert set(ours.message_types_by_name) == set(theirs.message_types_by_name)
        assert {d.name for d in ours.dependencies} == {d.name for d in theirs.dependencies}


@pytest.mark.parametrize("ours", OURS, ids=lambda message: message.full_name)
def test_messages_say_the_same(ours: Descriptor) -> None:
    assert told(ours) == told(OFFICIAL.FindMessageTypeByName(ours.full_name))


@pytest.mark.parametrize("ours", ENUMS, ids=lambda enum: enum.full_name)
def test_enumerations_say_the_same(ours: EnumDescriptor) -> None:
    assert values(ours) == values(OFFICIAL.FindEnumTypeByName(ours.full_name))


@pytest.mark.parametrize("name", WIRE.services)
def test_services_say_the_same(name: str) -> None:
    def calls(pool: descriptor_pool.DescriptorPool) -> list[tuple[str, str, str, bool, bool]]:
        return [
            (
                method.name,
                method.input_type.full_name,
                method.output_type.full_name,
                method.client_streaming,
                method.server_streaming,
            )
            for method in pool.FindServiceByName(name).methods
        ]

    assert calls(WIRE.pool) == calls(OFFICIAL)


# Values that are no defaults, so that each is written; the largest ones, so that widths show.
SAMPLES: dict[int, Any] = {
    FieldDescriptor.TYPE_DOUBLE: 1.5,
    FieldDescriptor.TYPE_FLOAT: -0.25,
    FieldDescriptor.TYPE_INT64: -(1 << 63),
    FieldDescriptor.TYPE_UINT64: (1 << 64) - 1,
    FieldDescriptor.TYPE_INT32: -(1 << 31),
    FieldDescriptor.TYPE_BOOL: True,
    FieldDescriptor.TYPE_STRING: "grüße",
    FieldDescriptor.TYPE_BYTES: b"\x00\xff",
    FieldDescriptor.TYPE_UINT32: (1 << 32) - 1,
    FieldDescriptor.TYPE_SINT64: -3,
    FieldDescriptor.TYPE_ENUM: 1,
}


def sample(message: type[Message], only: str | None = None, depth: int = 2) -> Message:
    """A message with each of its fields set, or one of them; inner messages a few levels down."""
    made = message()
    for field in message.DESCRIPTOR.fields:
        if only in (None, field.name):
            fill(made, field, depth)
    return made


def fill(message: Message, field: Any, depth: int) -> None:
    many = getattr(message, field.name)
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        value = inner.fields_by_name["value"]
        if value.message_type is None:
            many["key"] = SAMPLES[value.type]
        else:
            of = GetMessageClass(value.message_type)
            many["key"].CopyFrom(sample(of, depth=depth - 1) if depth else of())
    elif inner is not None:
        part = (
            sample(GetMessageClass(inner), depth=depth - 1) if depth else GetMessageClass(inner)()
        )
        if hasattr(many, "add"):
            many.add().CopyFrom(part)
        else:
            many.CopyFrom(part)
            many.SetInParent()
    elif hasattr(many, "append"):
        many.extend([SAMPLES[field.type]] * 2)
    else:
        setattr(message, field.name, SAMPLES[field.type])


@pytest.mark.parametrize("ours", OURS, ids=lambda message: message.full_name)
def test_bytes_of_one_are_read_by_the_other_without_a_remainder(ours: Descriptor) -> None:
    one = GetMessageClass(ours)
    other = GetMessageClass(OFFICIAL.FindMessageTypeByName(ours.full_name))
    for only in (None, *ours.fields_by_name):
        for writer, reader in ((one, other), (other, one)):
            written = sample(writer, only).SerializeToString(deterministic=True)
            read = reader.FromString(written)
            read.DiscardUnknownFields()
            assert read.SerializeToString(deterministic=True) == written
            assert written or only is None  # each field was really written


def test_both_live_in_one_process() -> None:
    assert BEFORE.PredictRequest is not WIRE.PredictRequest
    assert WIRE.PredictRequest is not predict_pb2.PredictRequest
    assert prediction_service_pb2.DESCRIPTOR.pool is OFFICIAL
    assert model_service_pb2.DESCRIPTOR.pool is not WIRE.pool
    for wire in (BEFORE, WIRE):
        assert wire.pool is not OFFICIAL
        assert wire.PredictRequest.DESCRIPTOR.file.pool is wire.pool


def test_an_official_request_is_read_and_aimed() -> None:
    request = predict_pb2.PredictRequest(output_filter=["scores"])
    request.model_spec.name = "mnist"
    request.model_spec.version_label = "stable"
    request.model_spec.signature_name = "serving_default"
    make_tensor_proto = importlib.import_module("tensorflow").make_tensor_proto
    request.inputs["image"].CopyFrom(make_tensor_proto([[0.5] * 784], shape=[1, 784]))
    body = request.SerializeToString()

    said = read_spec(WIRE, body)
    assert (said.name, said.version, said.label) == ("mnist", None, "stable")
    aimed = predict_pb2.PredictRequest.FromString(reaim(WIRE, body, name="digits", version=4))
    request.model_spec.name = "digits"
    request.model_spec.version.value = 4
    assert aimed == request
