"""What is safe to scrape: `/metrics`, `/healthz`, `/readyz`. Read only."""

from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from gateway.errors import GatewayError
from gateway.listeners.health import Health
from gateway.listeners.http_exchange import Exchange
from gateway.protocols.headers import first
from gateway.types import Head, Whole


class MetricsPlane:
    """`http_connection.Serving`; `render` writes Prometheus' text format and its content type.

    `fresh` is awaited before, to have in it what other processes counted.
    """

    def __init__(
        self,
        render: Callable[[str], tuple[bytes, str]],
        health: Health,
        fresh: Callable[[], Awaitable[None]],
    ) -> None:
        self._render = render
        self._health = health
        self._fresh = fresh

    async def serve(self, exchange: Exchange) -> None:
        """Answer a scrape or a probe."""
        await _send(exchange, await self._answer(exchange))

    async def refuse(self, exchange: Exchange, error: GatewayError) -> None:
        """Answer what is no request."""
        await _send(exchange, _text(error.status, error.message))

    async def _answer(self, exchange: Exchange) -> Whole:
        request = exchange.request
        path = unquote(request.target.partition(b"?")[0].decode("latin-1"))
        health = self._health.answer(path)
        if health is None and path != "/metrics":
            return _text(404, "only /metrics, /healthz and /readyz are here")
        if request.method not in ("GET", "HEAD"):
            return _text(405, "only GET is served here", (b"allow", b"GET, HEAD"))
        if health is not None:
            return health
        await self._fresh()
        accept = first(request.headers, b"accept") or b""
        body, kind = self._render(accept.decode("latin-1"))
        return Whole(Head(200, ((b"content-type", kind.encode()),)), body)


async def _send(exchange: Exchange, answer: Whole) -> None:
    await exchange.start(answer.head)
    await exchange.finish(answer.body)


def _text(status: int, text: str, *fields: tuple[bytes, bytes]) -> Whole:
    headers = ((b"content-type", b"text/plain"), *fields)
    return Whole(Head(status, headers), text.encode() + b"\n")
