"""TensorProto and the messages around it; TensorFlow's own reader is where the rules come from."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from protocols.tensors import cases
from protocols.tensors.cases import BY_NAME, FLOAT, INT32, MAX, STRING, WIRE, tensor

from gateway.errors import Code, GatewayError, InvalidRequest, Unsupported, UpstreamInvalid
from gateway.protocols.tensors import (
    Tensor,
    Tensors,
    request_from_proto,
    request_to_proto,
    response_from_proto,
    response_to_proto,
)
from gateway.protocols.tensors.proto import read_tensor


def message(dtype: str | int, shape: tuple[int, ...], **fields: Any) -> Any:
    number = dtype if isinstance(dtype, int) else BY_NAME[dtype].number
    made = WIRE.TensorProto(dtype=number, **fields)
    for size in shape:
        made.tensor_shape.dim.add().size = size
    return made


# Each was put to TensorFlow 2.21's tf.io.parse_tensor, with these results.
@pytest.mark.parametrize(
    ("dtype", "shape", "fields", "values"),
    [
        ("DT_FLOAT", (2,), {"float_val": [1, 2]}, [1, 2]),
        ("DT_FLOAT", (2,), {"float_val": [1, 2, 3]}, [1, 2]),
        ("DT_FLOAT", (4,), {"float_val": [1, 2]}, [1, 2, 2, 2]),
        ("DT_FLOAT", (2, 2), {"float_val": [5]}, [5, 5, 5, 5]),
        ("DT_FLOAT", (3,), {}, [0, 0, 0]),
        ("DT_FLOAT", (2,), {"double_val": [1, 2]}, [0, 0]),
        ("DT_FLOAT", (), {"float_val": [5]}, [5]),
        ("DT_FLOAT", (), {}, [0]),
        ("DT_FLOAT", (0,), {"float_val": [5]}, []),
        ("DT_FLOAT", (0,), {"tensor_content": b"1234"}, []),
        ("DT_FLOAT", (1,), {"tensor_content": b"\0\0\x80\x3f", "float_val": [7]}, [1]),
        ("DT_DOUBLE", (1,), {"double_val": [0.1]}, [0.1]),
        ("DT_INT8", (2,), {"int_val": [300, -129]}, [44, 127]),
        ("DT_INT16", (1,), {"int_val": [-2]}, [-2]),
        ("DT_UINT8", (1,), {"int_val": [200]}, [200]),
        ("DT_UINT16", (1,), {"int_val": [70000]}, [4464]),
        ("DT_INT64", (1,), {"int64_val": [-(2**63)]}, [-(2**63)]),
        ("DT_UINT32", (1,), {"uint32_val": [2**32 - 1]}, [2**32 - 1]),
        ("DT_UINT64", (1,), {"uint64_val": [2**64 - 1]}, [2**64 - 1]),
        ("DT_HALF", (2,), {"half_val": [0x3C00, 70000]}, [0x3C00, 70000 - 65536]),
        ("DT_BFLOAT16", (2,), {"half_val": [0x3F80]}, [0x3F80, 0x3F80]),
        ("DT_BOOL", (3,), {"bool_val": [True, False]}, [True, False, False]),
        ("DT_COMPLEX64", (2,), {"scomplex_val": [1, 2, 3, 4]}, [1, 2, 3, 4]),
        ("DT_COMPLEX64", (2,), {"scomplex_val": [1, 2]}, [1, 2, 1, 2]),
        ("DT_COMPLEX64", (2,), {"scomplex_val": [1, 2, 3]}, [1, 2, 1, 2]),
        ("DT_COMPLEX128", (1,), {"dcomplex_val": [1, 2]}, [1, 2]),
        ("DT_STRING", (4,), {"string_val": [b"a", b"b"]}, [b"a", b"b", b"b", b"b"]),
        ("DT_STRING", (1,), {"string_val": [b"a", b"b"]}, [b"a"]),
        ("DT_STRING", (2,), {}, [b"", b""]),
        ("DT_STRING", (2,), {"tensor_content": b"\x02\x03abcde"}, [b"ab", b"cde"]),
        ("DT_STRING", (1,), {"tensor_content": b"\x80\x01" + b"a" * 128}, [b"a" * 128]),
    ],
)
def test_values(dtype: str, shape: tuple[int, ...], fields: dict[str, Any], values: Any) -> None:
    got = read_tensor("x", message(dtype, shape, **fields), MAX)
    assert (got.dtype.name, got.shape) == (dtype, shape)
    assert cases.values_of(got) == values


BAD = [
    ("DT_FLOAT", (2,), {"tensor_content": b"1234"}, "4 bytes of tensor_content.* take 8"),
    ("DT_FLOAT", (), {"tensor_content": b"12345"}, "5 bytes of tensor_content.* take 4"),
    ("DT_BOOL", (2,), {"tensor_content": b"\2\0"}, "no bools"),
    ("DT_STRING", (2,), {"tensor_content": b"\x02\x03abcdef"}, "add up to"),
    ("DT_STRING", (2,), {"tensor_content": b"\x02"}, "ends before"),
    ("DT_STRING", (1,), {"tensor_content": b"\x80"}, "ends inside"),
    ("DT_STRING", (1,), {"tensor_content": b"\xff" * 9}, "ends inside"),
    ("DT_FLOAT", (-1,), {"float_val": [1]}, "negative"),
    ("DT_FLOAT", (-1, 0), {}, "negative"),
    ("DT_FLOAT", (2**62, 2**62), {}, "claims a shape"),
    ("DT_FLOAT", (2**31, 2**31, 4), {}, "claims a shape"),
    ("DT_FLOAT", (2**62, 0), {}, "claims a shape"),
    ("DT_STRING", (2**30,), {"string_val": [b""]}, "claims a shape"),
    ("DT_STRING", (2**16,), {"string_val": [b"a" * 1000]}, "filled with a string"),
    ("DT_FLOAT", (1,) * 255, {"float_val": [1]}, "255 dimensions"),
    (0, (1,), {}, "no dtype"),
]


@pytest.mark.parametrize(("dtype", "shape", "fields", "why"), BAD)
def test_tensors_that_are_refused(
    dtype: str | int, shape: tuple[int, ...], fields: dict[str, Any], why: str
) -> None:
    bad = message(dtype, shape, **fields)
    tracemalloc.start()
    try:
        with pytest.raises(
            InvalidRequest, match=rf"^tensor parsing error: x\. It .*{why}"
        ) as caught:
            read_tensor("x", bad, MAX)
        assert tracemalloc.get_traced_memory()[1] < MAX
    finally:
        tracemalloc.stop()
    assert (caught.value.code, caught.value.param) == (Code.INVALID_ARGUMENT, "x")


def test_zeros_after_which_nothing_counts() -> None:
    assert read_tensor("x", message("DT_FLOAT", (0, 2**62, 2**62)), MAX).data == b""


def test_an_unknown_rank() -> None:
    unknown = message("DT_FLOAT", (), float_val=[1])
    unknown.tensor_shape.unknown_rank = True
    assert read_tensor("x", unknown, MAX) == tensor(FLOAT, (), 1)
    unknown.tensor_shape.dim.add().size = 2
    assert read_tensor("x", unknown, MAX) == tensor(FLOAT, (2,), 1, 1)


@pytest.mark.parametrize("number", [11, 20, 21, 29, 101, 999])
def test_dtypes_that_are_not_translated(number: int) -> None:
    with pytest.raises(Unsupported, match=f"'x' is of type DataType {number}"):
        read_tensor("x", message(number, (1,)), MAX)


def test_a_bound_for_all_tensors_together() -> None:
    fills = {name: message("DT_FLOAT", (100,), float_val=[1]) for name in "abc"}
    asked = WIRE.PredictRequest()
    for name, fill in fills.items():
        asked.inputs[name].CopyFrom(fill)
    body = asked.SerializeToString()
    assert len(request_from_proto(WIRE, body, 1200).named) == 3
    with pytest.raises(InvalidRequest, match=r"error: c\. It claims"):
        request_from_proto(WIRE, body, 1199)


def test_too_many_tensors() -> None:
    asked = WIRE.PredictRequest()
    for number in range(4097):
        asked.inputs[str(number)].dtype = 1
    with pytest.raises(InvalidRequest, match="4096"):
        request_from_proto(WIRE, asked.SerializeToString(), MAX)


def test_requests() -> None:
    carried = Tensors(
        {"n": tensor(INT32, (1,), 7), "s": tensor(STRING, (), b"a")}, "other", ("y", "z")
    )
    body = request_to_proto(WIRE, carried, "mnist", 4)
    sent = WIRE.PredictRequest.FromString(body)
    assert (sent.model_spec.name, sent.model_spec.version.value) == ("mnist", 4)
    assert sent.model_spec.signature_name == "other"
    assert sent.inputs["n"].tensor_content == b"\7\0\0\0"
    assert list(sent.inputs["s"].string_val) == [b"a"]
    assert request_from_proto(WIRE, body, MAX) == carried
    latest = WIRE.PredictRequest.FromString(request_to_proto(WIRE, carried, "mnist", None))
    assert not latest.model_spec.HasField("version")
    assert request_from_proto(WIRE, b"", MAX) == Tensors({}, "serving_default")


def test_answers_use_typed_fields_and_are_read_in_both_forms() -> None:
    y = tensor(FLOAT, (1, 2), 1, 2)
    body = response_to_proto(WIRE, Tensors({"y": y}), "mnist", 0)
    answer = WIRE.PredictResponse.FromString(body)
    assert list(answer.outputs["y"].float_val) == [1, 2]
    assert not answer.outputs["y"].tensor_content
    assert answer.model_spec.HasField("version")
    assert response_from_proto(WIRE, body, MAX).named == {"y": y}
    answer.outputs["y"].ClearField("float_val")
    assert isinstance(y.data, bytes)
    answer.outputs["y"].tensor_content = y.data
    assert response_from_proto(WIRE, answer.SerializeToString(), MAX).named == {"y": y}


@pytest.mark.parametrize(
    ("read", "error"),
    [(request_from_proto, InvalidRequest), (response_from_proto, UpstreamInvalid)],
)
def test_bytes_that_are_no_message(read: Any, error: type[GatewayError]) -> None:
    with pytest.raises(error, match="does not parse"):
        read(WIRE, b"\xff", MAX)


def test_a_backend_whose_tensor_is_unsound() -> None:
    answer = WIRE.PredictResponse()
    answer.outputs["y"].CopyFrom(message("DT_FLOAT", (2,), tensor_content=b"1"))
    with pytest.raises(UpstreamInvalid, match=r"tensor parsing error: y\. It has 1 bytes"):
        response_from_proto(WIRE, answer.SerializeToString(), MAX)


def test_equal_tensors_are_equal() -> None:
    assert Tensor(FLOAT, (1,), b"1234") == Tensor(FLOAT, (1,), b"1234")
    assert Tensor(FLOAT, (1,), b"1234") != Tensor(INT32, (1,), b"1234")
