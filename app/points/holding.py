"""Points that are held for an order: set aside lot by lot, until they are captured or freed.

A wallet's points are held, captured and freed under its lock. What a hold has is in its parts, which go when it ends.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple, TypedDict
from uuid import UUID

from app import ids
from app.points.freeing import TYPED, HoldEvent, free_all_but
from app.points.ledger import LockedWalletRow, lock_wallet
from app.points.mature_points import mature
from app.points.overdue import end_overdue
from app.storage.database import Tx
from app.storage.events import event
from app.storage.statements import NoRow, columns, statement
from app.storage.wallet_versions import NEXT_DATE, ChangeRow, ring_wallet

#: CTEs that set points aside. They continue a WITH RECURSIVE that has `w`, the member's wallet as the statement changed
#: it: its `held_points` by the sum of `:amounts` and its date. Its guard is that so many can be spent and that nobody
#: changed the wallet since the statement began; without a row nothing is held. `:amounts` are held for `:positions` of
#: `:hold_id` in this order, from the lots in the order of spending, so that the last amount has what would be spent
#: last. They add `hold_parts`, the rows that say so.
HOLD_LOTS: Final = """
wanted AS (
    -- What is held for each position, one after the other.
    SELECT position, ends - amount AS begins, ends FROM (
        SELECT position, amount, sum(amount) OVER (ORDER BY place) AS ends
        FROM unnest(:positions::int[], :amounts::int[]) WITH ORDINALITY AS wanted (position, amount, place)
    ) wanted
), taken AS (
    -- One lot after the other in the order of spending, until it is enough.
    SELECT lot.*, lot.free::bigint AS ends, total.points AS total
    FROM w CROSS JOIN (SELECT coalesce(max(ends), 0) AS points FROM wanted) total CROSS JOIN LATERAL (
        SELECT expires_at, created_at, entry_id, remaining - held AS free FROM points_lot
        WHERE merchant_id = :merchant_id AND member_id = :member_id AND is_open AND NOT is_pending
        ORDER BY expires_at, created_at, entry_id LIMIT 1
    ) lot
    WHERE total.points > 0
    UNION ALL
    SELECT lot.*, taken.ends + lot.free, taken.total FROM taken CROSS JOIN LATERAL (
        SELECT expires_at, created_at, entry_id, remaining - held AS free FROM points_lot
        WHERE merchant_id = :merchant_id AND member_id = :member_id AND is_open AND NOT is_pending
            AND (expires_at, created_at, entry_id) > (taken.expires_at, taken.created_at, taken.entry_id)
        ORDER BY expires_at, created_at, entry_id LIMIT 1
    ) lot
    WHERE taken.ends < taken.total
), set_aside AS (
    -- All of each lot, but for what the last one has too many.
    UPDATE points_lot SET
        held = remaining - CASE entry_id WHEN (SELECT entry_id FROM taken WHERE ends > total)
            THEN (SELECT (ends - total)::int FROM taken WHERE ends > total) ELSE 0 END,
        is_open = coalesce(entry_id = (SELECT entry_id FROM taken WHERE ends > total), false)
    WHERE merchant_id = :merchant_id AND entry_id = ANY(ARRAY(SELECT entry_id FROM taken))
), hold_parts AS (
    -- A position has what its share of the sum has in common with a lot's.
    INSERT INTO hold_part (merchant_id, hold_id, position, lot_id, amount, held_at)
    SELECT :merchant_id, :hold_id, wanted.position, taken.entry_id,
        (least(taken.ends, wanted.ends) - greatest(taken.ends - taken.free, wanted.begins))::int, w.changed_at
    FROM w CROSS JOIN taken JOIN wanted ON wanted.begins < least(wanted.ends, taken.ends)
        AND wanted.ends > taken.ends - taken.free
    ON CONFLICT (merchant_id, hold_id, position, lot_id) DO UPDATE SET amount = hold_part.amount + excluded.amount
    RETURNING *
)"""
HOLD: Final = statement(
    ChangeRow,
    f"""
WITH RECURSIVE w AS (
    UPDATE wallet SET version = version + 1, changed_at = {NEXT_DATE}, held_points = held_points + asked.points
    FROM (SELECT sum(amount)::int AS points FROM unnest(:amounts::int[]) AS asked (amount)) asked
    WHERE merchant_id = :merchant_id AND member_id = :member_id
        AND wallet.points - held_points - pending_points >= asked.points
    RETURNING wallet.*, asked.points AS asked
), {HOLD_LOTS}, ev AS (
    {
        event(
            TYPED,
            subject=":hold_id",
            source="w",
            points="w.asked",
            member_id="w.member_id",
            wallet="w",
        )
    }
    RETURNING *
)
SELECT {columns(ChangeRow)} FROM ev
""",
)


class HoldPartRow(TypedDict):
    """A part of a hold."""

    position: int
    lot_id: UUID
    amount: int
    held_at: datetime


# In the order of spending.
FIND_PARTS: Final = statement(
    HoldPartRow,
    """
SELECT p.position, p.lot_id, p.amount, p.held_at FROM hold_part p CROSS JOIN LATERAL (
    SELECT expires_at, created_at FROM points_lot WHERE merchant_id = :merchant_id AND entry_id = p.lot_id OFFSET 0
) l
WHERE p.merchant_id = :merchant_id AND p.hold_id = :hold_id
ORDER BY l.expires_at, l.created_at, p.lot_id, p.held_at
""",
)
ARRANGE: Final = statement(
    NoRow,
    """
