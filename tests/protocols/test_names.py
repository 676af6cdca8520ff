"""How references to models are read, and how a stranger's text is repeated."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequest, shown
from gateway.protocols.names import CLASSIC_NAME, LABEL, LLM_NAME, parse_ref, parse_version
from gateway.types import Ref

LARGEST = 2**63 - 1


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("chat", Ref("chat")),
        ("meta-llama/Llama-3.1-8B", Ref("meta-llama/Llama-3.1-8B")),
        ("qwen2.5:7b", Ref("qwen2.5:7b")),
        ("chat@2", Ref("chat", version=2)),
        ("chat@007", Ref("chat", version=7)),
        ("chat@0", Ref("chat", version=0)),
        (f"chat@{LARGEST}", Ref("chat", version=LARGEST)),
        ("chat@stable", Ref("chat", label="stable")),
        ("chat@latest", Ref("chat", label="latest")),
        ("org/chat:x@canary-2_b", Ref("org/chat:x", label="canary-2_b")),
        ("a" * 128, Ref("a" * 128)),
        ("a@" + "b" * 63, Ref("a", label="b" * 63)),
    ],
)
def test_references_are_read(text: str, ref: Ref) -> None:
    assert parse_ref(text) == ref


@pytest.mark.parametrize(
    "text",
    ["", "@", "@1", "chat@", "a@b@1", "a@@1", "-chat", ".chat", "a..b", "../etc", "a b", "é", "a\n",
     "chat\x00", "a" * 129, "a@" + "b" * 64, "chat@Stable", "chat@-1", "chat@1.0", "chat@1 ",
     "chat@ stable", f"chat@{LARGEST + 1}", "chat@" + "9" * 30, "chat@\u0661", "/chat", "chat?x"],
)  # fmt: skip
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_ref(text)
    assert caught.value.param in ("model", "version")
    assert "\n" not in caught.value.message
    assert "\x00" not in caught.value.message


@given(st.text(max_size=200))
def test_any_text_is_a_reference_or_an_invalid_request(text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        ref = parse_ref(text)
        assert LLM_NAME.fullmatch(ref.name)
        assert ref.version is None or ref.label is None
        if ref.version is None or not text.split("@")[1].startswith("0"):
            assert str(ref) == text


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("12", 12), ("0012", 12), (str(LARGEST), LARGEST)]
)
def test_versions_are_read(text: str, number: int) -> None:
    assert parse_version(text) == number


@pytest.mark.parametrize(
    "text",
    ["", "-1", "1.0", "1_000", " 1", "1\n", "latest", "²", "\u0661", str(LARGEST + 1), "1" * 99],
)
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_version(text)
    assert caught.value.param == "version"


@pytest.mark.parametrize(
    ("text", "again"),
    [
        ("plain", "plain"),
        ("é€", "é€"),
        ("a\nb", "a\\nb"),
        ("\x1b[31m", "\\x1b[31m"),
        ("x" * 80, "x" * 80),
        ("x" * 81, "x" * 80 + "…"),
        ("\udcff", "\\udcff"),
    ],
)
def test_a_strangers_text_is_repeated_printable_and_short(text: str, again: str) -> None:
    assert shown(text) == again


@given(st.text(alphabet=st.characters()))
def test_what_is_shown_is_printable_and_bounded(text: str) -> None:
    assert shown(text).isprintable()
    assert len(shown(text)) <= 81
    shown(text).encode()


@pytest.mark.parametrize(
    ("name", "llm", "classic"),
    [
        ("mnist", True, True),
        ("mnist_2.v1-b", True, True),
        ("a/b", True, False),
        ("a:b", True, False),
        ("a..b", False, False),
        ("_a", False, False),
        ("a@b", False, False),
        ("", False, False),
    ],
)
def test_names_of_each_family(name: str, llm: bool, classic: bool) -> None:
    assert bool(LLM_NAME.fullmatch(name)) is llm
    assert bool(CLASSIC_NAME.fullmatch(name)) is classic


@pytest.mark.parametrize("label", ["stable", "a", "a1", "a-b_c"])
def test_labels(label: str) -> None:
    assert LABEL.fullmatch(label)


@pytest.mark.parametrize("label", ["", "1", "A", "-a", "_a", "a.b", "a" * 64, "a\n"])
def test_no_labels(label: str) -> None:
    assert not LABEL.fullmatch(label)
