"""The data plane over gRPC, with health and reflection: grpc.aio up to where the pipeline begins.

Methods are taken as streams of opaque messages, so that a caller's metadata is checked before
its message is read, and the same handler serves every method of the table.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, TypeAlias

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from gateway.errors import Code, ConfigError, DeadlineExceeded, InvalidRequest, UnknownRoute
from gateway.listeners.certificates import Certificates
from gateway.listeners.grpc_health import HealthService
from gateway.listeners.health import Health
from gateway.pipeline import Pipeline
from gateway.protocols import headers as fields
from gateway.protocols.tensorflow_serving_grpc import TensorFlowServingGrpc
from gateway.protocols.wire import Wire
from gateway.types import Address, Head, Headers, Limits, Operation, Request

# Quoted: only their stubs are generic.
Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"
_OURS = "/tensorflow.serving."
_CODES = {code.value[0]: code for code in grpc.StatusCode}
# An answer's fields that gRPC writes itself.
_NOT_METADATA = (b"grpc-", b":", b"content-type", b"user-agent")


class GrpcIncoming:
    """`types.Incoming` over a stream of messages: the first one is the body."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def body(self) -> bytes:
        """Read the message. Raises `InvalidRequest` where the client ends without one.

        One over the limit ends the call by itself, and so does a client that leaves.
        """
        message = await self._context.read()
        if not isinstance(message, bytes):  # grpc.aio.EOF
            raise InvalidRequest("the call ended without a message; send one request")
        return message


class GrpcReply:
    """`types.Reply` over a stream of messages. A head with a code other than OK is the end."""

    def __init__(self, context: Context) -> None:
        self.started = False
        self.at_event_end = False
        self.gone = True
        """Whether the client left: nothing else cancels a call before its answer is given."""
        self.deadline = math.inf
        self._context = context
        self._head = Head(Code.OK)
        self._written = False

    async def start(self, head: Head) -> None:
        """Send the metadata; note the status, which gRPC sends last."""
        self.started = True
        self._head = head
        await self._context.send_initial_metadata(_metadata(head.headers))

    async def piece(self, data: bytes) -> None:
        """Send a message."""
        self._written = True
        await self._write(data)

    async def finish(self, data: bytes = b"") -> None:
        """Send the last message, if there is one, and set the status."""
        if data or (self._head.status == Code.OK and not self._written):
            await self._write(data)
        self._context.set_trailing_metadata(_metadata(self._head.trailers))
        if self._head.status != Code.OK:
            self._context.set_code(_CODES[self._head.status])
            self._context.set_details(self._head.detail)

    async def _write(self, data: bytes) -> None:
        until = self.deadline if math.isfinite(self.deadline) else None
        try:
            async with asyncio.timeout_at(until):
                await self._context.write(data)
        except TimeoutError:
            raise DeadlineExceeded("the answer was not taken within the time allowed") from None

    def abort(self) -> None:
        """End a started call as lost."""
        self._context.set_code(grpc.StatusCode.UNAVAILABLE)
        self._context.set_details("the answer was cut in the middle")


class DataPlane(grpc.GenericRpcHandler):
    """Finds the operation of a method, and takes its calls into the pipeline."""

    def __init__(self, pipeline: Pipeline, front: TensorFlowServingGrpc) -> None:
        self._pipeline = pipeline
        self._front = front
        self._handlers = {
            path: self._handler(operation) for path, operation in front.operations().items()
        }

    def service(self, details: grpc.HandlerCallDetails) -> Handler | None:
        """Return the handler of a method; None for those of other services."""
        path = details.method
        if not path.startswith(_OURS):
            return None
        return self._handlers.get(path) or self._handler(self._front.unknown(path))

    def _handler(self, operation: Operation) -> Handler:
        serve = self._serve if operation.name != "unknown" else self._refuse
        return grpc.stream_stream_rpc_method_handler(partial(serve, operation))

    async def _serve(self, operation: Operation, _: object, context: Context) -> None:
        await self._pipeline.handle(self._request(operation, context))

    async def _refuse(self, operation: Operation, _: object, context: Context) -> None:
        why = f"{operation.path} is not served here; reflection lists the methods that are"
        await self._pipeline.refuse(self._request(operation, context), UnknownRoute(why))

    def _request(self, operation: Operation, context: Context) -> Request:
        headers = _headers(context.invocation_metadata())
        first = fields.firsts(headers)
        return Request(
            id=fields.request_id(first) or f"{random.getrandbits(64):016x}",
            operation=operation,
            ref=None,
            headers=headers,
            incoming=GrpcIncoming(context),
            reply=GrpcReply(context),
            received=time.monotonic(),
            timeout=context.time_remaining(),
            first=first,
        )


class GrpcListener:
    """The server: data plane, health and reflection on one port, `shared` with other workers."""

    def __init__(
        self,
        pipeline: Pipeline,
        wire: Wire,
        health: Health,
        limits: Limits,
        address: Address,
        certificates: Certificates | None = None,
        shared: bool = False,
    ) -> None:
        front = TensorFlowServingGrpc(wire)
        self._health = HealthService(health, wire.services)
        self._server = grpc.aio.server(options=_options(limits, shared))
        self._server.add_generic_rpc_handlers((DataPlane(pipeline, front),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        _reflect(self._server, wire)
        self.port = (
            self._server.add_insecure_port(str(address))
            if certificates is None
            else self._server.add_secure_port(str(address), _credentials(certificates))
        )

    async def start(self) -> None:
        """Begin to serve."""
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Take no more calls, and end those under way after `grace` seconds."""
        self._health.stop()
        await self._server.stop(grace)


def _credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """Return credentials that look at the files again for new connections once they changed."""
    seen = certificates.stamp()

    def load() -> grpc.ServerCertificateConfiguration | None:
        found = certificates.pem()
        if found is None:
            return None
        key, chain, authorities = found
        return grpc.ssl_server_certificate_configuration([(key, chain)], authorities)

    def fetch() -> Any:  # None: as they were, which the package's types do not know
        nonlocal seen
        stamp = certificates.stamp()
        if stamp == seen or (loaded := load()) is None:
            return None
        seen = stamp
        return loaded

    first = load()
    if first is None:
        raise ConfigError(("server.tls: the files changed while they were read; start again",))
    return grpc.dynamic_ssl_server_credentials(
        first, fetch, require_client_authentication=certificates.tls.client_ca is not None
    )


def _options(limits: Limits, shared: bool) -> Sequence[tuple[str, int]]:
    return (
        ("grpc.max_receive_message_length", limits.max_body),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", limits.header_bytes),
        ("grpc.absolute_max_metadata_size", limits.header_bytes),
        ("grpc.so_reuseport", int(shared)),
    )


def _reflect(server: grpc.aio.Server, wire: Wire) -> None:
    for module in (health_pb2, reflection_pb2):
        wire.pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    health = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    names = (*wire.services, health, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server, wire.pool)


def _headers(metadata: Iterable[Any] | None) -> Headers:
    return tuple(
        (name.encode("ascii"), value if isinstance(value, bytes) else value.encode())
        for name, value in metadata or ()
    )


def _metadata(headers: Headers) -> tuple[tuple[str, str | bytes], ...]:
    return tuple(
        (name.decode("ascii"), value if name.endswith(b"-bin") else value.decode("latin-1"))
        for name, value in headers
        if not name.startswith(_NOT_METADATA)
    )
