"""Reading and writing HTTP/1.1 without sockets: the same answer however its bytes are cut."""

import contextlib

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamInvalid
from gateway.protocols.http1 import AnswerReader, write_request
from gateway.types import Head

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/event-stream\r\n\r\n"
    b'5;name=value\r\nhello\r\n1;a="b;c"\r\n!\r\n0\r\nx-trailer: t\r\n\r\n'
)
TO_THE_END = b"HTTP/1.0 200 OK\r\n\r\nuntil the end"
INTERIM = b"HTTP/1.1 100 Continue\r\nx-old: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + LENGTH
NO_CONTENT = b"HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n"
NOT_MODIFIED = b"HTTP/1.1 304 Not Modified\r\ncontent-length: 99\r\n\r\n"
CLOSING = b"HTTP/1.1 503 Busy\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno"
OLD_KEPT = b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok"
OFFERS_UPGRADE = (
    b"HTTP/1.1 200 OK\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\nok"
)
NO_REASON = b"HTTP/1.1 200 \r\ncontent-length: 0\r\n\r\n"

# bytes, status, fields, body, reusable
ANSWERS = [
    (LENGTH, 200, ((b"content-length", b"5"), (b"x-a", b"b")), b"hello", True),
    (
        CHUNKED,
        200,
        ((b"content-type", b"text/event-stream"),),
        b"hello!",
        True,
    ),
    (TO_THE_END, 200, (), b"until the end", False),
    (INTERIM, 200, ((b"content-length", b"5"), (b"x-a", b"b")), b"hello", True),
    (NO_CONTENT, 204, ((b"x-a", b"b"),), b"", True),
    (NOT_MODIFIED, 304, ((b"content-length", b"99"),), b"", True),
    (CLOSING, 503, ((b"content-length", b"2"),), b"no", False),
    (OLD_KEPT, 200, ((b"content-length", b"2"),), b"ok", True),
    (NO_REASON, 200, ((b"content-length", b"0"),), b"", True),
    (
        OFFERS_UPGRADE,
        200,
        ((b"content-length", b"2"),),
        b"ok",
        True,
    ),
]


def read(*pieces: bytes, end: bool = True) -> AnswerReader:
    reader = AnswerReader()
    for piece in pieces:
        reader.feed(piece)
    if end:
        reader.end()
    return reader


def result(reader: AnswerReader) -> tuple[Head | None, bytes, bool, bool]:
    body = b"".join(reader.pieces)
    assert reader.buffered == len(body)
    return reader.head, body, reader.complete, reader.reusable


@pytest.mark.parametrize(("data", "status", "fields", "body", "reusable"), ANSWERS)
def test_every_split_of_an_answer_reads_the_same(
    data: bytes, status: int, fields: tuple[tuple[bytes, bytes], ...], body: bytes, reusable: bool
) -> None:
    expected = (Head(status, fields), body, True, reusable)
    assert result(read(data)) == expected
    for cut in range(1, len(data)):
        assert result(read(data[:cut], data[cut:])) == expected, cut
    assert result(read(*(data[i : i + 1] for i in range(len(data))))) == expected


@pytest.mark.parametrize("data", [answer[0] for answer in ANSWERS])
def test_an_answer_cut_short_is_an_error(data: bytes) -> None:
    """Each prefix ends in an error, unless only the end of the connection frames the body."""
    for cut in range(len(data)):
        reader = read(data[:cut], end=False) if cut else AnswerReader()
        assert reader.begun is (cut > 0)
        if reader.head is not None and data is TO_THE_END:
            reader.end()
            assert reader.complete
            assert not reader.reusable
            continue
        with pytest.raises(UpstreamInvalid, match="closed the connection"):
            reader.end()


def test_pieces_come_as_they_were_sent() -> None:
    reader = AnswerReader()
    reader.feed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    assert reader.head is not None
    assert not reader.pieces
    reader.feed(b"5\r\nhello\r\n")
    assert list(reader.pieces) == [b"hello"]
    assert not reader.complete
    reader.feed(b"3\r\n")
    assert reader.buffered == 5
    reader.feed(b"you\r\n0\r\n\r\n")
    assert list(reader.pieces) == [b"hello", b"you"]
    assert reader.complete


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 000 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 099 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 600 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 999 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + LENGTH,
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nfour\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na b: c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\x00c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\rc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n",
        LENGTH + LENGTH,
        LENGTH + b"HTTP/1.1 500 No\r\ncontent-length: 3\r\n\r\nbad",
        CHUNKED + b"x",
        CLOSING + b"x",
        NO_CONTENT + b"body",
    ],
)
def test_what_is_no_answer_is_refused_however_it_is_cut(data: bytes) -> None:
    with pytest.raises(UpstreamInvalid):
        read(data)
    for cut in range(1, len(data)):
        with pytest.raises(UpstreamInvalid):
            read(data[:cut], data[cut:])


