"""Request messages to response messages over one loaded version: the calls of PredictionService.

Knows no ports and no manager: the gRPC front and the warm-up share it. Each call takes the
servable, the request and the version that is reported (None: none, as in a warm-up), and raises
ServingError.
"""

from collections.abc import Callable, Mapping
from typing import Any

from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
)

from adapters.savedmodel import inference, proto_tensors
from adapters.savedmodel.signature import DEFAULT_SIGNATURE, Servable, Signature
from adapters.savedmodel.status import Code, ServingError, invalid_argument

METADATA_FIELD = "signature_def"


def predict(servable: Servable, request: Any, version: int | None, max_fill: int) -> Any:
    """A PredictResponse; see `proto_tensors.read` for `max_fill`."""
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    signature = servable.signatures.get(name)
    if signature is None:
        raise ServingError(
            Code.FAILED_PRECONDITION,
            f'Serving signature key "{name[:256]}" not found. This model has: '
            f"{', '.join(sorted(servable.signatures))}",
        )
    inference.check_predict(servable, signature)
    signature.check_names(frozenset(request.inputs))
    inputs = {
        alias: proto_tensors.read(alias, proto, max_fill) for alias, proto in request.inputs.items()
    }
    wanted = _filtered(signature, request.output_filter)
    outputs = servable.run(signature, inputs)
    response = predict_pb2.PredictResponse()
    _fill_spec(response.model_spec, request.model_spec, version)
    for alias in wanted:
        response.outputs[alias].CopyFrom(proto_tensors.write(outputs[alias]))
    return response


def classify(servable: Servable, request: Any, version: int | None) -> Any:
    """A ClassificationResponse."""
    name = request.model_spec.signature_name
    answer = inference.classify(servable, name, _examples(request.input))
    response = classification_pb2.ClassificationResponse()
    _fill_spec(response.model_spec, request.model_spec, version)
    _fill_classes(response.result, answer)
    return response


def regress(servable: Servable, request: Any, version: int | None) -> Any:
    """A RegressionResponse."""
    name = request.model_spec.signature_name
    answer = inference.regress(servable, name, _examples(request.input))
    response = regression_pb2.RegressionResponse()
    _fill_spec(response.model_spec, request.model_spec, version)
    _fill_values(response.result, answer)
    return response


def multi_inference(servable: Servable, request: Any, version: int | None) -> Any:
    """A MultiInferenceResponse."""
    tasks = [
        inference.Task(task.model_spec.name, task.model_spec.signature_name, task.method_name)
        for task in request.tasks
    ]
    answers = inference.multi_inference(servable, tasks, _examples(request.input))
    response = inference_pb2.MultiInferenceResponse()
    for task, answer in zip(request.tasks, answers, strict=True):
        result = response.results.add()
        _fill_spec(result.model_spec, task.model_spec, version)
        field, fill = _RESULTS[task.method_name]
        fill(getattr(result, field), answer)
    return response


def metadata(servable: Servable, model: str, version: int) -> Any:
    """A GetModelMetadataResponse."""
    definitions = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in servable.signature_defs.items():
        definitions.signature_def[name].CopyFrom(definition)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = model
    response.model_spec.version.value = version
    response.metadata[METADATA_FIELD].Pack(definitions)
    return response


def _examples(message: Any) -> list[bytes]:
    """Serialized tf.Examples; a context goes in front, where protobuf merges it into each."""
    kind = message.WhichOneof("kind")
    if kind is None:
        return []
    examples = getattr(message, kind)
    context = b""
    if kind == "example_list_with_context":
        context = examples.context.SerializeToString()
    return [context + example.SerializeToString() for example in examples.examples]


def _fill_spec(spec: Any, asked: Any, version: int | None) -> None:
    spec.name = asked.name
    spec.signature_name = asked.signature_name or DEFAULT_SIGNATURE
    if version is not None:
        spec.version.value = version


def _fill_classes(result: Any, answer: inference.Classes) -> None:
    arrays = [array for array in (answer.labels, answer.scores) if array is not None]
    for index in range(len(arrays[0])):
        classes = result.classifications.add().classes
        for column in range(arrays[0].shape[1]):
            entry = classes.add()
            if answer.labels is not None:
                entry.label = _text(answer.labels[index, column])
            if answer.scores is not None:
                entry.score = answer.scores[index, column]


def _text(label: bytes) -> str:
    try:
        return label.decode()
    except UnicodeDecodeError:
        raise invalid_argument(
            f"the class label {label[:64]!r} is no UTF-8 text, which a Class must hold"
        ) from None


def _fill_values(result: Any, answer: Any) -> None:
    for value in answer.tolist():
        result.regressions.add(value=value)


def _filtered(signature: Signature, output_filter: Any) -> list[str]:
    seen: dict[str, None] = {}
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias[:256]} Outputs expected to be "
                f"in the set {{{','.join(signature.outputs)}}}."
            )
        if alias in seen:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
        seen[alias] = None
    return list(seen or signature.outputs)


_RESULTS: Mapping[str, tuple[str, Callable[[Any, Any], None]]] = {
    inference.CLASSIFY: ("classification_result", _fill_classes),
    inference.REGRESS: ("regression_result", _fill_values),
}
