"""A backend's errors from one of TF Serving's protocols into the other.

Over gRPC a code with details; over REST a status (`http_server.cc`'s table) and `{"error": …}`.
Several codes share a status, so the way back gives the one that TF Serving means by it most.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from gateway.errors import Code

_STATUS: Mapping[int, int] = MappingProxyType(
    {
        Code.OK: 200,
        Code.INVALID_ARGUMENT: 400,
        Code.FAILED_PRECONDITION: 400,
        Code.OUT_OF_RANGE: 400,
        Code.UNAUTHENTICATED: 401,
        Code.PERMISSION_DENIED: 403,
        Code.NOT_FOUND: 404,
        Code.ALREADY_EXISTS: 409,
        Code.ABORTED: 409,
        Code.RESOURCE_EXHAUSTED: 429,
        Code.CANCELLED: 499,
        Code.UNKNOWN: 500,
        Code.INTERNAL: 500,
        Code.DATA_LOSS: 500,
        Code.UNIMPLEMENTED: 501,
        Code.UNAVAILABLE: 503,
        Code.DEADLINE_EXCEEDED: 504,
    }
)
_CODE: Mapping[int, Code] = MappingProxyType(
    {
        400: Code.INVALID_ARGUMENT,
        401: Code.UNAUTHENTICATED,
        403: Code.PERMISSION_DENIED,
        404: Code.NOT_FOUND,
        405: Code.UNIMPLEMENTED,
        408: Code.DEADLINE_EXCEEDED,
        409: Code.ABORTED,
        413: Code.RESOURCE_EXHAUSTED,
        429: Code.RESOURCE_EXHAUSTED,
        499: Code.CANCELLED,
        500: Code.INTERNAL,
        501: Code.UNIMPLEMENTED,
        502: Code.UNAVAILABLE,
        503: Code.UNAVAILABLE,
        504: Code.DEADLINE_EXCEEDED,
    }
)
_MAX_DETAILS = 2000  # characters; details travel in a header, and clients take 8 KiB of those


class _Failure(msgspec.Struct):
    error: str


_FAILURE = msgspec.json.Decoder(_Failure)


def status_of(code: int) -> int:
    """Return the HTTP status for a gRPC code."""
    return _STATUS.get(code, 500)


def code_of(status: int) -> Code:
    """Return the gRPC code for an HTTP status; a proxy in between may have given any."""
    if 200 <= status < 300:
        return Code.OK
    return _CODE.get(status, Code.INVALID_ARGUMENT if 400 <= status < 500 else Code.UNKNOWN)


def error_to_json(code: int, details: str) -> tuple[int, bytes]:
    """Translate a gRPC error into a status and a body."""
    return status_of(code), msgspec.json.encode({"error": details})


def error_from_json(status: int, body: bytes) -> tuple[Code, str]:
    """Translate a REST error into a code and details, whatever its body is."""
    try:
        details = _FAILURE.decode(body).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        details = ""
    details = details or f"the backend answered HTTP {status}"
    if len(details) > _MAX_DETAILS:
        details = f"{details[:_MAX_DETAILS]}…"
    return code_of(status), details
