"""tf.Examples in the JSON of `:classify` and `:regress` ⇄ the `Input` of their gRPC messages.

The message is the common tongue here, as it is inside TF Serving's own REST front. Rules and words
are those of its `util/json_tensor.cc`: a whole number or a bool makes an int64 list, any other
number a float list, a string or a base64 object a bytes list; all values of a feature are of one
kind; a value that is no list counts as a list of one; an empty list makes a feature of no kind.
What JSON can't say: the kind of a feature without values, which goes out as `[]`.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

from gateway.errors import GatewayError, InvalidRequest, shown
from gateway.protocols.tensors import values
from gateway.protocols.tensors.document import Document
from gateway.protocols.tensors.floats import raws
from gateway.protocols.tensors.json_write import encode
from gateway.protocols.tensors.nesting import MAX_LISTS
from gateway.protocols.tensors.types import DEFAULT_SIGNATURE, dtype_of

if TYPE_CHECKING:
    from gateway.protocols.wire import messages

_SIGNATURE, _EXAMPLES, _CONTEXT = "signature_name", "examples", "context"
_STRING = dtype_of(7)
_INT64_MIN, _INT64_MAX, _UINT64_MAX = -(2**63), 2**63 - 1, 2**64 - 1
_TYPE_NAMES: Mapping[type, str] = {dict: "Object", list: "Array", str: "String", type(None): "Null"}


def read_examples(body: bytes, into: messages.Input) -> str:
    """Fill an empty `Input` from a request's body; returns the signature that it names.

    Raises `InvalidRequest` that names the feature.
    """
    document = Document(body)
    members = document.members
    signature = members.get(_SIGNATURE, "")
    if type(signature) is not str:
        raise InvalidRequest("'signature_name' key must be a string value.", param=_SIGNATURE)
    examples = _rows(members)
    rows = examples if _CONTEXT not in members else [members[_CONTEXT], *examples]
    odd = [row for row in rows if type(row) is not dict]
    if odd:
        raise InvalidRequest(f"Example must be JSON object but got JSON {_type_name(odd[0])}")
    objects = sum(type(value) is dict for value in _leaves(rows))  # in base64, of one key each
    document.check_no_repeats(len(members) + sum(map(len, rows)) + objects)
    if _CONTEXT in members:
        into.example_list_with_context.SetInParent()
        _read_example(members[_CONTEXT], into.example_list_with_context.context)
    add = _listed(into).add
    for example in examples:
        _read_example(example, add())
    return signature


def write_examples(given: messages.Input, signature: str) -> bytes:
    """Write the body of a REST request.

    Raises `InvalidRequest` for no examples, and for more than a body may hold.
    """
    examples = _listed(given)
    context = given.example_list_with_context.context
    if not examples:
        raise InvalidRequest("Input is empty.")
    count = len(examples)
    if count <= MAX_LISTS:
        count += sum(len(example.features.feature) for example in (context, *examples))
    if count > MAX_LISTS:
        raise InvalidRequest(
            f"more than {MAX_LISTS} examples and features together; send fewer at a time"
        )
    members: dict[str, Any] = {_SIGNATURE: signature or DEFAULT_SIGNATURE}
    if given.WhichOneof("kind") == "example_list_with_context" and context.features.feature:
        members[_CONTEXT] = _write_example(context)
    members[_EXAMPLES] = [_write_example(example) for example in examples]
    return encode(members)


def _listed(given: messages.Input) -> Any:
    with_context = given.WhichOneof("kind") == "example_list_with_context"
    return (given.example_list_with_context if with_context else given.example_list).examples


def _rows(members: Mapping[str, Any]) -> list[Any]:
    if _EXAMPLES not in members:
        # The words speak of classify for regress too, as TF Serving's do.
        why = f"When method is classify, key '{_EXAMPLES}' is expected and was not found"
        raise InvalidRequest(why, param=_EXAMPLES)
    examples = members[_EXAMPLES]
    if type(examples) is not list:
        raise InvalidRequest(f"Expecting '{_EXAMPLES}' value to be an list/array", param=_EXAMPLES)
    if not examples:
        raise InvalidRequest(f"'{_EXAMPLES}' value is an empty array", param=_EXAMPLES)
    return examples


def _leaves(rows: Sequence[dict[str, Any]]) -> Iterable[Any]:
    contents = chain.from_iterable(map(dict.values, rows))
    return chain.from_iterable(item if type(item) is list else (item,) for item in contents)


def _read_example(members: dict[str, Any], into: messages.Example) -> None:
    into.features.SetInParent()
    features = into.features.feature
    for name, content in members.items():
        listed = content if type(content) is list else [content]
        try:
            feature = features[name]
        except UnicodeEncodeError:
            raise InvalidRequest("the name of a feature holds half of a surrogate pair") from None
        if listed:
            kind = _KINDS.get(frozenset(map(type, listed)), _read_oddly)
            kind(name, listed, feature)


def _read_bools(name: str, listed: list[Any], into: messages.Feature) -> None:
    _read_integers(name, list(map(int, listed)), into)


def _read_integers(name: str, listed: list[Any], into: messages.Feature) -> None:
    try:
        into.int64_list.value.extend(listed)
    except ValueError:
        into.ClearField("int64_list")
        _read_oddly(name, listed, into)


def _read_floats(name: str, listed: list[Any], into: messages.Feature) -> None:
    into.float_list.value.extend(listed)  # beyond float32 a number becomes infinite


def _read_strings(name: str, listed: list[Any], into: messages.Feature) -> None:
    if any(type(value) is dict and not values.is_base64(value) for value in listed):
        raise _unexpected(name, "Object")
    try:
        data = values.from_json(_STRING, listed, values.Hints())
    except values.Misfit as misfit:
        why = f"Feature: {shown(name)}: the value at [{misfit.index}] {misfit.why}"
        if type(listed[misfit.index]) is dict:
            why = f"Unable to base64 decode (feature: {shown(name)})"
        raise InvalidRequest(why, param=name) from None
    into.bytes_list.value.extend(cast(tuple[bytes, ...], data))


def _read_oddly(name: str, listed: list[Any], into: messages.Feature) -> None:
    """Read value by value what is not plainly of one kind; nearly always to say why it can't be."""
    kinds = {_kind(name, value) for value in listed}
    first = _kind(name, listed[0])
    if len(kinds) > 1:
        raise InvalidRequest(
            f"Unexpected element type in feature: {shown(name)} expecting type: {first}", param=name
        )
    into.float_list.value.extend(_as_double(name, value) for value in listed)


