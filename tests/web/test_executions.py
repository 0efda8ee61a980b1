"""Executions. Without these an answer could differ from what graphql-core and Strawberry make of the same document."""

import asyncio
from copy import deepcopy
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any, Final, cast

import pytest
import strawberry
from graphql import GraphQLInputObjectType, OperationDefinitionNode, get_variable_values, is_leaf_type, parse, validate
from graphql.type import get_named_type, get_nullable_type, is_list_type
from strawberry.scalars import JSON
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types.arguments import convert_argument
from strawberry.types.base import StrawberryObjectDefinition

from app.api.context import Context
from app.api.resolvers import Inputs, look_up_once
from app.api.turns import TurnTaking
from app.schema import schema
from app.web.graphql_documents import SCHEMA
from app.web.variables import Variables


@strawberry.enum
class Colour(Enum):
    RED = "red"


@strawberry.interface
class Named:
    name: str


@strawberry.type
class Cat(Named):
    lives: int
    born_at: datetime | None = None
    colour: Colour = Colour.RED
    #: Not always what its type promises.
    weight: float = 4.0
    tags: list[str] = strawberry.field(default_factory=lambda: ["a", "b"])
    mother: "Cat | None" = None

    @strawberry.field
    async def later(self, times: int = 2) -> str:
        await asyncio.sleep(0)
        return self.name * times

    @strawberry.field
    def fails(self) -> str | None:
        raise ValueError("it fails")


@strawberry.type
class Dog(Named):
    barks: bool


Pet = Annotated[Cat | Dog, strawberry.union("Pet")]


def _cat(**more: Any) -> Cat:
    return Cat(name="Tom", lives=9, born_at=datetime(2026, 11, 30, tzinfo=UTC), **more)


@strawberry.input
class Word:
    text: str
    colour: Colour = Colour.RED
    times: int | None = 2
    others: list["Word"] | None = None


@strawberry.input(one_of=True)
class Either:
    text: str | None = strawberry.UNSET
    times: int | None = strawberry.UNSET


@strawberry.type
class Query:
    @strawberry.field
    async def arguments(
        self,
        word: Word | None = None,
        tags: list[str] | None = strawberry.UNSET,
        times: int = 3,
        at: datetime | None = None,
        whatever: JSON | None = None,
        either: Either | None = None,
    ) -> str:
        """Return what came, and spoil it."""
        told = repr((word, tags, times, at, whatever, either))
        for each in (tags, whatever):
            if isinstance(each, list):
                each.append("spoilt")
            elif isinstance(each, dict):
                each["spoilt"] = True
        return told

    @strawberry.field
    def pets(self) -> list[Pet]:
        return [_cat(mother=Cat(name="Eve", lives=1)), Dog(name="Rex", barks=True), _cat()]

    @strawberry.field
    async def named(self) -> list[Named]:
        return [Dog(name="Rex", barks=False), _cat()]

    @strawberry.field
    def from_where(self, source: Colour) -> str:
        return source.value

    @strawberry.field
    def broken(self) -> Cat | None:
        return _cat(weight=cast("float", "heavy"))

    @strawberry.field
    def lacking(self) -> list[Cat | None]:
        return [_cat(), _cat(weight=cast("float", None)), _cat(mother=_cat(lives=2**40))]


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def add(self, name: str) -> Cat:
        return Cat(name=name, lives=9)

    @strawberry.mutation
    def refuse(self) -> Cat:
        raise ValueError("no")


CORE: Final = strawberry.Schema(Query, Mutation)._schema
SMALL: Final = strawberry.Schema(Query, Mutation)
look_up_once(SMALL)
OURS: Final = SMALL._schema
DOCUMENTS: Final = [
    "{ pets { __typename ... on Cat { name lives bornAt colour weight tags mother { lives } } ... on Dog { barks } } }",
    "{ pets { ... on Named { name } ... on Cat { n: name again: name later } } named { __typename name } }",
    "{ pets { ...Some } } fragment Some on Cat { ...More lives } fragment More on Cat { lives mother { ...More } }",
    "{ pets { ... on Cat { later twice: later(times: 2) thrice: later(times: 3) fails } } }",
    "{ pets { ... on Cat { mother { later fails mother { name } } } } }",
    "{ fromWhere(source: RED) }",
    "{ broken { name weight } pets { __typename } }",
    "{ broken { name fails } lacking { lives } }",
    "{ lacking { name weight mother { lives } } }",
    "query ($yes: Boolean!) { pets { ... on Cat @include(if: $yes) { name } ... on Dog { barks @skip(if: $yes) } } }",
    'mutation { one: add(name: "A") { name lives } two: add(name: "B") { later } }',
    'mutation { add(name: "A") { name fails } refuse { name } }',
]


async def _told(executed: Any) -> tuple[Any, list[Any]]:
    result = await executed if asyncio.iscoroutine(executed) else executed
    return result.data, [(error.message, error.path, error.locations) for error in result.errors or ()]


