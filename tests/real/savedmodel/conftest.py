"""Fixtures: real models, and the real server on free ports.

TensorFlow makes the models in this process; the server runs them in another one, and is spoken to
with httpx and the official stubs. Version folders are made once and copied into place by the tests.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from real.savedmodel.models import make_versions
from real.savedmodel.support import ROOT, Server, Start, install
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts servers; all are ended when the tests are done."""
    running: list[Server] = []

    def launch(models: dict[str, Path], *arguments: str, ports: Sequence[str] = ()) -> Server:
        folder = tmp_path_factory.mktemp("server")
        rest, grpc_address = ports or ("127.0.0.1:0", "127.0.0.1:0")
        command = [sys.executable, "-m", "adapters.savedmodel"]
        command += ["--rest", rest, "--grpc", grpc_address]
        for name, base in models.items():
            command += ["--model", f"{name}={base}"]
        with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
            process = subprocess.Popen(
                [*command, *arguments],
                stdout=out,
                stderr=err,
                cwd=folder,
                env=os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
            )
        running.append(Server(process, folder))
        return running[-1]

    yield launch
    for server in running:
        if server.process.poll() is None:
            server.process.kill()
            with suppress(subprocess.TimeoutExpired):
                server.process.wait(10)


@pytest.fixture(scope="session")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished version folders, to be put in place by `install`."""
    return make_versions(tmp_path_factory.mktemp("versions"))


@pytest.fixture(scope="session")
def server(
    start: Start, versions: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Server:
    """A ready server for tests that change nothing: `scale` twice, `zoo`, `judge` and `keras`."""
    base = tmp_path_factory.mktemp("models")
    install(versions["scale1"], base / "scale", 1)
    install(versions["scale2"], base / "scale", 2)
    install(versions["zoo"], base / "zoo", 1)
    install(versions["keras"], base / "keras", 1)
    install(versions["judge"], base / "judge", 1)
    models = {name: base / name for name in ("scale", "zoo", "keras", "judge")}
    return start(models, "--versions", "all", "--max-body", "1000000").wait_ready()


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with server.http() as client:
        yield client


@pytest.fixture(scope="session")
def channel(server: Server) -> Iterator[Any]:
    with server.channel() as opened:
        yield opened


@pytest.fixture(scope="session")
def prediction(channel: Any) -> Any:
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="session")
def model_service(channel: Any) -> Any:
    return model_service_pb2_grpc.ModelServiceStub(channel)
