"""The http listener's manners on the wire: order, framing, old clients, what nobody asked for."""

import socket
from collections.abc import Iterator

import pytest
from support import (
    SILENCE,
    Gate,
    GatewayProcess,
    HttpUpstream,
    Raw,
    chunked,
    digest,
    events,
    serving,
    sized,
    until,
)

CHAT = "/v1/chat/completions"
KEY = "sk-right"
AUTH = f"authorization: Bearer {KEY}\r\n"
MANY = 65
"""One request that is served, and as many behind it as may wait."""


@pytest.fixture(scope="module")
def gateway(
    upstream: HttpUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    upstream.names = ["chat"]
    models = {"chat": {"adapter": "vllm", "backends": [upstream.url]}}
    auth = {"keys": [{"name": "team", "sha256": digest(KEY)}]}
    with serving(tmp_path_factory.mktemp("listener"), models, auth=auth) as running:
        yield running


@pytest.fixture
def raw(gateway: GatewayProcess) -> Iterator[Raw]:
    with Raw(gateway.port("http")) as connection:
        yield connection


def chat(number: int = 0, fields: str = "", in_chunks: bool = False, version: str = "1.1") -> bytes:
    """Write a chat request whose body tells its number."""
    body = b'{"model":"chat","n":%d}' % number
    framing = "transfer-encoding: chunked" if in_chunks else f"content-length: {len(body)}"
    head = f"POST {CHAT} HTTP/{version}\r\nhost: gateway\r\n{AUTH}{fields}{framing}\r\n\r\n"
    if in_chunks:
        body = b"5\r\n%b\r\n%x;ext=1\r\n%b\r\n0\r\ntrailer: x\r\n\r\n" % (
            body[:5], len(body) - 5, body[5:],
        )  # fmt: skip
    return head.encode() + body


def echo(upstream: HttpUpstream) -> None:
    """Have the upstream answer with what it was asked."""
    upstream.otherwise(lambda request: sized(request.body))


def rejected(gateway: GatewayProcess, reason: str) -> float:
    return gateway.total("isthmus_rejected_total", reason=reason)


# ── one behind the other ──


def test_a_connection_is_kept(raw: Raw, upstream: HttpUpstream) -> None:
    for _ in range(20):
        raw.send(chat())
        answer = raw.answer()
        assert answer.status == 200
        assert "connection" not in answer.headers


@pytest.mark.parametrize("how", ["at once", "byte by byte"])
def test_pipelined_requests_are_answered_in_their_order(
    raw: Raw, upstream: HttpUpstream, how: str
) -> None:
    echo(upstream)
    requests = b"".join(
        chat(n, in_chunks=n % 3 == 0) for n in range(MANY if how == "at once" else 5)
    )
    size = len(requests) if how == "at once" else 1
    raw.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for at in range(0, len(requests), size):
        raw.send(requests[at : at + size])
    for n in range(requests.count(b"POST")):
        assert raw.answer().json() == {"model": "chat", "n": n}


def test_a_slow_answer_holds_up_those_behind_it_and_no_other_way_round(
    raw: Raw, upstream: HttpUpstream
) -> None:
    gate = Gate()
    upstream.answer([gate, *sized(b'"slow"')], sized(b'"fast"'))
    raw.send(chat(1) + chat(2))
    gate.wait_reached()
    assert raw.silent()
    assert len(upstream.requests) == 1
    gate.open()
    assert [raw.answer().json() for _ in range(2)] == ["slow", "fast"]


def test_streams_and_answers_without_a_body_keep_the_order_too(
    raw: Raw, upstream: HttpUpstream
) -> None:
    upstream.answer(events(b"data: 1\n\n", b"data: 2\n\n"), chunked(b'"two"'), sized(b'"three"'))
    head = f"HEAD /v1/models HTTP/1.1\r\nhost: a\r\n{AUTH}\r\n".encode()
    options = f"OPTIONS {CHAT} HTTP/1.1\r\nhost: a\r\n\r\n".encode()
    raw.send(chat(1) + head + chat(2) + options + chat(3))
    assert raw.answer().body == b"data: 1\n\ndata: 2\n\n"
    seen = raw.answer(head=True)
    assert (seen.status, int(seen.headers["content-length"]) > 0) == (200, True)
    assert raw.answer().json() == "two"
    assert raw.answer().status == 204
    assert raw.answer().json() == "three"


def test_more_requests_ahead_than_may_wait_are_refused_after_those_that_may(
    raw: Raw, upstream: HttpUpstream
) -> None:
    echo(upstream)
    raw.send(b"".join(chat(n) for n in range(MANY + 20)))
    for n in range(MANY):
        assert raw.answer().json() == {"model": "chat", "n": n}
    last = raw.answer()
    assert (last.status, last.headers["connection"]) == (400, "close")
    assert "64 requests were sent ahead" in last.json()["error"]["message"]
    assert raw.rest() == b""
    assert len(upstream.requests) == MANY


@pytest.mark.parametrize(
    "garbage",
    [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", b"\x00" * 100,
     b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"],
    ids=["words", "hosts", "zeros", "chunk"],
)  # fmt: skip
@pytest.mark.parametrize("good", [0, 1, 3])
def test_garbage_is_refused_after_the_good_requests_before_it(
    gateway: GatewayProcess, raw: Raw, upstream: HttpUpstream, garbage: bytes, good: int
) -> None:
    before = (
        rejected(gateway, "invalid_request"),
        gateway.total("isthmus_requests_total", code="400"),
    )
    echo(upstream)
    raw.send(
        b"".join(chat(n) for n in range(good))
        + garbage.replace(b"host: a\r\nt", f"host: a\r\n{AUTH}t".encode())
    )
    for n in range(good):
        assert raw.answer().json() == {"model": "chat", "n": n}
    last = raw.answer()
    assert (last.status, last.headers["connection"]) == (400, "close")
    assert set(last.json()) == {"error"}
    assert raw.rest() == b""
    after = (
        rejected(gateway, "invalid_request"),
        gateway.total("isthmus_requests_total", code="400"),
    )
    assert after == (before[0] + 1, before[1] + 1)


def test_large_bodies_may_follow_each_other_however_they_are_cut(
    raw: Raw, upstream: HttpUpstream
) -> None:
    """What of one request came with the end of another is not the other's."""
    echo(upstream)
    body = b'{"model":"chat","x":"%b"}' % (b"x" * 60_000)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: a\r\n{AUTH}content-length: {len(body)}\r\n\r\n".encode()
    whole = head + body
    for cut in (len(head) - 5, len(head) + 5, len(head), len(head) + 50_000):
        for second in (len(whole) + 10, len(whole) + len(head) + 100):
            twice = whole + whole
            raw.pieces(twice[:cut], twice[cut:second], twice[second:])
            assert [raw.answer().body for _ in range(2)] == [body, body]


# ── cut anywhere ──


SPLIT = [
    chat(1),
    chat(1, in_chunks=True),
    chat(1, fields="expect: 100-continue\r\n"),
    chat(
        1, fields="connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMA\r\n"
    ),
]


@pytest.mark.parametrize("request_", SPLIT, ids=["length", "chunks", "expect", "upgrade"])
def test_a_request_may_come_split_anywhere(
    raw: Raw, upstream: HttpUpstream, request_: bytes
) -> None:
    echo(upstream)
    for cut in range(1, len(request_)):
        raw.pieces(request_[:cut], request_[cut:])
        answer = raw.answer()
        assert (answer.status, answer.json()) == (200, {"model": "chat", "n": 1}), cut
    assert {request.body for request in upstream.requests} == {b'{"model":"chat","n":1}'}


@pytest.fixture(scope="module")
def tight(
    second_upstream: HttpUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """A gateway in which what leaks is soon missed."""
    second_upstream.names = ["chat"]
    models = {
        "chat": {
            "adapter": "vllm",
            "backends": [second_upstream.url],
            "max_inflight": 2,
            "max_queue": 4,
        }
    }
    limits = {"connections": 8, "body_budget": 2000}
    with serving(tmp_path_factory.mktemp("tight"), models, limits=limits) as running:
        yield running


def sound(gateway: GatewayProcess) -> None:
    """Check that as many connections, and as large a body, are taken as ever."""

    def answered() -> bool:
        raws = [Raw(gateway.port("http")) for _ in range(8)]
        try:
            for one in raws:
                one.send(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
            return all(one.answer().status == 200 for one in raws)
        finally:
            for one in raws:
                one.close()

    until(answered, "room for connections")
    body = b'{"model":"chat","x":"%b"}' % (b"x" * 1900)
    until(lambda: gateway.http.post(CHAT, body).status == 200, "room for a body")
    gateway.idle()
    assert gateway.total("isthmus_inflight_requests") == 0


@pytest.mark.parametrize("in_chunks", [False, True], ids=["length", "chunks"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_may_leave_at_any_byte_and_nothing_leaks(
    tight: GatewayProcess, second_upstream: HttpUpstream, in_chunks: bool, how: str
) -> None:
    second_upstream.otherwise(lambda _: [SILENCE])
    request_ = chat(1, in_chunks=in_chunks)
    for cut in range(1, len(request_) + 1):
        with Raw(tight.port("http")) as raw:
            raw.send(request_[:cut])
            if cut == len(request_):
                second_upstream.next_request()
            if how == "reset":
                raw.reset()
    second_upstream.reset()
    sound(tight)


# ── old clients ──


def test_an_old_client_gets_its_answer_and_the_end(raw: Raw, upstream: HttpUpstream) -> None:
    raw.send(chat(version="1.0"))
    answer = raw.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert raw.rest() == b""


def test_an_old_client_that_asks_for_it_is_kept_and_told_so(
    raw: Raw, upstream: HttpUpstream
) -> None:
    for _ in range(3):
        raw.send(chat(fields="connection: keep-alive\r\n", version="1.0"))
        answer = raw.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "keep-alive")
    raw.send(chat(version="1.0"))
    assert raw.answer().headers["connection"] == "close"
    assert raw.rest() == b""


@pytest.mark.parametrize("fields", ["", "connection: keep-alive\r\n"], ids=["plain", "kept"])
def test_a_stream_to_an_old_client_ends_with_its_connection(
    raw: Raw, upstream: HttpUpstream, fields: str
) -> None:
    upstream.answer(events(b"data: 1\n\n", b"data: 2\n\n"))
    raw.send(chat(fields=fields, version="1.0"))
    head, _, body = raw.rest().partition(b"\r\n\r\n")
    assert body == b"data: 1\n\ndata: 2\n\n"
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()


def test_a_stream_that_fails_is_no_whole_one_to_an_old_client(
    raw: Raw, upstream: HttpUpstream
) -> None:
    """Without chunks only a reset tells the end from a cut."""
    upstream.answer([*chunked(b"hello", end=False), b"zz\r\n"])
    raw.send(chat(version="1.0"))
    with pytest.raises(ConnectionResetError):
        raw.rest(strict=True)


# ── offers that are declined ──


def test_an_upgrade_is_declined_and_its_body_read(raw: Raw, upstream: HttpUpstream) -> None:
    """As Java's client offers HTTP/2 with its first request."""
    echo(upstream)
    offer = "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMA\r\n"
    for in_chunks in (False, True):
        raw.send(chat(1, fields=offer, in_chunks=in_chunks) + chat(2))
        for n in (1, 2):
            assert raw.answer().json() == {"model": "chat", "n": n}
    for request in upstream.requests:
        for name in ("upgrade", "http2-settings", "connection"):
            assert name not in request.headers


def test_an_interim_answer_of_the_backend_stays_here(raw: Raw, upstream: HttpUpstream) -> None:
    interim = [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"]
    upstream.answer([*interim, *sized(b'"late"')])
    raw.send(chat())
    answer = raw.answer()
    assert (answer.status, answer.json()) == (200, "late")
    assert "link" not in answer.headers


# ── bodies that nobody wants ──


BIG = 8 * 2**20


@pytest.mark.parametrize("expects", [False, True], ids=["sent at once", "asks first"])
@pytest.mark.parametrize("in_chunks", [False, True], ids=["length", "chunks"])
def test_a_stranger_gets_its_401_before_its_body_is_read(
    gateway: GatewayProcess, raw: Raw, upstream: HttpUpstream, expects: bool, in_chunks: bool
) -> None:
    before = rejected(gateway, "unauthenticated")
    framing = "transfer-encoding: chunked" if in_chunks else f"content-length: {BIG}"
    expect = "expect: 100-continue\r\n" if expects else ""
    raw.send(f"POST {CHAT} HTTP/1.1\r\nhost: a\r\n{expect}{framing}\r\n\r\n".encode())
    if not expects:
        sent = raw.send_all(b"%x\r\n" % BIG * in_chunks + b"x" * BIG)
        assert sent, "the client was reset before it could read its answer"
    answer = raw.answer()
    assert (answer.status, answer.headers["connection"]) == (401, "close")
    assert raw.rest() == b""
    assert rejected(gateway, "unauthenticated") == before + 1
    assert upstream.requests == []


def test_a_client_that_sends_on_after_its_refusal_is_cut_off(raw: Raw) -> None:
    raw.send(f"POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-length: {2**40}\r\n\r\n".encode())
    assert raw.answer().status == 401
    until(lambda: not raw.send_all(b"x" * 65536), "the end")


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        (CHAT, {"error"}),
        ("/v1/messages", {"type", "error"}),
        ("/v2/embed", {"message"}),
        ("/v1/models/mnist:predict", {"error"}),
    ],
)
def test_what_is_no_request_is_refused_in_its_paths_own_shape(
    raw: Raw, path: str, shape: set[str]
) -> None:
    raw.send(
        f"POST {path} HTTP/1.1\r\nhost: a\r\n".encode()
        + b"content-length: 1\r\ncontent-length: 2\r\n\r\n"
    )
    answer = raw.answer()
    assert answer.status == 400
    assert set(answer.json()) == shape
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
