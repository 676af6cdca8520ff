"""The data plane over HTTP: plain ASGI, from the socket to where the pipeline begins.

What a request means is the route table's to say; here its bytes are bounded, its answer is
written, and a client that hangs up cancels its request wherever that is.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gateway.errors import (
    ClientGone,
    GatewayError,
    HeadersTooLarge,
    TooLarge,
    Unavailable,
    UnsupportedMedia,
)
from gateway.listeners.health import Health
from gateway.pipeline import Pipeline
from gateway.protocols import headers as fields
from gateway.protocols import routes
from gateway.types import Form, Head, Headers, Limits, Operation, Request, Snapshot

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_EVENT_STREAM = b"text/event-stream"


class HttpIncoming:
    """`types.Incoming` over ASGI. Once the body is whole, a watch for the hang-up begins."""

    def __init__(self, receive: Receive, headers: Headers, max_body: int) -> None:
        self.gone = False
        self._receive = receive
        self._headers = headers
        self._max_body = max_body
        self._watch: asyncio.Task[None] | None = None

    async def body(self) -> bytes:
        """Read the body. Raises `TooLarge`, `UnsupportedMedia`, `ClientGone`."""
        encoding = fields.first(self._headers, b"content-encoding")
        if encoding not in (None, b"identity"):
            raise UnsupportedMedia("compressed request bodies are not taken; send it as it is")
        length = fields.first(self._headers, b"content-length")
        if length is not None and int(length) > self._max_body:
            raise self._too_large()
        body = await self._read()
        task = asyncio.current_task()
        if task is not None:
            self._watch = asyncio.create_task(self._cancel_when_gone(task))
        return body

    def close(self) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    async def _read(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone("the client left while it sent its body")
            part = message.get("body", b"")
            size += len(part)
            if size > self._max_body:
                raise self._too_large()
            parts.append(part)
            if not message.get("more_body"):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _cancel_when_gone(self, task: asyncio.Task[Any]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        task.cancel()

    def _too_large(self) -> TooLarge:
        return TooLarge(f"the body is larger than {self._max_body} bytes, the limit here")


class HttpReply:
    """`types.Reply` over ASGI."""

    def __init__(self, send: Send, incoming: HttpIncoming) -> None:
        self.started = False
        self._head: Head | None = None
        self._send = send
        self._incoming = incoming
        self._events = False
        self._last = b""

    @property
    def at_event_end(self) -> bool:
        """Whether a stream of events stands between two events."""
        return self._events and self._last in (b"", b"\n\n")

    async def start(self, head: Head) -> None:
        """Note the status and the headers; they leave with what follows them."""
        self.started = True
        kind = fields.first(head.headers, b"content-type")
        self._events = kind is not None and kind.startswith(_EVENT_STREAM)
        self._head = head

    async def piece(self, data: bytes) -> None:
        """Send a piece; waits while the client's side is full."""
        await self._send_head()
        self._last = data[-2:]
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, data: bytes = b"") -> None:
        """Send the last piece. An answer of one piece is framed by its length."""
        self._incoming.close()  # from here a disconnect is the normal end
        await self._send_head(len(data))
        await self._send({"type": "http.response.body", "body": data})

    def abort(self) -> None:
        """Leave the answer unfinished: the server closes the connection when the app returns."""

    async def _send_head(self, length: int | None = None) -> None:
        head, self._head = self._head, None
        if head is None:
            return
        headers = head.headers
        if length is not None and fields.first(headers, b"content-length") is None:
            headers = (*headers, (b"content-length", str(length).encode()))
        await self._send({"type": "http.response.start", "status": head.status, "headers": headers})


class HttpApp:
    """The ASGI application of the data plane."""

    def __init__(
        self,
        pipeline: Pipeline,
        snapshot: Callable[[], Snapshot],
        health: Health,
        limits: Limits,
    ) -> None:
        self._pipeline = pipeline
        self._snapshot = snapshot
        self._health = health
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        if scope["method"] in ("GET", "HEAD"):
            answer = self._health.http(scope["path"])
            if answer is not None:
                await answer(scope, receive, send)
                return
        if scope["method"] == "OPTIONS":
            await self._options(scope, send)
            return
        await self._infer(scope, receive, send)

    async def _options(self, scope: Scope, send: Send) -> None:
        """Say which methods a path is served for (RFC 9110 9.3.7); asks no key, tells no model."""
        path = scope.get("raw_path") or scope["path"].encode()
        try:
            status, headers = 204, ((b"allow", routes.allowed(path, {}).encode()),)
        except GatewayError as error:
            status, headers = error.status, ((b"content-length", b"0"),)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: Headers = tuple(scope["headers"])
        incoming = HttpIncoming(receive, headers, self._limits.max_body)
        reply = HttpReply(send, incoming)
        path = scope.get("raw_path") or scope["path"].encode()
        request = Request(
            id=fields.request_id(headers) or f"{random.getrandbits(64):016x}",
            operation=_UNROUTED,
            ref=None,
            headers=headers,
            incoming=incoming,
            reply=reply,
            received=time.monotonic(),
        )
        try:
            refusal = self._route(request, scope["method"], path)
            if refusal is None:
                await self._pipeline.handle(request)
            else:
                await self._pipeline.refuse(request, refusal)
        except asyncio.CancelledError:
            if not incoming.gone:  # the time to drain is over
                await _cut_short(request)
        finally:
            incoming.close()

    def _route(self, request: Request, method: str, path: bytes) -> GatewayError | None:
        request.operation = Operation(
            "unknown", "openai", Form.OPENAI, routes.front_of(path), method
        )
        try:
            size = sum(len(name) + len(value) + 4 for name, value in request.headers)
            if size > self._limits.header_bytes:
                raise HeadersTooLarge(
                    f"the headers are larger than {self._limits.header_bytes} bytes"
                )
            matched = routes.match(method, path, self._snapshot().models)
            request.operation, request.ref = matched.operation, matched.ref
            request.timeout = fields.timeout(request.headers)
        except GatewayError as error:
            return error
        return None


async def _cut_short(request: Request) -> None:
    if request.reply.started:
        request.reply.abort()
        return
    error = Unavailable("the gateway is ending, and did not get to this; ask again")
    answer = request.operation.front.error(error)
    await request.reply.start(answer.head)
    await request.reply.finish(answer.body)


_UNROUTED = Operation("unknown", "openai", Form.OPENAI, routes.OPENAI)
