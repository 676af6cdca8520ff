"""The TensorFlow room: loads a SavedModel, knows its signatures, runs them.

A model is loaded into a session of its own (`tf.compat.v1`), as TensorFlow Serving does: closing
the session frees it, and TensorFlow 1 models work too. With one thread, operations run in the
calling thread, so that predictions of several requests run side by side and small ones pay no
thread switch.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from tensorflow.core.protobuf import config_pb2

from adapters.savedmodel.signature import Servable, Signature, TensorSpec
from adapters.savedmodel.status import Code, ServingError, invalid_argument

_SERVE_TAG = "serve"


class SavedModel:
    """A loaded version: see `Servable`.

    Args:
        session: the session that holds the variables.
        graph_def: the MetaGraphDef it came from.
        check_methods: see `Servable.checks_methods`.
    """

    def __init__(self, session: Any, graph_def: Any, check_methods: bool) -> None:
        self._session = session
        self._check_methods = check_methods
        self._defs = dict(graph_def.signature_def)
        self._signatures = {
            name: _signature(name, definition)
            for name, definition in self._defs.items()
            if _is_runnable(definition)
        }
        self._defaults = {
            name: {
                alias: tf.make_ndarray(value)
                for alias, value in _defaults(self._defs[name]).items()
            }
            for name in self._signatures
        }
        # One call a signature, for all of its outputs: each different set of fetches would stay in
        # the session for good.
        self._calls = {
            name: _callable(session, self._defs[name], signature)
            for name, signature in self._signatures.items()
        }

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """See `Servable`."""
        return self._signatures

    @property
    def signature_defs(self) -> Mapping[str, Any]:
        """See `Servable`."""
        return self._defs

    @property
    def checks_methods(self) -> bool:
        """See `Servable`."""
        return self._check_methods

    def metadata(self) -> dict[str, Any]:
        """See `Servable`."""
        return {
            name: MessageToDict(
                definition,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
            for name, definition in sorted(self._defs.items())
        }

    def run(self, signature: Signature, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See `Servable`."""
        arrays = {**self._defaults[signature.name], **inputs}
        signature.check_names(frozenset(inputs))
        for alias, array in arrays.items():
            signature.check_tensor(alias, _dtype_name(array), array.shape)
        try:
            results = self._calls[signature.name](*[arrays[alias] for alias in signature.inputs])
        except tf.errors.OpError as error:
            raise _from_tensorflow(error) from None
        except (TypeError, ValueError) as error:
            raise invalid_argument(
                f'signature "{signature.name}" refused its inputs: {error}'
            ) from None
        return {
            spec.alias: np.asarray(result, dtype=object if spec.dtype == "string" else None)
            for spec, result in zip(signature.outputs.values(), results, strict=True)
        }

    def close(self) -> None:
        """See `Servable`."""
        self._calls.clear()
        self._session.close()


def load(path: Path, threads: int, check_methods: bool = False) -> Servable:
    """Loads the SavedModel in a version's folder.

    Args:
        path: the folder that holds saved_model.pb.
        threads: TensorFlow threads for one prediction; 1 runs it in the calling thread.
        check_methods: see `Servable.checks_methods`.

    Raises:
        ServingError: whatever TensorFlow makes of a broken model; the code is its own, or INTERNAL.
    """
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=threads,
        inter_op_parallelism_threads=-1 if threads == 1 else threads,
    )
    session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
    try:
        with session.graph.as_default():
            graph_def = tf.compat.v1.saved_model.loader.load(session, [_SERVE_TAG], str(path))
        return SavedModel(session, graph_def, check_methods)
    except tf.errors.OpError as error:
        session.close()
        raise _from_tensorflow(error) from None
    # A damaged file can fail anywhere in TensorFlow's reader; whatever it is becomes the version's
    # status.
    except Exception as error:
        session.close()
        raise ServingError(
            Code.INTERNAL, f"{path} can't be loaded: {type(error).__name__}: {error}"
        ) from error


def version() -> str:
    """TensorFlow's version."""
    return str(tf.__version__)


def _callable(session: Any, definition: Any, signature: Signature) -> Callable[..., list[Any]]:
    """The session's prepared call: arrays in the signature's order in, arrays in its order out.

    Keras uses the same door. `Session.run`, and `make_callable` with it, looks every name up anew:
    229 microseconds a call against 54, for a network of 784-512-256-10 and one row.
    """
    options = config_pb2.CallableOptions(
        feed=[definition.inputs[alias].name for alias in signature.inputs],
        fetch=[definition.outputs[alias].name for alias in signature.outputs],
    )
    call: Callable[..., list[Any]] = session._make_callable_from_options(options)
    return call


def _is_runnable(definition: Any) -> bool:
    """True where all inputs and outputs are plain tensors.

    The initialization entry of a model is none.
    """
    infos = [*definition.inputs.values(), *definition.outputs.values()]
    plain = all(info.WhichOneof("encoding") == "name" and info.dtype for info in infos)
    return plain and len(definition.outputs) > 0


def _signature(name: str, definition: Any) -> Signature:
    return Signature(
        name=name,
        inputs={
            alias: _spec(alias, definition.inputs[alias]) for alias in sorted(definition.inputs)
        },
        outputs={
            alias: _spec(alias, definition.outputs[alias]) for alias in sorted(definition.outputs)
        },
        optional=frozenset(_defaults(definition)),
        method=definition.method_name,
    )


def _defaults(definition: Any) -> Mapping[str, Any]:
    return dict(definition.defaults)


def _spec(alias: str, info: Any) -> TensorSpec:
    shape = info.tensor_shape
    return TensorSpec(
        alias=alias,
        dtype=str(tf.dtypes.as_dtype(info.dtype).base_dtype.name),
        shape=None if shape.unknown_rank else tuple(dim.size for dim in shape.dim),
        feed=info.name,
    )


def _dtype_name(array: Any) -> str:
    return "string" if array.dtype == object else str(array.dtype.name)


def _from_tensorflow(error: Any) -> ServingError:
    """TensorFlow's codes are the canonical ones.

    Its messages may carry pages of traces, of which two lines do.
    """
    lines = str(error.message).splitlines()[:2]
    return ServingError(Code(error.error_code), " ".join(line.strip() for line in lines))
