"""LoRA adapters through the gateway: found, called, listed, loaded and unloaded."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import (
    Answered,
    GatewayProcess,
    HttpUpstream,
    digest,
    free_port,
    serving,
    sized,
    until,
)

COMPLETIONS = "/v1/completions"
ADAPTERS = "/api/models/chat/adapters"
KEYS = {"all": ["*"], "base": ["chat"], "sql": ["sql*"]}


@pytest.fixture(scope="module")
def gateway(
    upstream: HttpUpstream,
    second_upstream: HttpUpstream,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[GatewayProcess]:
    backends = [{"url": upstream.url, "api_key": "own"}, second_upstream.url]
    third = f"http://127.0.0.1:{free_port()}"
    models = {
        "chat": {"adapter": "vllm", "served_name": "served", "backends": backends},
        "taken": {"adapter": "vllm", "backends": [third], "aliases": ["alias"]},
        "digits": {"adapter": "tensorflow_serving", "backends": [{"rest": third}]},
    }
    keys = [{"name": n, "sha256": digest(n), "models": m} for n, m in KEYS.items()]
    folder = tmp_path_factory.mktemp("gateway")
    with serving(folder, models, auth={"keys": keys}) as running:
        yield running


@pytest.fixture(autouse=True)
def _none_loaded(
    gateway: GatewayProcess, upstream: HttpUpstream, second_upstream: HttpUpstream
) -> None:
    for one in (upstream, second_upstream):
        one.names, one.loras, one.runtime_loras, one.probe_script = ["served"], {}, True, None
    until(lambda: listed(gateway) == {"chat", "digits", "taken", "alias"}, "no adapter is left")
    upstream.reset()
    second_upstream.reset()


def listed(gateway: GatewayProcess, key: str = "all") -> set[str]:
    answer = gateway.http.get("/v1/models", {"x-api-key": key})
    return {card["id"] for card in answer.json()["data"]}


def ask(gateway: GatewayProcess, model: str, key: str = "all") -> Answered:
    return gateway.http.post(COMPLETIONS, {"model": model, "prompt": "x"}, {"x-api-key": key})


def load(gateway: GatewayProcess, name: str, path: str = "/a/sql", **more: Any) -> Answered:
    return gateway.listener("admin").post(ADAPTERS, {"name": name, "path": path, **more})


def unload(gateway: GatewayProcess, name: str) -> Answered:
    return gateway.listener("admin").ask("DELETE", f"{ADAPTERS}/{name}")


def isthmus(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("isthmus")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def test_an_adapter_that_a_backend_holds_is_found_and_called_there_alone(
    gateway: GatewayProcess, upstream: HttpUpstream, second_upstream: HttpUpstream
) -> None:
    second_upstream.loras = {"sql": "/a/sql"}
    until(lambda: "sql" in listed(gateway), "the adapter is listed")
    for _ in range(8):
        answer = ask(gateway, "sql")
        assert (answer.status, answer.headers["x-isthmus-model"]) == (200, "sql@1")
    assert not upstream.requests
    assert [r.json()["model"] for r in second_upstream.requests] == ["sql"] * 8  # type: ignore[index]


def test_its_card_names_its_parent_and_its_root(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    upstream.loras = {"sql": "/a/sql"}
    until(lambda: "sql" in listed(gateway), "the adapter is listed")
    for path in ("/v1/models/sql", "/v1/models"):
        card = gateway.http.get(path, {"x-api-key": "all"}).json()
        if path == "/v1/models":
            card = next(one for one in card["data"] if one["id"] == "sql")
        assert (card["parent"], card["root"]) == ("chat", "/a/sql")


def test_keys_name_the_adapter_itself(gateway: GatewayProcess) -> None:
    assert load(gateway, "sql").status == 200
    assert ask(gateway, "sql", "sql").status == 200
    assert ask(gateway, "chat", "sql").status == 403
    assert ask(gateway, "sql", "base").status == 403
    assert listed(gateway, "sql") == {"sql"}
    assert listed(gateway, "base") == {"chat"}


def test_a_loaded_adapter_is_there_for_the_next_request(
    gateway: GatewayProcess, upstream: HttpUpstream, second_upstream: HttpUpstream
) -> None:
    answer = load(gateway, "team/sql:1")
    assert answer.status == 200
    assert answer.json()["ok"]
    words = "Success: LoRA adapter 'team/sql:1' added successfully."
    assert [b["detail"] for b in answer.json()["backends"]] == [words] * 2
    assert ask(gateway, "team/sql:1").status == 200
    assert upstream.loras == second_upstream.loras == {"team/sql:1": "/a/sql"}
    asked = [r for r in upstream.probes if r.line == "POST /v1/load_lora_adapter"]
    assert asked[0].json() == {"lora_name": "team/sql:1", "lora_path": "/a/sql"}
    assert asked[0].headers["authorization"] == "Bearer own"
    assert gateway.listener("admin").get(ADAPTERS).json() == [
        {
            "name": "team/sql:1",
            "path": "/a/sql",
            "versions": {"1": [one["backend"] for one in answer.json()["backends"]]},
        }
    ]
    assert unload(gateway, "team/sql:1").status == 200
    assert ask(gateway, "team/sql:1").status == 404
    assert not upstream.loras
    assert not second_upstream.loras


def test_a_change_that_failed_in_part_is_asked_for_again(
    gateway: GatewayProcess, upstream: HttpUpstream, second_upstream: HttpUpstream
) -> None:
    second_upstream.runtime_loras = False
    answer = load(gateway, "sql")
    assert answer.status == 502
    first, second = answer.json()["backends"]
    assert (first["ok"], second["ok"]) == (True, False)
    assert "--enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True" in second["detail"]
    assert ask(gateway, "sql").status == 200
    second_upstream.runtime_loras = True
    answer = load(gateway, "sql")
    assert answer.status == 200
    assert [one["detail"].split()[0] for one in answer.json()["backends"]] == [
        "nothing",
        "Success:",
    ]
    assert upstream.loras == second_upstream.loras


def test_a_backends_refusal_comes_in_its_own_words(gateway: GatewayProcess) -> None:
    answer = load(gateway, "sql", "/nowhere/sql")
    assert answer.status == 502
    for one in answer.json()["backends"]:
        assert one["detail"] == "Loading lora sql failed: No adapter found for /nowhere/sql"
    assert "sql" not in listed(gateway)


def test_another_path_under_a_loaded_name_is_refused(gateway: GatewayProcess) -> None:
    assert load(gateway, "sql").status == 200
    answer = load(gateway, "sql", "/a/other")
    assert answer.status == 502
    assert "has already been loaded" in answer.json()["backends"][0]["detail"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "a b", "path": "/a"}, 400),
        ({"name": "../a", "path": "/a"}, 400),
        ({"name": "a@1", "path": "/a"}, 400),
        ({"name": "x" * 129, "path": "/a"}, 422),
        ({"name": "a", "path": "/a\nb"}, 400),
        ({"name": "a", "path": "x" * 1025}, 422),
        ({"name": "a", "path": ""}, 422),
        ({"name": "a"}, 422),
        ({"name": "a", "path": "/a", "more": 1}, 422),
        ({"name": "a", "path": "/a", "version": 7}, 404),
        ({"name": "a", "path": "/a", "version": "1"}, 422),
        ({"name": "chat", "path": "/a"}, 409),
        ({"name": "alias", "path": "/a"}, 409),
        (b"{", 422),
        (b"[]", 422),
        (b" " * (2**20 + 1), 413),
    ],
)
def test_what_no_adapter_may_be(
    gateway: GatewayProcess, upstream: HttpUpstream, body: Any, status: int
) -> None:
    answer = gateway.listener("admin").post(ADAPTERS, body)
    assert answer.status == status, answer.text
    assert "detail" in answer.json()
    assert not upstream.loras


@pytest.mark.parametrize(("model", "status"), [("nobody", 404), ("digits", 501)])
def test_models_that_take_no_adapters(gateway: GatewayProcess, model: str, status: int) -> None:
    admin = gateway.listener("admin")
    body = {"name": "a", "path": "/a"}
    assert admin.post(f"/api/models/{model}/adapters", body).status == status
    assert admin.get(f"/api/models/{model}/adapters").status == status
    assert admin.ask("DELETE", f"/api/models/{model}/adapters/a").status == status


def test_an_adapter_has_no_adapters(gateway: GatewayProcess) -> None:
    assert load(gateway, "sql").status == 200
    answer = gateway.listener("admin").get("/api/models/sql/adapters")
    assert (answer.status, answer.json()["detail"]) == (
        501,
        "sql is a LoRA adapter itself, of chat",
    )


def test_unloading_what_is_not_there(gateway: GatewayProcess) -> None:
    answer = unload(gateway, "sql")
    assert (answer.status, answer.json()["detail"]) == (404, "chat has no LoRA adapter 'sql'")


def test_a_configured_name_wins_and_is_told_once(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    upstream.loras = {"taken": "/a", "seen": "/b"}
    until(lambda: "seen" in listed(gateway), "the other adapter is listed")
    upstream.loras["more"] = "/c"
    until(lambda: "more" in listed(gateway), "the world was built again")
    assert gateway.log().count("its LoRA adapter 'taken' is not served by that name") == 1
    assert gateway.http.get("/v1/models/taken", {"x-api-key": "all"}).json()["parent"] is None


def test_one_whose_backends_are_down_is_a_503_until_they_are_back(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    upstream.loras = {"sql": "/a/sql"}
    until(lambda: "sql" in listed(gateway), "the adapter is listed")
    upstream.probe_script = sized(b"", "503 Service Unavailable")
    until(lambda: ask(gateway, "sql").status == 503, "its backend is down")
    upstream.loras, upstream.probe_script = {}, None
    until(lambda: ask(gateway, "sql").status == 404, "its backend is back without it")


def test_the_command_line_shows_loads_and_unloads(gateway: GatewayProcess) -> None:
    admin = ("--admin", f"127.0.0.1:{gateway.port('admin')}")
    done = isthmus("adapters", "chat", "load", "sql", "/a/sql", *admin)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Success: LoRA adapter 'sql' added successfully.") == 2
    shown = isthmus("adapters", "chat", *admin).stdout.splitlines()
    assert [line.split()[:3] for line in shown] == [
        ["ADAPTER", "PATH", "VERSION"],
        ["sql", "/a/sql", "1"],
        ["sql", "/a/sql", "1"],
    ]
    assert "sql is a LoRA adapter of chat" in isthmus("models", *admin).stdout
    assert isthmus("adapters", "chat", "unload", "sql", *admin).returncode == 0
    assert isthmus("adapters", "chat", "unload", "sql", *admin).stderr == (
        "answered 404: chat has no LoRA adapter 'sql'\n"
    )
    failed = isthmus("adapters", "chat", "load", "sql", "/nowhere", *admin)
    assert (failed.returncode, failed.stdout.count("failed")) == (1, 4)
    assert isthmus("adapters", "chat", "load", "sql", *admin).returncode == 1
    assert isthmus("adapters", "chat", "frob", *admin).returncode == 2
