"""What is safe to scrape: `/metrics`, `/healthz`, `/readyz`. Read only."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gateway.listeners.health import Health


class MetricsApp:
    """The ASGI application; `render` writes Prometheus' text format and its content type."""

    def __init__(self, render: Callable[[], tuple[bytes, str]], health: Health) -> None:
        self._render = render
        self._health = health

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        reading = scope["method"] in ("GET", "HEAD")
        health = self._health.http(scope["path"]) if reading else None
        if health is not None:
            await health(scope, receive, send)
            return
        status, body, kind = 404, b"only /metrics, /healthz and /readyz are here\n", "text/plain"
        if reading and scope["path"] == "/metrics":
            status = 200
            body, kind = self._render()
        headers = [
            (b"content-type", kind.encode()),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
