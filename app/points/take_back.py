"""Taking a credit back: from its own lot, then from the member's others; what is lacking is the shortfall."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypedDict
from uuid import UUID

from app.points.ledger import PostedRow, lock_wallet
from app.points.mature_points import mature
from app.points.moves import Move, fall_short, write
from app.points.types import PointsReason
from app.storage.database import Tx
from app.storage.statements import statement
from app.storage.wallet_versions import ChangeRow


@dataclass(frozen=True, slots=True)
class TakenBack:
    """What a take-back got and what it lacks: its entry is None where there was nothing to get."""

    entry: PostedRow | None = None
    shortfall: int = 0
    #: The last change of the wallet that it made.
    latest: ChangeRow | None = None


class CreditRow(TypedDict):
    """The lot of a credit, and how much it has paid in place of others."""

    lot_id: UUID
    amount: int
    remaining: int
    expired: int
    covered: int


FIND_CREDIT: Final = statement(
    CreditRow,
    """
SELECT l.entry_id AS lot_id, l.amount, l.remaining, l.expired, (
    SELECT coalesce(sum(amount), 0)::int FROM points_cover WHERE merchant_id = :merchant_id AND lot_id = l.entry_id
) AS covered
FROM points_entry e CROSS JOIN LATERAL (
    SELECT * FROM points_lot WHERE merchant_id = :merchant_id AND entry_id = e.id OFFSET 0
) l
WHERE e.merchant_id = :merchant_id AND e.reason = :reason AND e.origin = :origin
""",
)


class UncoveredRow(TypedDict):
    """What a lot had paid in place of another one, and since when that lacks it."""

    covered_id: UUID
    amount: int
    since: datetime


UNCOVER: Final = statement(
    UncoveredRow,
    """
WITH standing AS (
    SELECT c.covered_id, c.amount, l.taken_back_at AS since FROM points_cover c CROSS JOIN LATERAL (
        SELECT taken_back_at FROM points_lot WHERE merchant_id = :merchant_id AND entry_id = c.covered_id OFFSET 0
    ) l
    WHERE c.merchant_id = :merchant_id AND c.lot_id = :lot_id AND c.amount > 0
), ended AS (
    UPDATE points_cover SET amount = 0 WHERE merchant_id = :merchant_id AND lot_id = :lot_id
)
SELECT covered_id, amount, since FROM standing ORDER BY since, covered_id
""",
)


async def take_back(
    tx: Tx,
    merchant_id: UUID,
    actor: str,
    member_id: UUID,
    *,
    credit: tuple[PointsReason, str],
    origin: str,
    reference: str | None,
) -> TakenBack:
    """Take a credit back whole, named by its reason and origin; what has expired of it counts as taken.

    What its lot had paid in place of others counts as taken, too, and is taken again for those, from lots older than
    their return. Locks the wallet. Writes a REVERSAL entry of this `origin`.
    """
    wallet = await lock_wallet(tx, merchant_id, member_id)
    reason, credited = credit
    lot = await tx.row(FIND_CREDIT, merchant_id=merchant_id, reason=reason.value, origin=credited)
    if lot is None:
        return TakenBack()
    owed = lot["amount"] - lot["expired"] - lot["covered"]
    if wallet["pending_points"] and (owed > lot["remaining"] or lot["covered"]):
        # Others may pay: those whose pending is over pay as spendable ones, however late the job is.
        await mature(tx, merchant_id, [member_id])
    taken = await _take(
        tx, merchant_id, actor, member_id, lot["lot_id"], owed, own=lot["remaining"], before=None, origin=origin,
        reference=reference,
    )  # fmt: skip
    latest = taken.latest
    uncovered = await tx.rows(UNCOVER, merchant_id=merchant_id, lot_id=lot["lot_id"]) if lot["covered"] else []
    for row in uncovered:
        again = await _take(
            tx, merchant_id, actor, member_id, row["covered_id"], row["amount"], own=0, before=row["since"],
            origin=f"{origin}/{row['covered_id'].hex}", reference=reference,
        )  # fmt: skip
        latest = again.latest or latest
    return TakenBack(taken.entry, taken.shortfall, latest)


class PickedRow(TypedDict):
    """A lot that pays, and how much."""

    entry_id: UUID
    amount: int


# In the order of the index: the spendable ones in the order of spending, then the pending ones.
PICK: Final = statement(
    PickedRow,
    """
