"""Variables that don't fit their types: where, and what was expected, never the value, which may be a secret."""

import re
from typing import Final

from graphql import (
    GraphQLEnumType,
    GraphQLError,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLSchema,
    VariableDefinitionNode,
    get_named_type,
    get_nullable_type,
    is_input_object_type,
    is_list_type,
)
from graphql.execution.get_variable_signature import get_variable_signature

#: The parts of a path as messages have it: names of fields, and places in lists.
_PART: Final = re.compile(r"\.(\w+)|\[\d+\]")
#: What a message begins with that misses a field. All before the value is of the schema.
_MISSING: Final = re.compile(r"Expected value of type '\w+' to include required field '(\w+)'")
_UNKNOWN: Final = re.compile(r"Expected value of type '\w+' not to include unknown field '")
#: Scalars of our own, whose errors say what is expected and not what was sent.
_SCALARS: Final = ("DateTime ", "BigInt ")


def without_values(errors: list[GraphQLError], schema: GraphQLSchema, *, names_hidden: bool) -> list[GraphQLError]:
    """Return errors of variables as anybody may read them; names of the schema that weren't sent may be hidden."""
    return [_without_value(error, schema, names_hidden) for error in errors]


def _without_value(error: GraphQLError, schema: GraphQLSchema, names_hidden: bool) -> GraphQLError:
    cause, definition = error.original_error, error.nodes[0] if error.nodes else None
    if not isinstance(cause, GraphQLError) or not isinstance(definition, VariableDefinitionNode):
        # Of the document, or of all variables at once.
        return error
    place = error.message.removesuffix(cause.message)
    path = place.removeprefix(f"Variable '${definition.variable.name.value}' has invalid value").removesuffix(": ")
    signature = get_variable_signature(schema, definition)
    if isinstance(signature, GraphQLError):
        return error
    expected = _expected(signature.type, path, cause.message, names_hidden)
    return GraphQLError(f"{place}{expected}.", definition)


def _expected(type_: GraphQLInputType, path: str, why: str, names_hidden: bool) -> str:
    """Return what is expected at a path of a variable of this type, if `why` is what is wrong there."""
    for part in _PART.finditer(path):
        held = get_nullable_type(type_)
        # A list may be left out around its only item.
        while part[1] is not None and is_list_type(held):
            held = get_nullable_type(held.of_type)
        if part[1] is None and is_list_type(held):
            type_ = held.of_type
        elif part[1] is not None and is_input_object_type(held):
            type_ = held.fields[part[1]].type
    if why.startswith(_SCALARS):
        return why.removesuffix(".")
    named = get_named_type(type_)
    missing = _MISSING.match(why)
    if missing is not None:
        return f"expected {named}, which needs '{missing[1]}'"
    if _UNKNOWN.match(why) and isinstance(named, GraphQLInputObjectType):
        has = "" if names_hidden else f": it has {', '.join(named.fields)}"
        return f"expected {named}, which doesn't have all these fields{has}"
    if isinstance(named, GraphQLEnumType) and not names_hidden:
        return f"expected {type_}: {', '.join(named.values)}"
    return f"expected {type_}"
