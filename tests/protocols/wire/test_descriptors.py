"""The tables, what is built from them, and the facts of the API that can be told in a line."""

from __future__ import annotations

import subprocess
import sys

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

from gateway.protocols.wire import build, load, serving, tensorflow

WIRE = load()
FILES = [
    WIRE.pool.FindFileByName(line.split()[1])
    for table in (tensorflow.TABLE, serving.TABLE)
    for line in table.splitlines()
    if line.startswith("file ")
]


def test_a_predict_request_has_the_bytes_of_the_api() -> None:
    request = WIRE.PredictRequest(output_filter=["y"])
    request.model_spec.name = "m"
    request.model_spec.version.value = 3
    request.model_spec.signature_name = "s"
    tensor = request.inputs["x"]
    tensor.dtype = WIRE.DataType["DT_FLOAT"]
    tensor.tensor_shape.dim.add(size=1)
    tensor.tensor_content = bytes(4)
    spec = b"\x0a\x01m" + b"\x12\x02\x08\x03" + b"\x1a\x01s"
    x = b"\x08\x01" + b"\x12\x04\x12\x02\x08\x01" + b"\x22\x04" + bytes(4)
    entry = b"\x0a\x01x" + b"\x12" + bytes([len(x)]) + x
    assert request.SerializeToString() == (
        b"\x0a" + bytes([len(spec)]) + spec + b"\x12" + bytes([len(entry)]) + entry + b"\x1a\x01y"
    )


def test_a_label_and_a_version_exclude_each_other() -> None:
    spec = WIRE.ModelSpec(name="m", version_label="stable")
    assert spec.SerializeToString() == b"\x0a\x01m\x22\x06stable"
    spec.version.value = 1
    assert spec.WhichOneof("version_choice") == "version"
    assert spec.version_label == ""


def test_a_status_answer_is_read_field_by_field() -> None:
    answer = WIRE.GetModelStatusResponse.FromString(b"\x0a\x08\x08\x7b\x10\x1e\x1a\x02\x08\x05")
    (version,) = answer.model_version_status
    assert version.version == 123
    assert WIRE.State(version.state).name == "AVAILABLE"
    assert WIRE.Code(version.status.error_code).name == "NOT_FOUND"


def test_metadata_carries_signatures_in_an_any() -> None:
    signatures = WIRE.SignatureDefMap()
    signature = signatures.signature_def["serving_default"]
    signature.inputs["x"].name = "serving_default_x:0"
    answer = WIRE.GetModelMetadataResponse()
    answer.metadata["signature_def"].Pack(signatures)  # type: ignore[attr-defined]
    packed = WIRE.GetModelMetadataResponse.FromString(answer.SerializeToString()).metadata
    assert packed["signature_def"].type_url.endswith("/tensorflow.serving.SignatureDefMap")
    assert WIRE.SignatureDefMap.FromString(packed["signature_def"].value) == signatures


def test_services_and_methods_by_path() -> None:
    assert WIRE.services == (
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
    )
    with_spec = {
        method.path.removeprefix("/tensorflow.serving."): method.has_model_spec
        for method in WIRE.methods.values()
    }
    assert with_spec == {
        "PredictionService/Classify": True,
        "PredictionService/Regress": True,
        "PredictionService/Predict": True,
        "PredictionService/MultiInference": False,
        "PredictionService/GetModelMetadata": True,
        "ModelService/GetModelStatus": True,
        "ModelService/HandleReloadConfigRequest": False,
    }
    predict = WIRE.methods["/tensorflow.serving.PredictionService/Predict"]
    assert (predict.service, predict.name) == ("tensorflow.serving.PredictionService", "Predict")
    assert predict.request is WIRE.PredictRequest
    assert predict.response is WIRE.PredictResponse


def test_enumerations_are_complete_and_strict() -> None:
    assert len(WIRE.DataType) == 67
    plain = [kind for kind in WIRE.DataType if 0 < kind < 100]
    assert all(WIRE.DataType[f"{kind.name}_REF"] == kind + 100 for kind in plain)
    assert WIRE.State["AVAILABLE"] == 30
    with pytest.raises(ValueError, match="99"):
        WIRE.State(99)


def test_any_message_can_be_had_by_name() -> None:
    assert WIRE.message("tensorflow.serving.ModelSpec") is WIRE.ModelSpec
    reload = WIRE.message("tensorflow.serving.ReloadConfigRequest")()
    assert not reload.HasField("config")
    with pytest.raises(KeyError):
        WIRE.message("tensorflow.serving.NoSuchMessage")


def test_each_load_is_a_world_of_its_own() -> None:
    other = load()
    assert other.pool is not WIRE.pool
    assert other.ModelSpec is not WIRE.ModelSpec
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("tensorflow.serving.ModelSpec")


