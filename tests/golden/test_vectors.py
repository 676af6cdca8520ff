"""The vectors' form: what README.md promises of each of them."""

import json
import re
from collections import Counter

import pytest
from golden.vectors import HERE, Vector, load

VECTORS = load()
_CALL = {
    "rest": ({"method", "path"}, {"body"}),
    "grpc": ({"method", "request"}, set()),
}
_FIELDS = {"status", "json", "json_text", "error", "body", "match", "floats"} | {
    "code",
    "details",
    "response",
}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.id)
def test_form(vector: Vector) -> None:
    needed, optional = _CALL[vector.protocol]
    assert needed <= vector.call.keys() <= needed | optional
    assert vector.expect.keys() <= _FIELDS
    assert vector.source
    answers = {"json", "json_text", "error", "body", "details", "response"} & vector.expect.keys()
    assert len(answers) == 1
    for pattern in (vector.expect.get("error"), vector.expect.get("details")):
        assert pattern is None or re.compile(pattern)


def test_ids_are_unique_and_begin_with_their_file() -> None:
    assert [name for name, n in Counter(v.id for v in VECTORS).items() if n > 1] == []
    groups = {path.stem.replace("_", "-") for path in HERE.glob("*.json")}
    assert {v.id.partition(".")[0] for v in VECTORS} == groups


def test_the_files_are_json_that_every_reader_takes() -> None:
    def refuse(name: str) -> None:
        raise ValueError(name)

    for path in HERE.glob("*.json"):
        assert json.loads(path.read_text(), parse_constant=refuse)["about"]
