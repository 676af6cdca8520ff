"""The whole road as processes: a gateway that launches real vLLM and the SavedModel server."""

import os
import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import httpx
import yaml

ROOT = Path(__file__).parents[2]
VENVS = ROOT / os.environ.get("ISTHMUS_VENVS", ".venvs")
MODELS = ROOT / os.environ.get("ISTHMUS_MODELS", ".models")
ISTHMUS = VENVS / "gateway" / "bin" / "isthmus"
START_SECONDS = 300.0
END_SECONDS = 60.0


@dataclass(frozen=True)
class Side:
    """Where to send calls: through the gateway, or straight to the backends.

    `llm` and `classic` are the models' names there.
    """

    openai: str
    tfs_rest: str
    tfs_grpc: str
    llm: str
    classic: str = "digits"


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Road:
    """`isthmus serve` (or another command) on the demo's configuration, in its own session."""

    def __init__(self, folder: Path, *command: str) -> None:
        self.folder = folder
        self.log = folder / "gateway.log"
        http, rpc, admin, metrics, vllm, rest, tfs = free_ports(7)
        self.gateway = Side(
            f"http://127.0.0.1:{http}", f"http://127.0.0.1:{http}", f"127.0.0.1:{rpc}", "chat"
        )
        self.direct = Side(
            f"http://127.0.0.1:{vllm}",
            f"http://127.0.0.1:{rest}",
            f"127.0.0.1:{tfs}",
            "tiny-llama",
        )
        self.admin = f"http://127.0.0.1:{admin}"
        self.metrics = f"http://127.0.0.1:{metrics}"
        text = (ROOT / "configs" / "demo.yaml").read_text()
        content = yaml.safe_load(text)
        content["server"].update(
            http=f"127.0.0.1:{http}",
            grpc=f"127.0.0.1:{rpc}",
            admin=f"127.0.0.1:{admin}",
            metrics=f"127.0.0.1:{metrics}",
        )
        launch = content["models"]["chat"]["backends"][0]["launch"]
        launch |= {"port": vllm, "log": str(folder / "vllm.log")}
        launch["command"].append("--enable-lora")
        launch["env"]["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
        launch["env"]["VLLM_ENABLE_RESPONSES_API_STORE"] = "1"
        launch = content["models"]["digits"]["backends"][0]["launch"]
        launch |= {"port": rest, "grpc_port": tfs, "log": str(folder / "tensorflow.log")}
        self.file = folder / "road.yaml"
        self.file.write_text(yaml.safe_dump(content))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [ISTHMUS, *(command or ("serve",)), "-c", self.file],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=os.environ | {"ISTHMUS_VENVS": str(VENVS), "ISTHMUS_MODELS": str(MODELS)},
                start_new_session=True,
            )

    def __enter__(self) -> "Road":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def wait_ready(self) -> None:
        """Wait until `/readyz` says that both models are there."""

        def ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            try:
                return httpx.get(f"{self.gateway.openai}/readyz").status_code == 200
            except httpx.TransportError:
                return False

        wait_for(ready, START_SECONDS, "the road to be ready")


def wait_for(condition: object, seconds: float, what: str) -> None:
    """Poll until `condition()` is true; fails after `seconds`."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.05)


def descendants(pid: int) -> set[int]:
    """The process ids of all that was started below a process, by /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: set[int] = set()
    todo = [pid]
    while todo:
        for child in children.get(todo.pop(), []):
            found.add(child)
            todo.append(child)
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
