"""Every list of the schema, and every list in each: the largest documents that ask for them, and data for these."""

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLUnionType,
    get_named_type,
    get_nullable_type,
    is_leaf_type,
    is_list_type,
    is_required_argument,
    is_required_input_field,
)

from app.web.graphql_documents import SCHEMA
from tests.web.walk import VALUES

#: What lists hold that are no pages.
LISTED: Final = 100
Composite = GraphQLObjectType | GraphQLInterfaceType | GraphQLUnionType


@dataclass(frozen=True)
class Step:
    """A field on the way to a list, and the object type that it is a field of."""

    owner: GraphQLObjectType
    name: str

    @property
    def field(self) -> GraphQLField:
        """The field."""
        field: GraphQLField = self.owner.fields[self.name]
        return field

    @property
    def is_page(self) -> bool:
        """Whether it is a connection."""
        return "first" in self.field.args

    @property
    def is_list(self) -> bool:
        """Whether it answers with objects, and not with one."""
        return self.is_page or (is_list_type(get_nullable_type(self.field.type)) and not is_leaf_type(self.item))

    @property
    def item(self) -> Any:
        """The type that it answers with, or of its items."""
        named = get_named_type(self.field.type)
        if not self.is_page:
            return named
        assert isinstance(named, GraphQLObjectType)
        edge = get_named_type(named.fields["edges"].type)
        assert isinstance(edge, GraphQLObjectType)
        return get_named_type(edge.fields["node"].type)


def objects(kind: Composite) -> list[GraphQLObjectType]:
    """Return the object types that a type stands for."""
    return [kind] if isinstance(kind, GraphQLObjectType) else list(SCHEMA.get_possible_types(kind))


def _steps(kind: Composite) -> Iterator[Step]:
    for owner in objects(kind):
        for name, field in owner.fields.items():
            if not is_leaf_type(get_named_type(field.type)):
                yield Step(owner, name)


def lists_below(*kinds: Composite) -> dict[str, list[Step]]:
    """Return the shortest way to each list below these types, by the type of its items and whether it has pages.

    Lists of the same items differ in nothing that takes time. Ways lead through other lists only where no other does.
    """
    found: dict[str, list[Step]] = {}
    reached: set[str] = set()
    waiting: deque[tuple[Any, list[Step]]] = deque((kind, []) for kind in kinds)
    while waiting:
        kind, way = waiting.popleft()
        if kind.name in reached:
            continue
        reached.add(kind.name)
        for step in _steps(kind):
            here = [*way, step]
            if step.is_list:
                found.setdefault(f"{'pages' if step.is_page else 'lists'} of {step.item.name}", here)
                waiting.append((step.item, here))
            else:
                waiting.appendleft((step.item, here))
    return found


def document(way: list[Step]) -> tuple[str, dict[str, Any]]:
    """Return a document that asks for every scalar of each object on the way, in pages of the greatest size."""
    declared: list[str] = []
    variables: dict[str, Any] = {}
    asked = "__typename"
    for step in reversed(way):
        inner = f"{_scalars(step.item)} {asked}"
        if step.is_page:
            inner = f"edges {{ cursor node {{ {inner} }} }}"
        passed = ["first: 100"] if step.is_page else []
        for name, argument in step.field.args.items():
            if is_required_argument(argument):
                variable = f"v{len(variables)}"
                declared.append(f"${variable}: {argument.type}")
                variables[variable] = _value(argument.type)
                passed.append(f"{name}: ${variable}")
        arguments = f"({', '.join(passed)})" if passed else ""
        asked = f"... on {step.owner.name} {{ {step.name}{arguments} {{ {inner} }} }}"
    operation = f"{way[0].owner.name.lower()} Lists({', '.join(declared)})" if declared else way[0].owner.name.lower()
    return f"{operation} {{ {asked} }}", variables


def _scalars(kind: Composite) -> str:
    owner = widest(kind)
    return f"... on {owner.name} {{ __typename {' '.join(scalars(owner))} }}"


def widest(kind: Composite) -> GraphQLObjectType:
    """Return the object type that has most scalars."""
    return max(objects(kind), key=lambda each: len(scalars(each)))


def scalars(owner: GraphQLObjectType) -> list[str]:
    """Return the names of the scalars of a type."""
    return [
        name
        for name, field in owner.fields.items()
        if is_leaf_type(get_named_type(field.type)) and not any(map(is_required_argument, field.args.values()))
    ]


def _value(kind: GraphQLInputType) -> Any:
    if isinstance(kind, GraphQLNonNull):
        return _value(kind.of_type)
    if isinstance(kind, GraphQLList):
        return [_value(kind.of_type)]
    if isinstance(kind, GraphQLEnumType):
        return next(iter(kind.values))
    if isinstance(kind, GraphQLInputObjectType):
        return {name: _value(each.type) for name, each in kind.fields.items() if is_required_input_field(each)}
    return VALUES.get(kind.name, "x")


class Data:
    """Answers every field of a document, with lists as long as they may be, and counts the fields."""

    def __init__(self, way: list[Step], *, loads: bool) -> None:
        """Objects are answered at once, or loaded as the engine's are."""
        self._types = {step.owner.name for step in way}
        self._loads = loads
        self.fields = 0
        #: How many objects were loaded together, each time that some were.
        self.batches: list[int] = []

    def resolve(self, source: Any, info: GraphQLResolveInfo[Any], /, **arguments: Any) -> Any:
        """Answer one field."""
        self.fields += 1
        kind = get_nullable_type(info.return_type)
        named: Any = get_named_type(kind)
        if is_leaf_type(named):
            value = next(iter(named.values)) if isinstance(named, GraphQLEnumType) else VALUES.get(named.name, "x")
            return [value] if is_list_type(kind) else value
        owner = next((each for each in objects(named) if each.name in self._types), widest(named))
        value = {"__typename": owner.name, "first": arguments.get("first", source and source.get("first"))}
        if is_list_type(kind):
            return [value] * (value["first"] or LISTED)
        return self._load(info, self.fields, value) if self._loads else value

    async def _load(self, info: GraphQLResolveInfo[Any], number: int, value: Any) -> Any:
        return await info.context.load(self._batch, number, value["__typename"], value["first"])

    async def _batch(self, _viewer: object, keys: list[int], typename: str, first: int | None) -> dict[int, Any]:
        await asyncio.sleep(0)
        self.batches.append(len(keys))
        return {key: {"__typename": typename, "first": first} for key in keys}
