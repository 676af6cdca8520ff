"""TensorFlow Serving's gRPC API without TensorFlow: message classes, and reading them on the wire.

What belongs here: descriptors (tables in ``tensorflow.py`` and ``serving.py``, which ``build.py``
reads), a scan of serialized messages that does not parse them (``scan.py``), and the model
specification of a request (``spec.py``). Rules: pure, bytes to types and back; nothing is built at
import, ``load()`` builds it once and whoever needs it is handed the result; the descriptors live in
a pool of their own, so a process may import the official stubs as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from google.protobuf import any_pb2, wrappers_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from gateway.protocols.wire import build, serving, tensorflow

if TYPE_CHECKING:
    from gateway.protocols.wire import messages

SERVICES = ("tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")

# Each becomes the attribute of `Wire` that has the last part of its name.
_CLASSES = (
    "tensorflow.SignatureDef",
    "tensorflow.TensorProto",
    "tensorflow.TensorShapeProto",
    "tensorflow.serving.ClassificationRequest",
    "tensorflow.serving.ClassificationResponse",
    "tensorflow.serving.GetModelMetadataRequest",
    "tensorflow.serving.GetModelMetadataResponse",
    "tensorflow.serving.GetModelStatusRequest",
    "tensorflow.serving.GetModelStatusResponse",
    "tensorflow.serving.ModelServerConfig",
    "tensorflow.serving.ModelSpec",
    "tensorflow.serving.MultiInferenceRequest",
    "tensorflow.serving.MultiInferenceResponse",
    "tensorflow.serving.PredictRequest",
    "tensorflow.serving.PredictResponse",
    "tensorflow.serving.RegressionRequest",
    "tensorflow.serving.RegressionResponse",
    "tensorflow.serving.ReloadConfigRequest",
    "tensorflow.serving.ReloadConfigResponse",
    "tensorflow.serving.SignatureDefMap",
)
_ENUMS = (
    "tensorflow.DataType",
    "tensorflow.error.Code",
    "tensorflow.serving.ModelVersionStatus.State",
)


@dataclass(frozen=True, slots=True)
class Method:
    """One unary method. ``path`` is the one gRPC puts on the wire, ``/SERVICE/METHOD``.

    ``has_model_spec``: field 1 of the request is a ``ModelSpec``, so ``spec.py`` may be used on it.
    """

    path: str
    service: str
    name: str
    request: type[Message]
    response: type[Message]
    has_model_spec: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """The message classes of one pool, its services and its methods by path.

    The fields named like a message are its class. ``pool`` serves gRPC reflection too, under the
    official file names. Numbers that an enumeration does not know raise ``ValueError`` when looked
    up, as in every ``IntEnum``: newer servers may send some.
    """

    pool: DescriptorPool
    services: tuple[str, ...]
    methods: Mapping[str, Method]

    SignatureDef: type[messages.SignatureDef]
    TensorProto: type[messages.Tensor]
    TensorShapeProto: type[messages.TensorShape]
    ClassificationRequest: type[messages.ExamplesRequest]
    ClassificationResponse: type[messages.ClassificationResponse]
    GetModelMetadataRequest: type[messages.GetModelMetadataRequest]
    GetModelMetadataResponse: type[messages.GetModelMetadataResponse]
    GetModelStatusRequest: type[messages.GetModelStatusRequest]
    GetModelStatusResponse: type[messages.GetModelStatusResponse]
    ModelServerConfig: type[messages.ModelServerConfig]
    ModelSpec: type[messages.ModelSpec]
    MultiInferenceRequest: type[Message]
    MultiInferenceResponse: type[Message]
    PredictRequest: type[messages.PredictRequest]
    PredictResponse: type[messages.PredictResponse]
    RegressionRequest: type[messages.ExamplesRequest]
    RegressionResponse: type[messages.RegressionResponse]
    ReloadConfigRequest: type[messages.ReloadConfigRequest]
    ReloadConfigResponse: type[messages.ReloadConfigResponse]
    SignatureDefMap: type[messages.SignatureDefMap]

    DataType: type[IntEnum]
    Code: type[IntEnum]
    State: type[IntEnum]

    def message(self, full_name: str) -> type[Message]:
        """The class of any message in the pool. Raises ``KeyError`` for a name it does not have."""
        return GetMessageClass(self.pool.FindMessageTypeByName(full_name))


def load() -> Wire:
    """Build the descriptors in a new private pool; some milliseconds, so once per process."""
    known = [
        FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
        for module in (any_pb2, wrappers_pb2)
    ]
    pool = DescriptorPool()
    build.fill(pool, known)
    build.fill(pool, build.read(tensorflow.TABLE, serving.TABLE, known=known))
    classes = {_last(name): GetMessageClass(pool.FindMessageTypeByName(name)) for name in _CLASSES}
    enums = {_last(name): _enum(pool, name) for name in _ENUMS}
    methods = {method.path: method for name in SERVICES for method in _methods(pool, name)}
    parts: dict[str, Any] = {**classes, **enums}
    return Wire(pool=pool, services=SERVICES, methods=MappingProxyType(methods), **parts)


def _last(full_name: str) -> str:
    return full_name.rpartition(".")[2]


def _enum(pool: DescriptorPool, full_name: str) -> type[IntEnum]:
    members = {value.name: value.number for value in pool.FindEnumTypeByName(full_name).values}
    make: Any = IntEnum  # the type checker follows only enumerations that are written out
    made: type[IntEnum] = make(_last(full_name), members)
    return made


def _methods(pool: DescriptorPool, service: str) -> list[Method]:
    found = []
    for method in pool.FindServiceByName(service).methods:
        first = method.input_type.fields_by_number.get(1)
        of = first.message_type if first is not None else None
        found.append(
            Method(
                path=f"/{service}/{method.name}",
                service=service,
                name=method.name,
                request=GetMessageClass(method.input_type),
                response=GetMessageClass(method.output_type),
                has_model_spec=of is not None and of.full_name == "tensorflow.serving.ModelSpec",
            )
        )
    return found
