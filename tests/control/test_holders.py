"""Who holds what, within a bound."""

from gateway.control.holders import Holder, Holders

A = Holder("http://a", "chat", 1, "team-a")
B = Holder("http://b", "chat", 1, "team-b")


def test_what_is_noted_is_known() -> None:
    holders = Holders()
    holders.note("resp_1", A)
    holders.note("resp_2", B)
    assert (holders.get("resp_1"), holders.get("resp_2")) == (A, B)
    assert holders.get("resp_3") is None


def test_the_longest_unused_is_forgotten() -> None:
    holders = Holders(bound=3)
    for name in "abc":
        holders.note(name, A)
    holders.get("a")
    holders.note("d", A)
    assert [holders.get(name) for name in "abcd"] == [A, None, A, A]
    for n in range(1000):
        holders.note(f"more{n}", Holder(f"http://{n}", "chat", n, ""))
    assert len(holders) == 3


def test_an_id_moves_with_its_tenant_but_not_to_another() -> None:
    holders = Holders()
    holders.note("resp_1", A)
    holders.note("resp_1", B)
    assert holders.get("resp_1") == A
    holders.note("resp_1", A._replace(tenant=None))
    assert holders.get("resp_1") == A
    elsewhere = A._replace(backend="http://c")
    holders.note("resp_1", elsewhere)
    assert holders.get("resp_1") == elsewhere
