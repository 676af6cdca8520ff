"""YAML with its line numbers, and `${VAR:-default}` put in.

Substitution works on single scalars after parsing, so a variable's value can never add keys.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gateway.errors import ConfigError

Place = Sequence[str | int]
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
_MAX_FILE = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Source:
    """A file's data, and where each part of it stands."""

    path: Path
    data: Any
    lines: Mapping[tuple[str | int, ...], int]

    def problem(self, place: Place, why: str) -> str:
        """Write one problem as `file:line: key: why`.

        A part of `place` that is no key of the file is passed over, and a place that is not in
        the file has the line of what it would stand in.
        """
        real: tuple[str | int, ...] = ()
        for part in place:
            if (*real, part) in self.lines:
                real = (*real, part)
        key = ".".join(str(part) for part in (real if len(real) == len(place) else place))
        return f"{self.path}:{self.lines.get(real, 1)}: {key or '(the file)'}: {why}"


def read(path: Path, environment: Mapping[str, str]) -> Source:
    """Read a YAML file. Raises `ConfigError`."""
    try:
        text = path.read_bytes()[:_MAX_FILE].decode()
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise ConfigError((f"{path}:1: (the file): cannot be read: {error.strerror}",)) from None
    except UnicodeDecodeError:
        raise ConfigError((f"{path}:1: (the file): is not UTF-8 text",)) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        why = f"is not YAML: {error.problem or error.context}"
        raise ConfigError((f"{path}:{line}: (the file): {why}",)) from None
    reader = _Reader(path, environment)
    data = {} if root is None else reader.value(root, ())
    if reader.problems:
        raise ConfigError(tuple(reader.problems))
    return Source(path, data, reader.lines)


class _Reader:
    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        self.lines: dict[tuple[str | int, ...], int] = {}
        self.problems: list[str] = []
        self._path = path
        self._environment = environment
        self._yaml = yaml.SafeLoader("")

    def value(self, node: yaml.Node, place: tuple[str | int, ...]) -> Any:
        """Build the value of a node, noting the lines of all that is in it."""
        self.lines.setdefault(place, node.start_mark.line + 1)
        match node:
            case yaml.MappingNode():
                return self._mapping(node, place)
            case yaml.SequenceNode():
                return [self.value(item, (*place, i)) for i, item in enumerate(node.value)]
            case _:
                return self._scalar(node, place)

    def _mapping(self, node: yaml.MappingNode, place: tuple[str | int, ...]) -> dict[Any, Any]:
        self._yaml.flatten_mapping(node)  # `<<: *anchor`
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self._yaml.construct_object(key_node, deep=True)
            here = (*place, key)
            if key in found:
                self._say(here, key_node, f"stands twice; first on line {self.lines[here]}")
                continue
            self.lines[here] = key_node.start_mark.line + 1
            found[key] = self.value(value_node, here)
        return found

    def _scalar(self, node: yaml.Node, place: tuple[str | int, ...]) -> Any:
        if node.tag == "tag:yaml.org,2002:str" and "${" in node.value:
            text = _VARIABLE.sub(lambda found: self._variable(found, node, place), node.value)
            tag = _tag_of(self._yaml, text) if _is_plain(node) else node.tag
            node = yaml.ScalarNode(tag, text, node.start_mark, node.end_mark)
        try:
            return self._yaml.construct_object(node)
        except (yaml.constructor.ConstructorError, ValueError) as error:
            self._say(place, node, f"cannot be read: {getattr(error, 'problem', error)}")
            return None

    def _variable(self, found: re.Match[str], node: yaml.Node, place: tuple[str | int, ...]) -> str:
        value = self._environment.get(found["name"]) or found["default"]
        if value is None:
            name = found["name"]
            self._say(
                place,
                node,
                f"the environment variable {name} is not set; "
                f"set it, or write ${{{name}:-DEFAULT}}",
            )
            return ""
        return value

    def _say(self, place: tuple[str | int, ...], node: yaml.Node, why: str) -> None:
        key = ".".join(str(part) for part in place)
        self.problems.append(f"{self._path}:{node.start_mark.line + 1}: {key}: {why}")


def _is_plain(node: yaml.Node) -> bool:
    return not getattr(node, "style", None)


def _tag_of(reader: yaml.SafeLoader, text: str) -> str:
    resolve: Callable[..., str] = reader.resolve
    return resolve(yaml.ScalarNode, text, (True, False))
