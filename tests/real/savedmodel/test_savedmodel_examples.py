"""JSON to tf.Example: the bytes against TensorFlow's own reader, and every typing rule."""

import json
import struct
from typing import Any

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from adapters.savedmodel.examples import read_examples
from adapters.savedmodel.json_reader import read_object
from adapters.savedmodel.status import Code, ServingError

pytestmark = pytest.mark.real

NAMES = st.text(max_size=5).filter(lambda text: text.isprintable())
LISTS = (
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5).map(lambda v: ("int64", v))
    | st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=5).map(
        lambda v: ("float", v)
    )
    | st.lists(NAMES, min_size=1, max_size=5).map(lambda v: ("bytes", v))
)


def _read(text: str) -> list[Any]:
    examples = read_examples(read_object(text.encode(), 64)).examples
    return [tf.train.Example.FromString(example) for example in examples]


def _values(feature: Any) -> tuple[str | None, list[Any]]:
    kind = feature.WhichOneof("kind")
    return kind, list(getattr(feature, kind).value) if kind else []


@given(st.dictionaries(NAMES, LISTS, max_size=4))
def test_tensorflow_reads_what_was_meant(features: dict[str, tuple[str, list[Any]]]) -> None:
    body = {"examples": [{name: values for name, (_, values) in features.items()}]}
    (example,) = _read(json.dumps(body, ensure_ascii=False))
    assert example.features.feature.keys() == features.keys()
    for name, (kind, values) in features.items():
        got_kind, got = _values(example.features.feature[name])
        assert got_kind == f"{kind}_list"
        if kind == "float":
            assert [struct.pack("f", v) for v in got] == [struct.pack("f", v) for v in values]
        else:
            assert got == [v.encode() if kind == "bytes" else v for v in values]


@pytest.mark.parametrize(
    ("text", "kind", "values"),
    [
        ("1", "int64_list", [1]),
        ("[1, true, false]", "int64_list", [1, 1, 0]),
        ("true", "int64_list", [1]),
        ("1.0", "float_list", [1.0]),
        ("[1e2, NaN]", "float_list", None),
        ("1e300", "float_list", [float("inf")]),
        ("18446744073709551616", "float_list", [18446744073709551616.0]),
        ("-9223372036854775809", "float_list", [-9223372036854775808.0]),
        ('"日本"', "bytes_list", ["日本".encode()]),
        ('["a", {"b64": "/wA="}]', "bytes_list", [b"a", b"\xff\0"]),
        ("[]", None, []),
    ],
)
def test_the_typing_rules(text: str, kind: str | None, values: list[Any] | None) -> None:
    (example,) = _read(f'{{"examples": [{{"f": {text}}}]}}')
    got = _values(example.features.feature["f"])
    assert got[0] == kind
    assert values is None or got[1] == values


def test_the_example_wins_over_the_context() -> None:
    first, second = _read('{"context": {"a": [1, 2], "b": "x"}, "examples": [{"a": 3}, {}]}')
    assert _values(first.features.feature["a"]) == ("int64_list", [3])
    assert _values(second.features.feature["a"]) == ("int64_list", [1, 2])
    assert _values(first.features.feature["b"]) == ("bytes_list", [b"x"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"examples": [{"f": [1, 2.5]}]}', "type in feature: f expecting type: int64"),
        ('{"examples": [{"f": [2.5, 1]}]}', "type in feature: f expecting type: float"),
        ('{"examples": [{"f": ["a", 1]}]}', "type in feature: f expecting type: bytes"),
        ('{"examples": [{"f": [[1]]}]}', "f has element with unexpected JSON type: Array"),
        ('{"examples": [{"f": null}]}', "f has element with unexpected JSON type: Null"),
        ('{"examples": [{"f": {"a": 1}}]}', "f has element with unexpected JSON type: Object"),
        ('{"examples": [{"f": 18446744073709551615}]}', "f has uint64_t element"),
        ('{"examples": [{"f": {"b64": "!"}}]}', "Unable to base64 decode"),
        ('{"examples": [{"f": "\\ud800"}]}', "no Unicode"),
        ('{"examples": [true]}', "Example must be JSON object but got JSON True"),
        ('{"examples": [{}], "context": []}', "Example must be JSON object but got JSON Array"),
    ],
)
def test_what_is_refused(text: str, words: str) -> None:
    with pytest.raises(ServingError, match=words) as caught:
        _read(text)
    assert caught.value.code is Code.INVALID_ARGUMENT
