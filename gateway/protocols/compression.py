"""Compressed request bodies: which codings are taken, and how they are undone within bounds.

gzip (RFC 1952) and deflate, which is zlib's format (RFC 1950), by the standard library. A body of
some kilobytes may stand for gigabytes, so it is inflated in small steps, no further than a limit.
"""

import asyncio
import zlib
from collections.abc import Iterator

from gateway.errors import InvalidRequest, TooLarge, UnsupportedMedia, shown
from gateway.types import Headers, Incoming

IDENTITY = b"identity"
_GZIP, _ZLIB = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS
_WINDOWS = {b"gzip": _GZIP, b"x-gzip": _GZIP, b"deflate": _ZLIB}
_LISTED = b"gzip, deflate, identity"
_STEP = 2**18
"""Bytes that one step yields at most, some hundred microseconds' work."""
_FEED = 2**14
"""Bytes that one step is fed: zlib copies what a step leaves, so that must be little."""
_MAX_MEMBERS = 10_000
"""Parts of a gzip file, each with a head and a checksum: one for 16 KiB of a large body."""


async def read(incoming: Incoming, headers: Headers, taken: bool, limit: int) -> bytes:
    """Read a request's body, inflated if it has to be and compression is `taken`.

    Other requests have their turn between two steps. Raises as `coding` and `inflate` do; a
    body in a coding that is not taken is not even read.
    """
    named = coding(headers, taken)
    body = await incoming.body()
    if named == IDENTITY:
        return body
    pieces = []
    for piece in inflate(body, named, limit):
        pieces.append(piece)
        await asyncio.sleep(0)
    return b"".join(pieces)


def coding(headers: Headers, taken: bool) -> bytes:
    """Return the coding of a body: a key of this room's codings, or `identity`.

    `taken`: whether any other is. Raises `UnsupportedMedia`, which names those that are
    (RFC 7694 3).
    """
    values = [value for name, value in headers if name == b"content-encoding"]
    named = b",".join(values).strip().lower() or IDENTITY
    if named == IDENTITY or (taken and named in _WINDOWS):
        return named
    offered = _LISTED if taken else IDENTITY
    why = "compressed request bodies are not taken; send it as it is"
    if taken:
        told = shown(named.decode("latin-1"))
        why = f"a body in {told!r} is not taken; send it in gzip or deflate, or as it is"
    raise UnsupportedMedia(why, headers=((b"accept-encoding", offered),))


def inflate(body: bytes, named: bytes, limit: int) -> Iterator[bytes]:
    """Undo a coding other than `identity`, piece by piece; no piece is beyond `_STEP` bytes.

    Raises `TooLarge` as soon as the pieces are more than `limit` bytes together, and
    `InvalidRequest` for what is broken, cut short, or followed by more. No body is no body.
    """
    size = 0
    for piece in _pieces(body, named):
        size += len(piece)
        if size > limit:
            raise TooLarge(f"the body is larger than {limit} bytes, the limit here, once inflated")
        yield piece


def _pieces(body: bytes, named: bytes) -> Iterator[bytes]:
    window = _WINDOWS[named]
    rest, members = memoryview(body), 0
    while rest:
        members += 1
        if members > 1 and window != _GZIP:
            raise InvalidRequest("the body goes on after its deflate data ends")
        if members > _MAX_MEMBERS:
            raise InvalidRequest(f"the body has more than {_MAX_MEMBERS} gzip members")
        member = zlib.decompressobj(window)
        fed = b""
        while not member.eof:
            fed = member.unconsumed_tail
            if not fed:
                fed, rest = bytes(rest[:_FEED]), rest[_FEED:]
            piece = _step(member, fed, named)
            if piece:
                yield piece
            elif not fed:
                raise InvalidRequest(f"the body is no whole {named.decode()} data: it is cut short")
        rest = _joined(member.unused_data, rest, body)


def _step(member: "zlib._Decompress", fed: bytes, named: bytes) -> bytes:
    try:
        return member.decompress(fed, _STEP)
    except zlib.error as error:
        raise InvalidRequest(f"the body is no {named.decode()} data: {error}") from None


def _joined(unused: bytes, rest: memoryview, body: bytes) -> memoryview:
    """Return what follows a member: the end of what it was fed, and all that was not fed yet."""
    return memoryview(body)[len(body) - len(rest) - len(unused) :]
