"""TF Serving's REST predict request ⇄ `Tensors`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gateway.errors import InvalidRequest, Unsupported, shown
from gateway.protocols.tensors.document import Document
from gateway.protocols.tensors.json_read import read_columns, read_rows
from gateway.protocols.tensors.json_write import encode, write_tensor
from gateway.protocols.tensors.reading import excerpt
from gateway.protocols.tensors.types import (
    DEFAULT_SIGNATURE,
    Layout,
    Signature,
    Signatures,
    Tensor,
    Tensors,
)

_SIGNATURE = "signature_name"
_LISTED = 50  # names in an error
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
    named = read(document, layout.request_key, signature.inputs)
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
    inputs = {
        name: write_tensor(name, tensor, exactly=True) for name, tensor in tensors.named.items()
    }
    # An object whose only key is `b64` would be read as a string, so that name is left out.
    value = inputs["b64"] if inputs.keys() == {"b64"} else inputs
    return encode({_SIGNATURE: tensors.signature or DEFAULT_SIGNATURE, _COLUMNAR: value})


def _signature(document: Document, signatures: Signatures) -> Signature:
    name = document.members.get(_SIGNATURE, "")
    if type(name) is not str:
        raise InvalidRequest(
            f"JSON Value: {excerpt(document.members)} not formatted correctly. {_SIGNATURE!r} key "
            "must be a string value.",
            param=_SIGNATURE,
            quotes=True,
        )
    document.saw(_SIGNATURE)
    signature = signatures.find(name)
    if not signature.inputs:
        raise InvalidRequest(f"Failed to get input map for signature: {shown(signature.name)}")
    return signature


def _layout(document: Document) -> Layout:
    rows, columns = _ROW in document.members, _COLUMNAR in document.members
    if rows and columns:
        raise InvalidRequest(
            f"JSON Value: {excerpt(document.members)} Not formatted correctly expecting only one "
            f"of {_COLUMNAR!r} or {_ROW!r} keys to exist",
            quotes=True,
        )
    if not rows and not columns:
        raise InvalidRequest(f"Missing {_COLUMNAR!r} or {_ROW!r} key")
    return Layout.ROW if rows else Layout.COLUMNAR


def _check_inputs(named: Mapping[str, Tensor], signature: Signature) -> None:
    """Compare inputs with a signature's, in the order and words of TF Serving's predict_util."""
    given, wanted = named.keys(), signature.inputs.keys()
    if len(given) > len(wanted) or (len(given) < len(wanted) and not signature.optional):
        raise InvalidRequest(
            f"input size does not match signature: {len(given)}!={len(wanted)} "
            f"len({_set(given)}) != len({_set(wanted)}). Sent extra: {_set(given - wanted)}. "
            f"Missing but required: {_set(wanted - given)}.",
            param=min(given ^ wanted),
        )
    missing = sorted(wanted - given)
    for name in missing:
        if name in signature.optional:
            raise InvalidRequest(
                f"the input {shown(name)!r} is missing; REST backends need it although it has a "
                "default",
                param=name,
            )
        feed = shown(signature.inputs[name].feed)
        raise InvalidRequest(
            f"Signature input alias: {shown(name)}(feed name: {feed}) not found in request and no "
            f"default value provided. Inputs expected to be in the request {_set(given)}, or "
            f"default input alias set: {_set(signature.optional)}",
            param=name,
        )
    for name, tensor in named.items():
        _check_input(name, tensor, signature)


def _set(found: Iterable[str]) -> str:
    listed = sorted(found)
    more = [f"and {len(listed) - _LISTED} more"] if len(listed) > _LISTED else []
    return f"{{{','.join([*map(shown, listed[:_LISTED]), *more])}}}"


def _check_input(name: str, tensor: Tensor, signature: Signature) -> None:
    wanted = signature.inputs[name].dtype
    if tensor.dtype != wanted:
        raise InvalidRequest(
            f"Expects input {shown(name)!r} to be {wanted.label} but {tensor.dtype.label} is "
            "provided",
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
    seen = set[str]()
    for name in wanted:
        if name not in signature.outputs:
            raise InvalidRequest(
                f"output tensor alias not found in signature: {shown(name)} Outputs expected to be "
                f"in the set {_set(signature.outputs)}.",
                param="output_filter",
            )
        if name in seen:
            raise InvalidRequest(
                f"duplicate output tensor alias: {shown(name)}", param="output_filter"
            )
        seen.add(name)
