"""What the rooms know of a loaded model: its signatures, and the protocol that runs one.

Belongs here: plain data and one protocol, so that REST, gRPC and the manager need no TensorFlow to
be read or tested. Shapes use -1 for a size that is open, and None for an open rank, as TensorInfo
does.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from adapters.savedmodel.status import invalid_argument

DEFAULT_SIGNATURE = "serving_default"

# TensorFlow's DataTypeString differs from the name of the dtype in three places only.
_PROTO_NAMES = {"float32": "float", "float64": "double", "float16": "half"}


def dtype_label(dtype: str) -> str:
    """The name that TensorFlow Serving's messages use for a dtype (`float`, `half`, `int64`)."""
    return _PROTO_NAMES.get(dtype, dtype)


def shape_label(shape: tuple[int, ...] | None) -> str:
    """A shape as `[-1,784]`, or `[?]` for an unknown rank."""
    return "[?]" if shape is None else "[" + ",".join(map(str, shape)) + "]"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output.

    Its alias in the signature, TensorFlow dtype name (`float32`), shape, and the name of the tensor
    in the graph.
    """

    alias: str
    dtype: str
    shape: tuple[int, ...] | None
    feed: str = ""

    def admits(self, shape: tuple[int, ...]) -> bool:
        """True where a tensor of this shape fits."""
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            want in (-1, got) for want, got in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Signature:
    """One named entry of a SavedModel.

    `optional` names the inputs that have a default in the model; `method` is the SignatureDef's
    method_name.
    """

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    optional: frozenset[str] = frozenset()
    method: str = ""

    def check_names(self, given: frozenset[str]) -> None:
        """Refuses missing and unknown inputs (INVALID_ARGUMENT, in TensorFlow Serving's words)."""
        wanted = frozenset(self.inputs)
        if len(given) > len(wanted) or (len(given) < len(wanted) and not self.optional):
            raise invalid_argument(
                f"input size does not match signature: {len(given)}!={len(wanted)} "
                f"len({{{_join(given)}}}) != len({{{_join(wanted)}}}). "
                f"Sent extra: {{{_join(given - wanted)}}}. "
                f"Missing but required: {{{_join(wanted - given)}}}."
            )
        for alias in sorted(wanted - given - self.optional):
            raise invalid_argument(
                f"Signature input alias: {alias}(feed name: {self.inputs[alias].feed}) not found "
                "in request and no default value provided. Inputs expected to be in the request "
                f"{{{_join(given)}}}, or default input alias set: {_join(self.optional)}"
            )
        if given - wanted:
            raise invalid_argument(
                "Inputs contains invalid name. Used request inputs: "
                f"{_join(given & wanted)}, request input: {_join(given)}"
            )

    def check_tensor(self, alias: str, dtype: str, shape: tuple[int, ...]) -> None:
        """Refuses a tensor of another dtype or shape than the signature's (INVALID_ARGUMENT)."""
        spec = self.inputs[alias]
        if dtype != spec.dtype:
            raise invalid_argument(
                f'input "{alias}" of signature "{self.name}" expects dtype '
                f"{dtype_label(spec.dtype)} but got {dtype_label(dtype)}"
            )
        if not spec.admits(shape):
            raise invalid_argument(
                f'input "{alias}" of signature "{self.name}" expects shape '
                f"{shape_label(spec.shape)} but got {shape_label(shape)}"
            )


class Servable(Protocol):
    """A loaded version. Its methods are called from several threads at once."""

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """The signatures that can be run, by name."""

    @property
    def signature_defs(self) -> Mapping[str, Any]:
        """The SignatureDef messages as the model holds them, for metadata."""

    @property
    def checks_methods(self) -> bool:
        """True where a signature serves only the calls that its method_name is for."""

    def metadata(self) -> dict[str, Any]:
        """The same as a JSON value, in proto3 JSON with the fields' own names."""

    def run(self, signature: Signature, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Runs one signature: arrays in by alias, arrays out by alias; strings are object arrays of
        bytes.

        Raises:
            ServingError: the inputs don't fit, or TensorFlow refused; the code is TensorFlow's own.
        """

    def close(self) -> None:
        """Frees the model. No call may be running."""


def _join(names: Iterable[str]) -> str:
    return ",".join(sorted(names))
