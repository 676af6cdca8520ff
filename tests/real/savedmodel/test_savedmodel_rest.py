"""TensorFlow Serving's REST contract, over real sockets against the real server."""

import base64
import json
import math
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.real

ROW = {"a": [1.5, 2.0], "b": 2**53 + 1, "c": "x", "flag": True}


def predict(http: httpx.Client, path: str, body: Any) -> Any:
    answer = http.post(
        f"/{path}:predict", content=body if isinstance(body, bytes) else json.dumps(body)
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def refused(http: httpx.Client, path: str, body: Any, status: int, words: str) -> None:
    answer = http.post(
        f"/{path}:predict", content=body if isinstance(body, bytes) else json.dumps(body)
    )
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]


def test_status_of_all_versions_and_of_one(http: httpx.Client) -> None:
    rows = http.get("/scale").json()
    ok = {"error_code": "OK", "error_message": ""}
    assert rows == {
        "model_version_status": [
            {"version": "2", "state": "AVAILABLE", "status": ok},
            {"version": "1", "state": "AVAILABLE", "status": ok},
        ]
    }
    one = http.get("/scale/versions/1").json()
    assert one == {"model_version_status": rows["model_version_status"][1:]}


def test_metadata(http: httpx.Client) -> None:
    reply = http.get("/scale/versions/1/metadata").json()
    assert reply["model_spec"] == {"name": "scale", "signature_name": "", "version": "1"}
    signature = reply["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT"
    shape = signature["inputs"]["x"]["tensor_shape"]
    assert shape == {
        "dim": [{"size": "-1", "name": ""}, {"size": "3", "name": ""}],
        "unknown_rank": False,
    }
    assert http.get("/scale/metadata").json()["model_spec"]["version"] == "2"


def test_rows_go_to_the_highest_version_and_to_the_one_named(http: httpx.Client) -> None:
    body = {"instances": [[1, 2, 3], [0.5, 0, -1]]}
    assert predict(http, "scale", body) == {"predictions": [[3.0, 6.0, 9.0], [1.5, 0.0, -3.0]]}
    assert predict(http, "scale/versions/1", body) == {
        "predictions": [[2.0, 4.0, 6.0], [1.0, 0.0, -2.0]]
    }


def test_columns(http: httpx.Client) -> None:
    assert predict(http, "scale", {"inputs": [[1, 2, 3]]}) == {"outputs": [[3.0, 6.0, 9.0]]}
    assert predict(http, "scale", {"inputs": {"x": [[1, 2, 3]], "more": 1}}) == {
        "outputs": [[3.0, 6.0, 9.0]]
    }


def test_a_row_object_for_one_input(http: httpx.Client) -> None:
    assert predict(http, "scale", {"instances": [{"x": [1, 2, 3]}]}) == {
        "predictions": [[3.0, 6.0, 9.0]]
    }


def test_whole_floats_keep_their_point_and_short_floats_stay_short(http: httpx.Client) -> None:
    answer = http.post(
        "/zoo:predict", json={"signature_name": "single", "instances": [1, 0.1, 1e-20, 16777216]}
    )
    assert answer.text == '{"predictions":[1.0,0.1,1e-20,16777216.0]}'


def test_not_finite_numbers_are_read_and_written(http: httpx.Client) -> None:
    body = b'{"signature_name": "single", "instances": [NaN, Infinity, -Infinity, 0.1, 1e39]}'
    answer = http.post("/zoo:predict", content=body)
    assert answer.text == '{"predictions":[NaN,Infinity,-Infinity,0.1,Infinity]}'


def test_several_inputs_and_outputs_in_rows(http: httpx.Client) -> None:
    reply = predict(http, "zoo", {"instances": [ROW, ROW | {"c": "日本", "flag": False}]})
    assert reply["predictions"] == [
        {
            "total": 3.5,
            "next": 2**53 + 2,
            "text": "x!",
            "raw_bytes": {"b64": "eA=="},
            "negated": False,
        },
        {
            "total": 3.5,
            "next": 2**53 + 2,
            "text": "日本!",
            "raw_bytes": {"b64": base64.b64encode("日本".encode()).decode()},
            "negated": True,
        },
    ]


def test_several_inputs_and_outputs_in_columns(http: httpx.Client) -> None:
    columns = {
        "a": [[1, 2], [3, 4]],
        "b": [1, -5],
        "c": ["p", {"b64": "AAE="}],
        "flag": [True, False],
    }
    reply = predict(http, "zoo", {"inputs": columns | {"ignored": 1}})["outputs"]
    assert reply["total"] == [3.0, 7.0]
    assert reply["next"] == [2, -4]
    assert reply["raw_bytes"] == [{"b64": "cA=="}, {"b64": "AAE="}]


def test_base64_rows(http: httpx.Client) -> None:
    body = {
        "signature_name": "text",
        "instances": [{"b64": "aGVsbG8"}, "plain", {"b64": " aGV\nsbG8= "}],
    }
    assert predict(http, "zoo", body) == {"predictions": ["hello", "plain", "hello"]}


def test_strings_keep_their_zero_bytes(http: httpx.Client) -> None:
    body = {"signature_name": "text", "instances": [{"b64": base64.b64encode(b"a\0\0").decode()}]}
    assert predict(http, "zoo", body) == {"predictions": ["a\0\0"]}


INTEGERS = {
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-32768, 32767),
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
}


