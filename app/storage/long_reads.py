"""Statements that read everything a merchant has: each has a time limit of its own, which PostgreSQL keeps."""

from typing import Any, Final, TypedDict, TypeVar
from uuid import UUID

from app.storage.database import Tx, database, transaction
from app.storage.statements import Statement, statement

T = TypeVar("T")


class _LimitRow(TypedDict):
    milliseconds: str
    look_every: str


#: So PostgreSQL speaks first: what it ends took too long, and what it doesn't answer is away.
_SPARE_SECONDS: Final = 15.0
#: PostgreSQL looks every two seconds whether the client of a statement is still there, which otherwise it finds out
#: when it answers. For the rest of a transaction. Servers on Windows can't.
ENDS_WITH_CLIENT: Final = (
    "set_config('client_connection_check_interval', CASE WHEN version() ~ 'windows|mingw' THEN '0' ELSE '2s' END, true)"
)
LIMIT: Final = statement(
    _LimitRow,
    f"""
SELECT set_config('statement_timeout', :milliseconds, true) AS milliseconds, {ENDS_WITH_CLIENT} AS look_every
FROM merchant WHERE merchant_id = :merchant_id
""",
)


async def limit(tx: Tx, seconds_max: float) -> None:
    """Let PostgreSQL end each further statement of a transaction after so many seconds, or when nobody waits for it."""
    await tx.row(LIMIT, merchant_id=tx.merchant_id, milliseconds=f"{max(1, round(seconds_max * 1000))}")


async def rows_in(tx: Tx, query: Statement[T], *, seconds_max: float | None, **values: Any) -> list[T]:
    """Return the rows of a statement in a transaction that has this limit; None stands for the limits of a request."""
    waits = None if seconds_max is None else seconds_max + _SPARE_SECONDS
    return await tx.many(query, seconds_max=waits, **values)


async def long_rows(query: Statement[T], *, merchant_id: UUID, seconds_max: float | None, **values: Any) -> list[T]:
    """Return the rows of a statement that takes as long as it may: None stands for the limits of a request."""
    if seconds_max is None:
        return await database().rows(query, merchant_id=merchant_id, **values)
    async with transaction(merchant_id) as tx:
        await limit(tx, seconds_max)
        return await rows_in(tx, query, seconds_max=seconds_max, merchant_id=merchant_id, **values)
