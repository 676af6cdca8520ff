"""Named tensors, and what a version's signatures say of them: the common tongue of two forms.

Plain frozen data; the table of dtypes and the codecs are in `gateway.protocols.tensors`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum

import msgspec

from gateway.errors import UnknownSignature, shown

DEFAULT_SIGNATURE = "serving_default"

Data = bytes | tuple[bytes, ...]
"""A tensor's values in row-major order: little-endian bytes, or one `bytes` for each string."""


class Kind(Enum):
    """How the values of a dtype are read and written."""

    FLOAT = "float"
    INTEGER = "integer"
    BOOL = "bool"
    STRING = "string"
    BITS = "bits"  # 16-bit floats, which travel as integers
    COMPLEX = "complex"
    OTHER = "other"


class DType(msgspec.Struct, frozen=True, gc=False):
    """A type of values.

    `itemsize` is the bytes of one value, 0 where they differ (strings) or are not known here.
    `typecode` is that of the `array` which holds the values; complex numbers take two of them.
    `field` is the one of `TensorProto` that carries single values. `json`: REST has a form for it.
    """

    name: str
    number: int
    kind: Kind
    itemsize: int = 0
    typecode: str = ""
    field: str = ""
    json: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def label(self) -> str:
        """Return the name as TensorFlow's messages have it: `float`, `int64`."""
        return self.name.removeprefix("DT_").lower()


class Tensor(msgspec.Struct, frozen=True):
    """Values of one dtype in a full shape; `data` holds exactly as many as the shape says."""

    dtype: DType
    shape: tuple[int, ...]
    data: Data

    @property
    def size(self) -> int:
        """How many values there are."""
        return math.prod(self.shape)


class Tensors(msgspec.Struct, frozen=True):
    """What one predict call carries, to a model or from it.

    `output_filter` names the outputs wanted; empty: all.
    """

    named: Mapping[str, Tensor]
    signature: str = DEFAULT_SIGNATURE
    output_filter: tuple[str, ...] = ()


class TensorSpec(msgspec.Struct, frozen=True):
    """An input or output of a signature. -1 stands for an open size, None for an open rank.

    `feed` is the tensor's name in the model's graph, for errors.
    """

    dtype: DType
    shape: tuple[int, ...] | None = None
    feed: str = ""


class Signature(msgspec.Struct, frozen=True):
    """What one signature takes and gives. `optional` names inputs for which it has a default."""

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    method: str = ""
    optional: frozenset[str] = frozenset()


class Signatures(msgspec.Struct, frozen=True):
    """All signatures of one version, by name."""

    named: Mapping[str, Signature]

    def find(self, name: str) -> Signature:
        """Return a signature; no name is the default one's. Raises `UnknownSignature`."""
        found = self.named.get(name or DEFAULT_SIGNATURE)
        if found is not None:
            return found
        wanted = shown(name or DEFAULT_SIGNATURE)
        error = UnknownSignature(
            f"The signatures of this version: {names(self.named)}.", param="signature_name"
        )
        error.signature = wanted
        raise error


def names(named: Mapping[str, object]) -> str:
    """Return names as an error lists them: sorted, at most ten."""
    listed = [shown(name) for name in sorted(named)[:10]]
    return ", ".join(listed) + (", …" if len(named) > len(listed) else "") or "it has none"
