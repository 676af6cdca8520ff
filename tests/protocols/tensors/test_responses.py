"""REST predict answers, rule by rule, to the byte."""

from __future__ import annotations

import math
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protocols.tensors import cases
from protocols.tensors.cases import BY_NAME, FLOAT, INT32, STRING, signatures, tensor

from gateway.errors import Code, GatewayError, InvalidRequest, Unsupported, UpstreamInvalid
from gateway.protocols.tensors import (
    DType,
    Layout,
    Signature,
    Tensor,
    Tensors,
    TensorSpec,
    response_from_json,
    response_to_json,
)

DOUBLE, INT64, UINT64, BOOL = (
    BY_NAME[name] for name in ("DT_DOUBLE", "DT_INT64", "DT_UINT64", "DT_BOOL")
)
NAN, INF = float("nan"), float("inf")
ROW, COLUMNAR = Layout.ROW, Layout.COLUMNAR
ONE = signatures({"x": FLOAT}, {"y": FLOAT}).find("")
TWO = signatures({"x": FLOAT}, {"y": FLOAT, "n": INT64}).find("")


def write(layout: Layout, **named: Tensor) -> bytes:
    return response_to_json(Tensors(named), layout)


@pytest.mark.parametrize(
    ("layout", "named", "text"),
    [
        (
            ROW,
            {"y": tensor(FLOAT, (2, 2), 1, 0.5, 0.1, -0.0)},
            '{"predictions":[[1.0,0.5],[0.1,-0.0]]}',
        ),
        (ROW, {"y": tensor(FLOAT, (2,), 1, 2)}, '{"predictions":[1.0,2.0]}'),
        (ROW, {"y": tensor(FLOAT, (2, 1), 1, 2)}, '{"predictions":[[1.0],[2.0]]}'),
        (ROW, {"y": tensor(FLOAT, (0, 2))}, '{"predictions":[]}'),
        (ROW, {"y": tensor(FLOAT, (2, 0, 3))}, '{"predictions":[[],[]]}'),
        (COLUMNAR, {"y": tensor(FLOAT, (1, 2), 1, 2)}, '{"outputs":[[1.0,2.0]]}'),
        (COLUMNAR, {"y": tensor(FLOAT, (), 1)}, '{"outputs":1.0}'),
        (
            ROW,
            {"y": tensor(FLOAT, (2, 1), 1, 2), "n": tensor(INT32, (2,), 3, 4)},
            '{"predictions":[{"y":[1.0],"n":3},{"y":[2.0],"n":4}]}',
        ),
        (
            COLUMNAR,
            {"y": tensor(FLOAT, (1,), 1), "n": tensor(INT32, (2,), 3, 4)},
            '{"outputs":{"y":[1.0],"n":[3,4]}}',
        ),
        (
            ROW,
            {"y": tensor(FLOAT, (3,), NAN, INF, -INF)},
            '{"predictions":[NaN,Infinity,-Infinity]}',
        ),
        (ROW, {"y": tensor(FLOAT, (2,), NAN, 1)}, '{"predictions":[NaN,1.0]}'),
        (ROW, {"y": tensor(DOUBLE, (2,), 1, INF)}, '{"predictions":[1.0,Infinity]}'),
        (ROW, {"y": tensor(DOUBLE, (2,), 0.1, 1e-7)}, '{"predictions":[0.1,1e-07]}'),
        (ROW, {"y": tensor(FLOAT, (2,), 1 / 3, 9e6)}, '{"predictions":[0.333333343,9e+06]}'),
        (
            COLUMNAR,
            {"y": tensor(DOUBLE, (3,), 1 / 3, 9e6, -1234567)},
            '{"outputs":[0.33333333333333331,9e+06,-1234567.0]}',
        ),
        (
            ROW,
            {"y": tensor(FLOAT, (2, 2), 1, NAN, 3e-5, INF), "z": tensor(DOUBLE, (2,), 1, -INF)},
            '{"predictions":[{"y":[1.0,NaN],"z":1.0},{"y":[3e-05,Infinity],"z":-Infinity}]}',
        ),
        (
            ROW,
            {"y": tensor(FLOAT, (2, 0)), "n": tensor(INT32, (2,), 3, 4)},
            '{"predictions":[{"y":[],"n":3},{"y":[],"n":4}]}',
        ),
        (
            ROW,
            {"y": tensor(INT64, (2,), 2**53 + 1, -(2**63))},
            '{"predictions":[9007199254740993,-9223372036854775808]}',
        ),
        (ROW, {"y": tensor(UINT64, (1,), 2**64 - 1)}, '{"predictions":[18446744073709551615]}'),
        (ROW, {"y": tensor(BOOL, (2,), True, False)}, '{"predictions":[true,false]}'),
        (ROW, {"y": tensor(STRING, (2,), b"a\n", "é".encode())}, '{"predictions":["a\\n","é"]}'),
        (
            ROW,
            {"y_bytes": tensor(STRING, (2,), b"a", b"\xff")},
            '{"predictions":[{"b64":"YQ=="},{"b64":"/w=="}]}',
        ),
        (ROW, {"y_bytes": tensor(INT32, (1,), 1)}, '{"predictions":[1]}'),
        (COLUMNAR, {"y_bytes": tensor(STRING, (), b"a")}, '{"outputs":{"b64":"YQ=="}}'),
    ],
)
def test_answers(layout: Layout, named: dict[str, Tensor], text: str) -> None:
    assert write(layout, **named) == text.encode()


