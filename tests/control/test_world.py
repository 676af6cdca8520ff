"""What probes saw, made into the world: which versions there are, which are ready, and why not."""

from dataclasses import replace

import pytest

from gateway.control.world import place, snapshot, wanted_names
from gateway.types import (
    Backend,
    Configuration,
    Family,
    Form,
    Limits,
    Model,
    Seen,
    Server,
    State,
    Tenant,
    Version,
)

START, LOADING, AVAILABLE, UNLOADING, END = State

SERVER = Server(None, None, None, None)


def backend(name: str, *forms: Form) -> Backend:
    return Backend(name, "any", dict.fromkeys(forms or (Form.TFS_REST,), name))


A, B = backend("a"), backend("b")


def numbered(*versions: tuple[int, tuple[Backend, ...]], served: str = "m") -> Model:
    return Model(
        "m",
        "any",
        Family.CLASSIC,
        served,
        {
            number: Version(
                "m", number, served, pool, frozenset.intersection(*(b.forms for b in pool))
            )
            for number, pool in versions
        },
    )


def followed(*pool: Backend, served: str = "m") -> Model:
    return Model("m", "any", Family.CLASSIC, served, {}, pool=pool)


def world(model: Model, sights: dict[str, Seen]) -> Model:
    """The model as it is once probes of backends, by id, saw this."""
    seen = {("any", name): one for name, one in sights.items()}
    return snapshot(Configuration(SERVER, Limits(), (model,)), seen).models["m"]


def holds(**states: State | dict[int | None, State]) -> Seen:
    """A backend that is up, and the states of each name that it serves."""
    return Seen(True, "", {k: v if isinstance(v, dict) else {None: v} for k, v in states.items()})


DOWN = Seen(False, "refused")


@pytest.mark.parametrize(
    ("sights", "state", "ready", "why"),
    [
        ({}, START, "", "a: not probed yet"),
        ({"a": DOWN}, START, "", "a: refused"),
        ({"a": DOWN, "b": DOWN}, START, "", "a: refused"),
        ({"a": holds(m=AVAILABLE)}, AVAILABLE, "a", ""),
        ({"a": DOWN, "b": holds(m=AVAILABLE)}, AVAILABLE, "b", ""),
        ({"a": holds(m=AVAILABLE), "b": holds(m=AVAILABLE)}, AVAILABLE, "ab", ""),
        ({"a": holds(m={1: AVAILABLE}), "b": DOWN}, AVAILABLE, "a", ""),
        ({"a": holds(m={1: LOADING}), "b": DOWN}, LOADING, "", "a: holds it in state LOADING"),
        ({"a": DOWN, "b": holds(m={1: LOADING})}, LOADING, "", "b: holds it in state LOADING"),
        ({"a": holds(m={1: END})}, END, "", "a: holds it in state END"),
        ({"a": holds(m={1: UNLOADING})}, UNLOADING, "", "a: holds it in state UNLOADING"),
        ({"a": holds(m={2: AVAILABLE})}, START, "", "a: does not hold version 1 of 'm'"),
        ({"a": holds(m={})}, START, "", "a: does not hold version 1 of 'm'"),
        ({"a": holds()}, START, "", "a: does not serve 'm'; it serves nothing"),
        ({"a": holds(x=AVAILABLE, k=END)}, START, "", "a: does not serve 'm'; it serves k, x"),
        ({"a": holds(m={1: LOADING}), "b": holds(m={1: AVAILABLE})}, AVAILABLE, "b", ""),
        ({"z": holds(m=AVAILABLE)}, START, "", "a: not probed yet"),
    ],
)
def test_a_numbered_version(sights: dict[str, Seen], state: State, ready: str, why: str) -> None:
    one = world(numbered((1, (A, B))), sights).versions[1]
    assert one.state is state
    assert "".join(b.id for b in one.ready) == ready
    assert one.why == why


