"""HEAD, OPTIONS, Expect, Accept-Encoding and cross-origin calls."""

import socket
from collections.abc import Iterator

import pytest
from support import GatewayProcess, HttpUpstream, serving, sized

CHAT = "/v1/chat/completions"
PAGE = "https://app.example"


@pytest.fixture(scope="module")
def gateway(
    upstream: HttpUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    models = {"chat": {"adapter": "vllm", "served_name": "served", "backends": [upstream.url]}}
    folder = tmp_path_factory.mktemp("gateway")
    with serving(folder, models, server={"cors": [PAGE]}) as running:
        yield running


def test_head_is_get_without_a_body(gateway: GatewayProcess) -> None:
    got = gateway.http.get("/v1/models")
    head = gateway.http.ask("HEAD", "/v1/models")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        (CHAT, "POST, OPTIONS"),
        ("/v1/models", "GET, HEAD, OPTIONS"),
        ("/v1/models/x:predict", "POST, OPTIONS"),
    ],
)
def test_options_tells_the_methods(gateway: GatewayProcess, path: str, allow: str) -> None:
    answer = gateway.http.ask("OPTIONS", path)
    assert (answer.status, answer.headers["allow"]) == (204, allow)
    assert gateway.http.ask("OPTIONS", "/nothing").status == 404


def test_a_page_of_a_named_origin_may_call(gateway: GatewayProcess, upstream: HttpUpstream) -> None:
    preflight = gateway.http.ask(
        "OPTIONS",
        CHAT,
        headers={
            "origin": PAGE,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization, content-type",
        },
    )
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-origin"] == PAGE
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    answer = gateway.http.post(CHAT, {"model": "chat"}, headers={"origin": PAGE})
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "x-isthmus-model" in answer.headers["access-control-expose-headers"]
    stranger = gateway.http.post(CHAT, {"model": "chat"}, headers={"origin": "https://evil.test"})
    assert "access-control-allow-origin" not in stranger.headers


def test_accept_encoding_and_its_answer_pass_through(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    packed = b"\x1f\x8b not really"
    upstream.answer(sized(packed, headers=["content-encoding: gzip"]))
    answer = gateway.http.post(CHAT, {"model": "chat"}, headers={"accept-encoding": "gzip"})
    assert answer.body == packed
    assert answer.headers["content-encoding"] == "gzip"
    assert b"accept-encoding: gzip" in upstream.only().head.lower()


def test_expect_continue_is_answered_before_the_body(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    body = b'{"model": "chat"}'
    head = b"POST %s HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.http.port), timeout=10) as client:
        client.sendall(head % (CHAT.encode(), len(body)))
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        assert upstream.requests == []
        client.sendall(body)
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    assert b"expect" not in upstream.only().head.lower()


@pytest.mark.parametrize("path", ["/v2/embed", "/v2/rerank", "/rerank"])
def test_coheres_calls_fail_in_coheres_shape(gateway: GatewayProcess, path: str) -> None:
    answer = gateway.http.post(path, {"model": "nobody"})
    assert answer.status == 404
    assert list(answer.json()) == ["message"]
    assert "chat" in answer.json()["message"]
