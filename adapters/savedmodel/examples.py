"""JSON of `:classify` and `:regress` to serialized tf.Examples.

Belongs here: TensorFlow Serving's typing rules and the few wire fields of tf.Example. Pure numpy:
the REST front must not need TensorFlow, and the tests hold the bytes against TensorFlow's own
reader. Rules: a whole number or a truth value makes an int64_list, any other number a float_list, a
string or a base64 object a bytes_list; all values of a feature are of one kind, the first one's; a
value that is no list counts as a list of one. A context is put in front of each example's bytes,
where protobuf merges it: the example's own features win.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapters.savedmodel.base64_strings import decode, is_base64
from adapters.savedmodel.json_reader import excerpt, signature_name, type_name
from adapters.savedmodel.status import ServingError, invalid_argument

_EXAMPLES, _CONTEXT = "examples", "context"
_DELIMITED = 2  # protobuf's wire type for strings, messages and packed lists
_INT64_MIN, _INT64_MAX, _UINT64_MAX = -(2**63), 2**63 - 1, 2**64 - 1


@dataclass(frozen=True, slots=True)
class ExamplesBody:
    """A decoded classify or regress request: the signature's name, and serialized tf.Examples."""

    signature: str
    examples: list[bytes]


def read_examples(document: Mapping[str, Any]) -> ExamplesBody:
    """Turns a parsed body into examples.

    Raises:
        ServingError: INVALID_ARGUMENT with the feature that is wrong.
    """
    name = signature_name(document)
    context = _example(document[_CONTEXT]) if _CONTEXT in document else b""
    if _EXAMPLES not in document:
        # The words speak of classify for regress too, as TensorFlow Serving's do.
        raise _format_error(
            document, f"When method is classify, key '{_EXAMPLES}' is expected and was not found"
        )
    examples = document[_EXAMPLES]
    if type(examples) is not list:
        raise _format_error(document, f"Expecting '{_EXAMPLES}' value to be an list/array")
    if not examples:
        raise _format_error(document, f"'{_EXAMPLES}' value is an empty array")
    return ExamplesBody(name, [context + _example(example) for example in examples])


def _example(value: Any) -> bytes:
    """Example{features{feature{key: Feature}}}, in wire form."""
    if type(value) is not dict:
        raise invalid_argument(f"Example must be JSON object but got JSON {type_name(value)}")
    entries = [
        _field(1, _field(1, _utf8(name)) + _field(2, _feature(name, content)))
        for name, content in value.items()
    ]
    return _field(1, b"".join(entries))


def _feature(name: str, content: Any) -> bytes:
    values = content if type(content) is list else [content]
    if not values:
        return b""
    kinds = [_kind(name, value) for value in values]
    if kinds.count(kinds[0]) != len(kinds):
        raise invalid_argument(
            f"Unexpected element type in feature: {name} expecting type: {kinds[0].label}"
        )
    return _field(kinds[0].number, kinds[0].write(values))


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of feature: its field in Feature, and how its list is written."""

    label: str
    number: int
    write: Callable[[Sequence[Any]], bytes]


def _kind(name: str, value: Any) -> _Kind:
    kind = _KINDS.get(type(value))
    if kind is None or (type(value) is dict and not is_base64(value)):
        raise invalid_argument(
            f"Feature: {name} has element with unexpected JSON type: {type_name(value)}"
        )
    if type(value) is int and not _INT64_MIN <= value <= _INT64_MAX:
        if _INT64_MAX < value <= _UINT64_MAX:
            raise invalid_argument(
                f"Feature: {name} has uint64_t element. Only int64_t is supported."
            )
        return _FLOATS  # a number of more than 64 bits is read as a double there
    return kind


def _write_bytes(values: Sequence[Any]) -> bytes:
    return b"".join(
        _field(1, _utf8(value) if type(value) is str else decode(value)) for value in values
    )


def _write_floats(values: Sequence[Any]) -> bytes:
    # A double beyond float32's range becomes infinite, as it does for a tensor.
    with np.errstate(over="ignore"):
        return _field(1, np.array([float(value) for value in values], dtype="<f4").tobytes())


def _write_integers(values: Sequence[Any]) -> bytes:
    return _field(1, b"".join(_varint(int(value) & _UINT64_MAX) for value in values))


def _field(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | _DELIMITED,)) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """A protobuf varint: seven bits a byte, lowest first, the top bit on all but the last."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise invalid_argument(f"JSON Value: {excerpt(text)} is no Unicode text") from None


def _format_error(document: Mapping[str, Any], text: str) -> ServingError:
    return invalid_argument(f"JSON Value: {excerpt(document)} {text}")


_BYTES = _Kind("bytes", 1, _write_bytes)
_FLOATS = _Kind("float", 2, _write_floats)
_INTEGERS = _Kind("int64", 3, _write_integers)
_KINDS: Mapping[type, _Kind] = {
    bool: _INTEGERS,
    int: _INTEGERS,
    float: _FLOATS,
    str: _BYTES,
    dict: _BYTES,
}