def test_loading_needs_neither_tensorflow_nor_grpc() -> None:
    code = (
        "import sys; from gateway.protocols import wire; wire.load();"
        "print(sorted({name.split('.')[0] for name in sys.modules}))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert "'google'" in shown
    for unwanted in ("tensorflow", "tensorflow_serving", "grpc", "numpy"):
        assert f"'{unwanted}'" not in shown


def types_of(message: Descriptor) -> set[FileDescriptor]:
    """The files of the types that a message's fields, and those inside of it, refer to."""
    types = [f.message_type or f.enum_type for f in message.fields]
    nested = [types_of(inner) for inner in message.nested_types]
    return {found.file for found in types if found is not None}.union(*nested)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_imports_what_it_uses_and_nothing_else(file: FileDescriptor) -> None:
    """A reflection client links a file against its imports alone."""
    messages = [types_of(message) for message in file.message_types_by_name.values()]
    calls = [
        {method.input_type.file, method.output_type.file}
        for service in file.services_by_name.values()
        for method in service.methods
    ]
    used = {found.name for found in set().union(*messages, *calls)} - {file.name}
    passed_on = {
        public.name: imported.name
        for imported in file.dependencies
        for public in imported.public_dependencies
    }
    public = {dependency.name for dependency in file.public_dependencies}
    imported = {dependency.name for dependency in file.dependencies} - public
    assert {passed_on.get(name, name) for name in used} == imported


@pytest.mark.parametrize("service", WIRE.services)
def test_a_reflection_client_can_build_the_service_from_its_files(service: str) -> None:
    sent: dict[str, bytes] = {}

    def send(file: FileDescriptor) -> None:
        for imported in file.dependencies:
            send(imported)
        sent[file.name] = file.serialized_pb

    send(WIRE.pool.FindFileContainingSymbol(service))
    client = descriptor_pool.DescriptorPool()
    for file in sent.values():
        client.AddSerializedFile(file)
    ours, theirs = WIRE.pool.FindServiceByName(service), client.FindServiceByName(service)
    assert [m.input_type.full_name for m in theirs.methods] == [
        m.input_type.full_name for m in ours.methods
    ]


# The language of the tables.

HEAD = "file a/b.proto a.b\n"


def test_names_are_looked_up_from_the_inside_outwards() -> None:
    outer, inner = build.read(
        "file outer.proto a\n message Both\n message Outer",
        HEAD + "import outer.proto\nmessage M\n 1 x Both\n 2 y Outer\n 3 z Kind[]\n"
        "message M.Both\nenum M.Kind\n NONE=0 SOME=1",
    )
    assert [m.name for m in outer.message_type] == ["Both", "Outer"]
    (message,) = inner.message_type
    assert [f.type_name for f in message.field] == [".a.b.M.Both", ".a.Outer", ".a.b.M.Kind"]
    assert message.field[2].type == FieldDescriptorProto.TYPE_ENUM
    assert message.field[2].label == FieldDescriptorProto.LABEL_REPEATED


def test_optional_fields_come_after_the_real_oneofs() -> None:
    (file,) = build.read(
        HEAD + "message M\n 1 a int32 optional\n 2 b string in one\n 3 c bytes in one"
    )
    (message,) = file.message_type
    assert [oneof.name for oneof in message.oneof_decl] == ["one", "_a"]
    assert [field.oneof_index for field in message.field] == [1, 0, 0]
    assert [field.proto3_optional for field in message.field] == [True, False, False]
    descriptor_pool.DescriptorPool().AddSerializedFile(file.SerializeToString())


def test_a_map_is_a_repeated_entry_named_after_the_field() -> None:
    (file,) = build.read(HEAD + "message M\n 1 a_b map<string,M>")
    (message,) = file.message_type
    (entry,) = message.nested_type
    assert entry.name == "ABEntry"
    assert entry.options.map_entry
    assert message.field[0].type_name == ".a.b.M.ABEntry"
    assert [f.type for f in entry.field] == [
        FieldDescriptorProto.TYPE_STRING,
        FieldDescriptorProto.TYPE_MESSAGE,
    ]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("1 name string", "'1 name string': a row outside"),
        (HEAD + "1 name string", "a row outside"),
        (HEAD + "message M\nfile c.proto c\n 1 name string", "a row outside"),
        ("message M", "'message M'"),
        (HEAD + "message M\n one name string", "'one name string'"),
        (HEAD + "message M\n 1 name", "'1 name'"),
        (HEAD + "message M\n 1 name string maybe", "unknown words 'maybe'"),
        (HEAD + "message M\n 1 name map<string>", "map<string>"),
        (HEAD + "message M\nmessage M", "declared twice"),
        (HEAD + "message No.Inner", "'message No.Inner'"),
        (HEAD + "message M\n 1 name Missing", "nothing declares the type 'Missing'"),
        (HEAD + "enum E\n A", "'A'"),
        (HEAD + "service S\n Get M", "'Get M'"),
    ],
)
def test_a_line_that_makes_no_sense_is_quoted(table: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        build.read(table)


def test_types_of_other_files_may_be_given() -> None:
    known = FileDescriptorProto(name="k.proto", package="k")
    known.message_type.add(name="Known")
    (file,) = build.read(HEAD + "import k.proto\nmessage M\n 1 known k.Known", known=[known])
    assert file.message_type[0].field[0].type_name == ".k.Known"
