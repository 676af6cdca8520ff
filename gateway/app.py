"""The only room that builds things and wires them together. Everything else is handed its parts."""

import asyncio
import logging
import pkgutil
import signal
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.metadata import entry_points, version
from pathlib import Path

import adapters
from gateway import config
from gateway.control.holders import Holders
from gateway.control.lora_changes import LoraChanges
from gateway.control.ports import free_port
from gateway.control.registry import Registry
from gateway.control.reload import Reloads
from gateway.control.supervisor import Progress, Supervisor
from gateway.control.supervisor import State as LaunchState
from gateway.dispatch import Dispatch
from gateway.errors import ConfigError
from gateway.holding import Holding
from gateway.listeners.admin import admin_app
from gateway.listeners.admin_views import Loads
from gateway.listeners.certificates import Certificates
from gateway.listeners.grpc import GrpcListener
from gateway.listeners.health import Health
from gateway.listeners.http_plane import HttpPlane
from gateway.listeners.http_server import HttpListener
from gateway.listeners.metrics import MetricsPlane
from gateway.listeners.servers import HttpServer
from gateway.observe.metrics import Metrics
from gateway.pipeline import Pipeline
from gateway.policies.cors import Cors
from gateway.protocols import translation, wire
from gateway.translating import Translating
from gateway.types import Adapter, Address, Configuration, Seen

_log = logging.getLogger("isthmus")

