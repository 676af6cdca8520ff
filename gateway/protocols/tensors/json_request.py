"""TF Serving's REST predict request ⇄ `Tensors`."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.errors import InvalidRequest, Unsupported, shown
from gateway.protocols.tensors.document import Document
from gateway.protocols.tensors.json_read import read_columns, read_rows
from gateway.protocols.tensors.json_write import encode, write_tensor
from gateway.protocols.tensors.types import (
    DEFAULT_SIGNATURE,
    Layout,
    Signature,
    Signatures,
    Tensor,
    Tensors,
    names,
)

_SIGNATURE = "signature_name"
_ROW, _COLUMNAR = Layout.ROW.request_key, Layout.COLUMNAR.request_key


def request_from_json(body: bytes, signatures: Signatures) -> tuple[Tensors, Layout]:
    """Read a request with the dtypes of the signature that it names, and the form it came in.

    `body` is within the caller's bounds of size and depth. Raises `InvalidRequest` that names the
    input, `UnknownSignature`, and for a dtype that REST has no form for `InvalidRequest` in row
    form, `Unsupported` in columnar form.
    """
    document = Document(body)
    signature = _signature(document, signatures)
    layout = _layout(document)
    document.saw(layout.request_key)
    read = read_rows if layout is Layout.ROW else read_columns
    try:
        named = read(document, layout.request_key, signature.inputs)
    except Unsupported as error:
        if layout is Layout.COLUMNAR:
            raise
        raise InvalidRequest(error.message, param=error.param) from None  # as TF Serving has it
    document.check_repeats()
    return Tensors(named, signature.name), layout


def request_to_json(tensors: Tensors, signature: Signature) -> bytes:
    """Write a request in columnar form.

    JSON carries neither dtypes nor a filter, so what a server of the gRPC API would refuse is
    refused here. Raises `InvalidRequest` that names the input or output, and `Unsupported` for a
    tensor that JSON can't carry.
    """
    _check_inputs(tensors.named, signature)
    _check_filter(tensors.output_filter, signature)
    written = {
        name: write_tensor(name, tensor, exactly=True) for name, tensor in tensors.named.items()
    }
    strict = all(value.strict for value in written.values())
    inputs = {name: value.value for name, value in written.items()}
    # An object whose only key is `b64` would be read as a string, so that name is left out.
    value = inputs["b64"] if inputs.keys() == {"b64"} else inputs
    return encode({_SIGNATURE: tensors.signature or DEFAULT_SIGNATURE, _COLUMNAR: value}, strict)


def _signature(document: Document, signatures: Signatures) -> Signature:
    name = document.members.get(_SIGNATURE, "")
    if type(name) is not str:
        raise InvalidRequest(f"{_SIGNATURE!r} must be a string", param=_SIGNATURE)
    document.saw(_SIGNATURE)
    signature = signatures.find(name)
    if not signature.inputs:
        raise InvalidRequest(f"the signature {shown(signature.name)!r} takes no inputs")
    return signature


def _layout(document: Document) -> Layout:
    rows, columns = _ROW in document.members, _COLUMNAR in document.members
    if rows and columns:
        raise InvalidRequest(f"the body has both {_ROW!r} and {_COLUMNAR!r}; send one of them")
    if not rows and not columns:
        raise InvalidRequest(
            f"the body has neither {_ROW!r} (row form) nor {_COLUMNAR!r} (columnar form)"
        )
    return Layout.ROW if rows else Layout.COLUMNAR


def _check_inputs(named: Mapping[str, Tensor], signature: Signature) -> None:
    extra = sorted(named.keys() - signature.inputs.keys())
    if extra:
        raise InvalidRequest(
            f"the signature {shown(signature.name)!r} has no input {shown(extra[0])!r}, only "
            f"{names(signature.inputs)}",
            param=extra[0],
        )
    missing = sorted(signature.inputs.keys() - named.keys())
    if missing:
        optional = missing[0] in signature.optional
        why = "; REST backends need it although it has a default" if optional else ""
        raise InvalidRequest(f"the input {shown(missing[0])!r} is missing{why}", param=missing[0])
    for name, tensor in named.items():
        _check_input(name, tensor, signature)


def _check_input(name: str, tensor: Tensor, signature: Signature) -> None:
    wanted = signature.inputs[name].dtype
    if tensor.dtype != wanted:
        raise InvalidRequest(
            f"the input {shown(name)!r} is of type {tensor.dtype}, the signature wants {wanted}",
            param=name,
        )
    if not wanted.json:
        raise Unsupported(
            f"the input {shown(name)!r} is of type {wanted}, which the model's REST backends can't "
            "take; give the model a backend with a gRPC address",
            param=name,
        )
    if 0 in tensor.shape[:-1]:
        raise Unsupported(
            f"the input {shown(name)!r} is empty and its shape {list(tensor.shape)} has no form in "
            "JSON; send at least one row",
            param=name,
        )


def _check_filter(wanted: tuple[str, ...], signature: Signature) -> None:
    for name in wanted:
        if name not in signature.outputs:
            raise InvalidRequest(
                f"output_filter: the signature {shown(signature.name)!r} has no output "
                f"{shown(name)!r}, only {names(signature.outputs)}",
                param="output_filter",
            )
    if len(set(wanted)) < len(wanted):
        raise InvalidRequest("output_filter names an output twice", param="output_filter")
