"""Giving points back that were spent: to their lots, with their dates; what is past its date expires at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Final, TypedDict
from uuid import UUID

from app.points.ledger import POINTS_MAX, PostedRow, lock_wallet
from app.points.moves import Move, write
from app.points.returns import Cover, Part, Plan, Short, plan
from app.points.types import PointsReason
from app.storage.database import Tx
from app.storage.statements import NoRow, statement


@dataclass(frozen=True, slots=True)
class GivenBack:
    """The entry that returned the points, the last one that it led to, and what expired at once."""

    entry: PostedRow
    latest: PostedRow
    expired: int


class SpentRow(TypedDict):
    """What a debit took from a lot and hasn't come back, and since when that was spent or held."""

    entry_id: UUID
    lot_id: UUID
    amount: int
    expires_at: datetime
    created_at: datetime
    spent_at: datetime


# The last spent first.
FIND_SPENT: Final = statement(
    SpentRow,
    """
SELECT e.id AS entry_id, p.lot_id, -p.amount - p.returned AS amount, l.expires_at, l.created_at,
    coalesce(p.held_at, e.created_at) AS spent_at
FROM points_entry e CROSS JOIN LATERAL (
    SELECT * FROM points_part WHERE merchant_id = :merchant_id AND entry_id = e.id OFFSET 0
) p
CROSS JOIN LATERAL (
    SELECT * FROM points_lot WHERE merchant_id = :merchant_id AND entry_id = p.lot_id OFFSET 0
) l
WHERE e.merchant_id = :merchant_id AND e.id = ANY(:entry_ids::uuid[]) AND -p.amount > p.returned
ORDER BY e.created_at DESC, l.expires_at DESC, l.created_at DESC, l.entry_id DESC
""",
)


class PaymentRow(TypedDict):
    """A debit, found by what it paid for."""

    entry_id: UUID


FIND_PAYMENTS: Final = statement(
    PaymentRow,
    """
SELECT id AS entry_id FROM points_entry
WHERE merchant_id = :merchant_id AND reason = :reason AND origin = ANY(:origins::text[])
""",
)


class StandingRow(TypedDict):
    """That a take-back of a lot lacks points (`lot_id` is null), or that a lot paid for it."""

    return_id: UUID
    returned_lot_id: UUID
    lot_id: UUID | None
    amount: int
    expires_at: datetime
    since: datetime
    returned_since: datetime


# Who paid last is paid back first.
FIND_STANDING: Final = statement(
    StandingRow,
    """
WITH RECURSIVE paid AS (
    -- For take-backs of the lots that were spent, and of those that paid.
    SELECT c.*, r.lot_id AS returned_lot_id, r.since FROM points_return r CROSS JOIN LATERAL (
        SELECT * FROM points_cover WHERE merchant_id = :merchant_id AND return_id = r.id AND amount > 0 OFFSET 0
    ) c
    WHERE r.merchant_id = :merchant_id AND r.lot_id = ANY(:lot_ids::uuid[])
    UNION
    SELECT c.*, r.lot_id, r.since FROM paid CROSS JOIN LATERAL (
        SELECT * FROM points_return WHERE merchant_id = :merchant_id AND lot_id = paid.lot_id OFFSET 0
    ) r
    CROSS JOIN LATERAL (
        SELECT * FROM points_cover WHERE merchant_id = :merchant_id AND return_id = r.id AND amount > 0 OFFSET 0
    ) c
)
SELECT paid.return_id, paid.returned_lot_id, paid.lot_id, paid.amount, l.expires_at, l.created_at AS since,
    paid.since AS returned_since
FROM paid CROSS JOIN LATERAL (
    SELECT expires_at, created_at FROM points_lot WHERE merchant_id = :merchant_id AND entry_id = paid.lot_id OFFSET 0
) l
UNION ALL
SELECT r.id, r.lot_id, NULL, r.shortfall, l.expires_at, l.created_at, r.since FROM points_return r
CROSS JOIN LATERAL (
    SELECT expires_at, created_at FROM points_lot WHERE merchant_id = :merchant_id AND entry_id = r.lot_id OFFSET 0
) l
WHERE r.merchant_id = :merchant_id AND r.member_id = :member_id AND r.shortfall > 0
""",
)
SETTLE: Final = statement(
    NoRow,
    """
WITH uncovered AS (
    UPDATE points_cover SET amount = points_cover.amount - back.amount
    FROM unnest(:covering_ids::uuid[], :covered_ids::uuid[], :covered::int[]) AS back (lot_id, return_id, amount)
    WHERE merchant_id = :merchant_id AND points_cover.return_id = ANY(:covered_ids)
        AND points_cover.return_id = back.return_id AND points_cover.lot_id = back.lot_id
)
UPDATE points_part SET returned = returned + back.amount
FROM unnest(:lot_ids::uuid[], :amounts::int[]) AS back (lot_id, amount)
WHERE merchant_id = :merchant_id AND entry_id = :entry_id AND points_part.lot_id = back.lot_id
""",
)


