"""How GraphQL's values become inputs: what Strawberry looks up for each value, here each type looks up once."""

from collections.abc import Mapping
from dataclasses import MISSING
from functools import cached_property
from typing import Any

import strawberry
from strawberry.schema.compat import is_scalar
from strawberry.types.arguments import InputContext
from strawberry.types.base import StrawberryObjectDefinition, StrawberryOptional
from strawberry.types.enum import StrawberryEnumDefinition


def look_up_once(schema: strawberry.Schema) -> None:
    """Let the input types of a schema build their values."""
    for known in schema.schema_converter.type_map.values():
        definition = known.definition
        if isinstance(definition, StrawberryObjectDefinition) and definition.is_input:
            definition.from_input = _Builder(schema, definition)


class _Builder:
    """Builds the values of one input type."""

    def __init__(self, schema: strawberry.Schema, definition: StrawberryObjectDefinition) -> None:
        self._schema = schema
        self._definition = definition

    @cached_property
    def _fields(self) -> list[tuple[str, str, Any, bool]]:
        """The name of each field in GraphQL and in Python, its type, and whether GraphQL's values are Python's.

        Types may name each other, so they are looked up when all are there.
        """
        fields = []
        for field in self._definition.fields:
            kind: Any = field.resolve_type(type_definition=self._definition)
            inner = kind.of_type if type(kind) is StrawberryOptional else kind
            converter = self._schema.schema_converter
            is_plain = isinstance(inner, StrawberryEnumDefinition) or is_scalar(inner, converter.scalar_registry)
            fields.append((self._schema.config.name_converter.from_field(field), field.python_name, kind, is_plain))
        return fields

    @cached_property
    def _left_out(self) -> dict[str, None]:
        """What stands for the fields that have no default."""
        return {
            field.python_name: None
            for field in self._definition.fields
            if field.default_value is MISSING and field.default_factory is MISSING
        }

    def __call__(self, kind: type, value: Mapping[str, Any], context: InputContext) -> Any:
        given: dict[str, Any] = dict(self._left_out)
        for name, python_name, field_type, is_plain in self._fields:
            if name in value:
                each = value[name]
                given[python_name] = each if is_plain else context.convert(each, field_type, name)
        return kind(**given)
