"""Forms in parts: where each field stands in a `multipart/form-data` body, without a copy of it.

The grammar is RFC 2046 5.1.1 under RFC 7578. It is read strictly: what two parsers could read in
two ways is refused, for the field that is authorised here must be the one that a backend finds.
So nothing stands before the first boundary or after the last, lines end in CRLF, a boundary is
followed by CRLF or `--` and by nothing else, and a field's name is written one plain way.
Cost is one search through the body; the number of parts and the bytes of their heads are bounded.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from gateway.errors import InvalidRequest, UnsupportedMedia

_MAX_PARTS = 256
_MAX_HEAD = 8 * 2**10
_MAX_FIELDS = 16
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t -~\x80-\xff]*)")
# Two backslashes in a row are read in two ways by those who split at quotes.
_VALUE = rb'"(?:[^"\\]|\\[^\\])*"|[^\s";=\\]+'
_PARAMETER = re.compile(rb"[ \t]*;[ \t]*([A-Za-z0-9_*\-]+)=(" + _VALUE + rb")")
_REST = re.compile(rb"[ \t]*;?[ \t]*")
_CHARSETS = frozenset((b"utf-8", b"utf8", b"us-ascii"))


class Part(NamedTuple):
    """One field: its value is the body's bytes from `start` to `end`.

    `fields` are its own header's, by lower-case name, each where its value stands in the body.
    `file` says that it was sent as one.
    """

    name: bytes
    file: bool
    fields: Mapping[bytes, tuple[int, int]]
    start: int
    end: int


def boundary(content_type: bytes) -> bytes:
    """Return the boundary that a body's type names.

    Raises `UnsupportedMedia` for another type, `InvalidRequest` for a boundary that is none.
    """
    kind, parameters = _parameters(content_type, "the content-type")
    if kind != b"multipart/form-data":
        raise UnsupportedMedia("this call takes a form: send it as multipart/form-data")
    found = parameters.get(b"boundary")
    if found is None or not _BOUNDARY.fullmatch(found):
        raise InvalidRequest(
            "the content-type must name the form's boundary, of 1 to 70 plain characters"
        )
    if parameters.get(b"charset", b"utf-8").lower() not in _CHARSETS:
        raise InvalidRequest("a form's names and values must be UTF-8")
    return found


def parts(body: bytes, boundary: bytes) -> Iterator[Part]:
    """Give the parts in their order. Raises `InvalidRequest` at what is not read one way only."""
    opening, delimiter = b"--%s\r\n" % boundary, b"\r\n--%s" % boundary
    if not body.startswith(opening):
        raise InvalidRequest("the body must begin with the boundary that its content-type names")
    at = len(opening)
    for _ in range(_MAX_PARTS):
        name, file, fields, start = _head(body, at, delimiter)
        end = body.find(delimiter, start)
        if end < 0:
            raise InvalidRequest("the form has no closing boundary: it was cut, or never ended")
        told, until = fields.get(b"content-length", (0, 0))
        if until and body[told:until].strip() != str(end - start).encode():
            raise InvalidRequest("a part tells another length than it has")
        yield Part(name, file, fields, start, end)
        at = end + len(delimiter) + 2
        after = body[at - 2 : at]
        if after == b"--":
            if body[at : at + 3] not in (b"", b"\r\n"):
                raise InvalidRequest("something follows the form's closing boundary")
            return
        if after != b"\r\n":
            raise InvalidRequest("a part holds the form's own boundary: choose another one")
    raise InvalidRequest(f"the form has more than {_MAX_PARTS} parts")


def _head(
    body: bytes, at: int, delimiter: bytes
) -> tuple[bytes, bool, Mapping[bytes, tuple[int, int]], int]:
    """Read a part's header: its name, whether it is a file, its fields, where its value starts."""
    end = body.find(b"\r\n\r\n", at - 2, at + _MAX_HEAD)
    if end < 0 or body.find(delimiter, at - 2, end) >= 0:
        raise InvalidRequest(f"a part's header does not end within {_MAX_HEAD} bytes")
    fields: dict[bytes, tuple[int, int]] = {}
    start = at
    while start < end:
        stop = body.find(b"\r\n", start, end)
        stop = end if stop < 0 else stop
        found = _FIELD.fullmatch(body, start, stop)
        name = found[1].lower() if found else b""
        if found is None or name in fields or len(fields) == _MAX_FIELDS:
            raise InvalidRequest("a part's header has a line that is no field, or one field twice")
        fields[name] = found.span(2)
        start = stop + 2
    name, file = _disposition(body, fields)
    return name, file, fields, end + 4


def _disposition(body: bytes, fields: Mapping[bytes, tuple[int, int]]) -> tuple[bytes, bool]:
    start, end = fields.get(b"content-disposition", (0, 0))
    kind, parameters = _parameters(body[start:end], "a part's content-disposition")
    name = parameters.get(b"name")
    if kind != b"form-data" or name is None or b"\\" in name:
        raise InvalidRequest("each part needs a 'content-disposition: form-data; name=\"…\"'")
    return name, b"filename" in parameters or b"filename*" in parameters


def _parameters(value: bytes, what: str) -> tuple[bytes, Mapping[bytes, bytes]]:
    """Read `kind; name=value; name="value"`; a file's name alone may be in RFC 8187's form."""
    kind, _, _ = value.partition(b";")
    at = len(kind)
    parameters: dict[bytes, bytes] = {}
    while found := _PARAMETER.match(value, at):
        name = found[1].lower()
        if name in parameters or (b"*" in name and name != b"filename*"):
            raise InvalidRequest(f"{what} has a parameter twice, or in an extended form")
        quoted = found[2].startswith(b'"')
        parameters[name] = found[2][1:-1] if quoted else found[2]
        at = found.end()
    if not _REST.fullmatch(value, at):
        raise InvalidRequest(f"{what} can't be read")
    return kind.strip().lower(), parameters
