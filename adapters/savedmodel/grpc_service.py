"""The gRPC front: PredictionService and ModelService with the official messages.

grpc.aio on the one event loop, rather than a pool of threads, so that state tables and drains have
a single owner. The port is open before TensorFlow is imported: until `Front.install` every method
answers UNAVAILABLE, unparsed. The official stubs import TensorFlow, so this room is imported after
the sockets are open; `Front` lives in `grpc_front` for that reason.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

from adapters.savedmodel import proto_tensors
from adapters.savedmodel.grpc_front import abort
from adapters.savedmodel.manager import Handle, Manager
from adapters.savedmodel.signature import DEFAULT_SIGNATURE, Signature
from adapters.savedmodel.status import Code, ServingError, invalid_argument

Handler = Callable[[Any, Any], Awaitable[Any]]

PREDICTION = "/tensorflow.serving.PredictionService/"
MODEL = "/tensorflow.serving.ModelService/"
_METADATA_FIELD = "signature_def"
_NOT_SERVED = (
    PREDICTION + "Classify",
    PREDICTION + "Regress",
    PREDICTION + "MultiInference",
    MODEL + "HandleReloadConfigRequest",
)


def handlers(manager: Manager, max_fill: int) -> Mapping[str, Any]:
    """The method handlers by their full path.

    Args:
        manager: lends the models.
        max_fill: the most bytes that one repeated value may be blown up to; see
            `proto_tensors.read`.
    """
    service = _Service(manager, max_fill)
    table = {
        PREDICTION + "Predict": (service.predict, predict_pb2.PredictRequest),
        PREDICTION + "GetModelMetadata": (
            service.metadata,
            get_model_metadata_pb2.GetModelMetadataRequest,
        ),
        MODEL + "GetModelStatus": (service.status, get_model_status_pb2.GetModelStatusRequest),
    }
    served = {
        path: _unary(_guarded(method), message.FromString)
        for path, (method, message) in table.items()
    }
    return served | {path: _unary(_unserved(path), bytes) for path in _NOT_SERVED}


class _Service:
    def __init__(self, manager: Manager, max_fill: int) -> None:
        self._manager = manager
        self._max_fill = max_fill

    async def predict(self, request: Any) -> Any:
        handle = self._acquire(request)
        return await self._manager.run(handle, lambda: _predict(handle, request, self._max_fill))

    async def metadata(self, request: Any) -> Any:
        _require_spec(request)
        if not request.metadata_field:
            raise invalid_argument(
                "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for field in request.metadata_field:
            if field != _METADATA_FIELD:
                raise invalid_argument(
                    f"Metadata field {field[:256]} is not supported; ask for {_METADATA_FIELD}"
                )
        handle = self._acquire(request)
        try:
            return _metadata(handle)
        finally:
            handle.release()

    async def status(self, request: Any) -> Any:
        _require_spec(request)
        spec = request.model_spec
        if spec.WhichOneof("version_choice") == "version_label":
            self._manager.refuse_label(spec.name, spec.version_label)
        version = spec.version.value if spec.HasField("version") else None
        response = get_model_status_pb2.GetModelStatusResponse()
        for number, row in self._manager.states(spec.name, version).items():
            entry = response.model_version_status.add(version=number, state=int(row.state))
            entry.status.error_code = int(row.code)
            entry.status.error_message = row.message
        return response

    def _acquire(self, request: Any) -> Handle:
        _require_spec(request)
        spec = request.model_spec
        choice = spec.WhichOneof("version_choice")
        return self._manager.acquire(
            spec.name,
            spec.version.value if choice == "version" else None,
            spec.version_label if choice == "version_label" else None,
        )


def _require_spec(request: Any) -> None:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")


def _predict(handle: Handle, request: Any, max_fill: int) -> Any:
    """Runs in a prediction thread."""
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    signature = handle.servable.signatures.get(name)
    if signature is None:
        raise ServingError(
            Code.FAILED_PRECONDITION,
            f'Serving signature key "{name[:256]}" not found. This model has: '
            f"{', '.join(sorted(handle.servable.signatures))}",
        )
    signature.check_names(frozenset(request.inputs))
    wanted = _filtered(signature, request.output_filter)
    inputs = {
        alias: proto_tensors.read(alias, proto, max_fill) for alias, proto in request.inputs.items()
    }
    outputs = handle.servable.run(signature, inputs)
    response = predict_pb2.PredictResponse()
    _fill_spec(response.model_spec, handle)
    response.model_spec.signature_name = name
    for alias in wanted:
        response.outputs[alias].CopyFrom(proto_tensors.write(outputs[alias]))
    return response


def _filtered(signature: Signature, output_filter: Any) -> list[str]:
    seen: dict[str, None] = {}
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias[:256]} Outputs expected to be "
                "in the set "
                f"{{{','.join(signature.outputs)}}}."
            )
        if alias in seen:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
        seen[alias] = None
    return list(seen or signature.outputs)


def _metadata(handle: Handle) -> Any:
    definitions = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in handle.servable.signature_defs.items():
        definitions.signature_def[name].CopyFrom(definition)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    _fill_spec(response.model_spec, handle)
    response.metadata[_METADATA_FIELD].Pack(definitions)
    return response


def _fill_spec(spec: Any, handle: Handle) -> None:
    spec.name = handle.model
    spec.version.value = handle.version


def _guarded(method: Callable[[Any], Awaitable[Any]]) -> Handler:
    async def call(request: Any, context: Any) -> Any:
        try:
            return await method(request)
        except ServingError as error:
            return await abort(context, error)

    return call


def _unserved(path: str) -> Handler:
    error = ServingError(
        Code.UNIMPLEMENTED,
        f"{path.rpartition('/')[2]} is not served by this stand-in for development; use Predict, "
        "GetModelMetadata "
        "or GetModelStatus, or TensorFlow Serving itself",
    )

    async def call(_request: Any, context: Any) -> Any:
        return await abort(context, error)

    return call


def _unary(method: Handler, read: Callable[[bytes], Any]) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        method,
        request_deserializer=read,
        response_serializer=lambda message: message.SerializeToString(),
    )
