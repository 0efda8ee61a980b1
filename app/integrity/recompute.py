"""Recomputing the promises of a merchant from its rows."""

import logging
from typing import Final
from uuid import UUID

from app import ids
from app.integrity.promises import PROMISES
from app.reports.runs import Computed
from app.storage.database import transaction
from app.storage.long_reads import limit, rows_in

log = logging.getLogger("flash.integrity")

# Everything is read, so each table once: a planner that saw the tables small would compare each row with each.
READ_ONCE: Final = "SET LOCAL enable_nestloop = off"


async def recompute(merchant_id: UUID, *, seconds_max: float | None = None) -> dict[str, int]:
    """Return how many rows break each promise, each from one statement that locks nothing.

    A promise has at most `seconds_max` seconds. Reads every row of the merchant: some 5 to 20 µs of database time per
    code (bench/integrity.py).
    """
    found = {}
    async with transaction(merchant_id) as tx:
        await tx.row(READ_ONCE)
        if seconds_max is not None:
            await limit(tx, seconds_max)
        for promise in PROMISES:
            (row,) = await rows_in(tx, promise.count, seconds_max=seconds_max, merchant_id=merchant_id)
            found[promise.name] = row["violations"]
    return found


async def check(merchant_id: UUID, seconds_max: float | None) -> Computed:
    """Recompute the promises of a merchant; what a worker finds broken is a line of its log, and on record."""
    found = await recompute(merchant_id, seconds_max=seconds_max)
    broken = {name: violations for name, violations in found.items() if violations}
    if seconds_max is not None:
        for name, violations in broken.items():
            log.error("%s: %s is broken by %d rows", ids.encode("merchant", merchant_id), name, violations)
    return Computed([list(each) for each in found.items()], event="integrity.violated" if broken else None)
