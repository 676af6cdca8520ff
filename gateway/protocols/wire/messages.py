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
