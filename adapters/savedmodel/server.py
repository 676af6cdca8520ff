"""Wires the rooms together: opens both ports, imports TensorFlow, serves until told to stop.

Order matters: ports first (a taken address shows at once, and callers get 503 rather than a refused
connection), then TensorFlow, then the models, and the gate opens after the first round of loading.
On SIGTERM or SIGINT the ports close, what is in flight ends, for at most `DRAIN` seconds.
"""

import asyncio
import contextlib
import importlib
import logging
import os
import signal
import socket
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from adapters.savedmodel import grpc_front
from adapters.savedmodel.manager import Manager
from adapters.savedmodel.rest import RestApp
from adapters.savedmodel.signature import Servable
from adapters.savedmodel.status import Code, ServingError
from adapters.savedmodel.watch import Loader, ModelSource

DRAIN = 10.0  # seconds
_KEEP_ALIVE = 75  # seconds; longer than the pools of usual clients keep a connection
_MAX_CONNECTIONS = 4096
_INSTALL = (
    "install them with: pip install tensorflow-cpu && pip install --no-deps tensorflow-serving-api"
)
_log = logging.getLogger("isthmus.savedmodel")


class StartError(Exception):
    """The server can't start; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line decided. Sizes in bytes, times in seconds.

    `config_poll` 0 reads the configuration file once; `early_labels`: see `labels.assign`;
    `warmup_times` is how often each warm-up request runs.
    """

    sources: tuple[ModelSource, ...]
    grpc: tuple[str, int]
    rest: tuple[str, int]
    poll: float
    threads: int
    max_body: int
    json_depth: int
    config_file: Path | None = None
    config_poll: float = 0.0
    early_labels: bool = False
    check_methods: bool = False
    warmup: bool = True
    warmup_times: int = 1


class _Rest(uvicorn.Server):
    """uvicorn without its signal handling: `serve` closes both fronts at once."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def serve(options: Options) -> bool:
    """Serves until SIGTERM or SIGINT.

    Returns:
        True where everything ended in time; False where a prediction or the import still runs in a
        thread.

    Raises:
        StartError: an address can't be bound, a label can't be given, or TensorFlow can't be
            imported.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    manager = _manager(options)
    front = grpc_front.Front()
    rest_socket = _bind_rest(options.rest)
    grpc_server, grpc_port = _bind_grpc(front, options.grpc)
    rest = _rest_server(RestApp(manager, options.max_body, options.json_depth))
    await grpc_server.start()
    address = _address(options.rest[0], rest_socket.getsockname()[1])
    _log.info("listening: rest http://%s, grpc %s", address, _address(options.grpc[0], grpc_port))
    tasks = {
        asyncio.create_task(rest.serve(sockets=[rest_socket]), name="rest"),
        asyncio.create_task(_load_and_poll(manager, front, options), name="models"),
        asyncio.create_task(stop.wait(), name="stop"),
    }
    if options.config_file is not None and options.config_poll:
        follow = _follow(manager, options.config_file, options.config_poll)
        tasks.add(asyncio.create_task(follow, name="config"))
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    _log.info("stopping: finishing what is in flight, for at most %g s", DRAIN)
    in_time = await _drain(tasks, rest, grpc_server, manager)
    for task in done:
        task.result()  # a room that failed ends the server with its error
    return in_time


async def _drain(
    tasks: set[asyncio.Task[Any]], rest: uvicorn.Server, grpc_server: Any, manager: Manager
) -> bool:
    rest.should_exit = True
    ending = [task for task in tasks if task.get_name() == "rest"]
    for task in tasks.difference(ending):
        task.cancel()
    await asyncio.gather(grpc_server.stop(DRAIN), *ending, return_exceptions=True)
    return manager.close()


async def _load_and_poll(manager: Manager, front: grpc_front.Front, options: Options) -> None:
    await manager.look()
    start = time.perf_counter()
    _log.info("importing TensorFlow (takes seconds, more when the disk is cold)")
    room = await manager.in_loader_thread(_import_tensorflow)
    _log.info("TensorFlow %s imported after %.1f s", room.version(), time.perf_counter() - start)
    # The stubs come with TensorFlow, so their room is imported only now.
    service = importlib.import_module("adapters.savedmodel.grpc_service")
    front.install(service.handlers(manager, options.max_body))
    load = _loader(room, options)
    await manager.step(load)
    manager.open()
    _log.info("ready after %.1f s", time.perf_counter() - start)
    await manager.poll(load, options.poll)


def _manager(options: Options) -> Manager:
    try:
        return Manager(options.sources, _processors(), options.early_labels)
    except ServingError as error:
        raise StartError(
            f"Failed to start server. Error: {error.code.name}: {error.message}; start with "
            "--allow-version-labels-for-unavailable-models, or add the label once the version "
            "serves"
        ) from None


async def _follow(manager: Manager, path: Path, every: float) -> None:
    """Reads the configuration file every so many seconds and puts it in force, for ever."""
    room = importlib.import_module("adapters.savedmodel.model_config")
    complaint = ""
    while True:
        await asyncio.sleep(every)
        try:
            sources = await asyncio.to_thread(room.read_file, path, manager.models)
            await manager.reload(sources)
            complaint = ""
        except ServingError as error:
            if error.message != complaint:
                complaint = error.message
                _log.warning("%s is not in force: %s", path, complaint)


def _loader(room: Any, options: Options) -> Loader:
    """What loads a version: TensorFlow, then the version's warm-up requests."""
    warmup = importlib.import_module("adapters.savedmodel.warmup")

    def load(path: Path) -> Servable:
        servable: Servable = room.load(path, options.threads, options.check_methods)
        if not options.warmup:
            return servable
        try:
            count = warmup.replay(servable, path, options.warmup_times, options.max_body)
        except ServingError:
            servable.close()
            raise
        except Exception as error:  # whatever it is becomes the version's status
            servable.close()
            raise ServingError(Code.INTERNAL, f"{path}: warm-up failed: {error}") from error
        if count:
            _log.info("%s: %d warm-up requests replayed", path, count)
        return servable

    return load


def _import_tensorflow() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        room = importlib.import_module("adapters.savedmodel.model")
        importlib.import_module("adapters.savedmodel.grpc_service")
        importlib.import_module("adapters.savedmodel.warmup")
    except ImportError as error:
        raise StartError(
            f"TensorFlow or its serving stubs can't be imported: {error}; {_INSTALL}"
        ) from error
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    return room


def _rest_server(app: RestApp) -> _Rest:
    return _Rest(
        uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            log_level="warning",
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=int(DRAIN),
            limit_concurrency=_MAX_CONNECTIONS,
        )
    )


def _bind_rest(address: tuple[str, int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        return socket.create_server(address, family=family, backlog=2048)
    except OSError as error:
        raise StartError(_taken("--rest", address, error.strerror or str(error))) from None


def _bind_grpc(front: grpc_front.Front, address: tuple[str, int]) -> tuple[Any, int]:
    try:
        return grpc_front.create(front, _address(*address))
    except RuntimeError as error:
        raise StartError(_taken("--grpc", address, str(error).splitlines()[0][:200])) from None


def _taken(option: str, address: tuple[str, int], why: str) -> str:
    return (
        f"{option} {_address(*address)}: {why}; choose another address or stop what listens there"
    )


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _processors() -> int:
    """The processors this process may use; more threads would only wait for each other."""
    return max(2, len(os.sched_getaffinity(0)))
