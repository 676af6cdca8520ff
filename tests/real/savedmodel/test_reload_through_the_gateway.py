"""HandleReloadConfigRequest through the gateway, with official stubs and the real server."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import yaml
from google.protobuf import text_format
from real.road import ISTHMUS, free_ports
from real.savedmodel.support import Server, Start, install, until
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc

pytestmark = pytest.mark.real

ROWS = {"instances": [[1, 2, 3]]}


def model(base: Path, *more: str, name: str = "") -> str:
    return (
        f'config {{ name: "{name or base.name}" base_path: "{base}" '
        f'model_platform: "tensorflow" {" ".join(more)} }}'
    )


@pytest.fixture(scope="module")
def folders(versions: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`scale` (versions 1 and 2), `other` (3), `judge` (1), `new` (2)."""
    root = tmp_path_factory.mktemp("folders")
    for name, number in (("scale", 1), ("scale", 2), ("other", 3), ("new", 2)):
        install(versions[f"scale{number}"], root / name, number)
    install(versions["judge"], root / "judge", 1)
    return {name: root / name for name in ("scale", "other", "judge", "new")}


@pytest.fixture(scope="module")
def servers(start: Start, folders: dict[str, Path]) -> list[Server]:
    """Two servers of the same models, which a file names; the third has none that is told."""
    file = folders["scale"].parent / "models.config"
    file.write_text(f"model_config_list {{ {model(folders['scale'])} {model(folders['other'])} }}")
    starts = [
        start({}, "--model_config_file", str(file), "--poll", "0.05"),
        start({}, "--model_config_file", str(file), "--poll", "0.05"),
        start({"scale": folders["scale"], "judge": folders["judge"]}, "--poll", "0.05"),
    ]
    return [server.wait_ready() for server in starts]


class Gateway:
    """A gateway before the servers: `scale` on the first two, `told` and `judge` on the third."""

    def __init__(self, folder: Path, servers: list[Server], file: Path) -> None:
        http, rpc = free_ports(2)
        first, second, third = (server.addresses()[1] for server in servers)
        pool = [{"grpc": one, "model_config_file": str(file)} for one in (first, second)]
        tfs = {"adapter": "tensorflow_serving", "versions": "discover"}
        models = {
            "scaler": {**tfs, "served_name": "scale", "backends": pool},
            "other": {**tfs, "backends": pool},
            "new": {**tfs, "backends": pool},
            "first": {**tfs, "served_name": "alone", "backends": pool[:1]},
            "told": {**tfs, "served_name": "scale", "backends": [{"grpc": third}]},
            "judge": {**tfs, "backends": [{"grpc": third}]},
        }
        listeners = {"http": f"127.0.0.1:{http}", "grpc": f"127.0.0.1:{rpc}"}
        content = {"server": {**listeners, "admin": "off", "metrics": "off"}, "models": models}
        config = folder / "gateway.yaml"
        config.write_text(yaml.safe_dump(content))
        with (folder / "gateway.log").open("wb") as log:
            self.process = subprocess.Popen(
                [ISTHMUS, "serve", "-c", config], stdout=log, stderr=log, cwd=folder, env=os.environ
            )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{http}", timeout=60)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{rpc}")
        self.stub = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def up(self) -> bool:
        assert self.process.poll() is None
        try:
            return self.http.get("/readyz/scaler").status_code == 200
        except httpx.TransportError:
            return False

    def reload(self, *models: str) -> Any:
        request = model_management_pb2.ReloadConfigRequest()
        text_format.Parse(f"model_config_list {{ {' '.join(models)} }}", request.config)
        return self.stub.HandleReloadConfigRequest(request, timeout=60)

    def fails(self, *models: str) -> Any:
        with pytest.raises(grpc.RpcError) as caught:
            self.reload(*models)
        return caught.value

    def served(self, name: str) -> float:
        answer = self.http.post(f"/v1/models/{name}:predict", json=ROWS)
        assert answer.status_code == 200, answer.text
        return float(answer.json()["predictions"][0][0])

    def soon(self, name: str, value: float) -> None:
        """Wait for an answer; a version that goes is asked for until the next probe."""

        def look() -> bool:
            answer = self.http.post(f"/v1/models/{name}:predict", json=ROWS)
            return answer.status_code == 200 and answer.json()["predictions"][0][0] == value

        until(look, f"{name} answers {value}")

    def end(self) -> None:
        self.http.close()
        self.channel.close()
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture
def gateway(servers: list[Server], folders: dict[str, Path], tmp_path: Path) -> Iterator[Gateway]:
    """A gateway that is as new as its servers: what they serve is the file's again after each."""
    file = folders["scale"].parent / "models.config"
    made = Gateway(tmp_path, servers, file)
    try:
        until(made.up, "the gateway is up")
        yield made
    finally:
        made.end()
        request = model_management_pb2.ReloadConfigRequest()
        text_format.Parse(file.read_text(), request.config)
        for server in servers[:2]:
            with server.channel() as channel:
                stub = model_service_pb2_grpc.ModelServiceStub(channel)
                stub.HandleReloadConfigRequest(request, timeout=60)


