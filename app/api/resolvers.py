"""Resolvers as graphql-core calls them: what Strawberry looks up for every call and every value is looked up once."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING
from functools import cached_property
from typing import Any

import strawberry
from graphql import GraphQLObjectType
from strawberry.scalars import is_scalar
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.types import get_object_definition
from strawberry.types.base import StrawberryList, StrawberryObjectDefinition, StrawberryOptional
from strawberry.types.enum import StrawberryEnumDefinition
from strawberry.types.field import StrawberryField
from strawberry.types.lazy_type import LazyType

#: Makes what a resolver takes of what graphql-core hands on; None where it is the same.
Conversion = Callable[[Any], Any] | None


def look_up_once(schema: strawberry.Schema) -> None:
    """Replace the resolvers of a schema's fields. Subscriptions keep theirs: they are called once for many events."""
    inputs = Inputs(schema)
    for known in schema.schema_converter.type_map.values():
        if isinstance(known.implementation, GraphQLObjectType) and known.implementation.name != "Subscription":
            for shown in known.implementation.fields.values():
                field = shown.extensions[GraphQLCoreConverter.DEFINITION_BACKREF]
                if field.base_resolver is not None and not field.extensions:
                    shown.resolve = _resolver(schema, field, inputs)


def _resolver(schema: strawberry.Schema, field: StrawberryField, inputs: "Inputs") -> Callable[..., Any]:
    """Return a resolver that calls a field's function as Strawberry does."""
    declared: Any = field.base_resolver
    function = declared.wrapped_func
    arguments = {schema.config.name_converter.from_argument(each): each for each in field.arguments}
    taken = {name: (each.python_name, inputs.conversion(each.type)) for name, each in arguments.items()}
    about = declared.info_parameter.name if declared.info_parameter is not None else None
    owners = [each.name for each in (declared.root_parameter, declared.parent_parameter) if each is not None]
    is_method = declared.self_parameter is not None
    info_class = schema.config.info_class

    def resolve(source: Any, info: Any, /, **given: Any) -> Any:
        values = {}
        for name, value in given.items():
            python_name, convert = taken[name]
            values[python_name] = value if convert is None or value is None else convert(value)
        if about is not None:
            values[about] = info_class(info, field)
        for owner in owners:
            values[owner] = source
        return function(source, **values) if is_method else function(**values)

    return resolve


class Inputs:
    """How the values of a schema's input types are made."""

    def __init__(self, schema: strawberry.Schema) -> None:
        """Begin with none."""
        self.schema = schema
        self._known: dict[StrawberryObjectDefinition, _Input] = {}

    def conversion(self, kind: Any) -> Conversion:
        """Return how values of a type are made that aren't null. Raises TypeError for a type that no input has."""
        if isinstance(kind, LazyType):
            return self.conversion(kind.resolve_type())
        if type(kind) is StrawberryOptional:
            return self.conversion(kind.of_type)
        if isinstance(kind, StrawberryList):
            return _list(self.conversion(kind.of_type))
        registry = self.schema.schema_converter.scalar_registry
        if isinstance(kind, StrawberryEnumDefinition) or is_scalar(kind, registry):
            return None
        definition = get_object_definition(kind)
        if definition is None or not definition.is_input:
            raise TypeError(f"an argument can't be a {kind}")
        return self._known.setdefault(definition, _Input(self, definition))


def _list(convert: Conversion) -> Callable[[Iterable[Any]], list[Any]]:
    if convert is None:
        # A copy, because a default is the same list for everybody.
        return list
    return lambda values: [None if value is None else convert(value) for value in values]


class _Input:
    """Makes the values of one input type."""

    def __init__(self, inputs: Inputs, definition: StrawberryObjectDefinition) -> None:
        self._inputs = inputs
        self._definition = definition

    @cached_property
    def _fields(self) -> dict[str, tuple[str, Conversion]]:
        """What each field is in Python. Looked up with the first value: types may name each other."""
        fields = {}
        for field in self._definition.fields:
            name = self._inputs.schema.config.name_converter.from_field(field)
            kind = field.resolve_type(type_definition=self._definition)
            fields[name] = (field.python_name, self._inputs.conversion(kind))
        return fields

    @cached_property
    def _left_out(self) -> dict[str, Any]:
        """What stands for fields without a default."""
        return {
            field.python_name: None
            for field in self._definition.fields
            if field.default_value is MISSING and field.default_factory is MISSING
        }

    def __call__(self, given: Mapping[str, Any]) -> Any:
        values = self._left_out.copy()
        for name, value in given.items():
            python_name, convert = self._fields[name]
            values[python_name] = value if convert is None or value is None else convert(value)
        return self._definition.origin(**values)
