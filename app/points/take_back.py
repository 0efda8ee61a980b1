"""Taking points of a credit back: from its own lots, then from the member's others; what is lacking is the shortfall.

Each lot from which something goes back has a take-back of its own, a row that keeps what it lacks and that others pay
for. A later one of the same lot is another row.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypedDict
from uuid import UUID

from app import ids
from app.points.ledger import PostedRow, credit, lock_wallet, too_many
from app.points.mature_points import mature
from app.points.moves import Move, Return, begin, fall_short, lower_shortfall, write
from app.points.overdue import end_overdue
from app.points.taking import OwnLot, Share, attribute, own_shares
from app.points.types import PointsReason
from app.storage.database import Tx
from app.storage.statements import statement
from app.storage.wallet_versions import ChangeRow


@dataclass(slots=True)
class TakenBack:
    """What a take-back got and what it lacks.

    `entries` are its own, if it got something, and those that took again what its lots had paid for other take-backs.
    """

    entry: PostedRow | None = None
    entries: list[PostedRow] = field(default_factory=list)
    shortfall: int = 0
    #: The last change of the wallet that it made.
    latest: ChangeRow | None = None


class CreditedRow(TypedDict):
    """A lot of a credit: what is left and isn't held, what expired uncounted, and what it pays for other take-backs."""

    lot_id: UUID
    amount: int
    returned: int
    free: int
    uncounted: int
    paid: int


FIND_CREDITED: Final = statement(
    CreditedRow,
    """
SELECT l.entry_id AS lot_id, l.amount, l.returned, l.remaining - l.held AS free, l.expired - (
    SELECT coalesce(sum(expired), 0)::int FROM points_return WHERE merchant_id = :merchant_id AND lot_id = l.entry_id
) AS uncounted, (
    SELECT coalesce(sum(amount), 0)::int FROM points_cover WHERE merchant_id = :merchant_id AND lot_id = l.entry_id
) AS paid
FROM points_entry e CROSS JOIN LATERAL (
    SELECT * FROM points_lot WHERE merchant_id = :merchant_id AND entry_id = e.id OFFSET 0
) l
WHERE e.merchant_id = :merchant_id AND e.reason = :reason AND e.origin = ANY(:origins::text[])
ORDER BY l.created_at DESC, l.entry_id DESC
""",
)


class PaidRow(TypedDict):
    """What a lot has paid for a take-back of another one, and since when that lacks it."""

    lot_id: UUID
    return_id: UUID
    returned_lot_id: UUID
    amount: int
    since: datetime


FIND_PAID: Final = statement(
    PaidRow,
    """
SELECT c.lot_id, c.return_id, r.lot_id AS returned_lot_id, c.amount, r.since FROM points_cover c CROSS JOIN LATERAL (
    SELECT lot_id, since FROM points_return WHERE merchant_id = :merchant_id AND id = c.return_id OFFSET 0
) r
WHERE c.merchant_id = :merchant_id AND c.lot_id = ANY(:lot_ids::uuid[]) AND c.amount > 0
ORDER BY r.since DESC, c.return_id DESC
""",
)


class UncoveredRow(TypedDict):
    """A take-back for which a lot pays less than before."""

    return_id: UUID


UNCOVER: Final = statement(
    UncoveredRow,
    """
UPDATE points_cover SET amount = points_cover.amount - less.amount
FROM unnest(:lot_ids::uuid[], :return_ids::uuid[], :amounts::int[]) AS less (lot_id, return_id, amount)
WHERE merchant_id = :merchant_id AND points_cover.return_id = ANY(:return_ids)
    AND points_cover.return_id = less.return_id AND points_cover.lot_id = less.lot_id
RETURNING points_cover.return_id
""",
)


