"""Which fields of a document aren't for everybody: what would lose its answer to one of them is never begun."""

from collections.abc import Iterator, Mapping
from typing import Final

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLIncludeDirective,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLSkipDirective,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionNode,
    VariableValues,
    get_directive_values,
    get_named_type,
    is_abstract_type,
)

from app.api.access import ACCESS, Otherwise, forbidden, may
from app.api.context import Role, Viewer

#: The fields whose answer can't be null, so that one that is FORBIDDEN takes the whole answer with it.
_FORBIDDING: Final = frozenset(
    coordinate for coordinate, rule in ACCESS.items() if rule.otherwise is Otherwise.FORBIDDEN
)


class Guarded:
    """The fields of an operation that some roles may not use."""

    def __init__(
        self,
        operation: OperationDefinitionNode,
        fragments: Mapping[str, FragmentDefinitionNode],
        schema: GraphQLSchema,
    ) -> None:
        self._operation = operation
        self._fragments = fragments
        self._schema = schema
        #: Its own fields. Where all of them are FORBIDDEN nothing is done, and each answers for itself.
        self._roots = frozenset(self._selected(None, deep=False))
        coordinates = frozenset(self._selected(None))
        #: The roles that may use all of them.
        self._admitted = {role for role in Role if all(may(role, coordinate) for coordinate in coordinates)}

    def refuse(self, viewer: Viewer, values: VariableValues) -> None:
        """Raise FORBIDDEN if something would be done whose answer is lost to a field that isn't for this viewer."""
        if viewer.role in self._admitted:
            return
        if not any(may(viewer.role, coordinate) for coordinate in self._roots):
            return
        for coordinate in self._selected(values):
            if not may(viewer.role, coordinate):
                raise forbidden(viewer, coordinate)

    def _selected(self, values: VariableValues | None, *, deep: bool = True) -> Iterator[str]:
        """Yield the guarded fields that are selected: with these values, or with any."""
        spread: set[str] = set()
        root = self._schema.get_root_type(self._operation.operation)
        waiting: list[tuple[SelectionNode, GraphQLNamedType | None]] = [
            (each, root) for each in self._operation.selection_set.selections
        ]
        while waiting:
            node, owner = waiting.pop()
            if owner is None or (values is not None and not _is_included(node, values)):
                continue
            if isinstance(node, FieldNode):
                for kind in self._schema.get_possible_types(owner) if is_abstract_type(owner) else [owner]:
                    if f"{kind.name}.{node.name.value}" in _FORBIDDING:
                        yield f"{kind.name}.{node.name.value}"
                if deep and node.selection_set is not None:
                    inner = _type_of(node, owner)
                    waiting += ((each, inner) for each in node.selection_set.selections)
                continue
            fragment: InlineFragmentNode | FragmentDefinitionNode | None = None
            if isinstance(node, InlineFragmentNode):
                fragment = node
            elif isinstance(node, FragmentSpreadNode) and node.name.value not in spread:
                spread.add(node.name.value)
                fragment = self._fragments[node.name.value]
            if fragment is not None:
                condition = fragment.type_condition
                narrowed = owner if condition is None else self._schema.get_type(condition.name.value)
                waiting += ((each, narrowed) for each in fragment.selection_set.selections)


def _type_of(node: FieldNode, owner: GraphQLNamedType) -> GraphQLNamedType | None:
    """Return the type of what a field holds, or None of `__typename`, which holds nothing."""
    if not isinstance(owner, GraphQLObjectType | GraphQLInterfaceType):
        return None
    field = owner.fields.get(node.name.value)
    return None if field is None else get_named_type(field.type)


def _is_included(node: SelectionNode, values: VariableValues) -> bool:
    skip = get_directive_values(GraphQLSkipDirective, node, values)
    include = get_directive_values(GraphQLIncludeDirective, node, values)
    return not (skip and skip["if"]) and (include is None or bool(include["if"]))
