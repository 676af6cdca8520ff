"""The only room that builds things and wires them together. Everything else is handed its parts."""

import asyncio
import logging
import pkgutil
import signal
from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points, version
from pathlib import Path

import adapters
from gateway import config
from gateway.control.lora_changes import LoraChanges
from gateway.control.ports import free_port
from gateway.control.registry import Registry
from gateway.control.reload import Reloads
from gateway.control.supervisor import Progress, Supervisor
from gateway.control.supervisor import State as LaunchState
from gateway.control.worker_orders import World
from gateway.data_plane import DataPlane, taken
from gateway.listeners.admin import admin_app
from gateway.listeners.health import Health
from gateway.listeners.http_server import HttpListener
from gateway.listeners.metrics import MetricsPlane
from gateway.listeners.servers import HttpServer
from gateway.observe.metrics import Metrics
from gateway.policies.shares import share_out
from gateway.protocols import wire
from gateway.shared_plane import SharedPlane
from gateway.types import Adapter, Address, Configuration, Seen

_log = logging.getLogger("isthmus")

Report = Callable[[Progress], None]
Listener = HttpServer | HttpListener
WhenReady = Callable[["Gateway"], Awaitable[None]]
_LISTENERS = ("http", "metrics", "admin", "grpc")
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


def adapters_of(configuration: Configuration) -> dict[str, Adapter]:
    """Return an adapter of each kind that the models use."""
    kinds = adapter_types()
    used = {model.adapter for model in configuration.models}
    return {name: kinds[name]() for name in sorted(used)}


class Gateway:
    """A whole gateway. `start`, and `stop` in any case; `addresses` are what it listens on.

    With more than one worker the data plane is theirs; all that knows the world is here.
    """

    def __init__(self, configuration: Configuration, report: Report) -> None:
        self._configuration = configuration
        self._report = report
        self._wire = wire.load()
        self._metrics = Metrics()
        self._adapters = adapters_of(configuration)
        share = share_out(configuration)
        self._registry = Registry(share, self._adapters, self._world_changed, self._spread)
        self._health = Health(self._registry.snapshot, configuration.server.ready_requires)
        self._settled = False
        self._data = self._data_plane(share)
        self._supervisor = Supervisor(self._launch_progress)
        self._servers: list[Listener] = []
        self.addresses: dict[str, Address] = {}

    async def start(self) -> None:
        """Listen, launch, probe. Raises `ConfigError` for an address that can't be had.

        Listeners come first: the process is alive long before its backends are.
        """
        self._listen()
        for server in self._servers:
            await server.start()
        await self._data.start()
        for name in _LISTENERS:
            if name in self.addresses:
                _log.info("%s listens on %s", name, self.addresses[name])
        await self._supervisor.start(self._configuration.launches)
        await self._registry.start()
        self._settled = True
        self._data.changed()
        await self._data.spread()
        self._health.settled = True
        self._health.changed()
        _log.info("ready: %d models", len(self._configuration.models))

    async def stop(self) -> None:
        """Drain, then end everything that `start` began. Readiness goes first."""
        self._health.draining = True
        self._health.changed()
        self._data.changed()
        drain = self._configuration.server.drain
        _log.info("draining for up to %g s", drain)
        await self._data.spread()
        await self._data.stop(drain)
        await self._registry.stop()
        for adapter in self._adapters.values():
            await adapter.close()
        await self._supervisor.stop()
        await asyncio.gather(*(server.stop(1) for server in self._servers))

    def _data_plane(self, share: Configuration) -> DataPlane | SharedPlane:
        controls = {"reload": Reloads(self._wire, self._registry, self._adapters)}
        if share.server.workers > 1:
            return SharedPlane(share, self._world, self._metrics, controls)
        return DataPlane(
            share,
            self._adapters,
            self._wire,
            self._registry.snapshot,
            self._health,
            self._metrics,
            controls,
        )

    def _listen(self) -> None:
        server, limits = self._configuration.server, self._configuration.limits
        self.addresses.update(self._data.bind())
        figures = MetricsPlane(self._metrics.render, self._health, self._data.figures)
        admin = admin_app(
            self._registry.snapshot,
            self._data.loads,
            LoraChanges(self._registry, self._adapters),
            self._configuration.admin_digest,
            version("isthmus"),
            lambda: self.addresses.get("http"),
        )
        self._bind(
            "metrics", server.metrics, lambda a: HttpListener(figures, a, limits, server.patience)
        )
        self._bind("admin", server.admin, lambda a: HttpServer(admin, a))

    def _bind(
        self, name: str, address: Address | None, make: Callable[[Address], Listener]
    ) -> None:
        if address is None:
            return
        try:
            listener = make(address)
        except OSError as error:
            raise taken(name, address, error.strerror or str(error)) from None
        self._servers.append(listener)
        self.addresses[name] = Address(address.host, listener.port)

    def _world(self) -> World:
        return World(self._registry.snapshot(), self._settled, self._health.draining)

    def _world_changed(self, backend: str, seen: Seen) -> None:
        self._metrics.backend_up(backend, seen.up)
        self._health.changed()
        self._data.changed()

    async def _spread(self) -> None:
        await self._data.spread()

    def _launch_progress(self, progress: Progress) -> None:
        if progress.state is LaunchState.RESTARTING:
            self._metrics.restarted(progress.name)
        self._report(progress)


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
