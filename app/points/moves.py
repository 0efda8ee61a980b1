"""Changes of lots by name, in wallets that are locked: what is taken back, comes back, or ends with it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from uuid import UUID

from app import ids
from app.api.inputs import Problems
from app.api.operations import InvalidInput, Refused
from app.points.ledger import POINTS_MAX, RECORD_ENTRY, PostedRow
from app.points.types import PointsReason
from app.storage.database import Tx
from app.storage.events import event
from app.storage.statements import NoRow, columns, statement
from app.storage.wallet_versions import NEXT_DATE, ChangeRow, ring_wallet

#: Amounts by lot or by take-back, and by (lot, take-back).
ById = dict[UUID, int]
ByCover = dict[tuple[UUID, UUID], int]


class Return(NamedTuple):
    """A take-back of a lot: how much of its credit goes back, and how much of that had expired."""

    id: UUID
    lot_id: UUID
    amount: int
    expired: int


@dataclass
class Move:
    """What an entry does: to what is left of lots, to what take-backs lack, and which lots pay for which of them.

    `returns` are the take-backs that begin with it.
    """

    parts: ById = field(default_factory=dict)
    shortfalls: ById = field(default_factory=dict)
    covers: ByCover = field(default_factory=dict)
    returns: Sequence[Return] = ()


# Take-backs that begin in the wallet `w`, each of a lot, whose credit stands less by as much.
_BEGIN: Final = """
returned AS (
    INSERT INTO points_return (merchant_id, id, member_id, lot_id, amount, expired, shortfall, since)
    SELECT :merchant_id, begun.*, w.changed_at FROM w CROSS JOIN LATERAL (
        SELECT id, w.member_id, lot_id, amount, expired, {shortfall} FROM unnest(
            :return_ids::uuid[], :returned_lot_ids::uuid[], :returned::int[], :expired::int[]
        ) AS begun (id, lot_id, amount, expired)
    ) begun
)"""
MOVE: Final = statement(
    PostedRow,
    f"""
