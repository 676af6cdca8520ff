"""A TensorFlow Serving user's file of models: labels, policies, reloads by call and by polling."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import text_format
from real.savedmodel.support import Server, Start, install, until
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

from adapters.savedmodel.model_config import from_message, read_file
from adapters.savedmodel.status import Code, ServingError
from adapters.savedmodel.versions import Policy

pytestmark = pytest.mark.real

ROWS = {"instances": [[1, 2, 3]]}
EARLY = "--allow-version-labels-for-unavailable-models"
ALL = "model_version_policy { all {} }"


def model(base: Path, *more: str, name: str = "", platform: str = "tensorflow") -> str:
    return (
        f'config {{ name: "{name or base.name}" base_path: "{base}" '
        f'model_platform: "{platform}" {" ".join(more)} }}'
    )


def label(name: str, version: int) -> str:
    return f'version_labels {{ key: "{name}" value: {version} }}'


def config(*models: str) -> str:
    return f"# as TensorFlow Serving takes it\nmodel_config_list {{ {' '.join(models)} }}\n"


def served(http: httpx.Client, path: str) -> float:
    answer = http.post(f"/{path}:predict", json=ROWS)
    assert answer.status_code == 200, answer.text
    return float(answer.json()["predictions"][0][0])


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", Policy(latest=1)),
        ("model_version_policy { }", Policy(latest=1)),
        ("model_version_policy { latest { } }", Policy(latest=1)),
        ("model_version_policy: { latest: { num_versions: 3 } }", Policy(latest=3)),
        (ALL, Policy()),
        (
            "model_version_policy { specific { versions: 4 versions: 2 } }",
            Policy(chosen=frozenset({2, 4})),
        ),
        ("model_version_policy { specific { } }", Policy(chosen=frozenset())),
    ],
)
def test_policies(tmp_path: Path, text: str, policy: Policy) -> None:
    file = tmp_path / "models.config"
    file.write_text(config(model(tmp_path / "a", text, label("x", 3)), model(Path("/m"), name="b")))
    first, second = read_file(file)
    assert (first.name, first.base, first.policy) == ("a", tmp_path / "a", policy)
    assert first.labels == {"x": 3}
    assert (second.name, second.base, second.labels) == ("b", Path("/m"), {})


def test_other_forms_of_the_same(tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text('model_config_list: { config: [ { name: "a", base_path: "file:///m/a", '
                    'model_type: TENSORFLOW, logging_config { log_collector_config { type: "x" } } '
                    "} ] }")  # fmt: skip
    assert [(source.name, source.base) for source in read_file(file)] == [("a", Path("/m/a"))]
    file.write_text("")
    assert read_file(file) == ()
    with pytest.raises(ServingError, match="Cannot transition to requested config") as caught:
        read_file(file, frozenset({"a"}))
    assert caught.value.code is Code.FAILED_PRECONDITION


M = Path("/m")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (config(model(M), model(M)), "Illegal to list model m multiple times in config list"),
        (
            config(model(Path("rel/m"))),
            r"Expected model m to have an absolute path or URI; got base_path\(\)=rel/m",
        ),
        (config('config { name: "m" model_platform: "tensorflow" }'), r"got base_path\(\)=$"),
        (config('config { name: "m" base_path: "gs://b/m" }'), "reads local folders only"),
        (config(model(M, platform="")), "Illegal setting neither ModelServerConfig::model_type"),
        (config(model(M, "model_type: TENSORFLOW")), "Illegal setting both ModelServerConfig"),
        (
            config('config { name: "m" base_path: "/m" model_type: OTHER }'),
            "model_type choice 2 not supported",
        ),
        (config(model(M, platform="jax")), "Model m requests unsupported platform jax"),
        ("custom_model_config { }", "Only ModelConfigList is currently supported"),
        ("model_config_list {", "Invalid protobuf file: '.*models.config': 1:"),
        ("model_config_list { config { nome: 1 } }", "Invalid protobuf file"),
        ("\xff\xfe", "Invalid protobuf file"),
    ],
)
def test_what_is_refused_in_a_file(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "models.config"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ServingError, match=words) as caught:
        read_file(file)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_platform_can_not_change() -> None:
    message = model_server_config_pb2.ModelServerConfig()
    text_format.Parse(config(model(M, platform="jax")), message)
    words = "For model m platform was tensorflow and new platform requested is jax"
    with pytest.raises(ServingError, match=words):
        from_message(message, frozenset({"m"}))


def test_starts_that_are_refused(start: Start, tmp_path: Path, versions: dict[str, Path]) -> None:
    base = tmp_path / "m"
    install(versions["scale1"], base, 1)
    file = tmp_path / "models.config"
    file.write_text(config(model(base, label("stable", 1))))
    cold = start({}, "--model-config-file", str(file))
    absent = start({}, "--model_config_file=" + str(tmp_path / "absent"))
    for server in (cold, absent):
        assert server.process.wait(60) == 1
        assert server.err.count("\n") == 1
    assert (
        "Failed to start server. Error: FAILED_PRECONDITION: Request to assign label to version 1 "
        "of model m, which is not currently available for inference" in cold.err
    )
    assert EARLY in cold.err
    assert "absent: No such file" in absent.err


@pytest.fixture(scope="module")
def folders(versions: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`scale` (versions 1, 2 and 3), `judge` (1), `bad` (5, rubbish), `none`: no versions."""
    root = tmp_path_factory.mktemp("folders")
    for number in (1, 2, 3):
        install(versions[f"scale{number}"], root / "scale", number)
    install(versions["judge"], root / "judge", 1)
    (root / "none").mkdir()
    (root / "bad" / "5").mkdir(parents=True)
    (root / "bad" / "5" / "saved_model.pb").write_bytes(b"\x00rubbish")
    return {name: root / name for name in ("scale", "judge", "bad", "none")}


