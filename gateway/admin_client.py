"""The admin API's client, and what it answers as people read it. The command line stands on it.

Answers are decoded strictly but for fields that are new: a client may be older than its gateway.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn, TypeVar
from urllib.parse import quote

import httpx2
import msgspec

_SECONDS = 10.0
_CHANGE_SECONDS = 300.0
"""A backend may fetch an adapter from far; the gateway waits 120 s for one."""
_MAX_BYTES = 64 * 2**20
_HEADINGS = ("MODEL", "VERSION", "STATE", "LABELS", "TRAFFIC", "WAITING", "BACKEND", "IN FLIGHT")

Row = Sequence[str]
T = TypeVar("T")


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
    """One model; `traffic` is per cent by label or number, `parent` a LoRA adapter's model."""

    name: str
    aliases: list[str]
    labels: Mapping[str, int]
    traffic: Mapping[str, float]
    versions: list[VersionStatus]
    parent: str | None = None


_MODELS = msgspec.json.Decoder(list[ModelStatus])


class AdapterStatus(msgspec.Struct):
    """One LoRA adapter, and the ids of the backends that hold it, by version."""

    name: str
    path: str
    versions: dict[str, list[str]]


class Told(msgspec.Struct):
    """What became of a change at one backend."""

    backend: str
    version: int
    ok: bool
    detail: str


class Change(msgspec.Struct):
    """What became of a change at all of them."""

    name: str
    ok: bool
    backends: list[Told]


class _Refusal(msgspec.Struct):
    detail: str


class Admin:
    """The admin API at a URL. Every method raises `AdminError`."""

    def __init__(self, url: str, token: str | None) -> None:
        self._base = (url if "://" in url else f"http://{url}").rstrip("/")
        token = (token or "").strip()
        if not token.isascii() or not token.isprintable():
            raise AdminError("the admin token has characters that no header may hold")
        self._headers = {"authorization": f"Bearer {token}"} if token else {}

    def models(self) -> bytes:
        """Return `GET /api/models` as it is answered."""
        status, content = self._ask("GET", "/api/models")
        if status != 200:
            raise AdminError(
                f"{self._base} answered {status}; is it a gateway's admin API? --admin says where"
            )
        return content

    def adapters(self, model: str) -> list[AdapterStatus]:
        """Return a model's LoRA adapters."""
        status, content = self._ask("GET", _adapters(model))
        return _read(_ADAPTERS, content) if status == 200 else _refused(status, content)

    def load(self, model: str, name: str, path: str) -> Change:
        """Load a LoRA adapter on a model's backends."""
        asked = {"name": name, "path": path}
        return _changed(*self._ask("POST", _adapters(model), asked, _CHANGE_SECONDS))

    def unload(self, model: str, name: str) -> Change:
        """Unload a LoRA adapter."""
        path = f"{_adapters(model)}/{quote(name)}"
        return _changed(*self._ask("DELETE", path, None, _CHANGE_SECONDS))

    def _ask(
        self, method: str, path: str, body: object = None, seconds: float = _SECONDS
    ) -> tuple[int, bytes]:
        base = self._base
        try:
            with (
                httpx2.Client(timeout=seconds, trust_env=False) as client,
                client.stream(method, base + path, headers=self._headers, json=body) as answer,
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
        return answer.status_code, bytes(content)


def _adapters(model: str) -> str:
    return f"/api/models/{quote(model)}/adapters"


def _changed(status: int, content: bytes) -> Change:
    return _read(_CHANGE, content) if status in (200, 502) else _refused(status, content)


def _refused(status: int, content: bytes) -> NoReturn:
    try:
        told = _REFUSAL.decode(content).detail
    except (msgspec.DecodeError, UnicodeDecodeError):
        told = "is it a gateway's admin API? --admin says where"
    raise AdminError(f"answered {status}: {told}")


def _read(decoder: msgspec.json.Decoder[T], content: bytes) -> T:
    try:
        return decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AdminError(
            f"what answered is no gateway's admin API ({error}); --admin says where it is"
        ) from None


_ADAPTERS = msgspec.json.Decoder(list[AdapterStatus])
_CHANGE = msgspec.json.Decoder(Change)
_REFUSAL = msgspec.json.Decoder(_Refusal)


def read_models(content: bytes) -> list[ModelStatus]:
    """Decode what `Admin.models` returned. Raises `AdminError`."""
    return _read(_MODELS, content)


def adapters_table(adapters: Sequence[AdapterStatus]) -> str:
    """Write LoRA adapters for a screen: a row for each backend that holds one."""
    rows = [
        (adapter.name, adapter.path, version, backend)
        for adapter in adapters
        for version, backends in adapter.versions.items()
        for backend in backends
    ]
    return _lines([("ADAPTER", "PATH", "VERSION", "BACKEND"), *rows])


def change_table(change: Change) -> str:
    """Write what became of a change, a row for each backend."""
    rows = [
        (told.backend, str(told.version), "ok" if told.ok else "failed", told.detail)
        for told in change.backends
    ]
    return _lines([("BACKEND", "VERSION", "", "IN ITS WORDS"), *rows])


def table(models: Sequence[ModelStatus]) -> str:
    """Write models for a screen: a row for each backend of each version, and why some wait."""
    rows = [_HEADINGS, *(row for model in models for row in _model(model))]
    notes = [note for model in models for note in _notes(model)]
    return "\n".join([_lines(rows), *([""] if notes else []), *notes])


def _lines(rows: Sequence[Row]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


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
    if model.parent is not None:
        yield f"{model.name} is a LoRA adapter of {model.parent}"
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
