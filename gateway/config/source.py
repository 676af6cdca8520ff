"""YAML with its line numbers, and `${VAR:-default}` put in.

Plain values follow YAML 1.2's core schema (`on` and `no` are text). Substitution works on single
scalars after parsing, so a variable's value can never add keys. Aliases and merge keys are
followed here, within bounds, so that a few lines can't grow into millions.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gateway.errors import ConfigError, shown

Place = Sequence[str | int]


class Problem(NamedTuple):
    """One mistake: `text` is `file:line: key: why`."""

    line: int
    text: str


MAX_FILE = 2**20
MAX_VALUES = 100_000
_VARIABLE = re.compile(
    r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>(?:(?!\$\{)[^}])*))?\}|\$\{"
)
# A brace ends a plain value inside `{…}` and `[…]`. While YAML is parsed, those of variables are
# letters from the private use area: one for one, so that lines and columns stay.
_BRACED = re.compile(r"\$\{([^{}\n]*)\}")
_OPEN, _CLOSE = "\ue000", "\ue001"
_UNMASK = str.maketrans(_OPEN + _CLOSE, "{}")

_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")
_PLAIN = (
    ("null", re.compile(r"~|null|Null|NULL|")),
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE")),
    ("int", re.compile(r"[-+]?[0-9]{1,100}")),
    ("float", re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]{1,3})?")),
)
_VALUES: Mapping[str, Callable[[str], Any]] = {
    "null": lambda text: None,
    "bool": lambda text: text.lower() == "true",
    "int": int,
    "float": float,
    "str": str,
}
_COLLECTIONS = {f"{_TAG}map", f"{_TAG}seq"}


class _Loader(yaml.SafeLoader):
    """YAML's own syntax; what a plain scalar means is decided in this room."""

    yaml_implicit_resolvers: dict[str, Any] = {  # noqa: RUF012 - read only, as in the base class
        "<": [(_MERGE, re.compile("<<"))]
    }


@dataclass(frozen=True, slots=True)
class Source:
    """A file's data, where each part of it stands, and what was wrong with it so far."""

    path: Path
    data: Any
    lines: Mapping[tuple[str | int, ...], int]
    problems: Sequence[Problem]
    unread: Set[tuple[str | int, ...]]

    def problem(self, place: Place, why: str) -> Problem:
        """Write one problem as `file:line: key: why`.

        A part of `place` that is no key of the file is passed over, and a place that is not in
        the file has the line of what it would stand in.
        """
        real: tuple[str | int, ...] = ()
        for part in place:
            if (*real, part) in self.lines:
                real = (*real, part)
        return _problem(self.path, self.lines.get(real, 1), place, why)

    def told(self, place: Place) -> bool:
        """Whether the value at this place could not be read, which `problems` say already."""
        return tuple(place) in self.unread


