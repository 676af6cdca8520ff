"""TensorFlow Serving's gRPC API (tensorflow/serving, `apis/*.proto`).

Messages pass as they came; only `model_spec` is read, on the wire, and written anew where the
version that answers is not the one that the bytes name.
"""

from collections.abc import Mapping

from gateway.errors import Code, GatewayError, InvalidRequest, UnknownLabel, shown
from gateway.protocols.names import CLASSIC_NAME, MAX_VERSION
from gateway.protocols.tensorflow_serving import message, split_model, version_states
from gateway.protocols.wire import Wire
from gateway.protocols.wire.scan import WireError
from gateway.protocols.wire.spec import read_spec, reaim
from gateway.protocols.wire.tasks import read_tasks_spec, reaim_tasks
from gateway.types import (
    Asked,
    Form,
    Head,
    Headers,
    Limits,
    Message,
    Operation,
    Ref,
    Target,
    View,
    Whole,
)

# Where TF Serving's own contract departs from what an error means elsewhere here.
_CODES: dict[type[GatewayError], Code] = {UnknownLabel: Code.INVALID_ARGUMENT}
PREDICT = "/tensorflow.serving.PredictionService/Predict"
METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
_MULTI = "multi_inference"
# How an operation's messages name their model: in a specification, or in one for each task.
_SPEC = (read_spec, reaim)
_AIMS = {_MULTI: (read_tasks_spec, reaim_tasks)}
_NAMES = {
    PREDICT: "predict",
    "/tensorflow.serving.PredictionService/Classify": "classify",
    "/tensorflow.serving.PredictionService/Regress": "regress",
    "/tensorflow.serving.PredictionService/MultiInference": _MULTI,
    METADATA: "metadata",
    STATUS: "status",
}


class TensorFlowServingGrpc:
    """`types.Front` for TF Serving over gRPC."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def decode(self, operation: Operation, ref: Ref | None, body: bytes, limits: Limits) -> Asked:
        """Read the model specification. Raises `InvalidRequest`."""
        read, _ = _AIMS.get(operation.name, _SPEC)
        try:
            spec = read(self._wire, body)
        except WireError as error:
            raise InvalidRequest(f"the message can't be read: {error}") from None
        if not CLASSIC_NAME.fullmatch(spec.name):
            why = f"{shown(spec.name)!r} is not a model's name" if spec.name else "is empty"
            raise InvalidRequest(f"model_spec.name {why}", param="model_spec.name")
        if spec.version is not None and not 0 <= spec.version <= MAX_VERSION:
            raise InvalidRequest("model_spec.version is negative", param="model_spec.version")
        return Asked(Ref(spec.name, spec.version, spec.label or None), body)

    def encode(
        self, operation: Operation, asked: Asked, target: Target, headers: Headers
    ) -> Message:
        """Aim at the version's number; a question about a whole model names none."""
        number = target.version.number if target.named or not operation.about else None
        _, aim = _AIMS.get(operation.name, _SPEC)
        body = aim(self._wire, asked.body, name=target.version.served_name, version=number)
        return Message(Form.TFS_GRPC, operation.method, operation.path, headers, body)

    def error(self, error: GatewayError) -> Whole:
        """Write a status: a code and a message."""
        code = _CODES.get(type(error), error.code)
        return Whole(Head(code, (), detail=message(error)), b"")

    def cut(self, error: GatewayError) -> bytes:
        """Nothing: a gRPC answer ends with a status anyway."""
        return b""

    def operations(self) -> Mapping[str, Operation]:
        """Return the methods that are served, by their full path."""
        return {path: self._operation(path, name) for path, name in _NAMES.items()}

    def unknown(self, path: str) -> Operation:
        """Return an operation for errors about a method that is not served."""
        return Operation("unknown", "tensorflow_serving", Form.TFS_GRPC, self, "grpc", path)

    def _operation(self, path: str, name: str) -> Operation:
        about = name == "status"
        return Operation(
            name,
            "tensorflow_serving",
            Form.TFS_GRPC,
            self,
            "grpc",
            path,
            about=about,
            local=self._model_status if about else None,
        )

    def _model_status(self, asked: Asked, view: View) -> Whole | None:
        model = split_model(asked, view)
        if model is None:
            return None
        answer = self._wire.GetModelStatusResponse()
        for number, state, code, why in version_states(model):
            status = answer.model_version_status.add()
            status.version = number
            status.state = self._wire.State[state]
            status.status.error_code = code
            status.status.error_message = why
        return Whole(Head(Code.OK), answer.SerializeToString())
