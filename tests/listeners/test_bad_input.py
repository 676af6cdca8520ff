"""What strangers send: refused in the shape of their protocol, before any backend sees it."""

import gzip
import random
from collections.abc import Iterator
from typing import Any

import pytest
from support import GatewayProcess, HttpUpstream, Raw, serving

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
PREDICT = "/v1/models/mnist:predict"
MAX_BODY = 4096
HEADER_BYTES = 8192
DEPTH = 16


@pytest.fixture(scope="module")
def gateway(
    upstream: HttpUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    upstream.names = ["chat"]
    upstream.versions = {"mnist": {1: "AVAILABLE", 2: "AVAILABLE"}}
    models = {
        "chat": {"adapter": "vllm", "backends": [upstream.url], "labels": {"stable": 1}},
        "renamed": {"adapter": "vllm", "served_name": "chat", "backends": [upstream.url]},
        "mnist": {
            "adapter": "tensorflow_serving",
            "backends": [{"rest": upstream.url}],
            "versions": "discover",
            "labels": {"stable": 2},
        },
    }
    limits = {"max_body": MAX_BODY, "header_bytes": HEADER_BYTES, "json_depth": DEPTH}
    with serving(tmp_path_factory.mktemp("bad"), models, limits=limits) as running:
        yield running


@pytest.fixture(autouse=True)
def _unseen(upstream: HttpUpstream) -> Iterator[None]:
    yield
    assert upstream.requests == []


def text_of(answer: Any, path: str) -> str:
    """Check an error's shape, and return its message."""
    found = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    if path.startswith(MESSAGES):
        assert set(found) == {"type", "error"}
        assert found["type"] == "error"
        assert set(found["error"]) == {"type", "message"}
    elif ":predict" in path or "/versions/" in path or "/labels/" in path:
        assert set(found) == {"error"}
        return str(found["error"])
    else:
        assert set(found["error"]) == {"message", "type", "param", "code"}
        assert found["error"]["code"] == answer.status
    return str(found["error"]["message"])


UNKNOWN = [
    (CHAT, "gpt", 404, "The model `gpt` does not exist. Models here: chat, mnist, renamed."),
    (CHAT, "gpt@1", 404, "Models here: chat, mnist, renamed."),
    (CHAT, "Chat", 404, "Models here: chat, mnist, renamed."),
    (CHAT, "chat@9", 404, "chat has no version 9. Versions of chat: 1; labels: stable = 1."),
    (CHAT, "chat@canary", 404, "Unrecognized servable version label: canary. Versions of chat: 1"),
    (CHAT, "chat@9999999999999999999", 400, "is not a number from 0 to"),
    (CHAT, "chat@", 400, "neither a version number nor a label"),
    (CHAT, "chat@@1", 400, "is not a model's name"),
    (CHAT, "chat@1.0", 400, "neither a version number nor a label"),
    (CHAT, "chat@\u0661", 400, "neither a version number nor a label"),
    (CHAT, "", 400, "is not a model's name"),
    (CHAT, " chat", 400, "is not a model's name"),
    (CHAT, "chat\n", 400, "is not a model's name"),
    (CHAT, "../chat", 400, "is not a model's name"),
    (CHAT, "a..b", 400, "is not a model's name"),
    (CHAT, "x" * 129, 400, "is not a model's name"),
    (CHAT, "<script>\u202e\x1b[31m", 400, r"'<script>\\u202e\\x1b[31m' is not a model's name"),
    (MESSAGES, "gpt", 404, "Models here: chat, mnist, renamed."),
    (MESSAGES, "chat@9", 404, "chat has no version 9."),
    (MESSAGES, "chat@canary", 404, "labels: stable = 1."),
]


@pytest.mark.parametrize(("path", "name", "status", "text"), UNKNOWN)
def test_names_that_are_not_there(
    gateway: GatewayProcess, path: str, name: str, status: int, text: str
) -> None:
    answer = gateway.http.post(path, {"model": name})
    assert answer.status == status
    assert text in text_of(answer, path)


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("gpt:predict", 404, "Servable not found for request: Latest(gpt). The model `gpt`"),
        ("gpt/versions/1:predict", 404, "Servable not found for request: Specific(gpt, 1)."),
        ("mnist/versions/9:predict", 404, "Specific(mnist, 9). mnist has no version 9. Versions"),
        ("mnist/labels/canary:predict", 400, "Unrecognized servable version label: canary."),
        ("mnist/labels/CANARY:predict", 400, "Versions of mnist: 1, 2; labels: stable = 2."),
        (
            "mnist/versions/one:predict",
            400,
            "Malformed request: POST /v1/models/mnist/versions/one:predict",
        ),
        (
            "mnist/versions/-1:predict",
            400,
            "Malformed request: POST /v1/models/mnist/versions/-1:predict",
        ),
        ("mnist/versions/1e3:predict", 400, "Malformed request: "),
        ("mnist/versions/9223372036854775808:predict", 400, "Failed to convert version: 92"),
        ("mnist/versions/%D9%A1:predict", 400, "Malformed request: "),
    ],
)
def test_names_that_are_not_there_in_paths(
    gateway: GatewayProcess, path: str, status: int, text: str
) -> None:
    answer = gateway.http.post(f"/v1/models/{path}", b'{"instances":[1]}')
    assert answer.status == status
    assert text in text_of(answer, f"/v1/models/{path}")


