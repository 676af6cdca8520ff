"""The REST paths, matched as TensorFlow Serving matches them: without regard to case but for the
verb, names URL-decoded.

Pure text in, `Target` out. The path is taken as it stood on the wire, since a decoded `%2F` or
`%3A` belongs to a name and must not end it.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote

from adapters.savedmodel.status import Code, ServingError, invalid_argument
from adapters.savedmodel.versions import MAX_VERSION

_SCOPE = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_FORMS = {
    "POST": re.compile(
        rf"/v1/models/(?P<model>[^/:]+){_SCOPE}:(?P<verb>classify|regress|predict)", re.IGNORECASE
    ),
    "GET": re.compile(
        rf"/v1/models(?:/(?P<model>[^/:]+))?{_SCOPE}(?:/(?P<verb>metadata))?", re.IGNORECASE
    ),
}


@dataclass(frozen=True, slots=True)
class Target:
    """What a path asks for: `verb` is predict, classify, regress, metadata, or status."""

    verb: str
    model: str
    version: int | None
    label: str | None


def parse(method: str, path: str) -> Target:
    """Reads a method and a raw (still percent-encoded) path.

    Raises:
        ServingError: NOT_FOUND outside /v1/, INVALID_ARGUMENT for anything else that is no route.
    """
    if not path.lower().startswith("/v1/"):
        raise ServingError(
            Code.NOT_FOUND, f"Not found: {path[:256]}; model routes start with /v1/models/"
        )
    form = _FORMS.get(method)
    match = form.fullmatch(path) if form else None
    if match is None:
        raise invalid_argument(f"Malformed request: {method} {path[:256]}")
    if not match["model"]:
        raise invalid_argument("Missing model name in request.")
    digits, label = match["version"], match["label"]
    # The length is looked at first: turning a long run of digits into a number takes quadratic
    # time.
    if digits and (len(digits) > len(str(MAX_VERSION)) or int(digits) > MAX_VERSION):
        raise invalid_argument(f"Failed to convert version: {digits[:64]} to numeric.")
    verb: str = match["verb"] or "status"
    # The path is matched in any case, but the verb is known in small letters alone.
    if not verb.islower() and method == "POST":
        raise invalid_argument(f"Malformed request: {method} {path[:256]}")
    return Target(
        verb=verb if verb.islower() else "status",
        model=unquote(match["model"]),
        version=int(digits) if digits else None,
        label=unquote(label) if label else None,
    )
