"""The contracts between rooms: protocols, listeners, adapters, and who watches them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from gateway.errors import GatewayError
from gateway.types.desired import Limits
from gateway.types.served import Backend, Family, Form, Headers, State, Tenant, Timeouts
from gateway.types.tensors import Signatures
from gateway.types.travel import (
    Asked,
    Call,
    Head,
    Message,
    Outcome,
    Ref,
    Target,
    View,
    Whole,
)


class Answer(Protocol):
    """A backend's answer while it is being read."""

    @property
    def head(self) -> Head:
        """How it begins."""

    async def read(self) -> bytes:
        """Return the next piece as it came, or `b""` at the end. Raises `UpstreamError`."""


class Reply(Protocol):
    """The way back to one client: a head, any number of pieces, an end; or nothing at all."""

    @property
    def started(self) -> bool:
        """Whether a head was sent."""

    @property
    def at_event_end(self) -> bool:
        """Whether an error may be told as one more event."""

    async def start(self, head: Head) -> None:
        """Send the head. At most once."""

    async def piece(self, data: bytes) -> None:
        """Send a piece of the body; returns when the client can take more."""

    async def finish(self, data: bytes = b"") -> None:
        """Send what is left and end the answer well."""

    def abort(self) -> None:
        """End a started answer so that the client knows it was cut."""


class Incoming(Protocol):
    """What a listener hands in with a request: its body, on demand, within `limits.max_body`."""

    async def body(self) -> bytes:
        """Read the whole body. Raises `TooLarge`."""


class Front(Protocol):
    """A protocol as its clients speak it: bytes in, bytes out. Pure."""

    def decode(self, operation: Operation, ref: Ref | None, body: bytes, limits: Limits) -> Asked:
        """Read what a client asks; `ref` is what the path named. Raises `InvalidRequest`."""

    def encode(
        self, operation: Operation, asked: Asked, target: Target, headers: Headers
    ) -> Message:
        """Write the same question for the version that answers; `headers` travel with it."""

    def error(self, error: GatewayError) -> Whole:
        """Write an error in the shape that this protocol's clients expect."""

    def cut(self, error: GatewayError) -> bytes:
        """Write the last event of a stream that fails after it began; `b""` where none fits."""


LocalAnswer = Callable[[Asked, View], Whole | None]
"""Answers from the Snapshot alone; None hands the request on to a backend."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that clients can ask for.

    `name` and `protocol` are labels in metrics. `path` is the upstream's own path, or on gRPC
    the full method. `about` marks questions about a model rather than to it: a backend that
    holds no ready version may answer them.
    """

    name: str
    protocol: str
    form: Form
    front: Front
    method: str = "POST"
    path: str = ""
    about: bool = False
    local: LocalAnswer | None = None


@dataclass(slots=True)
class Request:
    """One caller's request on its one path; the fields below the line are filled in by it."""

    id: str
    operation: Operation
    ref: Ref | None
    headers: Headers
    incoming: Incoming
    reply: Reply
    received: float
    timeout: float | None = None
    # ──
    tenant: Tenant | None = None
    target: Target | None = None


class Observer(Protocol):
    """What is told of the gateway's life."""

    def ended(self, outcome: Outcome) -> None:
        """A request ended; called exactly once for each."""

    def failed(self, request_id: str, error: BaseException) -> None:
        """The gateway itself failed: a bug, with its trace."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one probe saw: `served` maps a name at the backend to its versions' states.

    A kind without versions of its own reports each name with the version None. `signatures` are
    those of versions that are ready, by name and version, of backends that speak one form only.
    """

    up: bool
    why: str = ""
    served: Mapping[str, Mapping[int | None, State]] = field(default_factory=dict)
    signatures: Mapping[tuple[str, int], Signatures] = field(default_factory=dict)


class Adapter(Protocol):
    """A kind of backend. Adds a backend's credentials, sends bytes, never queues."""

    family: Family
    address_keys: Mapping[str, Form]
    timeouts: Timeouts

    def open(
        self, backend: Backend, call: Call, timeouts: Timeouts
    ) -> AbstractAsyncContextManager[Answer]:
        """Send a call; entering waits for the answer's head, leaving early cancels upstream.

        Raises `UpstreamError`.
        """

    async def probe(self, backend: Backend, served: frozenset[str]) -> Seen:
        """Look whether a backend answers and what it serves, of the names wanted. Never raises."""

    async def close(self) -> None:
        """Let go of every connection."""
