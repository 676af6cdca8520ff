"""Where the golden vectors are played: the one place to add a target.

Belongs here: `targets()`, and how each target is started. A target is a name and a function that,
given the folder with the models of `golden.models`, yields a `golden.runner.Target` that is ready
to answer, and takes it down again when it is closed.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import httpx
import yaml
from golden.models import CONFIG, LABELS, VERSIONS
from golden.runner import Target
from real.road import ISTHMUS, free_ports, wait_for
from real.savedmodel.support import ROOT, Server

REAL = "ISTHMUS_TFS"
_SERVER = (sys.executable, "-m", "adapters.savedmodel")
Start = Callable[[Path], AbstractContextManager[Target]]


def targets() -> Mapping[str, Start]:
    """What the vectors are played against, by name.

    `server` is the project's own SavedModel server, `gateway` the gateway in front of one, and
    `gateway-over-…` the same where the server is reached in one form only, so that calls in the
    other are translated. `tfs` is a real TF Serving that serves the
    models of `golden.models`, there where ISTHMUS_TFS=host:grpc_port,host:rest_port says so. A
    further target, such as `gateway` (the gateway in front of a server), is one more entry: a
    context manager that starts it and yields its addresses. What a target can't do yet belongs
    into `NOT_YET` of `not_yet.py`.
    """
    found: dict[str, Start] = {
        "server": savedmodel_server,
        "gateway": partial(_gateway, ("rest", "grpc")),
        "gateway-over-grpc": partial(_gateway, ("grpc",)),
        "gateway-over-rest": partial(_gateway, ("rest",)),
    }
    if os.environ.get(REAL):
        found["tfs"] = real_server
    return found


@contextmanager
def savedmodel_server(models: Path, folder: Path | None = None) -> Iterator[Target]:
    """The SavedModel server as a process of its own, on free ports."""
    folder = folder or models.parent / "server"
    folder.mkdir(exist_ok=True)
    command = [*_SERVER, "--rest", "127.0.0.1:0", "--grpc", "127.0.0.1:0", *_models(models)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, cwd=folder, env=environment)
    try:
        rest, grpc_address = Server(process, folder).wait_ready().addresses()
        yield Target(rest=rest, grpc=grpc_address)
    finally:
        process.kill()
        process.wait(10)


def _gateway(forms: tuple[str, ...], models: Path) -> AbstractContextManager[Target]:
    return behind_gateway(models, *forms)


@contextmanager
def real_server(_models: Path) -> Iterator[Target]:
    """A TF Serving that somebody started with the models of `golden.models`."""
    yield address_of(os.environ[REAL])


def address_of(text: str) -> Target:
    """Reads ISTHMUS_TFS: the gRPC address, then the REST address; either may be left empty.

    Raises:
        ValueError: it is of another form.
    """
    match = re.fullmatch(r"([^,\s]+:\d+)?,([^,\s]+:\d+)?", text)
    if not match:
        raise ValueError(f"{REAL}={text!r} is not host:grpc_port,host:rest_port")
    return Target(rest=match[2], grpc=match[1])


def _models(models: Path) -> list[str]:
    """The server's arguments: its configuration file where it takes one, for labels' sake."""
    usage = subprocess.run(
        [*_SERVER, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ).stdout
    flag = re.search(r"--model[-_]config[-_]file", usage)
    if flag:
        unavailable = "--allow-version-labels-for-unavailable-models"  # at the start, all are
        return [flag[0], str(models / CONFIG), unavailable]
    named = [part for name in VERSIONS for part in ("--model", f"{name}={models / name}")]
    return [*named, "--versions", "all"]


@contextmanager
def behind_gateway(models: Path, *forms: str) -> Iterator[Target]:
    """The gateway in front of a SavedModel server that it reaches in some forms only.

    A client's form that is not among them is translated.
    """
    folder = models.parent / f"gateway-{'-'.join(forms)}"
    folder.mkdir()
    with savedmodel_server(models, folder) as server:
        addresses = {"rest": f"http://{server.rest}", "grpc": server.grpc}
        http, rpc = free_ports(2)
        content = {
            "server": {
                "http": f"127.0.0.1:{http}",
                "grpc": f"127.0.0.1:{rpc}",
                "admin": "off",
                "metrics": "off",
                "ready_requires": list(VERSIONS),
            },
            "models": {
                name: {
                    "adapter": "tensorflow_serving",
                    "backends": [{form: addresses[form] for form in forms}],
                    "versions": "discover",
                    "labels": dict(LABELS.get(name, {})),
                    # TF Serving's own default is the newest, the gateway's the label `stable`.
                    "traffic": {max(VERSIONS[name]): 100},
                }
                for name in VERSIONS
            },
        }
        file = folder / "gateway.yaml"
        file.write_text(yaml.safe_dump(content))
        with (folder / "gateway.log").open("wb") as log:
            process = subprocess.Popen(
                [ISTHMUS, "serve", "-c", file], stdout=log, stderr=log, cwd=folder
            )
        try:
            ready = f"http://127.0.0.1:{http}/readyz"
            wait_for(lambda: _answers(ready), 60, "the gateway to be ready")
            yield Target(rest=f"127.0.0.1:{http}", grpc=f"127.0.0.1:{rpc}")
        finally:
            process.terminate()
            process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False
