"""What was expected against what came, to the digit, and the difference as lines to read.

Pure standard library. Rules: integers, strings, keys and the order of lists are exact. A float is
the same where it is the same double, sign of zero included, and is written as a float (`1.0`, not
`1`); a vector may ask for the very same digits instead. Numbers are kept as they were written, so
that nothing is rounded before it is compared.
"""

import json
import struct
from collections.abc import Callable
from typing import Any

_LONGEST = 400  # characters of a value in a difference


class Number(str):
    """A JSON number as it was written; NaN and the infinities too."""

    __slots__ = ()

    @property
    def whole(self) -> bool:
        """Whether it is written as an integer."""
        return self.removeprefix("-").isdigit()


def parse(text: str) -> Any:
    """JSON with its numbers as written, and with NaN, Infinity and -Infinity.

    Raises:
        ValueError: no JSON.
    """
    return json.loads(text, parse_int=Number, parse_float=Number, parse_constant=Number)


def differences(
    expected: Any, actual: Any, where: str = "$", *, subset: bool = False, written: bool = False
) -> list[str]:
    """One line for each place where the two trees differ; empty where they are the same.

    Args:
        expected: a tree of dicts, lists and leaves.
        actual: the same.
        where: the path of these two, for the lines.
        subset: further keys are fine, and each expected item of a list needs one that matches it.
        written: floats must have the same digits, not just the same value.
    """

    def deeper(want: Any, got: Any, path: str) -> list[str]:
        return differences(want, got, path, subset=subset, written=written)

    if isinstance(expected, dict) and isinstance(actual, dict):
        return _objects(expected, actual, where, subset, deeper)
    if isinstance(expected, list) and isinstance(actual, list):
        return (_some if subset else _lists)(expected, actual, where, deeper)
    return [] if _same_leaf(expected, actual, written) else [_line(where, expected, actual)]


_Deeper = Callable[[Any, Any, str], list[str]]


def _objects(
    expected: dict[str, Any], actual: dict[str, Any], where: str, subset: bool, deeper: _Deeper
) -> list[str]:
    lines = [f"{where}.{key}: missing" for key in expected.keys() - actual.keys()]
    if not subset:
        extra = sorted(actual.keys() - expected.keys())
        lines += [f"{where}.{key}: not expected: {_show(actual[key])}" for key in extra]
    for key in expected.keys() & actual.keys():
        lines += deeper(expected[key], actual[key], f"{where}.{key}")
    return sorted(lines)


def _lists(expected: list[Any], actual: list[Any], where: str, deeper: _Deeper) -> list[str]:
    if len(expected) != len(actual):
        return [_line(where, expected, actual)]
    pairs = enumerate(zip(expected, actual, strict=True))
    return [line for i, (want, got) in pairs for line in deeper(want, got, f"{where}[{i}]")]


def _some(expected: list[Any], actual: list[Any], where: str, deeper: _Deeper) -> list[str]:
    return [
        f"{where}: no item like {_show(want)} in {_show(actual)}"
        for want in expected
        if all(deeper(want, got, where) for got in actual)
    ]


def _same_leaf(expected: Any, actual: Any, written: bool) -> bool:
    if type(expected) is not type(actual):
        return False
    if not isinstance(expected, Number):
        # A float here comes from protobuf, where NaN and the infinities are strings.
        return _bits(expected) == _bits(actual) if type(expected) is float else expected == actual
    if expected.whole or actual.whole or written:
        return str(expected) == str(actual)
    return _bits(float(expected)) == _bits(float(actual))


def _bits(value: float) -> bytes:
    return b"nan" if value != value else struct.pack(">d", value)


def _line(where: str, expected: Any, actual: Any) -> str:
    return f"{where}: expected {_show(expected)}, got {_show(actual)}"


def _show(value: Any) -> str:
    text = _plain(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _plain(value: Any) -> str:
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)}: {_plain(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_plain, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
