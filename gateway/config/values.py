"""The file's units and small forms: durations, sizes, addresses, digests."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from gateway.types import Address

_DURATION = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>us|ms|s|m|h)")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = re.compile(r"(?P<number>[0-9]+)(?P<unit>B|KB|KiB|MB|MiB|GB|GiB)")
_BYTES = {
    "B": 1,
    "KB": 10**3,
    "KiB": 2**10,
    "MB": 10**6,
    "MiB": 2**20,
    "GB": 10**9,
    "GiB": 2**30,
}
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")


def _seconds(value: Any) -> float:
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{value!r} is not a duration; write a number with a unit: 500ms, 30s, 5m")
    return float(found["number"]) * _SECONDS[found["unit"]]


def _bytes(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{value!r} is not a size; write bytes, or a unit: 32KiB, 64MiB, 1GiB")
    return int(found["number"]) * _BYTES[found["unit"]]


def _digest(value: Any) -> bytes:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value.lower()):
        raise ValueError(
            "is not a SHA-256 digest: 64 hex digits, as `printf %s KEY | sha256sum` prints them"
        )
    return bytes.fromhex(value)


def address(value: Any) -> Address:
    """Read `HOST:PORT`. Raises `ValueError`."""
    found = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if found is None or int(found["port"]) > 65535:
        raise ValueError(f"{value!r} is not HOST:PORT, as in 127.0.0.1:8080 or [::1]:8080")
    return Address(found["host"].strip("[]"), int(found["port"]))


def _address_or_off(value: Any) -> Address | None:
    return None if value in (False, "off") else address(value)


Seconds = Annotated[
    float,
    BeforeValidator(_seconds),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(us|ms|s|m|h)$"}),
]
Bytes = Annotated[
    int,
    BeforeValidator(_bytes),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": "^[0-9]+(B|KB|KiB|MB|MiB|GB|GiB)$"},
            ]
        }
    ),
]
Digest = Annotated[
    bytes,
    BeforeValidator(_digest),
    WithJsonSchema({"type": "string", "description": "64 hex digits, or ${VARIABLE}"}),
]
Listen = Annotated[
    Address | None,
    BeforeValidator(_address_or_off),
    WithJsonSchema({"type": ["string", "boolean"], "description": "HOST:PORT, or off"}),
]
