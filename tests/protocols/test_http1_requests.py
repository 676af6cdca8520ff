"""Reading requests without sockets: the same requests however their bytes are cut, or a refusal."""

import contextlib
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError, HeadersTooLarge, InvalidRequest, Unsupported
from gateway.protocols.http1_requests import RequestHead, RequestReader, write_head

GET = b"GET /v1/models?a=b HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nhost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"
    b"5;n=v\r\nhello\r\n1\r\n!\r\n0\r\nx-trailer: t\r\n\r\n"
)
UPGRADE = (
    b"GET /w HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, X-B\r\nupgrade: websocket\r\n"
    b"x-b: 1\r\n\r\n"
)
UPGRADE_BODY = (
    b"POST /u HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n"
    b"http2-settings: AAMA\r\ncontent-length: 5\r\n\r\nhello"
)
UPGRADE_CHUNKED = (
    b"POST /u HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n"
    b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
)
OLD = b"GET / HTTP/1.0\r\n\r\n"
ABSOLUTE = b"GET http://b:1/p?q HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSING = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
EXPECTS = b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-Continue\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Told:
    """What a sink was told: each request with its body, None while it is not whole."""

    heads: list[RequestHead] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    whole: int = 0

    def begin(self, head: RequestHead) -> None:
        assert self.whole == len(self.heads), "a request began before the last one was whole"
        self.heads.append(head)
        self.bodies.append(b"")

    def body(self, data: bytes) -> None:
        self.bodies[-1] += data

    def end(self) -> None:
        self.whole += 1
        assert self.whole == len(self.heads)


def read(*pieces: bytes, max_head: int = 32768) -> Told:
    told = Told()
    reader = RequestReader(told, max_head)
    for piece in pieces:
        reader.feed(piece)
    assert reader.between == (told.whole == len(told.heads) and not reader.in_head)
    return told


def head(
    method: str,
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    length: int | None = 0,
    keep_alive: bool = True,
    chunks: bool = True,
    expects: bool = False,
) -> RequestHead:
    return RequestHead(method, target, tuple(headers), length, keep_alive, chunks, expects)


POSTED = b"POST / HTTP/1.1\r\nhost: a\r\n"
IN_CHUNKS = POSTED + b"transfer-encoding: chunked\r\n\r\n"
HOST = (b"host", b"a")
LENGTH = (b"content-length", b"5")
REQUESTS = [
    (GET, head("GET", b"/v1/models?a=b", [HOST, (b"x-a", b"b")]), b""),
    (POST, head("POST", b"/x", [HOST, LENGTH], 5), b"hello"),
    (CHUNKED, head("POST", b"/x", [HOST], None), b"hello!"),
    (UPGRADE, head("GET", b"/w", [HOST]), b""),
    (UPGRADE_BODY, head("POST", b"/u", [HOST, LENGTH], 5), b"hello"),
    (UPGRADE_CHUNKED, head("POST", b"/u", [HOST], None), b"hello"),
    (OLD, head("GET", b"/", [], keep_alive=False, chunks=False), b""),
    (ABSOLUTE, head("GET", b"/p?q", [HOST]), b""),
    (CLOSING, head("GET", b"/", [HOST], keep_alive=False), b""),
    (
        EXPECTS,
        head(
            "POST",
            b"/",
            [HOST, (b"expect", b"100-Continue"), (b"content-length", b"2")],
            2,
            expects=True,
        ),
        b"ok",
    ),
]
ONE_BEHIND_THE_OTHER = [GET, POST, CHUNKED, UPGRADE, UPGRADE_BODY, UPGRADE_CHUNKED, EXPECTS]


@pytest.mark.parametrize(("data", "expected", "body"), REQUESTS)
def test_every_split_of_a_request_reads_the_same(
    data: bytes, expected: RequestHead, body: bytes
) -> None:
    cuts = [(data[:cut], data[cut:]) for cut in range(1, len(data))]
    for pieces in [(data,), *cuts, tuple(data[i : i + 1] for i in range(len(data)))]:
        told = read(*pieces)
        assert told == Told([expected], [body], 1), pieces


