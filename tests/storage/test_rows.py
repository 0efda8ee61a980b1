"""Rows against the catalog. Without these a row could say a type that its column doesn't have, and mypy believe it."""

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints
from uuid import UUID

import asyncpg

import app
from app.config import Settings
from app.reports.columns import columns_of as report_columns
from app.reports.tables import REPORTS, Report
from app.storage.database import Client, database
from app.storage.statements import ROW_TABLES, Statement, columns_of

TYPES: dict[str, Any] = {
    "uuid": UUID, "text": str, "varchar": str, "name": str, "int2": int, "int4": int, "int8": int,
    "timestamptz": datetime, "date": date, "interval": timedelta, "bool": bool, "bytea": bytes, "numeric": Decimal,
    "float8": float, "jsonb": str, "text[]": list[str], "uuid[]": list[UUID], "bytea[]": list[bytes],
    "int4[]": list[int],
}  # fmt: skip
CATALOG = """
SELECT c.relname AS table, a.attname AS column, a.attnotnull AS is_never_null,
    CASE t.typcategory WHEN 'A' THEN substr(t.typname, 2) || '[]' ELSE t.typname END AS type
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0
"""


def _modules() -> Iterator[Any]:
    for found in pkgutil.walk_packages(app.__path__, "app."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def statements_by_name() -> dict[str, Statement[Any]]:
    """Return every statement of the engine that a module holds, by where it was found first."""
    found: dict[Statement[Any], str] = {}
    for module in _modules():
        for name, value in vars(module).items():
            for statement in _within(value):
                found.setdefault(statement, f"{module.__name__}.{name}")
    return {name: statement for statement, name in found.items()}


def _within(value: object) -> Iterator[Statement[Any]]:
    if isinstance(value, Statement):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _within(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _within(each)
    elif is_dataclass(value) and not isinstance(value, type | Report):
        for each in fields(value):
            yield from _within(getattr(value, each.name))


def _plain(hint: Any) -> Any:
    """Return a type without its null; ids of the API are texts."""
    if get_origin(hint) in {Union, UnionType}:
        (hint,) = [each for each in get_args(hint) if each is not NoneType]
    return getattr(hint, "__supertype__", hint)


def _takes_null(hint: Any) -> bool:
    return get_origin(hint) in {Union, UnionType} and NoneType in get_args(hint)


async def _returned(connection: asyncpg.Connection, statement: Statement[Any]) -> dict[str, Any]:
    """Return what a statement returns, by the name of each column."""
    prepared = await connection.prepare(statement.text)
    return {each.name: TYPES.get(each.type.name, each.type.name) for each in prepared.get_attributes()}


def _is_part(column: str, kind: Any) -> bool:
    """Whether a column is one of a declared row's behind a prefix, as `part` reads them."""
    return any(
        column.endswith(f"_{name}") and _plain(hint) == kind
        for row in ROW_TABLES
        for name, hint in get_type_hints(row).items()
    )


async def test_each_column_of_a_row_is_in_the_catalog_with_its_type_and_its_null(database_pool: Settings) -> None:
    list(_modules())
    catalog = {(row["table"], row["column"]): row for row in await database().rows(CATALOG)}
    wrong = []

    for row, tables in ROW_TABLES.items():
        hints = get_type_hints(row)
        for name, sql in columns_of(row).items():
            alias, _, column = sql.partition(".")
            if not column.isidentifier():
                continue
            table = tables[alias]
            known = catalog[table.removesuffix("?"), column]
            if _plain(hints[name]) != TYPES[known["type"]]:
                wrong.append(f"{row.__name__}.{name} is {known['type']}")
            if not table.endswith("?") and _takes_null(hints[name]) is known["is_never_null"]:
                wrong.append(f"{row.__name__}.{name} is {'never' if known['is_never_null'] else 'sometimes'} null")

    assert len(ROW_TABLES) > 10
    assert wrong == []


async def test_each_statement_can_be_prepared_and_returns_what_its_row_says(worker_database: str) -> None:
    statements, wrong = statements_by_name(), {}
    asked: list[str] = []
    client = Client(worker_database, connection_name="one", maxsize=1)

    async with client.acquire_connection() as connection:
        connection.add_query_logger(lambda sent: asked.append(sent.query))
        for name, statement in statements.items():
            said = {field: _plain(hint) for field, hint in get_type_hints(statement.row).items()}
            try:
                returned = await _returned(connection, statement)
            except asyncpg.PostgresError as error:
                wrong[name] = str(error)
                continue
            parts = {field for field in returned.keys() - said.keys() if _is_part(field, returned[field])}
            if {field: returned[field] for field in returned.keys() - parts} != said:
                wrong[name] = f"returns {returned}, its row says {said}"
    await client.close()

    assert len(statements) > 50
    assert wrong == {}
    # What types there are the driver knows.
    assert asked == []


async def test_a_page_of_a_report_returns_what_its_row_type_says(database_pool: Settings) -> None:
    async with database().acquire_connection() as connection:
        for report in REPORTS.values():
            said = {name: _plain(kind) for name, (_, kind) in report_columns(report.row_type).items()}

            assert await _returned(connection, report.page) == {**said, "key": UUID}
