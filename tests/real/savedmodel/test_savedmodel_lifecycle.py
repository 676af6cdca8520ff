"""Versions that come, go and break while clients call; starts that fail; ends that are clean."""

import shutil
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from real.savedmodel.support import Server, Start, install, until
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

pytestmark = pytest.mark.real

QUICK = ("--poll", "0.05")
ROWS = {"instances": [[1, 2, 3]]}
SLOW = {"signature_name": "slow", "instances": [2500]}  # a second or two of one processor
SLOWER = {"signature_name": "slow", "instances": [12_000]}
FACTORS = {2.0: 1, 3.0: 2, 4.0: 3}  # the first answer tells the version


@pytest.fixture
def base(tmp_path: Path, versions: dict[str, Path]) -> Path:
    install(versions["scale1"], tmp_path / "scale", 1)
    return tmp_path / "scale"


def _served(http: httpx.Client) -> int:
    answer = http.post("/scale:predict", json=ROWS)
    assert answer.status_code == 200, answer.text
    return FACTORS[answer.json()["predictions"][0][0]]


class Load:
    """Clients over REST and gRPC that call without a pause; `versions`: what served each call."""

    def __init__(self, server: Server, clients: int = 4) -> None:
        self.versions: list[int] = []
        self.errors: list[str] = []
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(clients)
        calls = [self._rest, self._grpc]
        self._done = [self._pool.submit(calls[number % 2], server) for number in range(clients)]

    def _rest(self, server: Server) -> None:
        with server.http() as http:
            self._repeat(lambda: _served(http))

    def _grpc(self, server: Server) -> None:
        message = predict_pb2.PredictRequest()
        message.model_spec.name = "scale"
        message.inputs["x"].CopyFrom(tf.make_tensor_proto(np.array([[1, 2, 3]], np.float32)))
        with server.channel() as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

            def call() -> int:
                reply = stub.Predict(message, timeout=60)
                version = FACTORS[reply.outputs["y"].float_val[0]]
                assert reply.model_spec.version.value == version
                return version

            self._repeat(call)

    def _repeat(self, call: Callable[[], int]) -> None:
        while not self._stop.is_set():
            try:
                self.versions.append(call())
            except (AssertionError, httpx.HTTPError, grpc.RpcError) as error:
                self.errors.append(repr(error))

    def end(self) -> None:
        self._stop.set()
        for done in self._done:
            done.result(60)
        self._pool.shutdown()


def test_versions_change_under_load_without_a_failed_request(
    start: Start, base: Path, versions: dict[str, Path]
) -> None:
    server = start({"scale": base}, *QUICK).wait_ready()
    load = Load(server)
    try:
        for number in (2, 3):
            install(versions[f"scale{number}"], base, number)
            until(lambda n=number: n in load.versions, f"version {number} serves")  # type: ignore[misc]
            until(lambda n=number: server.states("scale")[n - 1] == "END", "the old one went")  # type: ignore[misc]
        shutil.rmtree(base / "3")
        end = len(load.versions)
        until(lambda: 2 in load.versions[end:], "back on version 2")
    finally:
        load.end()
    assert load.errors == []
    assert set(load.versions) == {1, 2, 3}
    assert server.end() == 0


def test_a_half_written_folder_is_left_alone_until_it_is_whole(
    start: Start, base: Path, versions: dict[str, Path]
) -> None:
    server = start({"scale": base}, *QUICK, "--versions", "all").wait_ready()
    shutil.copytree(versions["scale2"] / "variables", base / "2" / "variables")
    install(versions["scale3"], base, 3)
    until(lambda: server.states("scale").get(3) == "AVAILABLE", "version 3 serves")
    assert 2 not in server.states("scale")  # seen as often as version 3, and not touched
    shutil.copy(versions["scale2"] / "saved_model.pb", base / "2")
    until(lambda: server.states("scale").get(2) == "AVAILABLE", "version 2 serves")
    assert server.end() == 0


def test_a_version_that_fails_to_load_is_reported_and_tried_again_once_mended(
    start: Start, base: Path, versions: dict[str, Path]
) -> None:
    server = start({"scale": base}, *QUICK).wait_ready()
    broken = base / "2"
    broken.mkdir()
    shutil.copy(versions["scale2"] / "saved_model.pb", broken)
    with server.http() as http:
        until(lambda: server.states("scale").get(2) == "END", "the failure shows")
        status = http.get("/scale/versions/2").json()["model_version_status"][0]["status"]
        assert status["error_code"] != "OK"
        assert status["error_message"]
        assert _served(http) == 1
        shutil.copytree(versions["scale2"] / "variables", broken / "variables")
        until(lambda: _served(http) == 2, "the mended version serves")
        status = http.get("/scale/versions/2").json()["model_version_status"][0]["status"]
        assert status == {"error_code": "OK", "error_message": ""}
    assert server.end() == 0


def test_rubbish_in_place_of_a_model_harms_nobody(start: Start, base: Path) -> None:
    (base / "7").mkdir()
    (base / "7" / "saved_model.pb").write_bytes(b"\x00rubbish" * 100)
    (base / "8").mkdir()
    (base / "8" / "saved_model.pb").write_bytes(b"")
    server = start({"scale": base}, *QUICK).wait_ready()
    with server.http() as http:
        assert _served(http) == 1
        assert server.states("scale") == {8: "END", 7: "END", 1: "AVAILABLE"}
    assert server.end() == 0