def test_bytes_that_are_no_text_leave_as_they_are() -> None:
    assert (
        write(ROW, y=tensor(STRING, (2,), b'\xff"', b"\n")) == b'{"predictions":["\xff\\"","\\n"]}'
    )


@pytest.mark.parametrize(
    ("layout", "named", "why"),
    [
        (ROW, {}, "^Cannot convert empty tensor map to JSON$"),
        (COLUMNAR, {}, "^Cannot convert empty tensor map to JSON$"),
        (ROW, {"y": tensor(FLOAT, (), 1)}, "^Tensor name: y has no shape information"),
        (
            ROW,
            {"y": tensor(FLOAT, (1,), 1), "z": tensor(FLOAT, (2,), 1, 2)},
            "^Tensor name: z has inconsistent batch size: 2 expecting: 1$",
        ),
        *(
            (
                layout,
                {"y": Tensor(BY_NAME[f"DT_{label.upper()}"], (0,), b"")},
                rf"^Failed to write JSON value for tensor type: {label} \(output 'y'\)",
            )
            for label in ("half", "bfloat16", "complex64", "complex128", "uint16")
            for layout in Layout
        ),
    ],
)
def test_answers_without_a_form(layout: Layout, named: dict[str, Tensor], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as caught:
        write(layout, **named)
    assert (caught.value.status, caught.value.code) == (400, Code.INVALID_ARGUMENT)


@pytest.mark.parametrize("shape", [(3_000_000, 1, 1), (2000, 2001, 0), (1,) * 253 + (20_000, 2, 1)])
def test_more_lists_than_memory_should_hold(shape: tuple[int, ...]) -> None:
    small = Tensor(BY_NAME["DT_BOOL"], shape, b"\0" * (3_000_000 if shape[-1] else 0))
    if shape[0] == 1:
        small = Tensor(BY_NAME["DT_BOOL"], (20_000,) + (1,) * 253, b"\0" * 20_000)
    with pytest.raises(Unsupported, match="'y' has more than"):
        write(COLUMNAR, y=small)


def serving_text(value: float, code: str) -> str:
    """The rule as TF Serving has it: six digits if they are the same number, else all."""
    if not math.isfinite(value):
        return {INF: "Infinity", -INF: "-Infinity"}.get(value, "NaN")
    text = f"{value:.{17 if code == 'd' else 9}g}"
    few = f"{value:.6g}"
    try:
        if struct.unpack(f"<{code}", struct.pack(f"<{code}", float(few)))[0] == value:
            text = few
    except OverflowError:
        pass
    return text if "." in text or "e" in text else f"{text}.0"


@pytest.mark.parametrize(("dtype", "code"), [(FLOAT, "f"), (DOUBLE, "d")])
@given(st.data())
def test_digits(dtype: DType, code: str, data: st.DataObject) -> None:
    width = 32 if code == "f" else 64
    few = st.integers(-(10**7), 10**7).map(lambda n: n / 1000)  # what few digits name
    one = st.one_of(st.floats(width=width), few, few.map(lambda n: n / 1e9), st.floats(-1e7, 1e7))
    drawn = data.draw(st.lists(one, min_size=1, max_size=8))
    numbers = struct.unpack(f"<{len(drawn)}{code}", struct.pack(f"<{len(drawn)}{code}", *drawn))
    wanted = ",".join(serving_text(number, code) for number in numbers)
    got = write(ROW, y=tensor(dtype, (len(numbers),), *numbers))
    assert got.decode() == f'{{"predictions":[{wanted}]}}'


@pytest.mark.parametrize("dtype", [FLOAT, DOUBLE])
def test_digits_of_many_values(dtype: DType) -> None:
    drawn = random.Random(3)
    numbers = [drawn.choice([0.0, 1e-9, 1.0, 1e7]) * drawn.random() for _ in range(40_000)]
    code = dtype.typecode
    kept = struct.unpack(f"<40000{code}", struct.pack(f"<40000{code}", *numbers))
    texts = [serving_text(number, code) for number in kept]
    rows = [f"[{texts[at]},{texts[at + 1]}]" for at in range(0, 40_000, 2)]
    text = write(COLUMNAR, y=tensor(dtype, (20_000, 2), *numbers)).decode()
    assert text == f'{{"outputs":[{",".join(rows)}]}}'


def test_a_million_floats() -> None:
    rows = 10**5
    text = write(ROW, y=Tensor(FLOAT, (rows, 10), tensor(FLOAT, (1,), 0.1).data * rows * 10))
    assert text == b'{"predictions":[%s]}' % b",".join([b"[%s]" % b",".join([b"0.1"] * 10)] * rows)


@pytest.mark.parametrize(
    ("text", "wanted", "named"),
    [
        (b'{"outputs": [[1.0, NaN]]}', (), {"y": tensor(FLOAT, (1, 2), 1, NAN)}),
        (b'{"outputs": 1.5}', (), {"y": tensor(FLOAT, (), 1.5)}),
        (b'{"outputs": []}', (), {"y": tensor(FLOAT, (0,))}),
    ],
)
def test_answers_of_rest_backends(
    text: bytes, wanted: tuple[str, ...], named: dict[str, Tensor]
) -> None:
    got = response_from_json(text, ONE, wanted).named
    assert got.keys() == named.keys()
    assert all(cases.same(got[name], named[name]) for name in named)


def test_several_outputs_and_a_filter() -> None:
    text = b'{"outputs": {"n": [9007199254740993], "y": [1.0]}}'
    n, y = tensor(INT64, (1,), 2**53 + 1), tensor(FLOAT, (1,), 1)
    assert response_from_json(text, TWO).named == {"n": n, "y": y}
    assert response_from_json(text, TWO, ("y",)).named == {"y": y}


@pytest.mark.parametrize(
    ("shape", "got", "full"),
    [
        ((-1, 10), b"[]", (0, 10)),
        ((-1, 2, -1, 3), b"[[], []]", (2, 0, 0, 3)),
        ((-1,), b"[]", (0,)),
        (None, b"[]", (0,)),
        ((-1, 10, 10), b"[[1.0]]", (1, 1)),
    ],
)
def test_sizes_that_json_loses(
    shape: tuple[int, ...] | None, got: bytes, full: tuple[int, ...]
) -> None:
    signature = Signature("serving_default", {}, {"y": TensorSpec(FLOAT, shape)})
    assert response_from_json(b'{"outputs": %s}' % got, signature).named["y"].shape == full


def test_text_that_is_not_utf8() -> None:
    signature = signatures({"x": FLOAT}, {"y": STRING}).find("")
    got = response_from_json(b'{"outputs": ["\xff", "a", NaN]}'.replace(b", NaN", b""), signature)
    assert got.named["y"] == tensor(STRING, (2,), b"\xff", b"a")


@pytest.mark.parametrize(
    ("text", "signature", "why"),
    [
        (b"oops", ONE, "JSON Parse error: "),
        (b'{"predictions": [1]}', ONE, "no 'outputs'"),
        (b'{"outputs": [1, "a"]}', ONE, r'of expected type: float \(output "y"\)$'),
        (b'{"outputs": [1]}', TWO, "tensorinfo_map: n,y$"),
        (b'{"outputs": {"y": [1]}}', TWO, "Missing named output: n in 'outputs' object"),
        (b'{"outputs": [[1], 2]}', ONE, r'found at incorrect level: 2 .* \(output "y"\)$'),
        (
            b'{"outputs": 1}',
            signatures({"x": FLOAT}, {"y": BY_NAME["DT_HALF"]}).find(""),
            "to type: half",
        ),
    ],
)
def test_answers_that_are_none(text: bytes, signature: Signature, why: str) -> None:
    with pytest.raises(UpstreamInvalid, match=why) as caught:
        response_from_json(text, signature)
    assert isinstance(caught.value, GatewayError)
    assert caught.value.status == 502
