"""The gRPC port, open before TensorFlow is there.

Knows no messages: `Front` answers UNAVAILABLE until the method table is installed. Light enough to
import first.
"""

from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio

from adapters.savedmodel.status import Code, ServingError

MAX_MESSAGE = (
    2**31 - 1
)  # bytes; TensorFlow Serving's own limit, and the most that protobuf can hold
MAX_CALLS = 4096
_MAX_ERROR = 1024  # characters, as TensorFlow Serving cuts them: an error travels in a header

_GRPC_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Front:
    """Finds the handler of a method (grpc's generic handler interface, by duck typing)."""

    def __init__(self) -> None:
        self._table: Mapping[str, Any] | None = None

    def install(self, table: Mapping[str, Any]) -> None:
        """Puts the real handlers in place; calls that come after reach them."""
        self._table = table

    def service(self, details: Any) -> Any:
        """The handler for a call; None makes grpc answer UNIMPLEMENTED."""
        if self._table is None:
            return grpc.unary_unary_rpc_method_handler(_starting)
        return self._table.get(details.method)


def create(front: Front, address: str) -> tuple[Any, int]:
    """A grpc.aio server bound to the address, not yet started, and its port.

    Raises:
        RuntimeError: the address can't be bound.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.max_send_message_length", MAX_MESSAGE),
            # Without this a second server could share the port in silence and take half of the
            # calls.
            ("grpc.so_reuseport", 0),
        ],
        maximum_concurrent_rpcs=MAX_CALLS,
    )
    handlers: tuple[Any, ...] = (front,)
    server.add_generic_rpc_handlers(handlers)
    port = server.add_insecure_port(address)
    if port == 0:
        raise RuntimeError(f"could not bind {address}")
    return server, port


async def abort(context: Any, error: ServingError) -> Any:
    """Ends a call with the error's code."""
    text = error.message
    if len(text) > _MAX_ERROR:
        text = text[:_MAX_ERROR] + "...TRUNCATED"
    await context.abort(_GRPC_CODES[int(error.code)], text)


async def _starting(_request: bytes, context: Any) -> Any:
    await abort(
        context,
        ServingError(Code.UNAVAILABLE, "starting: TensorFlow is being imported; try again soon"),
    )
