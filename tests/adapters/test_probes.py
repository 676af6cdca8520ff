"""What adapters see of backends: the real forms of answers, and everything else that may come."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support import CLOSE, GrpcUpstream, HttpUpstream, free_port, sized

from adapters.tensorflow_serving import TensorFlowServing
from adapters.vllm import Vllm
from gateway.types import Adapter, Backend, Form, Seen, State

WANTED = frozenset({"chat", "mnist"})


def probe(kind: Callable[[], Adapter], backend: Backend) -> Seen:
    async def once() -> Seen:
        adapter = kind()
        try:
            return await adapter.probe(backend, WANTED)
        finally:
            await adapter.close()

    return asyncio.run(once())


def vllm(upstream: HttpUpstream, **more: Any) -> Seen:
    return probe(Vllm, Backend("b", "vllm", {Form.OPENAI: upstream.url}, **more))


def tfs(**addresses: str) -> Seen:
    forms = {"rest": Form.TFS_REST, "grpc": Form.TFS_GRPC}
    found = {forms[name]: address for name, address in addresses.items()}
    return probe(TensorFlowServing, Backend("b", "tensorflow_serving", found))


def test_a_vllm_serves_the_names_that_it_lists(upstream: HttpUpstream) -> None:
    upstream.names = ["chat", "lora-1"]
    every = {name: {None: State.AVAILABLE} for name in upstream.names}
    assert vllm(upstream) == Seen(True, served=every)


def test_a_vllm_whose_engine_is_dead_is_down(upstream: HttpUpstream) -> None:
    upstream.healthy = False
    seen = vllm(upstream)
    assert not seen.up
    assert "/health answered 503" in seen.why


def test_probes_show_the_backends_own_credentials(upstream: HttpUpstream) -> None:
    vllm(upstream, headers=((b"authorization", b"Bearer sk"), (b"x-a", b"1")))
    for asked in upstream.probes:
        assert (asked.headers["authorization"], asked.headers["x-a"]) == ("Bearer sk", "1")


@pytest.mark.parametrize("form", ["rest", "grpc", "both"])
def test_a_tf_serving_tells_its_versions(
    upstream: HttpUpstream, grpc_upstream: GrpcUpstream, form: str
) -> None:
    versions = {3: "AVAILABLE", 4: "LOADING", 1: "END"}
    upstream.versions = grpc_upstream.versions = {"mnist": versions}
    addresses = {"rest": upstream.url, "grpc": grpc_upstream.address}
    seen = tfs(**({form: addresses[form]} if form != "both" else addresses))
    assert seen.up
    assert seen.served["mnist"] == {number: State[state] for number, state in versions.items()}
    assert not seen.served["chat"]  # it lives, without this model


def test_a_tf_serving_that_answers_in_one_form_only_is_down(upstream: HttpUpstream) -> None:
    upstream.versions = {name: {1: "AVAILABLE"} for name in WANTED}
    seen = tfs(rest=upstream.url, grpc=f"127.0.0.1:{free_port()}")
    assert not seen.up


def test_nobody_there_is_down(upstream: HttpUpstream) -> None:
    upstream.stop()
    assert not vllm(upstream).up
    assert not tfs(rest=upstream.url).up
    assert not tfs(grpc=f"127.0.0.1:{upstream.port}").up


RUBBISH: list[list[Any]] = [
    [b"SSH-2.0\r\n", CLOSE],
    [CLOSE],
    sized(b""),
    sized(b"not json"),
    sized(b"[]"),
    sized(b"null"),
    sized(b'"x"'),
    sized(b"1"),
    sized({"data": {"id": "chat"}, "model_version_status": {"version": 1}}),
    sized({"data": [[]], "model_version_status": [[]]}),
    sized({"data": [None], "model_version_status": [None]}),
    sized({"data": [{}], "model_version_status": [{"version": "1", "state": "ODD"}]}),
    sized({"data": 1, "model_version_status": [{"version": [], "state": "AVAILABLE"}]}),
    sized({"data": "x", "model_version_status": [{"version": 1, "state": {}}]}),
    sized(b'{"data":1e999,"model_version_status":[{"version":1e999,"state":"AVAILABLE"}]}'),
    sized(b"[" * 100_000),
    sized(b'{"data":' + b"9" * 5000 + b',"model_version_status":' + b"9" * 5000 + b"}"),
    sized(b"\xff\xfe\x00"),
    sized(b" " * 5 * 2**20),
    sized(b"x" * 2**16, headers=["content-encoding: gzip"]),
    sized(b"{}", "500 Internal Server Error"),
    sized(b"{}", "401 Unauthorized"),
    [b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n"],
    [b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", CLOSE],
]


@pytest.mark.parametrize("script", RUBBISH, ids=range(len(RUBBISH)))
def test_rubbish_is_down(upstream: HttpUpstream, script: list[Any]) -> None:
    upstream.probe_script = script
    for seen in (vllm(upstream), tfs(rest=upstream.url)):
        assert not seen.up
        assert seen.why


def test_a_server_that_speaks_no_grpc_is_down(upstream: HttpUpstream) -> None:
    assert not tfs(grpc=f"127.0.0.1:{upstream.port}").up
