"""The scan against an encoder of its own and against protobuf's parser as the judge."""

from __future__ import annotations

import struct

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.protocols.wire.scan import (
    FIXED32,
    FIXED64,
    LENGTH_DELIMITED,
    MAX_FIELDS,
    VARINT,
    Field,
    WireError,
    fields,
    replace,
    single,
)


def varint(number: int, pad: int = 0) -> bytes:
    """A varint, with ``pad`` bytes more than it needs."""
    groups = [number >> shift & 0x7F for shift in range(0, max(number.bit_length(), 1), 7)]
    groups += [0] * pad
    return bytes([group | 0x80 for group in groups[:-1]] + groups[-1:])


numbers = st.one_of(st.integers(1, 20), st.integers(1, (1 << 29) - 1))
uint32, uint64 = st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1)
blobs = st.one_of(st.binary(max_size=20), st.integers(120, 20_000).map(bytes))


@st.composite
def occurrences(draw: st.DrawFn) -> tuple[int, int, int | bytes, bytes]:
    """A field as number, wire type, value, and its encoding, which is padded now and then."""
    number = draw(numbers)
    wire_type = draw(st.sampled_from([VARINT, FIXED64, LENGTH_DELIMITED, FIXED32]))
    tag = number << 3 | wire_type
    pad = draw(st.sampled_from([0, 0, 0, 1]))
    head = varint(tag)
    value: int | bytes
    if wire_type == VARINT:
        value = draw(uint64)
        return number, wire_type, value, head + varint(value, pad if value < 1 << 63 else 0)
    if wire_type == FIXED64:
        value = draw(uint64)
        return number, wire_type, value, head + struct.pack("<Q", value)
    if wire_type == FIXED32:
        value = draw(uint32)
        return number, wire_type, value, head + struct.pack("<I", value)
    value = draw(blobs)
    return number, wire_type, value, head + varint(len(value), pad) + value


def value_of(body: bytes, field: Field) -> int | bytes:
    raw = body[field.value : field.end]
    if field.wire_type == LENGTH_DELIMITED:
        return raw
    if field.wire_type == VARINT:
        return sum((byte & 0x7F) << 7 * i for i, byte in enumerate(raw)) & (1 << 64) - 1
    return int.from_bytes(raw, "little")


def scanned(body: bytes) -> list[tuple[int, int, int | bytes]]:
    """What the scan reads; its spans must cover the message without a gap."""
    found = list(fields(body))
    assert [f.start for f in found] + [len(body)] == [0] + [f.end for f in found]
    return [(f.number, f.wire_type, value_of(body, f)) for f in found]


def parsed(body: bytes) -> list[tuple[int, int, int | bytes]]:
    """The same from protobuf, by way of a message all of whose fields are unknown."""
    unknown = UnknownFieldSet(Empty.FromString(body))
    found = [unknown[index] for index in range(len(unknown))]
    return [(field.field_number, field.wire_type, field.data) for field in found]


# What the scan refuses although protobuf's fast parser takes it: no encoder writes these.
ON_PURPOSE = ("wire type 3 ", "out of range", "more than 5 bytes", "padded tag")


def agree(body: bytes) -> None:
    """What the scan accepts, protobuf reads alike; what it refuses, protobuf refuses too."""
    try:
        ours = scanned(body)
    except WireError as error:
        refused = error
    else:
        assert parsed(body) == ours
        return
    assert 0 <= refused.offset <= len(body)
    if not any(reason in str(refused) for reason in ON_PURPOSE):
        with pytest.raises(DecodeError):
            parsed(body)


@given(st.lists(occurrences(), max_size=8))
def test_reads_back_what_was_encoded(written: list[tuple[int, int, int | bytes, bytes]]) -> None:
    body = b"".join(encoding for *_, encoding in written)
    assert scanned(body) == [(number, kind, value) for number, kind, value, _ in written]


@given(st.lists(occurrences(), max_size=6), st.data())
def test_agrees_with_protobuf_on_sound_and_on_damaged_messages(
    written: list[tuple[int, int, int | bytes, bytes]], data: st.DataObject
) -> None:
    body = bytearray(b"".join(encoding for *_, encoding in written))
    for _ in range(data.draw(st.integers(0, 3)) if body else 0):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    agree(bytes(body[: data.draw(st.integers(0, len(body)))]))


