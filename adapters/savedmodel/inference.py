"""Classify, Regress and MultiInference over a loaded version: serialized tf.Examples in, labels,
scores and values out.

Pure numpy. An example is bytes here and is never parsed: the model's own graph does that. Source:
TensorFlow Serving's classifier, regressor and multi_inference; their rules on signatures and on the
shapes of outputs, their codes and texts. Two things to know of it: the method_name of a signature
is looked at only where the server was told so, and the answer's batch must be as long as the list
of examples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapters.savedmodel.signature import DEFAULT_SIGNATURE, Servable, Signature, shape_label
from adapters.savedmodel.status import Code, ServingError, invalid_argument

Array = Any

PREDICT = "tensorflow/serving/predict"
CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
_INPUTS = "inputs"
_CLASSES, _SCORES, _OUTPUTS = "classes", "scores", "outputs"
_DTYPES = {"float32": "FLOAT", "float64": "DOUBLE", "float16": "HALF", "object": "STRING"}


@dataclass(frozen=True, slots=True)
class Classes:
    """An answer to Classify: arrays [examples, classes], None for what the model does not give.

    `labels` holds bytes, `scores` float32.
    """

    labels: Array | None
    scores: Array | None


@dataclass(frozen=True, slots=True)
class Task:
    """One part of a MultiInference request."""

    model: str
    signature: str
    method: str


def check_predict(servable: Servable, signature: Signature) -> None:
    """Refuses (INTERNAL) a signature of another method, where methods are checked."""
    allowed = (PREDICT, CLASSIFY, REGRESS)
    if servable.checks_methods and signature.method not in allowed:
        raise ServingError(
            Code.INTERNAL,
            f"Expected prediction signature method_name to be one of {{{', '.join(allowed)}}}. "
            f"Was: {signature.method}",
        )


def classify(servable: Servable, name: str, examples: Sequence[bytes]) -> Classes:
    """Labels and scores for each example.

    Args:
        servable: the loaded version.
        name: the signature; empty for `serving_default`.
        examples: serialized tf.Examples.

    Raises:
        ServingError: INVALID_ARGUMENT where the signature is not there or not made for Classify, or
            no example was sent; else what the model makes of the examples.
    """
    signature = _named(servable, name)
    check_classify(servable, signature)
    return _classes(_run(servable, signature, examples), len(examples))


def regress(servable: Servable, name: str, examples: Sequence[bytes]) -> Array:
    """One float32 for each example; see `classify`."""
    signature = _named(servable, name)
    check_regress(servable, signature)
    return _values(_run(servable, signature, examples), len(examples))


def multi_inference(
    servable: Servable, tasks: Sequence[Task], examples: Sequence[bytes]
) -> list[Classes | Array]:
    """The tasks' answers in their order, all over the same examples.

    Raises:
        ServingError: as `classify`, and UNIMPLEMENTED for another method. All tasks are checked
            before one runs.
    """
    seen: set[str] = set()
    runs: list[tuple[Signature, Callable[[dict[str, Array], int], Any]]] = []
    for task in tasks:
        if not task.model:
            raise invalid_argument("Found ModelSpec with an empty model name.")
        if task.model != tasks[0].model:
            raise invalid_argument(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            )
        name = task.signature or DEFAULT_SIGNATURE
        if name in seen:
            raise invalid_argument(f"Duplicate evaluation of signature: {name}")
        seen.add(name)
        signature = servable.signatures.get(name)
        if signature is None:
            raise invalid_argument(f"Requested signature not found in model graph: {name}")
        if task.method not in _METHODS:
            raise ServingError(
                Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method}"
            )
        check, answer = _METHODS[task.method]
        check(servable, signature)
        runs.append((signature, answer))
    return [
        answer(_run(servable, signature, examples), len(examples)) for signature, answer in runs
    ]


def check_classify(servable: Servable, signature: Signature) -> None:
    """Refuses a signature that Classify can't use (INVALID_ARGUMENT)."""
    _check_method(servable, signature, "classification", CLASSIFY)
    _check_one_input(signature)
    if len(signature.outputs) not in (1, 2):
        raise invalid_argument(
            f"Expected one or two output Tensors, found {len(signature.outputs)}"
        )
    _check_input_name(servable, signature, "classification")
    if not {_CLASSES, _SCORES}.intersection(signature.outputs):
        raise invalid_argument(
            "Expected classification signature outputs to contain at least one of "
            f'"{_CLASSES}" or "{_SCORES}". Signature was: {_shown(servable, signature)}'
        )