def test_versions_are_judged_each_by_its_own_backends() -> None:
    model = world(numbered((2, (B,)), (1, (A,))), {"a": holds(m=AVAILABLE), "b": DOWN})
    assert {n: bool(v.ready) for n, v in model.versions.items()} == {1: True, 2: False}
    assert list(model.versions) == [1, 2]


def test_the_backends_name_for_a_model_counts() -> None:
    model = numbered((1, (A,)), served="other")
    assert world(model, {"a": holds(other=AVAILABLE)}).versions[1].ready
    assert not world(model, {"a": holds(m=AVAILABLE)}).versions[1].ready


@pytest.mark.parametrize(
    ("sights", "versions"),
    [
        ({}, {}),
        ({"a": DOWN, "b": DOWN}, {}),
        ({"a": holds(m={1: AVAILABLE}), "b": DOWN}, {1: ("a", "a")}),
        ({"a": holds(m={1: AVAILABLE}), "b": holds(m={1: AVAILABLE})}, {1: ("ab", "ab")}),
        ({"a": holds(m={1: AVAILABLE}), "b": holds(m={2: LOADING})}, {1: ("a", "a"), 2: ("b", "")}),
        ({"a": holds(m={2: AVAILABLE}), "b": holds(m={2: LOADING})}, {2: ("ab", "a")}),
        ({"a": holds(m={3: END, 4: UNLOADING})}, {4: ("a", "")}),
        ({"a": holds(x={1: AVAILABLE})}, {}),
        ({"a": holds(m={None: AVAILABLE})}, {}),
    ],
)
def test_discovered_versions(sights: dict[str, Seen], versions: dict[int, tuple[str, str]]) -> None:
    """Per version: who holds it, and who of them is ready."""
    found = world(followed(A, B), sights).versions
    shown = {
        n: ("".join(b.id for b in v.backends), "".join(b.id for b in v.ready))
        for n, v in found.items()
    }
    assert shown == versions


def test_a_discovered_version_can_be_asked_in_the_forms_of_all_its_holders() -> None:
    both, rest = backend("a", Form.TFS_REST, Form.TFS_GRPC), backend("b", Form.TFS_REST)
    sights = {"a": holds(m={1: AVAILABLE, 2: AVAILABLE}), "b": holds(m={2: AVAILABLE})}
    found = world(followed(both, rest), sights).versions
    assert found[1].forms == {Form.TFS_REST, Form.TFS_GRPC}
    assert found[2].forms == {Form.TFS_REST}


def test_every_name_leads_to_the_same_model() -> None:
    one = Model("m", "any", Family.LLM, "m", {}, aliases=("x", "y"))
    models = snapshot(Configuration(SERVER, Limits(), (one,)), {}).models
    assert set(models) == {"m", "x", "y"}
    assert models["x"] is models["m"] is models["y"]


def test_tenants_are_kept_by_digest() -> None:
    tenant = Tenant("t", b"d")
    assert snapshot(Configuration(SERVER, Limits(), (), (tenant,)), {}).tenants == {b"d": tenant}
    assert snapshot(Configuration(SERVER, Limits(), (), ()), {}).tenants == {}
    assert snapshot(Configuration(SERVER, Limits(), ()), {}).tenants is None


def test_names_wanted_of_each_backend() -> None:
    one = numbered((1, (A,)), (2, (A, B)), served="one")
    two = followed(B, served="two")
    assert wanted_names((one, two)) == {place(A): {"one"}, place(B): {"one", "two"}}


def test_one_address_may_be_two_kinds_of_backend() -> None:
    other = Backend("a", "other", A.addresses)
    sights = {("any", "a"): holds(m=AVAILABLE), ("other", "a"): DOWN}
    one, two = numbered((1, (A,))), replace(numbered((1, (other,))), name="two")
    models = snapshot(Configuration(SERVER, Limits(), (one, two)), sights).models
    assert models["m"].versions[1].ready
    assert not models["two"].versions[1].ready
    assert wanted_names((one, two)) == {("any", "a"): {"m"}, ("other", "a"): {"m"}}