WITH RECURSIVE picked AS (
    SELECT lot.*, least(lot.remaining, :amount::int) AS amount, :amount - lot.remaining AS lacking FROM (
        SELECT is_pending, expires_at, created_at, entry_id, remaining FROM points_lot
        WHERE merchant_id = :merchant_id AND member_id = :member_id AND is_open AND entry_id <> :lot_id
            AND (:before::timestamptz IS NULL OR created_at < :before)
        ORDER BY is_pending, expires_at, created_at, entry_id LIMIT 1
    ) lot
    UNION ALL
    SELECT lot.*, least(lot.remaining, picked.lacking), picked.lacking - lot.remaining
    FROM picked CROSS JOIN LATERAL (
        SELECT is_pending, expires_at, created_at, entry_id, remaining FROM points_lot
        WHERE merchant_id = :merchant_id AND member_id = :member_id AND is_open AND entry_id <> :lot_id
            AND (:before IS NULL OR created_at < :before)
            AND (is_pending, expires_at, created_at, entry_id)
                > (picked.is_pending, picked.expires_at, picked.created_at, picked.entry_id)
        ORDER BY is_pending, expires_at, created_at, entry_id LIMIT 1
    ) lot
    WHERE picked.lacking > 0
)
SELECT entry_id, amount FROM picked
""",
)


async def _take(
    tx: Tx,
    merchant_id: UUID,
    actor: str,
    member_id: UUID,
    lot_id: UUID,
    amount: int,
    *,
    own: int,
    before: datetime | None,
    origin: str,
    reference: str | None,
) -> TakenBack:
    """Take `amount` for a lot: from the `own` points that are left in it, then from those that are older than `before`.

    The wallet is locked.
    """
    move = Move(taken_back=lot_id)
    if got := min(own, amount):
        move.parts[lot_id] = -got
    if got < amount:
        for row in await tx.rows(
            PICK, merchant_id=merchant_id, member_id=member_id, lot_id=lot_id, amount=amount - got, before=before
        ):
            move.parts[row["entry_id"]] = -row["amount"]
            move.covers[row["entry_id"], lot_id] = row["amount"]
    taken = -sum(move.parts.values())
    entry: PostedRow | None = None
    latest: ChangeRow | None = None
    if taken:
        latest = entry = await write(
            tx, merchant_id, actor, member_id, move, PointsReason.REVERSAL, origin=origin, reference=reference
        )
    if taken < amount:
        latest = await fall_short(tx, merchant_id, actor, member_id, lot_id, amount - taken)
    return TakenBack(entry, amount - taken, latest)


class ShortRow(TypedDict):
    """A lot that lacks points, the one that was taken back first at the top."""

    entry_id: UUID
    shortfall: int


FIND_SHORT: Final = statement(
    ShortRow,
    """
SELECT entry_id, shortfall FROM points_lot
WHERE merchant_id = :merchant_id AND member_id = :member_id AND shortfall > 0
    AND (SELECT recover_shortfalls FROM merchant WHERE merchant_id = :merchant_id)
ORDER BY taken_back_at, entry_id
""",
)


async def make_good(tx: Tx, merchant_id: UUID, actor: str, earned: PostedRow, *, origin: str) -> PostedRow | None:
    """Let a credit that was just written pay for what returns lack, if the merchant says so. Returns the entry."""
    move = Move()
    lot_id, left = earned["entry_id"], earned["entry_amount"]
    for short in await tx.rows(FIND_SHORT, merchant_id=merchant_id, member_id=earned["member_id"]):
        paid = min(left, short["shortfall"])
        if paid:
            left -= paid
            move.shortfalls[short["entry_id"]] = -paid
            move.covers[lot_id, short["entry_id"]] = paid
    if not move.covers:
        return None
    move.parts[lot_id] = left - earned["entry_amount"]
    return await write(
        tx, merchant_id, actor, earned["member_id"], move, PointsReason.REVERSAL, origin=origin,
        reference=earned["entry_reference"],
    )  # fmt: skip
