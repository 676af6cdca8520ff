"""The table and the page: what was measured, in Markdown.

Rules of this room: pure text from results; figures are rounded to what they can be trusted for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.course import Results
from bench.loads import Load
from bench.peers import Peer
from bench.samples import DIRECT, OURS, Row, row

_NONE = "\N{EN DASH}"
_PAGE = Path(__file__).with_name("page.md")
Show = Callable[[Row], str]


def rounded(value: float | None) -> str:
    """Write a figure with three digits that count."""
    if value is None:
        return _NONE
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def times(value: float | None) -> str:
    """Write a ratio."""
    return _NONE if value is None else f"{rounded(value)} \N{MULTIPLICATION SIGN}"


def milliseconds(value: float | None) -> str:
    """Write microseconds as milliseconds."""
    return rounded(None if value is None else value / 1000)


@dataclass(frozen=True)
class Column:
    """A column: its heading, with `{unit}` for what is counted, and how a row shows in it."""

    heading: str
    show: Show


COLUMNS: Mapping[str, Column] = {
    "rate": Column("{unit}s/s", lambda one: rounded(one.rate)),
    "faster": Column("isthmus: rate", lambda one: times(one.faster)),
    "cost": Column("CPU µs per {unit}", lambda one: rounded(one.cost)),
    "leaner": Column("isthmus: CPU", lambda one: times(one.leaner)),
    "p50": Column("p50 ms", lambda one: milliseconds(one.p50)),
    "p99": Column("p99 ms", lambda one: milliseconds(one.p99)),
    "added": Column("added µs", lambda one: rounded(one.added)),
    "first": Column("first piece ms", lambda one: milliseconds(one.p50)),
    "first_added": Column("added µs", lambda one: rounded(one.added)),
    "rss": Column("RSS MB", lambda one: rounded(one.rss)),
    "failed": Column("failed", lambda one: f"{one.failed:,}"),
}


def rows(load: Load, results: Results, peers: Sequence[Peer]) -> list[Row]:
    """Sum up a load: direct first, then the peers that serve it, in their order."""
    rounds = results.rounds.get(load.name, {})
    names = [DIRECT, *(peer.name for peer in peers if load.kind in peer.kinds)]
    return [row(name, rounds, results.missing(load, name)) for name in names]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def table(load: Load, found: Sequence[Row]) -> str:
    """Write one load's table; a peer without figures says why, across its row."""
    columns = [COLUMNS[name] for name in load.columns]
    headings = ["", *(column.heading.format(unit=load.unit) for column in columns)]
    lines = [_line(headings), _line(["---", *["---:"] * len(columns)])]
    notes = []
    for one in found:
        name = f"**{one.peer}**" if one.peer == OURS else one.peer
        if one.rate is None:
            lines.append(_line([f"{name}: no figures", *[_NONE] * len(columns)]))
            notes.append(f"{one.peer}: {one.absent}")
            continue
        if one.absent:
            notes.append(f"{one.peer}: {one.absent}; the figures are of the rounds before")
        lines.append(_line([name, *(column.show(one) for column in columns)]))
    return "\n".join([*lines, *(f"\n{note}" for note in notes)])


def tables(loads: Sequence[Load], results: Results, peers: Sequence[Peer]) -> str:
    """Write all loads' tables, each with what was sent."""
    parts = [
        f"## {load.title}\n\n{load.about}\n\n{table(load, rows(load, results, peers))}\n"
        for load in loads
    ]
    return "\n".join(parts)


def crowd(results: Results) -> str:
    """Say how much of the peers' core went to others."""
    shares = [
        sample.others
        for rounds in results.rounds.values()
        for samples in rounds.values()
        for sample in samples
        if sample and sample.others is not None
    ]
    if not shares:
        return "unknown"
    return f"{median(shares):.0%} of it in the median run, {max(shares):.0%} in the worst"


@dataclass(frozen=True)
class Circumstances:
    """How a course was run: what the page says beside the figures."""

    date: str
    rounds: int
    seconds: float
    peer_core: int
    load_core: int
    machine: Mapping[str, str]
    command: str


def page(loads: Sequence[Load], results: Results, peers: Sequence[Peer], how: Circumstances) -> str:
    """Write the page."""
    return _PAGE.read_text().format(
        date=how.date,
        tables=tables(loads, results, peers),
        rounds=how.rounds,
        seconds=how.seconds,
        peer=how.peer_core,
        load=how.load_core,
        machine="\n".join(_line(pair) for pair in how.machine.items()),
        command=how.command,
        others=crowd(results),
    )
