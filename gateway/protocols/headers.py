"""Which header fields travel on, each way, and how single ones are read.

Hop-by-hop fields end here (RFC 9110 7.6.1), and so do the client's credentials: a backend's
own come from its configuration. Framing fields are written anew by whoever sends next.
"""

import re

from gateway.errors import InvalidRequest
from gateway.types import Headers

JSON = (b"content-type", b"application/json")
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade".split()
)
_CREDENTIALS = frozenset(
    b"authorization cookie proxy-authorization proxy-authenticate x-api-key".split()
)
_FRAMING = frozenset(b"host content-length expect".split())
_NOT_SENT_ON = _HOP_BY_HOP | _CREDENTIALS | _FRAMING
# A backend's own date, name and connection are not the gateway's; its cookies are no client's.
_NOT_SENT_BACK = _HOP_BY_HOP | frozenset(
    b"date server set-cookie x-request-id server-timing proxy-authenticate".split()
)
_OURS = b"x-isthmus-"
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_MILLISECONDS = re.compile(rb"[0-9]{1,9}")


def sent_on(headers: Headers) -> Headers:
    """Return the fields of a client's request that a backend may see."""
    named = _connection_names(headers)
    return tuple(
        field
        for field in headers
        if field[0] not in _NOT_SENT_ON and field[0] not in named and not field[0].startswith(_OURS)
    )


def sent_back(headers: Headers) -> Headers:
    """Return the fields of a backend's answer that its client may see."""
    named = _connection_names(headers)
    return tuple(
        field
        for field in headers
        if field[0] not in _NOT_SENT_BACK
        and field[0] not in named
        and not field[0].startswith(_OURS)
    )


def _connection_names(headers: Headers) -> frozenset[bytes]:
    values = [value for name, value in headers if name == b"connection"]
    if not values:
        return frozenset()
    return frozenset(part.strip().lower() for value in values for part in value.split(b","))


def first(headers: Headers, name: bytes) -> bytes | None:
    """Return the first value of a field, or None."""
    for field, value in headers:
        if field == name:
            return value
    return None


def request_id(headers: Headers) -> str | None:
    """Return the client's request id, if it sent one that may be repeated in logs."""
    value = first(headers, b"x-request-id")
    return value.decode("ascii") if value and _REQUEST_ID.fullmatch(value) else None


def timeout(headers: Headers) -> float | None:
    """Return the seconds in `x-isthmus-timeout-ms`. Raises `InvalidRequest`."""
    value = first(headers, b"x-isthmus-timeout-ms")
    if value is None:
        return None
    if not _MILLISECONDS.fullmatch(value) or int(value) == 0:
        raise InvalidRequest(
            "x-isthmus-timeout-ms must be a whole number of milliseconds above 0",
            param="x-isthmus-timeout-ms",
        )
    return int(value) / 1000


def key(headers: Headers) -> bytes | None:
    """Return the API key that a client shows, as a bearer token or in `x-api-key`."""
    bearer = first(headers, b"authorization")
    if bearer is not None and bearer[:7].lower() == b"bearer ":
        return bearer[7:].strip()
    return first(headers, b"x-api-key")
