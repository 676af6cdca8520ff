"""The plot: a panel of bars for each load, as SVG.

Rules of this room: pure text, no library; the same scale within a panel, starting at nothing; a bar
that would dwarf all others is cut, and shows that it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from bench.course import Results
from bench.loads import Load
from bench.peers import Peer
from bench.samples import OURS, Row
from bench.table import rounded, rows

_WIDTH = 940
_COLUMNS = 2
_MARGIN = 24
_NAMES = 108  # for the names, left of the bars
_FIGURES = 78  # for the figures, right of them
_BAR = 24
_HEAD = 58
_GAP = 18
_DWARFING = 3.0  # times the second longest bar: longer ones are cut
_INK, _PALE = "#1f2933", "#616e7c"
_FILL, _OTHERS = "#0b69a3", "#9aa5b1"


@dataclass(frozen=True)
class Axis:
    """What a panel shows: a row's value, its unit in words, and whether a bar may be cut.

    Only where shorter is better: a cut bar never looks like less than it is worth.
    """

    value: Callable[[Row], float | None]
    words: str
    cut: bool = True


AXES: Mapping[str, Axis] = {
    "per_core": Axis(
        lambda one: 1e6 / one.cost if one.cost else None,
        "{unit}s for each second of CPU: longer is better",
        cut=False,
    ),
    "cost": Axis(lambda one: one.cost, "µs of CPU for each {unit}: shorter is better"),
    "added": Axis(lambda one: one.added, "µs added to the median over direct: shorter is better"),
}


def scale(values: Sequence[float], cut: bool = True) -> float:
    """Return the value of a bar of full length: the longest, unless it dwarfs all and is cut."""
    longest = sorted((max(value, 0.0) for value in values), reverse=True)
    if not longest or longest[0] == 0:
        return 1.0
    if cut and len(longest) > 1 and longest[1] > 0 and longest[0] > _DWARFING * longest[1]:
        return longest[1] * 1.3
    return longest[0]


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}"{more}>{escape(text)}</text>'


def _name(row: Row, x: float, y: float, more: str) -> str:
    return _text(x + _NAMES - 8, y + 15, row.peer, f' text-anchor="end" fill="{_INK}"{more}')


def _bar(row: Row, value: float, full: float, x: float, y: float, room: float) -> list[str]:
    """Draw one row: its name, its bar and its figure."""
    length = max(min(value / full, 1.0) * room, 1.0)
    weight = ' font-weight="700"' if row.peer == OURS else ""
    left = x + _NAMES
    parts = [
        _name(row, x, y, weight),
        f'<rect x="{left:.0f}" y="{y + 3:.0f}" width="{length:.1f}" height="{_BAR - 7}" rx="2"'
        f' fill="{_FILL if row.peer == OURS else _OTHERS}"/>',
        _text(left + length + 6, y + 15, rounded(value), f' fill="{_INK}"{weight}'),
    ]
    if value > full:
        cut = left + length - 22
        parts.append(
            f'<path d="M{cut:.0f} {y + _BAR:.0f} l8 -{_BAR} h7 l-8 {_BAR} z" fill="#ffffff"/>'
        )
    return parts


def _panel(load: Load, found: Sequence[Row], x: float, y: float, width: float) -> list[str]:
    """Draw one load: its title, what the bars are, and the bars."""
    axis = AXES[load.shown]
    parts = [
        _text(x, y + 18, load.title, f' font-size="16" font-weight="700" fill="{_INK}"'),
        _text(x, y + 38, axis.words.format(unit=load.unit), f' font-size="12" fill="{_PALE}"'),
    ]
    values = [axis.value(row) for row in found]
    full = scale([value for value in values if value is not None], axis.cut)
    for number, (row, value) in enumerate(zip(found, values, strict=True)):
        top = y + _HEAD - 8 + number * _BAR
        if value is None:
            parts.append(_name(row, x, top, ""))
            parts.append(_text(x + _NAMES, top + 15, "no figures", f' fill="{_PALE}"'))
        else:
            parts += _bar(row, value, full, x, top, width - _NAMES - _FIGURES)
    return parts


def _shown(load: Load, results: Results, peers: Sequence[Peer]) -> list[Row]:
    """The rows of a panel: the peers. What direct does would make all other bars short."""
    return rows(load, results, peers)[1:]


def svg(loads: Sequence[Load], results: Results, peers: Sequence[Peer]) -> str:
    """Draw all loads, two panels in a row."""
    width = (_WIDTH - 2 * _MARGIN - (_COLUMNS - 1) * 2 * _GAP) / _COLUMNS
    parts: list[str] = []
    y = float(_MARGIN)
    for start in range(0, len(loads), _COLUMNS):
        line = [(load, _shown(load, results, peers)) for load in loads[start : start + _COLUMNS]]
        for number, (load, found) in enumerate(line):
            parts += _panel(load, found, _MARGIN + number * (width + 2 * _GAP), y, width)
        y += _HEAD + _GAP + _BAR * max(len(found) for _, found in line)
    height = y + _MARGIN / 2
    names = ", ".join(load.title for load in loads)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}"'
        f' width="{_WIDTH}" height="{height:.0f}" role="img"'
        f' font-family="system-ui, sans-serif" font-size="13">'
    )
    title = f"<title>{escape(f'The gateway beside its peers: {names}')}</title>"
    ground = f'<rect width="{_WIDTH}" height="{height:.0f}" rx="8" fill="#ffffff"/>'
    return "\n".join([head, title, ground, *parts, "</svg>\n"])