async def take_back(
    tx: Tx,
    merchant_id: UUID,
    actor: str,
    member_id: UUID,
    *,
    reason: PointsReason,
    credited: Sequence[str],
    points: int | None = None,
    origin: str,
    reference: str | None,
) -> TakenBack:
    """Take points of a credit back, as many as stand of it unless told; its entries are named by reason and origins.

    What has expired of its lots counts as taken, once. What they had paid for other take-backs counts as taken, too,
    and is taken again for those, from lots older than they are. What is held isn't taken. Locks the wallet. Writes a
    REVERSAL entry of this `origin`, and one for each of those. Raises Refused(InvalidInput) when the wallet would lack
    too much.
    """
    wallet = await lock_wallet(tx, merchant_id, member_id)

    async def find() -> list[CreditedRow]:
        return await tx.rows(FIND_CREDITED, merchant_id=merchant_id, reason=reason.value, origins=list(credited))

    found = await find()
    if points is None:
        points = sum(lot["amount"] - lot["returned"] for lot in found)
    if points == 0:
        return TakenBack()
    # What is held longer than it may be is taken as if it weren't.
    if wallet["held_points"] and points > found[0]["free"] and await end_overdue(tx, merchant_id, member_id):
        found = await find()
    if wallet["pending_points"] and points > found[0]["free"]:
        # Others may pay: those whose pending is over pay as spendable ones, however late the job is.
        await mature(tx, merchant_id, [member_id])
    paid: list[PaidRow] = []
    if any(lot["paid"] for lot in found) and points > found[0]["free"]:
        paid = await tx.rows(FIND_PAID, merchant_id=merchant_id, lot_ids=[lot["lot_id"] for lot in found])
    lots = [_own(lot, paid) for lot in found]
    shares, lacking = own_shares(lots, points)
    others = await _pick(tx, merchant_id, member_id, lacking, besides=[lot.lot_id for lot in lots], before=None)
    attribute(shares, lots, others, lacking)
    taken = await _write_shares(tx, merchant_id, actor, member_id, shares, origin=origin, reference=reference)
    if uncovered := [(share.lot_id, each, back) for share in shares for each, back in share.uncovers.items()]:
        await tx.rows(
            UNCOVER,
            merchant_id=merchant_id,
            lot_ids=[lot_id for lot_id, _, _ in uncovered],
            return_ids=[return_id for _, return_id, _ in uncovered],
            amounts=[amount for _, _, amount in uncovered],
        )
        again: defaultdict[UUID, int] = defaultdict(int)
        for _, return_id, amount in uncovered:
            again[return_id] += amount
        for row in {row["return_id"]: row for row in reversed(paid) if row["return_id"] in again}.values():
            await _take_again(
                tx, merchant_id, actor, member_id, row, again[row["return_id"]], taken, origin=origin,
                reference=reference,
            )  # fmt: skip
    return taken


def _own(lot: CreditedRow, paid: Sequence[PaidRow]) -> OwnLot:
    return OwnLot(
        lot["lot_id"],
        free=lot["free"],
        uncounted=lot["uncounted"],
        standing=lot["amount"] - lot["returned"],
        paid={row["return_id"]: row["amount"] for row in paid if row["lot_id"] == lot["lot_id"]},
    )


async def _write_shares(
    tx: Tx,
    merchant_id: UUID,
    actor: str,
    member_id: UUID,
    shares: Sequence[Share],
    *,
    origin: str,
    reference: str | None,
) -> TakenBack:
    """Write down what goes back of each lot: the entry, then what is lacking."""
    taken, move, lacking = TakenBack(), Move(), dict[UUID, int]()
    returns = []
    for share in shares:
        if share.amount == 0:
            continue
        began = Return(ids.new(), share.lot_id, share.amount, share.expired)
        returns.append(began)
        if share.own:
            move.parts[share.lot_id] = -share.own
        for payer, amount in share.covers.items():
            move.parts[payer] = move.parts.get(payer, 0) - amount
            move.covers[payer, began.id] = amount
        if share.shortfall:
            lacking[began.id] = share.shortfall
    if move.parts:
        move.returns = returns
        taken.latest = taken.entry = await write(
            tx, merchant_id, actor, member_id, move, PointsReason.REVERSAL, origin=origin, reference=reference
        )
        taken.entries.append(taken.entry)
    if lacking:
        taken.shortfall = sum(lacking.values())
        (lot_id, *_) = (each.lot_id for each in returns if each.id in lacking)
        taken.latest = await fall_short(
            tx, merchant_id, actor, member_id, lot_id, lacking, [] if move.parts else returns
        )
    if not move.parts and not lacking:
        await begin(tx, merchant_id, member_id, returns)
    return taken


async def _take_again(
    tx: Tx,
    merchant_id: UUID,
    actor: str,
    member_id: UUID,
    covered: PaidRow,
    amount: int,
    taken: TakenBack,
    *,
    origin: str,
    reference: str | None,
) -> None:
    """Take for an earlier take-back what a lot pays no more, from lots that are older than it."""
    return_id = covered["return_id"]
    payers = await _pick(
        tx, merchant_id, member_id, amount, besides=[covered["returned_lot_id"]], before=covered["since"]
    )
    if payers:
        move = Move(
            parts={lot_id: -paid for lot_id, paid in payers},
            covers={(lot_id, return_id): paid for lot_id, paid in payers},
        )
        taken.latest = entry = await write(
            tx, merchant_id, actor, member_id, move, PointsReason.REVERSAL, origin=f"{origin}/{return_id.hex}",
            reference=reference,
        )  # fmt: skip
        taken.entries.append(entry)
    if lacking := amount - sum(paid for _, paid in payers):
        taken.latest = await fall_short(
            tx, merchant_id, actor, member_id, covered["returned_lot_id"], {return_id: lacking}
        )


class PickedRow(TypedDict):
    """A lot that pays, and how much."""

    entry_id: UUID
    amount: int