def _kind(name: str, value: Any) -> str:
    if type(value) is int and not _INT64_MIN <= value <= _INT64_MAX:
        if 0 < value <= _UINT64_MAX:
            raise InvalidRequest(
                f"Feature: {shown(name)} has uint64_t element. Only int64_t is supported.",
                param=name,
            )
        return "float"  # a number of more than 64 bits is read as a double there
    kind = _LABELS.get(type(value))
    if kind is None:
        raise _unexpected(name, _type_name(value))
    return kind


def _as_double(name: str, value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise InvalidRequest(
            f"Feature: {shown(name)} has a number that no double holds", param=name
        ) from None


def _unexpected(name: str, what: str) -> GatewayError:
    return InvalidRequest(
        f"Feature: {shown(name)} has element with unexpected JSON type: {what}", param=name
    )


def _type_name(value: Any) -> str:
    return str(value) if type(value) is bool else _TYPE_NAMES.get(type(value), "Number")


def _write_example(example: messages.Example) -> dict[str, Sequence[Any]]:
    return {name: _write_feature(feature) for name, feature in example.features.feature.items()}


def _write_feature(feature: messages.Feature) -> Sequence[Any]:
    kind = feature.WhichOneof("kind")
    return _WRITERS[kind](getattr(feature, kind).value) if kind else ()


def _write_floats(listed: Sequence[float]) -> Sequence[Any]:
    numbers = array("f", listed)
    return numbers.tolist() if math.isfinite(sum(numbers)) else raws(numbers)


def _write_strings(listed: Sequence[bytes]) -> Sequence[Any]:
    return values.to_json_exactly(_STRING, tuple(listed))


_Reader = Callable[[str, list[Any], "messages.Feature"], None]
_KINDS: Mapping[frozenset[type], _Reader] = {
    frozenset({int}): _read_integers,
    **{frozenset(types): _read_bools for types in ((bool,), (int, bool))},
    frozenset({float}): _read_floats,
    **{frozenset(types): _read_strings for types in ((str,), (dict,), (str, dict))},
}
_LABELS: Mapping[type, str] = {
    bool: "int64",
    int: "int64",
    float: "float",
    str: "bytes",
    dict: "bytes",
}
_WRITERS: Mapping[str, Callable[[Any], Sequence[Any]]] = {
    "bytes_list": _write_strings,
    "float_list": _write_floats,
    "int64_list": list,
}
