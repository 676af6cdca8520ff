"""LLM calls over HTTP: what reaches the backend, and what comes back."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support import GatewayProcess, HttpUpstream, events, serving, sized

CHAT = "/v1/chat/completions"
POSTED = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/embeddings",
    "/pooling",
    "/classify",
    "/score",
    "/v1/score",
    "/rerank",
    "/v1/rerank",
    "/v2/rerank",
    "/tokenize",
    "/detokenize",
]
OUT_OF_REACH = [
    ("GET", "/metrics"),
    ("GET", "/load"),
    ("GET", "/health"),
    ("GET", "/ping"),
    ("GET", "/version"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/server_info"),
    ("GET", "/v1"),
    ("GET", "/"),
    ("POST", "/v1/load_lora_adapter"),
    ("POST", "/v1/unload_lora_adapter"),
    ("POST", "/sleep"),
    ("POST", "/wake_up"),
    ("POST", "/collective_rpc"),
    ("POST", "/reset_prefix_cache"),
    ("POST", "/v1/chat/completions/"),
    ("POST", "/v1/chat/completions/../../load"),
    ("POST", "//v1/chat/completions"),
    ("POST", "/V1/CHAT/COMPLETIONS"),
    ("POST", "/api/models"),
]


@pytest.fixture(scope="module")
def gateway(
    upstream: HttpUpstream,
    second_upstream: HttpUpstream,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[GatewayProcess]:
    upstream.names = ["chat", "org/served-7b", "café"]
    second_upstream.names = ["org/served-7b", "chat"]
    own = {"url": upstream.url, "api_key": "sk-backend", "headers": {"X-Backend": "yes"}}
    both = {1: {"backends": [own]}, 2: {"backends": [second_upstream.url]}}
    models: dict[str, Any] = {
        "chat": {"adapter": "vllm", "backends": [own]},
        "renamed": {
            "adapter": "vllm",
            "served_name": "org/served-7b",
            "aliases": ["gpt-4", "org/gpt:4"],
            "versions": {1: {"backends": [own]}, 2: {"backends": [second_upstream.url]}},
            "labels": {"stable": 1, "canary": 2},
        },
        "accented": {"adapter": "vllm", "served_name": "café", "backends": [own]},
        "halves": {
            "adapter": "vllm",
            "served_name": "chat",
            "versions": both,
            "traffic": {1: 50, 2: 50},
        },
        "moved": {
            "adapter": "vllm",
            "served_name": "chat",
            "versions": both,
            "labels": {"old": 1, "new": 2},
            "traffic": {"old": 0, "new": 100},
        },
    }
    folder = tmp_path_factory.mktemp("llm")
    with serving(folder, models) as running:
        yield running


BODIES = [
    b'{"model":"chat","messages":[]}',
    b' {\n\t"zeta" : 1.0e+2, "model"\r\n:  "chat" , "messages": [ ], "alpha": null }\n ',
    b'{"model":"ch\\u0061t","x":"\\u00e9\\ud83d\\ude00","y":"\xc3\xa9"}',
    b'{"mod\\u0065l":"chat","n":123456789012345678901234567890,"f":1.10}',
    b'{"model":"other","stream":false,"model":"chat"}',
    b'{"vllm_xargs":{"model":"x"},"model":"chat","future_field":[{"model":"y"}]}',
    b'{"model":"chat","prompt":"' + b"x" * 300_000 + b'"}',
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_a_body_whose_name_is_right_arrives_byte_for_byte(
    gateway: GatewayProcess, upstream: HttpUpstream, body: bytes
) -> None:
    assert gateway.http.post(CHAT, body).status == 200
    assert upstream.only().body == body


SPLICED = [
    (b'{"model":"renamed","messages":[]}', b'{"model":"org/served-7b","messages":[]}'),
    (b'{"model" :\n "renamed@1" ,"a":1.50}', b'{"model" :\n "org/served-7b" ,"a":1.50}'),
    (b'{"model":"gpt-4"}', b'{"model":"org/served-7b"}'),
    (b'{"model":"org/gpt:4@stable"}', b'{"model":"org/served-7b"}'),
    (b'{"model":"ren\\u0061med","z":"\\u00e9"}', b'{"model":"org/served-7b","z":"\\u00e9"}'),
    (b'{"mod\\u0065l":"renamed"}', b'{"mod\\u0065l":"org/served-7b"}'),
    (
        b'{"user":{"model":"renamed"},"model":"renamed","tools":[{"model":"renamed"}]}',
        b'{"user":{"model":"renamed"},"model":"org/served-7b","tools":[{"model":"renamed"}]}',
    ),
    (
        b'{"content":"\\"model\\": \\"renamed\\"","model":"renamed"}',
        b'{"content":"\\"model\\": \\"renamed\\"","model":"org/served-7b"}',
    ),
    (b'{"a":"model","model":"renamed"}', b'{"a":"model","model":"org/served-7b"}'),
    (b'{"a":"\\\\","model":"renamed"}', b'{"a":"\\\\","model":"org/served-7b"}'),
    # The last of two counts, as in the backend's own parser: it was authorized, it is served.
    (b'{"model":"chat","model":"renamed"}', b'{"model":"chat","model":"org/served-7b"}'),
    (b'{"model":1,"model":"renamed"}', None),
    (
        b'{"m":{"model":"renamed"},"mod\\u0065l":"renamed"}',
        b'{"m":{"model":"renamed"},"mod\\u0065l":"org/served-7b"}',
    ),
    (b'{"model":"accented"}', '{"model":"café"}'.encode()),
]


@pytest.mark.parametrize(("sent", "arrived"), SPLICED, ids=range(len(SPLICED)))
def test_only_the_name_is_written_anew(
    gateway: GatewayProcess, upstream: HttpUpstream, sent: bytes, arrived: bytes | None
) -> None:
    answer = gateway.http.post(CHAT, sent)
    if arrived is None:  # refused rather than guessed
        assert answer.status == 400
        assert upstream.requests == []
        return
    assert answer.status == 200, answer.body
    assert upstream.only().body == arrived
    assert json.loads(arrived)["model"] in upstream.names


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("renamed", 1),
        ("renamed@2", 2),
        ("renamed@canary", 2),
        ("renamed@stable", 1),
        ("renamed@latest", 2),
        ("gpt-4@2", 2),
        ("halves@1", 1),
        ("halves@2", 2),
        ("moved", 2),
    ],
)
def test_versions_and_labels_are_honored(
    gateway: GatewayProcess,
    upstream: HttpUpstream,
    second_upstream: HttpUpstream,
    name: str,
    version: int,
) -> None:
    answer = gateway.http.post(CHAT, {"model": name})
    real = "renamed" if "gpt" in name else name.partition("@")[0]
    assert answer.headers["x-isthmus-model"] == f"{real}@{version}"
    holder, other = (upstream, second_upstream)[:: 1 if version == 1 else -1]
    assert holder.only().path == CHAT
    assert other.requests == []


def test_a_split_sends_to_every_share(gateway: GatewayProcess) -> None:
    seen = set()
    for _ in range(100):
        seen.add(gateway.http.post(CHAT, {"model": "halves"}).headers["x-isthmus-model"])
        if len(seen) == 2:
            break
    assert seen == {"halves@1", "halves@2"}


@pytest.mark.parametrize("path", POSTED)
def test_each_call_goes_to_its_own_path(
    gateway: GatewayProcess, upstream: HttpUpstream, path: str
) -> None:
    upstream.answer(sized({"of": path}))
    answer = gateway.http.post(path, b'{"model":"chat"}')
    assert (answer.status, answer.json()) == (200, {"of": path})
    assert upstream.only().line == f"POST {path}"


@pytest.mark.parametrize(("method", "path"), OUT_OF_REACH)
def test_nothing_else_is_reached(
    gateway: GatewayProcess, upstream: HttpUpstream, method: str, path: str
) -> None:
    answer = gateway.http.ask(method, path, b'{"model":"chat"}')
    assert answer.status == 404
    assert answer.json()["error"]["type"] == "NotFoundError"
    assert upstream.requests == []


def test_the_query_stays_here(gateway: GatewayProcess, upstream: HttpUpstream) -> None:
    assert gateway.http.post(f"{CHAT}?beta=true", b'{"model":"chat"}').status == 200
    assert upstream.only().path == CHAT


def test_the_request_is_framed_anew_with_the_backends_own_credentials(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    gateway.http.post(
        CHAT,
        {"model": "renamed"},
        {
            "Authorization": "Bearer client-key",
            "X-Api-Key": "client-key",
            "Cookie": "session=client-key",
            "Proxy-Authorization": "Basic client-key",
            "X-Backend": "forged",
            "Connection": "keep-alive, x-hop",
            "X-Hop": "gone",
            "TE": "trailers",
            "Upgrade": "h2c",
            "X-Isthmus-Timeout-Ms": "5000",
            "X-Future": "kept; really",
            "X-Request-Id": "abc-123",
        },
    )
    request = upstream.only()
    assert b"client-key" not in request.head
    headers = request.headers
    assert headers["authorization"] == "Bearer sk-backend"
    assert headers["x-backend"] == "yes"
    assert headers["host"] == f"127.0.0.1:{upstream.port}"
    assert headers["content-length"] == str(len(request.body))
    assert headers["x-future"] == "kept; really"
    assert headers["x-request-id"] == "abc-123"
    gone = ["x-hop", "te", "upgrade", "connection", "x-isthmus-timeout-ms", "transfer-encoding"]
    assert not [name for name in gone if name in headers]


def test_what_the_backend_adds_reaches_the_client(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    body = b'{ "brand_new_field" : [1.0, "\\u00e9"],\n"id":"x"}  '
    fields = [
        "content-type: application/json; charset=utf-8",
        "x-vllm-new: 1",
        "x-twice: a",
        "x-twice: b",
        "connection: keep-alive, x-hop",
        "x-hop: 1",
        "keep-alive: timeout=5",
        "set-cookie: backend=1",
        "x-isthmus-model: forged@9",
        "x-request-id: forged",
        "server-timing: forged;dur=1",
        "server: uvicorn",
        "date: Thu, 01 Jan 1970 00:00:00 GMT",
    ]
    upstream.answer(sized(body, "201 Made", fields))
    with gateway.http.open("POST", CHAT, b'{"model":"chat"}') as answer:
        assert answer.status == 201
        assert answer.read() == body
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        assert answer.headers["x-vllm-new"] == "1"
        assert answer.headers.get_all("x-twice") == ["a", "b"]
        assert answer.headers.get_all("x-isthmus-model") == ["chat@1"]
        assert "forged" not in str(answer.headers)
        for name in ("x-hop", "keep-alive", "set-cookie", "server", "connection"):
            assert answer.headers[name] is None
        assert "1970" not in answer.headers["date"]


def test_a_backends_own_error_passes_through(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    body = b'{"error": {"message": "too long", "type": "BadRequestError", "code": 400}}'
    upstream.answer(sized(body, "400 Bad Request"))
    answer = gateway.http.post(CHAT, {"model": "chat"})
    assert (answer.status, answer.body) == (400, body)


def test_replies_tell_who_answered_and_how_long_it_took(gateway: GatewayProcess) -> None:
    answer = gateway.http.post(CHAT, {"model": "renamed"}, {"x-request-id": "mine"})
    assert answer.headers["x-isthmus-model"] == "renamed@1"
    assert answer.headers["x-request-id"] == "mine"
    parts = dict(part.strip().split(";dur=") for part in answer.headers["server-timing"].split(","))
    assert set(parts) == {"gateway", "queue", "upstream"}
    assert all(float(value) >= 0 for value in parts.values())


def test_a_request_id_is_made_where_there_is_none(gateway: GatewayProcess) -> None:
    first = gateway.http.post(CHAT, {"model": "chat"}).headers["x-request-id"]
    second = gateway.http.post(CHAT, {"model": "chat"}).headers["x-request-id"]
    assert first
    assert first != second
    bad = gateway.http.post(CHAT, {"model": "chat"}, {"x-request-id": "x" * 129})
    assert len(bad.headers["x-request-id"]) < 100


def test_informational_answers_are_passed_over(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    upstream.answer([b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", *sized({"n": 1})])
    answer = gateway.http.post(CHAT, {"model": "chat"})
    assert answer.json() == {"n": 1}
    assert "link" not in answer.headers


def test_an_answer_without_a_body(gateway: GatewayProcess, upstream: HttpUpstream) -> None:
    upstream.answer([b"HTTP/1.1 204 No Content\r\n\r\n"], sized(b""), events())
    assert gateway.http.post(CHAT, {"model": "chat"}).status == 204
    assert gateway.http.post(CHAT, {"model": "chat"}).body == b""
    assert gateway.http.post(CHAT, {"model": "chat", "stream": True}).body == b""