@pytest.fixture(scope="module")
def file(folders: dict[str, Path]) -> Path:
    text = config(
        model(folders["scale"], ALL, label("stable", 1), label("canary", 2)),
        model(folders["judge"]),
    )
    path = folders["scale"].parent / "models.config"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def managed(start: Start, file: Path) -> Server:
    """A server whose configuration the tests change by call."""
    arguments = ("--model_config_file", str(file), "--allow_version_labels_for_unavailable_models",
                 "--poll", "0.05")  # fmt: skip
    return start({}, *arguments).wait_ready()


Reload = Callable[..., Any]


@pytest.fixture
def reload(managed: Server, file: Path) -> Iterator[Reload]:
    """Sends a configuration; the one of the file is back in force after the test."""
    with managed.channel() as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)

        def send(*models: str, timeout: float = 60) -> Any:
            request = model_management_pb2.ReloadConfigRequest(metric_names=["/some/counter"])
            text_format.Parse(config(*models), request.config)
            return stub.HandleReloadConfigRequest(request, timeout=timeout)

        yield send
        send()  # labels that are gone are free again
        request = model_management_pb2.ReloadConfigRequest()
        text_format.Parse(file.read_text(), request.config)
        stub.HandleReloadConfigRequest(request, timeout=60)
        back = {3: "AVAILABLE", 2: "AVAILABLE", 1: "AVAILABLE"}
        until(lambda: managed.states("scale") == back, "all versions are back")