def test_a_second_answer_never_takes_the_place_of_the_first() -> None:
    reader = AnswerReader()
    with pytest.raises(UpstreamInvalid, match="after the end"):
        reader.feed(LENGTH + b"HTTP/1.1 500 No\r\ncontent-length: 3\r\n\r\nbad")
    assert reader.head is not None
    assert reader.head.status == 200
    assert list(reader.pieces) == [b"hello"]


@pytest.mark.parametrize(
    ("field", "count"), [(b"x-%d: y\r\n", 257), (b"x-%d: " + b"y" * 1000 + b"\r\n", 70)]
)
@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
def test_too_many_or_too_large_headers_are_refused(field: bytes, count: int, size: int) -> None:
    data = b"HTTP/1.1 200 OK\r\n" + b"".join(field % i for i in range(count))
    data += b"content-length: 0\r\n\r\n"
    with pytest.raises(UpstreamInvalid, match="sent more than"):
        read(*(data[i : i + size] for i in range(0, len(data), size)))


def test_headers_without_an_end_are_refused() -> None:
    with pytest.raises(UpstreamInvalid, match="bytes of headers"):
        read(b"HTTP/1.1 200 OK\r\nx: ", *[b"y" * 1000] * 100)


def test_interim_answers_without_an_end_are_refused() -> None:
    with pytest.raises(UpstreamInvalid, match="bytes of headers"):
        read(*[b"HTTP/1.1 102 Processing\r\n\r\n"] * 10_000)


def test_as_many_headers_as_are_allowed_pass() -> None:
    data = b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: y\r\n" % i for i in range(255))
    reader = read(data + b"content-length: 0\r\n\r\n")
    assert reader.head is not None
    assert len(reader.head.headers) == 256


@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([a[0] for a in ANSWERS]))))
def test_any_bytes_are_an_answer_or_an_upstream_error(pieces: list[bytes]) -> None:
    with contextlib.suppress(UpstreamInvalid):
        read(*(piece for piece in pieces if piece))


@given(st.sampled_from([a[0] for a in ANSWERS]), st.data())
def test_an_answer_with_one_byte_wrong_raises_nothing_else(
    answer: bytes, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(answer) - 1))
    broken = answer[:at] + data.draw(st.binary(max_size=3)) + answer[at + 1 :]
    with contextlib.suppress(UpstreamInvalid):
        read(broken)


class Parsed:
    """What a server's parser makes of a request."""

    def __init__(self) -> None:
        self.url = self.body = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        assert not self.complete
        self.complete = True


def parsed(request: bytes) -> Parsed:
    found = Parsed()
    parser = httptools.HttpRequestParser(found)
    parser.feed_data(request)
    assert found.complete
    return found


def test_a_request_is_framed_by_its_length() -> None:
    found = parsed(write_request("POST", "/v1/a", b"h:1", ((b"x", b"1"),), (), b"GET / HTTP/1.1"))
    assert found.url == b"/v1/a"
    assert found.body == b"GET / HTTP/1.1"
    assert found.headers == [(b"host", b"h:1"), (b"x", b"1"), (b"content-length", b"14")]


def test_a_backends_own_fields_replace_the_clients() -> None:
    headers = ((b"authorization", b"Bearer client"), (b"accept", b"*/*"))
    extra = ((b"authorization", b"Bearer backend"),)
    found = parsed(write_request("POST", "/", b"h", headers, extra, b""))
    assert (b"authorization", b"Bearer backend") in found.headers
    assert (b"authorization", b"Bearer client") not in found.headers
    assert (b"accept", b"*/*") in found.headers
    assert (b"content-length", b"0") in found.headers


def test_a_get_has_no_length() -> None:
    found = parsed(write_request("GET", "/", b"h", (), (), b""))
    assert found.headers == [(b"host", b"h")]
