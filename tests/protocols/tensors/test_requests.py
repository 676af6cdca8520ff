"""REST predict requests, rule by rule."""

from __future__ import annotations

import json
from typing import Any

import pytest
from protocols.tensors import cases
from protocols.tensors.cases import BY_NAME, FLOAT, INT32, STRING, body, signatures, tensor

from gateway.errors import Code, GatewayError, InvalidRequest, Unsupported
from gateway.protocols.tensors import (
    Layout,
    Signature,
    Signatures,
    Tensor,
    Tensors,
    TensorSpec,
    UnknownSignature,
    request_from_json,
    request_to_json,
)

ONE = signatures({"x": FLOAT}, rank=2)
TWO = signatures({"x": FLOAT, "n": INT32}, rank=2)
TEXT = signatures({"s": STRING})
INF = float("inf")


def read(text: bytes, known: Signatures = ONE) -> dict[str, Tensor]:
    return dict(request_from_json(text, known)[0].named)


def one(dtype: str, value: str) -> Tensor:
    """The tensor that one value makes, columnar and bare."""
    return read(b'{"inputs": %s}' % value.encode(), signatures({"x": BY_NAME[dtype]}))["x"]


@pytest.mark.parametrize(
    ("text", "known", "layout", "named"),
    [
        (
            b'{"instances": [[1, 2.5], [3.0, -4]]}',
            ONE,
            Layout.ROW,
            {"x": tensor(FLOAT, (2, 2), 1, 2.5, 3, -4)},
        ),
        (
            b'{"instances": [{"x": [1], "n": 7}, {"n": 8, "x": [2]}]}',
            TWO,
            Layout.ROW,
            {"x": tensor(FLOAT, (2, 1), 1, 2), "n": tensor(INT32, (2,), 7, 8)},
        ),
        (
            b'{"instances": [{"x": 1}, {"x": 2}]}',
            ONE,
            Layout.ROW,
            {"x": tensor(FLOAT, (2,), 1, 2)},
        ),
        (b'{"instances": [[], []]}', ONE, Layout.ROW, {"x": tensor(FLOAT, (2, 0))}),
        (b'{"inputs": 1}', ONE, Layout.COLUMNAR, {"x": tensor(FLOAT, (), 1)}),
        (b'{"inputs": []}', ONE, Layout.COLUMNAR, {"x": tensor(FLOAT, (0,))}),
        (b'{"inputs": {"x": [[1]]}}', ONE, Layout.COLUMNAR, {"x": tensor(FLOAT, (1, 1), 1)}),
        (
            b'{"inputs": {"x": [1, 2], "n": [[7]], "more": null}, "note": true}',
            TWO,
            Layout.COLUMNAR,
            {"x": tensor(FLOAT, (2,), 1, 2), "n": tensor(INT32, (1, 1), 7)},
        ),
        (
            b'{"instances": ["a", {"b64": "AP8="}, "\\u00e9"]}',
            TEXT,
            Layout.ROW,
            {"s": tensor(STRING, (3,), b"a", b"\0\xff", "é".encode())},
        ),
        (
            b'{"instances": [{"b64": "AP8="}, "a"]}',
            TEXT,
            Layout.ROW,
            {"s": tensor(STRING, (2,), b"\0\xff", b"a")},
        ),
        (
            b'{"inputs": {"b64": "AP8"}}',
            TEXT,
            Layout.COLUMNAR,
            {"s": tensor(STRING, (), b"\0\xff")},
        ),
        (
            b'{"instances": [{"s": {"b64": "A P8\\n="}}]}',
            TEXT,
            Layout.ROW,
            {"s": tensor(STRING, (1,), b"\0\xff")},
        ),
        (
            b'{"instances": [[NaN, Infinity], [-Infinity, 1]]}',
            ONE,
            Layout.ROW,
            {"x": tensor(FLOAT, (2, 2), float("nan"), INF, -INF, 1)},
        ),
    ],
)
def test_forms(text: bytes, known: Signatures, layout: Layout, named: dict[str, Tensor]) -> None:
    got, form = request_from_json(text, known)
    assert form is layout
    assert got.named.keys() == named.keys()
    assert all(cases.same(got.named[name], named[name]) for name in named)
    assert got.signature == "serving_default"


