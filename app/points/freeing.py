"""Held points that come free: they stay in their lots, unless something waited for them there."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypedDict, get_args
from uuid import UUID

from app import ids
from app.points.give_back import FIND_PAST, FIND_STANDING, covers, shorts, spending
from app.points.ledger import PostedRow, lock_wallet
from app.points.moves import Move, write
from app.points.returns import Part, Plan, plan
from app.points.take_back import UNCOVER
from app.points.types import PointsReason
from app.storage.database import Tx
from app.storage.events import event
from app.storage.statements import columns, statement
from app.storage.wallet_versions import NEXT_DATE, ChangeRow, ring_wallet

#: What holds and frees points, besides the entries that capture them.
HoldEvent = Literal["hold.placed", "hold.changed", "hold.captured", "hold.released", "hold.expired"]
TYPED: Final = [
    *((name, f":event_type::text = '{name}'") for name in get_args(HoldEvent)[1:]),
    ("hold.placed", ""),
]


class FreedRow(TypedDict):
    """What came free of a lot, since when it was held, and whether the lot is past its date or was taken back."""

    lot_id: UUID
    amount: int
    held_at: datetime
    expires_at: datetime
    created_at: datetime
    is_past: bool
    is_returned: bool


async def come_free(
    tx: Tx,
    merchant_id: UUID,
    actor: str,
    member_id: UUID,
    freed: Sequence[FreedRow],
    *,
    shortfall: int,
    origin: str,
    reference: str | None,
) -> tuple[PostedRow | None, int]:
    """Let points that came free in a wallet that is locked go where they would if they had come back.

    They fill what take-backs lack, and go to the lots that paid in place of theirs; what is past its date expires. They
    never left the balance, so there is an entry only for what a lot loses or gets: a REVERSAL, a REFUND, an EXPIRY of
    this `origin`. `freed` is the last spent first. Returns the last entry, and how many points expired.
    """
    if not shortfall and not any(row["is_past"] or row["is_returned"] for row in freed):
        return None, 0
    standing = await tx.rows(
        FIND_STANDING, merchant_id=merchant_id, member_id=member_id, lot_ids=[row["lot_id"] for row in freed]
    )
    order = {row["lot_id"]: (row["expires_at"], row["created_at"]) for row in freed}
    parts = [Part(row["lot_id"], row["amount"], row["held_at"]) for row in freed]
    planned = plan(parts, covers(standing), shorts(standing), spending(order, standing))
    if planned.uncovers:
        await tx.rows(
            UNCOVER,
            merchant_id=merchant_id,
            lot_ids=[lot_id for lot_id, _ in planned.uncovers],
            return_ids=[return_id for _, return_id in planned.uncovers],
            amounts=list(planned.uncovers.values()),
        )
    latest: PostedRow | None = None

    async def written(move: Move, reason: PointsReason) -> PostedRow | None:
        if not move.parts:
            return latest
        return await write(tx, merchant_id, actor, member_id, move, reason, origin=origin, reference=reference)

    moved = _moved(parts, planned)
    lost = Move(
        parts={lot_id: amount for lot_id, amount in moved.items() if amount < 0},
        shortfalls={return_id: -filled for return_id, filled in planned.filled.items()},
        covers=dict(planned.covers),
    )
    latest = await written(lost, PointsReason.REVERSAL)
    latest = await written(
        Move(parts={lot_id: amount for lot_id, amount in moved.items() if amount > 0}), PointsReason.REFUND
    )
    past = await tx.rows(FIND_PAST, merchant_id=merchant_id, lot_ids=list(planned.kept))
    ended = {row["entry_id"]: -planned.kept[row["entry_id"]] for row in past}
    latest = await written(Move(parts=ended), PointsReason.EXPIRY)
    return latest, -sum(ended.values())


def _moved(parts: Sequence[Part], planned: Plan) -> dict[UUID, int]:
    """Return what lots lose or get beside what came free in them."""
    moved = {lot_id: amount - planned.filling[lot_id] for lot_id, amount in planned.given.items()}
    for part in parts:
        moved[part.lot_id] = moved.get(part.lot_id, 0) - part.amount
    return moved


class _ReleasedRow(ChangeRow, FreedRow):
    """What came free of a lot, with the event of all of them."""


# What would be spent last comes first.
FREE: Final = statement(
    _ReleasedRow,
    f"""
