"""The file as text: what is no YAML, what YAML makes of words, variables, aliases, bounds."""

import itertools
import json
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.configuring import load, loaded, problems

from gateway.config import source
from gateway.errors import ConfigError

CHAT = "models: {chat: {adapter: vllm, backends: [http://a:1]}}\n"


def read(folder: Path, text: str, **environment: str) -> source.Source:
    path = folder / "isthmus.yaml"
    path.write_text(text, encoding="utf-8")
    return source.read(path, environment)


def values(folder: Path, text: str, **environment: str) -> object:
    found = read(folder, text, **environment)
    assert not found.problems
    return found.data


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "1: (the file): is empty; it needs models"),
        (b"# nothing yet\n\n", "1: (the file): is empty; it needs models"),
        (b"---\n", "(the file): is empty; it needs models"),
        (b"null", "1: (the file): is empty; it needs models"),
        (b"${X:-}", "1: (the file): has no value"),
        (b"just words", "1: (the file): must be a mapping of keys to values, not 'just words'"),
        (b"- a\n- b\n", "1: (the file): must be a mapping of keys to values, not a list"),
        (b"models:\n  a: \xff\n", "2: (the file): is not UTF-8 text"),
        ("models: é".encode("utf-16"), "1: (the file): is not UTF-8 text"),
        (b"models:\n\tchat: 1\n", "2: (the file): is not YAML: found character '\\t'"),
        (b"models:\n  a: [1\n  b: 2\n", "(the file): is not YAML:"),
        (b"a: 'x\n\n\n", "(the file): is not YAML: found unexpected end of stream"),
        (b"a: b: c\n", "1: (the file): is not YAML: mapping values are not allowed here"),
        (b"a: *x\n", "1: (the file): is not YAML: found undefined alias 'x'"),
        (b"a: 1\n---\nb: 2\n", "2: (the file): is not YAML: but found another document"),
        (b"a: 1\nb: \x00\n", "2: (the file): holds characters that YAML does not allow"),
        (b"a: 1\n\n\x1b[31m: 1\n", "3: (the file): holds characters that YAML does not allow"),
        (b"a: ${X\n", "1: a: has a ${ that is no ${NAME} or ${NAME:-DEFAULT}; write $${"),
        (b"[" * 5000, "1: (the file): is nested too deep, or holds itself"),
        (b"- " * 5000, "1: (the file): is nested too deep, or holds itself"),
        (b"a: &a [*a]\n", "1: (the file): holds itself, by an alias"),
        (b"models: &m\n  x: *m\n", "(the file): holds itself, by an alias"),
        (b"a: &a {<<: *a, b: 1}\n", "1: (the file): holds itself, by an alias"),
        (b"a: &a {<<: [{<<: *a}]}\n", "1: (the file): holds itself, by an alias"),
        (b"<<: 1\n", "1: (the file): merges (<<) what is no mapping"),
        (b"<<: [{a: 1}, 2]\n", "1: (the file): merges (<<) what is no mapping"),
        (b"[a, b]: 1\n", "1: (the file): has a key that is a list or a mapping; keys are words"),
        (b"? {a: b}\n: 1\n", "1: (the file): has a key that is a list or a mapping"),
        (b"models: !!python/object:os.system {}\n", "1: models: has the tag"),
        (b"models: !mine [1]\n", "1: models: has the tag '!mine'; leave it out"),
        (b"a: !!binary aGk=\n", "1: a: has the tag"),
        (b"a: !!int x\n", "1: a: has the tag"),
        (b'a: "x\\0y"\n', "1: a: holds NUL, or half of a character"),
        (b'a: "\\ud800"\n', "1: a: holds NUL, or half of a character"),
        (b'"a\\0": 1\n', "is no text to YAML"),
        (b"true: 1\n", "1: true: is no text to YAML; put this key in quotes"),
        (b"~: 1\n", "1: ~: is no text to YAML; put this key in quotes"),
        (b"1.5: 1\n", "1: 1.5: is no text to YAML; put this key in quotes"),
    ],
)
def test_what_is_no_file(tmp_path: Path, content: bytes, says: str) -> None:
    found = problems(tmp_path, content)
    assert any(says in line for line in found), found


