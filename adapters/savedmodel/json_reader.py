"""Bytes from strangers to Python values: bounded in depth, with the numbers that plain JSON lacks.

Pure; no numpy. Reads what TensorFlow Serving's reader takes: bare NaN, Infinity and -Infinity,
integers to the last digit, and anything after the end of the document is ignored.
"""

import itertools
import json
import math
from typing import Any

import msgspec

from adapters.savedmodel.status import invalid_argument

# Every opener becomes +1 and every closer -1, as signed bytes; all other bytes are dropped.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_OTHERS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_DECODER = msgspec.json.Decoder()


def read_object(body: bytes, max_depth: int) -> dict[str, Any]:
    """Parses a request body, which must be one JSON object.

    Args:
        body: the bytes as received.
        max_depth: how many brackets may be open at once; the outermost object counts.

    Raises:
        ServingError: INVALID_ARGUMENT for a body that is empty, too deep, no JSON, or no object.
    """
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    if too_deep(body, max_depth):
        raise invalid_argument(
            f"JSON Parse error: nested deeper than {max_depth} levels; flatten the request"
        )
    try:
        value = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        value = _read_lenient(body)
    if type(value) is not dict:
        raise invalid_argument(f"JSON Value: {excerpt(value)} Is not object")
    return value


def too_deep(body: bytes, max_depth: int) -> bool:
    """True where more than `max_depth` brackets are open at once. Linear in the body; no recursion.

    Strings are cut out first. Dropping every `[]` then takes exactly one level off: quick while it
    removes much; what is left is counted bracket by bracket.
    """
    if b"\\" in body:  # escaped backslashes first, so that the quotes left over are escaped ones
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    left = b"".join(body.split(b'"')[::2]).translate(_STEPS, _OTHERS)
    if b"\x01" * (max_depth + 1) in left:
        return True
    levels = 0
    while left:
        inner = left.replace(b"\x01\xff", b"")
        if len(inner) > len(left) * 3 // 4:
            break
        left = inner
        levels += 1
    return levels + max(itertools.accumulate(memoryview(left).cast("b")), default=0) > max_depth


def excerpt(value: object, limit: int = 256) -> str:
    """A value as JSON text for an error message, cut at `limit` characters.

    Long lists are not written out.
    """
    pieces: list[str] = []
    size = 0
    for piece in json.JSONEncoder(ensure_ascii=False).iterencode(_shortened(value, limit)):
        pieces.append(piece)
        size += len(piece)
        if size >= limit:
            break
    return "".join(pieces)[:limit]


def _read_lenient(body: bytes) -> Any:
    decoder = json.JSONDecoder(parse_float=_finite)
    try:
        text = body.decode("utf-8").lstrip(" \t\r\n")
        return decoder.raw_decode(text)[0]
    except json.JSONDecodeError as error:
        raise invalid_argument(f"JSON Parse error: {error.msg} at offset: {error.pos}") from None
    except UnicodeDecodeError as error:
        raise invalid_argument(f"JSON Parse error: not UTF-8 at offset: {error.start}") from None
    except (ValueError, RecursionError) as error:
        raise invalid_argument(f"JSON Parse error: {error}") from None


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("Number too big to be stored in double.")
    return number


def _shortened(value: object, limit: int) -> object:
    """Fewer items of each list and object the deeper it lies.

    An excerpt costs about what it shows.
    """
    deeper = max(1, limit // 8)
    if isinstance(value, list):
        return [_shortened(item, deeper) for item in value[:limit]]
    if isinstance(value, dict):
        pairs = itertools.islice(value.items(), limit)
        return {key[:limit]: _shortened(item, deeper) for key, item in pairs}
    return value[:limit] if isinstance(value, str) else value