def check_regress(servable: Servable, signature: Signature) -> None:
    """Refuses a signature that Regress can't use (INVALID_ARGUMENT)."""
    _check_method(servable, signature, "regression", REGRESS)
    _check_one_input(signature)
    if len(signature.outputs) != 1:
        raise invalid_argument("Expected one output Tensor.")
    _check_input_name(servable, signature, "regression")
    if _OUTPUTS not in signature.outputs:
        raise invalid_argument(
            f"No regression outputs found in SignatureDef: {_shown(servable, signature)}"
        )


def _named(servable: Servable, name: str) -> Signature:
    signature = servable.signatures.get(name or DEFAULT_SIGNATURE)
    if signature is None:
        raise invalid_argument(
            f"No signature was found with the name: {(name or DEFAULT_SIGNATURE)[:256]}"
        )
    return signature


def _check_method(servable: Servable, signature: Signature, kind: str, method: str) -> None:
    if servable.checks_methods and signature.method != method:
        raise invalid_argument(
            f"Expected {kind} signature method_name to be {method}. Was: {signature.method}"
        )


def _check_one_input(signature: Signature) -> None:
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")


def _check_input_name(servable: Servable, signature: Signature, kind: str) -> None:
    if _INPUTS not in signature.inputs:
        raise invalid_argument(
            f"No {kind} inputs found in SignatureDef: {_shown(servable, signature)}"
        )


def _shown(servable: Servable, signature: Signature) -> str:
    return str(servable.signature_defs.get(signature.name, ""))


def _run(servable: Servable, signature: Signature, examples: Sequence[bytes]) -> dict[str, Array]:
    if not examples:
        raise invalid_argument("Input is empty.")
    # The dtype must be object: numpy's own bytes type would cut trailing zero bytes off.
    array = np.empty(len(examples), dtype=object)
    array[:] = examples
    return servable.run(signature, {_INPUTS: array})


def _classes(outputs: dict[str, Array], count: int) -> Classes:
    labels, scores = outputs.get(_CLASSES), outputs.get(_SCORES)
    for name, array, dtype in ((_CLASSES, labels, "object"), (_SCORES, scores, "float32")):
        if array is not None:
            _check_matrix(name, array, dtype, count)
    if labels is not None and scores is not None and labels.shape[1] != scores.shape[1]:
        raise invalid_argument(
            f"Tensors class and score should match in dim_size(1). "
            f"Got {labels.shape[1]} vs. {scores.shape[1]}"
        )
    return Classes(labels, scores)


def _check_matrix(name: str, array: Array, dtype: str, count: int) -> None:
    if array.ndim != 2:
        raise invalid_argument(
            "Expected Tensor shape: [batch_size num_classes] but got " + shape_label(array.shape)
        )
    if array.dtype.name != dtype:
        raise invalid_argument(
            f"Expected {name} Tensor of DT_{_DTYPES[dtype]}. Got: {_dtype(array)}"
        )
    if array.shape[0] != count:
        raise invalid_argument(
            f"Expected {name} output batch size of {count}. Got: {array.shape[0]}"
        )


def _values(outputs: dict[str, Array], count: int) -> Array:
    array = outputs[_OUTPUTS]
    if not (array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)):
        raise invalid_argument(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            + shape_label(array.shape)
        )
    if array.shape[0] != count:
        raise invalid_argument(
            f"Input batch size did not match output batch size: {count} vs. {array.shape[0]}"
        )
    if array.dtype.name != "float32":
        raise invalid_argument(f"Expected output Tensor of DT_FLOAT.  Got: {_dtype(array)}")
    return array.reshape(count)


def _dtype(array: Array) -> str:
    name = str(array.dtype.name)
    return "DT_" + _DTYPES.get(name, name.upper())


_METHODS = {CLASSIFY: (check_classify, _classes), REGRESS: (check_regress, _values)}