@pytest.mark.parametrize("text", DOCUMENTS)
async def test_an_answer_is_what_graphql_core_answers(text: str) -> None:
    document = parse(text)
    operation = cast("OperationDefinitionNode", document.definitions[0])
    ours = TurnTaking.of(OURS, document, operation, is_same_each_time="@" not in text, hide_suggestions=False)
    for given in ({"yes": True}, {"yes": False}, {"yes": True}):
        core = StrawberryGraphQLCoreExecutionContext.build(CORE, document, None, None, given)
        assert isinstance(core, StrawberryGraphQLCoreExecutionContext)
        variables = Variables(CORE, operation).read(given, 10, hide_suggestions=False)
        assert not isinstance(variables, list)
        mine = ours.for_request(Context(None), variables)
        assert await _told(mine.execute_operation()) == await _told(core.execute_operation())


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"id": None},
        {"id": "pool_1"},
        {"id": "pool_1", "first": None, "input": {"poolId": "x"}},
        {"id": "pool_1", "first": 5, "input": {"poolId": "x", "email": None}, "other": 1},
        {"id": "pool_1", "first": "5"},
        {"id": ["x"], "first": 2**40},
        {"id": "x", "input": {}},
        {"id": "x", "input": {"poolId": "x", "nothing": 1}},
        {"id": "x", "input": 7},
        {"id": "x", "state": "NEVER"},
        {"id": "x", "state": "REDEEMED"},
    ],
)
def test_variables_are_read_as_graphql_core_reads_them(given: dict[str, Any]) -> None:
    text = "query ($id: ID!, $first: Int = 3, $input: ClaimCodeInput, $state: CodeState) { node(id: $id) { id } }"
    operation = cast("OperationDefinitionNode", parse(text).definitions[0])
    core = get_variable_values(SCHEMA, operation.variable_definitions or (), given, 10)
    ours = Variables(SCHEMA, operation).read(given, 10, hide_suggestions=False)
    if isinstance(core, list):
        assert isinstance(ours, list)
        assert [error.message for error in ours] == [error.message for error in core]
    else:
        assert not isinstance(ours, list)
        assert ours.coerced == core.coerced
        assert {name: source.value for name, source in ours.sources.items()} == {
            name: source.value for name, source in core.sources.items()
        }


ASKING: Final = [
    "query ($a: String!) { arguments(word: {text: $a}) }",
    "query ($a: String!, $n: Int) { arguments(word: {text: $a, times: $n, others: [{text: $a, colour: RED}]}) }",
    "query ($n: Int) { arguments(times: $n) }",
    "query ($n: Int!, $t: [String!]) { arguments(times: $n, tags: $t) again: arguments(tags: $t) }",
    'query ($a: String!) { arguments(tags: [$a, "b"]) }',
    '{ arguments(tags: "one") }',
    "query ($w: Word, $d: DateTime) { arguments(word: $w, at: $d) }",
    'query ($w: Word = {text: "default"}, $n: Int = 7) { arguments(word: $w, times: $n) }',
    "query ($a: String) { arguments(whatever: {a: [$a, 1], b: $a}) }",
    "query ($j: JSON) { arguments(whatever: $j) }",
    '{ arguments(whatever: {a: 1}, at: "2026-11-30T00:00:00Z") again: arguments(whatever: {a: 1}) }',
    "query ($a: String!) { arguments(either: {text: $a}) }",
    "query ($n: Int) { arguments(either: {times: $n}) }",
    "query ($a: String!) { ...Some } fragment Some on Query { arguments(word: {text: $a}) }",
]
GIVEN: Final[list[dict[str, Any]]] = [
    {"a": "A", "n": 5, "t": ["x"], "w": {"text": "w", "times": None}, "d": "2026-11-30T00:00:00Z", "j": {"k": [1]}},
    {"a": "A", "n": 0, "t": [], "w": {"text": ""}, "d": None, "j": []},
    {"a": "A", "n": 5, "t": None, "w": None, "j": None},
    {"a": "A", "n": 5},
    {"a": "A", "n": None},
    {"a": "A"},
]


@pytest.mark.parametrize("text", ASKING)
async def test_arguments_are_what_graphql_core_makes_of_them(text: str) -> None:
    document = parse(text)
    assert not validate(CORE, document)
    operation = cast("OperationDefinitionNode", document.definitions[0])
    ours = TurnTaking.of(OURS, document, operation, is_same_each_time=True, hide_suggestions=False)
    for given in GIVEN:
        core = StrawberryGraphQLCoreExecutionContext.build(CORE, document, None, None, deepcopy(given))
        variables = Variables(CORE, operation).read(deepcopy(given), 10, hide_suggestions=False)
        if isinstance(core, list):
            assert isinstance(variables, list)
            continue
        assert not isinstance(variables, list)
        assert isinstance(core, StrawberryGraphQLCoreExecutionContext)
        mine = ours.for_request(Context(None), variables)
        assert await _told(mine.execute_operation()) == await _told(core.execute_operation())


INPUTS: Final = {
    name: known.definition
    for name, known in schema.schema_converter.type_map.items()
    if isinstance(known.definition, StrawberryObjectDefinition) and known.definition.is_input
}


def _value(kind: Any) -> Any:
    """Return a value of a type as graphql-core hands it on."""
    inner = get_nullable_type(kind)
    if is_list_type(inner):
        return [_value(inner.of_type)]
    if is_leaf_type(inner):
        return next(iter(inner.values.values())).value if hasattr(inner, "values") else f"a {inner.name}"
    return _values(cast("GraphQLInputObjectType", get_named_type(inner)), all_of_them=False)


def _values(kind: GraphQLInputObjectType, *, all_of_them: bool) -> dict[str, Any]:
    return {
        name: _value(field.type)
        for name, field in kind.fields.items()
        if all_of_them or field.type is not get_nullable_type(field.type)
    }


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("is_whole", [True, False])
def test_inputs_are_built_as_strawberry_builds_them(name: str, *, is_whole: bool) -> None:
    kind = INPUTS[name].origin
    value = _values(cast("GraphQLInputObjectType", SCHEMA.type_map[name]), all_of_them=is_whole)
    convert = Inputs(schema).conversion(kind)

    assert convert is not None
    assert convert(value) == convert_argument(value, kind, schema.schema_converter.scalar_registry, schema.config)
