"""Compressed bodies: undone byte for byte, within bounds, and never anything but a refusal."""

import contextlib
import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequest, TooLarge, UnsupportedMedia
from gateway.protocols import compression

CODINGS = {b"gzip": gzip.compress, b"x-gzip": gzip.compress, b"deflate": zlib.compress}
LIMIT = 2**20


def inflated(body: bytes, coding: bytes, limit: int = LIMIT) -> bytes:
    return b"".join(compression.inflate(body, coding, limit))


@pytest.mark.parametrize("coding", CODINGS)
@given(body=st.binary(max_size=100_000), level=st.integers(0, 9))
def test_round_trip(coding: bytes, body: bytes, level: int) -> None:
    assert inflated(CODINGS[coding](body, level), coding) == body


@given(parts=st.lists(st.binary(max_size=1000), max_size=5))
def test_a_gzip_body_may_have_many_members(parts: list[bytes]) -> None:
    assert inflated(b"".join(map(gzip.compress, parts)), b"gzip") == b"".join(parts)


@pytest.mark.parametrize("coding", CODINGS)
@given(body=st.binary(max_size=500), at=st.integers(0), byte=st.integers(0, 255))
def test_damage_is_refused_or_harmless(coding: bytes, body: bytes, at: int, byte: int) -> None:
    whole = CODINGS[coding](body)
    at %= len(whole)
    damaged = whole[:at] + bytes([byte]) + whole[at + 1 :]
    with contextlib.suppress(InvalidRequest):
        assert inflated(damaged, coding) == body  # a head has fields that nobody checks


@pytest.mark.parametrize("coding", CODINGS)
@given(noise=st.binary(min_size=1, max_size=2000))
def test_noise_is_refused(coding: bytes, noise: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        inflated(noise, coding)


@pytest.mark.parametrize("coding", CODINGS)
def test_what_is_cut_short_is_refused(coding: bytes) -> None:
    whole = CODINGS[coding](b"some text" * 50)
    for end in range(1, len(whole)):
        with pytest.raises(InvalidRequest):
            inflated(whole[:end], coding)


@pytest.mark.parametrize("coding", CODINGS)
def test_what_goes_on_after_its_end_is_refused(coding: bytes) -> None:
    for more in (b"x", b"\x00" * 40, b"\x1f\x8b"):
        with pytest.raises(InvalidRequest):
            inflated(CODINGS[coding](b"text") + more, coding)
    with pytest.raises(InvalidRequest):
        inflated(zlib.compress(b"text") * 2, b"deflate")


def test_deflate_is_zlibs_format() -> None:
    raw = zlib.compressobj(wbits=-15)
    with pytest.raises(InvalidRequest):
        inflated(raw.compress(b"text") + raw.flush(), b"deflate")


@pytest.mark.parametrize("coding", CODINGS)
def test_a_bomb_is_inflated_no_further_than_the_limit(coding: bytes) -> None:
    bomb = CODINGS[coding](bytes(100 * 2**20))
    assert len(bomb) < 2**20
    pieces: list[bytes] = []
    with pytest.raises(TooLarge):
        pieces.extend(compression.inflate(bomb, coding, LIMIT))
    assert sum(map(len, pieces)) <= LIMIT


@pytest.mark.parametrize("coding", CODINGS)
def test_the_limit_itself_is_allowed(coding: bytes) -> None:
    assert len(inflated(CODINGS[coding](bytes(LIMIT)), coding)) == LIMIT
    with pytest.raises(TooLarge):
        inflated(CODINGS[coding](bytes(LIMIT + 1)), coding)


def test_members_are_bounded() -> None:
    with pytest.raises(InvalidRequest, match="members"):
        inflated(gzip.compress(b"") * 10_001, b"gzip")


def test_no_body_is_no_body() -> None:
    assert inflated(b"", b"gzip") == inflated(b"", b"deflate") == b""


@pytest.mark.parametrize(
    ("value", "taken", "coding"),
    [
        (None, False, b"identity"),
        (b"identity", False, b"identity"),
        (b"IDENTITY", True, b"identity"),
        (b"", True, b"identity"),
        (b"gzip", True, b"gzip"),
        (b" GZip ", True, b"gzip"),
        (b"x-gzip", True, b"x-gzip"),
        (b"deflate", True, b"deflate"),
    ],
)
def test_codings(value: bytes | None, taken: bool, coding: bytes) -> None:
    headers = () if value is None else ((b"content-encoding", value),)
    assert compression.coding(headers, taken) == coding


@pytest.mark.parametrize(
    ("value", "taken", "offered"),
    [
        (b"gzip", False, b"identity"),
        (b"br", False, b"identity"),
        (b"br", True, b"gzip, deflate, identity"),
        (b"gzip, gzip", True, b"gzip, deflate, identity"),
        (b"\xff\x00", True, b"gzip, deflate, identity"),
    ],
)
def test_codings_that_are_not_taken(value: bytes, taken: bool, offered: bytes) -> None:
    with pytest.raises(UnsupportedMedia) as caught:
        compression.coding(((b"content-encoding", value),), taken)
    assert caught.value.headers == ((b"accept-encoding", offered),)
    assert caught.value.message.isprintable()


def test_two_fields_are_two_codings() -> None:
    with pytest.raises(UnsupportedMedia):
        compression.coding(((b"content-encoding", b"gzip"),) * 2, True)