WITH asked AS (
    SELECT * FROM unnest(:lot_ids::uuid[], :amounts::int[], :standing_less::int[]) AS asked (lot_id, amount, returned)
), total AS (
    SELECT sum(asked.amount)::int AS amount,
        coalesce(sum(asked.amount) FILTER (WHERE l.is_pending), 0)::int AS pending,
        (SELECT coalesce(sum(lacking), 0)::int FROM unnest(:lacking::int[]) AS less (lacking)) AS shortfall
    FROM asked CROSS JOIN LATERAL (
        SELECT is_pending FROM points_lot WHERE merchant_id = :merchant_id AND entry_id = asked.lot_id OFFSET 0
    ) l
), w AS (
    UPDATE wallet SET version = version + 1, changed_at = {NEXT_DATE}, points = points + total.amount,
        pending_points = pending_points + total.pending, shortfall = wallet.shortfall + total.shortfall
    FROM total WHERE wallet.merchant_id = :merchant_id AND wallet.member_id = :member_id
    RETURNING wallet.*, total.amount
), e AS (
    INSERT INTO points_entry (merchant_id, id, member_id, amount, balance_after, reason, origin, reference, created_at)
    SELECT :merchant_id, :entry_id, member_id, amount, points, :reason::text, :origin, :reference, changed_at
    FROM w RETURNING *
), moved AS (
    UPDATE points_lot SET remaining = remaining + asked.amount, is_open = remaining + asked.amount > held,
        last_entry_id = CASE WHEN asked.amount = 0 THEN last_entry_id ELSE :entry_id END,
        expired = expired - CASE WHEN :reason = 'EXPIRY' THEN asked.amount ELSE 0 END,
        returned = points_lot.returned + asked.returned
    FROM asked
    WHERE points_lot.merchant_id = :merchant_id AND entry_id = ANY(:lot_ids) AND entry_id = asked.lot_id
), parts AS (
    INSERT INTO points_part (merchant_id, entry_id, lot_id, amount)
    SELECT :merchant_id, :entry_id, lot_id, amount FROM asked WHERE amount <> 0
), {_BEGIN.format(shortfall="0")}, filled AS (
    UPDATE points_return SET shortfall = shortfall + less.lacking
    FROM unnest(:lacking_ids::uuid[], :lacking) AS less (id, lacking)
    WHERE merchant_id = :merchant_id AND points_return.id = ANY(:lacking_ids) AND points_return.id = less.id
), covers AS (
    INSERT INTO points_cover (merchant_id, lot_id, return_id, amount)
    SELECT :merchant_id, * FROM unnest(:covering_ids::uuid[], :covered_ids::uuid[], :covered::int[])
    ON CONFLICT (merchant_id, return_id, lot_id) DO UPDATE SET amount = points_cover.amount + excluded.amount
), ev AS (
    {RECORD_ENTRY} RETURNING *
)
SELECT {columns(PostedRow)} FROM e CROSS JOIN w CROSS JOIN ev
CROSS JOIN LATERAL (SELECT * FROM member WHERE merchant_id = :merchant_id AND id = :member_id OFFSET 0) m
""",
)


async def write(
    tx: Tx,
    merchant_id: UUID,
    actor: str,
    member_id: UUID,
    move: Move,
    reason: PointsReason,
    *,
    origin: str,
    reference: str | None,
) -> PostedRow:
    """Write an entry of a wallet that is locked. Its parts don't make 0.

    Raises asyncpg.UniqueViolationError when `origin` has an entry for this reason already.
    """
    returned = {each.lot_id: each.amount for each in move.returns}
    changed = dict.fromkeys([*move.parts, *returned])
    entry = await tx.row(
        MOVE,
        merchant_id=merchant_id,
        member_id=member_id,
        entry_id=ids.new(),
        reason=reason.value,
        origin=origin,
        reference=reference,
        lot_ids=list(changed),
        amounts=[move.parts.get(lot_id, 0) for lot_id in changed],
        standing_less=[returned.get(lot_id, 0) for lot_id in changed],
        **_begun(move.returns),
        lacking_ids=list(move.shortfalls),
        lacking=list(move.shortfalls.values()),
        covering_ids=[lot_id for lot_id, _ in move.covers],
        covered_ids=[return_id for _, return_id in move.covers],
        covered=list(move.covers.values()),
        event_id=ids.new(),
        actor=actor,
    )
    if entry is None:
        raise RuntimeError("a locked wallet took no entry")
    ring_wallet(tx, merchant_id, entry)
    return entry


def _begun(returns: Sequence[Return]) -> dict[str, object]:
    return {
        "return_ids": [each.id for each in returns],
        "returned_lot_ids": [each.lot_id for each in returns],
        "returned": [each.amount for each in returns],
        "expired": [each.expired for each in returns],
    }


BEGIN: Final = statement(
    NoRow,
    f"""
WITH w AS (
    SELECT member_id, changed_at FROM wallet WHERE merchant_id = :merchant_id AND member_id = :member_id
), {_BEGIN.format(shortfall="0")}
UPDATE points_lot SET returned = points_lot.returned + begun.amount
FROM unnest(:returned_lot_ids, :returned) AS begun (lot_id, amount)
WHERE merchant_id = :merchant_id AND entry_id = ANY(:returned_lot_ids) AND entry_id = begun.lot_id
""",
)


async def begin(tx: Tx, merchant_id: UUID, member_id: UUID, returns: Sequence[Return]) -> None:
    """Write down take-backs that get nothing, in a wallet that is locked."""
    await tx.row(BEGIN, merchant_id=merchant_id, member_id=member_id, **_begun(returns))


FALL_SHORT: Final = statement(
    ChangeRow,
    f"""
