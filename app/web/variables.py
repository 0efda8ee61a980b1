"""The variables of an operation, whose types are looked up once."""

from typing import Any

from graphql import (
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    get_nullable_type,
    get_variable_values,
    is_leaf_type,
    is_non_null_type,
)
from graphql.execution.get_variable_signature import GraphQLVariableSignature, get_variable_signature
from graphql.execution.values import VariableValues, VariableValueSource, input_is_nested_too_deeply
from graphql.pyutils import Undefined
from graphql.utilities import coerce_input_value


class Variables:
    """What an operation declares."""

    def __init__(self, schema: GraphQLSchema, operation: OperationDefinitionNode) -> None:
        """Look the types up. The document is valid."""
        self._schema = schema
        self._declared = operation.variable_definitions or ()
        signatures = [get_variable_signature(schema, declared) for declared in self._declared]
        self._signatures = [each for each in signatures if isinstance(each, GraphQLVariableSignature)]
        #: The types of those whose values have no depth.
        self._leaves = {
            each.name: kind for each in self._signatures if is_leaf_type(kind := get_nullable_type(each.type))
        }

    def read(
        self, given: dict[str, Any], errors_max: int, *, hide_suggestions: bool
    ) -> VariableValues | list[GraphQLError]:
        """Return the values as resolvers take them, or what is wrong with them. Safe to call in another thread."""
        values = self._read(given)
        if values is not None:
            return values
        return get_variable_values(self._schema, self._declared, given, errors_max, hide_suggestions)

    def _read(self, given: dict[str, Any]) -> VariableValues | None:
        """Return the values if each is good, or left out without a default."""
        sources: dict[str, VariableValueSource] = {}
        coerced: dict[str, Any] = {}
        for signature in self._signatures:
            name, kind = signature.name, signature.type
            value = given.get(name, Undefined)
            if value is Undefined:
                if signature.default is not None or is_non_null_type(kind):
                    return None
                sources[name] = VariableValueSource(signature)
                continue
            leaf = self._leaves.get(name)
            if leaf is None and input_is_nested_too_deeply(value, kind):
                return None
            try:
                if leaf is None or value is None:
                    read = coerce_input_value(value, kind)
                else:
                    read = leaf.coerce_input_value(value)
            except Exception:  # noqa: BLE001  (it comes again)
                return None
            if read is Undefined:
                return None
            sources[name] = VariableValueSource(signature, value)
            coerced[name] = read
        return VariableValues(sources, coerced)
