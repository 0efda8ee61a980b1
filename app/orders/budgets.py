"""Budgets of pools, from which triggers take what is redeemed and held: what becomes of a code that doesn't fit."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final, TypedDict
from uuid import UUID

import asyncpg

from app.coupons.rules import Applied
from app.orders.refunds import OutpacedError
from app.storage.database import Statements, Tx
from app.storage.statements import NoRow, statement

#: Waits for whoever has the first slice of the pools, and takes nothing.
WAIT: Final = statement(
    NoRow,
    """
SELECT FROM pool_budget WHERE merchant_id = :merchant_id AND pool_id = ANY(:pool_ids::uuid[])
ORDER BY pool_id, id LIMIT 1 FOR UPDATE
""",
)


class BudgetRow(TypedDict):
    """A code of a pool, what is left of the pool's budget if it has one, and what a hold took of it for the code."""

    pool_id: UUID
    budget_left: int | None
    held_discount: int | None


@asynccontextmanager
async def within_budgets(
    where: Statements, merchant_id: UUID, placed: Iterable[tuple[BudgetRow, Applied]] = ()
) -> AsyncIterator[None]:
    """Raise OutpacedError where a budget doesn't suffice: it is spent, or too much of it is being spent now.

    Outside a transaction it waits until somebody has spent of the budgets of the codes that are `placed`, so that
    whoever reads again finds out which of both.
    """
    try:
        yield
    except asyncpg.CheckViolationError as violation:
        if violation.constraint_name != "pool_budget_spent":
            raise
        if not isinstance(where, Tx):
            pool_ids = [row["pool_id"] for row, _ in placed if row["budget_left"] is not None]
            await where.row(WAIT, merchant_id=merchant_id, pool_ids=pool_ids)
        raise OutpacedError from None


def beyond_budgets(places: Iterable[tuple[BudgetRow, Applied, int]]) -> set[int]:
    """Return the places of the codes that don't fit into what is left of their pools' budgets, in their order.

    Each comes with what it has of the budget already: that of its redemption or its hold, which it is to replace.
    """
    rows = list(places)
    left: dict[UUID, int] = {}
    for row, _, has in rows:
        if row["budget_left"] is not None:
            left[row["pool_id"]] = left.get(row["pool_id"], row["budget_left"]) + has
    beyond = set()
    for place, (row, share, _) in enumerate(rows):
        if row["budget_left"] is None:
            continue
        if share.discount > left[row["pool_id"]]:
            beyond.add(place)
        else:
            left[row["pool_id"]] -= share.discount
    return beyond
