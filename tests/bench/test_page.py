"""The table, the page and the plot, from results that are made up."""

import xml.etree.ElementTree as ET

from bench import plot, table
from bench.course import Results
from bench.loads import LOADS
from bench.peers import PEERS
from bench.samples import DIRECT, OURS, Sample

HOW = table.Circumstances("2026-01-02", 3, 3.0, 0, 1, {"cores": "2"}, "make bench")
BY_NAME = {load.name: load for load in LOADS}


def results() -> Results:
    """Every peer serves what it can, each slower than the one before; smg is not there."""
    made = Results()
    for load in LOADS:
        rounds = made.rounds.setdefault(load.name, {})
        names = [peer.name for peer in PEERS if load.kind in peer.kinds]
        for place, name in enumerate((DIRECT, *names), 1):
            cpu = None if name == DIRECT else 1000.0 * place
            one = Sample(12_000 // place, 3.0, place - 1, 50.0 * place, 99.0, cpu, 40.0, 0.02)
            rounds[name] = [one, one, one]
        if "smg" in rounds:
            rounds["smg"] = []
            made.leave(load, "smg", "can't be installed here")
    return made


def lines(name: str) -> list[list[str]]:
    load = BY_NAME[name]
    text = table.table(load, table.rows(load, results(), PEERS))
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def test_figures_have_three_digits_that_count() -> None:
    shown = [table.rounded(value) for value in (None, 0, 0.1234, 9.876, 12.34, 123.4, 54321.9)]
    assert shown == ["–", "0.00", "0.12", "9.88", "12.3", "123", "54,322"]  # noqa: RUF001
    assert table.times(1.5) == "1.50 ×"  # noqa: RUF001
    assert table.milliseconds(1500) == "1.50"


def test_direct_is_the_first_row_and_each_row_is_whole() -> None:
    head, _, direct, nginx, ours, *_ = lines("chat")
    assert head == [
        "",
        "requests/s",
        "isthmus: rate",
        "CPU µs per request",
        "isthmus: CPU",
        "p50 ms",
        "p99 ms",
        "RSS MB",
        "failed",
    ]
    assert direct[0] == "direct"
    assert direct[1:5] == ["4,000", *["–"] * 3]  # noqa: RUF001
    assert nginx[:5] == ["nginx", "2,000", "0.67 ×", "0.33", "0.44 ×"]  # noqa: RUF001
    assert ours[0] == f"**{OURS}**"
    assert {len(line) for line in lines("chat")} == {9}


def test_who_has_no_figures_says_why() -> None:
    load = BY_NAME["chat"]
    text = table.table(load, table.rows(load, results(), PEERS))
    assert "| smg: no figures |" in text
    assert text.endswith("\nsmg: can't be installed here")


def test_only_those_who_serve_a_load_stand_in_its_table() -> None:
    names = [line[0] for line in lines("grpc")[2:]]
    assert names == [DIRECT, "nginx", f"**{OURS}**", f"{OURS} compiled", "grpc.aio proxy"]


def test_the_page_is_whole() -> None:
    page = table.page(LOADS, results(), PEERS, HOW)
    for load in LOADS:
        assert f"## {load.title}\n" in page
    assert "on 2026-01-02" in page
    assert "| cores | 2 |" in page
    assert "2% of it in the median run" in page
    assert "{" not in page


def test_the_plot_has_a_panel_for_each_load_and_a_bar_for_each_row_with_figures() -> None:
    root = ET.fromstring(plot.svg(LOADS, results(), PEERS))
    space = {"": "http://www.w3.org/2000/svg"}
    texts = [node.text for node in root.findall("text", space)]
    for load in LOADS:
        assert load.title in texts
    assert texts.count(OURS) == len(LOADS)
    assert DIRECT not in texts
    assert texts.count("smg") == texts.count("no figures") == 5
    bars = root.findall("rect", space)[1:]
    assert len(bars) == len([text for text in texts if text in {p.name for p in PEERS}]) - 5
    width = float(root.attrib["width"])
    assert all(0 < float(b.attrib["x"]) + float(b.attrib["width"]) < width for b in bars)


def test_a_bar_that_would_dwarf_all_others_is_cut() -> None:
    assert plot.scale([5, 10, 8]) == 10
    assert plot.scale([100, 110, 17_000]) == 143
    assert plot.scale([100, 110, 17_000], cut=False) == 17_000
    assert plot.scale([]) == plot.scale([0]) == 1
    assert plot.scale([-5.0, 7]) == 7
