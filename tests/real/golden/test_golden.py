"""Every golden vector against every target: see tests/golden/README.md.

A vector that a target does not satisfy yet stands in `NOT_YET` with the reason, and is checked to
be failing still: whoever mends the target takes the line out, so the table can only shrink.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from golden.models import make
from golden.runner import Runner
from golden.vectors import Vector, load
from real.golden.not_yet import HINTS, NOT_YET
from real.golden.support import address_of, targets

VECTORS = {vector.id: vector for vector in load()}
_ONES = {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "2"}]}, "float_val": [2.5, 4.6]}
_SPEC = {"name": "pair", "version": "1", "signature_name": "serving_default"}
# One wrong expectation of each kind, which the runner must notice.
_WRONG: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("row.half-plus-two", {"status": "201"}),
    ("row.half-plus-two", {"json": {"predictions": ["2.5"]}}),
    ("dtypes.written-short", {"json": {"predictions": []}}),
    ("dtypes.not-finite-row", {"json_text": '{"predictions": [[NaN, NaN], [3.0, NaN]]}'}),
    ("errors.unknown-model", {"error": "^Servable found"}),
    ("metadata.rest", {"json": {"model_spec": {"version": "124"}}}),
    ("several.filter-one", {"response": {"model_spec": _SPEC, "outputs": {"twice": _ONES}}}),
    ("several.filter-one", {"code": "NOT_FOUND"}),
    ("errors.unknown-model-grpc", {"code": "INVALID_ARGUMENT"}),
    ("errors.unknown-model-grpc", {"details": "^Servable found"}),
    ("metadata.grpc", {"response": {"model_spec": {"name": "other"}}}),
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden") / "models"
    make(folder)
    return folder


@pytest.fixture(scope="module", params=sorted(targets()))
def target(request: pytest.FixtureRequest, models: Path) -> Iterator[tuple[str, Runner]]:
    with targets()[request.param](models) as address, Runner(address) as runner:
        yield request.param, runner


@pytest.mark.parametrize("vector", VECTORS.values(), ids=lambda vector: vector.id)
def test_golden(target: tuple[str, Runner], vector: Vector) -> None:
    name, runner = target
    if not runner.can(vector):
        pytest.skip(f"{name} has no {vector.protocol} address")
    hint = HINTS.get(name, {}).get(vector.id)
    found = runner.run(vector if hint is None else _with_hint(vector, hint))
    reason = NOT_YET.get(name, {}).get(vector.id)
    if reason is None:
        assert not found, "\n".join([f"{vector.source}: {vector.note}", *found])
    else:
        assert found, f"{name} satisfies {vector.id} now: take it out of NOT_YET ({reason})"


def _with_hint(vector: Vector, hint: str) -> Vector:
    """The vector whose error ends with more than TF Serving's words, which come first all the same.

    Only a pattern for the whole of those words can be followed by another.
    """
    key = "error" if "error" in vector.expect else "details"
    pattern = vector.expect[key]
    assert pattern.startswith("^")
    assert pattern.endswith("$")
    return replace(vector, expect={**vector.expect, key: f"{pattern[:-1]}{hint}$"})


@pytest.mark.parametrize(("name", "wrong"), _WRONG, ids=[f"{i}-{min(w)}" for i, w in _WRONG])
def test_a_wrong_expectation_shows(
    target: tuple[str, Runner], name: str, wrong: Mapping[str, Any]
) -> None:
    vector = VECTORS[name]
    if not target[1].can(vector):
        pytest.skip(f"{target[0]} has no {vector.protocol} address")
    assert target[1].run(replace(vector, expect={**vector.expect, **wrong}))


def test_not_yet_names_vectors_that_there_are() -> None:
    tables = [*NOT_YET.values(), *HINTS.values()]
    assert {name for table in tables for name in table} <= VECTORS.keys()


@pytest.mark.parametrize("text", ["", "here", "host:1", "host:1,host:port", "host:1,host:2,"])
def test_an_address_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="ISTHMUS_TFS"):
        address_of(text)
