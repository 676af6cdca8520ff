"""From what was counted to what is said: samples, their medians, and the gateway's ratios.

Rules of this room: pure arithmetic, no sockets and no clocks. A ratio is formed within a round, of
two runs that followed each other, and its median taken over the rounds: what the machine does
otherwise changes slowly, and falls out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

DIRECT = "direct"
"""The row without a gateway: the load alone, straight to the upstream."""
OURS = "isthmus"

_FIGURES = re.compile(
    r"^figures: requests=(\d+) microseconds=(\d+) failed=(\d+) status=(\d+) p50=(\d+) p99=(\d+)$",
    re.MULTILINE,
)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that `percent` of all values don't exceed; 0 of none."""
    if not values:
        return 0.0
    rank = math.ceil(percent / 100 * len(values))
    return sorted(values)[max(rank, 1) - 1]


@dataclass(frozen=True)
class Sample:
    """One run of one load against one peer.

    Attributes:
        count: requests answered, or pieces that arrived.
        seconds: how long the load ran.
        failed: requests without a good answer, streams that lost pieces.
        p50, p99: latencies in microseconds; of streams, until the first piece.
        cpu: the peer's time on its core in microseconds; None where there is no peer.
        rss: its resident memory in MB after the run; None where there is no peer.
        others: the share of the peer's core that went to others meanwhile, 0 to 1.
    """

    count: int
    seconds: float
    failed: int
    p50: float
    p99: float
    cpu: float | None = None
    rss: float | None = None
    others: float | None = None

    @property
    def rate(self) -> float:
        """Requests (pieces) in each second."""
        return self.count / self.seconds if self.seconds else 0.0

    @property
    def cost(self) -> float | None:
        """Microseconds of CPU for each request (piece)."""
        return None if self.cpu is None or not self.count else self.cpu / self.count


def read(output: str) -> Sample:
    """Read the line of figures that a load writes. Raises `ValueError` when it has none."""
    found = _FIGURES.findall(output)
    if not found:
        last = output.strip().splitlines()[-1:] or ["nothing"]
        raise ValueError(f"the load wrote no figures, but: {last[0][:200]}")
    requests, microseconds, failed, status, p50, p99 = map(int, found[-1])
    return Sample(requests - status, microseconds / 1e6, failed + status, p50, p99)


@dataclass(frozen=True)
class Row:
    """What the table says of a peer: medians over the rounds, or why there are none.

    Attributes:
        rate, cost, p50, p99, rss: medians, in the units of `Sample`.
        added: p50 over that of the direct row of the same round, in microseconds.
        faster: the gateway's rate over this peer's; above 1 the gateway does better.
        leaner: this peer's CPU for each request over the gateway's; above 1 the same.
        failed: in all rounds together.
        absent: why there are no figures; empty when there are.
    """

    peer: str
    rate: float | None = None
    cost: float | None = None
    p50: float | None = None
    p99: float | None = None
    rss: float | None = None
    added: float | None = None
    faster: float | None = None
    leaner: float | None = None
    failed: int = 0
    absent: str = ""


Rounds = Mapping[str, Sequence[Sample | None]]
"""By peer, what each round gave; None where a round gave nothing."""
Value = Callable[[Sample], float | None]


def middle(samples: Sequence[Sample | None], value: Value) -> float | None:
    """Return the median of a value over the rounds that have it."""
    values = [found for one in samples if one and (found := value(one)) is not None]
    return median(values) if values else None


def paired(
    one: Sequence[Sample | None],
    other: Sequence[Sample | None],
    value: Callable[[Sample, Sample], float | None],
) -> float | None:
    """Return the median of a value of two peers' samples of the same round."""
    pairs = [(a, b) for a, b in zip(one, other, strict=False) if a and b]
    values = [found for a, b in pairs if (found := value(a, b)) is not None]
    return median(values) if values else None


def over(upper: float | None, lower: float | None) -> float | None:
    """Return a ratio, or None where it has no meaning."""
    return upper / lower if upper and lower else None


def row(peer: str, rounds: Rounds, absent: str = "") -> Row:
    """Sum up a peer's rounds."""
    samples = rounds.get(peer, ())
    if not any(samples):
        return Row(peer, absent=absent or "gave no figures")
    ours, direct = rounds.get(OURS, ()), rounds.get(DIRECT, ())
    against = () if peer in (OURS, DIRECT) else ours
    return Row(
        peer,
        rate=middle(samples, lambda one: one.rate),
        cost=middle(samples, lambda one: one.cost),
        p50=middle(samples, lambda one: one.p50),
        p99=middle(samples, lambda one: one.p99),
        rss=middle(samples, lambda one: one.rss),
        added=None if peer == DIRECT else paired(samples, direct, lambda a, b: a.p50 - b.p50),
        faster=paired(against, samples, lambda a, b: over(a.rate, b.rate)),
        leaner=paired(against, samples, lambda a, b: over(b.cost, a.cost)),
        failed=sum(one.failed for one in samples if one),
    )
