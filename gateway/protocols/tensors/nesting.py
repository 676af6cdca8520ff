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
    """The lists are no tensor."""


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
            raise Ragged
        sizes = set(map(len, level))
        if len(sizes) > 1:
            raise Ragged
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


def nest_text(texts: list[str], shape: tuple[int, ...]) -> list[str]:
    """Return the JSON of each row, from the text of each value in row-major order.

    The shape has a dimension at least and no 0. Raises `ValueError` as `nest` does.
    """
    if list_count(shape) > MAX_LISTS:
        raise ValueError(f"more than {MAX_LISTS} lists")
    for size in reversed(shape[1:]):
        texts = [f"[{','.join(texts[i : i + size])}]" for i in range(0, len(texts), size)]
    return texts


def list_count(shape: tuple[int, ...]) -> int:
    """How many lists the JSON of a shape has; nothing follows a dimension of size 0."""
    if 0 in shape:
        shape = shape[: shape.index(0) + 1]
    return sum(accumulate(shape[:-1], mul, initial=1)) if shape else 0
