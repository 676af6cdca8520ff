"""The table of what is served over HTTP, and which of its rows a path means.

One table feeds the listener and the documentation. Only what stands here is ever forwarded:
a backend's other endpoints stay out of reach.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from gateway.errors import (
    GatewayError,
    InvalidRequest,
    Malformed,
    MethodNotAllowed,
    Unauthenticated,
    UnknownRoute,
)
from gateway.protocols import openai, tensorflow_serving
from gateway.protocols.anthropic import Anthropic
from gateway.protocols.audio import Audio
from gateway.protocols.cohere import Cohere
from gateway.protocols.names import MAX_VERSION, parse_ref
from gateway.protocols.openai import OpenAI
from gateway.protocols.responses import RESPONSE_ID, Responses
from gateway.protocols.tensorflow_serving import TensorFlowServing
from gateway.types import Family, Form, Front, Model, Operation, Ref, Whole

OPENAI: Front = OpenAI()
AUDIO: Front = Audio()
RESPONSES: Front = Responses()
ANTHROPIC: Front = Anthropic()
COHERE: Front = Cohere()
TFS: Front = TensorFlowServing()


class _Known:
    """`types.Front` on a path that another protocol shares: strangers can't tell which it is."""

    def __init__(self, front: Front, outside: Front) -> None:
        self._front = front
        self._outside = outside
        self.decode = front.decode
        self.encode = front.encode
        self.cut = front.cut

    def error(self, error: GatewayError) -> Whole:
        """Write an error; one that tells strangers apart has the other protocol's shape."""
        front = self._outside if isinstance(error, Unauthenticated) else self._front
        return front.error(error)


