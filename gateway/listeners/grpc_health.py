"""`grpc.health.v1` by service and by model (https://grpc.io/docs/guides/health-checking/)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeAlias

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.listeners.health import Health

_Status = health_pb2.HealthCheckResponse
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # has no types
    """The empty name and the served services are the gateway's health, others are models'."""

    def __init__(self, health: Health, services: Sequence[str]) -> None:
        self._health = health
        self._whole = frozenset(("", *services))
        self._stopped = False

    def stop(self) -> None:
        """End every watch."""
        self._stopped = True
        self._health.changed()

    async def Check(  # noqa: N802 - the protocol's name
        self, request: Any, context: Context
    ) -> Any:
        """Answer the health of a service or a model. NOT_FOUND for a name that is neither."""
        status = self._status(request.service)
        if status == _Status.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no service or model of that name")
        return _Status(status=status)

    async def Watch(  # noqa: N802 - the protocol's name
        self, request: Any, context: Context
    ) -> AsyncIterator[Any]:
        """Answer the health now and at each change."""
        last = None
        while True:
            change = self._health.next_change()  # before looking, so that none is missed
            status = self._status(request.service)
            if status != last:
                last = status
                yield _Status(status=status)
            if self._stopped:
                return
            await change.wait()

    def _status(self, name: str) -> int:
        if name in self._whole:
            problem = self._health.not_ready()
        elif self._health.known(name):
            problem = self._health.model_not_ready(name)
        else:
            return int(_Status.SERVICE_UNKNOWN)
        return int(_Status.NOT_SERVING if problem else _Status.SERVING)
