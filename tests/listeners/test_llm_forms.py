"""Anthropic's and Cohere's wire forms, and what OpenAI's clients ask that is not carried.

Requests are written as those companies' own clients write them; no client of theirs is needed.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from support import Gate, GatewayProcess, HttpUpstream, Raw, digest, events, serving, sized, until
from support.client import Answered

KEY, OTHERS = "sk-ant-forms", "sk-ant-others"
ANTHROPIC = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
COHERE = {"authorization": f"Bearer {KEY}", "x-client-name": "forms"}
MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
HELLO = {"model": "chat", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
EMBED = {
    "model": "chat",
    "texts": ["a"],
    "input_type": "search_query",
    "embedding_types": ["float"],
}
RERANK = {"model": "chat", "query": "q", "documents": ["a", "b"], "top_n": 1}


@pytest.fixture(scope="module")
def gateway(
    upstream: HttpUpstream,
    second_upstream: HttpUpstream,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[GatewayProcess]:
    upstream.names = ["served"]
    second_upstream.healthy = False
    models = {
        "chat": {"adapter": "vllm", "served_name": "served", "backends": [upstream.url]},
        "away": {"adapter": "vllm", "backends": [second_upstream.url]},
        "narrow": {
            "adapter": "vllm",
            "served_name": "served",
            "backends": [upstream.url],
            "max_inflight": 1,
            "max_queue": 0,
            "timeouts": {"total": "10s"},
        },
    }
    keys = [
        {"name": "team", "sha256": digest(KEY)},
        {"name": "others", "sha256": digest(OTHERS), "models": ["x*"]},
    ]
    folder = tmp_path_factory.mktemp("forms")
    limits = {"max_body": "64KiB"}
    with serving(folder, models, auth={"keys": keys}, limits=limits) as running:
        yield running


# ── Anthropic ──


def event(kind: str, **content: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **content})}\n\n".encode()


STARTED = event("message_start", message={"id": "msg_1", "role": "assistant", "content": []})


def test_messages(gateway: GatewayProcess, upstream: HttpUpstream) -> None:
    made = {"type": "message", "content": [{"type": "text", "text": "hello", "new": 1}]}
    upstream.answer(sized(made))
    answer = gateway.http.post(MESSAGES, {**HELLO, "thinking": {"type": "enabled"}}, ANTHROPIC)
    assert (answer.status, answer.json()) == (200, made)
    request = upstream.only()
    assert request.json() == {**HELLO, "model": "served", "thinking": {"type": "enabled"}}
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert "x-api-key" not in request.headers


def test_messages_are_streamed_as_they_come(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    gate = Gate()
    delta = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "hello"})
    upstream.answer(events(STARTED, gate, delta, event("message_stop")))
    with gateway.http.open("POST", MESSAGES, {**HELLO, "stream": True}, ANTHROPIC) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.read(len(STARTED)) == STARTED
        gate.wait_reached()
        gate.open()
        assert answer.read() == delta + event("message_stop")


def test_a_stream_that_breaks_ends_with_an_error_event(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    upstream.answer(events(STARTED, end=False))
    with gateway.http.open("POST", MESSAGES, {**HELLO, "stream": True}, ANTHROPIC) as answer:
        assert answer.read(len(STARTED)) == STARTED
        upstream.drop_connections()
        told = b""
        while not told.endswith(b"\n\n"):
            told += answer.read1()
    first, second = told.decode().splitlines()[:2]
    assert first == "event: error"
    error = json.loads(second.removeprefix("data: "))
    assert (error["type"], error["error"]["type"]) == ("error", "api_error")


def test_tokens_are_counted(gateway: GatewayProcess, upstream: HttpUpstream) -> None:
    upstream.answer(sized({"input_tokens": 7}))
    answer = gateway.http.post(COUNT, {**HELLO, "model": "chat@1"}, ANTHROPIC)
    assert answer.json() == {"input_tokens": 7}
    assert upstream.only().line == f"POST {COUNT}"


def _anthropics(answer: Answered) -> tuple[int, str]:
    body = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert body.keys() == {"type", "error"}
    assert body["type"] == "error"
    assert body["error"].keys() == {"type", "message"}
    return answer.status, body["error"]["type"]


@pytest.mark.parametrize("path", [MESSAGES, COUNT])
@pytest.mark.parametrize(
    ("body", "headers", "status", "kind"),
    [
        (HELLO, {"x-api-key": "wrong"}, 401, "authentication_error"),
        (HELLO, {"x-api-key": OTHERS}, 403, "permission_error"),
        ({**HELLO, "model": "nobody"}, ANTHROPIC, 404, "not_found_error"),
        ({**HELLO, "model": "chat@9"}, ANTHROPIC, 404, "not_found_error"),
        ({"messages": []}, ANTHROPIC, 400, "invalid_request_error"),
        (b"{", ANTHROPIC, 400, "invalid_request_error"),
        (b"x" * 70_000, ANTHROPIC, 413, "request_too_large"),
        (b"{}", {**ANTHROPIC, "content-encoding": "zstd"}, 415, "invalid_request_error"),
        ({**HELLO, "model": "away"}, ANTHROPIC, 503, "overloaded_error"),
    ],
)
def test_errors_in_anthropics_shape(
    gateway: GatewayProcess,
    path: str,
    body: bytes | dict[str, Any],
    headers: Mapping[str, str],
    status: int,
    kind: str,
) -> None:
    assert _anthropics(gateway.http.post(path, body, headers)) == (status, kind)


def test_routes_below_messages_fail_in_anthropics_shape(gateway: GatewayProcess) -> None:
    assert _anthropics(gateway.http.get(MESSAGES, ANTHROPIC)) == (405, "invalid_request_error")
    batches = gateway.http.post(f"{MESSAGES}/batches", {}, ANTHROPIC)
    assert _anthropics(batches) == (404, "not_found_error")


def test_a_full_queue_and_a_late_backend_in_anthropics_shape(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    gate, hello = Gate(), {**HELLO, "model": "narrow"}
    upstream.answer([gate, *sized({})])
    with gateway.http.asking("POST", MESSAGES, hello, ANTHROPIC) as first:
        gate.wait_reached()
        full = gateway.http.post(MESSAGES, hello, ANTHROPIC)
        assert _anthropics(full) == (503, "overloaded_error")
        assert full.headers["retry-after"] == "1"
        gate.open()
        assert first.getresponse().status == 200
    upstream.answer([Gate()])
    late = gateway.http.post(MESSAGES, HELLO, {**ANTHROPIC, "x-isthmus-timeout-ms": "50"})
    assert _anthropics(late) == (504, "timeout_error")


def test_a_backends_own_error_passes_as_it_is(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    theirs = {"type": "error", "error": {"type": "BadRequestError", "message": "max_tokens"}}
    upstream.answer(sized(theirs, "400 Bad Request"))
    answer = gateway.http.post(MESSAGES, HELLO, ANTHROPIC)
    assert (answer.status, answer.json()) == (400, theirs)


# ── Cohere ──


@pytest.mark.parametrize(
    ("path", "asked", "made"),
    [
        ("/v2/embed", EMBED, {"id": "e", "embeddings": {"float": [[0.1, 1e-9]]}}),
        ("/v2/rerank", RERANK, {"id": "r", "results": [{"index": 1, "relevance_score": 0.9}]}),
        ("/v1/rerank", RERANK, {"id": "r", "results": []}),
        ("/rerank", RERANK, {"id": "r", "results": []}),
    ],
)
def test_coheres_calls(
    gateway: GatewayProcess, upstream: HttpUpstream, path: str, asked: Any, made: Any
) -> None:
    upstream.answer(sized(made))
    answer = gateway.http.post(path, asked, COHERE)
    assert (answer.status, answer.json()) == (200, made)
    request = upstream.only()
    assert (request.line, request.json()) == (f"POST {path}", {**asked, "model": "served"})
    assert request.headers["x-client-name"] == "forms"
    assert "authorization" not in request.headers


@pytest.mark.parametrize("path", ["/v2/embed", "/v2/rerank", "/v1/rerank", "/rerank"])
@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (RERANK, {}, 401),
        (RERANK, {"authorization": f"Bearer {OTHERS}"}, 403),
        ({**RERANK, "model": "nobody"}, COHERE, 404),
        ({"query": "q"}, COHERE, 400),
        (b"[]", COHERE, 400),
        (b"x" * 70_000, COHERE, 413),
        ({**RERANK, "model": "away"}, COHERE, 503),
    ],
)
def test_errors_in_coheres_shape(
    gateway: GatewayProcess,
    path: str,
    body: bytes | dict[str, Any],
    headers: Mapping[str, str],
    status: int,
) -> None:
    answer = gateway.http.post(path, body, headers)
    assert (answer.status, list(answer.json())) == (status, ["message"])
    assert isinstance(answer.json()["message"], str)


@pytest.mark.parametrize("path", ["/v2/embed", "/v2/rerank", "/v1/rerank", "/rerank"])
def test_a_wrong_method_in_coheres_shape(gateway: GatewayProcess, path: str) -> None:
    wrong = gateway.http.get(path, COHERE)
    assert (wrong.status, list(wrong.json())) == (405, ["message"])


# ── /v1/realtime ──


UPGRADE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    "sec-websocket-protocol": "realtime",
}


@pytest.mark.parametrize("more", [{}, UPGRADE])
@pytest.mark.parametrize("path", ["/v1/realtime", "/v1/realtime?model=chat"])
def test_realtime_is_refused_with_a_pointer(
    gateway: GatewayProcess, more: Mapping[str, str], path: str
) -> None:
    answer = gateway.http.get(path, {"authorization": f"Bearer {KEY}", **more})
    error = answer.json()["error"]
    assert (answer.status, error["type"], error["code"]) == (501, "NotImplementedError", 501)
    for word in ("WebSocket", "backend", "/v1/audio/transcriptions", "docs/llms.md"):
        assert word in error["message"]
    assert gateway.http.get(path, more).status == 401
    labels = {"operation": "realtime", "code": "501"}
    until(lambda: gateway.total("isthmus_requests_total", **labels) > 0)


def test_a_refused_upgrade_leaves_the_connection_as_it_should(gateway: GatewayProcess) -> None:
    fields = "".join(
        f"{name}: {value}\r\n" for name, value in {**UPGRADE, "x-api-key": KEY}.items()
    )
    with Raw(gateway.port("http")) as raw:
        raw.send(f"GET /v1/realtime HTTP/1.1\r\nhost: x\r\n{fields}\r\n".encode())
        answer = raw.answer()
        assert answer.status == 501
        assert "upgrade" not in answer.headers
        raw.send(f"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\n\r\n".encode())
        if answer.headers.get("connection") == "close":
            assert raw.rest() == b""
        else:
            assert raw.answer().status == 200