@given(
    st.lists(st.sampled_from(ONE_BEHIND_THE_OTHER), min_size=1, max_size=6),
    st.lists(st.integers(1, 60), min_size=1, max_size=50),
)
def test_requests_behind_each_other_read_the_same_however_they_are_cut(
    requests: list[bytes], sizes: list[int]
) -> None:
    data = b"".join(requests)
    pieces, at = [], 0
    for size in [*sizes, len(data)]:
        pieces.append(data[at : at + size])
        at += size
    told = read(*(piece for piece in pieces if piece))
    alone = [read(request) for request in requests]
    assert told.heads == [one.heads[0] for one in alone]
    assert told.bodies == [one.bodies[0] for one in alone]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"nonsense\r\n\r\n", InvalidRequest),
        (b"get / HTTP/1.1\r\nhost: a\r\n\r\n", InvalidRequest),
        (b"GET / HTTP/2.0\r\nhost: a\r\n\r\n", InvalidRequest),
        (b"GET / HTTP/1.2\r\nhost: a\r\n\r\n", InvalidRequest),
        (b"GET /\r\n\r\n", InvalidRequest),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", InvalidRequest),
        (b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n", InvalidRequest),
        (b"GET / HTTP/1.1\r\n\r\n", InvalidRequest),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", InvalidRequest),
        (b"GET / HTTP/1.1\r\nhost : a\r\n\r\n", InvalidRequest),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\n\r\n", InvalidRequest),
        (b"GET / HTTP/1.1\nhost: a\n\n", InvalidRequest),
        (b"GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n", InvalidRequest),
        (b"GET / HTTP/1.1\r\nhost: a\rx: y\r\n\r\n", InvalidRequest),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: a\x00b\r\n\r\n", InvalidRequest),
        (b"GET /\xff HTTP/1.1\r\nhost: a\r\n\r\n", InvalidRequest),
        (b"GET /a b HTTP/1.1\r\nhost: a\r\n\r\n", InvalidRequest),
        (
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n"
            b"0\r\n\r\n",
            InvalidRequest,
        ),
        (POSTED + b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc", InvalidRequest),
        (POSTED + b"content-length: +3\r\n\r\nabc", InvalidRequest),
        (POSTED + b"content-length: 3, 3\r\n\r\nabc", InvalidRequest),
        (POSTED + b"content-length: 99999999999999999999\r\n\r\n", InvalidRequest),
        (POSTED + b"transfer-encoding: gzip\r\n\r\nabc", Unsupported),
        (POSTED + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Unsupported),
        (IN_CHUNKS.replace(b"1.1", b"1.0") + b"0\r\n\r\n", InvalidRequest),
        (IN_CHUNKS + b"xyz\r\n", InvalidRequest),
        (IN_CHUNKS + b"3\nabc\r\n0\r\n\r\n", InvalidRequest),
        (IN_CHUNKS + b"3 \r\nabc\r\n0\r\n\r\n", InvalidRequest),
        (IN_CHUNKS + b"3\r\nabcd\r\n0\r\n\r\n", InvalidRequest),
        (IN_CHUNKS + b"fffffffffffffffff\r\n", InvalidRequest),
        (CLOSING + GET, InvalidRequest),
    ],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_is_refused_however_it_is_cut(
    data: bytes, error: type[GatewayError]
) -> None:
    with pytest.raises(error):
        read(data)
    for cut in range(1, len(data)):
        with pytest.raises(error):
            read(data[:cut], data[cut:])


@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
@pytest.mark.parametrize(
    "fields",
    [
        b"".join(b"x-%d: y\r\n" % i for i in range(200)),
        b"".join(b"x-%d: %b\r\n" % (i, b"y" * 1000) for i in range(10)),
        b"x: " + b"y" * 10_000 + b"\r\n",
    ],
)
def test_heads_have_a_bound(fields: bytes, size: int) -> None:
    data = b"GET / HTTP/1.1\r\nhost: a\r\n" + fields + b"\r\n"
    with pytest.raises(HeadersTooLarge):
        read(*(data[i : i + size] for i in range(0, len(data), size)), max_head=8192)


@pytest.mark.parametrize(
    "start", [b"GET /", b"GET / HTTP/1.1\r\nhost: a\r\nx: ", b"GET / HTTP/1.1\r\nx"]
)
def test_heads_without_an_end_are_refused(start: bytes) -> None:
    with pytest.raises(HeadersTooLarge):
        read(start, *[b"y" * 1000] * 20, max_head=8192)


def test_extensions_of_chunks_have_a_bound() -> None:
    start = IN_CHUNKS + b"1;x="
    with pytest.raises(InvalidRequest, match="extensions"):
        read(start, *[b"y" * 1000] * 100)
    with pytest.raises(InvalidRequest, match="extensions"):
        read(start + b"y\r\n", *[b"a\r\n1;x=" + b"y" * 200 + b"\r\n"] * 1000)


def test_trailers_have_a_bound() -> None:
    start = IN_CHUNKS + b"0\r\n"
    with pytest.raises(InvalidRequest):
        read(start, *[b"x: " + b"y" * 1000 + b"\r\n"] * 100)


def test_what_came_with_the_end_of_one_request_is_not_counted_to_the_next() -> None:
    body = b"x" * 60_000
    post = b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 60000\r\n\r\n"
    whole = post + body
    for first in (5, len(post) + 5):  # in a head, in a body
        for second in (len(whole) + 5, len(whole) + len(post) + 5):
            twice = whole * 2
            told = read(twice[:first], twice[first:second], twice[second:], max_head=8192)
            assert told.bodies == [body, body]


def test_small_chunks_are_no_attack() -> None:
    start = IN_CHUNKS
    told = read(start, *[b"1\r\na\r\n"] * 50_000, b"0\r\n\r\n")
    assert told.bodies == [b"a" * 50_000]


@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([r[0] for r in REQUESTS]))))
def test_any_bytes_are_requests_or_refused(pieces: list[bytes]) -> None:
    with contextlib.suppress(InvalidRequest, Unsupported):
        read(*(piece for piece in pieces if piece))


@given(st.sampled_from([r[0] for r in REQUESTS]), st.data())
def test_a_request_with_some_bytes_wrong_raises_nothing_else(
    request_: bytes, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(request_) - 1))
    broken = request_[:at] + data.draw(st.binary(max_size=3)) + request_[at + 1 :]
    with contextlib.suppress(InvalidRequest, Unsupported):
        read(broken)


def test_answers_are_written_from_their_parts() -> None:
    headers = ((b"content-type", b"text/plain"),)
    assert write_head(200, headers, b"now", length=3, chunked=False, close=False) == (
        b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\n"
    )
    assert write_head(200, (), b"now", length=None, chunked=True, close=True) == (
        b"HTTP/1.1 200 OK\r\ndate: now\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    )
    assert write_head(299, (), b"now", length=0, chunked=False, close=False) == (
        b"HTTP/1.1 299 \r\ndate: now\r\ncontent-length: 0\r\n\r\n"
    )