WITH arranged AS (
    INSERT INTO hold_part (merchant_id, hold_id, position, lot_id, amount, held_at)
    SELECT :merchant_id, :hold_id, *
    FROM unnest(:positions::int[], :lot_ids::uuid[], :amounts::int[], :held::timestamptz[])
    ON CONFLICT (merchant_id, hold_id, position, lot_id)
    DO UPDATE SET amount = excluded.amount, held_at = excluded.held_at
)
DELETE FROM hold_part WHERE merchant_id = :merchant_id AND hold_id = :hold_id AND NOT EXISTS (
    SELECT FROM unnest(:positions, :lot_ids) AS kept (position, lot_id)
    WHERE kept.position = hold_part.position AND kept.lot_id = hold_part.lot_id
)
""",
)


class Holding(NamedTuple):
    """What a hold could have of a wallet, and whether it has what was asked for.

    `change` is the wallet's last one, None where the hold has as many as before.
    """

    spendable: int
    is_held: bool
    change: ChangeRow | None = None


async def hold_points(
    tx: Tx,
    merchant_id: UUID,
    actor: str,
    member_id: UUID,
    hold_id: UUID,
    amounts: Sequence[int],
    *,
    event_type: HoldEvent,
    reference: str | None,
) -> Holding:
    """Let a hold have `amounts` of a member's points: the first to pay with, the others for its rewards in their order.

    What it has already stays as far as it goes; what it has too many comes free, what would be spent last first, and
    `reference` is for entries that follow. Rewards have what would be spent first. Locks the wallet. Changes nothing
    where too few can be spent, also after the member's holds whose time has passed were ended.
    """
    wallet = await lock_wallet(tx, merchant_id, member_id)
    has = await tx.rows(FIND_PARTS, merchant_id=merchant_id, hold_id=hold_id)
    order = [*range(1, len(amounts)), 0]
    held = sum(part["amount"] for part in has)
    more = sum(amounts) - held
    spendable = await _spendable(tx, merchant_id, member_id, wallet, more)
    if more > spendable:
        return Holding(spendable + held, is_held=False)
    change = None
    if more > 0:
        change = await tx.row(
            HOLD,
            merchant_id=merchant_id,
            member_id=member_id,
            hold_id=hold_id,
            positions=[0] if has else order,
            amounts=[more] if has else [amounts[position] for position in order],
            event_id=ids.new(),
            event_type=event_type,
            actor=actor,
        )
        if change is None:
            raise RuntimeError("a locked wallet took no change")
        ring_wallet(tx, merchant_id, change)
    elif more < 0:
        freed = await free_all_but(
            tx, merchant_id, actor, member_id, hold_id, keep=sum(amounts), event_type=event_type, reference=reference
        )
        change = None if freed is None else freed.latest
    if has:
        await _arrange(tx, merchant_id, hold_id, {position: amounts[position] for position in order})
    return Holding(spendable + held, is_held=True, change=change)


async def _spendable(tx: Tx, merchant_id: UUID, member_id: UUID, wallet: LockedWalletRow, wanted: int) -> int:
    """Return what can be spent of a wallet that is locked; if that is too few, after what is late has ended."""
    if wanted > free(wallet) and wallet["pending_points"]:
        await mature(tx, merchant_id, [member_id])
        wallet = await lock_wallet(tx, merchant_id, member_id)
    if wanted > free(wallet) and wallet["held_points"] and await end_overdue(tx, merchant_id, member_id):
        wallet = await lock_wallet(tx, merchant_id, member_id)
    return free(wallet)


async def _arrange(tx: Tx, merchant_id: UUID, hold_id: UUID, amounts: Mapping[int, int]) -> None:
    """Share out anew what a hold has, in the order of spending and of `amounts` by position; they have all of it."""
    parts = await tx.rows(FIND_PARTS, merchant_id=merchant_id, hold_id=hold_id)
    arranged: dict[tuple[int, UUID], tuple[int, datetime]] = {}
    left = [(part["lot_id"], part["amount"], part["held_at"]) for part in reversed(parts)]
    for position, amount in amounts.items():
        lacking = amount
        while lacking:
            lot_id, has, held_at = left.pop()
            taken = min(has, lacking)
            before, since = arranged.get((position, lot_id), (0, held_at))
            arranged[position, lot_id] = before + taken, min(since, held_at)
            lacking -= taken
            if taken < has:
                left.append((lot_id, has - taken, held_at))
    if arranged == {(part["position"], part["lot_id"]): (part["amount"], part["held_at"]) for part in parts}:
        return
    await tx.row(
        ARRANGE,
        merchant_id=merchant_id,
        hold_id=hold_id,
        positions=[position for position, _ in arranged],
        lot_ids=[lot_id for _, lot_id in arranged],
        amounts=[amount for amount, _ in arranged.values()],
        held=[held_at for _, held_at in arranged.values()],
    )


def free(wallet: LockedWalletRow) -> int:
    """Return what can be spent of a wallet."""
    return wallet["points"] - wallet["held_points"] - wallet["pending_points"]
