"""JSON as TF Serving reads it, and its words for what is none."""

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.protocols.json_text import check_depth, deeper_than
from gateway.protocols.tensors import reading
from gateway.protocols.tensors.document import Document

MIB = 2**20
PARSE = "JSON Parse error: "
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
objects = st.dictionaries(st.text(max_size=3), values, max_size=3)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"a": NaN}',
        b'{"a": [Infinity, -Infinity, NaN, -NaN, Inf, -Inf, 1]}',
        b'{"NaN": "Inf"}',
        b'{"a": "is NaN", "b": NaN}',
        b'{"a": "\xff"}',
    ],
)
def test_a_document_alone_stays_as_it_is(body: bytes) -> None:
    assert reading.document_of(body) is body


@pytest.mark.parametrize(
    "after", [b"x", b" x", b"{", b"]", b'"', b"\\", b'"\\', b"NaN", b"1", b"\xff"]
)
@pytest.mark.parametrize("body", [b'{"a": [1, {"b": "}"}]}', b'{"a": Inf}'])
def test_what_follows_is_left_out(body: bytes, after: bytes) -> None:
    assert reading.document_of(body + after).rstrip() == body


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", f"{PARSE}The document is empty"),
        (b" ", f"{PARSE}The document is empty. at offset: 1"),
        (b"oops", f"{PARSE}Invalid value. at offset: 0"),
        (b'{"a": nan}', f"{PARSE}Invalid value. at offset: "),
        (b'{"a": NaNa}', f"{PARSE}Invalid value. at offset: "),
        (b'{"a": 1NaN}', f"{PARSE}Missing a comma or }} after an object member. at offset: "),
        (b'{"a": +Infinity}', f"{PARSE}Invalid value. at offset: "),
        (b"{NaN: 1}", f"{PARSE}Missing a name for object member. at offset: 1"),
        (b"{", f"{PARSE}Missing a name for object member. at offset: 1"),
        (b'{"a": 1,}', f"{PARSE}Missing a name for object member. at offset: "),
        (b'{"a" 1}', f"{PARSE}Missing a colon after a name of object member. at offset: "),
        (b'{"a": 1 "b": 2}', f"{PARSE}Missing a comma or }} after an object member. at offset: "),
        (b'{"a": [1 2]}', f"{PARSE}Missing a comma or ] after an array element. at offset: "),
        (b'{"a": [1,]}', f"{PARSE}Invalid value. at offset: "),
        (b'{"a":[1,{"b":2}', f"{PARSE}Missing a comma or ] after an array element. at offset: 1"),
        (b'{"a":[1,{"b":"]"', f"{PARSE}Missing a comma or }} after an object member. at offset: "),
        (b'{"a": [1,', f"{PARSE}Invalid value. at offset: 9"),
        (b'{"a": "b', f"{PARSE}Missing a closing quotation mark in string. at offset: 8"),
        (b'{"a": "b\\', f"{PARSE}Missing a closing quotation mark in string. at offset: "),
        (b'{"a": "\\x"}', f"{PARSE}Invalid escape character in string. at offset: "),
        (b'{"a": "\\u12g4"}', f"{PARSE}Incorrect hex digit after \\u escape in string. at offset"),
        (b'{"a": "\x01"}', f"{PARSE}Invalid encoding in string. at offset: "),
        (b'{"a": 1.}', f"{PARSE}Miss fraction part in number. at offset: "),
        (b'{"a": 1e}', f"{PARSE}Miss exponent in number. at offset: "),
        (b"[1.0, 2.0]", "JSON Value: [1.0, 2.0] Is not object"),
        (b"[NaN]", "JSON Value: [NaN] Is not object"),
        (b"null", "JSON Value: null Is not object"),
    ],
)  # fmt: skip
def test_the_words_for_what_is_no_document(body: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        reading.document_of(body)
    assert caught.value.message.startswith(words)
    assert caught.value.status == 400


@given(objects, st.binary(max_size=8))
def test_any_object_is_read_whatever_follows(value: dict[str, Any], after: bytes) -> None:
    text = json.dumps(value).encode()
    assert reading.document_of(text + after).rstrip() == text
    assert Document(text).members == value


@given(objects, st.text(alphabet='[]{}"\\\\ ', max_size=12))
def test_what_follows_hides_no_depth(value: dict[str, Any], after: str) -> None:
    text = json.dumps(value).encode()
    for levels in range(1, 4):
        if deeper_than(text, levels):
            assert deeper_than(text + after.encode(), levels)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_document_or_an_invalid_request(body: bytes) -> None:
    for text in (body, b'{"' + body, b'{"a":' + body):
        with contextlib.suppress(InvalidRequest):
            check_depth(text, 3)
            Document(text)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":"' + b'\\"' * MIB,
        b'{"a":"' + b"\\" * MIB,
        b'{"a":' + b'"b",' * MIB,
        b'{"a":[' + b"[]," * MIB,
        b'{"a":"' + b"1." * MIB + b'","b":1e999}',
        b'{"a":1e' + b"0" * MIB + b',"b":1e999}',
        b'{"a":Inf,"b":"' + b'\\"' * MIB + b'"}',
        b'{"a":' + b"-Inf" * MIB,
        b"{" + b'"' * MIB,
    ],
    ids=range(9),
)
def test_malice_costs_little(body: bytes) -> None:
    """Processor time, many times what it takes, so that a busy machine can't fail it."""
    began = time.process_time()
    with contextlib.suppress(InvalidRequest):
        Document(body)
    assert time.process_time() - began < 10
