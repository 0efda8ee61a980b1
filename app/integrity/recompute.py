"""Recomputing the promises of a merchant from its rows."""

import logging
from typing import Final, TypedDict
from uuid import UUID

from app import ids
from app.integrity.promises import PROMISES
from app.reports.runs import Computed
from app.storage.database import transaction
from app.storage.long_reads import limit, rows_in
from app.storage.statements import statement

#: How many codes or entries of points a small merchant has at most.
FEW: Final = 5_000

log = logging.getLogger("flash.integrity")


class _ReadRow(TypedDict):
    is_small: bool


# Everything is read, so each table once: a planner that saw the tables small would compare each row with each. Making
# these plans takes 40 ms, and what they do takes 10 ms for a small merchant: for those they are made once in each
# connection. Such a plan doesn't know whose rows it reads, so it has to go by the keys.
READ_ONCE: Final = statement(
    _ReadRow,
    f"""
SELECT m.is_small FROM (
    SELECT NOT EXISTS (SELECT FROM code WHERE merchant_id = :merchant_id ORDER BY id OFFSET {FEW} LIMIT 1)
        AND NOT EXISTS (SELECT FROM points_entry WHERE merchant_id = :merchant_id ORDER BY id OFFSET {FEW} LIMIT 1)
        AS is_small
    FROM merchant WHERE merchant_id = :merchant_id OFFSET 0
) m CROSS JOIN LATERAL (
    SELECT set_config('enable_nestloop', 'off', true),
        set_config('enable_seqscan', CASE WHEN m.is_small THEN 'off' ELSE 'on' END, true),
        set_config('plan_cache_mode', CASE WHEN m.is_small THEN 'force_generic_plan' ELSE 'auto' END, true) OFFSET 0
) planned
""",
)


async def recompute(merchant_id: UUID, *, seconds_max: float | None = None) -> dict[str, int]:
    """Return how many rows break each promise, each from one statement that locks nothing.

    A promise has at most `seconds_max` seconds. Reads every row of the merchant: some 5 to 20 µs of database time per
    code (bench/integrity.py).
    """
    found = {}
    async with transaction(merchant_id) as tx:
        read = await tx.row(READ_ONCE, merchant_id=merchant_id)
        if seconds_max is not None:
            await limit(tx, seconds_max)
        for promise in PROMISES:
            if read is not None and read["is_small"]:
                (row,) = await tx.rows(promise.count, merchant_id=merchant_id)
            else:
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