NOT_REQUESTS = [
    (b"", "not valid JSON"),
    (b"not json", "not valid JSON"),
    (b'{"model":"chat"', "nested deeper than|not valid JSON"),
    (b'{"model":"chat"} {}', "not valid JSON"),
    (b'{"model":"chat",}', "not valid JSON"),
    (b"{'model':'chat'}", "not valid JSON"),
    (b'\xef\xbb\xbf{"model":"chat"}', "not valid JSON"),
    ('{"model":"chat"}'.encode("utf-16"), "not valid JSON"),
    (b'{"model":"\xff"}', "not valid JSON"),
    (b'{"model":"chat\\ud800"}', "not valid JSON"),
    (b'{"model":"chat\x00"}', "not valid JSON"),
    (b'["model","chat"]', "wrong type"),
    (b'"chat"', "wrong type"),
    (b"null", "wrong type"),
    (b"{}", "names no model"),
    (b'{"Model":"chat"}', "names no model"),
    (b'{"x":{"model":"chat"}}', "names no model"),
    (b'{"model":null}', "wrong type"),
    (b'{"model":["chat"]}', "wrong type"),
    (b'{"model":{"id":"chat"}}', "wrong type"),
    (b'{"model":1}', "wrong type"),
]


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize(("body", "text"), NOT_REQUESTS, ids=range(len(NOT_REQUESTS)))
def test_bodies_that_are_no_requests(
    gateway: GatewayProcess, path: str, body: bytes, text: str
) -> None:
    answer = gateway.http.post(path, body)
    assert answer.status == 400
    message = text_of(answer, path)
    assert any(part in message for part in text.split("|"))


@pytest.mark.parametrize("body", [b"", b"not json", b"[1]", b'{"a":1', b"null", b"NaN", b"[NaN]"])
def test_bodies_that_are_no_predict_requests(gateway: GatewayProcess, body: bytes) -> None:
    answer = gateway.http.post(PREDICT, body)
    assert answer.status == 400
    text_of(answer, PREDICT)


@pytest.mark.parametrize("path", [CHAT, MESSAGES, PREDICT])
@pytest.mark.parametrize("pair", [b"[]", b"{}"])
def test_bodies_that_are_too_deep(gateway: GatewayProcess, path: str, pair: bytes) -> None:
    opened, closed = (b"[", b"]") if pair == b"[]" else (b'{"a":', b"}")
    levels = 500 if pair == b"[]" else DEPTH
    deep = opened * levels + b"1" + closed * levels
    answer = gateway.http.post(path, b'{"model":"chat","x":%s}' % deep)
    assert answer.status == 400
    assert f"deeper than {DEPTH} levels" in text_of(answer, path)


@pytest.mark.parametrize("path", [CHAT, MESSAGES, PREDICT])
def test_bodies_that_are_too_large(gateway: GatewayProcess, path: str) -> None:
    answer = gateway.http.post(path, b'{"model":"chat","x":"%s"}' % (b"x" * MAX_BODY))
    assert answer.status == 413
    assert f"larger than {MAX_BODY} bytes" in text_of(answer, path)


