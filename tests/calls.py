"""Calls for tests of what stands between a request and a backend."""

import asyncio
from collections.abc import Sequence

from gateway.types import (
    Backend,
    Call,
    Family,
    Form,
    Message,
    Model,
    Target,
    Version,
)

SOON = 15.0


def backend(name: str) -> Backend:
    return Backend(name, "memory", {Form.OPENAI: f"http://{name}"})


def call(
    backends: Sequence[Backend] = (),
    *,
    model: str = "chat",
    number: int = 1,
    max_inflight: int = 1,
    max_queue: int = 100,
    seconds: float = SOON,
    stream: bool = False,
    only: str | None = None,
) -> Call:
    """Build a call that may go to `backends`; its deadline is `seconds` from now."""
    forms = frozenset({Form.OPENAI})
    version = Version(model, number, model, tuple(backends), forms, ready=tuple(backends))
    owner = Model(
        model,
        "memory",
        Family.LLM,
        model,
        {number: version},
        max_inflight=max_inflight,
        max_queue=max_queue,
    )
    message = Message(Form.OPENAI, "POST", "/v1/chat/completions", (), b"{}")
    deadline = asyncio.get_running_loop().time() + seconds
    return Call(Target(owner, version, False), message, deadline, stream, only)