def test_what_can_not_be_read(tmp_path: Path) -> None:
    for path, why in (
        (tmp_path, "Is a directory"),
        (tmp_path / "none.yaml", "No such file or directory"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert caught.value.problems == (f"{path}:1: (the file): cannot be read: {why}",)


def test_a_huge_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    found = problems(tmp_path, CHAT.encode() + b"#" * source.MAX_FILE)
    assert found == [f"1: (the file): is larger than {source.MAX_FILE} bytes, the limit"]
    with pytest.raises(ConfigError, match="is larger than"):
        load(Path("/dev/zero"))


def bomb(levels: int, line: str) -> bytes:
    names = string.ascii_lowercase[: levels + 1]
    lines = ["a: &a {x: 1}"]
    for before, name in itertools.pairwise(names):
        lines.append(line.format(name=name, before=before))
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    "line",
    [
        "{name}: &{name} [*{before}, *{before}, *{before}, *{before}, *{before}, *{before}]",
        "{name}: &{name} {{k: *{before}, l: *{before}, m: *{before}, n: *{before}}}",
        "{name}: &{name} {{<<: [*{before}, *{before}, *{before}, *{before}, *{before}]}}",
    ],
)
def test_aliases_that_multiply_are_bounded(tmp_path: Path, line: str) -> None:
    found = problems(tmp_path, bomb(25, line))
    assert len(found) == 1
    assert "has more than 100000 values, with its aliases written out" in found[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("no", "no"),
        ("off", "off"),
        ("Yes", "Yes"),
        ("true", True),
        ("False", False),
        ("12", 12),
        ("-3", -3),
        ("007", 7),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2024-01-01", "2024-01-01"),
        ("1.5", 1.5),
        ("1e5", "1e5"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("=", "="),
        ("1" * 101, "1" * 101),
        ("'12'", "12"),
        ('"true"', "true"),
        ("|\n  12\n", "12\n"),
        ("é😀", "é😀"),
        ("[]", []),
        ("{}", {}),
    ],
)
def test_words_mean_what_yaml_1_2_says(tmp_path: Path, text: str, value: object) -> None:
    found = values(tmp_path, f"a: {text}\n")
    assert found == {"a": value}
    assert isinstance(found, dict)
    assert type(found["a"]) is type(value)


@pytest.mark.parametrize("text", ["", "~", "null"])
def test_a_key_without_a_value_is_told(tmp_path: Path, text: str) -> None:
    """`auth:` whose keys are all commented out must not open the gateway."""
    assert problems(tmp_path, f"{CHAT}auth: {text}\n") == [
        "2: auth: has no value; give it one, or leave the key out"
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A}", "x"),
        ("${B}", 12),
        ("'${B}'", "12"),
        ('"${B}"', "12"),
        ("${T}", True),
        ("a${A}b${B}c", "axb12c"),
        ("${B}${B}", 1212),
        ("${NONE:-30s}", "30s"),
        ("${NONE:-8080}", 8080),
        ("'${NONE:-}'", ""),
        ("${EMPTY:-full}", "full"),
        ("${A:-other}", "x"),
        ("${NONE:-a:-b}", "a:-b"),
        ("$${A}", "${A}"),
        ("'$${NONE}'", "${NONE}"),
        ("$A", "$A"),
        ("'$'", "$"),
        ("${YAML}", "{a: 1, b: [2]}"),
        ("|\n  ${B}\n", "12\n"),
        ("${RECURSIVE}", "${A}"),
        ("[${A}, ${NONE:-y}]", ["x", "y"]),
        ("{k: ${A}, l: ${B}}", {"k": "x", "l": 12}),
    ],
)
def test_variables(tmp_path: Path, text: str, value: object) -> None:
    environment = {"A": "x", "B": "12", "T": "true", "EMPTY": "", "YAML": "{a: 1, b: [2]}",
                   "RECURSIVE": "${A}"}  # fmt: skip
    assert values(tmp_path, f"a: {text}\n", **environment) == {"a": value}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("${NONE}", "needs the environment variable NONE: set it, or write ${NONE:-DEFAULT}"),
        ("${EMPTY}", "needs the environment variable EMPTY"),
        ("[b, '${NONE}']", "needs the environment variable NONE"),
        ("'${1A}'", "has a ${ that is no ${NAME}"),
        ("'${A-b}'", "has a ${ that is no ${NAME}"),
        ("'${A:?b}'", "has a ${ that is no ${NAME}"),
        ("'${A'", "has a ${ that is no ${NAME}"),
        ("'${A:-${B}}'", "has a ${ that is no ${NAME}"),
        ("'${}'", "has a ${ that is no ${NAME}"),
    ],
)
def test_variables_that_are_none(tmp_path: Path, text: str, says: str) -> None:
    found = problems(tmp_path, f"{CHAT}server:\n  ready_requires: {text}\n", EMPTY="")
    assert found[0].startswith("3: server.ready_requires")
    assert says in found[0]