@pytest.mark.parametrize(
    ("framing", "sent"),
    [
        ("content-length: 4097", b""),
        ("content-length: 99999999999999999999999", b""),
        ("content-length: 18446744073709551615", b""),
        ("transfer-encoding: chunked", b"1000\r\n" + b" " * 4096 + b"\r\n1\r\nx\r\n"),
    ],
)
def test_a_body_is_refused_as_soon_as_it_is_known_to_be_too_large(
    gateway: GatewayProcess, framing: str, sent: bytes
) -> None:
    with Raw(gateway.port("http")) as raw:
        raw.send(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\n{framing}\r\n\r\n".encode() + sent)
        assert raw.answer().status in (413, 400)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, identity", "x"])
def test_compressed_bodies_are_not_taken(gateway: GatewayProcess, encoding: str) -> None:
    body = gzip.compress(b'{"model":"chat"}')
    for path in (CHAT, MESSAGES, PREDICT):
        answer = gateway.http.post(path, body, {"content-encoding": encoding})
        assert answer.status == 415
        assert "compressed request bodies are not taken" in text_of(answer, path)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/..%2f..%2fmetrics",
        "/v1/models/../../metrics",
        "/v1/models/%2e%2e/%2e%2e/metrics",
        "/v1/models/%252e%252e%252fmetrics",
        "/v1/models/mnist%252fversions%252f1",
        "/v1/models/mnist%00",
        "/v1/models/mnist%0d%0aX:1",
        "/v1/models/mnist/versions/1%00:predict",
        "/v1/models/mnist/versions/../metadata",
        "/v1/models/mnist/metadata/..",
        "/v1/models/mnist//metadata",
        "/v1/models//mnist",
        "/v1/models/mnist/versions/",
        "/v1/models/mnist/versions/1/",
        "/v1/models/mnist/versions/1/labels/stable",
        "/v1/models/mnist/metadata:predict",
        "/v1/models/%ff",
        "/v1/models/%c0%ae%c0%ae",
        "/v1/models/",
        "/v1/models/mnist%3f",
        "/v1/models/mnist%23",
        "/v1/models/mnist%20",
        "/v1/models/%E2%80%AEmnist",
        "/v1/models/mnist;x=1",
        "/v1/chat%2fcompletions%00",
        "/v1/chat/completions%0a",
    ],
)
def test_tricks_in_paths(gateway: GatewayProcess, path: str) -> None:
    for method in ("GET", "POST"):
        answer = gateway.http.ask(method, path, b'{"model":"chat","instances":[1]}')
        assert answer.status in (400, 404, 405), answer.body
        assert b"Traceback" not in answer.body


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CHAT, "POST"),
        ("PUT", CHAT, "POST"),
        ("DELETE", "/v1/models", "GET"),
        ("POST", "/v1/models", "GET"),
        ("GET", MESSAGES, "POST"),
        ("DELETE", "/v1/models/chat", "GET"),
        ("POST", "/v1/models/nobody", "GET"),
    ],
)
def test_methods_that_are_not_served(
    gateway: GatewayProcess, method: str, path: str, allowed: str
) -> None:
    answer = gateway.http.ask(method, path, b"{}")
    assert answer.status == 405
    assert answer.headers["allow"] == allowed
    assert f"served for {allowed}, not for {method}" in answer.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "mnist:predict"),
        ("POST", "mnist"),
        ("POST", "mnist/metadata"),
        ("PUT", "mnist:predict"),
        ("DELETE", "mnist"),
        ("POST", "mnist:PREDICT"),
        ("POST", "mnist:explain"),
        ("POST", "nobody:explain"),
        ("POST", "mnist/versions/1/labels/stable:predict"),
        ("POST", "mnist/version/1:predict"),
    ],
)
def test_what_tf_serving_calls_malformed(gateway: GatewayProcess, method: str, path: str) -> None:
    answer = gateway.http.ask(method, f"/v1/models/{path}", b"{}")
    assert answer.status == 400
    assert answer.json() == {"error": f"Malformed request: {method} /v1/models/{path}"}


def test_a_head_is_answered_without_a_body(gateway: GatewayProcess) -> None:
    assert gateway.http.ask("HEAD", "/healthz").status == 200
    assert gateway.http.ask("HEAD", CHAT).status == 405


