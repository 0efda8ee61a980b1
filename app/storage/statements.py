"""Statements with named parameters, and rows whose columns are declared once."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypedDict, TypeVar, cast, get_type_hints

Row = TypeVar("Row")
Row_co = TypeVar("Row_co", covariant=True)
AnyRow = TypeVar("AnyRow", bound=Mapping[str, Any])

#: A parameter, behind what may hold a colon that is none: a quoted text, a comment, a cast.
_PARAMETER: Final = re.compile(r"'(?:[^']|'')*'|--[^\n]*|::|(?<![\w:]):([a-z]\w*)")

#: Each row class that `row_of` was told, with the tables behind its aliases; a test compares them with the catalog.
ROW_TABLES: Final[dict[type, Mapping[str, str]]] = {}


@dataclass(frozen=True, slots=True)
class Statement(Generic[Row_co]):
    """A statement as PostgreSQL takes it, and the names of its parameters in their order.

    `row` is what its rows are: a TypedDict. Rows are asyncpg's records, cast and not copied.
    """

    text: str
    names: tuple[str, ...]
    row: type[Row_co]

    def arguments(self, values: Mapping[str, object]) -> list[object]:
        """Return the values in the order of their places. Raises TypeError when one is missing or too many."""
        if len(values) != len(self.names):
            raise TypeError(f"the statement takes {sorted(self.names)}, not {sorted(values)}")
        try:
            return [values[name] for name in self.names]
        except KeyError as missing:
            raise TypeError(f"the statement lacks its parameter {missing}") from None


class NoRow(TypedDict):
    """What a statement returns that returns nothing."""


def statement(row: type[Row], text: str) -> Statement[Row]:
    """Compile a statement whose parameters are named `:like_this`; `row` is what it returns."""
    places: dict[str, int] = {}

    def place(found: re.Match[str]) -> str:
        name = found[1]
        return found[0] if name is None else f"${places.setdefault(name, len(places) + 1)}"

    return Statement(_PARAMETER.sub(place, text), tuple(places), row)


def row_of(**tables: str) -> Callable[[type[AnyRow]], type[AnyRow]]:
    """Say which tables the aliases in a row's columns stand for: `@row_of(p="pool")`.

    An alias whose table may have no row (a LEFT JOIN) is written with a question mark: `m="member?"`.
    """

    def declare(row: type[AnyRow]) -> type[AnyRow]:
        ROW_TABLES[row] = tables
        return row

    return declare


def columns(*rows: type, prefix: str = "", **aliases: str) -> str:
    """Return the target list of rows: `p.id AS pool_id, …`, from the SQL in their annotations.

    With a `prefix` to their names and other `aliases` for their tables a statement can select a row twice
    (`columns(MemberRow, prefix="referrer_", m="referrer", w="referrer_wallet")`); `part` reads it.
    """
    return ", ".join(
        f"{_realiased(sql, aliases)} AS {prefix}{name}" for row in rows for name, sql in columns_of(row).items()
    )


def columns_of(row: type) -> dict[str, str]:
    """Return the SQL behind each field of a row. Raises TypeError for a field that declares none."""
    found = {}
    for name, hint in get_type_hints(row, include_extras=True).items():
        if not hasattr(hint, "__metadata__"):
            raise TypeError(f"{row.__name__}.{name} says no SQL")
        found[name] = hint.__metadata__[0]
    return found


#: The alias before a column.
_ALIAS: Final = re.compile(r"\b([a-z]\w*)\.(?=[a-z])")


def _realiased(sql: str, aliases: Mapping[str, str]) -> str:
    return _ALIAS.sub(lambda found: f"{aliases.get(found[1], found[1])}.", sql)


class _Part(Mapping[str, Any]):
    """What a row holds under a prefix, read where it is."""

    __slots__ = ("_prefix", "_row")

    def __init__(self, row: Mapping[str, Any], prefix: str) -> None:
        self._row = row
        self._prefix = prefix

    def __getitem__(self, name: str) -> Any:
        return self._row[self._prefix + name]

    def __iter__(self) -> Iterator[str]:
        # A record of asyncpg iterates over its values.
        names = self._row.keys()
        return (name.removeprefix(self._prefix) for name in names if name.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def part(row: Mapping[str, object], prefix: str, kind: type[Row]) -> Row:
    """Return the part of a row that was selected with a prefix. Nothing is copied."""
    del kind  # mypy's only
    return cast("Row", _Part(row, prefix))
