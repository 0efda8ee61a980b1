"""Putting a take-back off: what was really taken of a credit comes back, because the credit stands again.

Its shortfall ends, and what had filled that meanwhile comes back to the lots that paid.
"""

from datetime import UTC, datetime
from typing import Final, TypedDict
from uuid import UUID

from app.points.give_back import FIND_STANDING, GivenBack, covers, shorts, spending, write_plan
from app.points.ledger import POINTS_MAX, lock_wallet
from app.points.moves import lower_shortfall
from app.points.returns import Part, plan
from app.points.types import PointsReason
from app.storage.database import Tx
from app.storage.statements import NoRow, statement


class ReturnedRow(TypedDict):
    """A take-back of a lot: how much it took, how much of that had expired or is lacking, and how much others pay."""

    return_id: UUID
    lot_id: UUID
    expires_at: datetime
    created_at: datetime
    amount: int
    expired: int
    shortfall: int
    covered: int


FIND_RETURNED: Final = statement(
    ReturnedRow,
    """
SELECT r.id AS return_id, r.lot_id, l.expires_at, l.created_at, r.amount, r.expired, r.shortfall, (
    SELECT coalesce(sum(amount), 0)::int FROM points_cover WHERE merchant_id = :merchant_id AND return_id = r.id
) AS covered
FROM points_entry e CROSS JOIN LATERAL (
    SELECT * FROM points_lot WHERE merchant_id = :merchant_id AND entry_id = e.id OFFSET 0
) l
CROSS JOIN LATERAL (
    SELECT * FROM points_return WHERE merchant_id = :merchant_id AND lot_id = e.id AND amount > 0 OFFSET 0
) r
WHERE e.merchant_id = :merchant_id AND e.reason = :reason AND e.origin = :origin
ORDER BY r.since
""",
)
END: Final = statement(
    NoRow,
    """
WITH ended AS (
    UPDATE points_return SET amount = 0, expired = 0
    WHERE merchant_id = :merchant_id AND id = ANY(:return_ids::uuid[])
), uncovered AS (
    UPDATE points_cover SET amount = 0 WHERE merchant_id = :merchant_id AND return_id = ANY(:return_ids)
), others AS (
    -- For take-backs of the lots that paid.
    UPDATE points_cover SET amount = points_cover.amount - back.amount
    FROM unnest(:covering_ids::uuid[], :covered_ids::uuid[], :covered::int[]) AS back (lot_id, return_id, amount)
    WHERE merchant_id = :merchant_id AND points_cover.return_id = ANY(:covered_ids)
        AND points_cover.return_id = back.return_id AND points_cover.lot_id = back.lot_id
)
UPDATE points_lot SET returned = 0 WHERE merchant_id = :merchant_id AND entry_id = :lot_id
""",
)


async def put_back(
    tx: Tx,
    merchant_id: UUID,
    actor: str,
    member_id: UUID,
    *,
    credit: tuple[PointsReason, str],
    origin: str,
    reference: str | None,
) -> GivenBack | None:
    """Let a credit stand again whose lot was taken back, named by its reason and origin.

    What was really taken comes back as an entry of the credit's reason and this `origin`, which is no lot: to the lots
    that it came from, with their dates, where it first fills what is lacking since they were credited. What is past its
    date expires at once. Locks the wallet. Returns None when nothing comes back, because nothing was taken. Raises
    OverflowError when the balance can't hold it.
    """
    wallet = await lock_wallet(tx, merchant_id, member_id)
    reason, credited = credit
    returned = await tx.rows(FIND_RETURNED, merchant_id=merchant_id, reason=reason.value, origin=credited)
    if not returned:
        return None
    lot_id = returned[0]["lot_id"]
    return_ids = [row["return_id"] for row in returned]
    own = sum(row["amount"] - row["expired"] - row["shortfall"] - row["covered"] for row in returned)
    if wallet["points"] + own + sum(row["covered"] for row in returned) > POINTS_MAX:
        raise OverflowError("the balance can't hold what comes back")
    standing = await tx.rows(FIND_STANDING, merchant_id=merchant_id, member_id=member_id, lot_ids=[lot_id])
    paid = covers(standing)
    order = {lot_id: (returned[0]["expires_at"], returned[0]["created_at"])}
    # Only since when they were credited counts.
    never = datetime.max.replace(tzinfo=UTC)
    parts = [Part(lot_id, own, never)]
    parts += [Part(each.lot_id, each.amount, never) for each in paid if each.return_id in return_ids]
    planned = plan(
        parts,
        [each for each in paid if each.return_id not in return_ids],
        [each for each in shorts(standing) if each.return_id not in return_ids],
        spending(order, standing),
    )
    if lowered := [(row["return_id"], lot_id, row["shortfall"]) for row in returned if row["shortfall"]]:
        await lower_shortfall(tx, merchant_id, actor, member_id, lowered)
    await tx.row(
        END,
        merchant_id=merchant_id,
        lot_id=lot_id,
        return_ids=return_ids,
        covering_ids=[lot_id for lot_id, _ in planned.uncovers],
        covered_ids=[return_id for _, return_id in planned.uncovers],
        covered=list(planned.uncovers.values()),
    )
    if not planned.given:
        return None
    return await write_plan(tx, merchant_id, actor, member_id, planned, reason, origin=origin, reference=reference)
