"""Warm-up records: what is replayed, and what fails a load, in this process and in the server's."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from real.savedmodel.support import Start, install, until
from tensorflow_serving.apis import prediction_log_pb2

from adapters.savedmodel import model, warmup
from adapters.savedmodel.signature import Servable
from adapters.savedmodel.status import Code, ServingError

pytestmark = pytest.mark.real

FILL = 1 << 20


class Counting:
    """A loaded version that notes which signatures run."""

    def __init__(self, inner: Servable) -> None:
        self.inner = inner
        self.ran: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def run(self, signature: Any, inputs: Any) -> Any:
        self.ran.append(signature.name)
        return self.inner.run(signature, inputs)


@pytest.fixture(scope="module")
def judge(versions: dict[str, Path]) -> Iterator[Servable]:
    loaded = model.load(versions["judge"], threads=1)
    yield loaded
    loaded.close()


def _example(weight: float) -> bytes:
    message = tf.train.Example()
    message.features.feature["weight"].float_list.value.append(weight)
    return bytes(message.SerializeToString())


def predict_log(signature: str = "", alias: str = "inputs") -> bytes:
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name = "another name"
    request.model_spec.signature_name = signature
    request.inputs[alias].CopyFrom(tf.make_tensor_proto(np.array([_example(1)], object)))
    return bytes(log.SerializeToString())


def examples_log(kind: str, signature: str) -> bytes:
    log = prediction_log_pb2.PredictionLog()
    request = getattr(log, kind).request
    request.input.example_list.examples.add().ParseFromString(_example(1))
    if kind == "multi_inference_log":
        task = request.tasks.add(method_name="tensorflow/serving/regress")
        task.model_spec.name, task.model_spec.signature_name = "m", signature
    else:
        request.model_spec.signature_name = signature
    return bytes(log.SerializeToString())


def write(folder: Path, records: Sequence[bytes]) -> Path:
    path = folder / warmup.FILE
    path.parent.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path


def test_each_kind_of_request_is_replayed(judge: Servable, tmp_path: Path) -> None:
    write(
        tmp_path,
        [
            predict_log("flat"),
            examples_log("classify_log", ""),
            examples_log("regress_log", "regress"),
            examples_log("multi_inference_log", "flat"),
            b"",  # a log of nothing
        ],
    )
    counting = Counting(judge)
    assert warmup.replay(counting, tmp_path, 2, FILL) == 5
    assert counting.ran == [
        name for name in ("flat", "serving_default", "regress", "flat") for _ in range(2)
    ]


def test_no_file_is_no_warm_up(judge: Servable, tmp_path: Path) -> None:
    assert warmup.replay(judge, tmp_path, 1, FILL) == 0


@pytest.mark.parametrize(("count", "fits"), [(1000, True), (1001, False)])
def test_a_thousand_records_and_no_more(
    judge: Servable, tmp_path: Path, count: int, fits: bool
) -> None:
    write(tmp_path, [b""] * count)
    if fits:
        assert warmup.replay(judge, tmp_path, 1, FILL) == count
        return
    with pytest.raises(ServingError, match=r"exceeds the maximum \(1000\) at ") as caught:
        warmup.replay(judge, tmp_path, 1, FILL)
    assert caught.value.code is Code.INVALID_ARGUMENT


def _streamed() -> bytes:
    log = prediction_log_pb2.PredictionLog()
    log.session_run_log.SetInParent()
    return bytes(log.SerializeToString())


@pytest.mark.parametrize(
    ("record", "code", "words"),
    [
        (b"\xff\xff", Code.INVALID_ARGUMENT, "Failed to parse warmup record"),
        (_streamed(), Code.UNIMPLEMENTED, "Unsupported log_type for warmup: 5"),
        (predict_log("absent"), Code.FAILED_PRECONDITION, 'signature key "absent" not found'),
        (predict_log(alias="x"), Code.INVALID_ARGUMENT, "Signature input alias: inputs"),
        (examples_log("regress_log", "wide"), Code.INVALID_ARGUMENT, "output Tensor shape"),
    ],
)
def test_a_bad_record_fails_the_load(
    judge: Servable, tmp_path: Path, record: bytes, code: Code, words: str
) -> None:
    write(tmp_path, [predict_log(), record])
    with pytest.raises(ServingError, match=words) as caught:
        warmup.replay(judge, tmp_path, 1, FILL)
    assert caught.value.code is code


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: data[:-3] + b"xyz"])
def test_a_damaged_file_fails_the_load(judge: Servable, tmp_path: Path, damage: Any) -> None:
    path = write(tmp_path, [predict_log()])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ServingError, match="verify your warmup data is in TFRecord") as caught:
        warmup.replay(judge, tmp_path, 1, FILL)
    assert caught.value.code is Code.DATA_LOSS


def test_the_server_warms_up_before_a_version_serves(
    start: Start, tmp_path: Path, versions: dict[str, Path]
) -> None:
    base = tmp_path / "judge"
    install(versions["judge"], base, 1)
    for number, record in ((2, predict_log("flat")), (3, predict_log("absent"))):
        staged = install(versions["judge"], tmp_path / "staged", number)
        write(staged, [record, record])
        staged.rename(base / str(number))
    server = start({"judge": base}, "--versions", "all", "--poll", "0.05").wait_ready()
    assert server.states("judge") == {3: "END", 2: "AVAILABLE", 1: "AVAILABLE"}
    assert server.err.count("2 warm-up requests replayed") == 1
    with server.http() as http:
        row = http.get("/judge/versions/3").json()["model_version_status"][0]
        assert row["status"]["error_code"] == "FAILED_PRECONDITION"
        assert 'signature key "absent" not found' in row["status"]["error_message"]
        (base / "3" / warmup.FILE).unlink()
        until(lambda: server.states("judge")[3] == "AVAILABLE", "the mended version serves")
        body = {"examples": [{"weight": 1.0}]}
        assert http.post("/judge/versions/3:classify", json=body).status_code == 200
    assert server.end() == 0
