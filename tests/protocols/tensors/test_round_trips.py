"""What goes from one form to the other and back is the same, bit for bit; nothing else escapes."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import assume, given
from hypothesis import strategies as st
from protocols.tensors import cases
from protocols.tensors.cases import JSON_DTYPES, MAX, STRING, WIRE

from gateway.errors import GatewayError
from gateway.protocols import tensors as codecs
from gateway.protocols.tensors import Layout, Tensor, Tensors
from gateway.protocols.tensors.proto import read_tensor, write_tensor

SIGNATURES = cases.signatures({"x": cases.FLOAT, "s": STRING})


@st.composite
def carried(draw: st.DrawFn, *, zeros: bool) -> Tensors:
    """Several tensors with an equal number of rows, all of which JSON has a form for."""
    rows = draw(st.integers(1, 3))
    names = draw(st.lists(cases.tensor_names, min_size=1, max_size=3, unique=True))
    shapes = st.lists(st.integers(1, 3), max_size=2).map(lambda sizes: (rows, *sizes))
    if zeros:  # JSON keeps no size after a 0
        shapes = st.one_of(shapes, shapes.map(lambda shape: (*shape, 0)))
    return Tensors({name: draw(cases.tensors(JSON_DTYPES, draw(shapes))) for name in names})


def written(tensor: Tensor, *, as_bytes: bool) -> Any:
    """A tensor as a client would write it."""
    flat = cases.values_of(tensor)
    if tensor.dtype == STRING and as_bytes:
        flat = [{"b64": base64.b64encode(value).decode()} for value in flat]
    elif tensor.dtype == STRING:
        flat = [value.decode("utf-8", "surrogateescape") for value in flat]
    return cases.nested(flat, tensor.shape)


def request(asked: Tensors, layout: Layout, *, bare: bool) -> bytes:
    """A request as a client would write it."""
    columns = {name: written(tensor, as_bytes=True) for name, tensor in asked.named.items()}
    if bare and len(columns) == 1:
        value = next(iter(columns.values()))
    elif layout is Layout.COLUMNAR:
        value = columns
    else:
        rows = zip(*columns.values(), strict=True)
        value = [dict(zip(columns, row, strict=True)) for row in rows]
    return json.dumps({layout.request_key: value}, ensure_ascii=False).encode()


def shown(value: Any) -> Any:
    """JSON values by type and by bits, so that 1 is not 1.0 and -0.0 is not 0.0."""
    if isinstance(value, list):
        return [shown(item) for item in value]
    if isinstance(value, dict):
        return {key: shown(item) for key, item in value.items()}
    return cases.bits(value) if isinstance(value, float) else (type(value), value)


def as_float32(value: Any, dtype: Any) -> Any:
    """A JSON value as a reader of float32 takes it."""
    if isinstance(value, list):
        return [as_float32(item, dtype) for item in value]
    if dtype != cases.FLOAT:
        return value
    return math.nan if math.isnan(value) else cases.values_of(cases.tensor(dtype, (), value))[0]


@given(carried(zeros=True), st.sampled_from(Layout), st.booleans())
def test_rest_to_grpc_to_rest(asked: Tensors, layout: Layout, bare: bool) -> None:
    # A lone row {"b64": …} is a string in base64 to every reader of this API, whatever is meant.
    assume(bare or "b64" not in asked.named or len(asked.named) > 1)
    got, form = codecs.request_from_json(
        request(asked, layout, bare=bare), cases.signatures_for(asked)
    )
    assert form is layout
    upstream = codecs.request_to_proto(WIRE, got, "m", 1)
    echoed = codecs.request_from_proto(WIRE, upstream, MAX)
    reply = codecs.response_to_proto(WIRE, echoed, "m", 1)
    back = codecs.response_from_proto(WIRE, reply, MAX)
    text = codecs.response_to_json(back, layout).decode("utf-8", "surrogateescape")
    answer = json.loads(text)[layout.response_key]

    for name, tensor in asked.named.items():
        if len(asked.named) == 1:
            column = answer
        elif layout is Layout.COLUMNAR:
            column = answer[name]
        else:
            column = [row[name] for row in answer]
        want = written(tensor, as_bytes=name.endswith("_bytes"))
        assert shown(as_float32(column, tensor.dtype)) == shown(want)


@given(carried(zeros=True))
def test_grpc_to_rest_to_grpc_on_the_way_there(asked: Tensors) -> None:
    signatures = cases.signatures_for(asked)
    got = codecs.request_from_proto(WIRE, codecs.request_to_proto(WIRE, asked, "m", None), MAX)
    upstream = codecs.request_to_json(got, signatures.find(got.signature))
    back, layout = codecs.request_from_json(upstream, signatures)
    assert layout is Layout.COLUMNAR
    assert back.named.keys() == asked.named.keys()
    assert all(cases.same(back.named[name], asked.named[name]) for name in asked.named)


@given(carried(zeros=True))
def test_grpc_to_rest_to_grpc_on_the_way_back(given: Tensors) -> None:
    # Bytes that are no text keep their bits only under a name that says so, or by themselves.
    signature = cases.signatures_for(given).find("")
    reply = codecs.response_to_json(given, Layout.COLUMNAR)
    outputs = codecs.response_from_json(reply, signature)
    message = codecs.response_to_proto(WIRE, outputs, "m", 3)
    back = codecs.response_from_proto(WIRE, message, MAX)
    assert back.named.keys() == given.named.keys()
    assert all(cases.same(back.named[name], given.named[name]) for name in given.named)


@given(cases.tensors())
def test_typed_fields_and_raw_bytes_say_the_same(tensor: Tensor) -> None:
    messages = [WIRE.TensorProto(), WIRE.TensorProto()]
    write_tensor(tensor, messages[0], typed=False)
    write_tensor(tensor, messages[1], typed=True)
    read = [read_tensor("x", message, MAX) for message in messages]
    assert read[0] == tensor
    assert cases.same(read[0], read[1])


def read_or_refused(read: Callable[[], Any]) -> Any:
    """What is read, or the message of an error that a client may see. All else is a bug."""
    try:
        return read() or "nothing"
    except GatewayError as error:
        return error.message


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(10**400, 10**401),
        st.floats(),
        st.text(max_size=3),
        st.just("\ud800"),
        st.fixed_dictionaries({"b64": st.sampled_from(["QQ==", "QQ", "*", "Q", "é", "QQ==QQ"])}),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["x", "s", "b64", "dim", "size"]), inner, max_size=3),
    ),
    max_leaves=12,
)
KEYS = ["signature_name", "instances", "inputs", "predictions", "outputs", "error"]
documents = st.dictionaries(st.sampled_from(KEYS), json_values, max_size=3)
bodies = st.one_of(documents.map(lambda value: json.dumps(value).encode()), st.binary(max_size=30))


@given(bodies)
def test_any_json_is_read_or_refused(body: bytes) -> None:
    assert codecs.error_from_json(400, body)[1]
    for read in (
        lambda: codecs.request_from_json(body, SIGNATURES),
        lambda: codecs.response_from_json(body, SIGNATURES.find("")),
    ):
        assert read_or_refused(read)


# What protobuf's mapping expects, with anything in its places.
metadata = st.fixed_dictionaries(
    {
        "model_spec": st.one_of(
            json_values, st.fixed_dictionaries({"version": json_values, "name": json_values})
        ),
        "metadata": st.fixed_dictionaries(
            {
                "signature_def": st.one_of(
                    json_values,
                    st.fixed_dictionaries(
                        {
                            "signature_def": st.dictionaries(
                                st.text(max_size=2),
                                st.fixed_dictionaries(
                                    {
                                        "inputs": st.one_of(
                                            json_values, st.dictionaries(st.just("x"), json_values)
                                        ),
                                        "method_name": json_values,
                                    }
                                ),
                                max_size=2,
                            )
                        }
                    ),
                )
            }
        ),
    }
)
status = st.fixed_dictionaries(
    {
        "model_version_status": st.one_of(
            json_values,
            st.lists(
                st.fixed_dictionaries(
                    {"version": json_values, "state": json_values, "status": json_values}
                ),
                max_size=2,
            ),
        )
    }
)


@pytest.mark.parametrize(
    "read", [codecs.signatures_from_json, codecs.metadata_from_json, codecs.status_from_json]
)
@given(st.one_of(metadata, status).map(lambda value: json.dumps(value).encode()))
def test_any_metadata_is_read_or_refused(read: Any, body: bytes) -> None:
    assert read_or_refused(lambda: read(WIRE, body))


sizes = st.one_of(st.integers(0, 3), st.sampled_from([-1, 2**31, 2**62, -(2**63)]))


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """A TensorProto in which nothing needs to fit."""
    message = WIRE.TensorProto(dtype=draw(st.integers(0, 34)))
    message.tensor_shape.unknown_rank = draw(st.booleans()) and draw(st.booleans())
    for size in draw(st.lists(sizes, max_size=3)):
        message.tensor_shape.dim.add().size = size
    message.tensor_content = draw(st.one_of(st.just(b""), st.binary(max_size=12)))
    message.float_val.extend(draw(st.lists(st.floats(width=32), max_size=3)))
    message.int_val.extend(draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3)))
    message.half_val.extend(draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3)))
    message.scomplex_val.extend(draw(st.lists(st.floats(width=32), max_size=3)))
    message.string_val.extend(draw(st.lists(st.binary(max_size=3), max_size=3)))
    return message


@given(messages(), st.integers(0, 200))
def test_any_message_is_read_or_refused(message: Any, max_bytes: int) -> None:
    tensor = read_or_refused(lambda: read_tensor("x", message, max_bytes))
    if isinstance(tensor, str):
        assert "'x'" in tensor or tensor.startswith("tensor parsing error: x. It ")
    elif tensor.dtype == STRING:
        assert len(tensor.data) == tensor.size
    else:
        assert len(tensor.data) == tensor.size * tensor.dtype.itemsize <= max_bytes


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    for read in (
        lambda: codecs.request_from_proto(WIRE, body, MAX),
        lambda: codecs.response_from_proto(WIRE, body, MAX),
        lambda: codecs.signatures_from_proto(WIRE, body),
        lambda: codecs.metadata_to_json(WIRE, body),
        lambda: codecs.status_to_json(WIRE, body),
    ):
        assert read_or_refused(read)
