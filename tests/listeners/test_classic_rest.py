"""TF Serving's REST API: forwarded in its own form, versions and labels resolved here."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support import (
    GatewayProcess,
    GrpcAnswer,
    GrpcUpstream,
    HttpUpstream,
    serving,
    sized,
    until,
)

BODY = b' {"signature_name":"serving_default",\n "instances":[[1.0,NaN,-Infinity,1e5]], "new":{}} '
LOWEST = {1: "AVAILABLE", 2: "AVAILABLE", 3: "AVAILABLE"}


@pytest.fixture(scope="module")
def gateway(
    upstream: HttpUpstream,
    second_upstream: HttpUpstream,
    grpc_upstream: GrpcUpstream,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[GatewayProcess]:
    upstream.versions = {"mnist": dict(LOWEST), "split-1": {1: "AVAILABLE"}, "x.y-z": LOWEST}
    second_upstream.versions = {"split-2": {2: "AVAILABLE"}}
    grpc_upstream.versions = {"binary": {1: "AVAILABLE"}}
    tfs = {"adapter": "tensorflow_serving"}
    own = {"rest": upstream.url, "headers": {"X-Backend": "own"}}
    models: dict[str, Any] = {
        "mnist": {
            **tfs,
            "backends": [own],
            "versions": "discover",
            "labels": {"stable": 2, "canary": 3, "old": 1, "lost": 9},
            "aliases": ["digits"],
        },
        "other-name": {**tfs, "served_name": "x.y-z", "backends": [own]},
        "split": {
            **tfs,
            "versions": {
                1: {"served_name": "split-1", "backends": [own]},
                2: {"served_name": "split-2", "backends": [{"rest": second_upstream.url}]},
            },
            "labels": {"stable": 1},
        },
        "binary": {**tfs, "backends": [{"grpc": grpc_upstream.address}], "versions": "discover"},
        "chat": {"adapter": "vllm", "served_name": "served", "backends": [upstream.url]},
    }
    with serving(tmp_path_factory.mktemp("rest"), models) as running:
        yield running


def up(number: int) -> str:
    return f"/v1/models/mnist/versions/{number}"


@pytest.mark.parametrize(
    ("path", "version"),
    [
        ("mnist:predict", 2),
        ("mnist/versions/1:predict", 1),
        ("mnist/versions/0003:predict", 3),
        ("mnist/labels/canary:predict", 3),
        ("mnist/labels/old:predict", 1),
        ("mnist/labels/latest:predict", 3),
        ("digits:predict", 2),
        ("mnist/VERSIONS/1:predict", 1),
        ("mnist/Labels/canary:predict", 3),
        ("mnist%3Apredict", 2),
        ("%6dnist%2Fversions%2f1:predict", 1),
        ("mnist/labels/%63anary:predict", 3),
    ],
)
def test_predict_is_forwarded_as_it_came(
    gateway: GatewayProcess, upstream: HttpUpstream, path: str, version: int
) -> None:
    said = b'{ "predictions" : [ NaN, 1.0 ],\n "extra":1 }'
    upstream.answer(sized(said))
    answer = gateway.http.post(f"/v1/models/{path}", BODY)
    assert (answer.status, answer.body) == (200, said)
    assert answer.headers["x-isthmus-model"] == f"mnist@{version}"
    assert upstream.only().body == BODY
    assert upstream.only().line == f"POST {up(version)}:predict"
    assert upstream.only().headers["x-backend"] == "own"


def test_the_routes_prefix_is_matched_without_regard_to_case(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    assert gateway.http.post("/V1/Models/mnist:predict", BODY).status == 200
    assert upstream.only().path == f"{up(2)}:predict"


@pytest.mark.parametrize(
    ("path", "arrives"),
    [
        ("mnist/metadata", f"{up(2)}/metadata"),
        ("mnist/versions/3/metadata", f"{up(3)}/metadata"),
        ("mnist/LABELS/old/metadata", f"{up(1)}/metadata"),
        ("mnist/labels/old/METADATA", up(1)),  # as TF Serving has it
        ("mnist", "/v1/models/mnist"),
        ("mnist/versions/1", up(1)),
        ("mnist/labels/canary", up(3)),
        ("other-name", "/v1/models/x.y-z"),
        ("other-name/metadata", "/v1/models/x.y-z/versions/3/metadata"),
    ],
)
def test_questions_about_a_model_are_forwarded(
    gateway: GatewayProcess, upstream: HttpUpstream, path: str, arrives: str
) -> None:
    upstream.answer(sized(b'{"as": "it came"}'))
    answer = gateway.http.get(f"/v1/models/{path}")
    assert answer.body == b'{"as": "it came"}'
    assert upstream.only().line == f"GET {arrives}"
    assert upstream.only().body == b""


def test_a_backends_own_error_passes_through(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    body = b'{ "error": "Failed to process element: 0" }'
    upstream.answer(sized(body, "400 Bad Request"))
    answer = gateway.http.post("/v1/models/mnist:predict", BODY)
    assert (answer.status, answer.body) == (400, body)


def test_the_status_of_a_model_on_several_backends_is_put_together(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    answer = gateway.http.get("/v1/models/split").json()
    ok = {"error_code": "OK", "error_message": ""}
    assert answer == {
        "model_version_status": [
            {"version": "2", "state": "AVAILABLE", "status": ok},
            {"version": "1", "state": "AVAILABLE", "status": ok},
        ]
    }
    assert upstream.requests == []
    gateway.http.get("/v1/models/split/versions/1")
    assert upstream.only().path == "/v1/models/split-1/versions/1"


def test_versions_come_and_go_while_running(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    def status(path: str) -> int:
        return gateway.http.post(f"/v1/models/{path}:predict", b'{"instances":[1]}').status

    missing = gateway.http.post("/v1/models/mnist/versions/4:predict", BODY)
    assert missing.status == 404
    assert "Versions of mnist: 1, 2, 3; labels:" in missing.json()["error"]
    upstream.versions["mnist"] = {**LOWEST, 4: "LOADING"}
    until(lambda: status("mnist/versions/4") == 503)
    assert gateway.http.post("/v1/models/mnist/labels/latest:predict", BODY).status == 200
    upstream.versions["mnist"] = {**LOWEST, 4: "AVAILABLE"}
    until(lambda: status("mnist/versions/4") == 200)
    upstream.reset()
    assert status("mnist/labels/latest") == 200
    assert upstream.only().path == f"{up(4)}:predict"
    upstream.versions["mnist"] = {**LOWEST, 4: "END"}
    until(lambda: status("mnist/versions/4") == 404)
    assert status("mnist/labels/latest") == 200
    upstream.versions["mnist"] = dict(LOWEST)


def test_a_label_whose_version_is_not_there_is_unavailable(gateway: GatewayProcess) -> None:
    answer = gateway.http.post("/v1/models/mnist/labels/lost:predict", BODY)
    assert answer.status == 503
    assert "mnist@lost is version 9" in answer.json()["error"]


def test_examples_need_no_signatures(gateway: GatewayProcess, grpc_upstream: GrpcUpstream) -> None:
    answer = grpc_upstream.wire.RegressionResponse()
    answer.result.regressions.add(value=0.5)
    grpc_upstream.answer(GrpcAnswer(answer.SerializeToString()))
    got = gateway.http.post("/v1/models/binary:regress", b'{"examples":[{}]}')
    assert (got.status, got.body) == (200, b'{"results":[0.5]}')


def test_without_signatures_there_is_no_translation_yet(gateway: GatewayProcess) -> None:
    answer = gateway.http.post("/v1/models/binary:predict", b'{"instances":[1]}')
    assert answer.status == 503
    assert "signatures are not known yet" in answer.json()["error"]


def test_an_llm_has_no_predict(gateway: GatewayProcess, upstream: HttpUpstream) -> None:
    answer = gateway.http.post("/v1/models/chat:predict", BODY)
    assert answer.status == 400
    assert "chat is an LLM and has no predict" in answer.json()["error"]
    assert upstream.requests == []


def test_a_classic_model_has_no_chat(gateway: GatewayProcess, upstream: HttpUpstream) -> None:
    answer = gateway.http.post("/v1/chat/completions", {"model": "mnist"})
    assert answer.status == 400
    assert "mnist is a classic model and has no chat" in answer.json()["error"]["message"]
    assert upstream.requests == []


def test_a_body_need_not_be_strict_json_where_tf_serving_is_not(
    gateway: GatewayProcess, upstream: HttpUpstream
) -> None:
    body = b'{"instances": [NaN, Infinity, -Inf], "s": "a NaN"}'
    assert gateway.http.post("/v1/models/mnist:predict", body).status == 200
    assert upstream.only().body == body
    upstream.reset()
    assert gateway.http.post("/v1/models/mnist:predict", body + b' "and more').status == 200
    assert upstream.only().body.rstrip() == body  # what was not looked at does not travel
    refused = gateway.http.post("/v1/models/mnist:predict", b'{"instances": [NaN, nan]}')
    assert refused.status == 400
    assert json.loads(refused.body)["error"].startswith("JSON Parse error: Invalid value.")
