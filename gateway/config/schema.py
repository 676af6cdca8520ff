"""The file's JSON Schema, for editors: plain, with defaults as one would write them."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from gateway.config.shape import File
from gateway.config.values import VARIABLE


class _Plain(GenerateJsonSchema):
    """No titles, which repeat the keys, and no null: what has no value is left out of the file.

    A variable may stand for any value.
    """

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        return _or_variable(super().int_schema(schema))

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return _or_variable(super().float_schema(schema))

    def str_schema(self, schema: core_schema.StringSchema) -> JsonSchemaValue:
        found = super().str_schema(schema)
        if "pattern" in found:
            found["pattern"] += f"|{VARIABLE}"
        return found

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        found = super().model_schema(schema)
        found.pop("title", None)
        for key, default in _defaults(schema["cls"]).items():
            found["properties"][key]["default"] = default
        return found


def _or_variable(schema: JsonSchemaValue) -> JsonSchemaValue:
    return {"anyOf": [schema, {"type": "string", "pattern": VARIABLE}]}


def _defaults(section: type[BaseModel]) -> Mapping[str, Any]:
    """Return what a section's keys mean when they are left out, in the file's own units."""
    written = section.model_construct().model_dump(mode="json", exclude_none=True)
    return {key: value for key, value in written.items() if value != [] and type(value) is not dict}


def schema() -> dict[str, object]:
    """Return the JSON Schema of the file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Isthmus configuration",
        **File.model_json_schema(schema_generator=_Plain),
    }
