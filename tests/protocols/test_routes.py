"""Which row of the table a path means, and which model it names."""

import contextlib
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    GatewayError,
    InvalidRequest,
    Malformed,
    MethodNotAllowed,
    Unauthenticated,
    UnknownRoute,
)
from gateway.protocols import routes
from gateway.protocols.routes import ANTHROPIC, BY_PATH, OPENAI, TFS, front_of, match
from gateway.types import Family, Front, Model, Ref


def model(name: str, family: Family) -> Model:
    return Model(name=name, adapter="any", family=family, served_name=name, versions={})


LLM_NAMES = (
    "chat", "org/chat", "org/chat:free", "qwen2.5:7b", "org/x/metadata", "org/x:predict",
    "a/versions/1", "a/labels/b", "versions", "a/versions",
)  # fmt: skip
CLASSIC_NAMES = ("mnist", "a", "metadata")
MODELS = {
    **{name: model(name, Family.LLM) for name in LLM_NAMES},
    **{name: model(name, Family.CLASSIC) for name in CLASSIC_NAMES},
}
POSTS = [path for path, operation in BY_PATH.items() if operation.method == "POST"]


def test_the_table_is_what_is_promised() -> None:
    assert {path: operation.name for path, operation in BY_PATH.items()} == {
        "/v1/models": "list_models",
        "/v1/chat/completions": "chat",
        "/v1/completions": "completions",
        "/v1/responses": "responses",
        "/v1/realtime": "realtime",
        "/v1/audio/transcriptions": "transcriptions",
        "/v1/audio/translations": "translations",
        "/v1/messages": "messages",
        "/v1/messages/count_tokens": "count_tokens",
        "/v1/embeddings": "embeddings",
        "/pooling": "pooling",
        "/classify": "classify",
        "/score": "score",
        "/v1/score": "score",
        "/rerank": "rerank",
        "/v1/rerank": "rerank",
        "/v2/rerank": "rerank",
        "/tokenize": "tokenize",
        "/detokenize": "detokenize",
        "/v1/chat/completions/batch": "chat_batch",
        "/generative_scoring": "generative_scoring",
        "/inference/v1/generate": "generate",
        "/v2/embed": "embed",
    }


@pytest.mark.parametrize("path", POSTS)
def test_fixed_paths(path: str) -> None:
    matched = match("POST", path.encode(), MODELS)
    assert matched.ref is None
    assert matched.operation.path == path
    with pytest.raises(MethodNotAllowed) as caught:
        match("GET", path.encode(), MODELS)
    assert caught.value.headers == ((b"allow", b"POST"),)