def test_a_request_in_flight_keeps_its_version(
    start: Start, base: Path, versions: dict[str, Path]
) -> None:
    server = start({"scale": base}, *QUICK).wait_ready()
    with server.http() as http, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(http.post, "/scale:predict", json=SLOWER)
        server.wait_busy()
        install(versions["scale2"], base, 2)
        until(lambda: server.states("scale").get(2) == "AVAILABLE", "version 2 serves")
        until(lambda: server.states("scale")[1] == "UNLOADING", "version 1 waits for its request")
        assert not answer.done()
        assert answer.result(60).json() == {"predictions": [2.0]}
        until(lambda: server.states("scale")[1] == "END", "version 1 went")
    assert server.end() == 0


def test_all_versions_gone_and_back(start: Start, base: Path, versions: dict[str, Path]) -> None:
    server = start({"scale": base}, *QUICK).wait_ready()
    shutil.rmtree(base / "1")
    until(lambda: server.states("scale") == {1: "END"}, "version 1 went")
    with server.http() as http:
        answer = http.post("/scale:predict", json=ROWS)
        assert answer.status_code == 404
        assert answer.json() == {"error": "Servable not found for request: Latest(scale)"}
        install(versions["scale1"], base, 1)
        until(lambda: server.states("scale") == {1: "AVAILABLE"}, "version 1 is back")
        assert _served(http) == 1
    assert server.end() == 0


def test_specific_versions(start: Start, base: Path, versions: dict[str, Path]) -> None:
    install(versions["scale2"], base, 2)
    install(versions["scale3"], base, 3)
    server = start({"scale": base}, *QUICK, "--versions", "specific:1,2").wait_ready()
    assert server.states("scale") == {2: "AVAILABLE", 1: "AVAILABLE"}
    assert server.end() == 0


def test_the_ports_answer_before_tensorflow_is_there(start: Start, base: Path) -> None:
    server = start({"scale": base})
    notice = "isthmus savedmodel-server: stands in for TensorFlow Serving in development"
    with server.http() as http, server.channel() as channel:
        answer = http.get("/scale")
        assert answer.status_code == 503
        assert "starting" in answer.json()["error"]
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(predict_pb2.PredictRequest(), timeout=60)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert server.out.startswith(notice)
        assert server.end() == 0  # in the middle of the import


def _slow_over_rest(server: Server) -> float:
    with server.http() as http:
        return float(http.post("/scale:predict", json=SLOW).json()["predictions"][0])


def _slow_over_grpc(server: Server) -> float:
    message = predict_pb2.PredictRequest()
    message.model_spec.name, message.model_spec.signature_name = "scale", "slow"
    message.inputs["rounds"].CopyFrom(tf.make_tensor_proto(SLOW["instances"], tf.int32))
    with server.channel() as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        return float(stub.Predict(message, timeout=60).outputs["y"].float_val[0])


@pytest.mark.parametrize(
    ("number", "call"), [(signal.SIGTERM, _slow_over_rest), (signal.SIGINT, _slow_over_grpc)]
)
def test_a_signal_finishes_what_is_in_flight_and_exits_with_0(
    start: Start, base: Path, number: signal.Signals, call: Callable[[Server], float]
) -> None:
    server = start({"scale": base}, *QUICK).wait_ready()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(call, server)
        server.wait_busy()
        assert server.end(number) == 0
        assert answer.result(60) == 2.0
    assert "Traceback" not in server.err


def test_a_prediction_that_does_not_end_does_not_hold_the_exit(start: Start, base: Path) -> None:
    server = start({"scale": base}, *QUICK).wait_ready()
    with server.http() as http, ThreadPoolExecutor(1) as pool:
        endless = {"signature_name": "slow", "instances": [2**30]}
        answer = pool.submit(http.post, "/scale:predict", json=endless)
        server.wait_busy()
        assert server.end() == 0
        assert (
            isinstance(answer.exception(60), httpx.HTTPError) or answer.result().status_code >= 500
        )


@pytest.mark.parametrize("option", ["--rest", "--grpc"])
def test_a_taken_address_is_one_clear_line(start: Start, base: Path, option: str) -> None:
    # The second holder of the port shares it, which gRPC would by itself do in silence.
    with socket.create_server(("127.0.0.1", 0), reuse_port=option == "--grpc") as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ports = (address, "127.0.0.1:0") if option == "--rest" else ("127.0.0.1:0", address)
        server = start({"scale": base}, ports=ports)
        assert server.process.wait(60) == 1
    lines = server.err.splitlines()
    assert len(lines) == 1
    assert f"{option} {address}: " in lines[0]
    assert "choose another address" in lines[0]


def test_an_empty_model_folder_is_said_and_waited_for(
    start: Start, tmp_path: Path, versions: dict[str, Path]
) -> None:
    base = tmp_path / "scale"
    base.mkdir()
    server = start({"scale": base}, *QUICK).wait_ready()
    assert f"no numbered version folder in {base}" in server.err
    with server.http() as http:
        assert http.get("/scale").status_code == 404
        install(versions["scale1"], base, 1)
        until(lambda: http.get("/scale").status_code == 200, "the version shows")
        until(lambda: server.states("scale") == {1: "AVAILABLE"}, "the version serves")
    assert server.end() == 0
