"""Shapes of the messages that the gateway reads field by field, for the type checker.

What belongs here: annotations alone. At run time the classes come from ``load()``; they have these
fields but not these bases, so never build one of these shapes, and never ask ``isinstance`` of
them. A field that no code reads by name needs no line here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import Message

if TYPE_CHECKING:
    from google.protobuf.internal.containers import (
        MessageMap,
        RepeatedCompositeFieldContainer,
        RepeatedScalarFieldContainer,
    )


class Int64Value(Message):
    """A number that can be absent."""

    value: int


class AnyMessage(Message):
    """``google.protobuf.Any``: a message of some type, serialized."""

    type_url: str
    value: bytes


class ModelSpec(Message):
    """Which model; ``version_choice`` holds ``version``, ``version_label`` or neither."""

    name: str
    version: Int64Value
    version_label: str
    signature_name: str


class Dim(Message):
    """One dimension; -1 where the size is unknown."""

    size: int
    name: str


class TensorShape(Message):
    """``tensorflow.TensorShapeProto``."""

    dim: RepeatedCompositeFieldContainer[Dim]
    unknown_rank: bool


class Tensor(Message):
    """``tensorflow.TensorProto``: values in ``tensor_content`` or in one of the typed fields."""

    dtype: int
    tensor_shape: TensorShape
    version_number: int
    tensor_content: bytes
    float8_val: bytes
    half_val: RepeatedScalarFieldContainer[int]
    float_val: RepeatedScalarFieldContainer[float]
    double_val: RepeatedScalarFieldContainer[float]
    int_val: RepeatedScalarFieldContainer[int]
    int64_val: RepeatedScalarFieldContainer[int]
    uint32_val: RepeatedScalarFieldContainer[int]
    uint64_val: RepeatedScalarFieldContainer[int]
    bool_val: RepeatedScalarFieldContainer[bool]
    string_val: RepeatedScalarFieldContainer[bytes]
    scomplex_val: RepeatedScalarFieldContainer[float]
    dcomplex_val: RepeatedScalarFieldContainer[float]


class PredictRequest(Message):
    """Named input tensors for one signature of one model."""

    model_spec: ModelSpec
    inputs: MessageMap[str, Tensor]
    output_filter: RepeatedScalarFieldContainer[str]


class PredictResponse(Message):
    """Named output tensors, and the model version that made them."""

    model_spec: ModelSpec
    outputs: MessageMap[str, Tensor]


class TensorInfo(Message):
    """An input or output of a signature; ``name`` is set where the tensor is a dense one."""

    name: str
    dtype: int
    tensor_shape: TensorShape


class SignatureDef(Message):
    """What one signature takes and gives."""

    inputs: MessageMap[str, TensorInfo]
    outputs: MessageMap[str, TensorInfo]
    defaults: MessageMap[str, Tensor]
    method_name: str


class SignatureDefMap(Message):
    """The signatures of a model by name; stands in the metadata under ``signature_def``."""

    signature_def: MessageMap[str, SignatureDef]


class GetModelMetadataRequest(Message):
    """Asks for named pieces of metadata; TensorFlow Serving knows ``signature_def`` only."""

    model_spec: ModelSpec
    metadata_field: RepeatedScalarFieldContainer[str]


class GetModelMetadataResponse(Message):
    """The metadata asked for, each piece a serialized message."""

    model_spec: ModelSpec
    metadata: MessageMap[str, AnyMessage]


class GetModelStatusRequest(Message):
    """Asks for the state of one version of a model, or of all."""

    model_spec: ModelSpec


class Status(Message):
    """``tensorflow.serving.StatusProto``; the code is one of ``tensorflow.error.Code``."""

    error_code: int
    error_message: str


class ModelVersionStatus(Message):
    """One version's state, a number of ``Wire.State``."""

    version: int
    state: int
    status: Status


class GetModelStatusResponse(Message):
    """The states, highest version first."""

    model_version_status: RepeatedCompositeFieldContainer[ModelVersionStatus]


class BytesList(Message):
    """Values of a feature: strings, as bytes."""

    value: RepeatedScalarFieldContainer[bytes]


class FloatList(Message):
    """Values of a feature: float32."""

    value: RepeatedScalarFieldContainer[float]


class Int64List(Message):
    """Values of a feature: int64."""

    value: RepeatedScalarFieldContainer[int]


class Feature(Message):
    """``tensorflow.Feature``: ``kind`` holds one of the three lists, or none."""

    bytes_list: BytesList
    float_list: FloatList
    int64_list: Int64List


class Features(Message):
    """Named features."""

    feature: MessageMap[str, Feature]


class Example(Message):
    """``tensorflow.Example``: one row of named features."""

    features: Features


class ExampleList(Message):
    """Examples."""

    examples: RepeatedCompositeFieldContainer[Example]


class ExampleListWithContext(Message):
    """Examples, and the features that all of them share; an example's own win."""

    examples: RepeatedCompositeFieldContainer[Example]
    context: Example


class Input(Message):
    """``kind`` holds ``example_list``, ``example_list_with_context`` or neither."""

    example_list: ExampleList
    example_list_with_context: ExampleListWithContext


class ExamplesRequest(Message):
    """``ClassificationRequest`` and ``RegressionRequest``, which have the same fields."""

    model_spec: ModelSpec
    input: Input


class Class(Message):
    """A label and its score."""

    label: str
    score: float


class Classifications(Message):
    """The classes of one example."""

    classes: RepeatedCompositeFieldContainer[Class]


class ClassificationResult(Message):
    """An item for each example."""

    classifications: RepeatedCompositeFieldContainer[Classifications]


class ClassificationResponse(Message):
    """Classes, and the model version that found them."""

    model_spec: ModelSpec
    result: ClassificationResult


class Regression(Message):
    """The value for one example."""

    value: float


class RegressionResult(Message):
    """An item for each example."""

    regressions: RepeatedCompositeFieldContainer[Regression]


class RegressionResponse(Message):
    """Values, and the model version that made them."""

    model_spec: ModelSpec
    result: RegressionResult


class ModelConfig(Message):
    """One model of a server's configuration: its name, and the folder that holds its versions."""

    name: str
    base_path: str


class ModelConfigList(Message):
    """The models of a server."""

    config: RepeatedCompositeFieldContainer[ModelConfig]


class ModelServerConfig(Message):
    """``config`` holds ``model_config_list``, ``custom_model_config`` or neither."""

    model_config_list: ModelConfigList
    custom_model_config: AnyMessage


class ReloadConfigRequest(Message):
    """Asks a server to serve these models and no others."""

    config: ModelServerConfig
    metric_names: RepeatedScalarFieldContainer[str]


class Metric(Message):
    """How much a counter of the server grew while it loaded."""

    name: str
    int64_value_increase: int


class ReloadConfigResponse(Message):
    """What became of it."""

    status: Status
    metric: RepeatedCompositeFieldContainer[Metric]