@pytest.mark.parametrize(
    ("method", "path", "operation", "ref"),
    [
        ("GET", "/v1/models", "list_models", None),
        # ── about a model: the row follows its family ──
        ("GET", "/v1/models/chat", "retrieve_model", Ref("chat")),
        ("GET", "/v1/models/mnist", "status", Ref("mnist")),
        ("GET", "/v1/models/nobody", "retrieve_model", Ref("nobody")),
        ("GET", "/v1/models/org/chat", "retrieve_model", Ref("org/chat")),
        ("GET", "/v1/models/org%2Fchat", "retrieve_model", Ref("org/chat")),
        ("GET", "/v1/models/org/chat:free", "retrieve_model", Ref("org/chat:free")),
        ("GET", "/v1/models/org%2Fchat%3Afree", "retrieve_model", Ref("org/chat:free")),
        ("GET", "/v1/models/qwen2.5:7b", "retrieve_model", Ref("qwen2.5:7b")),
        ("GET", "/v1/models/chat@2", "retrieve_model", Ref("chat", version=2)),
        ("GET", "/v1/models/org/chat@stable", "retrieve_model", Ref("org/chat", label="stable")),
        ("GET", "/v1/models/mnist@3", "status", Ref("mnist", version=3)),
        ("GET", "/v1/models/mnist@stable", "status", Ref("mnist", label="stable")),
        # ── TF Serving's forms ──
        ("POST", "/v1/models/mnist:predict", "predict", Ref("mnist")),
        ("POST", "/v1/models/mnist/versions/3:predict", "predict", Ref("mnist", version=3)),
        ("POST", "/v1/models/mnist/labels/canary:predict", "predict", Ref("mnist", label="canary")),
        ("GET", "/v1/models/mnist/metadata", "metadata", Ref("mnist")),
        ("GET", "/v1/models/mnist/versions/3/metadata", "metadata", Ref("mnist", version=3)),
        ("GET", "/v1/models/mnist/labels/x/metadata", "metadata", Ref("mnist", label="x")),
        ("GET", "/v1/models/mnist/versions/3", "status", Ref("mnist", version=3)),
        ("GET", "/v1/models/mnist/labels/stable", "status", Ref("mnist", label="stable")),
        ("GET", "/V1/Models/mnist/Versions/3", "status", Ref("mnist", version=3)),
        ("GET", "/v1/models/mnist/METADATA", "status", Ref("mnist")),
        ("GET", "/v1/models/mnist/Versions/3/Metadata", "status", Ref("mnist", version=3)),
        ("GET", "/v1/models/mnist/versions/0000000000000000000003", "status", Ref("mnist", 3)),
        ("HEAD", "/v1/models/mnist", "status", Ref("mnist")),
        ("GET", "/v1/models/other/name:free", "retrieve_model", Ref("other/name:free")),
        ("GET", "/v1/models/nobody:predictions", "retrieve_model", Ref("nobody:predictions")),
        ("POST", "/v1/models/nobody:predict", "predict", Ref("nobody")),
        ("GET", "/v1/models/nobody/versions/1", "status", Ref("nobody", version=1)),
        ("POST", "/v1/models/qwen2.5:7b:predict", "predict", Ref("qwen2.5:7b")),
        ("POST", "/v1/models/org/chat/versions/1:predict", "predict", Ref("org/chat", version=1)),
        # ── the longest configured name wins, then the suffix ──
        ("GET", "/v1/models/org/x/metadata", "retrieve_model", Ref("org/x/metadata")),
        ("GET", "/v1/models/org/x/metadata/metadata", "metadata", Ref("org/x/metadata")),
        ("GET", "/v1/models/org/x:predict", "retrieve_model", Ref("org/x:predict")),
        ("POST", "/v1/models/org/x:predict:predict", "predict", Ref("org/x:predict")),
        ("GET", "/v1/models/a/versions/1", "retrieve_model", Ref("a/versions/1")),
        ("GET", "/v1/models/a/versions/1/metadata", "metadata", Ref("a/versions/1")),
        ("POST", "/v1/models/a/versions/1:predict", "predict", Ref("a/versions/1")),
        ("POST", "/v1/models/a/labels/b:predict", "predict", Ref("a/labels/b")),
        ("POST", "/v1/models/a/versions/2:predict", "predict", Ref("a", version=2)),
        ("GET", "/v1/models/a/labels/c", "status", Ref("a", label="c")),
        ("GET", "/v1/models/a/versions/1/versions/2", "status", Ref("a/versions/1", version=2)),
        ("GET", "/v1/models/metadata", "status", Ref("metadata")),
        ("GET", "/v1/models/metadata/metadata", "metadata", Ref("metadata")),
        ("GET", "/v1/models/versions/versions/1", "status", Ref("versions", version=1)),
    ],
)
def test_paths_that_name_a_model(method: str, path: str, operation: str, ref: Ref | None) -> None:
    matched = match(method, path.encode(), MODELS)
    assert (matched.operation.name, matched.ref) == (operation, ref)


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [
        ("GET", "/v1/responses/resp_1", "retrieve_response"),
        ("HEAD", "/v1/responses/resp%5F1", "retrieve_response"),
        ("POST", "/v1/responses/resp_1/cancel", "cancel_response"),
    ],
)
def test_paths_that_name_a_response(method: str, path: str, operation: str) -> None:
    matched = match(method, path.encode(), MODELS)
    assert (matched.operation.name, matched.ref, matched.held) == (operation, None, "resp_1")


