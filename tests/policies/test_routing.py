"""The better of two drawn at random."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policies.routing import better_of_two

ALMOST_ONE = math.nextafter(1, 0)


@pytest.mark.parametrize(
    ("loads", "first", "second", "choice"),
    [
        ([5], 0.9, 0.9, 0),
        ([1, 0], 0.0, 0.0, 1),
        ([0, 1], 0.9, 0.0, 0),
        ([3, 3], 0.0, 0.0, 0),
        ([3, 3], 0.9, 0.0, 1),
        ([9, 5, 7], 0.0, 0.0, 1),
        ([9, 5, 7], 0.0, 0.9, 2),
        ([9, 5, 7], ALMOST_ONE, ALMOST_ONE, 1),
        ([9, 9, 0], 0.0, 0.0, 0),
    ],
)
def test_choices(loads: list[int], first: float, second: float, choice: int) -> None:
    assert better_of_two(loads, first, second) == choice


draws = st.one_of(st.floats(0, 1, exclude_max=True), st.just(ALMOST_ONE))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), draws, draws)
def test_a_choice_is_a_backend_and_never_the_busiest_alone(
    loads: list[int], first: float, second: float
) -> None:
    choice = better_of_two(loads, first, second)
    assert 0 <= choice < len(loads)
    if len(loads) > 1:
        busiest = max(loads)
        assert loads[choice] < busiest or loads.count(busiest) > 1


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_equal_backends_are_drawn_equally(count: int) -> None:
    """Within three sigma, over 20,000 draws from one seed."""
    source = random.Random(count)
    total, part = 20_000, 1 / count
    chosen = [better_of_two([4] * count, source.random(), source.random()) for _ in range(total)]
    for index in range(count):
        assert abs(chosen.count(index) - total * part) <= 3 * math.sqrt(total * part * (1 - part))


def test_loads_stay_even() -> None:
    """Two choices keep the fullest within a few calls of the mean; one choice does not."""
    source = random.Random(7)
    loads = [0] * 20
    for _ in range(20_000):
        loads[better_of_two(loads, source.random(), source.random())] += 1
    assert max(loads) - 1000 <= 5