# In the order of the index: the spendable ones in the order of spending, then the pending ones.
PICK: Final = statement(
    PickedRow,
    """
WITH RECURSIVE picked AS (
    SELECT lot.*, least(lot.free, :amount::int) AS amount, :amount - lot.free AS lacking FROM (
        SELECT is_pending, expires_at, created_at, entry_id, remaining - held AS free FROM points_lot
        WHERE merchant_id = :merchant_id AND member_id = :member_id AND is_open AND entry_id <> ALL(:besides::uuid[])
            AND (:before::timestamptz IS NULL OR created_at < :before)
        ORDER BY is_pending, expires_at, created_at, entry_id LIMIT 1
    ) lot
    UNION ALL
    SELECT lot.*, least(lot.free, picked.lacking), picked.lacking - lot.free
    FROM picked CROSS JOIN LATERAL (
        SELECT is_pending, expires_at, created_at, entry_id, remaining - held AS free FROM points_lot
        WHERE merchant_id = :merchant_id AND member_id = :member_id AND is_open AND entry_id <> ALL(:besides)
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


async def _pick(
    tx: Tx, merchant_id: UUID, member_id: UUID, amount: int, *, besides: Sequence[UUID], before: datetime | None
) -> list[tuple[UUID, int]]:
    """Return which lots pay `amount`, as far as they go: none of `besides`, and older than `before` if one is given."""
    if amount == 0:
        return []
    picked = await tx.rows(
        PICK, merchant_id=merchant_id, member_id=member_id, amount=amount, besides=list(besides), before=before
    )
    return [(row["entry_id"], row["amount"]) for row in picked]


class ShortRow(TypedDict):
    """A take-back that lacks points, and the lot that it is of."""

    return_id: UUID
    lot_id: UUID
    shortfall: int


# The first that lacked something comes first; of those of one instant, that of the newest lot.
FIND_SHORT: Final = statement(
    ShortRow,
    """
SELECT r.id AS return_id, r.lot_id, r.shortfall FROM points_return r CROSS JOIN LATERAL (
    SELECT created_at FROM points_lot WHERE merchant_id = :merchant_id AND entry_id = r.lot_id OFFSET 0
) l
WHERE r.merchant_id = :merchant_id AND r.member_id = :member_id AND r.shortfall > 0
    AND (SELECT recover_shortfalls FROM merchant WHERE merchant_id = :merchant_id)
ORDER BY r.since, l.created_at DESC, r.id
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
            move.shortfalls[short["return_id"]] = -paid
            move.covers[lot_id, short["return_id"]] = paid
    if not move.covers:
        return None
    move.parts[lot_id] = left - earned["entry_amount"]
    return await write(
        tx, merchant_id, actor, earned["member_id"], move, PointsReason.REVERSAL, origin=origin,
        reference=earned["entry_reference"],
    )  # fmt: skip


@dataclass(slots=True)
class EarnedMore:
    """What a credit that is worth more than before brought: an entry, if its own shortfall left something."""

    entry: PostedRow | None = None
    #: How much less the take-backs of the credit lack.
    filled: int = 0
    #: The last change of the wallet.
    latest: ChangeRow | None = None


# The newest first.
FIND_OWN_SHORT: Final = statement(
    ShortRow,
    """
SELECT r.id AS return_id, r.lot_id, r.shortfall FROM points_entry e CROSS JOIN LATERAL (
    SELECT * FROM points_return WHERE merchant_id = :merchant_id AND lot_id = e.id AND shortfall > 0 OFFSET 0
) r
WHERE e.merchant_id = :merchant_id AND e.reason = 'PURCHASE' AND e.origin = ANY(:origins::text[])
ORDER BY r.since DESC, e.created_at DESC, r.id
""",
)


async def earn_more(
    tx: Tx,
    merchant_id: UUID,
    actor: str,
    member_id: UUID,
    points: int,
    *,
    credited: Sequence[str],
    origin: str,
    reference: str | None,
    spendable_at: datetime | None,
    path: str,
) -> EarnedMore:
    """Let a purchase earn `points` more; its entries until now are named by their origins.

    First they fill what its own take-backs lack, the newest first, whether or not the merchant recovers shortfalls.
    What is left is credited now, as a lot of this `origin`, and makes good what other returns lack. Locks the wallet.
    Raises Refused(InvalidInput) at `path` when the balance can't hold it.
    """
    await lock_wallet(tx, merchant_id, member_id)
    earned = EarnedMore()
    lowered = []
    for short in await tx.rows(FIND_OWN_SHORT, merchant_id=merchant_id, origins=list(credited)):
        if filled := min(points - earned.filled, short["shortfall"]):
            earned.filled += filled
            lowered.append((short["return_id"], short["lot_id"], filled))
    if lowered:
        earned.latest = await lower_shortfall(tx, merchant_id, actor, member_id, lowered)
    if left := points - earned.filled:
        entry = await credit(
            tx, merchant_id, actor, member_id, left, PointsReason.PURCHASE, origin=origin, reference=reference,
            spendable_at=spendable_at,
        )  # fmt: skip
        if entry is None:
            raise too_many(path)
        earned.latest = earned.entry = entry
        if entry["wallet_shortfall"]:
            good = await make_good(tx, merchant_id, actor, entry, origin=f"{origin}/earned")
            earned.latest = good or entry
    return earned
