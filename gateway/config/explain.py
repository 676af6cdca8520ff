"""Pydantic's errors in the file's own terms: `file:line: key: why`, and what to do."""

import difflib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from gateway.config.shape import File
from gateway.config.source import Source

_KINDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
}


def explain(source: Source, error: ValidationError) -> Iterator[str]:
    """Write each error as one problem of the file."""
    for item in error.errors(include_url=False):
        place = _in_file(item["loc"])
        yield source.problem(place, _why(item, place))


def _in_file(place: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Leave out the marks that Pydantic adds for a union's branch and for a mapping's key."""
    before = ("", *place)
    return tuple(
        part
        for part, last in zip(place, before, strict=False)
        if part != "[key]" and not (last == "versions" and part in ("numbered", "discover"))
    )


def _why(item: Any, place: tuple[str | int, ...]) -> str:
    kind, got = item["type"], item["input"]
    if kind == "extra_forbidden":
        return _unknown(place)
    if kind == "missing":
        return "is required here"
    if kind in _KINDS:
        return f"must be {_KINDS[kind]}, not {_shown(got)}"
    if kind == "value_error":
        return str(item["ctx"]["error"])
    message: str = item["msg"]
    return f"{message[0].lower()}{message[1:]}, not {_shown(got)}"


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a list" if isinstance(value, list) else "a mapping"
    return "nothing" if value is None else repr(value)[:60]


def _unknown(place: tuple[str | int, ...]) -> str:
    known = sorted(_section(place[:-1]).model_fields)
    close = difflib.get_close_matches(str(place[-1]), known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"is an unknown key; {hint}known here: {', '.join(known)}"


def _section(place: tuple[str | int, ...]) -> type[BaseModel]:
    """Find the section that stands at a place by following the fields' annotations."""
    section: type[BaseModel] = File
    for part in place:
        field = section.model_fields.get(str(part))
        if field is not None:
            section = next(_sections(field.annotation), section)
    return section


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections(inner)