def available(server: Server, name: str) -> Callable[[], bool]:
    def look() -> bool:
        with server.http() as http:
            rows = http.get(f"/{name}").json().get("model_version_status", [])
        return any(row["state"] == "AVAILABLE" for row in rows)

    return look


def gone(server: Server, name: str) -> Callable[[], bool]:
    look = available(server, name)
    return lambda: not look()


def test_one_is_added_and_the_others_stay(
    gateway: Gateway, servers: list[Server], folders: dict[str, Path]
) -> None:
    reply = gateway.reload(model(folders["new"]))
    assert reply.status.error_code == 0
    assert gateway.served("new") == 3.0  # at once: the world was looked at anew
    assert gateway.served("scaler") == 3.0
    assert gateway.served("other") == 4.0
    for server in servers[:2]:
        assert all(available(server, name)() for name in ("scale", "other", "new"))


def test_one_is_removed_and_the_others_stay(
    gateway: Gateway, servers: list[Server], folders: dict[str, Path]
) -> None:
    gateway.reload('config { name: "other" }')
    for server in servers[:2]:
        until(gone(server, "other"), "the model went")
        assert available(server, "scale")()
    assert gateway.served("scaler") == 3.0
    gateway.reload(model(folders["new"]))
    assert gateway.served("new") == 3.0
    for server in servers[:2]:
        assert gone(server, "other")()


def test_an_entry_is_replaced_under_the_servers_own_name(
    gateway: Gateway, folders: dict[str, Path]
) -> None:
    only = "model_version_policy { specific { versions: 1 } }"
    gateway.reload(model(folders["scale"], only, name="scaler"))
    gateway.soon("scaler", 2.0)  # version 1 alone is left
    assert gateway.served("other") == 4.0
    gateway.reload(model(folders["new"], name="scaler"))
    gateway.soon("scaler", 3.0)  # another folder


def test_one_server_of_two(
    gateway: Gateway, servers: list[Server], folders: dict[str, Path]
) -> None:
    gateway.reload(model(folders["new"], name="first"))
    assert available(servers[0], "alone")()
    assert gone(servers[1], "alone")()
    assert gateway.served("first") == 3.0


def test_what_the_server_refuses_changes_nothing(
    gateway: Gateway, folders: dict[str, Path]
) -> None:
    error = gateway.fails(f'config {{ name: "new" base_path: "{folders["new"]}" }}')
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "Illegal setting neither ModelServerConfig::model_type" in error.details()
    assert gateway.served("scaler") == 3.0
    gateway.reload(model(folders["new"]))
    assert gateway.served("new") == 3.0


def test_without_its_file_a_server_keeps_what_it_has(
    gateway: Gateway, servers: list[Server], folders: dict[str, Path]
) -> None:
    error = gateway.fails(model(folders["scale"], name="told"))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "serves judge too" in error.details()
    assert available(servers[2], "judge")()
    gateway.reload(model(folders["scale"], name="told"), model(folders["judge"]))
    gateway.reload(model(folders["new"], name="told"))
    assert available(servers[2], "judge")()


def test_a_model_that_the_gateway_does_not_have(gateway: Gateway) -> None:
    error = gateway.fails(model(Path("/m/nobody")))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "The model `nobody` does not exist. Models here: first, judge," in error.details()
