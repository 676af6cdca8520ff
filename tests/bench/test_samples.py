"""What a load writes is read, and medians and ratios are formed as the page says."""

import pytest

from bench import samples
from bench.samples import DIRECT, OURS, Sample


def sample(count: int, p50: float = 100, cpu: float | None = None, failed: int = 0) -> Sample:
    return Sample(count, 1.0, failed, p50, 2 * p50, cpu, None if cpu is None else 50.0)


@pytest.mark.parametrize(
    ("values", "percent", "wanted"),
    [
        ([], 50, 0),
        ([7], 99, 7),
        ([4, 1, 3, 2], 50, 2),
        ([4, 1, 3, 2], 75, 3),
        ([4, 1, 3, 2], 76, 4),
        (list(range(1, 101)), 99, 99),
        ([1, 2], 0, 1),
    ],
)
def test_percentiles_by_nearest_rank(values: list[float], percent: float, wanted: float) -> None:
    assert samples.percentile(values, percent) == wanted


def test_a_loads_last_line_of_figures_is_read() -> None:
    output = (
        "Running 3s test\nfigures: requests=1 microseconds=1 failed=0 status=0 p50=1 p99=1\n"
        "figures: requests=300 microseconds=3000000 failed=2 status=10 p50=120 p99=450\nbye\n"
    )
    found = samples.read(output)
    assert found == Sample(290, 3.0, 12, 120, 450)
    assert found.rate == pytest.approx(96.667, abs=0.001)
    assert found.cost is None


@pytest.mark.parametrize("output", ["", "unable to connect to 127.0.0.1", "figures: requests=x\n"])
def test_a_load_without_figures_says_what_it_said(output: str) -> None:
    with pytest.raises(ValueError, match="no figures") as caught:
        samples.read(output)
    assert output.strip() in str(caught.value)


def test_medians_of_each_figure() -> None:
    rounds = {
        "nginx": [
            sample(100, p50=10, cpu=1000),
            sample(300, p50=30, cpu=6000, failed=3),
            sample(200, p50=20, cpu=6000, failed=1),
        ]
    }
    found = samples.row("nginx", rounds)
    assert (found.rate, found.cost, found.p50, found.p99) == (200, 20, 20, 40)
    assert (found.rss, found.failed) == (50, 4)


def test_ratios_are_formed_within_a_round_and_above_one_the_gateway_does_better() -> None:
    # The machine is twice as slow in the second round: the ratios don't see it.
    rounds = {
        DIRECT: [sample(1000, p50=10), sample(500, p50=30), sample(1000, p50=20)],
        OURS: [sample(200, cpu=2000), sample(100, cpu=2000), sample(180, cpu=1800)],
        "peer": [sample(100, 60, cpu=3000), sample(50, 90, cpu=3000), sample(60, 60, cpu=1200)],
    }
    found = samples.row("peer", rounds)
    assert found.faster == 2  # 2, 2, 3
    assert found.leaner == 3  # 3, 3, 2
    assert found.added == 50  # 50, 60, 40
    ours = samples.row(OURS, rounds)
    assert (ours.faster, ours.leaner, ours.added) == (None, None, 80)
    assert samples.row(DIRECT, rounds).added is None


def test_a_round_without_figures_is_left_out_of_its_pairs() -> None:
    rounds = {
        OURS: [None, sample(400, cpu=1), sample(600, cpu=1)],
        "peer": [sample(1, cpu=1), sample(100, cpu=1), None],
    }
    assert samples.row("peer", rounds).faster == 4
    assert samples.row(OURS, rounds).rate == 500


def test_a_peer_without_any_figures_says_why() -> None:
    assert samples.row("smg", {}, "is not installed").absent == "is not installed"
    gone = samples.row("smg", {"smg": [None, None]})
    assert (gone.rate, gone.absent) == (None, "gave no figures")


def test_nothing_is_divided_by_nothing() -> None:
    assert Sample(0, 0.0, 0, 0, 0, 5.0).rate == 0
    assert Sample(0, 1.0, 0, 0, 0, 5.0).cost is None
    assert samples.over(1.0, 0.0) is None
    assert samples.over(None, 1.0) is None