@pytest.mark.parametrize(
    ("dtype", "text", "value"),
    [
        ("DT_FLOAT", "0.1", 0.10000000149011612),
        ("DT_FLOAT", "1e39", INF),  # beyond float32, as TF Serving's own test has it
        ("DT_FLOAT", "123456789012345678901234567890", 123456789012345678901234567890),
        ("DT_FLOAT", "-0.0", -0.0),
        ("DT_FLOAT", "1e-50", 0.0),
        ("DT_DOUBLE", "0.1", 0.1),
        ("DT_DOUBLE", "9007199254740993", 9007199254740992.0),
        ("DT_DOUBLE", "-Infinity", -INF),
        ("DT_INT8", "-128", -128),
        ("DT_UINT8", "255", 255),
        ("DT_INT16", "-32768", -32768),
        ("DT_INT32", "2147483647", 2**31 - 1),
        ("DT_UINT32", "4294967295", 2**32 - 1),
        ("DT_INT64", "9007199254740993", 2**53 + 1),
        ("DT_INT64", "-9223372036854775808", -(2**63)),
        ("DT_UINT64", "18446744073709551615", 2**64 - 1),
        ("DT_BOOL", "true", True),
    ],
)
def test_numbers(dtype: str, text: str, value: Any) -> None:
    assert one(dtype, text) == tensor(BY_NAME[dtype], (), value)
    # Beside a NaN the slower reader takes over; it is as exact.
    beside = read(
        b'{"inputs": {"x": %s, "f": NaN}}' % text.encode(),
        signatures({"x": BY_NAME[dtype], "f": FLOAT}),
    )
    assert beside["x"] == one(dtype, text)