@pytest.mark.parametrize("path", [CHAT, MESSAGES, PREDICT])
def test_headers_that_are_too_large(gateway: GatewayProcess, path: str) -> None:
    for headers in (
        {"x-huge": "x" * HEADER_BYTES},
        {f"x-{n}": "y" * 50 for n in range(99)} | {"x-a": "z" * 3000},
    ):
        answer = gateway.http.post(path, b'{"model":"chat"}', headers)
        assert answer.status == 431
        assert f"larger than {HEADER_BYTES} bytes" in text_of(answer, path)


@pytest.mark.parametrize(
    ("start", "endless"),
    [
        (b"GET /", b"a" * 1024),
        (b"GET /v1/models HTTP/1.1\r\nx-", b"a" * 1024),
        (b"GET /v1/models HTTP/1.1\r\nx-a:", b"b" * 1024),
        (b"GET /v1/models HTTP/1.1\r\n", b"x-a: b\r\n" * 128),
    ],
)
def test_a_head_without_an_end_is_cut_off(
    gateway: GatewayProcess, start: bytes, endless: bytes
) -> None:
    with Raw(gateway.port("http")) as raw:
        raw.send(start)
        for _ in range(1000):
            raw.send(endless)
        assert raw.rest().startswith(b"HTTP/1.1 431 ")


SMUGGLED = [
    b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"content-length: 5\r\ncontent-length: 6\r\n\r\n{}",
    b"content-length: 2, 2\r\n\r\n{}",
    b"content-length: +2\r\n\r\n{}",
    b"content-length: 0x2\r\n\r\n{}",
    b"transfer-encoding: gzip, chunked, x\r\n\r\n0\r\n\r\n",
    b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    b"transfer-encoding: chunked\r\n\r\n-1\r\n\r\n",
    b"transfer-encoding: chunked\r\n\r\n2\r\n{}x\r\n0\r\n\r\n",
    b"x-a: 1\n\n",
    b"x-a: a\rb\r\n\r\n",
    b"x-a: a\x00b\r\n\r\n",
    b"x a: 1\r\n\r\n",
    b": 1\r\n\r\n",
]


@pytest.mark.parametrize("rest", SMUGGLED, ids=range(len(SMUGGLED)))
def test_framing_that_two_servers_could_read_differently(
    gateway: GatewayProcess, rest: bytes
) -> None:
    with Raw(gateway.port("http")) as raw:
        raw.send(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\n".encode() + rest)
        assert raw.answer().status in (400, 415)


@pytest.mark.parametrize(
    "start", [b"\x16\x03\x01\x02\x00\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
)
def test_other_protocols_are_shown_the_door(gateway: GatewayProcess, start: bytes) -> None:
    with Raw(gateway.port("http")) as raw:
        raw.send(start)
        assert raw.answer().status == 400


def test_no_upgrade_is_made(gateway: GatewayProcess) -> None:
    head = (
        b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    )
    with Raw(gateway.port("http")) as raw:
        raw.send(head)
        assert raw.answer().status == 200


def test_fields_after_a_chunked_body_are_no_headers(gateway: GatewayProcess) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    with Raw(gateway.port("http")) as raw:
        raw.send(head + b"2\r\n{}\r\n0\r\nx-request-id: from-a-trailer\r\n\r\n")
        answer = raw.answer()
    assert answer.status == 400
    assert answer.headers["x-request-id"] != "from-a-trailer"


def test_random_changes_to_a_body_never_break_the_gateway(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    """Whatever it is: an answer of the backend, or a refusal; what reached it names one model."""
    draw = random.Random(7)
    seed = b'{"a":{"model":"x\\u00e9"},"model":"renamed","stream":true,"n":[1,{"b":"\\\\"}]}'
    pool = [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\xff", b"\x00", b"e", b"\\u00", b"1"]
    for _ in range(400):
        body = bytearray(seed)
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(len(body))
            body[at : at + draw.randint(0, 2)] = draw.choice(pool)
        answer = gateway.http.post(CHAT, bytes(body))
        assert answer.status in (200, 400, 404), (bytes(body), answer)
    for request in upstream.requests:
        assert b'"chat"' in request.body
    upstream.reset()
