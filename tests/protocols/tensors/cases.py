"""Tensors to test with, and plain ways to write what the codecs write: slow and independent."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from gateway.protocols.tensors import (
    DTYPES,
    DType,
    Signature,
    Signatures,
    Tensor,
    Tensors,
    TensorSpec,
)
from gateway.protocols.wire import load

WIRE = load()
BY_NAME = {dtype.name: dtype for dtype in DTYPES.values()}
FLOAT, INT32, STRING = BY_NAME["DT_FLOAT"], BY_NAME["DT_INT32"], BY_NAME["DT_STRING"]
ALL_DTYPES = tuple(DTYPES.values())
JSON_DTYPES = tuple(dtype for dtype in ALL_DTYPES if dtype.json)
MAX = 2**20

# A struct code for one component of each dtype, and how many of those a value takes.
CODES = {
    "DT_FLOAT": ("f", 1),
    "DT_DOUBLE": ("d", 1),
    "DT_INT32": ("i", 1),
    "DT_UINT8": ("B", 1),
    "DT_INT16": ("h", 1),
    "DT_INT8": ("b", 1),
    "DT_INT64": ("q", 1),
    "DT_BOOL": ("?", 1),
    "DT_UINT32": ("I", 1),
    "DT_UINT64": ("Q", 1),
    "DT_UINT16": ("H", 1),
    "DT_HALF": ("H", 1),
    "DT_BFLOAT16": ("H", 1),
    "DT_COMPLEX64": ("f", 2),
    "DT_COMPLEX128": ("d", 2),
}

tensor_names = st.one_of(
    st.sampled_from(["x", "y", "b64", "inputs", "image_bytes", "naïve", 'quo"te', "a/b"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
)


def component(code: str) -> st.SearchStrategy[Any]:
    """A number that fits a struct code."""
    if code in "fd":
        return st.floats(width=32 if code == "f" else 64)
    if code == "?":
        return st.booleans()
    bits = 8 * struct.calcsize(code)
    low = -(1 << bits - 1) if code.islower() else 0
    return st.integers(low, low + (1 << bits) - 1)


def data(dtype: DType, count: int) -> st.SearchStrategy[Any]:
    """The data of a tensor with so many values."""
    if dtype == STRING:
        text = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
        string = st.one_of(st.binary(max_size=4), text.map(str.encode))
        return st.lists(string, min_size=count, max_size=count).map(tuple)
    code, parts = CODES[dtype.name]
    count *= parts
    return st.lists(component(code), min_size=count, max_size=count).map(
        lambda values: struct.pack(f"<{count}{code}", *values)
    )


@st.composite
def tensors(
    draw: st.DrawFn,
    dtypes: Sequence[DType] = ALL_DTYPES,
    shape: tuple[int, ...] | None = None,
) -> Tensor:
    """Any tensor, or one of the dtypes and the shape given."""
    dtype = draw(st.sampled_from(dtypes))
    if shape is None:
        shape = tuple(draw(st.lists(st.integers(0, 3), max_size=4)))
    return Tensor(dtype, shape, draw(data(dtype, math.prod(shape))))


def values_of(tensor: Tensor) -> list[Any]:
    """The values as Python's, one by one."""
    if tensor.dtype == STRING:
        return list(tensor.data)
    code, parts = CODES[tensor.dtype.name]
    assert isinstance(tensor.data, bytes)
    return list(struct.unpack(f"<{tensor.size * parts}{code}", tensor.data))


def nested(values: list[Any], shape: tuple[int, ...]) -> Any:
    """Values in nested lists, by recursion."""
    if not shape:
        return values[0]
    step = math.prod(shape[1:])
    return [nested(values[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal bit for bit; a NaN equals every NaN."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    if one.dtype == STRING or one.dtype.typecode not in "fd":
        return one.data == other.data
    return list(map(bits, values_of(one))) == list(map(bits, values_of(other)))


def bits(value: float) -> bytes:
    """A double's bits, one pattern for all NaNs."""
    return b"NaN" if math.isnan(value) else struct.pack("<d", value)


def signatures(
    inputs: dict[str, DType], outputs: dict[str, DType] | None = None, rank: int | None = None
) -> Signatures:
    """A version with one signature, the default one."""
    shape = None if rank is None else (-1,) * rank
    signature = Signature(
        "serving_default",
        {name: TensorSpec(dtype, shape) for name, dtype in inputs.items()},
        {name: TensorSpec(dtype, shape) for name, dtype in (outputs or inputs).items()},
    )
    return Signatures({signature.name: signature})


def signatures_for(carried: Tensors) -> Signatures:
    """A signature whose inputs and outputs are these tensors."""
    return signatures({name: tensor.dtype for name, tensor in carried.named.items()})


def tensor(dtype: DType, shape: tuple[int, ...], *values: Any) -> Tensor:
    """A tensor of the values given."""
    if dtype == STRING:
        return Tensor(dtype, shape, values)
    code, _ = CODES[dtype.name]
    return Tensor(dtype, shape, struct.pack(f"<{len(values)}{code}", *values))


def body(**members: Any) -> bytes:
    """A JSON body."""
    return json.dumps(members).encode()