WITH freed AS (
    -- All but what the hold keeps, which is what would be spent first.
    SELECT lot_id, least(amount, ends - :keep::int)::int AS amount, held_at, expires_at, created_at, is_past,
        is_returned
    FROM (
        SELECT p.*, l.*, sum(p.amount) OVER (ORDER BY l.expires_at, l.created_at, p.lot_id) AS ends FROM (
            SELECT lot_id, sum(amount) AS amount, min(held_at) AS held_at FROM hold_part
            WHERE merchant_id = :merchant_id AND hold_id = :hold_id GROUP BY lot_id
        ) p CROSS JOIN LATERAL (
            SELECT expires_at, created_at, expires_at <= now() OR expired > 0 AS is_past, returned > 0 AS is_returned
            FROM points_lot WHERE merchant_id = :merchant_id AND entry_id = p.lot_id OFFSET 0
        ) l
    ) part WHERE ends > :keep
), w AS (
    UPDATE wallet SET version = version + 1, changed_at = {NEXT_DATE}, held_points = held_points - total.points
    FROM (SELECT sum(amount)::int AS points FROM freed) total
    WHERE merchant_id = :merchant_id AND member_id = :member_id AND total.points > 0
    RETURNING wallet.*, total.points AS freed
), lots AS (
    UPDATE points_lot SET held = held - freed.amount, is_open = remaining > held - freed.amount FROM freed
    WHERE merchant_id = :merchant_id AND entry_id = ANY(ARRAY(SELECT lot_id FROM freed)) AND entry_id = freed.lot_id
), gone AS (
    DELETE FROM hold_part WHERE merchant_id = :merchant_id AND hold_id = :hold_id AND :keep = 0
), ev AS (
    {
        event(
            TYPED,
            subject=":hold_id",
            source="w",
            points="w.freed",
            member_id="w.member_id",
            wallet="w",
        )
    }
    RETURNING *
)
SELECT {columns(ChangeRow)}, freed.* FROM ev CROSS JOIN freed
ORDER BY freed.expires_at DESC, freed.created_at DESC, freed.lot_id DESC
""",
)


@dataclass(frozen=True, slots=True)
class Freed:
    """What came free: the wallet's change, the last change that it led to, how many points, and how many expired."""

    change: ChangeRow
    latest: ChangeRow
    points: int
    expired: int


async def free_points(
    tx: Tx,
    merchant_id: UUID,
    actor: str,
    member_id: UUID,
    hold_id: UUID,
    *,
    event_type: HoldEvent,
    reference: str | None,
) -> Freed | None:
    """Free all points of a hold by a change of the wallet, and let them go where they would if they had come back.

    Locks the wallet. Returns None where the hold has none, or none any more: then nothing is written.
    """
    await lock_wallet(tx, merchant_id, member_id)
    return await free_all_but(
        tx, merchant_id, actor, member_id, hold_id, keep=0, event_type=event_type, reference=reference
    )


async def free_all_but(
    tx: Tx,
    merchant_id: UUID,
    actor: str,
    member_id: UUID,
    hold_id: UUID,
    *,
    keep: int,
    event_type: HoldEvent,
    reference: str | None,
) -> Freed | None:
    """Free all but `keep` points of a hold, in a wallet that is locked. Its parts stay unless it keeps nothing."""
    freed = await tx.rows(
        FREE,
        merchant_id=merchant_id,
        member_id=member_id,
        hold_id=hold_id,
        keep=keep,
        event_id=ids.new(),
        event_type=event_type,
        actor=actor,
    )
    if not freed:
        return None
    change = freed[0]
    ring_wallet(tx, merchant_id, change)
    latest, expired = await come_free(
        tx, merchant_id, actor, member_id, freed, shortfall=change["event_wallet_shortfall"] or 0,
        origin=origin_of(hold_id, change), reference=reference,
    )  # fmt: skip
    return Freed(change, latest or change, sum(row["amount"] for row in freed), expired)


def origin_of(hold_id: UUID, change: ChangeRow) -> str:
    """Return the origin of entries that follow from points of a hold coming free, by the wallet's version then."""
    return f"hold/{hold_id.hex}/{change['event_wallet_version']}"
