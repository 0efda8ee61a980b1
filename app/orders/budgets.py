"""Budgets of pools, from which triggers take what is redeemed and held: what becomes of a code that doesn't fit."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypedDict
from uuid import UUID

import asyncpg

from app.api.operations import OutpacedError
from app.coupons.rules import Applied
from app.storage.database import database
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
    """A code of a pool, what is left of the pool's budget if it has one, and what of it is held.

    By the hold of the order for which the code is presented, and by the hold that has the code.
    """

    pool_id: UUID
    budget_left: int | None
    held_by_order: int | None
    held_by_holder: int | None


@asynccontextmanager
async def within_budgets(merchant_id: UUID, placed: Iterable[tuple[BudgetRow, Applied]]) -> AsyncIterator[None]:
    """Raise OutpacedError where a budget doesn't suffice for what the block commits.

    It is spent, or too much of it is being spent now. Waits until somebody has spent of the budgets of the codes that
    are `placed`, so that whoever reads again finds out which of both.
    """
    try:
        yield
    except asyncpg.CheckViolationError as violation:
        if violation.constraint_name != "pool_budget_spent":
            raise
        pool_ids = [row["pool_id"] for row, _ in placed if row["budget_left"] is not None]
        await database().row(WAIT, merchant_id=merchant_id, pool_ids=pool_ids)
        raise OutpacedError from None


def beyond_budgets(places: Iterable[tuple[BudgetRow, Applied]], coming_back: Mapping[UUID, int]) -> set[int]:
    """Return the places of the codes that don't fit into what is left of their pools' budgets, in their order.

    `coming_back` is what comes back to the budget of each pool once the codes are placed.
    """
    left: dict[UUID, int] = {}
    beyond = set()
    for place, (row, share) in enumerate(places):
        pool_id, budget_left = row["pool_id"], row["budget_left"]
        if budget_left is None:
            continue
        left.setdefault(pool_id, budget_left + coming_back.get(pool_id, 0))
        if share.discount > left[pool_id]:
            beyond.add(place)
        else:
            left[pool_id] -= share.discount
    return beyond
