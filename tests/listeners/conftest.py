"""Fixtures of every wing: upstreams that live as long as a module's tests."""

from collections.abc import Iterator

import pytest
from support import GrpcUpstream, HttpUpstream, LoopThread


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.stop()


@pytest.fixture(scope="module")
def upstream(loop_thread: LoopThread) -> Iterator[HttpUpstream]:
    server = HttpUpstream(loop_thread)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def second_upstream(loop_thread: LoopThread) -> Iterator[HttpUpstream]:
    server = HttpUpstream(loop_thread)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def grpc_upstream() -> Iterator[GrpcUpstream]:
    server = GrpcUpstream()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def _forget(request: pytest.FixtureRequest) -> None:
    """Begin each test with nothing recorded or scripted."""
    for name in ("upstream", "second_upstream", "grpc_upstream"):
        if name in request.fixturenames:
            request.getfixturevalue(name).reset()
