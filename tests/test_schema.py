"""The printed schema. Without these schema.graphql could be out of date, or the API say nothing about itself."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    specified_scalar_types,
)

from app.api.access import ACCESS, Otherwise
from app.api.context import Role
from app.operate.schema_changes import changes
from app.schema import sdl
from app.web.graphql_documents import SCHEMA

PRINTED = Path(__file__).parents[1] / "schema.graphql"
RELEASED = PRINTED.with_name("schema.released.graphql")


def _descriptions() -> Iterator[tuple[str, str | None]]:
    """Yield the coordinate and the description of everything in the schema that can have one."""
    for name, kind in SCHEMA.type_map.items():
        if name.startswith("__") or name in specified_scalar_types:
            continue
        yield name, kind.description
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            for field_name, field in kind.fields.items():
                yield f"{name}.{field_name}", field.description
                for argument_name, argument in field.args.items():
                    yield f"{name}.{field_name}({argument_name}:)", argument.description
        elif isinstance(kind, GraphQLInputObjectType):
            for input_name, input_field in kind.fields.items():
                yield f"{name}.{input_name}", input_field.description
        elif isinstance(kind, GraphQLEnumType):
            for value_name, value in kind.values.items():
                yield f"{name}.{value_name}", value.description


def test_the_committed_schema_is_the_one_that_is_served() -> None:
    assert PRINTED.read_text() == sdl()


def test_everything_has_a_description() -> None:
    described = list(_descriptions())

    assert len(described) > 100
    assert [coordinate for coordinate, description in described if not (description or "").strip()] == []


def test_a_description_is_a_sentence() -> None:
    assert [
        coordinate
        for coordinate, description in _descriptions()
        if description and (description != description.strip() or description[-1] not in ".)" or "\n" in description)
    ] == []


@pytest.mark.parametrize("coordinate", [coordinate for coordinate in ACCESS if "." in coordinate])
def test_a_description_says_who_may_call(coordinate: str) -> None:
    type_name, _, path = coordinate.partition(".")
    name, _, argument = path.rstrip(":)").partition("(")
    kind = SCHEMA.type_map[type_name]
    assert isinstance(kind, GraphQLObjectType)
    field = kind.fields[name]
    description = (field.args[argument] if argument else field).description or ""

    rule = ACCESS[coordinate]
    told = set(Role) - rule.roles if rule.otherwise is Otherwise.MASKED else rule.roles
    named = {role for role in Role if re.search(rf"\b{role.value}\b", description)}
    assert ("Everyone." in description) == (rule.roles == set(Role)), description
    assert named == (set() if "Everyone." in description else told), description
    assert ("null to others" in description) == (rule.otherwise is Otherwise.NULL), description


def test_nothing_that_was_released_is_broken() -> None:
    assert [str(change) for change in changes(RELEASED, sdl()) if change.breaks] == []


@pytest.mark.parametrize(
    ("was", "would_be", "told"),
    [
        ("  recipientCount: Int!\n", "  renamed: Int!\n", "FIELD_REMOVED: Field Campaign.recipientCount was removed."),
        (
            "  recipientCount: Int!\n",
            "  recipientCount: Int\n",
            "FIELD_CHANGED_KIND: Field Campaign.recipientCount changed type from Int! to Int.",
        ),
        ("  GIFT\n", "  OTHER\n", "VALUE_REMOVED_FROM_ENUM: Enum value CodeKind.GIFT was removed."),
    ],
)
def test_what_would_break_clients_is_named(was: str, would_be: str, told: str) -> None:
    released = RELEASED.read_text()
    assert released.count(was) == 1

    broken = [str(change) for change in changes(RELEASED, released.replace(was, would_be)) if change.breaks]

    assert broken == [f"BREAKS  {told}"]


def test_what_may_surprise_clients_is_named_and_breaks_nothing() -> None:
    released = RELEASED.read_text()

    found = changes(RELEASED, released.replace("  GIFT\n", '  GIFT\n\n  """New."""\n  NEW\n'))

    assert [(str(change), change.breaks) for change in found] == [
        ("may surprise  VALUE_ADDED_TO_ENUM: Enum value CodeKind.NEW was added.", False)
    ]
