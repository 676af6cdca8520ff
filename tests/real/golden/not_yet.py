"""What a target does not satisfy, and where it says more: vector by vector, with the reason.

`test_golden` checks that each line of `NOT_YET` fails still, so a line goes once its reason is
gone, and that each of `HINTS` is there. Nothing is added here but what a person has looked at.
Reasons that begin with "on purpose" stay.
"""

from collections.abc import Mapping

_PATHS = "on purpose: the path is OpenAI's, and so is the error"
_NO_MULTI = "on purpose: REST has no MultiInference"
_NO_JSON_FORM = "on purpose: REST has no form for this dtype"


def _all(reason: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, reason)


def _group(prefix: str, names: str) -> list[str]:
    return [f"{prefix}.{name}" for name in names.split()]


_ANY_FORM = _all(_PATHS, "routes.not-models", "status.unknown-model", "status.no-model")
_GRPC_OVER_REST = {
    **_all(
        _NO_MULTI,
        *_group(
            "multi-inference",
            "regress-and-classify two-regressions signature-twice unknown-signature no-examples"
            " predict-method",
        ),
    ),
    **_all(
        _NO_JSON_FORM,
        *_group("tensors", "half bfloat16 uint16 complex64 complex128 content-half"),
    ),
}
NOT_YET: Mapping[str, Mapping[str, str]] = {
    "gateway": _ANY_FORM,
    "gateway-over-grpc": _ANY_FORM,
    "gateway-over-rest": {**_ANY_FORM, **_GRPC_OVER_REST},
}

_NAMES = r"\. The model `\w+` does not exist\. Models here: [\w, ]+\."
_VERSIONS = r"\. \w+ has no version \d+\. Versions of \w+: [\w, =;:]+\."
_LABELS = r"\. Versions of \w+: [\w, =;:]+\."
_SIGNATURES = r"\. The signatures of this version: [\w, …]+\."
_INPUT = r' \(input "x"\)'
_FEATURE = r" \(feature: x\)"
_TENSOR = r"\. It [^.]+"
_RESOLVED = {
    **_all(
        _NAMES,
        *_group("errors", "unknown-model unknown-model-grpc"),
        *_group("metadata", "rest-unknown-model grpc-unknown-model"),
        *_group("classify", "unknown-model grpc-unknown-model"),
        "multi-inference.unknown-model",
        "routes.model-names-keep-their-case",
        "status.unknown-model-grpc",
    ),
    **_all(
        _VERSIONS,
        *_group("versions", "unknown unknown-grpc zero-is-a-version zero-is-a-version-grpc"),
        *_group("status", "unknown-version unknown-version-grpc"),
        "metadata.rest-unknown-version",
    ),
    **_all(_LABELS, *_group("versions", "label-unknown label-unknown-grpc")),
}
_READ_FROM_JSON = {
    **_all(
        _INPUT,
        *_group(
            "errors",
            "rows-of-different-sizes rows-of-different-shapes scalar-row-and-list-row ragged-row"
            " ragged-column list-too-deep value-too-high strings-for-floats null-for-a-float"
            " bool-for-a-float number-for-a-bool number-for-a-string decimal-for-an-int"
            " exponent-for-an-int object-for-an-int beyond-int32 below-int32 beyond-int64"
            " negative-for-uint32 beyond-uint32 negative-for-uint64 beyond-uint64"
            " base64-broken-row base64-broken-column base64-url-alphabet"
            " base64-with-a-second-key",
        ),
        *_group(
            "dtypes",
            "half-columnar-is-unimplemented bfloat16-columnar-is-unimplemented"
            " uint16-columnar-is-unimplemented complex64-columnar-is-unimplemented",
        ),
    ),
    **_all(_FEATURE, "regress.base64-broken"),
    **_all(_SIGNATURES, "signatures.unknown-rest"),
}
_READ_FROM_GRPC = _all(
    _TENSOR,
    *_group(
        "tensors", "content-shorter-than-the-shape content-longer-than-the-shape negative-size"
    ),
)
HINTS: Mapping[str, Mapping[str, str]] = {
    "gateway": _RESOLVED,
    "gateway-over-grpc": {**_RESOLVED, **_READ_FROM_JSON},
    "gateway-over-rest": {**_RESOLVED, **_READ_FROM_GRPC},
}
"""What follows TF Serving's words in an error that the gateway itself makes, as a pattern."""
