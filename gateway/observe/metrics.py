"""What Prometheus sees. Every label is bounded: a model that is not configured is `other`."""

import logging

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from gateway.errors import UpstreamError
from gateway.types import Outcome

_MODEL = ("model", "version")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_OVERHEAD = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1)
_OTHER = "other"

_log = logging.getLogger("isthmus.request")


class Metrics:
    """Counts, and logs what failed. `types.Observer`."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each one that no board uses
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "isthmus_requests",
            "Requests that ended, by the code they ended with",
            (*_MODEL, "protocol", "operation", "code", "tenant"),
            registry=self._registry,
        )
        self._duration = Histogram(
            "isthmus_request_duration_seconds",
            "From a request's headers to its end",
            (*_MODEL, "operation"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._overhead = Histogram(
            "isthmus_overhead_seconds",
            "The gateway's own share of a request: neither queue nor backend nor a slow client",
            (*_MODEL, "protocol"),
            buckets=_OVERHEAD,
            registry=self._registry,
        )
        self._rejected = Counter(
            "isthmus_rejected",
            "Requests that the gateway answered with an error of its own",
            (*_MODEL, "reason"),
            registry=self._registry,
        )
        self._cancelled = Counter(
            "isthmus_cancelled",
            "Requests whose client left, by the phase they were in",
            (*_MODEL, "where"),
            registry=self._registry,
        )
        self._inflight = Gauge(
            "isthmus_inflight_requests",
            "Calls on a backend now",
            ("backend",),
            registry=self._registry,
        )
        self._up = Gauge(
            "isthmus_backend_up",
            "Whether a backend answered its last probe",
            ("backend",),
            registry=self._registry,
        )
        self._restarts = Counter(
            "isthmus_launch_restarts",
            "Restarts of backends that the gateway launched",
            ("launch",),
            registry=self._registry,
        )

    def ended(self, outcome: Outcome) -> None:
        """Count a request that ended."""
        model = outcome.model or _OTHER
        version = outcome.version
        self._requests.labels(
            model, version, outcome.protocol, outcome.operation, outcome.code, outcome.tenant
        ).inc()
        self._duration.labels(model, version, outcome.operation).observe(outcome.seconds)
        self._overhead.labels(model, version, outcome.protocol).observe(outcome.overhead)
        if outcome.cancelled:
            self._cancelled.labels(model, version, outcome.cancelled).inc()
        elif outcome.error is not None:
            self._rejected.labels(model, version, outcome.error.reason).inc()
        self._log(outcome)

    def failed(self, request_id: str, error: BaseException) -> None:
        """Log a bug with its trace."""
        _log.error("request %s met a bug in the gateway", request_id, exc_info=error)

    def inflight(self, backend: str, count: int) -> None:
        """Note how many calls are on a backend."""
        self._inflight.labels(backend).set(count)

    def backend_up(self, backend: str, up: bool) -> None:
        """Note whether a backend answers."""
        self._up.labels(backend).set(up)

    def restarted(self, launch: str) -> None:
        """Count a restart."""
        self._restarts.labels(launch).inc()

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Write all metrics in the text format that a scraper accepts, with its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _log(self, outcome: Outcome) -> None:
        error = outcome.error
        level = logging.WARNING if isinstance(error, UpstreamError) else logging.DEBUG
        if not _log.isEnabledFor(level):
            return
        _log.log(
            level,
            "%s %s %s model=%s version=%s tenant=%s code=%s seconds=%.4f%s%s%s",
            outcome.request_id,
            outcome.protocol,
            outcome.operation,
            outcome.model or _OTHER,
            outcome.version or "-",
            outcome.tenant or "-",
            outcome.code,
            outcome.seconds,
            f" cancelled={outcome.cancelled}" if outcome.cancelled else "",
            f" error={error.reason}: {error.message}" if error else "",
            f" backend={error.backend}" if isinstance(error, UpstreamError) else "",
        )
