"""Ways to break what is promised, in transactions that are rolled back."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from uuid import UUID

from app.integrity.promises import PROMISES
from app.storage.database import Tx

NAMES = [
    "ONE_OWNER", "CLAIM_LIMIT", "REDEEMED_ONCE", "WHOLE_BATCHES", "UNIQUE_CODES", "CREDITED_ONCE", "EXACT_BALANCES",
    "INVITE_QUOTAS", "CONVERTED_REFERRALS", "POOL_LIFECYCLE", "ONE_MERCHANT", "ON_RECORD",
    "HELD_IS_THERE",
]  # fmt: skip


def one(table: str, where: str = "true") -> str:
    """Name one row of the merchant's."""
    return f"ctid = (SELECT ctid FROM {table} WHERE merchant_id = $1 AND {where} LIMIT 1)"


#: A second claim of a pool that gives one code to a member.
CLAIM_TOO_MANY = """
INSERT INTO claim (merchant_id, code_id, pool_id, member_id, slot, claimed_at)
SELECT $1, c.id, k.pool_id, k.member_id, 2, now() FROM (
    SELECT * FROM claim WHERE merchant_id = $1 AND member_id IS NOT NULL LIMIT 1
) k, (SELECT id FROM code WHERE merchant_id = $1 AND state = 'AVAILABLE' LIMIT 1) c
"""


class _UndoneError(Exception):
    """Rolls a transaction or a savepoint back."""


@asynccontextmanager
async def undone(opened: AbstractAsyncContextManager[Tx]) -> AsyncIterator[Tx]:
    """Open a transaction or a savepoint that is rolled back after the block."""
    with contextlib.suppress(_UndoneError):
        async with opened as tx:
            yield tx
            raise _UndoneError


async def violations(tx: Tx, merchant_id: UUID) -> dict[str, int]:
    """Return how often each promise to a merchant is broken that is."""
    found = {promise.name: (await tx.many(promise.count, merchant_id=merchant_id))[0] for promise in PROMISES}
    return {name: row["violations"] for name, row in found.items() if row["violations"]}
