"""Tensors that do not fit, where the backend speaks the other form: refused before it sees them.

Each is answered with TF Serving's own status, in its own words, and names the input.
"""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from support import GatewayProcess, GrpcUpstream, HttpUpstream, ServingClient, serving
from support.grpc_upstream import METADATA, PREDICT

FLOAT, DOUBLE, STRING, INT64, HALF = 1, 2, 7, 9, 19
PATH = "/v1/models/pair:predict"
MILLION = 10**6
Code = grpc.StatusCode
MODEL = {"adapter": "tensorflow_serving", "versions": "discover"}


@pytest.fixture(scope="module")
def rest(
    grpc_upstream: GrpcUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """A REST client's gateway: the backend speaks gRPC alone."""
    signatures = grpc_upstream.wire.SignatureDefMap()
    kinds = {"a": FLOAT, "n": INT64, "s": STRING, "h": HALF}
    for name, taken in (("serving_default", "an"), ("text", "s"), ("one", "a"), ("half", "h")):
        for infos in (
            signatures.signature_def[name].inputs,
            signatures.signature_def[name].outputs,
        ):
            for alias in taken:
                infos[alias].dtype = kinds[alias]
                infos[alias].tensor_shape.unknown_rank = True
    grpc_upstream.versions = {"pair": {1: "AVAILABLE"}}
    grpc_upstream.signatures = {"pair": signatures.SerializeToString()}
    models = {"pair": {**MODEL, "backends": [{"grpc": grpc_upstream.address}]}}
    with serving(tmp_path_factory.mktemp("rest"), models, log_level="debug") as running:
        yield running


@pytest.fixture(autouse=True)
def _unseen(upstream: HttpUpstream, grpc_upstream: GrpcUpstream) -> Iterator[None]:
    yield
    assert (upstream.requests, grpc_upstream.calls) == ([], [])


ROW = " of 'instances' list. Error: INVALID_ARGUMENT: "
FAILED = "Failed to process element: "


def numbers(count: int, last: str) -> str:
    return f"[{','.join(['0.5'] * (count - 1))},{last}]"


@pytest.mark.parametrize(
    ("body", "status", "words", "name"),
    [
        # ── ragged ──
        (
            '{"instances": [{"a": [1, 2], "n": 1}, {"a": [1], "n": 1}]}',
            400,
            f"{FAILED}1 key: a{ROW}Expecting tensor size: 2 but got: 1",
            "key: a",
        ),
        (
            '{"inputs": {"a": [[1, 2], [3]], "n": 1}}',
            400,
            "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
            'input "a"',
        ),
        (
            '{"signature_name": "one", "instances": [[1, 2], [[3, 4]]]}',
            400,
            f"{FAILED}1{ROW}Expecting shape [2] but got: [1,2]",
            'input "a"',
        ),
        # ── forms and keys ──
        ('{"instances": [1], "inputs": 1}', 400, "JSON Value: ", "'instances'"),
        ('{"signature_name": "one"}', 400, "Missing 'inputs' or 'instances' key", "'inputs'"),
        (
            '{"instances": [{"a": 1}]}',
            400,
            f"{FAILED}0 of 'instances' list. JSON object: {{\"a\": 1}} keys must be equal to: a,n",
            "a,n",
        ),
        (
            '{"instances": [{"a": 1, "n": 1, "z": 1}]}',
            400,
            f"{FAILED}0 key: z{ROW}JSON object: does not have named input: z",
            "key: z",
        ),
        ('{"inputs": {"a": 1}}', 400, "Missing named input: n in 'inputs' object.", "input: n"),
        ('{"instances": [1]}', 400, "instances is a plain list, but expecting list of ", "a,n"),
        # ── values ──
        (
            '{"signature_name": "text", "inputs": [{"b64": "a"}]}',
            400,
            "Unable to base64 decode",
            'input "s"',
        ),
        (
            f'{{"inputs": {{"a": 1, "n": [1, {2**63}]}}}}',
            400,
            f"JSON Value: {2**63} Type: Number is not of expected type: int64",
            'input "n"',
        ),
        (
            '{"inputs": {"a": 1, "n": 1.0}}',
            400,
            "JSON Value: 1.0 Type: Number is not of expected type: int64",
            'input "n"',
        ),
        (
            '{"instances": [{"a": "x", "n": 1}]}',
            400,
            f'{FAILED}0 key: a{ROW}JSON Value: "x" Type: String is not of expected type: float',
            "key: a",
        ),
        (
            '{"signature_name": "half", "inputs": 1}',
            501,
            "Conversion of JSON Value: 1 to type: half",
            'input "h"',
        ),
        (
            '{"signature_name": "half", "instances": [1]}',
            400,
            f"{FAILED}0 of 'instances' list. Error: UNIMPLEMENTED: Conversion of JSON Value: 1 to",
            'input "h"',
        ),
        # ── large and deep ──
        (
            f'{{"signature_name": "one", "instances": [{numbers(MILLION, "true")}]}}',
            400,
            f"{FAILED}0{ROW}JSON Value: true Type: True is not of expected type: float",
            'input "a"',
        ),
        (
            f'{{"signature_name": "one", "instances": {numbers(MILLION, "[1]")}}}',
            400,
            f"{FAILED}{MILLION - 1}{ROW}Expecting shape [] but got: [1]",
            'input "a"',
        ),
        ('{"signature_name": "one", "inputs": %s}' % ("[" * 99 + "]" * 99), 400, "the body is", ""),
        # ── signatures and JSON ──
        (
            '{"signature_name": "none", "inputs": 1}',
            400,
            'Serving signature name: "none" not found in signature def',
            "none",
        ),
        ('{"signature_name": 1, "inputs": 1}', 400, "JSON Value: ", "'signature_name' key must be"),
        ('{"inputs": ', 400, "JSON Parse error: Invalid value. at offset: 11", ""),
    ],
    ids=range(21),
)
def test_json_that_makes_no_tensors(
    rest: GatewayProcess, body: str, status: int, words: str, name: str
) -> None:
    answer = rest.http.post(PATH, body.encode())
    error = answer.json()["error"]
    assert (answer.status, error[: len(words)]) == (status, words)
    assert name in error
    assert set(answer.json()) == {"error"}


def test_no_value_reaches_the_log(rest: GatewayProcess) -> None:
    for body in (b'{"inputs": {"a": "sesame", "n": 1}}', b'["sesame"]'):
        answer = rest.http.post(PATH, body)
        assert "sesame" in answer.json()["error"]
    log = rest.log()
    assert "error=invalid_request" in log
    assert "sesame" not in log


@pytest.fixture(scope="module")
def rpc(
    upstream: HttpUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """A gRPC client's gateway: the backend speaks REST alone."""
    upstream.versions = {"pair": {1: "AVAILABLE"}}
    shape = {"dim": [], "unknown_rank": True}
    infos = {
        alias: {"dtype": dtype, "tensor_shape": shape, "name": f"feed_{alias}:0"}
        for alias, dtype in (("a", "DT_FLOAT"), ("n", "DT_INT64"), ("h", "DT_HALF"))
    }
    pair = {"inputs": {k: infos[k] for k in "an"}, "outputs": {"y": infos["a"]}, "method_name": "m"}
    half = {"inputs": {"h": infos["h"]}, "outputs": {"y": infos["a"]}, "method_name": "m"}
    upstream.metadata = {
        "model_spec": {"name": "pair", "signature_name": "", "version": "1"},
        "metadata": {"signature_def": {"signature_def": {"serving_default": pair, "half": half}}},
    }
    models = {"pair": {**MODEL, "backends": [{"rest": upstream.url}]}}
    with serving(tmp_path_factory.mktemp("rpc"), models) as running:
        yield running


@pytest.fixture(scope="module")
def client(rpc: GatewayProcess) -> Iterator[ServingClient]:
    made = ServingClient(rpc.grpc_address)
    yield made
    made.close()


def tensor(into: Any, dtype: int, *shape: int, **fields: Any) -> None:
    into.dtype = dtype
    for size in shape:
        into.tensor_shape.dim.add().size = size
    for field, value in fields.items():
        if isinstance(value, bytes):
            setattr(into, field, value)
        else:
            getattr(into, field).extend(value)


def good(request: Any) -> None:
    tensor(request.inputs["a"], FLOAT, 2, float_val=[1, 2])
    tensor(request.inputs["n"], INT64, 2, int64_val=[1, 2])


def with_more(request: Any) -> None:
    good(request)
    tensor(request.inputs["z"], FLOAT, float_val=[1])


def with_less(request: Any) -> None:
    tensor(request.inputs["a"], FLOAT, 2, float_val=[1, 2])


def with_another(request: Any) -> None:
    with_less(request)
    tensor(request.inputs["z"], FLOAT, float_val=[1])


def content(size: int, **fields: Any) -> Callable[[Any], None]:
    def fill(request: Any) -> None:
        good(request)
        request.inputs["a"].Clear()
        tensor(request.inputs["a"], FLOAT, size, **fields)

    return fill


def of_another_dtype(request: Any) -> None:
    good(request)
    request.inputs["n"].Clear()
    tensor(request.inputs["n"], DOUBLE, 2, double_val=[1, 2])


def filtered(*names: str) -> Callable[[Any], None]:
    def fill(request: Any) -> None:
        good(request)
        request.output_filter.extend(names)

    return fill


def signed(name: str) -> Callable[[Any], None]:
    def fill(request: Any) -> None:
        request.model_spec.signature_name = name
        tensor(request.inputs["h"], HALF, 1, half_val=[15360])

    return fill


@pytest.mark.parametrize(
    ("fill", "code", "words"),
    [
        (
            with_more,
            Code.INVALID_ARGUMENT,
            "input size does not match signature: 3!=2 len({a,n,z}) != len({a,n}). "
            "Sent extra: {z}. Missing but required: {}.",
        ),
        (
            with_less,
            Code.INVALID_ARGUMENT,
            "input size does not match signature: 1!=2 len({a}) != len({a,n}). "
            "Sent extra: {}. Missing but required: {n}.",
        ),
        (
            with_another,
            Code.INVALID_ARGUMENT,
            "Signature input alias: n(feed name: feed_n:0) not found in request and no default",
        ),
        (of_another_dtype, Code.INVALID_ARGUMENT, "Expects input 'n' to be int64 but double is"),
        (content(2, tensor_content=b"1234"), Code.INVALID_ARGUMENT, "tensor parsing error: a. It"),
        (content(1, tensor_content=b"12345"), Code.INVALID_ARGUMENT, "tensor parsing error: a. It"),
        (content(-1, float_val=[1.0]), Code.INVALID_ARGUMENT, "tensor parsing error: a. It has a"),
        (content(2**40, float_val=[1.0]), Code.INVALID_ARGUMENT, "tensor parsing error: a. It "),
        (
            filtered("z"),
            Code.INVALID_ARGUMENT,
            "output tensor alias not found in signature: z Outputs expected to be in the set {y}.",
        ),
        (filtered("y", "y"), Code.INVALID_ARGUMENT, "duplicate output tensor alias: y"),
        (signed("none"), Code.FAILED_PRECONDITION, 'Serving signature key "none" not found. '),
        (signed("half"), Code.UNIMPLEMENTED, "the input 'h' is of type DT_HALF, which "),
    ],
    ids=range(12),
)
def test_messages_that_make_no_tensors(
    client: ServingClient, fill: Callable[[Any], None], code: grpc.StatusCode, words: str
) -> None:
    request = client.wire.PredictRequest()
    request.model_spec.name = "pair"
    fill(request)
    error = client.fails(PREDICT, request.SerializeToString())
    assert (error.code(), error.details()[: len(words)]) == (code, words)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ([], "GetModelMetadataRequest must specify at least one metadata_field"),
        (["weights"], "Metadata field weights is not supported"),
        (["signature_def", "weights"], "Metadata field weights is not supported"),
    ],
)
def test_metadata_that_there_is_not(client: ServingClient, wanted: list[str], words: str) -> None:
    request = client.wire.GetModelMetadataRequest(metadata_field=wanted)
    request.model_spec.name = "pair"
    error = client.fails(METADATA, request.SerializeToString())
    assert (error.code(), error.details()) == (Code.INVALID_ARGUMENT, words)
