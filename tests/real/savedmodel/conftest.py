"""Real models made on the spot, and the real server as a process of its own on free ports.

TensorFlow makes the models here; the server runs them in another process, and is spoken to with httpx
and the official stubs. Whole model folders are made once and copied into place by the tests.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with warnings.catch_warnings():  # other people's deprecations, at import only
    warnings.simplefilter("ignore")
    import tensorflow as tf
    from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

ROOT = Path(__file__).resolve().parents[3]
DEADLINE = 120.0  # seconds; importing TensorFlow takes 12 and more on a cold, busy machine
_LISTENING = re.compile(r"listening: rest http://(\S+), grpc (\S+)")


def until(condition: Callable[[], object], what: str, seconds: float = DEADLINE) -> Any:
    """The condition's first true value; fails loudly at the deadline."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s: {what}")


@dataclass
class Server:
    """One server process."""

    process: "subprocess.Popen[bytes]"
    folder: Path

    @property
    def out(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "stderr").read_text()

    def addresses(self) -> tuple[str, str]:
        """REST and gRPC, as soon as the server says them."""

        def said() -> "re.Match[str] | None":
            assert self.process.poll() is None, self.err
            return _LISTENING.search(self.err)

        match = until(said, "the server listens")
        return match[1], match[2]

    def wait_ready(self) -> "Server":
        def ready() -> bool:
            assert self.process.poll() is None, self.err
            return "ready after" in self.err

        until(ready, "the server is ready")
        return self

    def http(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://{self.addresses()[0]}/v1/models", timeout=60)

    def channel(self) -> Any:
        limit = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        return grpc.insecure_channel(self.addresses()[1], options=limit)

    def states(self, model: str) -> dict[int, str]:
        with self.http() as http:
            rows = http.get(f"/{model}").json()["model_version_status"]
        return {int(row["version"]): row["state"] for row in rows}

    def processor_seconds(self) -> float:
        """Processor time spent so far; it stands still while no prediction runs."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait_busy(self) -> None:
        """Returns once a prediction is really running."""
        start = self.processor_seconds()
        until(lambda: self.processor_seconds() > start + 0.1, "a prediction runs")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends the signal and returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)


Start = Callable[..., Server]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts servers; all are ended when the module's tests are done."""
    running: list[Server] = []

    def launch(models: dict[str, Path], *arguments: str, ports: Sequence[str] = ()) -> Server:
        folder = tmp_path_factory.mktemp("server")
        rest, grpc_address = ports or ("127.0.0.1:0", "127.0.0.1:0")
        command = [
            sys.executable,
            "-m",
            "adapters.savedmodel",
            "--rest",
            rest,
            "--grpc",
            grpc_address,
        ]
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


def install(version: Path, base: Path, number: int) -> Path:
    """Copies a whole version into a model's folder, under another name until it is complete."""
    base.mkdir(parents=True, exist_ok=True)
    partial = base / f".copying-{number}"
    shutil.copytree(version, partial)
    return partial.rename(base / str(number))


class Scale(tf.Module):  # type: ignore[misc,unused-ignore]
    """y = factor * x; `slow` multiplies matrices for `rounds` rounds and returns the factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = tf.Variable(factor)

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
    def scale(self, x: Any) -> dict[str, Any]:
        return {"y": x * self.factor}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="rounds")])
    def slow(self, rounds: Any) -> dict[str, Any]:
        matrix = tf.eye(256)
        for _ in tf.range(tf.reduce_max(rounds)):
            matrix = tf.matmul(matrix, matrix)
        return {"y": tf.fill(tf.shape(rounds), self.factor * matrix[0, 0])}


def _spec(dtype: Any, name: str, *shape: int | None) -> Any:
    return tf.TensorSpec(list(shape), dtype, name=name)


_INTEGERS = ("int8", "uint8", "int16", "int32", "uint32", "int64", "uint64")


class Zoo(tf.Module):  # type: ignore[misc,unused-ignore]
    """Signatures of many kinds in one model."""

    def __init__(self) -> None:
        super().__init__()
        words = tf.lookup.KeyValueTensorInitializer(
            tf.constant(["one", "two"]), tf.constant([1, 2], tf.int64)
        )
        self.table = tf.lookup.StaticHashTable(words, -1)

    @tf.function(
        input_signature=[
            _spec(tf.float32, "a", None, 2),
            _spec(tf.int64, "b", None),
            _spec(tf.string, "c", None),
            _spec(tf.bool, "flag", None),
        ]
    )
    def many(self, a: Any, b: Any, c: Any, flag: Any) -> dict[str, Any]:
        return {
            "total": tf.reduce_sum(a, axis=1),
            "next": b + 1,
            "text": tf.strings.join([c, "!"]),
            "raw_bytes": c,
            "negated": tf.logical_not(flag),
        }

    @tf.function(input_signature=[_spec(getattr(tf, name), name, None) for name in _INTEGERS])
    def integers(self, *values: Any) -> dict[str, Any]:
        return {f"{name}_out": tf.identity(v) for name, v in zip(_INTEGERS, values, strict=True)}

    @tf.function(input_signature=[_spec(tf.float64, "x", None)])
    def double(self, x: Any) -> dict[str, Any]:
        return {"y": tf.identity(x)}

    @tf.function(input_signature=[_spec(tf.float32, "x", None)])
    def single(self, x: Any) -> dict[str, Any]:
        return {"y": tf.identity(x)}

    @tf.function(input_signature=[_spec(tf.float32, "x", None)])
    def scalar(self, x: Any) -> dict[str, Any]:
        return {"y": tf.reduce_sum(x)}

    @tf.function(input_signature=[_spec(tf.float32, "x", None)])
    def uneven(self, x: Any) -> dict[str, Any]:
        return {"whole": tf.identity(x), "half": x[::2]}

    @tf.function(input_signature=[_spec(tf.float16, "x", None)])
    def half_in(self, x: Any) -> dict[str, Any]:
        return {"y": tf.cast(x, tf.float32)}

    @tf.function(input_signature=[_spec(tf.float32, "x", None)])
    def half_out(self, x: Any) -> dict[str, Any]:
        return {"y": tf.cast(x, tf.float16)}

    @tf.function(input_signature=[_spec(tf.string, "word", None)])
    def lookup(self, word: Any) -> dict[str, Any]:
        return {"number": self.table.lookup(word)}

    @tf.function(input_signature=[_spec(tf.string, "x", None)])
    def text(self, x: Any) -> dict[str, Any]:
        return {"y": tf.identity(x)}

    @tf.function(input_signature=[_spec(tf.int32, "x")])
    def rankless(self, x: Any) -> dict[str, Any]:
        return {"y": x * 2}

    @tf.function(input_signature=[_spec(tf.float32, "x", None)])
    def refuses(self, x: Any) -> dict[str, Any]:
        with tf.control_dependencies([tf.debugging.assert_positive(x, message="only above zero")]):
            return {"y": tf.identity(x)}

    def signatures(self) -> dict[str, Any]:
        names = (
            "integers", "double", "single", "scalar", "uneven", "half_in", "half_out", "lookup",
            "text", "rankless", "refuses",
        )  # fmt: skip
        return {"serving_default": self.many} | {name: getattr(self, name) for name in names}


@pytest.fixture(scope="session")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished version folders, to be put in place by `install`: scale1, scale2, zoo, keras."""
    root = tmp_path_factory.mktemp("versions")
    for factor in (2.0, 3.0, 4.0):
        module = Scale(factor)
        saved = {"serving_default": module.scale, "slow": module.slow}
        tf.saved_model.save(module, str(root / f"scale{int(factor) - 1}"), signatures=saved)
    zoo = Zoo()
    tf.saved_model.save(zoo, str(root / "zoo"), signatures=zoo.signatures())
    tf.keras.utils.set_random_seed(7)
    model = tf.keras.Sequential(
        [
            tf.keras.Input((4,), name="pixels"),
            tf.keras.layers.Dense(8, "relu"),
            tf.keras.layers.Dense(2),
        ]
    )
    model.export(str(root / "keras"), format="tf_saved_model", verbose=False)
    return {name: root / name for name in ("scale1", "scale2", "scale3", "zoo", "keras")}


@pytest.fixture(scope="module")
def server(
    start: Start, versions: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Server:
    """A ready server for tests that change nothing: `scale` (versions 1 and 2), `zoo` and `keras`."""
    base = tmp_path_factory.mktemp("models")
    install(versions["scale1"], base / "scale", 1)
    install(versions["scale2"], base / "scale", 2)
    install(versions["zoo"], base / "zoo", 1)
    install(versions["keras"], base / "keras", 1)
    models = {name: base / name for name in ("scale", "zoo", "keras")}
    return start(models, "--versions", "all", "--max-body", "1000000").wait_ready()


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with server.http() as client:
        yield client


@pytest.fixture(scope="module")
def channel(server: Server) -> Iterator[Any]:
    with server.channel() as opened:
        yield opened


@pytest.fixture(scope="module")
def prediction(channel: Any) -> Any:
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def model_service(channel: Any) -> Any:
    return model_service_pb2_grpc.ModelServiceStub(channel)