def test_integers_are_exact_to_their_bounds(http: httpx.Client) -> None:
    columns = {name: list(bounds) for name, bounds in INTEGERS.items()}
    reply = predict(http, "zoo", {"signature_name": "integers", "inputs": columns})
    assert reply["outputs"] == {f"{name}_out": list(bounds) for name, bounds in INTEGERS.items()}


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize(
    "value", [1.0, 1e3, True, "1", None, 2**64, -(2**63) - 1, [1], {"b64": "MQ=="}]
)
def test_what_is_no_integer_of_the_type_is_refused(
    http: httpx.Client, name: str, value: object
) -> None:
    columns: dict[str, list[object]] = {other: [0] for other in INTEGERS}
    columns[name] = [value]
    refused(http, "zoo", {"signature_name": "integers", "inputs": columns}, 400, "")


@pytest.mark.parametrize("name", [name for name in INTEGERS if name != "uint64"])
def test_one_beyond_the_bounds_is_refused_and_not_wrapped(http: httpx.Client, name: str) -> None:
    columns: dict[str, list[int]] = {other: [0] for other in INTEGERS}
    columns[name] = [INTEGERS[name][1] + 1]
    refused(http, "zoo", {"signature_name": "integers", "inputs": columns}, 400, name)


def test_doubles_keep_all_digits(http: httpx.Client) -> None:
    values = [0.1, 1 / 3, 1e300, -5e-324, 12345678901234567.0]
    reply = predict(http, "zoo", {"signature_name": "double", "instances": values})
    assert reply["predictions"] == values


def test_a_scalar_input_and_output_in_columns(http: httpx.Client) -> None:
    assert predict(http, "zoo", {"signature_name": "rankless", "inputs": 21}) == {"outputs": 42}
    assert predict(http, "zoo", {"signature_name": "scalar", "inputs": [1, 2]}) == {"outputs": 3.0}