class PastRow(TypedDict):
    """A lot whose date is past, by this transaction's clock or by the one that let it expire."""

    entry_id: UUID


FIND_PAST: Final = statement(
    PastRow,
    """
SELECT entry_id FROM points_lot
WHERE merchant_id = :merchant_id AND entry_id = ANY(:lot_ids::uuid[]) AND (expires_at <= now() OR expired > 0)
""",
)


async def give_back(
    tx: Tx,
    merchant_id: UUID,
    actor: str,
    member_id: UUID,
    entry_id: UUID,
    *,
    origin: str,
    reference: str | None,
) -> GivenBack | None:
    """Give back what a debit took and hasn't come back yet, as a REFUND of this `origin`, and what follows from it.

    Locks the wallet. Returns None when the balance can't hold it. Raises RuntimeError when there is nothing to give.
    """
    wallet = await lock_wallet(tx, merchant_id, member_id)
    spent = await tx.rows(FIND_SPENT, merchant_id=merchant_id, entry_ids=[entry_id])
    if not spent:
        raise RuntimeError("nothing of this debit is left to give back")
    if wallet["points"] + sum(row["amount"] for row in spent) > POINTS_MAX:
        return None
    return await _give_back(tx, merchant_id, actor, member_id, spent, origin=origin, reference=reference)


async def give_back_some(
    tx: Tx,
    merchant_id: UUID,
    actor: str,
    member_id: UUID,
    points: int,
    *,
    spent: tuple[PointsReason, Sequence[str]],
    origin: str,
    reference: str | None,
) -> list[GivenBack] | None:
    """Give back so many points of debits, named by their reason and origins: the last spent first.

    Each debit of which something comes back is a REFUND of its own, the first of this `origin`. Locks the wallet.
    Returns None when the balance can't hold it. Raises RuntimeError when less is left to give.
    """
    wallet = await lock_wallet(tx, merchant_id, member_id)
    if wallet["points"] + points > POINTS_MAX:
        return None
    reason, origins = spent
    entries = await tx.rows(FIND_PAYMENTS, merchant_id=merchant_id, reason=reason.value, origins=list(origins))
    rows = await tx.rows(FIND_SPENT, merchant_id=merchant_id, entry_ids=[row["entry_id"] for row in entries])
    given = []
    for number, (_, of_entry) in enumerate(groupby(rows, key=itemgetter("entry_id")), start=1):
        taken: list[SpentRow] = []
        for row in of_entry:
            if amount := min(row["amount"], points):
                points -= amount
                taken.append({**row, "amount": amount})
        if taken:
            nth = origin if number == 1 else f"{origin}/{number}"
            given.append(await _give_back(tx, merchant_id, actor, member_id, taken, origin=nth, reference=reference))
    if points:
        raise RuntimeError("less of these debits is left to give back")
    return given


