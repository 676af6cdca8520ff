"""Bodies from strangers: what is read, what is refused, and that nothing takes the reader down."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.savedmodel.json_reader import excerpt, read_object, too_deep
from adapters.savedmodel.status import Code, ServingError

DEPTH = 64


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b' \r\n\t{"a": [1, 2.5, null, true, "x"]}', {"a": [1, 2.5, None, True, "x"]}),
        (b'{"a": 9007199254740993}', {"a": 9007199254740993}),
        (b'{"a": 18446744073709551615}', {"a": 2**64 - 1}),
        (b'{"a": -9223372036854775808}', {"a": -(2**63)}),
        (b'{"a": [Infinity, -Infinity]}', {"a": [math.inf, -math.inf]}),
        (b'{"a": [Inf, -Inf, "Inf \\" Inf"]}', {"a": [math.inf, -math.inf, 'Inf " Inf']}),
        (b'{"a": 1, "a": 2}', {"a": 1}),
        (b'{"a": {"b": [1], "c": 0, "b": [2]}, "d": "a:b"}', {"a": {"b": [1], "c": 0}, "d": "a:b"}),
        (b'{"a": [{"b": 1}, {"b": 2, "b": 3}]}', {"a": [{"b": 1}, {"b": 2}]}),
        (b'{"b": {"c": 1, "c": 2}} and: more', {"b": {"c": 1}}),
        (b'{"a": 1} and what follows is ignored', {"a": 1}),
        ('{"ä": "日本"}'.encode(), {"ä": "日本"}),
        (b'{"a": "]]]]\\"[[[["}', {"a": ']]]]"[[[['}),
    ],
)
def test_what_is_read(body: bytes, value: object) -> None:
    assert read_object(body, DEPTH) == value


def test_nan_is_read_and_types_stay_apart() -> None:
    document = read_object(b'{"a": [NaN, 1, 1.0, true]}', DEPTH)
    assert math.isnan(document["a"][0])
    assert [type(item) for item in document["a"]] == [float, int, float, bool]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "The document is empty"),
        (b"   ", "JSON Parse error"),
        (b"[1]", "Is not object"),
        (b'"text"', "Is not object"),
        (b"{", "at offset"),
        (b'{"a": }', r"JSON Parse error: Invalid value\. at offset: 6"),
        (b"{a: 1}", r"Missing a name for object member\. at offset: 1"),
        (b'{"a": "x', r"Missing a closing quotation mark in string\."),
        (b'{"a": 1e400}', "too big"),
        (b'{"a": NaN, "b": 1e400}', "too big"),
        (b'{"a": "\xff"}', "not UTF-8 at offset: 7"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "JSON Parse error"),
        (b"\xef\xbb\xbf{}", "JSON Parse error"),
        (b'{"a": "\\', "JSON Parse error"),
    ],
)
def test_what_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(ServingError, match=words) as caught:
        read_object(body, DEPTH)
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b'{"a":' * 1_000_000,
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"NaN": NaN, "a":' + b"[" * 65 + b"]" * 65 + b"}",
        b'{"a":"\\"", "b":' + b"[" * 65 + b"]" * 65 + b"}",
    ],
)
def test_depth_bombs_are_refused(body: bytes) -> None:
    with pytest.raises(ServingError) as caught:
        read_object(body, DEPTH)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_the_deepest_limit_that_can_be_set_does_not_crash_the_parsers() -> None:
    for number in (b"1", b"NaN"):  # the quick parser, and the one it falls back on
        assert read_object(b'{"a":' + b"[" * 511 + number + b"]" * 511 + b"}", 512)


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='[]{}"\\a,:', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text('[]{}"\\', max_size=3), inner, max_size=3)
    ),
)


@given(VALUES)
def test_the_depth_is_exact_whatever_strings_hold(value: object) -> None:
    body = json.dumps(value).encode()
    depth = _depth(value)
    assert not too_deep(body, max(depth, 1))
    if depth > 1:
        assert too_deep(body, depth - 1)


@given(VALUES)
def test_a_document_without_twin_keys_is_read_as_it_is(value: object) -> None:
    assert read_object(json.dumps({"a": value}).encode(), DEPTH) == {"a": value}


def test_excerpts_are_short_and_cheap() -> None:
    value = {"instances": [[[float(i)] * 100] * 100 for i in range(1000)], "k" * 1000: "v" * 10_000}
    assert len(excerpt(value)) == 256
    assert excerpt([1, "a", None, {"b64": "eA=="}]) == '[1, "a", null, {"b64": "eA=="}]'