WITH lacking AS (
    SELECT * FROM unnest(:lacking_ids::uuid[], :lacking::int[]) AS lacking (id, points)
), total AS (
    SELECT sum(points)::int AS points FROM lacking
), w AS (
    UPDATE wallet SET version = version + 1, changed_at = {NEXT_DATE}, shortfall = shortfall + total.points
    FROM total
    WHERE merchant_id = :merchant_id AND member_id = :member_id AND shortfall + total.points::bigint <= {POINTS_MAX}
    RETURNING wallet.*, total.points AS lacking
), {_BEGIN.format(shortfall="(SELECT coalesce(sum(points), 0) FROM lacking WHERE lacking.id = begun.id)")}, longer AS (
    -- Of take-backs that had begun before.
    UPDATE points_return SET shortfall = points_return.shortfall + lacking.points FROM lacking, w
    WHERE points_return.merchant_id = :merchant_id AND points_return.id = ANY(:lacking_ids)
        AND points_return.id = lacking.id
), lots AS (
    UPDATE points_lot SET returned = points_lot.returned + begun.amount
    FROM unnest(:returned_lot_ids, :returned) AS begun (lot_id, amount), w
    WHERE points_lot.merchant_id = :merchant_id AND entry_id = ANY(:returned_lot_ids) AND entry_id = begun.lot_id
), ev AS (
    {
        event(
            "points.fell_short",
            subject=":lot_id",
            source="w",
            points="w.lacking",
            member_id="w.member_id",
            wallet="w",
        )
    }
    RETURNING *
)
SELECT {columns(ChangeRow)} FROM ev
""",
)


async def fall_short(
    tx: Tx,
    merchant_id: UUID,
    actor: str,
    member_id: UUID,
    lot_id: UUID,
    lacking: ById,
    returns: Sequence[Return] = (),
) -> ChangeRow:
    """Write down what take-backs could not get, in a wallet that is locked; `returns` are those that begin with it.

    The first that lacks something is of the lot. Raises Refused(InvalidInput) when the wallet would lack more than
    POINTS_MAX.
    """
    change = await tx.row(
        FALL_SHORT,
        merchant_id=merchant_id,
        member_id=member_id,
        lot_id=lot_id,
        lacking_ids=list(lacking),
        lacking=list(lacking.values()),
        **_begun(returns),
        event_id=ids.new(),
        actor=actor,
    )
    if change is None:
        problems = Problems()
        problems.add("orderId", f"would take the member's shortfall over {POINTS_MAX}")
        raise Refused(InvalidInput(message=f"orderId {problems.found[0].message}.", problems=problems.found))
    ring_wallet(tx, merchant_id, change)
    return change


LOWER: Final = statement(
    ChangeRow,
    f"""
WITH less AS (
    SELECT * FROM unnest(:return_ids::uuid[], :lot_ids::uuid[], :points::int[]) AS less (id, lot_id, points)
), total AS (
    SELECT sum(points)::int AS points FROM less
), w AS (
    UPDATE wallet SET version = version + 1, changed_at = {NEXT_DATE}, shortfall = shortfall - total.points
    FROM total WHERE merchant_id = :merchant_id AND member_id = :member_id
    RETURNING wallet.*, total.points AS lowered
), returned AS (
    UPDATE points_return SET amount = amount - less.points, shortfall = shortfall - less.points FROM less
    WHERE merchant_id = :merchant_id AND points_return.id = ANY(:return_ids) AND points_return.id = less.id
), lots AS (
    UPDATE points_lot SET returned = returned - less.points
    FROM (SELECT lot_id, sum(points)::int AS points FROM less GROUP BY lot_id) less
    WHERE merchant_id = :merchant_id AND entry_id = ANY(:lot_ids) AND entry_id = less.lot_id
), ev AS (
    {
        event(
            "points.shortfall_lowered",
            subject="(:lot_ids)[1]",
            source="w",
            points="w.lowered",
            member_id="w.member_id",
            wallet="w",
        )
    }
    RETURNING *
)
SELECT {columns(ChangeRow)} FROM ev
""",
)


async def lower_shortfall(
    tx: Tx, merchant_id: UUID, actor: str, member_id: UUID, lowered: Sequence[tuple[UUID, UUID, int]]
) -> ChangeRow:
    """Let credits that take-backs lack stand again, in a wallet that is locked: (take-back, its lot, how many)."""
    change = await tx.row(
        LOWER,
        merchant_id=merchant_id,
        member_id=member_id,
        return_ids=[return_id for return_id, _, _ in lowered],
        lot_ids=[lot_id for _, lot_id, _ in lowered],
        points=[points for _, _, points in lowered],
        event_id=ids.new(),
        actor=actor,
    )
    if change is None:
        raise RuntimeError("a locked wallet took no change")
    ring_wallet(tx, merchant_id, change)
    return change