async def _give_back(
    tx: Tx,
    merchant_id: UUID,
    actor: str,
    member_id: UUID,
    spent: Sequence[SpentRow],
    *,
    origin: str,
    reference: str | None,
) -> GivenBack:
    """Give back what one debit took, of a wallet that is locked."""
    standing = await tx.rows(
        FIND_STANDING, merchant_id=merchant_id, member_id=member_id, lot_ids=[row["lot_id"] for row in spent]
    )
    order = {row["lot_id"]: (row["expires_at"], row["created_at"]) for row in spent}
    parts = [Part(row["lot_id"], row["amount"], row["spent_at"]) for row in spent]
    planned = plan(parts, covers(standing), shorts(standing), spending(order, standing))
    await tx.row(
        SETTLE,
        merchant_id=merchant_id,
        entry_id=spent[0]["entry_id"],
        lot_ids=[row["lot_id"] for row in spent],
        amounts=[row["amount"] for row in spent],
        covering_ids=[lot_id for lot_id, _ in planned.uncovers],
        covered_ids=[return_id for _, return_id in planned.uncovers],
        covered=list(planned.uncovers.values()),
    )
    return await write_plan(
        tx, merchant_id, actor, member_id, planned, PointsReason.REFUND, origin=origin, reference=reference
    )


def covers(standing: Sequence[StandingRow]) -> list[Cover]:
    """Return which lots paid for which take-backs, in the order in which they are paid back."""
    latest = sorted(standing, key=lambda row: (row["since"], row["returned_since"]), reverse=True)
    return [
        Cover(row["lot_id"], row["return_id"], row["returned_lot_id"], row["amount"])
        for row in latest
        if row["lot_id"] is not None
    ]


def shorts(standing: Sequence[StandingRow]) -> list[Short]:
    """Return which take-backs lack points, in the order in which they are filled: of one instant the newest lot's."""
    lacking = sorted((row for row in standing if row["lot_id"] is None), key=lambda row: row["since"], reverse=True)
    return [
        Short(row["return_id"], row["returned_lot_id"], row["amount"], row["returned_since"])
        for row in sorted(lacking, key=lambda row: row["returned_since"])
    ]


def spending(
    order: Mapping[UUID, tuple[datetime, datetime]], standing: Sequence[StandingRow]
) -> Callable[[UUID], tuple[datetime, datetime]]:
    """Return when a lot ends and when it was credited: those of `order`, and those that paid."""
    paid = {row["lot_id"]: (row["expires_at"], row["since"]) for row in standing if row["lot_id"] is not None}
    # An endless lot ends at infinity, for which asyncpg has a time without a zone.
    return {
        lot_id: (ends if ends.tzinfo else ends.replace(tzinfo=UTC), credited)
        for lot_id, (ends, credited) in {**order, **paid}.items()
    }.__getitem__


async def write_plan(
    tx: Tx,
    merchant_id: UUID,
    actor: str,
    member_id: UUID,
    planned: Plan,
    reason: PointsReason,
    *,
    origin: str,
    reference: str | None,
) -> GivenBack:
    """Write what comes back as an entry, then what fills take-backs, then what of it is past its date.

    The wallet is locked.
    """

    async def written(move: Move, reason: PointsReason, origin: str) -> PostedRow:
        return await write(tx, merchant_id, actor, member_id, move, reason, origin=origin, reference=reference)

    latest = entry = await written(Move(parts=dict(planned.given)), reason, origin)
    if planned.filled:
        filling = Move(
            parts={lot_id: -filled for lot_id, filled in planned.filling.items() if filled},
            shortfalls={return_id: -filled for return_id, filled in planned.filled.items()},
            covers=dict(planned.covers),
        )
        latest = await written(filling, PointsReason.REVERSAL, entry["entry_id"].hex)
    past = await tx.rows(FIND_PAST, merchant_id=merchant_id, lot_ids=list(planned.kept))
    ended = {row["entry_id"]: -planned.kept[row["entry_id"]] for row in past}
    if ended:
        latest = await written(Move(parts=ended), PointsReason.EXPIRY, entry["entry_id"].hex)
    return GivenBack(entry, latest, -sum(ended.values()))
