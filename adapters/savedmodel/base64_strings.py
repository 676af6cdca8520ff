"""Base64 objects of JSON bodies: `{"b64": "..."}`, one key and a string.

Pure. Source: what TensorFlow Serving's decoder takes: the standard alphabet, white space anywhere,
and padding (`=`, or `.`) that is either complete or left out.
"""

import base64
import binascii
import re
from typing import Any

from adapters.savedmodel.json_reader import excerpt
from adapters.savedmodel.status import invalid_argument

_KEY = "b64"
_BLANK = re.compile(r"[ \t\n\v\f\r]+")


def is_base64(value: dict[str, Any]) -> bool:
    """True for an object that stands for bytes."""
    return len(value) == 1 and type(value.get(_KEY)) is str


def decode(value: dict[str, Any]) -> bytes:
    """The bytes.

    Raises:
        ServingError: INVALID_ARGUMENT for another object, or text that is no base64.
    """
    if not is_base64(value):
        raise invalid_argument(
            f"JSON Value: {excerpt(value)} not formatted correctly for base64 data"
        )
    padded = _BLANK.sub("", value[_KEY])
    text = padded.rstrip("=.")
    wanted = -len(text) % 4
    try:
        if len(padded) - len(text) in (0, wanted):
            return base64.b64decode(text + "=" * wanted, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise invalid_argument("Unable to base64 decode")
