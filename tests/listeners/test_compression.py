"""Compressed request bodies over sockets: refused, or inflated and sent on as they are."""

import gzip
import json
import zlib
from collections.abc import Iterator

import pytest
from support import GatewayProcess, HttpUpstream, Raw, serving, sized

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "x" * 5000}]}).encode()
MAX_BODY = 2**20


def running(
    upstream: HttpUpstream, tmp_path_factory: pytest.TempPathFactory, on: bool
) -> Iterator[GatewayProcess]:
    models = {
        "chat": {"adapter": "vllm", "backends": [upstream.url]},
        "mnist": {"adapter": "tensorflow_serving", "backends": [{"rest": upstream.url}]},
    }
    upstream.names, upstream.versions = ["chat"], {"mnist": {1: "AVAILABLE"}}
    folder = tmp_path_factory.mktemp("gateway")
    more = {"server": {"request_compression": True}} if on else {}
    with serving(folder, models, limits={"max_body": MAX_BODY}, **more) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def off(
    upstream: HttpUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    yield from running(upstream, tmp_path_factory, False)


@pytest.fixture(scope="module")
def on(
    upstream: HttpUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    yield from running(upstream, tmp_path_factory, True)


@pytest.mark.parametrize(
    ("coding", "data"), [("gzip", gzip.compress(BODY)), ("deflate", zlib.compress(BODY))]
)
def test_the_backend_gets_the_body_as_it_is(
    on: GatewayProcess, upstream: HttpUpstream, coding: str, data: bytes
) -> None:
    assert on.http.post(CHAT, data, {"content-encoding": coding}).status == 200
    asked = upstream.only()
    assert asked.body == BODY
    assert asked.headers["content-length"] == str(len(BODY))
    assert "content-encoding" not in asked.headers


def test_classic_models_too(on: GatewayProcess, upstream: HttpUpstream) -> None:
    upstream.answer(sized({"predictions": [1.0]}))
    body = b'{"instances": [1.0]}'
    answer = on.http.post(
        "/v1/models/mnist:predict", gzip.compress(body), {"content-encoding": "gzip"}
    )
    assert (answer.status, upstream.only().body) == (200, body)


def test_a_plain_body_passes_untouched(on: GatewayProcess, upstream: HttpUpstream) -> None:
    assert on.http.post(CHAT, BODY).status == 200
    assert on.http.post(CHAT, BODY, {"content-encoding": "identity"}).status == 200
    assert [asked.body for asked in upstream.requests] == [BODY, BODY]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_bomb_is_413(on: GatewayProcess, upstream: HttpUpstream, coding: str) -> None:
    zeros = bytes(200 * 2**20)
    bomb = gzip.compress(zeros) if coding == "gzip" else zlib.compress(zeros)
    assert len(bomb) < MAX_BODY
    answer = on.http.post(CHAT, bomb, {"content-encoding": coding})
    assert (answer.status, answer.json()["error"]["code"]) == (413, 413)
    assert not upstream.requests


@pytest.mark.parametrize(
    "data", [b"\x00", b"no gzip", gzip.compress(BODY)[:-3], gzip.compress(BODY) + b"more"]
)
def test_broken_ones_are_400(on: GatewayProcess, upstream: HttpUpstream, data: bytes) -> None:
    answer = on.http.post(CHAT, data, {"content-encoding": "gzip"})
    assert answer.status == 400
    assert "gzip" in answer.json()["error"]["message"]
    assert not upstream.requests


def test_other_codings_are_415_and_told_what_is_taken(on: GatewayProcess) -> None:
    answer = on.http.post(CHAT, b"x", {"content-encoding": "br"})
    assert (answer.status, answer.headers["accept-encoding"]) == (415, "gzip, deflate, identity")


def test_without_the_switch_all_are_415(off: GatewayProcess, upstream: HttpUpstream) -> None:
    answer = off.http.post(CHAT, gzip.compress(BODY), {"content-encoding": "gzip"})
    assert (answer.status, answer.headers["accept-encoding"]) == (415, "identity")
    assert answer.json()["error"]["type"] == "UnsupportedMediaTypeError"
    assert off.http.post(CHAT, BODY, {"content-encoding": "identity"}).status == 200
    assert len(upstream.requests) == 1


def test_a_body_that_is_not_taken_is_not_asked_for(off: GatewayProcess) -> None:
    with Raw(off.port("http")) as client:
        client.send(
            f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n"
            "content-encoding: gzip\r\ncontent-length: 100\r\n\r\n".encode()
        )
        assert client.answer().status == 415
