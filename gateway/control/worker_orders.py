"""What the parent and its workers ask of each other. Plain values: they travel as pickles."""

from dataclasses import dataclass

from gateway.types import Asked, Configuration, Headers, Snapshot, View


@dataclass(frozen=True, slots=True)
class World:
    """What a worker must know of the world, replaced whole: the Snapshot, and if it is settled."""

    snapshot: Snapshot
    settled: bool
    draining: bool


@dataclass(frozen=True, slots=True)
class Prepare:
    """Be the worker of that name: build everything, listen to nobody yet.

    The addresses of the configuration have their ports, which are shared by all workers.
    """

    name: str
    configuration: Configuration
    log_level: int


@dataclass(frozen=True, slots=True)
class Begin:
    """Listen, in this world."""

    world: World


@dataclass(frozen=True, slots=True)
class Figures:
    """Tell what was counted since the start, by family and labels."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Take nothing new, finish what is under way in `grace` seconds, tell the last figures."""

    grace: float


@dataclass(frozen=True, slots=True)
class Controlled:
    """A worker's question to the parent: have a `types.Control` answer a client's call.

    `seconds` are left until its deadline.
    """

    name: str
    asked: Asked
    view: View
    seconds: float
    headers: Headers