def read(path: Path, environment: Mapping[str, str]) -> Source:
    """Read a YAML file. Raises `ConfigError` for one that can't be read at all.

    What is wrong with single values is in `problems`, to be told with all the rest.
    """
    text = _text(path)
    reader = _Reader(path, environment)
    try:
        root = yaml.compose(_BRACED.sub(rf"${_OPEN}\1{_CLOSE}", text), Loader=_Loader)
        if root is None or (isinstance(root, yaml.ScalarNode) and root.value in ("", "null", "~")):
            raise _unreadable(path, 1, "is empty; it needs models")
        data = reader.value(root, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        why = f"is not YAML: {error.problem or error.context}"
        raise _unreadable(path, mark.line + 1 if mark else 1, why.translate(_UNMASK)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _unreadable(path, line, "holds characters that YAML does not allow") from None
    except RecursionError:
        raise _unreadable(path, 1, "is nested too deep, or holds itself") from None
    return Source(path, data, reader.lines, reader.problems, reader.unread)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        raise _unreadable(path, 1, f"cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE:
        raise _unreadable(path, 1, f"is larger than {MAX_FILE} bytes, the limit")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _unreadable(path, line, "is not UTF-8 text") from None


def _unreadable(path: Path, line: int, why: str) -> ConfigError:
    return ConfigError((_problem(path, line, (), why).text,))


def _problem(path: Path, line: int, place: Place, why: str) -> Problem:
    key = ".".join(shown(str(part)) for part in place)
    return Problem(line, f"{path}:{line}: {key or '(the file)'}: {why}")


class _Reader:
    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        self.lines: dict[tuple[str | int, ...], int] = {}
        self.problems: list[Problem] = []
        self.unread: set[tuple[str | int, ...]] = set()
        self._path = path
        self._environment = environment
        self._count = 0
        self._open: set[int] = set()

    def value(self, node: yaml.Node, place: tuple[str | int, ...]) -> Any:
        """Build the value of a node, noting the lines of all that is in it."""
        self.lines.setdefault(place, _line(node))
        self._bound(node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        if node.tag not in _COLLECTIONS:
            self._say(place, node, f"has the tag {shown(node.tag)!r}; leave it out")
        self._open.add(id(node))
        found = (
            self._mapping(node, place)
            if isinstance(node, yaml.MappingNode)
            else [self.value(item, (*place, i)) for i, item in enumerate(node.value)]
        )
        self._open.remove(id(node))
        return found

    def _bound(self, node: yaml.Node) -> None:
        self._count += 1
        if id(node) in self._open:
            raise _unreadable(self._path, _line(node), "holds itself, by an alias")
        if self._count > MAX_VALUES:
            why = f"has more than {MAX_VALUES} values, with its aliases written out"
            raise _unreadable(self._path, _line(node), why)

    def _mapping(self, node: yaml.MappingNode, place: tuple[str | int, ...]) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged.append(value_node)
                continue
            key = self._key(key_node, place)
            if key is None:
                continue
            here = (*place, key)
            if key in found:
                self._say(here, key_node, f"stands twice; first on line {self.lines[here]}")
            else:
                self.lines[here] = _line(key_node)
                found[key] = self.value(value_node, here)
        for source in merged:
            self._merge(source, place, found)
        return found

    def _merge(self, node: yaml.Node, place: tuple[str | int, ...], found: dict[Any, Any]) -> None:
        """Add what `<<: *anchor` brings; a key that stands here already wins."""
        for source in self._sources(node, place):
            for key_node, value_node in source.value:
                self._bound(key_node)
                if key_node.tag == _MERGE:
                    self._merge(value_node, place, found)
                    continue
                key = self._key(key_node, place)
                if key is not None and key not in found:
                    self.lines[*place, key] = _line(key_node)
                    found[key] = self.value(value_node, (*place, key))

    def _sources(self, node: yaml.Node, place: tuple[str | int, ...]) -> Iterator[yaml.MappingNode]:
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(source, yaml.MappingNode):
                self._say(place, source, "merges (<<) what is no mapping")
                continue
            self._bound(source)
            self._open.add(id(source))
            yield source
            self._open.remove(id(source))

    def _key(self, node: yaml.Node, place: tuple[str | int, ...]) -> str | int | None:
        if not isinstance(node, yaml.ScalarNode):
            self._say(place, node, "has a key that is a list or a mapping; keys are words")
            return None
        text: str = node.value.translate(_UNMASK)
        kind = _kind(node, text)
        if kind == "str" and not _NOT_TEXT.search(text):
            return text
        if kind == "int":
            return int(text)
        self._say((*place, text), node, "is no text to YAML; put this key in quotes, as letters")
        return None

    def _scalar(self, node: yaml.ScalarNode, place: tuple[str | int, ...]) -> Any:
        text = node.value.translate(_UNMASK)
        if "${" in text:
            text = _VARIABLE.sub(lambda found: self._variable(found, node, place), text)
        if node.tag != f"{_TAG}str":
            self._cannot_read(place, node, f"has the tag {shown(node.tag)!r}; leave it out")
        if _NOT_TEXT.search(text):
            self._cannot_read(place, node, "holds NUL, or half of a character")
        value = _VALUES[_kind(node, text)](text)
        if value is None and place not in self.unread:
            self._no_value(node, place)
        return value

    def _no_value(self, node: yaml.ScalarNode, place: tuple[str | int, ...]) -> None:
        self.unread.add(place)
        why = "has no value; give it one, or leave the key out"
        key, colon, _ = "".join(map(str, place[-1:])).partition(":")
        if colon and place[:-1] != ("models",):  # what follows may be a secret
            why, place = "has no value; is a space missing after the colon?", (*place[:-1], key)
        self._say(place, node, why)

    def _variable(self, found: re.Match[str], node: yaml.Node, place: tuple[str | int, ...]) -> str:
        name = found["name"]
        if name is None:
            if found[0] != "$${":
                why = "has a ${ that is no ${NAME} or ${NAME:-DEFAULT}; write $${ for the text ${"
                self._cannot_read(place, node, why)
            return "${"
        value = self._environment.get(name) or found["default"]
        if value is None:
            why = f"needs the environment variable {name}: set it, or write ${{{name}:-DEFAULT}}"
            self._cannot_read(place, node, why)
        return value or ""

    def _cannot_read(self, place: tuple[str | int, ...], node: yaml.Node, why: str) -> None:
        self.unread.add(place)
        self._say(place, node, why)

    def _say(self, place: tuple[str | int, ...], node: yaml.Node, why: str) -> None:
        self.problems.append(_problem(self._path, _line(node), place, why))


def _line(node: yaml.Node) -> int:
    line: int = node.start_mark.line + 1
    return line


def _kind(node: yaml.ScalarNode, text: str) -> str:
    """Return what a scalar is: text if it is quoted, else what it looks like."""
    looks = _PLAIN if node.style is None else ()
    return next((kind for kind, look in looks if look.fullmatch(text)), "str")
