"""Reads the golden vectors: their form, and nothing of how they are played.

Pure standard library, so that the files can be checked where no client is installed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from golden.compare import parse

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Vector:
    """One request and the answer that the published contract gives it; see README.md."""

    id: str
    source: str
    model: str
    call: Mapping[str, Any]
    expect: Mapping[str, Any]
    note: str

    @property
    def protocol(self) -> str:
        """`rest` or `grpc`."""
        return "rest" if "path" in self.call else "grpc"


def load(folder: Path = HERE) -> list[Vector]:
    """All vectors, file by file.

    Raises:
        ValueError: a vector lacks a field, or has one that is not known.
    """
    vectors: list[Vector] = []
    for path in sorted(folder.glob("*.json")):
        for entry in parse(path.read_text())["vectors"]:
            try:
                vectors.append(Vector(**{"note": "", **entry}))
            except TypeError as error:
                raise ValueError(f"{path.name}: {entry.get('id', '?')}: {error}") from None
    return vectors
