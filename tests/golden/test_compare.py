"""The comparison itself: what it lets pass, and what it must not."""

import pytest
from golden.compare import differences, parse


def _differ(expected: str, actual: str, **options: bool) -> list[str]:
    return differences(parse(expected), parse(actual), **options)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ('{"a": [1, 2.5, "x", true, null]}', '{"a":[1,2.5,"x",true,null]}'),
        ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}'),
        ("9e+06", "9000000.0"),
        ("3e-05", "0.00003"),
        ("0.33333333333333331", "0.3333333333333333"),
        ("[NaN, Infinity, -Infinity]", "[NaN, Infinity, -Infinity]"),
    ],
)
def test_the_same(expected: str, actual: str) -> None:
    assert _differ(expected, actual) == []


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("1", "1.0"),
        ("1.0", "1"),
        ("0.0", "-0.0"),
        ("9007199254740993", "9007199254740992"),
        ("9007199254740993", "9007199254740993.0"),
        ("0.333333343", "0.33333334"),
        ("1", '"1"'),
        ("true", "1"),
        ("null", "NaN"),
        ("NaN", "Infinity"),
        ("[]", "[[]]"),
        ("[1, 2]", "[2, 1]"),
        ("[1]", "[1, 2]"),
        ('{"a": 1}', "{}"),
        ("{}", '{"a": 1}'),
        ("{}", "[]"),
    ],
)
def test_not_the_same(expected: str, actual: str) -> None:
    assert _differ(expected, actual)


def test_digits_count_where_they_are_asked_for() -> None:
    assert _differ("9e+06", "9000000.0", written=True) == ["$: expected 9e+06, got 9000000.0"]
    assert _differ("[1.0, 0.1]", "[1.0, 0.1]", written=True) == []


def test_a_subset_needs_every_expected_part_and_no_more() -> None:
    rows = '{"rows": [{"v": 2, "s": "A"}, {"v": 1, "s": "A"}], "more": 1}'
    assert _differ('{"rows": [{"v": 1}]}', rows, subset=True) == []
    assert len(_differ('{"rows": [{"v": 3}]}', rows, subset=True)) == 1
    assert len(_differ('{"other": 1}', rows, subset=True)) == 1


def test_a_difference_names_its_place() -> None:
    assert _differ('{"a": [{"b": 1}]}', '{"a": [{"b": 2}]}') == ["$.a[0].b: expected 1, got 2"]