def refused(call: Callable[[], Any], code: str, words: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() is grpc.StatusCode[code], caught.value.details()
    assert words in caught.value.details()


def test_labels_and_their_status(managed: Server) -> None:
    with managed.http() as http, managed.channel() as channel:
        assert [served(http, f"scale/labels/{name}") for name in ("stable", "canary")] == [2, 3]
        assert served(http, "scale") == 4.0
        spec = http.get("/scale/labels/stable/metadata").json()["model_spec"]
        assert spec["version"] == "1"
        rows = http.get("/scale/labels/stable").json()["model_version_status"]
        assert [row["version"] for row in rows] == ["3", "2", "1"]  # the label is not looked at
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name, request.model_spec.version_label = "scale", "stable"
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        rows = stub.GetModelStatus(request, timeout=60).model_version_status
        assert [row.version for row in rows] == [3, 2, 1]
        answer = http.post("/scale/labels/new:predict", json=ROWS)
        assert answer.status_code == 400
        assert answer.json() == {"error": "Unrecognized servable version label: new"}


def test_a_reload_replaces_the_whole_configuration(
    managed: Server, reload: Reload, folders: dict[str, Path]
) -> None:
    one = "model_version_policy { specific { versions: 1 } }"
    reply = reload(
        model(folders["scale"], one, label("canary", 1)), model(folders["scale"], name="again")
    )
    assert reply.status.error_code == 0
    assert [(metric.name, metric.int64_value_increase) for metric in reply.metric] == [
        ("/some/counter", 0)
    ]
    with managed.http() as http:
        assert served(http, "again") == 4.0  # new, and waited for
        answer = http.post("/judge:classify", json={"examples": [{"weight": 1.0}]})
        assert answer.status_code == 404
        assert answer.json() == {"error": "Servable not found for request: Latest(judge)"}
        until(lambda: managed.states("judge") == {1: "END"}, "the model left out went")
        ended = {3: "END", 2: "END", 1: "AVAILABLE"}
        until(lambda: managed.states("scale") == ended, "the policy changed")
        assert served(http, "scale/labels/canary") == 2.0
        assert http.post("/scale/labels/stable:predict", json=ROWS).status_code == 400


def test_reloads_that_are_refused_change_nothing(
    managed: Server, reload: Reload, folders: dict[str, Path]
) -> None:
    scale = folders["scale"]
    for models, code, words in (
        ([model(scale), model(scale)], "INVALID_ARGUMENT", "Illegal to list model scale multiple"),
        ([model(Path("scale"))], "INVALID_ARGUMENT", "got base_path()=scale"),
        ([model(scale, platform="jax")], "INVALID_ARGUMENT", "Illegal to change a model's platfo"),
        ([model(M, platform="jax")], "INVALID_ARGUMENT", "Model m requests unsupported platform j"),
        (
            [model(scale, label("stable", 9))],
            "FAILED_PRECONDITION",
            "Request to assign label to version 9 of model scale, which is not currently available",
        ),
    ):
        refused(lambda models=models: reload(*models), code, words)  # type: ignore[misc]
    with managed.http() as http:
        assert served(http, "scale/labels/stable") == 2.0
        assert managed.states("judge") == {1: "AVAILABLE"}
    with managed.channel() as channel:
        call = model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest
        empty = model_management_pb2.ReloadConfigRequest()
        words = "ServerModelConfig type not supported by HandleReloadConfigRequest."
        refused(lambda: call(empty, timeout=60), "INVALID_ARGUMENT", words)


def test_a_new_model_that_fails_or_has_no_version(
    managed: Server, reload: Reload, folders: dict[str, Path], file: Path
) -> None:
    kept = model(folders["scale"], ALL)
    words = "1 model(s) did not become available: {{{name: bad version: 5} due to error: "
    refused(lambda: reload(kept, model(folders["bad"])), "UNKNOWN", words)
    with managed.http() as http:
        assert served(http, "scale") == 4.0
        assert managed.states("bad") == {5: "END"}
    with ThreadPoolExecutor(1) as pool:  # waits for a version, and goes on without the caller
        waiting = pool.submit(reload, kept, model(folders["none"]), timeout=1.0)
        refused(lambda: waiting.result(60), "DEADLINE_EXCEEDED", "")


def test_the_file_is_followed(
    start: Start, tmp_path: Path, folders: dict[str, Path], managed: Server
) -> None:
    file = tmp_path / "models.config"
    file.write_text(config(model(folders["scale"], ALL)))
    server = start({}, "--model-config-file", str(file), "--poll", "0.05",
                   "--model-config-file-poll-wait-seconds", "0.05").wait_ready()  # fmt: skip

    def write(text: str) -> None:
        (tmp_path / "new").write_text(text)
        (tmp_path / "new").rename(file)

    with server.http() as http:
        write(config(model(folders["scale"], ALL, label("stable", 2)), model(folders["judge"])))
        until(lambda: http.get("/judge").status_code == 200, "the new model shows")
        assert served(http, "scale/labels/stable") == 3.0
        for broken in ("model_config_list {", "", config(model(folders["judge"], platform="x"))):
            write(broken)
            lines = server.err.count("is not in force")
            until(lambda n=lines: server.err.count("is not in force") > n, "it is told")  # type: ignore[misc]
            assert served(http, "scale/labels/stable") == 3.0
        write(config(model(folders["judge"])))
        until(lambda: server.states("scale") == {3: "END", 2: "END", 1: "END"}, "scale went")
    assert server.end() == 0
