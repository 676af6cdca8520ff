"""Backends that are down, slow, or answer rubbish, over HTTP: told, never hung on."""

import http.client
import re
from collections.abc import Iterator
from typing import Any

import pytest
from support import (
    CLOSE,
    RESET,
    SILENCE,
    Answered,
    Gate,
    GatewayProcess,
    HttpUpstream,
    LoopThread,
    Raw,
    chunked,
    events,
    free_port,
    serving,
    sized,
    until,
    until_close,
)

CHAT, MESSAGES, PREDICT = "/v1/chat/completions", "/v1/messages", "/v1/models/mnist:predict"
ADDRESS = re.compile(r"127\.0\.0\.1|localhost|:\d{4,5}\b|Traceback|Errno|0x[0-9a-f]")
LLM_TIMES = {"connect": "500ms", "first_piece": "150ms", "idle": "150ms", "total": "400ms"}
PATHS = [(CHAT, "chat"), (MESSAGES, "chat"), (PREDICT, "mnist")]


@pytest.fixture(scope="module")
def gateway(
    upstream: HttpUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    upstream.names = ["chat"]
    upstream.versions = {"mnist": {1: "AVAILABLE"}}
    models = {
        "chat": {"adapter": "vllm", "backends": [upstream.url], "timeouts": LLM_TIMES},
        "mnist": {
            "adapter": "tensorflow_serving",
            "backends": [{"rest": upstream.url}],
            "versions": "discover",
            "timeouts": {"total": "300ms"},
        },
    }
    with serving(tmp_path_factory.mktemp("backends"), models) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_is_left(gateway: GatewayProcess) -> Iterator[None]:
    yield
    gateway.idle()


def ask(gateway: GatewayProcess, path: str, stream: bool = False) -> Answered:
    body = {"model": "chat", "stream": stream, "instances": [1]}
    return gateway.http.post(path, body)


def told(answer: Answered, path: str, status: int, name: str) -> str:
    """Check an error of the gateway's own, and return its message."""
    assert answer.status == status, answer.body
    error = answer.json()["error"]
    text: str = error if path == PREDICT else error["message"]
    assert text.startswith(f"{name}@1")
    assert not ADDRESS.search(answer.text), answer.text
    return text


RUBBISH: dict[str, list[Any]] = {
    "no HTTP": [b"SSH-2.0-OpenSSH_9.6\r\n", CLOSE],
    "no HTTP, kept open": [b"\x15\x03\x01\x00\x02\x02\x28", SILENCE],
    "nothing": [CLOSE],
    "a reset": [RESET],
    "half a head": [b"HTTP/1.1 200 OK\r\ncontent-le", CLOSE],
    "a bad status": [b"HTTP/1.1 abc OK\r\n\r\n", CLOSE],
    "a status beyond all": [b"HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n"],
    "a status below all": [b"HTTP/1.1 000 Odd\r\ncontent-length: 0\r\n\r\n"],
    "a bad length": [b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", CLOSE],
    "two lengths": [b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"],
    "length and chunks": [
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    ],
    "a bad chunk": [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"],
    "a head of megabytes": [b"HTTP/1.1 200 OK\r\n", b"x-a: b\r\n" * 200_000],
    "an endless field": [b"HTTP/1.1 200 OK\r\nx-a: ", b"b" * 200_000, SILENCE],
    "a thousand fields": [b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1000 + b"\r\n"],
    "a control character": [b"HTTP/1.1 200 OK\r\nx-a: b\x01\r\ncontent-length: 2\r\n\r\n{}"],
    "a delete": [b"HTTP/1.1 200 OK\r\nx-a: b\x7f\r\ncontent-length: 2\r\n\r\n{}"],
    "a bad name": [b"HTTP/1.1 200 OK\r\nx(a): b\r\ncontent-length: 2\r\n\r\n{}"],
    "another protocol": [b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nhi"],
    "HTTP/2": [b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\n{}"],
}


@pytest.mark.parametrize(("path", "name"), PATHS)
@pytest.mark.parametrize("kind", RUBBISH)
def test_rubbish_is_a_502(
    gateway: GatewayProcess, upstream: HttpUpstream, path: str, name: str, kind: str
) -> None:
    upstream.drop_connections()
    upstream.otherwise(lambda _: RUBBISH[kind])
    told(ask(gateway, path), path, 502, name)
    assert len(upstream.requests) == 1, "work may have been done: it must not be asked again"


CUT: dict[str, list[Any]] = {
    "a short body": [b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nhello", Gate, CLOSE],
    "a short chunk": [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhello",
        Gate,
        RESET,
    ],
    "no last chunk": [*chunked(b"hello", end=False), Gate, CLOSE],
    "a bad second chunk": [*chunked(b"hello", end=False), Gate, b"-5\r\n"],
    "silence": [*chunked(b"hello", end=False), Gate, SILENCE],
}


@pytest.mark.parametrize("path", [CHAT, PREDICT])
@pytest.mark.parametrize("kind", CUT)
def test_an_answer_cut_in_the_middle_never_ends_well(
    gateway: GatewayProcess, upstream: HttpUpstream, path: str, kind: str
) -> None:
    gate = Gate()
    upstream.answer([gate if step is Gate else step for step in CUT[kind]])
    body = {"model": "chat", "instances": [1]}
    with gateway.http.open("POST", path, body) as answer:
        assert answer.status == 200
        assert answer.read1() == b"hello"
        gate.open()
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            print(answer.read())


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("end", [CLOSE, RESET, SILENCE, b"zz\r\n"], ids=str)
def test_a_stream_that_fails_ends_with_an_error_event_and_a_cut(
    gateway: GatewayProcess, upstream: HttpUpstream, path: str, end: Any
) -> None:
    upstream.answer([*events(b"data: 1\n\n", end=False), end])
    body = {"model": "chat", "stream": True}
    with gateway.http.open("POST", path, body) as answer:
        assert answer.status == 200
        with pytest.raises(http.client.IncompleteRead) as cut:
            answer.read()
    first, last, rest = cut.value.partial.split(b"\n\n")
    assert (first, rest) == (b"data: 1", b"")
    start = (
        b'event: error\ndata: {"type":"error","error":' if path == MESSAGES else b'data: {"error":'
    )
    assert last.startswith(start)
    assert b"chat@1: the backend " in last
    assert not ADDRESS.search(last.decode())


def test_a_stream_that_fails_inside_an_event_gets_no_other_event(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    upstream.answer([*events(b"data: 1\n\ndata: {", end=False), CLOSE])
    body = {"model": "chat", "stream": True}
    with (
        gateway.http.open("POST", CHAT, body) as answer,
        pytest.raises(http.client.IncompleteRead) as cut,
    ):
        answer.read()
    assert cut.value.partial == b"data: 1\n\ndata: {"


FIRST_ERRORS = [
    [b'data: {"error": {"message": "engine died"}}\n\n', b"data: [DONE]\n\n"],
    [b'data: {"error":{"message":"engine died"}}\n\n'],
    [b"event: error\ndata: {}\n\n"],
    [b'event: error\r\ndata: {"type": "error"}\r\n\r\n'],
    [b'data: {"type": "error", "error": {}}\n\n'],
    [b'data: {"er', b'ror": {"message": "engine died"}}\n\n'],
    [b"d", b"a", b"t", b'a: {"error"', b": {}}\n\n"],
    [b'data:{"error": {}}\n\n'],
]


@pytest.mark.parametrize("pieces", FIRST_ERRORS, ids=range(len(FIRST_ERRORS)))
def test_a_stream_that_begins_with_an_error_is_a_failure(
    gateway: GatewayProcess, upstream: HttpUpstream, pieces: list[bytes]
) -> None:
    upstream.answer(events(*pieces))
    text = told(ask(gateway, CHAT, stream=True), CHAT, 502, "chat")
    assert text == "chat@1: the backend began its stream with an error"


@pytest.mark.parametrize(
    "pieces",
    [
        [b'data: {"errors": []}\n\n'],
        [b'data: {"id": "x", "error": null}\n\n'],
        [b'data: {"error": null, "id": "x"}\n\n'],
        [b"data: error\n\n"],
        [b"event: errors\ndata: 1\n\n"],
        [b": c", b"omment\n\n", b"data: 1\n\n"],
        [b"data"],
        [b'data: {"er'],
        [b'data: {"error": nu', b"ll}\n\n"],
        [b": ping\n\n", b'data: {"error": {}}\n\n'],  # committed by the comment
    ],
    ids=range(10),
)
def test_a_stream_that_begins_otherwise_is_none(
    gateway: GatewayProcess, upstream: HttpUpstream, pieces: list[bytes]
) -> None:
    upstream.answer(events(*pieces))
    answer = ask(gateway, CHAT, stream=True)
    assert (answer.status, answer.body) == (200, b"".join(pieces))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "name"), PATHS)
def test_a_silent_backend_is_a_504(
    gateway: GatewayProcess, upstream: HttpUpstream, path: str, name: str, stream: bool
) -> None:
    upstream.answer([SILENCE])
    text = told(ask(gateway, path, stream), path, 504, name)
    expected = "sent no first piece for 0.15 s" if stream and path != PREDICT else "time allowed"
    assert expected in text
    assert upstream.only().closed.wait(5)


def test_a_head_is_no_sign_of_life(gateway: GatewayProcess, upstream: HttpUpstream) -> None:
    upstream.answer(events(SILENCE))
    told(ask(gateway, CHAT, stream=True), CHAT, 504, "chat")


@pytest.mark.parametrize(("path", "name"), PATHS)
def test_a_kept_connection_that_went_stale_is_replaced_unseen(
    gateway: GatewayProcess, upstream: HttpUpstream, path: str, name: str
) -> None:
    assert ask(gateway, path).status == 200
    upstream.answer([CLOSE], sized(b'{"second": 1}'))
    assert ask(gateway, path).body == b'{"second": 1}'
    first, stale, fresh = upstream.requests
    assert first.connection == stale.connection != fresh.connection
    assert stale.body == fresh.body
    upstream.reset()
    upstream.answer([b"H", CLOSE])  # one byte of an answer: it was no stale connection
    told(ask(gateway, path), path, 502, name)
    assert len(upstream.requests) == 1


def test_a_connection_that_closed_meanwhile_is_not_used(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    for _ in range(5):
        assert ask(gateway, CHAT).status == 200
        upstream.drop_connections()
    assert len(upstream.requests) == 5


@pytest.mark.parametrize(
    "script",
    [
        until_close(b"hello"),
        until_close(b"hello", ["connection: close"]),
        [b"HTTP/1.0 200 OK\r\n\r\nhello", CLOSE],
        [*sized(b"hello", headers=["connection: close"])],
        [b"HTTP/1.1 200 OK\r\nContent-Length:5\r\n\r\nhello", b"HTTP/1.1 200 OK\r\n\r\nmore"],
        [b"HTTP/1.1 200 OK\r\nContent-Length:5\r\n\r\nhelloHTTP/1.1 201 OK\r\n\r\nmore"],
    ],
    ids=range(6),
)
def test_connections_that_are_not_to_be_used_again_are_not(
    gateway: GatewayProcess, upstream: HttpUpstream, script: list[Any]
) -> None:
    upstream.answer(script)
    assert ask(gateway, CHAT).body == b"hello"
    assert upstream.only().closed.wait(5)
    assert ask(gateway, CHAT).status == 200


# ── down, and up again ──


@pytest.mark.parametrize(("path", "name"), PATHS)
def test_a_backend_that_goes_down_is_a_503_until_it_is_back(
    gateway: GatewayProcess, upstream: HttpUpstream, path: str, name: str
) -> None:
    assert ask(gateway, path).status == 200
    upstream.stop()
    assert told(ask(gateway, path), path, 503, name)  # at once, before a probe has seen it
    gateway.model_ready(name, ready=False)
    answer = ask(gateway, path)
    if path == PREDICT:  # discovered versions are gone with the backend that held them
        assert answer.status in (503, 404)
    else:
        assert told(answer, path, 503, name)
        assert answer.headers["retry-after"] == "1"
    upstream.start()
    gateway.model_ready("chat")
    gateway.model_ready("mnist")
    assert ask(gateway, path).status == 200


def test_a_backend_that_is_down_at_the_start_is_a_503(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    models = {
        "chat": {"adapter": "vllm", "backends": [nobody]},
        "mnist": {
            "adapter": "tensorflow_serving",
            "backends": [{"rest": nobody}],
            "versions": {1: {"backends": [{"rest": nobody}]}},
        },
        "found": {
            "adapter": "tensorflow_serving",
            "backends": [{"rest": nobody}],
            "versions": "discover",
        },
    }
    del models["mnist"]["backends"]
    with serving(tmp_path_factory.mktemp("down"), models) as gateway:
        for path, name in PATHS:
            answer = ask(gateway, path)
            told(answer, path, 503, name)
            assert answer.headers["retry-after"] == "1"
        answer = ask(gateway, "/v1/models/found:predict")
        assert answer.status == 503
        assert "found has no version yet" in answer.json()["error"]
        for about in ("mnist", "mnist/metadata", "found", "found/metadata"):
            answer = gateway.http.get(f"/v1/models/{about}")
            assert answer.status == 503
            assert not ADDRESS.search(answer.text)
        assert gateway.http.get("/readyz").status == 200


def test_with_one_of_two_backends_down_every_request_succeeds(
    gateway: GatewayProcess,
    loop_thread: LoopThread,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    pair = [HttpUpstream(loop_thread), HttpUpstream(loop_thread)]
    for one in pair:
        one.names, one.versions = ["chat"], {"mnist": {1: "AVAILABLE"}}
    rest = [{"rest": one.url} for one in pair]
    models = {
        "chat": {"adapter": "vllm", "backends": [one.url for one in pair]},
        "mnist": {"adapter": "tensorflow_serving", "backends": rest, "versions": "discover"},
    }
    with serving(tmp_path_factory.mktemp("pair"), models) as both:
        both.model_ready("chat")
        pair[0].stop()
        for _ in range(20):
            for path, _ in PATHS:
                assert ask(both, path).status == 200
        pair[0].start()
        pair[0].requests.clear()
        until(lambda: ask(both, CHAT).status == 200 and pair[0].requests, "it is used again")
    for one in pair:
        one.stop()


def test_a_client_that_speaks_to_a_dead_backend_can_go_on(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    body = b'{"model":"chat"}'
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    upstream.drop_connections()
    with Raw(gateway.port("http")) as raw:
        upstream.answer([CLOSE])
        raw.send(head + body)
        assert raw.answer().status == 502
        raw.send(head + body)
        assert raw.answer().status == 200
