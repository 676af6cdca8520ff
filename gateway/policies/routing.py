"""Which backend takes a call. Pure: loads and draws in, a choice out."""

from collections.abc import Sequence


def better_of_two(loads: Sequence[int], first: float, second: float) -> int:
    """Return the index of the less loaded of two backends drawn at random.

    `first` and `second` are draws in [0, 1). Two choices keep replicas even without herding
    onto one (Mitzenmacher, "The power of two choices in randomized load balancing", 2001).
    """
    count = len(loads)
    one = int(first * count)
    if count == 1:
        return one
    other = int(second * (count - 1))
    other += other >= one  # distinct from the first
    return one if loads[one] <= loads[other] else other
