"""Arrays to TensorProto and back, for the gRPC front.

Requests may carry raw bytes (`tensor_content`) or typed fields; TensorFlow's own reader takes both.
Replies use the typed fields, as TensorFlow Serving does by default: clients read
`response.outputs["y"].float_val`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from adapters.savedmodel.status import ServingError, invalid_argument

Array = Any


def read(alias: str, proto: Any, max_fill: int) -> Array:
    """A TensorProto as an array; strings as an object array of bytes.

    Args:
        alias: the input's name, for messages.
        proto: the TensorProto as received.
        max_fill: the most bytes that a tensor may take which is longer than what was sent for it:
            one value may stand for the whole tensor, so a few bytes could otherwise claim any
            amount of memory.

    Raises:
        ServingError: INVALID_ARGUMENT for a shape or a value count that does not fit, or an unknown
            dtype.
    """
    sizes = [dim.size for dim in proto.tensor_shape.dim]
    # unknown_rank is not looked at, as in TensorFlow: without sizes the tensor is a scalar then.
    if any(size < 0 for size in sizes):
        raise _error(alias)
    try:
        dtype = tf.dtypes.as_dtype(proto.dtype)
        width = dtype.size or 1
    except (TypeError, KeyError):
        raise _error(alias) from None
    if math.prod(sizes) * width > max(max_fill, proto.ByteSize() * width):
        raise invalid_argument(
            f'input "{alias}": shape {sizes} is larger than the {proto.ByteSize()} bytes sent for '
            "it; send all values"
        )
    try:
        array = _values(proto, dtype)
    except (ValueError, TypeError, OverflowError, tf.errors.InvalidArgumentError):
        raise _error(alias) from None
    return _object_bytes(array) if dtype == tf.string else array


def _error(alias: str) -> ServingError:
    """TensorFlow Serving's words for a tensor whose shape, dtype and values don't agree."""
    return invalid_argument(f"tensor parsing error: {alias}")


def _values(proto: Any, dtype: Any) -> Array:
    try:
        return tf.make_ndarray(proto)
    except ValueError:
        # TensorFlow's own reader is the judge of the odd cases, such as more values than the shape
        # holds: it drops them. It is slower, by an operation and a copy.
        value = tf.io.parse_tensor(proto.SerializeToString(), dtype).numpy()
        return np.array(value, dtype=object) if dtype == tf.string else np.asarray(value)


def write(array: Array) -> Any:
    """An array as a TensorProto with typed fields.

    Raises:
        ServingError: INVALID_ARGUMENT for a dtype that no field carries.
    """
    name = "string" if array.dtype == object else array.dtype.name
    field = _FIELDS.get(name)
    if field is None:
        raise invalid_argument(f"an output of type {name} can't be sent")
    proto = tensor_pb2.TensorProto(dtype=tf.dtypes.as_dtype(name).as_datatype_enum)
    proto.tensor_shape.SetInParent()  # there even for a scalar
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    target, values = field
    getattr(proto, target).extend(values(array.ravel()))
    return proto


def _object_bytes(array: Array) -> Array:
    # make_ndarray may give a fixed-width type for one repeated string; the session wants objects.
    return array if array.dtype == object else array.astype(object)


def _items(array: Array) -> Any:
    return array.tolist()


def _bits(array: Array) -> Any:
    return array.view(np.uint16).tolist()


def _pairs(real: str) -> Callable[[Array], Any]:
    return lambda array: array.view(real).tolist()


_Field = tuple[str, Callable[[Array], Any]]
_FIELDS: Mapping[str, _Field] = {
    "float32": ("float_val", _items),
    "float64": ("double_val", _items),
    **dict.fromkeys(("int8", "int16", "int32", "uint8", "uint16"), ("int_val", _items)),
    "int64": ("int64_val", _items),
    "uint32": ("uint32_val", _items),
    "uint64": ("uint64_val", _items),
    "bool": ("bool_val", _items),
    "string": ("string_val", _items),
    "float16": ("half_val", _bits),
    "bfloat16": ("half_val", _bits),
    "complex64": ("scomplex_val", _pairs("float32")),
    "complex128": ("dcomplex_val", _pairs("float64")),
}