@pytest.mark.parametrize(
    ("method", "path", "error"),
    [
        ("GET", "/", UnknownRoute),
        ("POST", "/v1/audio/speech", UnknownRoute),
        ("GET", "/v1/responses/", UnknownRoute),
        ("GET", "/v1/responses/..", UnknownRoute),
        ("GET", "/v1/responses/a/b", UnknownRoute),
        ("GET", "/v1/responses/a%2Fb", UnknownRoute),
        ("GET", "/v1/responses/a%3Fb", UnknownRoute),
        ("GET", "/v1/responses/{response_id}", UnknownRoute),
        ("GET", f"/v1/responses/{'x' * 200}", UnknownRoute),
        ("POST", "/v1/responses/x/input_items", UnknownRoute),
        ("DELETE", "/v1/responses/resp_1", MethodNotAllowed),
        ("POST", "/v1/responses/resp_1", MethodNotAllowed),
        ("GET", "/v1/responses/resp_1/cancel", MethodNotAllowed),
        ("GET", "/v1/responses", MethodNotAllowed),
        ("POST", "/v1/realtime", MethodNotAllowed),
        ("POST", "/v1/load_lora_adapter", UnknownRoute),
        ("POST", "/invocations", UnknownRoute),
        ("GET", "/metrics", UnknownRoute),
        ("POST", "/v1/chat/completions/", UnknownRoute),
        ("POST", "//v1/chat/completions", UnknownRoute),
        ("GET", "/v1/models/", UnknownRoute),
        ("GET", "*", UnknownRoute),
        ("POST", "/v1/models", MethodNotAllowed),
        ("DELETE", "/v1/models/chat", MethodNotAllowed),
        ("POST", "/v1/models/nobody", MethodNotAllowed),
        ("POST", "/v1/models/org/nobody", MethodNotAllowed),
        ("OPTIONS", "/v1/chat/completions", MethodNotAllowed),
        ("GET", "/v1/models/mnist@", InvalidRequest),
        ("GET", "/v1/models/mnist@1/metadata", InvalidRequest),
        ("GET", "/v1/models/@1", InvalidRequest),
        ("GET", "/v1/models/%ff", InvalidRequest),
        ("GET", "/v1/models/a%00b", InvalidRequest),
        ("GET", "/v1/models/a%0d%0ab", InvalidRequest),
    ],
)
def test_paths_that_mean_nothing(method: str, path: str, error: type[GatewayError]) -> None:
    with pytest.raises(error):
        match(method, path.encode(), MODELS)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "mnist:predict"),
        ("HEAD", "mnist:predict"),
        ("PUT", "mnist:predict"),
        ("DELETE", "mnist"),
        ("POST", "mnist"),
        ("POST", "mnist/metadata"),
        ("POST", "mnist/versions/1"),
        ("POST", "mnist:PREDICT"),
        ("POST", "mnist:Classify"),
        ("POST", "mnist/METADATA"),
        ("POST", "mnist:explain"),
        ("GET", "mnist:explain"),
        ("POST", "nobody:explain"),
        ("GET", "nobody:predict"),
        ("POST", "other/name:predict"),
        ("GET", "other/name/metadata"),
        ("GET", "mnist/nothing"),
        ("GET", "mnist/versions"),
        ("GET", "mnist/versions/"),
        ("GET", "nobody/labels"),
        ("GET", "mnist/versions/x"),
        ("GET", "mnist/versions/-1"),
        ("POST", "mnist/versions/1.5:predict"),
        ("POST", "mnist/versions/latest:predict"),
        ("GET", "mnist/versions/1/labels/stable"),
        ("POST", "mnist/versions/1/labels/stable:predict"),
        ("POST", "mnist/version/1:predict"),
        ("POST", "mnist/version/%31:predict"),
    ],
)
def test_what_tf_serving_calls_malformed(method: str, path: str) -> None:
    raw = f"/v1/models/{path}".encode()
    with pytest.raises(Malformed) as caught:
        match(method, raw, MODELS)
    assert caught.value.message == f"Malformed request: {method} /v1/models/{path}"
    answer = front_of(raw, caught.value).error(caught.value)
    assert (answer.head.status, set(json.loads(answer.body))) == (400, {"error"})