def test_every_missing_variable_is_told_once(tmp_path: Path) -> None:
    text = "server:\n  drain: ${ONE}\n  http: ${TWO}\nlimits:\n  max_body: ${ONE}\n" + CHAT
    assert [line.split(": set")[0] for line in problems(tmp_path, text)] == [
        "2: server.drain: needs the environment variable ONE",
        "3: server.http: needs the environment variable TWO",
        "5: limits.max_body: needs the environment variable ONE",
    ]


def test_a_variable_adds_no_keys_and_no_lines(tmp_path: Path) -> None:
    name = "x\n  evil: {adapter: vllm}"
    model = loaded(tmp_path, CHAT.replace("adapter", "served_name: ${N}, adapter"), N=name).models
    assert [(one.name, one.served_name) for one in model] == [("chat", name)]


def test_keys_are_taken_as_they_stand(tmp_path: Path) -> None:
    assert values(tmp_path, "'${A}': 1\n${B}: 2\n", A="x", B="y") == {"${A}": 1, "${B}": 2}


LINES = """\
defaults: &defaults
  adapter: vllm
  max_queue: 5
  timeouts: {connect: 2s}
models:
  two:
    max_queue: 7
    <<: *defaults
  one:
    <<: [{aliases: [x]}, *defaults]
    backends:
      - http://a:1
      -
        url: http://b:1
"""


def test_lines_are_where_each_key_is_written(tmp_path: Path) -> None:
    found = read(tmp_path, LINES)
    assert found.data["models"]["two"] == {
        "adapter": "vllm", "max_queue": 7, "timeouts": {"connect": "2s"},
    }  # fmt: skip
    assert found.data["models"]["one"]["aliases"] == ["x"]
    expected = {
        ("defaults",): 1,
        ("models", "two"): 6,
        ("models", "two", "max_queue"): 7,
        ("models", "two", "adapter"): 2,
        ("models", "two", "timeouts", "connect"): 4,
        ("models", "one", "aliases"): 10,
        ("models", "one", "max_queue"): 3,
        ("models", "one", "backends", 0): 12,
        ("models", "one", "backends", 1): 14,
        ("models", "one", "backends", 1, "url"): 14,
    }
    assert {place: found.lines[place] for place in expected} == expected


def test_the_first_of_several_merged_mappings_wins(tmp_path: Path) -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], z: 3}\nd: {<<: *a, <<: *b}\n"
    found = values(tmp_path, text)
    assert isinstance(found, dict)
    assert found["c"] == {"x": 1, "y": 1, "z": 3}
    assert found["d"] == {"x": 1, "y": 1, "z": 2}


def test_duplicate_keys_are_told_with_the_first_line(tmp_path: Path) -> None:
    text = f"{CHAT}server:\n  drain: 1s\n  http: off\n  drain: 2s\nserver: {{}}\n"
    assert problems(tmp_path, text) == [
        "5: server.drain: stands twice; first on line 3",
        "6: server: stands twice; first on line 2",
    ]


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    assert problems(tmp_path, b"\xef\xbb\xbf" + CHAT.encode()) == []
    assert problems(tmp_path, CHAT.replace("\n", "\r\n")) == []


plain = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(-(10**20), 10**20),
        st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=8).filter(
            lambda text: "${" not in text and "\ue000" not in text and "\ue001" not in text
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(alphabet=string.ascii_letters, min_size=1), inner, max_size=3),
    ),
    max_leaves=10,
)


@given(
    st.dictionaries(st.text(alphabet=string.ascii_letters + "é-", min_size=1), plain, min_size=1)
)
def test_json_is_read_as_it_is(tmp_path_factory: pytest.TempPathFactory, data: object) -> None:
    """Every JSON document is YAML; its strings are quoted, so all of them stay text."""
    folder = tmp_path_factory.getbasetemp()
    assert values(folder, json.dumps(data, ensure_ascii=False)) == data


@given(st.binary(max_size=80))
def test_any_bytes_are_a_configuration_or_a_problem(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    assert problems(tmp_path_factory.getbasetemp(), content)


yamlish = st.lists(
    st.sampled_from(
        ["a", "models", ":", ": ", "\n", "  ", "- ", "[", "]", "{", "}", ",", "&x ", "*x", "<<",
         "!t ", "'", '"', "|", ">", "? ", "#", "${A}", "${", "1", "true", "null", "~", "---\n", "%"]
    ),
    max_size=25,
)  # fmt: skip


@given(yamlish)
def test_any_yaml_is_a_configuration_or_a_problem(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str]
) -> None:
    assert problems(tmp_path_factory.getbasetemp(), "".join(parts), A="x")
