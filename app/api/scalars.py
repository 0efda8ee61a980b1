"""Scalars with one spelling per value (DateTime in UTC, BigInt as a JSON number), and described enum values."""

import re
from datetime import UTC, datetime
from typing import Any, Final, NewType, cast

import strawberry
from graphql import GraphQLError, IntValueNode, ValueNode
from strawberry.schema.config import StrawberryConfig
from strawberry.types.scalar import ScalarDefinition

_DATE_TIME: Final = re.compile(
    r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-5][0-9])\Z",
    re.ASCII,
)
#: What the database's driver takes for -infinity and infinity: neither comes back as the instant that it was.
_NO_INSTANTS: Final = frozenset({datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)})


def described(value: str, description: str) -> str:
    """Return an enum's value with its description in the schema; to Python it is the value."""
    return cast("str", strawberry.enum_value(value, description=description))


BigInt = NewType("BigInt", int)
"""An integer of 64 bits, beyond GraphQL's Int."""


def parse_date_time(value: object) -> datetime:
    """Return the instant in UTC. Raises GraphQLError unless it is RFC 3339 with an offset and exists."""
    if not isinstance(value, str) or not _DATE_TIME.match(value):
        raise GraphQLError("DateTime must be RFC 3339 with an offset, like 2026-01-31T09:30:00Z.")
    try:
        instant = datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        raise GraphQLError("DateTime names a day or a time that doesn't exist.") from None
    if instant in _NO_INSTANTS:
        raise GraphQLError("DateTime must be after the first instant of the year 1 and before the last one of 9999.")
    return instant


def serialize_date_time(value: datetime) -> str:
    """Return the instant as RFC 3339 in UTC with a Z."""
    return value.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


def parse_big_int(value: object) -> BigInt:
    """Return the number. Raises GraphQLError for anything but a JSON integer of 64 bits."""
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise GraphQLError("BigInt must be an integer of 64 bits.")
    return BigInt(value)


def _parse_big_int_literal(node: ValueNode, _variables: dict[str, Any] | None = None) -> BigInt:
    if not isinstance(node, IntValueNode) or len(node.value) > 20:
        raise GraphQLError("BigInt must be an integer of 64 bits.", node)
    return parse_big_int(int(node.value))


def config() -> StrawberryConfig:
    """Return the schema's configuration: these scalars in the place of Strawberry's own."""
    return StrawberryConfig(
        scalar_map={
            datetime: ScalarDefinition(
                name="DateTime",
                description="An instant in UTC: RFC 3339 with an offset, answered with Z.",
                specified_by_url="https://scalars.graphql.org/andimarek/date-time.html",
                serialize=serialize_date_time,
                parse_value=parse_date_time,
                parse_literal=None,
            ),
            BigInt: ScalarDefinition(
                name="BigInt",
                description="An integer of 64 bits, as a JSON number.",
                specified_by_url=None,
                serialize=int,
                parse_value=parse_big_int,
                parse_literal=_parse_big_int_literal,
            ),
        }
    )