Report = Callable[[Progress], None]
Listener = HttpServer | HttpListener
WhenReady = Callable[["Gateway"], Awaitable[None]]
MAX_VALUES = 2**30
"""Bytes that the tensors of one translated request or answer may hold, and an answer's own."""
_TRANSLATORS = 2
"""Threads for large translations: more would only take turns at the interpreter."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def adapter_types() -> Mapping[str, type[Adapter]]:
    """Return the kinds of backends there are, by the name that the configuration uses.

    The files of `adapters/` that have an `ADAPTER`, and the entry points `isthmus.adapters`.
    """
    found: dict[str, type[Adapter]] = {}
    for module in pkgutil.iter_modules(adapters.__path__):
        if not module.ispkg:
            adapter = getattr(import_module(f"adapters.{module.name}"), "ADAPTER", None)
            if adapter is not None:
                found[module.name] = adapter
    for point in entry_points(group="isthmus.adapters"):
        found[point.name] = point.load()
    return found


def load(path: Path, environment: Mapping[str, str]) -> Configuration:
    """Read and check a configuration. Raises `ConfigError`."""
    given: set[int] = set()

    def fresh_port() -> int:
        port = free_port(given)
        given.add(port)
        return port

    kinds = {
        name: config.Kind(adapter.family, adapter.address_keys, adapter.timeouts)
        for name, adapter in adapter_types().items()
    }
    return config.load(path, environment, kinds, fresh_port)


class Gateway:
    """A whole gateway. `start`, and `stop` in any case; `addresses` are what it listens on."""

    def __init__(self, configuration: Configuration, report: Report) -> None:
        self._configuration = configuration
        self._report = report
        self._wire = wire.load()
        self._metrics = Metrics()
        kinds = adapter_types()
        used = {model.adapter for model in configuration.models}
        self._adapters = {name: kinds[name]() for name in sorted(used)}
        self._registry = Registry(configuration, self._adapters, self._world_changed)
        server = configuration.server
        self._health = Health(self._registry.snapshot, server.ready_requires)
        self._translators = ThreadPoolExecutor(_TRANSLATORS, "translation")
        dispatch = Dispatch(self._adapters)
        self._pipeline = Pipeline(
            self._registry.snapshot,
            dispatch,
            self._metrics,
            configuration.limits,
            Translating(
                translation.directions(self._wire, MAX_VALUES), self._translators, MAX_VALUES
            ),
            Holding(dispatch, Holders()),
            {"reload": Reloads(self._wire, self._registry, self._adapters)},
            compressed=server.request_compression,
        )
        self._metrics.watch_inflight(dispatch.slots.counts)
        self._loads = Loads(dispatch.slots.inflight, dispatch.slots.waiting)
        self._supervisor = Supervisor(self._launch_progress)
        self._servers: dict[str, Listener] = {}
        self._grpc: GrpcListener | None = None
        self.addresses: dict[str, Address] = {}

    async def start(self) -> None:
        """Listen, launch, probe. Raises `ConfigError` for an address that can't be had.

        Listeners come first: the process is alive long before its backends are.
        """
        self._listen()
        for server in self._servers.values():
            await server.start()
        if self._grpc is not None:
            await self._grpc.start()
        for name, address in self.addresses.items():
            _log.info("%s listens on %s", name, address)
        await self._supervisor.start(self._configuration.launches)
        await self._registry.start()
        self._health.settled = True
        self._health.changed()
        _log.info("ready: %d models", len(self._configuration.models))

    async def stop(self) -> None:
        """Drain, then end everything that `start` began. Readiness goes first."""
        self._health.draining = True
        self._health.changed()
        drain = self._configuration.server.drain
        _log.info("draining for up to %g s", drain)
        data = [self._servers[name].stop(drain) for name in ("http",) if name in self._servers]
        if self._grpc is not None:
            data.append(self._grpc.stop(drain))
        await asyncio.gather(*data)
        self._translators.shutdown(wait=False, cancel_futures=True)
        await self._registry.stop()
        for adapter in self._adapters.values():
            await adapter.close()
        await self._supervisor.stop()
        rest = [server.stop(1) for name, server in self._servers.items() if name != "http"]
        await asyncio.gather(*rest)

    def _listen(self) -> None:
        server, limits = self._configuration.server, self._configuration.limits
        snapshot = self._registry.snapshot
        certificates = Certificates(server.tls) if server.tls else None
        plane = HttpPlane(self._pipeline, snapshot, self._health, Cors(server.cors))
        figures = MetricsPlane(self._metrics.render, self._health)
        admin = admin_app(
            snapshot,
            self._loads,
            LoraChanges(self._registry, self._adapters),
            self._configuration.admin_digest,
            version("isthmus"),
            lambda: self.addresses.get("http"),
        )
        patience = server.patience
        self._bind(
            "http", server.http, lambda a: HttpListener(plane, a, limits, patience, certificates)
        )
        self._bind("metrics", server.metrics, lambda a: HttpListener(figures, a, limits, patience))
        self._bind("admin", server.admin, lambda a: HttpServer(admin, a))
        if server.grpc is not None:
            try:
                self._grpc = GrpcListener(
                    self._pipeline, self._wire, self._health, limits, server.grpc, certificates
                )
            except RuntimeError:
                raise _taken("grpc", server.grpc, "the address is in use") from None
            self.addresses["grpc"] = Address(server.grpc.host, self._grpc.port)

    def _bind(
        self, name: str, address: Address | None, make: Callable[[Address], Listener]
    ) -> None:
        if address is None:
            return
        try:
            listener = make(address)
        except OSError as error:
            raise _taken(name, address, error.strerror or str(error)) from None
        self._servers[name] = listener
        self.addresses[name] = Address(address.host, listener.port)

    def _world_changed(self, backend: str, seen: Seen) -> None:
        self._metrics.backend_up(backend, seen.up)
        self._health.changed()

    def _launch_progress(self, progress: Progress) -> None:
        if progress.state is LaunchState.RESTARTING:
            self._metrics.restarted(progress.name)
        self._report(progress)


def _taken(name: str, address: Address, why: str) -> ConfigError:
    return ConfigError(
        (f"server.{name}: can't listen on {address}: {why}; end what is there, or choose another",)
    )


async def serve(configuration: Configuration, report: Report, when_ready: WhenReady) -> None:
    """Run a gateway until `when_ready` returns, or SIGTERM or SIGINT comes; then drain.

    A second signal ends the process at once. Raises `ConfigError`, and `LaunchError` for a
    launched backend that does not come up.
    """
    gateway = Gateway(configuration, report)
    loop = asyncio.get_running_loop()
    life = loop.create_task(_live(gateway, when_ready))

    def end() -> None:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
        life.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, end)
    try:
        await asyncio.wait({life})
        if not life.cancelled():
            life.result()
    finally:
        await gateway.stop()


async def _live(gateway: Gateway, when_ready: WhenReady) -> None:
    await gateway.start()
    await when_ready(gateway)


async def for_ever(gateway: Gateway) -> None:
    """Wait: what a gateway does that is only to serve."""
    await asyncio.get_running_loop().create_future()
