"""`model_config_file`: what a server was started with, in its own text form."""

from pathlib import Path

import pytest
from support.configuring import loaded, problems

from gateway.protocols import model_config, wire

WIRE = wire.load()


def text(file: object, address: str = "grpc: a:1", adapter: str = "tensorflow_serving") -> str:
    return (
        f"models:\n  m:\n    adapter: {adapter}\n    backends:\n"
        f"      - {{{address},\n         model_config_file: {file}}}\n"
    )


def test_a_servers_own_file(tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text(
        "# a comment\n"
        'model_config_list: { config: [ { name: "b", base_path: "/m/b", model_type: TENSORFLOW,\n'
        "  model_version_policy { specific { versions: 4 versions: 2 } },\n"
        '  logging_config { log_collector_config { type: "x" } } },\n'
        '  { name: "a" base_path: "gs://m/a" version_labels { key: "stable" value: 4 } } ] }'
    )
    (model,) = loaded(tmp_path, text(file)).models
    found = model_config.entries(WIRE, model.backends[0].model_config)
    assert list(found) == ["b", "a"]
    config = WIRE.ModelServerConfig()
    config.model_config_list.config.add().MergeFromString(found["a"])
    (entry,) = config.model_config_list.config
    assert (entry.base_path, dict(entry.version_labels)) == ("gs://m/a", {"stable": 4})


def test_an_empty_file_is_an_empty_server(tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text("")
    (model,) = loaded(tmp_path, text(file)).models
    assert model.backends[0].model_config == b""


def listed(more: str = "") -> bytes:
    return f'model_config_list {{ config {{ name: "a" base_path: "/a" }} {more} }}'.encode()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"model_config_list {", "is not a ModelServerConfig in text form: 1:"),
        (b'model_config_list { config { nome: "a" } }', "is not a ModelServerConfig in text form:"),
        (b"custom_model_config { }", "has no model_config_list; other kinds"),
        (listed('config { name: "a" base_path: "/b" }'), "lists the model 'a' twi"),
        (listed('config { name: "b" }'), "has no name or no base_path in its conf"),
        (listed('config { base_path: "/b" }'), "base_path in its config number 2"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"#" * (2**20 + 1), "is larger than 1048576 bytes"),
    ],
)
def test_a_bad_file_is_one_problem(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "models.config"
    file.write_bytes(content)
    (problem,) = problems(tmp_path, text(file))
    assert problem.startswith("6: models.m.backends.0.model_config_file: ")
    assert words in problem


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, text(tmp_path / "absent"))
    where = "6: models.m.backends.0.model_config_file"
    assert problem == f"{where}: can't be read: No such file or directory"


@pytest.mark.parametrize(
    ("address", "adapter"),
    [("rest: http://a:1", "tensorflow_serving"), ("url: http://a:1", "vllm"),
     ("launch: {command: [x]}", "tensorflow_serving")],
)  # fmt: skip
def test_it_is_for_servers_with_a_grpc_address(tmp_path: Path, address: str, adapter: str) -> None:
    file = tmp_path / "models.config"
    file.write_text("")
    (problem,) = problems(tmp_path, text(file, address, adapter))
    assert "is for reloads, which go to a gRPC address; give it one" in problem


def test_a_launched_server_may_have_one(tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_bytes(listed())
    (model,) = loaded(tmp_path, text(file, "launch: {command: [x], grpc_port: auto}")).models
    assert list(model_config.entries(WIRE, model.backends[0].model_config)) == ["a"]
