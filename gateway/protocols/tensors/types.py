"""The dtypes that can be translated, and the two layouts of a REST body.

Numbers and names are those of TensorFlow's `types.proto`; which JSON takes is what TF Serving's
REST API converts, no more. The data itself is in `gateway.types`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

from gateway.errors import UnknownSignature
from gateway.types.tensors import (
    DEFAULT_SIGNATURE,
    Data,
    DType,
    Kind,
    Signature,
    Signatures,
    Tensor,
    Tensors,
    TensorSpec,
    names,
)

__all__ = [
    "DEFAULT_SIGNATURE",
    "DTYPES",
    "MAX_RANK",
    "DType",
    "Data",
    "Kind",
    "Layout",
    "Signature",
    "Signatures",
    "Tensor",
    "TensorSpec",
    "Tensors",
    "UnknownSignature",
    "dtype_of",
    "names",
]

MAX_RANK = 254
"""Dimensions that TensorFlow allows in a shape."""

_ROWS = (
    DType("DT_FLOAT", 1, Kind.FLOAT, 4, "f", "float_val", True),
    DType("DT_DOUBLE", 2, Kind.FLOAT, 8, "d", "double_val", True),
    DType("DT_INT32", 3, Kind.INTEGER, 4, "i", "int_val", True),
    DType("DT_UINT8", 4, Kind.INTEGER, 1, "B", "int_val", True),
    DType("DT_INT16", 5, Kind.INTEGER, 2, "h", "int_val", True),
    DType("DT_INT8", 6, Kind.INTEGER, 1, "b", "int_val", True),
    DType("DT_STRING", 7, Kind.STRING, field="string_val", json=True),
    DType("DT_COMPLEX64", 8, Kind.COMPLEX, 8, "f", "scomplex_val"),
    DType("DT_INT64", 9, Kind.INTEGER, 8, "q", "int64_val", True),
    DType("DT_BOOL", 10, Kind.BOOL, 1, "B", "bool_val", True),
    DType("DT_BFLOAT16", 14, Kind.BITS, 2, "H", "half_val"),
    DType("DT_UINT16", 17, Kind.INTEGER, 2, "H", "int_val"),  # TF Serving's REST has none
    DType("DT_COMPLEX128", 18, Kind.COMPLEX, 16, "d", "dcomplex_val"),
    DType("DT_HALF", 19, Kind.BITS, 2, "H", "half_val"),
    DType("DT_UINT32", 22, Kind.INTEGER, 4, "I", "uint32_val", True),
    DType("DT_UINT64", 23, Kind.INTEGER, 8, "Q", "uint64_val", True),
)
DTYPES: Mapping[int, DType] = MappingProxyType({dtype.number: dtype for dtype in _ROWS})
"""The dtypes that can be translated, by their number."""


def dtype_of(number: int) -> DType:
    """Return a dtype; one that is not translated (quantized, resource, …) has `Kind.OTHER`."""
    return DTYPES.get(number) or DType(f"DataType {number}", number, Kind.OTHER)


class Layout(Enum):
    """The form of a REST body: a list of rows, or a list for each tensor.

    The values are the keys that hold the tensors in a request and in its answer.
    """

    ROW = ("instances", "predictions")
    COLUMNAR = ("inputs", "outputs")

    @property
    def request_key(self) -> str:
        """The member of a request that holds the inputs."""
        return self.value[0]

    @property
    def response_key(self) -> str:
        """The member of an answer that holds the outputs."""
        return self.value[1]
