"""The road as a whole: both kinds of model in one place, the demo, and nothing left behind."""

import os
import signal
import subprocess
from pathlib import Path

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc
from real.road import END_SECONDS, ISTHMUS, Road, alive, descendants, wait_for


def test_one_list_of_all_models(road: Road) -> None:
    cards = httpx.get(f"{road.gateway.openai}/v1/models").json()["data"]
    assert [(card["id"], card["owned_by"]) for card in cards] == [
        ("chat", "vllm"),
        ("digits", "tensorflow_serving"),
    ]


def test_health_by_model(road: Road) -> None:
    for name in ("chat", "digits"):
        assert httpx.get(f"{road.gateway.openai}/readyz/{name}").status_code == 200
    with grpc.insecure_channel(road.gateway.tfs_grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "chat", "digits", "tensorflow.serving.PredictionService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_the_gateway_holds_no_tensorflow(road: Road) -> None:
    mapped = Path(f"/proc/{road.process.pid}/maps").read_text()
    assert "grpc" in mapped  # the look does see what is loaded
    assert "tensorflow" not in mapped


def test_models_on_the_command_line(road: Road) -> None:
    shown = subprocess.run(
        [ISTHMUS, "models", "--admin", road.admin], capture_output=True, text=True, check=True
    )
    for word in ("chat", "digits", "stable", "canary", "AVAILABLE"):
        assert word in shown.stdout


def test_the_demo_shows_right_answers_and_ends(tmp_path: Path) -> None:
    with Road(tmp_path, "demo", "--check") as demo:
        everything: set[int] = set()

        def ended() -> bool:
            everything.update(descendants(demo.process.pid))
            return demo.process.poll() is not None

        wait_for(ended, 300, "the demo to end")
        output = demo.log.read_text()
        assert demo.process.returncode == 0, output
        assert output.count("[ok   ]") == 7
        assert "WRONG" not in output
    assert not any(alive(pid) for pid in everything)


def test_a_gateway_killed_at_once_leaves_no_process_behind(tmp_path: Path) -> None:
    with Road(tmp_path) as road:
        road.wait_ready()
        below = descendants(road.process.pid)
        names = [Path(f"/proc/{pid}/comm").read_text().strip() for pid in below]
        assert "VLLM::EngineCor" in names, names  # the one that is usually left behind
        os.kill(road.process.pid, signal.SIGKILL)
        road.process.wait()
        wait_for(lambda: not any(map(alive, below)), END_SECONDS, "all that it launched to end")
