"""The table of what is served over HTTP, and which of its rows a path means.

One table feeds the listener and the documentation. Only what stands here is ever forwarded:
a backend's other endpoints stay out of reach.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from gateway.errors import InvalidRequest, MethodNotAllowed, UnknownRoute
from gateway.protocols import openai, tensorflow_serving
from gateway.protocols.anthropic import Anthropic
from gateway.protocols.cohere import Cohere
from gateway.protocols.names import parse_ref, parse_version
from gateway.protocols.openai import OpenAI
from gateway.protocols.tensorflow_serving import TensorFlowServing
from gateway.types import Family, Form, Front, Model, Operation, Ref

OPENAI: Front = OpenAI()
ANTHROPIC: Front = Anthropic()
COHERE: Front = Cohere()
TFS: Front = TensorFlowServing()


class Matched(NamedTuple):
    """A row of the table, and the model that the path named, if it names one."""

    operation: Operation
    ref: Ref | None = None


def _posts(front: Front, protocol: str, rows: Mapping[str, str]) -> dict[str, Operation]:
    return {
        path: Operation(name, protocol, Form.OPENAI, front, "POST", path)
        for path, name in rows.items()
    }


_MODELS = "/v1/models"
LIST_MODELS = Operation(
    "list_models", "openai", Form.OPENAI, OPENAI, "GET", _MODELS, local=openai.list_models
)
RETRIEVE_MODEL = Operation(
    "retrieve_model",
    "openai",
    Form.OPENAI,
    OPENAI,
    "GET",
    "/v1/models/{model}",
    local=openai.retrieve_model,
)
# The paths of vLLM 0.32; what each takes and answers is its documentation's to say.
BY_PATH: Mapping[str, Operation] = {
    _MODELS: LIST_MODELS,
    **_posts(
        OPENAI,
        "openai",
        {
            "/v1/chat/completions": "chat",
            "/v1/completions": "completions",
            "/v1/responses": "responses",
            "/v1/embeddings": "embeddings",
            "/pooling": "pooling",
            "/classify": "classify",
            "/score": "score",
            "/v1/score": "score",
            "/tokenize": "tokenize",
            "/detokenize": "detokenize",
            "/v1/chat/completions/batch": "chat_batch",
            "/generative_scoring": "generative_scoring",
            "/inference/v1/generate": "generate",
        },
    ),
    **_posts(
        COHERE,
        "cohere",
        {
            "/rerank": "rerank",
            "/v1/rerank": "rerank",
            "/v2/rerank": "rerank",
            "/v2/embed": "embed",
        },
    ),
    **_posts(
        ANTHROPIC,
        "anthropic",
        {"/v1/messages": "messages", "/v1/messages/count_tokens": "count_tokens"},
    ),
}

# Keys are what stands behind the model (and its version or label) in a path; the operation's
# own path is what stands behind the version in the upstream's.
PREDICT = Operation("predict", "tensorflow_serving", Form.TFS_REST, TFS, "POST", ":predict")
METADATA = Operation("metadata", "tensorflow_serving", Form.TFS_REST, TFS, "GET", "/metadata")
STATUS = Operation(
    "status",
    "tensorflow_serving",
    Form.TFS_REST,
    TFS,
    "GET",
    "",
    about=True,
    local=tensorflow_serving.model_status,
)
CLASSIFY = Operation("classify", "tensorflow_serving", Form.TFS_REST, TFS, "POST", ":classify")
REGRESS = Operation("regress", "tensorflow_serving", Form.TFS_REST, TFS, "POST", ":regress")
BY_SUFFIX: Mapping[str, Operation] = {
    ":predict": PREDICT,
    ":classify": CLASSIFY,
    ":regress": REGRESS,
    "/metadata": METADATA,
    "": STATUS,
}

_SUFFIXED = re.compile(
    r"(?P<name>.+?)"
    r"(?:/versions/(?P<version>[^/:]+)|/labels/(?P<label>[^/:]+))?"
    r"(?P<suffix>:predict|:classify|:regress|/metadata)?",
    re.IGNORECASE | re.DOTALL,
)
_PREFIX = f"{_MODELS}/"


def match(method: str, raw_path: bytes, models: Mapping[str, Model]) -> Matched:
    """Find the row for a request's method and undecoded path, without its query.

    Under `/v1/models/` the longest configured name wins, then the suffix, so the answer depends
    on which models there are. Raises `UnknownRoute`, `MethodNotAllowed`, `InvalidRequest`.
    """
    matched = _find(method, raw_path, models)
    _check_method("GET" if method == "HEAD" else method, matched.operation)
    return matched


def allowed(raw_path: bytes, models: Mapping[str, Model]) -> str:
    """Return the methods that a path is served for, as `Allow` lists them. Raises as `match`."""
    method = _find("OPTIONS", raw_path, models).operation.method
    return "GET, HEAD, OPTIONS" if method == "GET" else f"{method}, OPTIONS"


def _find(method: str, raw_path: bytes, models: Mapping[str, Model]) -> Matched:
    path = _decoded(raw_path)
    operation = BY_PATH.get(path)
    if operation is None and path[: len(_PREFIX)].lower() == _PREFIX:
        matched = _under_models(path[len(_PREFIX) :], models)
    elif operation is not None:
        matched = Matched(operation)
    else:
        raise UnknownRoute(
            f"nothing is served at {method} {path[:200]!r}; the gateway's documentation "
            "lists its endpoints"
        )
    return matched


def front_of(raw_path: bytes) -> Front:
    """Return the protocol whose error shape fits a path that matched nothing."""
    path = raw_path.lower()
    if path.startswith(b"/v1/messages"):
        return ANTHROPIC
    if path.startswith((b"/v2/embed", b"/v2/rerank")):
        return COHERE
    if path.startswith(b"/v1/models/") and re.search(rb":[a-z]+$|/(versions|labels)/", path):
        return TFS
    return OPENAI


def _decoded(raw_path: bytes) -> str:
    path = unquote_to_bytes(raw_path) if b"%" in raw_path else raw_path
    try:
        text = path.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest("the path is not UTF-8") from None
    if not text.isprintable():
        raise InvalidRequest("the path holds control characters")
    return text


def _under_models(rest: str, models: Mapping[str, Model]) -> Matched:
    if rest in models or "@" in rest:
        ref = Ref(rest) if rest in models else parse_ref(rest)
        model = models.get(ref.name)
        return _about(model, ref)
    found = _SUFFIXED.fullmatch(rest)
    if found is None:
        raise UnknownRoute("GET /v1/models lists the models; /v1/models/ alone names none")
    return _suffixed(found, models)


def _about(model: Model | None, ref: Ref) -> Matched:
    classic = model is not None and model.family is Family.CLASSIC
    return Matched(STATUS if classic else RETRIEVE_MODEL, ref)


def _suffixed(found: re.Match[str], models: Mapping[str, Model]) -> Matched:
    version, label = found["version"], found["label"]
    suffix = (found["suffix"] or "").lower()
    longest = found.string[: found.start("suffix")]
    if suffix and longest in models:  # a name that looks like a name with its version
        return Matched(BY_SUFFIX[suffix], Ref(longest))
    ref = Ref(found["name"], parse_version(version) if version else None, label)
    if not suffix and version is None and label is None:
        return _about(models.get(ref.name), ref)
    return Matched(BY_SUFFIX[suffix], ref)


def _check_method(method: str, operation: Operation) -> None:
    if method != operation.method:
        raise MethodNotAllowed(
            f"this path is served for {operation.method}, not for {method}",
            headers=((b"allow", operation.method.encode()),),
        )
