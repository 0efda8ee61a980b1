"""Sweeps over the wallets of a merchant: many in a short transaction, none that somebody else is at."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypedDict
from uuid import UUID

from app.storage.database import Tx, transaction
from app.storage.statements import Statement, statement

#: How many wallets a transaction changes.
WALLETS_PER_BATCH: Final = 500


class DueMerchantRow(TypedDict):
    """A merchant of whose points some are due."""

    merchant_id: UUID


class LockedRow(TypedDict):
    """A wallet that is locked."""

    member_id: UUID


def lock_due(due: str, *, skips: bool) -> Statement[LockedRow]:
    """Return what locks the wallets of the credits that `due` selects, at most `:wallets` of them.

    `due` selects their `member_id`, at most `:credits` rows. Either it skips wallets that others have locked, or waits.
    """
    return statement(
        LockedRow,
        f"""
SELECT member_id FROM wallet
WHERE merchant_id = :merchant_id AND member_id = ANY(ARRAY(
    SELECT DISTINCT member_id FROM ({due}) due ORDER BY member_id LIMIT :wallets
))
ORDER BY member_id FOR UPDATE {"SKIP LOCKED" if skips else ""}
""",
    )


async def sweep(
    merchant_id: UUID,
    skipping: Statement[LockedRow],
    waiting: Statement[LockedRow],
    work: Callable[[Tx, UUID, Sequence[UUID]], Awaitable[int]],
) -> int:
    """Do `work` on all wallets that are due, in batches that are locked first. Returns the sum of what it returns.

    What was worked on must not be due any more. Wallets that others have locked come last, one by one: nobody waits for
    more than one of them.
    """
    done = 0
    for locking, wallets in ((skipping, WALLETS_PER_BATCH), (waiting, 1)):
        while True:
            async with transaction(merchant_id) as tx:
                rows = await tx.rows(locking, merchant_id=merchant_id, wallets=wallets, credits=4 * wallets)
                if not rows:
                    break
                done += await work(tx, merchant_id, [row["member_id"] for row in rows])
    return done