@given(st.binary(max_size=60))
@example(b"\x0b\x0c")  # a group
@example(b"\x08" + b"\xff" * 9 + b"\x7f")  # more than 64 bits in ten bytes
@example(b"\x8a\x80\x80\x80\x00\x00")  # a tag padded to its five bytes
@example(b"\x8a\x80\x80\x80\x10\x00")  # a tag of more than 32 bits
@example(b"\x0a\x81\x80\x80\x80\x00x")  # a length padded to its five bytes
@example(b"\x00\x00")  # field number 0
def test_random_bytes_are_read_as_protobuf_reads_them_or_refused(body: bytes) -> None:
    agree(body)


@pytest.mark.parametrize(
    ("body", "problem", "offset"),
    [
        (b"\x08", "ends inside a number", 1),
        (b"\x08\x01\x10\x80\x80", "ends inside a number", 3),
        (b"\x08" + b"\x80" * 10 + b"\x00", "more than 10 bytes", 1),
        (b"\x80\x80\x80\x80\x80\x00", "more than 5 bytes", 0),
        (b"\x0a" + b"\x80" * 5 + b"\x00", "more than 5 bytes", 1),
        (b"\x0a", "ends before a field's length", 0),
        (b"\x0a\x05abcd", "field 1 runs beyond the end", 0),
        (b"\x0a\xff\xff\xff\xff\x0f", "field 1 runs beyond the end", 0),
        (b"\x08\x01\x0d\x00\x00\x00", "field 1 runs beyond the end", 2),
        (b"\x09" + bytes(7), "field 1 runs beyond the end", 0),
        (b"\x02\x00", "field number 0", 0),
        (b"\xff\xff\xff\xff\x7f\x00", "out of range", 0),
        (b"\x12\x00\x8a\x00\x00", "a padded tag", 2),
        (b"\x0b\x0c", "wire type 3", 0),
        (b"\x0c", "wire type 4", 0),
        (b"\x0e\x00", "wire type 6", 0),
        (b"\x0f\x00", "wire type 7", 0),
    ],
)
def test_refuses_with_the_place(body: bytes, problem: str, offset: int) -> None:
    with pytest.raises(WireError, match=problem) as caught:
        list(fields(body))
    assert caught.value.offset == offset


def test_the_number_of_fields_is_bounded() -> None:
    assert len(list(fields(b"\x08\x01" * MAX_FIELDS))) == MAX_FIELDS
    with pytest.raises(WireError, match=f"more than {MAX_FIELDS} fields"):
        single(b"\x08\x01" * (MAX_FIELDS + 1), 2)
    with pytest.raises(WireError, match="more than 3 fields"):
        list(fields(b"\x08\x01" * 4, max_fields=3))


def test_single_finds_the_only_occurrence() -> None:
    body = b"\x12\x01a\x0a\x02bc\x1a\x00"
    assert single(body, 1) == Field(number=1, wire_type=LENGTH_DELIMITED, start=3, value=5, end=7)
    assert single(body, 4) is None
    assert single(b"", 1) is None


@given(st.lists(occurrences(), max_size=6), st.integers(1, 5))
def test_single_refuses_a_second_occurrence_wherever_it_stands(
    written: list[tuple[int, int, int | bytes, bytes]], number: int
) -> None:
    body = b"".join(encoding for *_, encoding in written)
    count = sum(written_number == number for written_number, *_ in written)
    if count > 1:
        with pytest.raises(WireError, match=f"field {number} occurs more than once"):
            single(body, number)
    else:
        assert (single(body, number) is not None) == (count == 1)


def test_single_reads_to_the_end_before_it_answers() -> None:
    with pytest.raises(WireError, match="runs beyond the end"):
        single(b"\x0a\x01a\x12\x05b", 1)


@given(st.lists(occurrences(), max_size=6), blobs, numbers)
def test_replace_changes_one_field_and_nothing_else(
    written: list[tuple[int, int, int | bytes, bytes]], payload: bytes, number: int
) -> None:
    body = b"".join(encoding for *_, encoding in written)
    before = scanned(body)
    new = (number, LENGTH_DELIMITED, payload)
    assert scanned(replace(body, None, number, payload)) == [new, *before]
    for index, span in enumerate(fields(body)):
        changed = replace(body, span, number, payload)
        assert scanned(changed) == [*before[:index], new, *before[index + 1 :]]
        assert changed.startswith(body[: span.start])
        assert changed.endswith(body[span.end :])