@pytest.mark.parametrize("version", ["9223372036854775808", "9" * 4000])
def test_a_version_beyond_64_bits(version: str) -> None:
    with pytest.raises(Malformed, match=rf"^Failed to convert version: {version[:64]} to num"):
        match("POST", f"/v1/models/mnist/versions/{version}:predict".encode(), MODELS)


def test_a_long_path_is_told_in_part() -> None:
    with pytest.raises(Malformed) as caught:
        match("POST", b"/v1/models/mnist/" + "é".encode() * 9000 + b":explain", MODELS)
    assert len(caught.value.message) < 300
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    "path", ["mnist", "chat", "nobody", "org/chat", "org/x:predict", "org%2Fx"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_strangers_get_one_shape_by_the_path_alone(method: str, path: str) -> None:
    raw = f"/v1/models/{path}".encode()
    stranger = Unauthenticated("who is it?")
    shapes = set()
    for models in (MODELS, {}, {"nobody": model("nobody", Family.CLASSIC)}):
        try:
            front = match(method, raw, models).operation.front
        except (Malformed, MethodNotAllowed) as error:
            front = front_of(raw, error)
        shapes.add(front.error(stranger).body)
        assert front_of(raw).error(stranger).body in shapes
    assert len(shapes) == 1


@pytest.mark.parametrize("name", [*LLM_NAMES, *CLASSIC_NAMES])
def test_every_configured_name_is_found_plain_and_encoded(name: str) -> None:
    for path in (name, quote(name, safe="")):
        assert match("GET", f"/v1/models/{path}".encode(), MODELS).ref == Ref(name)
    suffixed = match("GET", f"/v1/models/{name}/versions/9/metadata".encode(), MODELS)
    assert suffixed.ref == Ref(name, version=9)


@pytest.mark.parametrize(
    ("path", "front"),
    [
        (b"/v1/chat/completions", OPENAI),
        (b"/nothing", OPENAI),
        (b"/v1/models/chat", OPENAI),
        (b"/v1/messages", ANTHROPIC),
        (b"/v1/messages/batches", ANTHROPIC),
        (b"/v1/models/m:predict", TFS),
        (b"/v1/models/m:classify", TFS),
        (b"/v1/models/m/versions/1", TFS),
        (b"/V1/models/m/Labels/x", TFS),
        (b"\xff", OPENAI),
    ],
)
def test_errors_have_the_shape_of_the_protocol_that_asked(path: bytes, front: Front) -> None:
    assert front_of(path) is front


pieces = st.one_of(
    st.binary(max_size=8),
    st.sampled_from(
        [b"/v1/models/", b"mnist", b"a", b"/versions/", b"/labels/", b":predict", b"/metadata",
         b"@", b"1", b"%", b"%2F", b"%zz", b"/", b":", b"\n", b"\xc3\xa9"]
    ),
)  # fmt: skip


@given(st.text(max_size=8), st.lists(pieces, max_size=8).map(b"".join))
def test_any_bytes_match_or_are_a_gateway_error(method: str, path: bytes) -> None:
    front_of(path)
    for raw in (path, b"/v1/models/" + path):
        with contextlib.suppress(GatewayError):
            match(method, raw, MODELS)


@pytest.mark.parametrize(
    "path", [b"/versions/" * 3000, b"/labels/a" * 3000, b":predict" * 4000, b"/" * 32_000]
)
def test_long_paths_cost_little(path: bytes) -> None:
    with contextlib.suppress(GatewayError):
        match("GET", b"/v1/models/" + path, {})
    assert routes.PREDICT.path == ":predict"
