"""Nested lists and flat ones: the shape of JSON, made and taken apart whole levels at a time.

Rules: nothing recurs, so depth costs no stack; no value is looked at in Python as long as nothing
is wrong with it. How many lists there may be is bounded, for each costs far more than its brackets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, chain
from operator import mul
from typing import Any

MAX_LISTS = 4_000_000
"""Lists in one body: some 80 bytes of memory each, where two of JSON are enough to ask for one."""

_SLICED = 4  # shorter rows than this are cheaper to cut off by `zip`


class Ragged(Exception):
    """The lists are no tensor. `at` are the indices of the first that differs, `why` says how."""

    def __init__(self, at: tuple[int, ...], why: str) -> None:
        super().__init__(why)
        self.at = at
        self.why = why


def flatten(value: Any) -> tuple[tuple[int, ...], list[Any]]:
    """Return the shape of evenly nested lists, and the values in row-major order.

    The first item of each level decides whether another level follows, as in TF Serving's reader:
    a list among values is left for whoever reads them to refuse. Raises `Ragged`.
    """
    if type(value) is not list:
        return (), [value]
    shape = [len(value)]
    level = value
    while level and type(level[0]) is list:
        if set(map(type, level)) != {list}:
            odd = next(i for i, item in enumerate(level) if type(item) is not list)
            raise Ragged(position(odd, tuple(shape)), "is no list, unlike those beside it")
        sizes = set(map(len, level))
        if len(sizes) > 1:
            first = len(level[0])
            odd = next(i for i, item in enumerate(level) if len(item) != first)
            raise Ragged(
                position(odd, tuple(shape)), f"has {len(level[odd])} items, others have {first}"
            )
        shape.append(sizes.pop())
        level = list(chain.from_iterable(level))
    return tuple(shape), level


def nest(values: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """Return row-major values as nested lists (or tuples, which are the same in JSON).

    Raises `ValueError` for a shape of more than `MAX_LISTS` lists.
    """
    if not shape:
        return values[0]
    if list_count(shape) > MAX_LISTS:
        raise ValueError(f"more than {MAX_LISTS} lists")
    if 0 in shape:
        shape = shape[: shape.index(0)]
        values = [()] * math.prod(shape)
        if not shape:
            return values[0]
    for size in reversed(shape[1:]):
        if size < _SLICED:
            values = list(zip(*[iter(values)] * size, strict=True))
        else:
            values = [values[i : i + size] for i in range(0, len(values), size)]
    return values


def list_count(shape: tuple[int, ...]) -> int:
    """How many lists the JSON of a shape has; nothing follows a dimension of size 0."""
    if 0 in shape:
        shape = shape[: shape.index(0) + 1]
    return sum(accumulate(shape[:-1], mul, initial=1)) if shape else 0


def position(index: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the indices of a value, by its place in row-major order."""
    indices: list[int] = []
    for size in reversed(shape):
        index, last = divmod(index, size)
        indices.append(last)
    return tuple(reversed(indices))


def shown_position(at: tuple[int, ...]) -> str:
    """Return indices as an error shows them: `[3][17]`."""
    return "".join(f"[{index}]" for index in at)
