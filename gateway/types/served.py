"""What is served: built from the configuration and from probes, replaced whole, never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from gateway.types.tensors import Signatures

Headers = tuple[tuple[bytes, bytes], ...]
"""Header or metadata fields in order; names are lower case."""


class Form(StrEnum):
    """How a body is written and carried. A client asks in one, a backend speaks some."""

    OPENAI = "openai"
    TFS_REST = "tensorflow-serving-rest"
    TFS_GRPC = "tensorflow-serving-grpc"


class Family(StrEnum):
    """What kind of model stands behind a name; it decides how `/v1/models/NAME` answers."""

    LLM = "llm"
    CLASSIC = "classic"


class State(StrEnum):
    """The life of a version, in TF Serving's terms (`ModelVersionStatus.State`)."""

    START = "START"
    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    END = "END"


@dataclass(frozen=True, slots=True)
class TLS:
    """How a backend is trusted, and how the gateway shows itself to it. Paths are PEM files."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str | None = None


@dataclass(frozen=True, slots=True)
class Backend:
    """One server of models. `addresses` holds one per form that it speaks.

    `id` names it in metrics and errors, and is the key of its slots: models that share a
    server share them. `headers` carry its own credentials, never a client's. `model_config` is
    what it was started to serve, where that is known: a serialized ModelServerConfig.
    """

    id: str
    adapter: str
    addresses: Mapping[Form, str]
    headers: Headers = ()
    tls: TLS | None = None
    model_config: bytes = b""

    @property
    def forms(self) -> frozenset[Form]:
        """The forms in which this backend can be asked."""
        return frozenset(self.addresses)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `first_piece` and `idle` bound streamed answers, `total` bounds every one."""

    connect: float = 1.0
    first_piece: float = 60.0
    idle: float = 30.0
    total: float = 600.0


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA adapter as a backend holds it: its path there, and its base model's names there."""

    parents: frozenset[str]
    path: str = ""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a model and the backends that hold it; `ready` are those that answer.

    `signatures` are known where a translation between forms may need them.
    """

    model: str
    number: int
    served_name: str
    backends: tuple[Backend, ...]
    forms: frozenset[Form]
    ready: tuple[Backend, ...] = ()
    state: State = State.START
    why: str = "not probed yet"
    signatures: Signatures | None = None

    def __str__(self) -> str:
        return f"{self.model}@{self.number}"


@dataclass(frozen=True, slots=True)
class Model:
    """A name that clients may ask for. `pool` is set when versions are discovered there.

    `max_inflight` bounds the calls on each backend, `max_queue` those that wait here for one.
    `created` is when the configuration was read, in Unix seconds. A LoRA adapter's `parent` is
    the model of the configuration that it adapts, `root` its path at the backends.
    """

    name: str
    adapter: str
    family: Family
    served_name: str
    versions: Mapping[int, Version]
    pool: tuple[Backend, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
    traffic: tuple[tuple[str | int, float], ...] = ()
    aliases: tuple[str, ...] = ()
    timeouts: Timeouts = Timeouts()
    max_inflight: int = 256
    max_queue: int = 1000
    created: int = 0
    parent: str | None = None
    root: str = ""

    @property
    def discovers(self) -> bool:
        """Whether versions come from the backends rather than from the configuration."""
        return bool(self.pool)

    @property
    def backends(self) -> tuple[Backend, ...]:
        """Every backend of every version, each once, in order."""
        every = (*self.pool, *(b for v in self.versions.values() for b in v.backends))
        return tuple({b.id: b for b in every}.values())


@dataclass(frozen=True, slots=True)
class Tenant:
    """A key's owner. `models` are names or globs (`mnist*`); `digest` is the key's SHA-256.

    `reload`: it may change what backends have loaded, of the models that it may use.
    """

    name: str
    digest: bytes
    models: tuple[str, ...] = ("*",)
    reload: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The world at one moment; replaced whole. `models` has an entry per name and alias.

    `tenants` is None when the gateway is open, else maps a key's SHA-256 digest to its owner.
    """

    models: Mapping[str, Model] = field(default_factory=dict)
    tenants: Mapping[bytes, Tenant] | None = None
