"""Fixtures of the adapters' tests: one loop in a thread, and an upstream for each module."""

from collections.abc import Iterator

import pytest
from support import GrpcUpstream, HttpUpstream, LoopThread


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.stop()


@pytest.fixture
def upstream(loop_thread: LoopThread) -> Iterator[HttpUpstream]:
    server = HttpUpstream(loop_thread)
    yield server
    server.stop()


@pytest.fixture
def grpc_upstream() -> Iterator[GrpcUpstream]:
    server = GrpcUpstream()
    yield server
    server.stop()
