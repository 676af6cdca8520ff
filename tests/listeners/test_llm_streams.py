"""Streams piece by piece, clients that hang up, deadlines; and the one ending of each."""

import http.client
import time
from collections.abc import Iterator

import pytest
from support import (
    SILENCE,
    Client,
    Gate,
    GatewayProcess,
    HttpUpstream,
    Raw,
    chunked,
    events,
    serving,
    sized,
    until,
)

CHAT = "/v1/chat/completions"
STREAM = b'{"model":"chat","stream":true}'
PLAIN = b'{"model":"chat"}'


@pytest.fixture(scope="module")
def gateway(
    upstream: HttpUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    upstream.names = ["chat", "narrow"]
    models = {
        "chat": {"adapter": "vllm", "backends": [upstream.url]},
    }
    with serving(tmp_path_factory.mktemp("streams"), models) as running:
        yield running


@pytest.fixture(scope="module")
def narrow(
    second_upstream: HttpUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """A gateway that lets one call at a time through to its backend."""
    second_upstream.names = ["chat"]
    models = {
        "chat": {
            "adapter": "vllm",
            "backends": [second_upstream.url],
            "max_inflight": 1,
            "max_queue": 2,
        }
    }
    with serving(tmp_path_factory.mktemp("narrow"), models) as running:
        yield running


def waiting(gateway: GatewayProcess) -> int:
    found: int = gateway.model("chat")["versions"][0]["waiting"]
    return found


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/responses", "/v1/messages"])
def test_a_stream_arrives_piece_by_piece(
    gateway: GatewayProcess, upstream: HttpUpstream, path: str
) -> None:
    pieces = [
        b'data: {"n":1,"new":"\xc3\xa9"}\n\n',
        b"event: unknown\ndata:  odd \n\n: a comment\n\n",
        b"data: [DONE]\n\n",
    ]
    gates = [Gate() for _ in pieces]
    script = [part for pair in zip(gates, pieces, strict=True) for part in pair]
    upstream.answer(events(*script))
    with gateway.http.asking("POST", path, STREAM) as connection:
        gates[0].open()
        answer = connection.getresponse()
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        for number, piece in enumerate(pieces):
            gates[number].open()
            assert answer.read1() == piece
        assert answer.read1() == b""


def test_pieces_are_not_joined_to_events(gateway: GatewayProcess, upstream: HttpUpstream) -> None:
    rest, end = Gate(), Gate()
    upstream.answer(events(b'data: {"a":', rest, b"1}\n", end, b"\n"))
    with gateway.http.open("POST", CHAT, STREAM) as answer:
        assert answer.read1() == b'data: {"a":'
        rest.open()
        assert answer.read1() == b"1}\n"
        end.open()
        assert answer.read1() == b"\n"
        assert answer.read1() == b""


def test_the_head_is_held_until_the_first_piece(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    first = Gate()
    upstream.answer(events(first, b"data: 1\n\n"))
    with Raw(gateway.port("http")) as raw:
        raw.send(request(STREAM))
        first.wait_reached()
        gateway.http.get("/healthz")  # by now the gateway has read the backend's head
        assert raw.silent()
        first.open()
        raw.line_of_status()


def test_a_long_answer_to_a_slow_reader_arrives_whole(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    pieces = [bytes([65 + number % 26]) * 100_000 for number in range(100)]
    upstream.answer(chunked(*pieces))
    with gateway.http.open("POST", CHAT, PLAIN) as answer:
        assert answer.read() == b"".join(pieces)


def test_connections_to_the_backend_are_kept(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    upstream.answer(sized(), chunked(b"{}"), events(b"data: 1\n\n"), sized())
    for body in (PLAIN, PLAIN, STREAM, PLAIN):
        assert gateway.http.post(CHAT, body).status == 200
    assert len({request.connection for request in upstream.requests}) == 1


def request(body: bytes, headers: str = "") -> bytes:
    head = f"POST {CHAT} HTTP/1.1\r\nhost: gateway\r\n{headers}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


# ── clients that leave ──


def cancelled(gateway: GatewayProcess, where: str) -> float:
    return gateway.total("isthmus_cancelled_total", where=where)


def test_a_hang_up_in_a_stream_reaches_the_backend(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    before = cancelled(gateway, "answer")
    upstream.answer(events(b"data: 1\n\n", SILENCE))
    with gateway.http.open("POST", CHAT, STREAM) as answer:
        assert answer.read1() == b"data: 1\n\n"
        asked = upstream.only()
        assert gateway.total("isthmus_inflight_requests") == 1
        assert not asked.closed.is_set()
    assert asked.closed.wait(5), "the backend works on for nobody"
    gateway.idle()
    until(lambda: cancelled(gateway, "answer") == before + 1)


@pytest.mark.parametrize("body", [PLAIN, STREAM], ids=["plain", "stream"])
def test_a_hang_up_before_the_answer_reaches_the_backend(
    gateway: GatewayProcess, upstream: HttpUpstream, body: bytes
) -> None:
    before = cancelled(gateway, "queue")
    upstream.answer([SILENCE])
    with gateway.http.asking("POST", CHAT, body):
        asked = upstream.next_request()
    assert asked.closed.wait(5), "the backend works on for nobody"
    gateway.idle()
    until(lambda: cancelled(gateway, "queue") == before + 1)
    assert gateway.total("isthmus_requests_total", code="499") >= 1


def test_a_hang_up_while_the_answer_is_written_reaches_the_backend(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    upstream.answer([*chunked(*([b"x" * 2**20] * 64), end=False), SILENCE])
    with gateway.http.open("POST", CHAT, PLAIN) as answer:
        assert answer.read(10) == b"x" * 10  # and no more, so that the gateway's buffers fill
        asked = upstream.only()
    assert asked.closed.wait(5), "the backend works on for nobody"
    gateway.idle()


def test_a_hang_up_in_the_body_asks_nobody(gateway: GatewayProcess, upstream: HttpUpstream) -> None:
    before = cancelled(gateway, "body")
    with Raw(gateway.port("http")) as raw:
        raw.send(request(PLAIN)[:-4])
    until(lambda: cancelled(gateway, "body") == before + 1)
    assert upstream.requests == []


def test_a_hang_up_in_the_queue_leaves_it(
    narrow: GatewayProcess, second_upstream: HttpUpstream
) -> None:
    gate = Gate()
    second_upstream.answer([gate, *sized()])
    with narrow.http.asking("POST", CHAT, PLAIN) as first:
        gate.wait_reached()
        with narrow.http.asking("POST", CHAT, PLAIN):
            until(lambda: waiting(narrow) == 1)
        until(lambda: waiting(narrow) == 0)
        gate.open()
        assert first.getresponse().status == 200
    narrow.idle()
    assert len(second_upstream.requests) == 1


# ── the queue ──


def test_calls_beyond_max_inflight_wait_in_order_and_those_beyond_max_queue_are_refused(
    narrow: GatewayProcess, second_upstream: HttpUpstream
) -> None:
    gate = Gate()
    second_upstream.answer([gate, *sized()])
    client = narrow.http
    with client.asking("POST", CHAT, b'{"model":"chat","n":0}') as first:
        gate.wait_reached()
        with client.asking("POST", CHAT, b'{"model":"chat","n":1}') as second:
            until(lambda: waiting(narrow) == 1)
            with client.asking("POST", CHAT, b'{"model":"chat","n":2}') as third:
                until(lambda: waiting(narrow) == 2)
                refused = client.post(CHAT, PLAIN)
                assert refused.status == 503
                assert refused.headers["retry-after"] == "1"
                assert "chat@1 has 2 calls waiting" in refused.json()["error"]["message"]
                assert len(second_upstream.requests) == 1
                gate.open()
                answers = [one.getresponse().status for one in (first, second, third)]
    assert answers == [200, 200, 200]
    bodies = [recorded.body for recorded in second_upstream.requests]
    assert bodies == [b'{"model":"chat","n":%d}' % n for n in range(3)]
    assert narrow.total("isthmus_inflight_requests") == 0


def test_time_in_the_queue_counts(narrow: GatewayProcess, second_upstream: HttpUpstream) -> None:
    gate = Gate()
    second_upstream.answer([gate, *sized()])
    with narrow.http.asking("POST", CHAT, PLAIN) as first:
        gate.wait_reached()
        late = narrow.http.post(CHAT, PLAIN, {"x-isthmus-timeout-ms": "50"})
        assert late.status == 504
        assert "chat@1: no backend had a free slot" in late.json()["error"]["message"]
        gate.open()
        assert first.getresponse().status == 200
    assert waiting(narrow) == 0


# ── deadlines ──


@pytest.mark.parametrize("body", [PLAIN, STREAM], ids=["plain", "stream"])
def test_a_clients_timeout_ends_the_call(
    gateway: GatewayProcess, upstream: HttpUpstream, body: bytes
) -> None:
    upstream.answer([SILENCE])
    began = time.monotonic()
    answer = gateway.http.post(CHAT, body, {"x-isthmus-timeout-ms": "100"})
    assert answer.status == 504
    assert time.monotonic() - began >= 0.1
    message = answer.json()["error"]["message"]
    assert message == "chat@1: the backend was not done within the time allowed for the request"
    assert upstream.only().closed.wait(5)
    gateway.idle()


def test_a_clients_timeout_cuts_a_stream(gateway: GatewayProcess, upstream: HttpUpstream) -> None:
    upstream.answer(events(b"data: 1\n\n", SILENCE))
    headers = {"x-isthmus-timeout-ms": "200"}
    with gateway.http.open("POST", CHAT, STREAM, headers) as answer:
        assert answer.status == 200
        with pytest.raises(http.client.IncompleteRead) as cut:
            answer.read()
    told = cut.value.partial
    assert told.startswith(b'data: 1\n\ndata: {"error":{"message":"chat@1: the backend was not')
    assert told.endswith(b"}}\n\n")
    assert upstream.only().closed.wait(5)


def test_a_client_that_takes_nothing_holds_its_slot_until_its_time_is_over(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    upstream.answer(sized(b"x" * 2**25))
    headers = {"x-isthmus-timeout-ms": "300"}
    with gateway.http.asking("POST", CHAT, PLAIN, headers):
        until(lambda: gateway.total("isthmus_inflight_requests") == 1, "the call in flight")
        gateway.idle()  # the client is still there, and reads nothing


def test_a_time_that_is_over_is_a_504_even_before_a_connection(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    upstream.drop_connections()
    upstream.otherwise(lambda _: [SILENCE])
    assert gateway.http.post(CHAT, PLAIN, {"x-isthmus-timeout-ms": "1"}).status == 504
    gateway.idle()


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "ten", "", "9999999999"])
def test_a_timeout_that_is_no_number_is_refused(
    gateway: GatewayProcess, upstream: HttpUpstream, value: str
) -> None:
    answer = gateway.http.post(CHAT, PLAIN, {"x-isthmus-timeout-ms": value})
    assert answer.status == 400
    assert answer.json()["error"]["param"] == "x-isthmus-timeout-ms"
    assert upstream.requests == []


def test_one_connection_serves_many_requests(gateway: GatewayProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port("http"), timeout=10)
    for _ in range(3):
        connection.request("POST", CHAT, PLAIN)
        assert connection.getresponse().read() == b'{"ok": true}'
        connection.request("POST", CHAT, b"{}")
        answer = connection.getresponse()
        assert (answer.status, bool(answer.read())) == (400, True)
    connection.close()


def test_requests_sent_ahead_are_answered_in_order(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    upstream.answer(sized(b"1"), sized(b"2"))
    with Raw(gateway.port("http")) as raw:
        raw.send(request(PLAIN) + request(PLAIN))
        assert raw.answer().body == b"1"
        assert raw.answer().body == b"2"
    assert Client(gateway.port("http")).get("/healthz").status == 200
