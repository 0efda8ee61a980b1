"""Taking a credit back: what has expired of it isn't taken twice, and a balance lacks what was spent."""

from typing import Final, TypedDict
from uuid import UUID

from app.points.ledger import PostedRow, lock_wallet, post
from app.points.types import PointsReason
from app.storage.database import Tx
from app.storage.statements import statement


class ExpiredRow(TypedDict):
    """How many points of a credit have expired."""

    points: int


# What has expired of a credit. An expiry takes whole credits, so it is the first one that reached the credit's end,
# if it began before that: what lay before its begin had been spent.
EXPIRED: Final = statement(
    ExpiredRow,
    """
SELECT e.mark - greatest(e.mark - e.amount, x.mark + x.amount) AS points
FROM points_entry e CROSS JOIN LATERAL (
    SELECT mark, amount FROM points_entry
    WHERE merchant_id = :merchant_id AND member_id = e.member_id AND reason = 'EXPIRY' AND mark >= e.mark
    ORDER BY mark LIMIT 1
) x
WHERE e.merchant_id = :merchant_id AND e.reason = :reason AND e.origin = :origin AND x.mark + x.amount < e.mark
""",
)


async def take_back(
    tx: Tx,
    merchant_id: UUID,
    actor: str,
    member_id: UUID,
    amount: int,
    *,
    credit: tuple[PointsReason, str],
    origin: str,
    reference: str | None,
) -> tuple[PostedRow | None, int]:
    """Debit a credit of `amount`, named by its reason and origin, as far as it hasn't expired and the balance goes.

    Locks the wallet. Returns the REVERSAL entry of this `origin`, None where there is nothing to take, and the
    shortfall.
    """
    wallet = await lock_wallet(tx, merchant_id, member_id)
    reason, credited = credit
    expired = await tx.row(EXPIRED, merchant_id=merchant_id, reason=reason.value, origin=credited)
    left = amount - (expired["points"] if expired else 0)
    taken = min(left, wallet["points"])
    if taken == 0:
        return None, left
    entry = await post(
        tx, merchant_id, actor, member_id, -taken, PointsReason.REVERSAL, origin=origin, reference=reference
    )
    return entry, left - taken
