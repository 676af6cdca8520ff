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
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from adapters.savedmodel import model_config, proto_calls
from adapters.savedmodel.grpc_front import abort
from adapters.savedmodel.manager import Manager
from adapters.savedmodel.signature import Servable
from adapters.savedmodel.status import ServingError, invalid_argument
from adapters.savedmodel.watch import Handle

Handler = Callable[[Any, Any], Awaitable[Any]]
Call = Callable[[Servable, Any, int], Any]

PREDICTION = "/tensorflow.serving.PredictionService/"
MODEL = "/tensorflow.serving.ModelService/"


def handlers(manager: Manager, max_fill: int) -> Mapping[str, Any]:
    """The method handlers by their full path.

    Args:
        manager: lends the models.
        max_fill: the most bytes that one repeated value may be blown up to; see
            `proto_tensors.read`.
    """
    service = _Service(manager, max_fill)
    table: Mapping[str, tuple[Callable[[Any], Awaitable[Any]], Any]] = {
        PREDICTION + "Predict": (service.predict, predict_pb2.PredictRequest),
        PREDICTION + "Classify": (service.classify, classification_pb2.ClassificationRequest),
        PREDICTION + "Regress": (service.regress, regression_pb2.RegressionRequest),
        PREDICTION + "MultiInference": (
            service.multi_inference,
            inference_pb2.MultiInferenceRequest,
        ),
        PREDICTION + "GetModelMetadata": (
            service.metadata,
            get_model_metadata_pb2.GetModelMetadataRequest,
        ),
        MODEL + "GetModelStatus": (service.status, get_model_status_pb2.GetModelStatusRequest),
        MODEL + "HandleReloadConfigRequest": (
            service.reload,
            model_management_pb2.ReloadConfigRequest,
        ),
    }
    return {
        path: _unary(_guarded(method), message.FromString)
        for path, (method, message) in table.items()
    }


class _Service:
    def __init__(self, manager: Manager, max_fill: int) -> None:
        self._manager = manager
        self._max_fill = max_fill

    async def predict(self, request: Any) -> Any:
        fill = self._max_fill
        return await self._run(
            request,
            _spec(request),
            lambda servable, message, version: proto_calls.predict(
                servable, message, version, fill
            ),
        )

    async def classify(self, request: Any) -> Any:
        return await self._run(request, _spec(request), proto_calls.classify)

    async def regress(self, request: Any) -> Any:
        return await self._run(request, _spec(request), proto_calls.regress)

    async def multi_inference(self, request: Any) -> Any:
        # The first task says which version runs all of them.
        first = request.tasks[0] if request.tasks else inference_pb2.InferenceTask()
        return await self._run(request, first.model_spec, proto_calls.multi_inference)

    async def metadata(self, request: Any) -> Any:
        spec = _spec(request)
        if not request.metadata_field:
            raise invalid_argument(
                "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for field in request.metadata_field:
            if field != proto_calls.METADATA_FIELD:
                raise invalid_argument(f"Metadata field {field[:256]} is not supported")
        handle = self._acquire(spec)
        try:
            return proto_calls.metadata(handle.servable, handle.model, handle.version)
        finally:
            handle.release()

    async def status(self, request: Any) -> Any:
        spec = _spec(request)
        # A label is not looked at here: all versions are told, as by TensorFlow Serving.
        version = spec.version.value if spec.HasField("version") else None
        response = get_model_status_pb2.GetModelStatusResponse()
        for number, row in self._manager.states(spec.name, version).items():
            entry = response.model_version_status.add(version=number, state=int(row.state))
            entry.status.error_code = int(row.code)
            entry.status.error_message = row.message
        return response

    async def reload(self, request: Any) -> Any:
        self._manager.require_ready()
        sources = model_config.from_message(request.config, self._manager.models)
        await self._manager.reload(sources)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.error_code = 0
        for name in dict.fromkeys(request.metric_names):
            # This server counts nothing, so no counter grew.
            response.metric.add(name=name, int64_value_increase=0)
        return response

    def _acquire(self, spec: Any) -> Handle:
        choice = spec.WhichOneof("version_choice")
        return self._manager.acquire(
            spec.name,
            spec.version.value if choice == "version" else None,
            spec.version_label if choice == "version_label" else None,
        )

    async def _run(self, request: Any, spec: Any, call: Call) -> Any:
        handle = self._acquire(spec)
        return await self._manager.run(
            handle, lambda: call(handle.servable, request, handle.version)
        )


def _spec(request: Any) -> Any:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    return request.model_spec


def _guarded(method: Callable[[Any], Awaitable[Any]]) -> Handler:
    async def call(request: Any, context: Any) -> Any:
        try:
            return await method(request)
        except ServingError as error:
            return await abort(context, error)

    return call


def _unary(method: Handler, read: Callable[[bytes], Any]) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        method,
        request_deserializer=read,
        response_serializer=lambda message: message.SerializeToString(),
    )
