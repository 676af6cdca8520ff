"""TF Serving's REST predict answer ⇄ `Tensors`."""

from __future__ import annotations

from gateway.errors import GatewayError, InvalidRequest, UpstreamInvalid
from gateway.protocols.tensors.document import Document
from gateway.protocols.tensors.json_read import Specs, read_columns
from gateway.protocols.tensors.json_write import encode, write_columns, write_rows
from gateway.protocols.tensors.types import Layout, Signature, Tensor, Tensors, TensorSpec


def response_to_json(tensors: Tensors, layout: Layout) -> bytes:
    """Write an answer in the form that its request came in.

    Raises `InvalidRequest` where TF Serving does, naming the output: no output at all, a dtype
    without a JSON form, and in row form a scalar or outputs of different numbers of rows; and
    `Unsupported` for more lists than a body may hold here.
    """
    if not tensors.named:
        raise InvalidRequest("Cannot convert empty tensor map to JSON")
    write = write_rows if layout is Layout.ROW else write_columns
    return encode({layout.response_key: write(tensors.named)})


def response_from_json(
    body: bytes, signature: Signature, output_filter: tuple[str, ...] = ()
) -> Tensors:
    """Read a backend's answer, in columnar form, with the dtypes of the signature that was asked.

    Of the outputs those in `output_filter` are kept, all where it is empty. Raises
    `UpstreamInvalid` for what is no answer to that signature.
    """
    try:
        named = _read(Document(body, strays=True), signature.outputs)
    except UpstreamInvalid:
        raise
    except GatewayError as error:
        raise UpstreamInvalid(f"the backend's answer can't be read: {error.message}") from None
    kept = {name: named[name] for name in output_filter or sorted(named)}
    return Tensors(kept, signature.name)


def _read(document: Document, outputs: Specs) -> dict[str, Tensor]:
    if not outputs:
        raise InvalidRequest("the signature has no outputs")
    key = Layout.COLUMNAR.response_key
    if key not in document.members:
        raise InvalidRequest(f"it has no {key!r}")
    named = read_columns(document, key, outputs)
    return {name: _with_lost_sizes(tensor, outputs[name]) for name, tensor in named.items()}


def _with_lost_sizes(tensor: Tensor, spec: TensorSpec) -> Tensor:
    """Add the sizes that JSON loses after a 0: `[]` stands for [0] and for [0, 10] alike."""
    known = len(tensor.shape)
    if spec.shape is None or len(spec.shape) <= known or 0 not in tensor.shape:
        return tensor
    lost = tuple(max(size, 0) for size in spec.shape[known:])
    return Tensor(tensor.dtype, tensor.shape + lost, tensor.data)
