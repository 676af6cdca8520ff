"""The admin API's client, and what it answers as people read it. The command line stands on it.

Answers are decoded strictly but for fields that are new: a client may be older than its gateway.
"""

from collections.abc import Iterator, Mapping, Sequence

import httpx2
import msgspec

_SECONDS = 10.0
_MAX_BYTES = 64 * 2**20
_HEADINGS = ("MODEL", "VERSION", "STATE", "LABELS", "TRAFFIC", "WAITING", "BACKEND", "IN FLIGHT")

Row = Sequence[str]


class AdminError(Exception):
    """The gateway could not be asked; the message says what to do."""


class BackendStatus(msgspec.Struct):
    """One server of models, and the calls on it now."""

    id: str
    ready: bool
    inflight: int


class VersionStatus(msgspec.Struct):
    """One version: its state, why it is so, and the calls that wait for it."""

    version: int
    state: str
    why: str
    ready: bool
    waiting: int
    backends: list[BackendStatus]


class ModelStatus(msgspec.Struct):
    """One model; `traffic` is per cent by label or number."""

    name: str
    aliases: list[str]
    labels: Mapping[str, int]
    traffic: Mapping[str, float]
    versions: list[VersionStatus]


_MODELS = msgspec.json.Decoder(list[ModelStatus])


def fetch_models(url: str, token: str | None) -> bytes:
    """Return `GET /api/models` as the gateway at `url` answers it. Raises `AdminError`."""
    base = url if "://" in url else f"http://{url}"
    token = (token or "").strip()
    if not token.isascii() or not token.isprintable():
        raise AdminError("the admin token has characters that no header may hold")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        with (
            httpx2.Client(timeout=_SECONDS, trust_env=False) as client,
            client.stream("GET", f"{base.rstrip('/')}/api/models", headers=headers) as answer,
        ):
            content = bytearray()
            for piece in answer.iter_bytes():
                content += piece
                if len(content) > _MAX_BYTES:
                    raise AdminError(f"{base} answered more than {_MAX_BYTES} bytes")
    except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as error:
        why = str(error) or type(error).__name__
        raise AdminError(
            f"no admin API at {base}: {why}; is the gateway running? --admin says where"
        ) from None
    if answer.status_code in (401, 403):
        raise AdminError(f"{base} wants its admin token: --token, or ISTHMUS_ADMIN_TOKEN")
    if answer.status_code != 200:
        raise AdminError(
            f"{base} answered {answer.status_code}; is it a gateway's admin API? --admin says where"
        )
    return bytes(content)


def read_models(content: bytes) -> list[ModelStatus]:
    """Decode what `fetch_models` returned. Raises `AdminError`."""
    try:
        return _MODELS.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AdminError(
            f"what answered is no gateway's admin API ({error}); --admin says where it is"
        ) from None


def table(models: Sequence[ModelStatus]) -> str:
    """Write models for a screen: a row for each backend of each version, and why some wait."""
    rows = [_HEADINGS, *(row for model in models for row in _model(model))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    notes = [note for model in models for note in _notes(model)]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _model(model: ModelStatus) -> Iterator[Row]:
    name = model.name
    if not model.versions:
        yield (name, "-", "-", "", "", "", "", "")
    for version in model.versions:
        labels = ", ".join(_labels(model, version.version)) or "-"
        share = _share(model, version.version)
        first: Row = (
            name,
            str(version.version),
            version.state,
            labels,
            share,
            str(version.waiting),
        )
        for backend in version.backends:
            down = "" if backend.ready else " (not ready)"
            yield (*first, f"{backend.id}{down}", str(backend.inflight))
            first = ("",) * len(first)
        name = ""


def _labels(model: ModelStatus, number: int) -> list[str]:
    return sorted(label for label, version in model.labels.items() if version == number)


def _share(model: ModelStatus, number: int) -> str:
    names = {str(number), *_labels(model, number)}
    found = [share for name, share in model.traffic.items() if name in names]
    return f"{sum(found):g}%" if found else "-"


def _notes(model: ModelStatus) -> Iterator[str]:
    numbers = {version.version for version in model.versions}
    if model.aliases:
        yield f"{model.name} is also called {', '.join(model.aliases)}"
    if not numbers:
        yield f"{model.name} has no version: no backend has reported one"
    for label, number in sorted(model.labels.items()):
        if number not in numbers:
            yield f"{model.name}@{label} is version {number}, which no backend reports"
    for version in model.versions:
        if not version.ready:
            yield f"{model.name}@{version.version} is not ready: {version.why}"
