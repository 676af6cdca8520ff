"""The least that forwards gRPC in Python: `python -m bench.grpc_proxy PORT HOST:PORT`.

grpc.aio at both ends, messages as bytes, metadata and the deadline passed on, and nothing else: no
keys, no models, no metrics. It is what grpcio itself costs.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import grpc

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"
Method: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"
Unary: TypeAlias = Callable[[bytes, Context], Awaitable[bytes]]


class Proxy(grpc.GenericRpcHandler):
    """Forwards every method, as a unary one."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._known: dict[str, Handler] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """Return the handler of a method, made once."""
        method = handler_call_details.method
        if method not in self._known:
            self._known[method] = grpc.unary_unary_rpc_method_handler(self._forward(method))
        return self._known[method]

    def _forward(self, method: str) -> Unary:
        call: Method = self._channel.unary_unary(method)

        async def forward(message: bytes, context: Context) -> bytes:
            metadata = [
                (key, value)
                for key, value in context.invocation_metadata() or ()
                if key != "user-agent"
            ]
            try:
                answer = await call(message, metadata=metadata, timeout=context.time_remaining())
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "")
            return answer

        return forward


async def main(port: int, to: str) -> None:
    """Serve until the process is ended."""
    async with grpc.aio.insecure_channel(to) as channel:
        server = grpc.aio.server(handlers=(Proxy(channel),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
