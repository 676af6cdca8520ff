"""REST predict requests, rule by rule."""

from __future__ import annotations

import json
import time
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
        (
            b'{"note": "Inf", "instances": [[-NaN, Inf], [-Inf, -1]], "signature_name": ""}',
            ONE,
            Layout.ROW,
            {"x": tensor(FLOAT, (2, 2), float("nan"), INF, -INF, -1)},
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


def unfit(value: str, kind: str, dtype: str) -> str:
    return f"JSON Value: {value} Type: {kind} is not of expected type: {dtype}"


@pytest.mark.parametrize(
    ("dtype", "text", "why"),
    [
        ("DT_INT32", "1.0", unfit("1.0", "Number", "int32")),
        ("DT_INT32", "1e2", unfit("100.0", "Number", "int32")),
        ("DT_INT32", "2147483648", unfit("2147483648", "Number", "int32")),
        ("DT_INT32", "NaN", unfit("NaN", "Number", "int32")),
        ("DT_INT8", "128", unfit("128", "Number", "int8")),
        ("DT_INT8", "-129", unfit("-129", "Number", "int8")),
        ("DT_UINT8", "-1", unfit("-1", "Number", "uint8")),
        ("DT_UINT8", "256", unfit("256", "Number", "uint8")),
        ("DT_INT16", "32768", unfit("32768", "Number", "int16")),
        ("DT_UINT32", "-1", unfit("-1", "Number", "uint32")),
        ("DT_UINT32", "4294967296", unfit("4294967296", "Number", "uint32")),
        ("DT_INT64", str(2**63), unfit(str(2**63), "Number", "int64")),
        ("DT_UINT64", "-1", unfit("-1", "Number", "uint64")),
        ("DT_UINT64", str(2**64), unfit(str(2**64), "Number", "uint64")),
        ("DT_INT64", "true", unfit("true", "True", "int64")),
        ("DT_FLOAT", "true", unfit("true", "True", "float")),
        ("DT_FLOAT", "false", unfit("false", "False", "float")),
        ("DT_FLOAT", '"1"', unfit('"1"', "String", "float")),
        ("DT_FLOAT", "null", unfit("null", "Null", "float")),
        ("DT_FLOAT", '{"b64": "QQ=="}', unfit('{"b64": "QQ=="}', "Object", "float")),
        ("DT_FLOAT", "[1, [2]]", "Encountered list at unexpected level: 1 expected < 1"),
        ("DT_FLOAT", "[[1, [2]]]", "Encountered list at unexpected level: 2 expected < 2"),
        ("DT_FLOAT", "[1, true]", unfit("true", "True", "float")),
        ("DT_BOOL", "1", unfit("1", "Number", "bool")),
        ("DT_BOOL", "[true, null]", unfit("null", "Null", "bool")),
        ("DT_STRING", "1", unfit("1", "Number", "string")),
        ("DT_STRING", '["a", true]', unfit("true", "True", "string")),
        ("DT_STRING", '{"b64": "Q"}', "Unable to base64 decode"),
        ("DT_STRING", '{"b64": "QQ="}', "Unable to base64 decode"),
        ("DT_STRING", '{"b64": "QQ==="}', "Unable to base64 decode"),
        ("DT_STRING", '{"b64": "Q-_Q"}', "Unable to base64 decode"),
        ("DT_STRING", '{"b64": "QQ==QQ=="}', "Unable to base64 decode"),
        ("DT_STRING", '{"b64": "é"}', "Unable to base64 decode"),
        (
            "DT_STRING",
            '[{"b64": "QQ==", "and": 1}]',
            'JSON Value: {"b64": "QQ==", "and": 1} not formatted correctly for base64 data',
        ),
        (
            "DT_STRING",
            '["a", {"b64": 1}]',
            'JSON Value: {"b64": 1} not formatted correctly for base64 data',
        ),
    ],
)
def test_values_that_do_not_fit(dtype: str, text: str, why: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        one(dtype, text)
    assert caught.value.message == f'{why} (input "x")'
    assert (caught.value.status, caught.value.code) == (400, Code.INVALID_ARGUMENT)
    assert (caught.value.param, caught.value.quotes) == ("x", True)


@pytest.mark.parametrize("label", ["half", "bfloat16", "uint16", "complex64", "complex128"])
def test_dtypes_without_a_form(label: str) -> None:
    words = f"Conversion of JSON Value: 1.0 to type: {label}"
    dtype = f"DT_{label.upper()}"
    with pytest.raises(Unsupported) as caught:
        one(dtype, "1.0")
    assert caught.value.message == f'{words} (input "x")'
    assert (caught.value.status, caught.value.code) == (501, Code.UNIMPLEMENTED)
    with pytest.raises(InvalidRequest) as in_rows:
        read(b'{"instances": [1.0]}', signatures({"x": BY_NAME[dtype]}))
    assert f"Error: UNIMPLEMENTED: {words}" in in_rows.value.message
    assert in_rows.value.status == 400


ELEMENT = "Failed to process element: "
ROW = " of 'instances' list. Error: INVALID_ARGUMENT: "
MAP = "multiple input tensors required as per tensorinfo_map: n,x"
PARSE = "JSON Parse error: "


@pytest.mark.parametrize(
    ("text", "known", "why"),
    [
        (b"", ONE, f"{PARSE}The document is empty"),
        (b" \n", ONE, f"{PARSE}The document is empty. at offset: 2"),
        (b"[]", ONE, "JSON Value: [] Is not object"),
        (b"[NaN]", ONE, "JSON Value: [NaN] Is not object"),
        (b"{", ONE, f"{PARSE}Missing a name for object member. at offset: 1"),
        (b'{"instances": [NaN}', ONE, f"{PARSE}Missing a comma or ] after an array element."),
        (b'{"instances": [NaN, 1e999]}', ONE, f"{PARSE}Number too big to be stored in double."),
        (b'{"instances": [1e999]}', ONE, f"{PARSE}Number too big to be stored in double."),
        (b'{"instances": [NaN, %s]}' % (b"9" * 5000), ONE, f"{PARSE}Number too big"),
        (b'{"instances": [NaN, %s]}' % (b"9" * 400), ONE, f"{ELEMENT}1{ROW}JSON Value: "),
        (b'{"inputs": "\xff"}', TEXT, f"{PARSE}Invalid encoding in string. at offset: 12"),
        (b'{"inputs": [NaN], "note": "\xff"}', ONE, f"{PARSE}Invalid encoding in string."),
        (b'{"inputs": ["\\ud800", NaN]}', TEXT, f"{PARSE}The surrogate pair in string is invalid."),
        (b'{"instances": [1, false]}', ONE, f"{ELEMENT}1{ROW}{unfit('false', 'False', 'float')}"),
        (b'{"instances": [1, true]}', ONE, f"{ELEMENT}1{ROW}{unfit('true', 'True', 'float')}"),
        (b"{}", ONE, "Missing 'inputs' or 'instances' key"),
        (b'{"instances": [1], "inputs": [1]}', ONE, "only one of 'inputs' or 'instances' keys to"),
        (b'{"instances": []}', ONE, "No values in 'instances' array"),
        (b'{"instances": {}}', ONE, "Expecting 'instances' to be an list/array"),
        (b'{"instances": 1}', ONE, "Expecting 'instances' to be an list/array"),
        (
            b'{"instances": [1], "signature_name": 1}',
            ONE,
            "not formatted correctly. 'signature_name' key must be a string value.",
        ),
        (
            b'{"instances": [[1, 2], [3]]}',
            ONE,
            f'{ELEMENT}1{ROW}Expecting tensor size: 2 but got: 1 (input "x")',
        ),
        (b'{"instances": [[1], 2]}', ONE, f"{ELEMENT}1{ROW}Expecting shape [1] but got: []"),
        (
            b'{"instances": [[[1], [2]], [[3], [4, 5]]]}',
            ONE,
            f"{ELEMENT}1{ROW}Encountered list at unexpected size: 2 at level: 1 expected size: 1",
        ),
        (
            b'{"instances": [[1, 2], [[3, 4]]]}',
            ONE,
            f"{ELEMENT}1{ROW}Expecting shape [2] but got: [1,2]",
        ),
        (
            b'{"instances": [{"x": [1]}, {"x": [1, 2]}]}',
            ONE,
            f"{ELEMENT}1 key: x{ROW}Expecting tensor size: 1 but got: 2",
        ),
        (
            b'{"inputs": {"x": [[1], []]}}',
            ONE,
            'Encountered list at unexpected size: 0 at level: 1 expected size: 1 (input "x")',
        ),
        (
            b'{"inputs": [[1], 2]}',
            ONE,
            "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
        ),
        (
            b'{"instances": [1]}',
            TWO,
            f"instances is a plain list, but expecting list of objects as {MAP}",
        ),
        (b'{"instances": [{"b64": "QQ=="}]}', TWO, "instances is a plain list, but expecting"),
        (
            b'{"inputs": [1]}',
            TWO,
            f"inputs is a plain value/list, but expecting an object as {MAP}",
        ),
        (
            b'{"instances": [{"x": 1, "n": 1}, {"x": 1}]}',
            TWO,
            f"{ELEMENT}1 of 'instances' list. JSON object: {{\"x\": 1}} keys must be equal to: n,x",
        ),
        (
            b'{"instances": [{"x": 1, "n": 1, "z": 1}]}',
            TWO,
            f"{ELEMENT}0 key: z{ROW}JSON object: does not have named input: z",
        ),
        (b'{"instances": [{"x": 1, "z": 1}]}', TWO, f"{ELEMENT}0 key: z{ROW}JSON object: does not"),
        (
            b'{"instances": [{"x": 1, "n": 1}, {"x": 1, "n": "1"}]}',
            TWO,
            f"{ELEMENT}1 key: n{ROW}{unfit(chr(34) + '1' + chr(34), 'String', 'int32')}",
        ),
        (b'{"instances": [{"x": 1}, 1]}', ONE, "Expecting object but got list at item 1 of input"),
        (b'{"instances": [1, {"x": 1}]}', ONE, "Expecting value/list but got object at item 1 of"),
        (b'{"instances": [{"s": "a"}, {"b64": "QQ=="}]}', TEXT, "Expecting object but got list at"),
        (b'{"inputs": {"x": 1}}', TWO, "Missing named input: n in 'inputs' object."),
        (b'{"inputs": {}}', ONE, "Missing named input: x in 'inputs' object."),
        (b'{"inputs": [1], "inputs": [2]}', ONE, "'inputs' stands twice"),
        (b'{"inputs": [1], "\\u0069nputs": [2]}', ONE, "'inputs' stands twice"),
        (b'{"inputs": {"x": 1, "x": 2}}', ONE, "'x' stands twice"),
        (b'{"inputs": {"x": Inf, "x": -NaN}} "', ONE, "'x' stands twice"),
        (b'{"instances": [{"x": 1}, {"x": 1, "x": 2}]}', ONE, "'x' stands twice"),
        (b'{"inputs": {"b64": "QQ==", "b64": "Qg=="}}', TEXT, "'b64' stands twice"),
        (
            b'{"instances": [1]}',
            signatures({}, {"y": FLOAT}),
            "Failed to get input map for signature",
        ),
    ],
)
def test_requests_that_are_refused(text: bytes, known: Signatures, why: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        request_from_json(text, known)
    assert why in caught.value.message
    assert caught.value.status == 400


@pytest.mark.parametrize("at", [0, 1, 1023, 1024, 4999])
def test_the_first_wrong_row_of_many_is_told(at: int) -> None:
    rows: list[Any] = [[1.0, 2.0]] * 5000
    rows[at:] = [[1.0, "two"]] * (5000 - at)
    for instances, key in ((rows, ""), ([{"x": row} for row in rows], " key: x")):
        with pytest.raises(InvalidRequest) as caught:
            read(body(instances=instances))
        words = unfit('"two"', "String", "float")
        assert caught.value.message.startswith(f"{ELEMENT}{at}{key}{ROW}{words}")


@pytest.mark.parametrize("at", [0, 4095, 4096, 99_999])
def test_a_wrong_value_deep_in_a_long_row_is_told(at: int) -> None:
    values: list[Any] = [0.5] * 100_000
    values[at] = None
    with pytest.raises(InvalidRequest, match="Value: null Type: Null is not of expected type"):
        read(body(inputs=[values]))


def test_a_wrong_list_among_very_many_is_found_soon() -> None:
    """Processor time, many times what it takes, so that a busy machine can't fail it."""
    began = time.process_time()
    for text in (
        b'{"inputs": [%s[1, 2]]}' % (b"[1]," * 10**6),
        b'{"inputs": [[%s1]]}' % (b"[1]," * 10**6),
        b'{"instances": [%s["a"]]}' % (b"[1]," * 10**6),
        b'{"instances": [%s{"x": "a"}]}' % (b'{"x": 1},' * 10**6),
    ):
        with pytest.raises(
            InvalidRequest, match=r"Enc|Expecting|of 'instances' list|JSON Value: 1"
        ):
            read(text)
    assert time.process_time() - began < 60


def test_an_error_repeats_a_beginning_only() -> None:
    with pytest.raises(InvalidRequest) as caught:
        one("DT_INT32", f'"{"sesame" * 1000}"')
    assert 256 < len(caught.value.message) < 400
    assert caught.value.quotes  # so that no log repeats it
    with pytest.raises(InvalidRequest) as hidden:
        one("DT_INT32", '"\\ud83d\\ude00\u202e"')
    assert hidden.value.message.isprintable()


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


@pytest.mark.parametrize("after", [b"x", b" and more", b"{}", b"}", b'"', b"\\", b"\xff", b"NaN"])
def test_what_follows_the_document_is_no_part_of_it(after: bytes) -> None:
    assert read(b'{"inputs": [1]}' + after)["x"] == tensor(FLOAT, (1,), 1)
    assert read(b'{"inputs": [Inf]}' + after)["x"] == tensor(FLOAT, (1,), INF)


def test_signatures_by_name() -> None:
    other = Signature("other", {"i": TensorSpec(INT32)}, {})
    known = Signatures({**ONE.named, "other": other})
    assert request_from_json(body(signature_name="other", instances=[1]), known)[0] == Tensors(
        {"i": tensor(INT32, (1,), 1)}, "other"
    )
    assert "x" in read(body(signature_name="", instances=[1]), known)
    with pytest.raises(UnknownSignature, match="this version: other, serving_default") as caught:
        read(body(signature_name="third", instances=[1]), known)
    assert (caught.value.status, caught.value.code) == (400, Code.FAILED_PRECONDITION)
    assert caught.value.signature == "third"


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
        (
            {"x": tensor(FLOAT, (1,), 1)},
            (),
            InvalidRequest,
            r"^input size does not match signature: 1!=2 len\(\{x\}\) != len\(\{n,x\}\)\. "
            r"Sent extra: \{\}\. Missing but required: \{n\}\.$",
        ),
        (
            {"x": tensor(FLOAT, (1,), 1), "z": tensor(FLOAT, (1,), 1)},
            (),
            InvalidRequest,
            r"^Signature input alias: n\(feed name: \) not found in request and no default value",
        ),
        (
            {"x": tensor(INT32, (1,), 1), "n": tensor(INT32, (1,), 1)},
            (),
            InvalidRequest,
            "^Expects input 'x' to be float but int32 is provided$",
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
            r"^output tensor alias not found in signature: z Outputs .* in the set \{n,x\}\.$",
        ),
        (
            {"x": tensor(FLOAT, (1,), 1), "n": tensor(INT32, (1,), 1)},
            ("x", "x"),
            InvalidRequest,
            "^duplicate output tensor alias: x$",
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