def test_tables_and_keras_models_work(http: httpx.Client) -> None:
    body = {"signature_name": "lookup", "instances": ["one", "two", "three"]}
    assert predict(http, "zoo", body) == {"predictions": [1, 2, -1]}
    reply = predict(http, "keras", {"instances": [[1, 2, 3, 4]]})
    assert [len(row) for row in reply["predictions"]] == [2]
    assert all(math.isfinite(value) for row in reply["predictions"] for value in row)


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("none", {"instances": [1]}, 404, "Servable not found for request: Latest(none)"),
        (
            "none/versions/3",
            {"instances": [1]},
            404,
            "Servable not found for request: Specific(none, 3)",
        ),
        (
            "scale/versions/9",
            {"instances": [1]},
            404,
            "Servable not found for request: Specific(scale, 9)",
        ),
        ("scale/labels/new", {"instances": [1]}, 400, "Unrecognized servable version label: new"),
        ("scale", b"", 400, "The document is empty"),
        ("scale", b"{", 400, "JSON Parse error"),
        ("scale", b"[1]", 400, "Is not object"),
        ("scale", {}, 400, "Missing 'inputs' or 'instances' key"),
        ("scale", {"instances": [[1, 2, 3]], "inputs": [[1, 2, 3]]}, 400, "expecting only one of"),
        ("scale", {"instances": {}}, 400, "'instances' to be an list/array"),
        ("scale", {"instances": []}, 400, "No values in 'instances' array"),
        (
            "scale",
            {"signature_name": 3, "instances": [1]},
            400,
            "'signature_name' key must be a string",
        ),
        ("scale", {"signature_name": "x", "instances": [1]}, 400, 'signature name: "x" not found'),
        ("scale", {"instances": [["a", 1, 2]]}, 400, "Failed to process element: 0"),
        (
            "scale",
            {"instances": [["a", 1, 2]]},
            400,
            '"a" Type: String is not of expected type: float',
        ),
        ("scale", {"instances": [[True, 1, 2]]}, 400, "Type: True is not of expected type: float"),
        ("scale", {"instances": [[None, 1, 2]]}, 400, "Type: Null is not of expected type: float"),
        ("scale", {"instances": [[1, 2, 3], [1, 2]]}, 400, "Failed to process element: 1"),
        ("scale", {"instances": [[1, [2], 3]]}, 400, "Failed to process element: 0"),
        ("scale", {"instances": [[1, 2, 3], {"x": 1}]}, 400, "got object at item 1"),
        ("scale", {"instances": [{"x": [1, 2, 3]}, [1, 2, 3]]}, 400, "got list at item 1"),
        ("scale", {"instances": [{"z": [1, 2, 3]}]}, 400, "does not have named input: z"),
        ("scale", {"inputs": {"z": [[1, 2, 3]]}}, 400, "Missing named input: x"),
        (
            "scale",
            {"instances": [[1, 2]]},
            400,
            'input "x" of signature "serving_default" expects shape [-1,3]',
        ),
        ("scale", {"inputs": 1}, 400, "expects shape [-1,3] but got []"),
        ("zoo", {"instances": [[1, 2]]}, 400, "expecting list of objects"),
        ("zoo", {"inputs": [[1, 2]]}, 400, "expecting an object"),
        ("zoo", {"instances": [{"a": [1, 2]}]}, 400, "keys must be equal to: a,b,c,flag"),
        ("zoo", {"instances": [ROW | {"c": {"b64": "!"}}]}, 400, "Unable to base64 decode"),
        ("zoo", {"instances": [ROW | {"c": {"b64": 1}}]}, 400, "base64"),
        ("zoo", {"instances": [ROW | {"c": 5}]}, 400, "is not of expected type: string"),
        ("zoo", {"instances": [ROW | {"flag": 1}]}, 400, "is not of expected type: bool"),
        ("zoo", {"signature_name": "scalar", "instances": [1]}, 400, "has no shape information"),
        ("zoo", {"signature_name": "uneven", "instances": [1, 2]}, 400, "inconsistent batch size"),
        ("zoo", {"signature_name": "half_in", "instances": [1.5]}, 400, "UNIMPLEMENTED: Con"),
        ("zoo", {"signature_name": "half_in", "inputs": [1.5]}, 501, "to type: half"),
        ("zoo", {"signature_name": "half_out", "instances": [1.5]}, 400, "tensor type: half"),
        ("zoo", {"signature_name": "refuses", "instances": [-1.0]}, 400, "only above zero"),
        ("zoo", {"signature_name": "__saved_model_init_op", "instances": [1]}, 400, "signature"),
    ],
)
def test_what_is_refused(http: httpx.Client, path: str, body: Any, status: int, words: str) -> None:
    refused(http, path, body, status, words)


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/none", 404, "Could not find any versions of model none"),
        ("GET", "/scale/versions/9", 404, "Could not find version 9 of model scale"),
        (
            "GET",
            "/scale/labels/stable/metadata",
            400,
            "Unrecognized servable version label: stable",
        ),
        ("GET", "/none/metadata", 404, "Servable not found for request: Latest(none)"),
        ("PUT", "/scale", 400, "Malformed request: PUT"),
        ("DELETE", "/scale:predict", 400, "Malformed request: DELETE"),
        ("POST", "/scale:explain", 400, "Malformed request: POST"),
        ("POST", "/scale:PREDICT", 400, "Malformed request: POST"),
        ("POST", "/scale:classify", 400, "JSON Parse error: The document is empty"),
        ("GET", "/none/labels/stable", 404, "Could not find any versions of model none"),
        ("GET", "/scale/versions/99999999999999999999", 400, "Failed to convert version"),
    ],
)
def test_other_errors(http: httpx.Client, method: str, path: str, status: int, words: str) -> None:
    answer = http.request(method, path)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert words in answer.json()["error"]


def test_routes_care_for_neither_case_nor_escapes(http: httpx.Client) -> None:
    base = str(http.base_url).replace("/v1/models", "")
    assert http.get(f"{base}V1/MODELS/scale/Versions/1").status_code == 200
    assert http.get(f"{base}v1/models/%73cale").status_code == 200
    assert http.get(f"{base}v2/models/scale").status_code == 404
    answer = http.get(f"{base}v1/models")
    assert (answer.status_code, answer.json()) == (400, {"error": "Missing model name in request."})


def test_a_body_over_the_limit_is_413(http: httpx.Client) -> None:
    for content in (
        b"[" * 1_000_001,
        (b"x" * 100_000 for _ in range(12)),
    ):  # with a length, and in chunks
        answer = http.post("/scale:predict", content=content)
        assert answer.status_code == 413
        assert "larger than 1000000 bytes" in answer.json()["error"]
    padding = " " * (1_000_000 - 27)
    assert predict(http, "scale", f'{{"instances": [[1,2,3]]}}{padding}'.encode())


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": ' + b"[" * 64 + b"1" + b"]" * 64 + b"}",
        b'{"instances": ' + b"[" * 400_000 + b"]" * 400_000 + b"}",
        b'{"instances": [[1,2,3]], "extra": ' + b'{"a":' * 100 + b"1" + b"}" * 100 + b"}",
        b'{"instances": ' + b"[" * 900_000,
        b'{"instances": [NaN, ' + b"[" * 900_000,
    ],
)
def test_a_body_that_is_too_deep_is_400_and_the_server_lives(
    http: httpx.Client, body: bytes
) -> None:
    answer = http.post("/scale:predict", content=body)
    assert answer.status_code == 400
    assert len(answer.text) < 1000
    assert predict(http, "scale", {"instances": [[1, 2, 3]]})


def test_no_error_shows_a_trace(http: httpx.Client) -> None:
    answer = http.post("/zoo:predict", json={"signature_name": "refuses", "instances": [-1.0]})
    assert "Traceback" not in answer.text
    assert "Original stack trace" not in answer.text
