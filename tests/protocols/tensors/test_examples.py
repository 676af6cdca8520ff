"""Classify and regress between the two forms: tf.Examples, their typing rules, and the answers."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protocols.tensors.cases import WIRE

from gateway.errors import InvalidRequest, UpstreamInvalid
from gateway.protocols import tensors

REQUEST = WIRE.ClassificationRequest
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
# JSON can't say which kind an empty list has, so there are none here.
LISTS = (
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5).map(lambda v: ("int64", v))
    | st.lists(st.floats(width=32), min_size=1, max_size=5).map(lambda v: ("float", v))
    | st.lists(st.binary(max_size=5), min_size=1, max_size=5).map(lambda v: ("bytes", v))
)
EXAMPLES = st.dictionaries(NAMES, LISTS, max_size=4)


def bits(number: float) -> bytes:
    return b"nan" if math.isnan(number) else struct.pack("f", number)


def shown(values: list[Any]) -> list[Any]:
    """Values so that 1 is not 1.0, -0.0 is not 0.0, and NaN is itself."""
    return [bits(v) if type(v) is float else (type(v), v) for v in values]


def fill(features: dict[str, tuple[str, list[Any]]], into: Any) -> None:
    into.features.SetInParent()
    for name, (kind, values) in features.items():
        getattr(into.features.feature[name], f"{kind}_list").value.extend(values)


def told(example: Any) -> dict[str, Any]:
    found = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        found[name] = (kind, shown(list(getattr(feature, kind).value)) if kind else [])
    return found


def from_json(body: bytes) -> Any:
    return REQUEST.FromString(tensors.examples_to_proto(REQUEST, body, "m", 3))


@given(st.lists(EXAMPLES, min_size=1, max_size=3), st.none() | EXAMPLES)
def test_grpc_to_rest_to_grpc(
    examples: list[dict[str, Any]], context: dict[str, Any] | None
) -> None:
    request = REQUEST()
    given = request.input.example_list
    if context is not None:
        given = request.input.example_list_with_context
        fill(context, given.context)
    for features in examples:
        fill(features, given.examples.add())
    body, signature = tensors.examples_from_proto(REQUEST, request.SerializeToString())
    assert signature == "serving_default"
    back = from_json(body)
    assert (back.model_spec.name, back.model_spec.version.value) == ("m", 3)
    assert back.model_spec.signature_name == "serving_default"
    got = back.input.example_list_with_context if context else back.input.example_list
    assert list(map(told, got.examples)) == list(map(told, given.examples))
    if context:
        assert told(got.context) == told(given.context)


def as_json(kind: str, values: list[Any], base64_too: bool) -> Any:
    if kind != "bytes":
        return values
    strings = []
    for value in values:
        try:
            text: Any = value.decode()
        except UnicodeDecodeError:
            text = None
        if text is None or base64_too:
            text = {"b64": base64.b64encode(value).decode()}
        strings.append(text)
    return strings


@given(st.lists(EXAMPLES, min_size=1, max_size=3), st.booleans(), st.booleans())
def test_rest_to_grpc_to_rest(
    examples: list[dict[str, Any]], base64_too: bool, ascii_only: bool
) -> None:
    rows = [
        {name: as_json(kind, values, base64_too) for name, (kind, values) in example.items()}
        for example in examples
    ]
    body = json.dumps({"signature_name": "s", "examples": rows}, ensure_ascii=ascii_only).encode()
    request = tensors.examples_to_proto(REQUEST, body, "m", 3)
    expected = [REQUEST() for _ in examples]
    for message, features in zip(expected, examples, strict=True):
        fill(features, message.input.example_list.examples.add())
    given = REQUEST.FromString(request).input.example_list.examples
    assert list(map(told, given)) == [
        told(message.input.example_list.examples[0]) for message in expected
    ]
    back, signature = tensors.examples_from_proto(REQUEST, request)
    assert signature == "s"
    again = from_json(back).input.example_list.examples
    assert list(map(told, again)) == list(map(told, given))


@pytest.mark.parametrize(
    ("value", "kind", "values"),
    [
        ("1", "int64_list", [1]),
        ("[1, true, false]", "int64_list", [1, 1, 0]),
        ("[-9223372036854775808]", "int64_list", [-(2**63)]),
        ("1.0", "float_list", [1.0]),
        ("1e2", "float_list", [100.0]),
        ("1e300", "float_list", [math.inf]),
        ("[18446744073709551616, 1.5]", "float_list", [2.0**64, 1.5]),
        ("-9223372036854775809", "float_list", [-(2.0**63)]),
        ("-Infinity", "float_list", [-math.inf]),
        ('["a", {"b64": "/w=="}]', "bytes_list", [b"a", b"\xff"]),
        ('{"b64": "/w"}', "bytes_list", [b"\xff"]),
        ("[]", None, []),
    ],
)
def test_kinds(value: str, kind: str | None, values: list[Any]) -> None:
    (example,) = from_json(
        b'{"examples": [{"x": %s}]}' % value.encode()
    ).input.example_list.examples
    assert told(example) == {"x": (kind, shown(values))}


FIRST = b'{"examples": [{"x": %s}]}'


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"signature_name": "s"}', "key 'examples' is expected and was not found"),
        (b'{"examples": {"x": 1}}', "Expecting 'examples' value to be an list/array"),
        (b'{"examples": []}', "'examples' value is an empty array"),
        (b'{"examples": [1]}', "Example must be JSON object but got JSON Number"),
        (b'{"examples": [null]}', "Example must be JSON object but got JSON Null"),
        (b'{"examples": [{}], "context": [1]}', "Example must be JSON object but got JSON Array"),
        (b'{"examples": [{}], "signature_name": 1}', "'signature_name' key must be a string"),
        (FIRST % b"[1, 2.5]", "Unexpected element type in feature: x expecting type: int64"),
        (FIRST % b'["a", 1]', "Unexpected element type in feature: x expecting type: bytes"),
        (FIRST % b"[2.5, true]", "Unexpected element type in feature: x expecting type: float"),
        (FIRST % b"[null]", "Feature: x has element with unexpected JSON type: Null"),
        (FIRST % b"[[1.0]]", "Feature: x has element with unexpected JSON type: Array"),
        (FIRST % b'{"a": 1}', "Feature: x has element with unexpected JSON type: Object"),
        (FIRST % b'{"b64": 1}', "Feature: x has element with unexpected JSON type: Object"),
        (FIRST % b"9223372036854775808", "Feature: x has uint64_t element. Only int64_t is supp"),
        (FIRST % (b"1" + b"0" * 400), "Feature: x has a number that no double holds"),
        (FIRST % b'{"b64": "*"}', "Unable to base64 decode (feature: x)"),
        (b'{"examples": [{"x": 1, "x": 2}]}', "'x' stands twice"),
        (b'{"examples": [{"x": {"b64": "", "b64": ""}}]}', "'b64' stands twice"),
        (b'{"examples": [{"x": ":", "x": ":"}]}', "'x' stands twice"),
        (b'{"examples": [{"\\u0078": 1, "x": 2}]}', "'x' stands twice"),
        (b'{"examples": [{}], "examples": [{}]}', "'examples' stands twice"),
    ],
)
def test_bodies_that_are_refused(body: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        from_json(body)
    assert words in caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        b'{"examples": [{"x": "a:b", "y": "\\":"}]}',
        b'{"examples": [{"x": ":"}, {"x": ":"}], "context": {"x": 1}, "other": {"x": 1}}',
    ],
)
def test_colons_in_strings_and_other_keys_do_no_harm(body: bytes) -> None:
    from_json(body)


def test_a_body_of_many_names_takes_no_time_that_grows_with_their_square() -> None:
    """200,000 names: a search of the body for each would take minutes."""
    row = {f"n{number}": ":" for number in range(200_000)}
    body = json.dumps({"examples": [row]}).encode()
    (example,) = from_json(body).input.example_list.examples
    assert len(example.features.feature) == len(row)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "Input is empty."),
        (b"\x12\x00", "Input is empty."),
        (b"\xff", "the ClassificationRequest does not parse"),
    ],
)
def test_messages_that_are_refused(text: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        tensors.examples_from_proto(REQUEST, text)
    assert words in caught.value.message


SCORES = st.floats(width=32)


@given(st.lists(st.lists(st.tuples(NAMES, SCORES), max_size=3), min_size=1, max_size=3))
def test_classes_there_and_back(rows: list[list[tuple[str, float]]]) -> None:
    reply = WIRE.ClassificationResponse()
    for row in rows:
        classes = reply.result.classifications.add().classes
        for label, score in row:
            classes.add(label=label, score=score)
    text = tensors.classes_to_json(WIRE, reply.SerializeToString())
    body = tensors.classes_from_json(WIRE, text, "m", 3, "s")
    back = WIRE.ClassificationResponse.FromString(body)
    spec = back.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("m", 3, "s")
    got = [[(c.label, bits(c.score)) for c in row.classes] for row in back.result.classifications]
    assert got == [[(label, bits(score)) for label, score in row] for row in rows]


@given(st.lists(SCORES, min_size=1, max_size=5))
def test_values_there_and_back(values: list[float]) -> None:
    reply = WIRE.RegressionResponse()
    for value in values:
        reply.result.regressions.add(value=value)
    text = tensors.values_to_json(WIRE, reply.SerializeToString())
    body = tensors.values_from_json(WIRE, text, "m", 3, "s")
    back = WIRE.RegressionResponse.FromString(body)
    assert [bits(one.value) for one in back.result.regressions] == list(map(bits, values))


def test_the_digits_are_tf_servings() -> None:
    reply = WIRE.RegressionResponse()
    for value in (0.1, 42.0, math.nan, -math.inf):
        reply.result.regressions.add(value=value)
    text = tensors.values_to_json(WIRE, reply.SerializeToString())
    assert text == b'{"results":[0.1,42.0,NaN,-Infinity]}'


def test_no_results_are_no_json() -> None:
    for read in (tensors.classes_to_json, tensors.values_to_json):
        with pytest.raises(InvalidRequest, match="Cannot convert empty"):
            read(WIRE, b"")
        with pytest.raises(UpstreamInvalid, match="does not parse"):
            read(WIRE, b"\xff")


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"[]",
        b'{"result": []}',
        b'{"results": {}}',
        b'{"results": [1]}',
        b'{"results": [["a"]]}',
        b'{"results": [[["a"]]]}',
        b'{"results": [[["a", "b"]]]}',
        b'{"results": [[["a", true]]]}',
        b'{"results": [[[1, 0.5]]]}',
        b'{"results": [[["\xff", 0.5]]]}',
        b'{"results": [[["a", 1' + b"0" * 400 + b"]]]}",
    ],
)
def test_answers_that_are_none(reply: bytes) -> None:
    with pytest.raises(UpstreamInvalid):
        tensors.classes_from_json(WIRE, reply, "m", 3, "s")
    with pytest.raises(UpstreamInvalid):
        tensors.values_from_json(WIRE, reply.replace(b"[1]", b'["1"]'), "m", 3, "s")
