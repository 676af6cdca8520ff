"""TensorFlow Serving's gRPC API (tensorflow/serving, `apis/*.proto`).

Messages pass as they came; only `model_spec` is read, on the wire, and written anew where the
version that answers is not the one that the bytes name.
"""

from collections.abc import Mapping

from gateway.errors import Code, GatewayError, InvalidRequest, UnknownLabel, shown
from gateway.protocols.model_config import read_reload
from gateway.protocols.names import CLASSIC_NAME, MAX_VERSION
from gateway.protocols.tensorflow_serving import message, split_model, version_states
from gateway.protocols.wire import Wire
from gateway.protocols.wire.scan import WireError, single
from gateway.protocols.wire.spec import MODEL_SPEC, read_spec, reaim
from gateway.protocols.wire.tasks import TasksError, read_tasks_spec, reaim_tasks
from gateway.types import (
    Asked,
    Form,
    Head,
    Headers,
    Limits,
    Message,
    Operation,
    Ref,
    Request,
    Target,
    View,
    Whole,
)

# Where TF Serving's own contract departs from what an error means elsewhere here.
_CODES: dict[type[GatewayError], Code] = {UnknownLabel: Code.INVALID_ARGUMENT}
PREDICT = "/tensorflow.serving.PredictionService/Predict"
CLASSIFY = "/tensorflow.serving.PredictionService/Classify"
REGRESS = "/tensorflow.serving.PredictionService/Regress"
METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
_MULTI = "multi_inference"
_RELOAD = "reload"
# How an operation's messages name their model: in a specification, or in one for each task.
_SPEC = (read_spec, reaim)
_AIMS = {_MULTI: (read_tasks_spec, reaim_tasks)}
_NAMES = {
    PREDICT: "predict",
    CLASSIFY: "classify",
    REGRESS: "regress",
    "/tensorflow.serving.PredictionService/MultiInference": _MULTI,
    METADATA: "metadata",
    STATUS: "status",
    RELOAD: _RELOAD,
}


class TensorFlowServingGrpc:
    """`types.Front` for TF Serving over gRPC. `about`: for questions about a model's state."""

    def __init__(self, wire: Wire, *, about: bool = False) -> None:
        self._wire = wire
        self._about = about

    def decode(self, request: Request, body: bytes, limits: Limits) -> Asked:
        """Read the model specification, or what a reload names. Raises `InvalidRequest`."""
        if request.operation.control:
            return self._decode_reload(body)
        read, _ = _AIMS.get(request.operation.name, _SPEC)
        try:
            spec = read(self._wire, body)
        except WireError as error:
            raise InvalidRequest(f"the message can't be read: {error}") from None
        except TasksError as error:
            raise InvalidRequest(str(error), param="tasks") from None
        if not spec.name:
            # A task without a specification has an empty one, as TF Serving has it.
            missing = read is read_spec and single(body, MODEL_SPEC) is None
            why = "Missing ModelSpec" if missing else "ModelSpec has no name specified."
            raise InvalidRequest(why, param="model_spec.name")
        if not CLASSIC_NAME.fullmatch(spec.name):
            why = f"{shown(spec.name)!r} is not a model's name"
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
        return Whole(Head(code, (), detail=message(error, "key", about=self._about)), b"")

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
            TensorFlowServingGrpc(self._wire, about=True) if about else self,
            "grpc",
            path,
            about=about,
            local=self._model_status if about else None,
            control=name == _RELOAD,
        )

    def _decode_reload(self, body: bytes) -> Asked:
        listed = read_reload(self._wire, body).config.model_config_list.config
        first, *more = (Ref(model.name) for model in listed)
        return Asked(first, body, more=tuple(more))

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
