"""A column of a report: the SQL that makes it, once, for a page of the API and for a file of an export."""

from datetime import datetime
from typing import Any, Final, get_args, get_type_hints

import strawberry
from strawberry.types import get_object_definition
from strawberry.utils.str_converters import to_camel_case

from app.ids import Kind

#: Continues a FROM: the merchant's currency, and how many minor units a unit of it has.
MONEY: Final = "CROSS JOIN (SELECT :currency::text AS currency, :minor_units::float8 AS minor_units) money"


def column(sql: str, description: str) -> Any:
    """Return a field of a report's row, made by this SQL."""
    return strawberry.field(description=description, metadata={"sql": sql})


def node_id(kind: Kind, sql: str) -> str:
    """Return the SQL of an id as `ids.encode` spells it; null where it is null."""
    return f"'{kind}_' || encode(uuid_send({sql}), 'hex')"


def units(sql: str) -> str:
    """Return the SQL of an amount in units of its currency, from minor units."""
    return f"{sql} / money.minor_units"


def whole(sql: str) -> str:
    """Return the SQL of a whole number, minor units included, as a Float.

    SQL over GraphQL compares Ints as text, and an Int holds 32 bits; a Float holds our greatest amount exactly.
    """
    return f"{sql}::float8"


def inserted_at(sql: str) -> str:
    """Return the SQL of the millisecond that the UUIDv7 of a row begins with."""
    return f"to_timestamp(('x' || left(encode(uuid_send({sql}), 'hex'), 12))::bit(48)::bigint / 1000.0)"


def columns_of(row_type: type) -> dict[str, tuple[str, type]]:
    """Return the columns of a row's type by their names in Python: the SQL, and the type without its null."""
    types = get_type_hints(row_type)
    fields = get_object_definition(row_type, strict=True).fields
    return {
        name: (field.metadata["sql"], next(iter(get_args(types[name])), types[name]))
        for field in fields
        for name in [field.python_name]
    }


def selected(row_type: type) -> str:
    """Return what a statement selects to make a row as the API shows it."""
    return ", ".join(f"{sql} AS {name}" for name, (sql, _) in columns_of(row_type).items())


def written(row_type: type) -> str:
    """Return what a statement selects to write a row as CSV: times in RFC 3339, true and false, names as in the API."""
    return ", ".join(
        f'{_as_text(sql, kind)} AS "{to_camel_case(name)}"' for name, (sql, kind) in columns_of(row_type).items()
    )


def _as_text(sql: str, kind: type) -> str:
    if kind is datetime:
        return f"""to_char(({sql}) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
    return f"({sql})::text" if kind is bool else sql