class Matched(NamedTuple):
    """A row of the table, and what the path named: a model, or what a backend keeps by its id."""

    operation: Operation
    ref: Ref | None = None
    held: str = ""


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
    "/v1/responses": Operation(
        "responses", "openai", Form.OPENAI, RESPONSES, "POST", "/v1/responses", keeps=True
    ),
    "/v1/realtime": Operation(
        "realtime", "openai", Form.OPENAI, OPENAI, "GET", "/v1/realtime", local=openai.no_realtime
    ),
    **_posts(
        AUDIO,
        "openai",
        {
            "/v1/audio/transcriptions": "transcriptions",
            "/v1/audio/translations": "translations",
        },
    ),
    **_posts(
        OPENAI,
        "openai",
        {
            "/v1/chat/completions": "chat",
            "/v1/completions": "completions",
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

# What one backend keeps, by the id in the path.
RETRIEVE_RESPONSE = Operation(
    "retrieve_response", "openai", Form.OPENAI, RESPONSES, "GET", "/v1/responses/{response_id}"
)
CANCEL_RESPONSE = Operation(
    "cancel_response",
    "openai",
    Form.OPENAI,
    RESPONSES,
    "POST",
    "/v1/responses/{response_id}/cancel",
)
BY_PATTERN: Mapping[re.Pattern[str], Operation] = {
    re.compile(re.escape(operation.path).replace(r"\{response_id\}", f"({RESPONSE_ID.pattern})")): (
        operation
    )
    for operation in (RETRIEVE_RESPONSE, CANCEL_RESPONSE)
}

# Keys are what stands behind the model (and its version or label) in a path; the operation's
# own path is what stands behind the version in the upstream's.
PREDICT = Operation("predict", "tensorflow_serving", Form.TFS_REST, TFS, "POST", ":predict")
METADATA = Operation("metadata", "tensorflow_serving", Form.TFS_REST, TFS, "GET", "/metadata")
STATUS = Operation(
    "status",
    "tensorflow_serving",
    Form.TFS_REST,
    TensorFlowServing(about=True),
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

# What a bare name shares with OpenAI's API: strangers learn nothing of the model by the shape.
_STATUS_OF_NAME = replace(STATUS, front=_Known(STATUS.front, OPENAI))
_RETRIEVE_ODD_NAME = replace(RETRIEVE_MODEL, front=_Known(OPENAI, TFS))
_MALFORMED = _Known(TFS, OPENAI)

_SUFFIXED = re.compile(
    r"(?P<name>.+?)"
    r"(?:/versions/(?P<version>[^/:]+)|/labels/(?P<label>[^/:]+))?"
    r"(?P<suffix>:predict|:classify|:regress|/metadata)?",
    re.IGNORECASE | re.DOTALL,
)
_OF_TFS = re.compile(
    r"/v1/models/.*(?::(?:predict|classify|regress)|/(?:versions|labels)(?:/.*)?|/metadata)",
    re.IGNORECASE | re.DOTALL,
)
_SCOPED = re.compile(r"/(?:versions|labels)(?:/|$)", re.IGNORECASE)
_VERB = re.compile(r":[a-z]+$", re.IGNORECASE)
_PARTS = re.compile(r"[/:]")
_DIGITS = re.compile(r"[0-9]+")
_PREFIX = f"{_MODELS}/"
_SHOWN = 256  # characters of a path in an error


_EXACT: Mapping[bytes, Matched] = {
    path.encode("ascii"): Matched(operation) for path, operation in BY_PATH.items()
}
"""Rows whose path names no model, by the path as it is mostly sent."""


def match(method: str, raw_path: bytes, models: Mapping[str, Model]) -> Matched:
    """Find the row for a request's method and undecoded path, without its query.

    Under `/v1/models/` the longest configured name wins, then the suffix, so the answer depends
    on which models there are. Raises `UnknownRoute`, `MethodNotAllowed`, `InvalidRequest` and, for
    paths that are TF Serving's, `Malformed`.
    """
    exact = _EXACT.get(raw_path)
    if exact is not None and exact.operation.method == method:
        return exact
    matched = _find(method, raw_path, models)
    _check_method(method, raw_path, matched.operation)
    return matched


def allowed(raw_path: bytes, models: Mapping[str, Model]) -> str:
    """Return the methods that a path is served for, as `Allow` lists them. Raises as `match`."""
    method = _find("OPTIONS", raw_path, models).operation.method
    return "GET, HEAD, OPTIONS" if method == "GET" else f"{method}, OPTIONS"


def _find(method: str, raw_path: bytes, models: Mapping[str, Model]) -> Matched:
    path = _decoded(raw_path)
    operation = BY_PATH.get(path)
    if operation is None and path[: len(_PREFIX)].lower() == _PREFIX:
        matched = _under_models(method, path[len(_PREFIX) :], models)
        if matched is None:
            raise _malformed(method, raw_path)
    elif operation is not None:
        matched = Matched(operation)
    else:
        matched = _held(method, path)
    return matched


def _held(method: str, path: str) -> Matched:
    for pattern, operation in BY_PATTERN.items():
        found = pattern.fullmatch(path)
        if found is not None:
            return Matched(operation, held=found[1])
    raise UnknownRoute(
        f"nothing is served at {method} {path[:200]!r}; the gateway's documentation "
        "lists its endpoints"
    )


def front_of(raw_path: bytes, error: GatewayError | None = None) -> Front:
    """Return the protocol whose error shape fits a path that can't be served, and the error.

    Whoever is not known yet gets a shape by the path alone.
    """
    operation = BY_PATH.get(raw_path.decode("latin-1"))
    if operation is not None:
        return operation.front
    path = unquote_to_bytes(raw_path).decode("latin-1")
    if path.lower().startswith("/v1/messages"):
        return ANTHROPIC
    if path.lower().startswith(("/v2/embed", "/v2/rerank")):
        return COHERE
    if _OF_TFS.fullmatch(path):
        return TFS
    return _MALFORMED if isinstance(error, Malformed) else OPENAI


def _decoded(raw_path: bytes) -> str:
    path = unquote_to_bytes(raw_path) if b"%" in raw_path else raw_path
    try:
        text = path.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest("the path is not UTF-8") from None
    if not text.isprintable():
        raise InvalidRequest("the path holds control characters")
    return text


def _under_models(method: str, rest: str, models: Mapping[str, Model]) -> Matched | None:
    """Find the row for what follows `/v1/models/`; None where TF Serving would not know it."""
    if rest in models or "@" in rest:
        return _about(rest, Ref(rest) if rest in models else parse_ref(rest), models)
    found = _SUFFIXED.fullmatch(rest)
    if found is None:
        raise UnknownRoute("GET /v1/models lists the models; /v1/models/ alone names none")
    suffix, version, label = found["suffix"] or "", found["version"], found["label"]
    longest = rest[: len(rest) - len(suffix)]
    if suffix and longest in models:  # a name that looks like a name with its version
        return _suffixed(suffix, Ref(longest))
    name = found["name"]
    if not suffix and version is None and label is None:
        return None if _is_malformed(method, rest, models) else _about(rest, Ref(name), models)
    # TF Serving's names have neither of these, and LLMs of such names are all known.
    if name not in models and _PARTS.search(name):
        return None
    if version is not None and not _DIGITS.fullmatch(version):
        return None
    return _suffixed(suffix, Ref(name, _number(version), label))


def _is_malformed(method: str, rest: str, models: Mapping[str, Model]) -> bool:
    """Whether an unknown name is rather a path of TF Serving's that went wrong."""
    name = _PARTS.split(rest, maxsplit=1)[0]
    model = models.get(name) if name != rest else None
    classic = model is not None and model.family is Family.CLASSIC
    return (
        classic
        or _SCOPED.search(rest) is not None
        or (method == "POST" and _VERB.search(rest) is not None)
    )


def _about(rest: str, ref: Ref, models: Mapping[str, Model]) -> Matched:
    model = models.get(ref.name)
    if model is not None and model.family is Family.CLASSIC:
        return Matched(_STATUS_OF_NAME, ref)
    return Matched(_RETRIEVE_ODD_NAME if _OF_TFS.fullmatch(_PREFIX + rest) else RETRIEVE_MODEL, ref)


def _suffixed(suffix: str, ref: Ref) -> Matched | None:
    """Find the row for a suffix. Paths match in any case, verbs as they are written alone."""
    operation = BY_SUFFIX.get(suffix)
    if operation is None and suffix.startswith("/"):
        operation = STATUS  # as TF Serving has it
    return None if operation is None else Matched(operation, ref)


def _number(version: str | None) -> int | None:
    if version is None:
        return None
    # The length is looked at first: to read a long run of digits takes quadratic time.
    digits = version.lstrip("0") or "0"
    if len(digits) > len(str(MAX_VERSION)) or int(digits) > MAX_VERSION:
        raise Malformed(f"Failed to convert version: {version[:64]} to numeric.", param="version")
    return int(digits)


def _malformed(method: str, raw_path: bytes) -> Malformed:
    path = raw_path[:_SHOWN].decode("utf-8", "replace")  # printable, as was checked
    return Malformed(f"Malformed request: {method[:32]} {path}")


def _check_method(method: str, raw_path: bytes, operation: Operation) -> None:
    if method == operation.method or (method == "HEAD" and operation.method == "GET"):
        return
    if operation.form is Form.TFS_REST:
        raise _malformed(method, raw_path)
    raise MethodNotAllowed(
        f"this path is served for {operation.method}, not for {method}",
        headers=((b"allow", operation.method.encode()),),
    )
