"""Which header fields travel on, each way, and how single ones are read.

Hop-by-hop fields end here (RFC 9110 7.6.1), and so do the client's credentials: a backend's
own come from its configuration. Framing fields are written anew by whoever sends next.
"""

import re
from collections.abc import Mapping

from gateway.errors import InvalidRequest
from gateway.types import Headers

Firsts = Mapping[bytes, bytes]
"""The first value of each field, as `firsts` finds them."""
JSON = (b"content-type", b"application/json")
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade".split()
)
"""Fields that speak of one connection; the HTTP/1.1 codec drops them as it reads."""
_CREDENTIALS = frozenset(
    b"authorization cookie proxy-authorization proxy-authenticate x-api-key".split()
)
# A body travels on without its coding: it was undone, or the request refused.
_FRAMING = frozenset(b"host content-length content-encoding expect".split())
_NOT_SENT_ON = HOP_BY_HOP | _CREDENTIALS | _FRAMING
# A backend's own date, name and connection are not the gateway's; its cookies are no client's.
_NOT_SENT_BACK = HOP_BY_HOP | frozenset(
    b"date server set-cookie x-request-id server-timing proxy-authenticate".split()
)
_KEPT = _FRAMING | {b"keep-alive", b"close", b""}
"""What `connection` says that names no field, or none that it may take away."""
_OURS = b"x-isthmus-"
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_MILLISECONDS = re.compile(rb"[0-9]{1,9}")


def sent_on(headers: Headers) -> Headers:
    """Return the fields of a client's request that a backend may see."""
    return tuple(
        [field for field in headers if field[0] not in _NOT_SENT_ON and field[0][:10] != _OURS]
    )


def sent_back(headers: Headers) -> Headers:
    """Return the fields of a backend's answer that its client may see."""
    return tuple(
        [field for field in headers if field[0] not in _NOT_SENT_BACK and field[0][:10] != _OURS]
    )


def end_to_end(headers: list[tuple[bytes, bytes]]) -> Headers:
    """Return the fields of a message that are not its connection's own, nor named by that one.

    What frames a message can't be named away.
    """
    kept = tuple([field for field in headers if field[0] not in HOP_BY_HOP])
    if len(kept) == len(headers):
        return kept
    values = [value for name, value in headers if name == b"connection"]
    named = {part.strip().lower() for value in values for part in value.split(b",")} - _KEPT
    return tuple([field for field in kept if field[0] not in named]) if named else kept


def first(headers: Headers, name: bytes) -> bytes | None:
    """Return the first value of a field, or None."""
    for field, value in headers:
        if field == name:
            return value
    return None


def firsts(headers: Headers) -> dict[bytes, bytes]:
    """Return the first value of each field."""
    return dict(headers[::-1])


def request_id(known: Firsts) -> str | None:
    """Return the client's request id, if it sent one that may be repeated in logs."""
    value = known.get(b"x-request-id")
    return value.decode("ascii") if value and _REQUEST_ID.fullmatch(value) else None


def timeout(known: Firsts) -> float | None:
    """Return the seconds in `x-isthmus-timeout-ms`. Raises `InvalidRequest`."""
    value = known.get(b"x-isthmus-timeout-ms")
    if value is None:
        return None
    if not _MILLISECONDS.fullmatch(value) or int(value) == 0:
        raise InvalidRequest(
            "x-isthmus-timeout-ms must be a whole number of milliseconds above 0",
            param="x-isthmus-timeout-ms",
        )
    return int(value) / 1000


def key(known: Firsts) -> bytes | None:
    """Return the API key that a client shows, as a bearer token or in `x-api-key`."""
    bearer = known.get(b"authorization")
    if bearer is not None and bearer[:7].lower() == b"bearer ":
        return bearer[7:].strip()
    return known.get(b"x-api-key")
