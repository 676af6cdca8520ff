"""File → frozen configuration. Every mistake is one `file:line: key: why`; none starts anything.

`source` reads YAML and remembers lines, `shape` is the file's form and its JSON Schema,
`values` its units, `build` turns a well-formed file into `gateway.types.Configuration`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import ValidationError

from gateway.config.build import Kind, Kinds, build
from gateway.config.explain import explain
from gateway.config.shape import File
from gateway.config.source import read
from gateway.errors import ConfigError
from gateway.types import Configuration

__all__ = ["Kind", "Kinds", "load", "schema"]


def load(
    path: Path, environment: Mapping[str, str], kinds: Kinds, free_port: Callable[[], int]
) -> Configuration:
    """Read, check and build a configuration.

    `kinds` are the adapters there are, by name; `free_port` gives ports to launched backends.
    Raises `ConfigError` with every problem found.
    """
    source = read(path, environment)
    try:
        file = File.model_validate(source.data)
    except ValidationError as error:
        raise ConfigError(tuple(explain(source, error))) from None
    return build(source, file, kinds, free_port)


def schema() -> dict[str, object]:
    """Return the JSON Schema of the file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Isthmus configuration",
        **File.model_json_schema(),
    }