@pytest.mark.parametrize(
    ("dtype", "text", "why"),
    [
        ("DT_INT32", "1.0", "a fraction"),
        ("DT_INT32", "1e2", "a fraction or an exponent"),
        ("DT_INT32", "2147483648", "out of the range of DT_INT32"),
        ("DT_INT32", "NaN", "a fraction"),
        ("DT_INT8", "128", "out of the range"),
        ("DT_INT8", "-129", "out of the range"),
        ("DT_UINT8", "-1", "out of the range"),
        ("DT_UINT8", "256", "out of the range"),
        ("DT_INT16", "32768", "out of the range"),
        ("DT_UINT32", "-1", "out of the range"),
        ("DT_UINT32", "4294967296", "out of the range"),
        ("DT_INT64", "9223372036854775808", "out of the range"),
        ("DT_UINT64", "-1", "out of the range"),
        ("DT_UINT64", "18446744073709551616", "out of the range"),
        ("DT_INT64", "true", "a bool, where an integer is expected"),
        ("DT_FLOAT", "true", "a bool, where a number is expected"),
        ("DT_FLOAT", "false", "a bool"),
        ("DT_FLOAT", '"1"', "a string"),
        ("DT_FLOAT", "null", "null"),
        ("DT_FLOAT", '{"b64": "QQ=="}', "an object"),
        ("DT_FLOAT", "[1, [2]]", "a list"),
        ("DT_FLOAT", "[[1, [2]]]", "[0][1]"),
        ("DT_FLOAT", "[1, true]", "[1]"),
        ("DT_BOOL", "1", "an integer, where true or false is expected"),
        ("DT_BOOL", "[true, null]", "[1] is null"),
        ("DT_STRING", "1", "an integer"),
        ("DT_STRING", '["a", true]', "[1] is a bool"),
        ("DT_STRING", '{"b64": "Q"}', "not base64"),
        ("DT_STRING", '{"b64": "QQ="}', "not base64"),
        ("DT_STRING", '{"b64": "QQ==="}', "not base64"),
        ("DT_STRING", '{"b64": "Q-_Q"}', "not base64"),
        ("DT_STRING", '{"b64": "QQ==QQ=="}', "not base64"),
        ("DT_STRING", '{"b64": "é"}', "not base64"),
        ("DT_STRING", '["\\ud800", NaN]', "surrogate"),
        ("DT_STRING", '[{"b64": "QQ==", "and": 1}]', "an object"),
        ("DT_STRING", '["a", {"b64": 1}]', "[1] is an object"),
    ],
)
def test_values_that_do_not_fit(dtype: str, text: str, why: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        one(dtype, text)
    assert why in caught.value.message
    assert "'x'" in caught.value.message
    assert (caught.value.status, caught.value.code) == (400, Code.INVALID_ARGUMENT)
    assert caught.value.param == "x"


@pytest.mark.parametrize(
    "dtype",
    ["DT_HALF", "DT_BFLOAT16", "DT_UINT16", "DT_COMPLEX64", "DT_COMPLEX128"],
)
def test_dtypes_without_a_form(dtype: str) -> None:
    with pytest.raises(Unsupported, match=f"'x' is of type {dtype}") as caught:
        one(dtype, "1.0")
    assert (caught.value.status, caught.value.code) == (501, Code.UNIMPLEMENTED)


@pytest.mark.parametrize(
    ("text", "known", "why"),
    [
        (b"", ONE, "not valid JSON"),
        (b"[]", ONE, "not a JSON object"),
        (b"[NaN]", ONE, "not a JSON object"),
        (b"{", ONE, "not valid JSON"),
        (b'{"instances": [NaN}', ONE, "not valid JSON"),
        (b'{"instances": [NaN, 1e999]}', ONE, "out of the range of a double"),
        (b'{"instances": [1e999]}', ONE, "not valid JSON"),
        (b'{"instances": [NaN, %s]}' % (b"9" * 5000), ONE, "not valid JSON"),
        (b'{"instances": [NaN, %s]}' % (b"9" * 400), ONE, "out of the range of DT_FLOAT"),
        (b'{"inputs": "\xff"}', TEXT, "not valid JSON"),
        (b'{"inputs": [NaN], "note": "\xff"}', ONE, "not valid JSON"),
        (b'{"instances": [1, false]}', ONE, "[1] is a bool"),
        (b'{"instances": [1, true]}', ONE, "[1] is a bool"),
        (b"{}", ONE, "neither 'instances'"),
        (b'{"instances": [1], "inputs": [1]}', ONE, "both 'instances' and 'inputs'"),
        (b'{"instances": []}', ONE, "'instances' is empty"),
        (b'{"instances": {}}', ONE, "'instances' must be a list"),
        (b'{"instances": 1}', ONE, "'instances' must be a list"),
        (b'{"instances": [1], "signature_name": 1}', ONE, "'signature_name' must be a string"),
        (b'{"instances": [[1, 2], [3]]}', ONE, "'x' is ragged: the list at [1] has 1 items"),
        (b'{"instances": [[1], 2]}', ONE, "'x' is ragged: the list at [1] is no list"),
        (b'{"instances": [[[1], [2]], [[3], [4, 5]]]}', ONE, "[1][1] has 2 items, others have 1"),
        (b'{"instances": [{"x": [1]}, {"x": [1, 2]}]}', ONE, "'x' is ragged: the list at [1]"),
        (b'{"inputs": {"x": [[1], []]}}', ONE, "'x' is ragged"),
        (b'{"instances": [1]}', TWO, "several: n, x"),
        (b'{"instances": [{"b64": "QQ=="}]}', TWO, "several: n, x"),
        (b'{"inputs": [1]}', TWO, "several: n, x"),
        (b'{"instances": [{"x": 1, "n": 1}, {"x": 1}]}', TWO, "row 1 of 'instances' lacks 'n'"),
        (b'{"instances": [{"x": 1, "n": 1, "z": 1}]}', TWO, "row 0 of 'instances' has 'z'"),
        (b'{"instances": [{"x": 1, "z": 1}]}', TWO, "row 0 of 'instances' lacks 'n'"),
        (b'{"instances": [{"x": 1}, 1]}', ONE, "row 1 of 'instances' is no object"),
        (b'{"instances": [1, {"x": 1}]}', ONE, "[1] is an object"),
        (b'{"instances": [{"s": "a"}, {"b64": "QQ=="}]}', TEXT, "row 1 of 'instances' is no obj"),
        (b'{"inputs": {"x": 1}}', TWO, "'inputs' lacks 'n'"),
        (b'{"inputs": {}}', ONE, "'inputs' lacks 'x'"),
        (b'{"inputs": [1], "inputs": [2]}', ONE, "'inputs' stands twice"),
        (b'{"inputs": [1], "\\u0069nputs": [2]}', ONE, "'inputs' stands twice"),
        (b'{"inputs": {"x": 1, "x": 2}}', ONE, "'x' stands twice"),
        (b'{"instances": [{"x": 1}, {"x": 1, "x": 2}]}', ONE, "'x' stands twice"),
        (b'{"inputs": {"b64": "QQ==", "b64": "Qg=="}}', TEXT, "'b64' stands twice"),
        (b'{"instances": [1]}', signatures({}, {"y": FLOAT}), "takes no inputs"),
    ],
)
def test_requests_that_are_refused(text: bytes, known: Signatures, why: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        request_from_json(text, known)
    assert why in caught.value.message
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "text",
    [
        b'{"inputs": ["inputs", "s", "b64", "\\u0073"]}',
        b'{"instances": [{"s": "\\"s\\": 1, \\"s\\": 2"}]}',
        b'{"inputs": {"s": {"b64": "QQ=="}}, "signature_name": "serving_default"}',
    ],
)
def test_values_that_look_like_keys(text: bytes) -> None:
    assert read(text, TEXT)["s"].dtype == STRING


def test_keys_that_are_not_read_may_repeat() -> None:
    assert read(b'{"inputs": [1], "note": 1, "note": 2}')["x"] == tensor(FLOAT, (1,), 1)
    sought = b'{"inputs": [1], "note": "inputs", "note": "\\u0061"}'
    assert read(sought)["x"] == tensor(FLOAT, (1,), 1)


def test_messages_do_not_repeat_values() -> None:
    with pytest.raises(InvalidRequest) as caught:
        one("DT_INT32", '["sesame"]')
    assert "sesame" not in caught.value.message


def test_signatures_by_name() -> None:
    other = Signature("other", {"i": TensorSpec(INT32)}, {})
    known = Signatures({**ONE.named, "other": other})
    assert request_from_json(body(signature_name="other", instances=[1]), known)[0] == Tensors(
        {"i": tensor(INT32, (1,), 1)}, "other"
    )
    assert "x" in read(body(signature_name="", instances=[1]), known)
    with pytest.raises(UnknownSignature, match=r"'third'.*other, serving_default") as caught:
        read(body(signature_name="third", instances=[1]), known)
    assert (caught.value.status, caught.value.code) == (400, Code.FAILED_PRECONDITION)


def test_rows_of_a_million_values() -> None:
    count = 10**6
    text = b'{"instances": [[%s]]}' % b",".join([b"0.5"] * count)
    got = read(text)["x"]
    assert got.shape == (1, count)
    assert got.data == tensor(FLOAT, (1,), 0.5).data * count
    rows = read(b'{"instances": [%s]}' % b",".join([b"[7]"] * count))["x"]
    assert rows == Tensor(FLOAT, (count, 1), tensor(FLOAT, (1,), 7).data * count)


def test_more_lists_than_memory_should_hold() -> None:
    with pytest.raises(InvalidRequest, match="send fewer rows"):
        read(b'{"instances": [%s]}' % b",".join([b"[]"] * 4_000_001))


def write(known: Signatures, output_filter: tuple[str, ...] = (), **named: Tensor) -> Any:
    carried = Tensors(named, output_filter=output_filter)
    return json.loads(request_to_json(carried, known.find("")))


def test_requests_for_rest_backends() -> None:
    assert write(TWO, x=tensor(FLOAT, (1, 2), 1, 0.1), n=tensor(INT32, (), 3)) == {
        "signature_name": "serving_default",
        "inputs": {"x": [[1.0, 0.10000000149011612]], "n": 3},
    }
    assert write(TEXT, s=tensor(STRING, (2,), b"a", b"\xff"))["inputs"] == {
        "s": [{"b64": "YQ=="}, {"b64": "/w=="}]
    }
    assert write(TEXT, s=tensor(STRING, (2, 0)))["inputs"] == {"s": [[], []]}
    lone = signatures({"b64": STRING})
    assert write(lone, b64=tensor(STRING, (), b"a"))["inputs"] == "a"


@pytest.mark.parametrize(
    ("named", "wanted", "error", "why"),
    [
        ({"x": tensor(FLOAT, (1,), 1)}, (), InvalidRequest, "input 'n' is missing"),
        ({"z": tensor(FLOAT, (1,), 1)}, (), InvalidRequest, "no input 'z', only n, x"),
        (
            {"x": tensor(INT32, (1,), 1), "n": tensor(INT32, (1,), 1)},
            (),
            InvalidRequest,
            "'x' is of type DT_INT32, the signature wants DT_FLOAT",
        ),
        (
            {"x": tensor(FLOAT, (0, 2)), "n": tensor(INT32, (1,), 1)},
            (),
            Unsupported,
            r"'x' is empty and its shape \[0, 2\]",
        ),
        (
            {"x": tensor(FLOAT, (1,), 1), "n": tensor(INT32, (1,), 1)},
            ("x", "z"),
            InvalidRequest,
            "no output 'z', only n, x",
        ),
        (
            {"x": tensor(FLOAT, (1,), 1), "n": tensor(INT32, (1,), 1)},
            ("x", "x"),
            InvalidRequest,
            "an output twice",
        ),
    ],
)
def test_requests_that_rest_backends_are_spared(
    named: dict[str, Tensor], wanted: tuple[str, ...], error: type[GatewayError], why: str
) -> None:
    with pytest.raises(error, match=why):
        write(TWO, wanted, **named)


def test_dtypes_that_rest_backends_do_not_take() -> None:
    half = BY_NAME["DT_HALF"]
    with pytest.raises(Unsupported, match=r"'x' is of type DT_HALF.*gRPC address"):
        write(signatures({"x": half}), x=tensor(half, (1,), 15360))
