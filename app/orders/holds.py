"""What statements select of holds, what reads them, and how one ends that isn't captured."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final, Literal, NamedTuple, TypedDict, cast
from uuid import UUID

from app import ids
from app.api.access import may
from app.api.context import Role, Viewer
from app.coupons.rows import JOIN_CODE, WholeRedemptionRow
from app.members.rows import MemberRow
from app.orders.held_rewards import GIVEN_BACK, HeldRewardRow, rewards_of
from app.points.freeing import HoldEvent, free_points
from app.points.overdue import ends_overdue
from app.storage.database import Statements, Tx, database, transaction
from app.storage.statements import NoRow, columns, part, row_of, statement
from app.storage.wallet_versions import ChangeRow, raise_wallets, ring_wallet

#: How many codes an order may have.
CODES_MAX: Final = 20
_READS_MAX: Final = 20
EndedStatus = Literal["RELEASED", "EXPIRED"]
_EVENTS: Final[dict[EndedStatus, HoldEvent]] = {"RELEASED": "hold.released", "EXPIRED": "hold.expired"}


@row_of(h="hold", o="sales_order")
class HoldRow(TypedDict):
    """A hold `h` of the order `o`, as it reads now: `stored_status` is what is written down of it.

    Amounts are in minor units of its currency. Points and their value are those captured, or else those that were held.
    """

    hold_id: Annotated[UUID, "h.id"]
    hold_version: Annotated[int, "h.version"]
    hold_status: Annotated[
        str, "CASE WHEN h.status = 'HELD' AND h.held_until <= now() THEN 'EXPIRED' ELSE h.status END"
    ]
    hold_stored_status: Annotated[str, "h.status"]
    hold_order_row_id: Annotated[UUID, "h.sales_order_id"]
    hold_source: Annotated[str, "o.source"]
    hold_order_id: Annotated[str, "o.order_id"]
    hold_member_id: Annotated[UUID | None, "h.member_id"]
    hold_order_amount: Annotated[int, "h.order_amount"]
    hold_currency: Annotated[str, "h.currency"]
    hold_total_discount: Annotated[int, "h.total_discount"]
    hold_points: Annotated[int, "coalesce(h.captured_points, h.points)"]
    hold_points_value: Annotated[int, "coalesce(h.captured_value, h.points_value)"]
    hold_points_asked: Annotated[int, "h.points"]
    hold_value_asked: Annotated[int, "h.points_value"]
    hold_point_value: Annotated[Decimal, "h.point_value"]
    hold_held_points: Annotated[int, "h.held_points"]
    hold_held_until: Annotated[datetime, "h.held_until"]


@row_of(h="hold", o="sales_order", m="member?", w="wallet?")
class WholeHoldRow(HoldRow, MemberRow):
    """A hold with its member; the member's fields are null where `hold_member_id` is."""


@row_of(x="hold_code", r="redemption?", c="code", p="pool", m="member?", w="wallet?")
class HeldCodeRow(WholeRedemptionRow):
    """A code of a hold `x`; the redemption's fields are null until it is captured."""

    held_hold_id: Annotated[UUID, "x.hold_id"]
    held_discount: Annotated[int, "x.discount"]


class HoldWithCodesRow(WholeHoldRow):
    """A hold beside each of its codes, a HeldCodeRow that is prefixed by `of_`; null where it has none."""

    of_held_hold_id: UUID | None
    position: int | None


#: Continues a FROM that has a hold `h`: its member, if it is a member's.
JOIN_HOLDER: Final = """
    LEFT JOIN LATERAL (SELECT * FROM member WHERE merchant_id = :merchant_id AND id = h.member_id OFFSET 0) m ON true
    LEFT JOIN LATERAL (
        SELECT * FROM wallet WHERE merchant_id = :merchant_id AND member_id = h.member_id OFFSET 0
    ) w ON true
"""
#: The same and the hold's order.
JOIN_HOLD: Final = f"""
    CROSS JOIN LATERAL (
        -- In the order of the key: to a planner that saw the table empty, any index is as good.
        SELECT * FROM sales_order WHERE merchant_id = :merchant_id AND id = ANY(ARRAY[h.sales_order_id])
        ORDER BY id OFFSET 0
    ) o
    {JOIN_HOLDER}
"""
_JOIN_HELD_CODE: Final = f"""
    LEFT JOIN LATERAL (
        SELECT * FROM redemption WHERE merchant_id = :merchant_id AND id = x.redemption_id OFFSET 0
    ) r ON true
    CROSS JOIN LATERAL (SELECT * FROM code WHERE merchant_id = :merchant_id AND id = x.code_id OFFSET 0) c {JOIN_CODE}
"""
FIND_HOLD: Final = statement(
    WholeHoldRow,
    f"""
SELECT {columns(WholeHoldRow)} FROM hold h {JOIN_HOLD}
WHERE h.merchant_id = :merchant_id AND h.id = :hold_id AND (:member_id::uuid IS NULL OR h.member_id = :member_id)
""",
)
FIND_WITH_CODES: Final = statement(
    HoldWithCodesRow,
    f"""
SELECT {columns(WholeHoldRow)}, codes.* FROM hold h {JOIN_HOLD} LEFT JOIN LATERAL (
    SELECT x.position, {columns(HeldCodeRow, prefix="of_")} FROM hold_code x {_JOIN_HELD_CODE}
    WHERE x.merchant_id = :merchant_id AND x.hold_id = h.id
) codes ON true
WHERE h.merchant_id = :merchant_id AND h.id = :hold_id AND (:member_id::uuid IS NULL OR h.member_id = :member_id)
ORDER BY codes.position
""",
)
# The one that was captured, or else the newest.
FIND_HOLD_OF_ORDER: Final = statement(
    WholeHoldRow,
    f"""
SELECT {columns(WholeHoldRow)} FROM (
    SELECT * FROM hold WHERE merchant_id = :merchant_id AND sales_order_id = ANY(ARRAY[:order_row_id::uuid])
    ORDER BY sales_order_id, status = 'CAPTURED' DESC, id DESC LIMIT 1
) h {JOIN_HOLD}
""",
)
CODES_OF_HOLDS: Final = statement(
    HeldCodeRow,
    f"""
SELECT {columns(HeldCodeRow)} FROM hold_code x {_JOIN_HELD_CODE}
WHERE x.merchant_id = :merchant_id AND x.hold_id = ANY(:hold_ids::uuid[])
ORDER BY x.hold_id, x.position
""",
)


async def find_hold(viewer: Viewer, node_id: str) -> "tuple[WholeHoldRow, Content] | None":
    """Return the hold behind an id, for those who may see holds; a member's own only."""
    hold_id = ids.decode("hold", node_id)
    if hold_id is None or not may(viewer.role, "Hold"):
        return None
    return await hold_with_codes(viewer, hold_id)


async def hold_with_codes(viewer: Viewer, hold_id: UUID) -> "tuple[WholeHoldRow, Content] | None":
    """Return a hold of the viewer's merchant and what it has, as they were at one moment; a member's own only."""
    for _ in range(_READS_MAX):
        found = await _with_codes(viewer, hold_id)
        if found is None or not has_rewards(found[0]):
            return found
        # They are read after it, and are those that it had if it hasn't changed since.
        row, content = found
        rewards = await rewards_of(database(), viewer, [hold_id])
        after = await hold_row(database(), viewer, hold_id)
        if after is not None and after["hold_version"] == row["hold_version"]:
            return row, content._replace(rewards=rewards)
    raise RuntimeError("a hold kept changing while it was read")


async def _with_codes(viewer: Viewer, hold_id: UUID) -> "tuple[WholeHoldRow, Content] | None":
    member_id = viewer.member_id if viewer.role is Role.MEMBER else None
    rows = await database().rows(FIND_WITH_CODES, merchant_id=viewer.merchant_id, hold_id=hold_id, member_id=member_id)
    if not rows:
        return None
    codes = [part(row, "of_", HeldCodeRow) for row in rows if row["of_held_hold_id"] is not None]
    return rows[0], Content(codes, None, {})


def has_rewards(row: HoldRow) -> bool:
    """Whether a hold has rewards: each costs points, which are held besides those that pay."""
    return row["hold_held_points"] != row["hold_points_asked"]


async def hold_row(where: Statements, viewer: Viewer, hold_id: UUID) -> WholeHoldRow | None:
    """Return a hold of the viewer's merchant; a member's own only."""
    member_id = viewer.member_id if viewer.role is Role.MEMBER else None
    return await where.row(FIND_HOLD, merchant_id=viewer.merchant_id, hold_id=hold_id, member_id=member_id)


async def hold_of_order(where: Statements, viewer: Viewer, order_row_id: UUID) -> WholeHoldRow | None:
    """Return the hold of an order that counts: the one that was captured, or else the newest."""
    return await where.row(FIND_HOLD_OF_ORDER, merchant_id=viewer.merchant_id, order_row_id=order_row_id)


async def standing_hold(viewer: Viewer, order_row_id: UUID) -> "tuple[WholeHoldRow, Content] | None":
    """Return the hold of an order that counts and what it has, as they were at one moment."""
    for _ in range(_READS_MAX):
        row = await hold_of_order(database(), viewer, order_row_id)
        found = None if row is None else await hold_with_codes(viewer, row["hold_id"])
        if row is None or found is None or found[0]["hold_version"] == row["hold_version"]:
            return found
    raise RuntimeError("an order's hold kept changing while it was read")


async def codes_by_hold(viewer: Viewer, hold_ids: list[UUID]) -> Mapping[UUID, list[HeldCodeRow]]:
    """Return the codes of holds in the order in which they apply, with what redeemed them."""
    rows = await database().rows(CODES_OF_HOLDS, merchant_id=viewer.merchant_id, hold_ids=hold_ids)
    grouped: defaultdict[UUID, list[HeldCodeRow]] = defaultdict(list)
    for row in rows:
        grouped[row["held_hold_id"]].append(row)
    return grouped


class LockedHoldRow(TypedDict):
    """A hold that is locked, and whose it is."""

    hold_id: UUID
    member_id: UUID | None


#: Locks holds; what is read after it stays.
LOCK_HOLDS: Final = statement(
    LockedHoldRow,
    """
SELECT id AS hold_id, member_id FROM hold
WHERE merchant_id = :merchant_id AND id = ANY(:hold_ids::uuid[]) ORDER BY id FOR UPDATE
""",
)
#: Locks all holds of an order that may still become something else.
LOCK_HOLDS_OF_ORDER: Final = statement(
    NoRow,
    """
SELECT FROM hold WHERE merchant_id = :merchant_id AND sales_order_id = :order_row_id AND status IN ('HELD', 'EXPIRED')
ORDER BY id FOR UPDATE
""",
)


OPEN_HOLDS_OF_ORDER: Final = statement(
    WholeHoldRow,
    f"""
SELECT {columns(WholeHoldRow)} FROM hold h {JOIN_HOLD}
WHERE h.merchant_id = :merchant_id AND h.sales_order_id = :order_row_id AND h.status IN ('HELD', 'EXPIRED')
ORDER BY h.id
""",
)


async def open_holds_of_order(tx: Tx, viewer: Viewer, order_row_id: UUID) -> list[WholeHoldRow]:
    """Lock and return the holds of an order that may still be captured or released, the oldest first."""
    order = {"merchant_id": viewer.merchant_id, "order_row_id": order_row_id}
    await tx.rows(LOCK_HOLDS_OF_ORDER, **order)
    return await tx.rows(OPEN_HOLDS_OF_ORDER, **order)


class ChangedHoldRow(WholeHoldRow, ChangeRow):
    """A hold that has changed, and one event of that; null where it is written with the points."""


class EndedHoldRow(ChangedHoldRow):
    """A hold that has ended, and whose points come free, if any do."""

    payer_id: UUID | None


class Content(NamedTuple):
    """What a hold has, as a change left it, with the last change of each wallet that a code is in.

    Rewards are read later where none are given.
    """

    codes: Sequence[HeldCodeRow]
    rewards: Sequence[HeldRewardRow] | None
    changes: Mapping[UUID, ChangeRow]


class Changed(NamedTuple):
    """A hold that has just changed, and the last change of its own member's wallet, if that changed.

    `changes` are those of all wallets that the hold's own statement changed. What it has is read later where no
    `content` is given: that of a hold that has ended doesn't change any more.
    """

    row: WholeHoldRow
    change: ChangeRow | None
    changes: Mapping[UUID, ChangeRow]
    content: Content | None = None


# The hold's row is the guard, and what it held goes with it. A code that another hold has since isn't its own any more.
# The order's row has no part in this: whatever reads that the order is held refuses, and whatever holds it again finds
# the hold's row written.
END: Final = statement(
    EndedHoldRow,
    f"""
WITH open AS MATERIALIZED (
    SELECT id, status = 'HELD' AS was_held, CASE WHEN status = 'HELD' AND held_points > 0 THEN member_id END AS payer_id
    FROM hold
    WHERE merchant_id = :merchant_id AND id = :hold_id AND (:version::int IS NULL OR version = :version)
        AND status = ANY(CASE :status::text WHEN 'EXPIRED' THEN ARRAY['HELD'] ELSE ARRAY['HELD', 'EXPIRED'] END)
    FOR UPDATE
), gone AS (
    SELECT reward_id, is_from_stock, code_id FROM hold_reward
    WHERE merchant_id = :merchant_id AND hold_id = (SELECT id FROM open WHERE was_held)
), {GIVEN_BACK}, shelves AS MATERIALIZED (
    -- Rewards that are in stock again.
    SELECT FROM reward
    WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(SELECT reward_id FROM gone WHERE is_from_stock))
    ORDER BY id FOR NO KEY UPDATE
), locked AS (
    -- One that is overdue waits for nobody: its codes go on naming it, which blocks nobody.
    SELECT c.id, c.member_id FROM code c
    WHERE c.merchant_id = :merchant_id AND c.hold_id = :hold_id AND NOT :is_overdue AND c.id = ANY(ARRAY(
        SELECT code_id FROM hold_code WHERE merchant_id = :merchant_id AND hold_id = (SELECT id FROM open)
    )) AND (SELECT count(*) FROM shelves) >= 0
    ORDER BY c.id FOR UPDATE
), purses AS MATERIALIZED (
    -- Where points come free: all wallets that change, before the first of them does.
    SELECT FROM wallet WHERE merchant_id = :merchant_id AND member_id = ANY(ARRAY(
        SELECT locked.member_id FROM locked CROSS JOIN open WHERE open.payer_id IS NOT NULL
        UNION ALL SELECT payer_id FROM open
    ))
    ORDER BY member_id FOR UPDATE
), freed AS (
    UPDATE code SET hold_id = NULL, held_until = NULL
    WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(SELECT id FROM locked))
), h AS (
    UPDATE hold SET status = :status, version = version + 1, ended_at = now()
    WHERE merchant_id = :merchant_id AND id = (SELECT id FROM open) AND (SELECT count(*) FROM locked) >= 0
        AND (SELECT count(*) FROM purses) >= 0
    RETURNING *
), owners AS (
    -- Without the wallet whose points come free, which changes by that.
    SELECT DISTINCT member_id FROM locked
    WHERE member_id IS NOT NULL AND member_id IS DISTINCT FROM (SELECT payer_id FROM open)
), changed AS (
    SELECT (:event_ids::uuid[])[row_number() OVER (ORDER BY owners.member_id)] AS event_id, h.id AS subject_id,
        owners.member_id, NULL::bytea AS reason
    FROM h CROSS JOIN open LEFT JOIN owners ON true WHERE owners.member_id IS NOT NULL OR open.payer_id IS NULL
), {raise_wallets([("hold.released", ":status = 'RELEASED'"), ("hold.expired", "")])}
SELECT {columns(WholeHoldRow)}, open.payer_id, {columns(ChangeRow)} FROM h CROSS JOIN open {JOIN_HOLD}
LEFT JOIN recorded ev ON true ORDER BY ev.wallet_version
""",
)


async def end_hold(merchant_id: UUID, actor: str, hold: HoldRow, status: EndedStatus) -> Changed | None:
    """Let a hold be RELEASED or EXPIRED, in a transaction of its own if it takes one; as `end_locked_hold`.

    Returns None when it isn't what was read of it any more.
    """
    if not hold["hold_held_points"] or hold["hold_stored_status"] != "HELD":
        return await _end(database(), merchant_id, actor, hold["hold_id"], status, version=hold["hold_version"])
    async with transaction(merchant_id) as tx:
        return await _end(tx, merchant_id, actor, hold["hold_id"], status, version=hold["hold_version"])


async def end_locked_hold(tx: Tx, merchant_id: UUID, actor: str, hold_id: UUID, status: EndedStatus) -> Changed | None:
    """Let a hold be RELEASED or EXPIRED, with all that it held, and tell who watches the wallets that this changes.

    Locks the hold, rewards by id, codes by id and wallets by member: whoever ends several has locked all of these
    before, by `lock_held`. Returns None when it can't become that.
    """
    return await _end(tx, merchant_id, actor, hold_id, status, version=None)


async def _end(
    where: Statements,
    merchant_id: UUID,
    actor: str,
    hold_id: UUID,
    status: EndedStatus,
    *,
    version: int | None,
    is_overdue: bool = False,
) -> Changed | None:
    rows = await where.rows(
        END,
        merchant_id=merchant_id,
        hold_id=hold_id,
        version=version,
        status=status,
        is_overdue=is_overdue,
        event_ids=event_ids(),
        actor=actor,
    )
    ended = changed_hold(where, merchant_id, rows)
    if ended is None or rows[0]["payer_id"] is None:
        return ended
    if not isinstance(where, Tx):
        raise TypeError("points come free in a transaction")
    freed = await free_points(
        where, merchant_id, actor, rows[0]["payer_id"], hold_id, event_type=_EVENTS[status],
        reference=rows[0]["hold_order_id"],
    )  # fmt: skip
    return ended if freed is None else ended._replace(change=freed.latest)


def event_ids() -> list[UUID]:
    """Return ids for the events of a hold: one for each wallet that its codes and points are in."""
    return [ids.new() for _ in range(CODES_MAX + 1)]


def changed_hold(where: Statements, merchant_id: UUID, rows: Sequence[ChangedHoldRow]) -> Changed | None:
    """Tell who watches the wallets that a change of a hold raised, and return it; None where there are no rows."""
    if not rows:
        return None
    # Without the hold's member, who needn't be the wallet's.
    changes = [
        cast("ChangeRow", {name: value for name, value in dict(row).items() if name.startswith("event_")})
        for row in rows if row["event_member_id"] is not None
    ]  # fmt: skip
    for change in changes:
        ring_wallet(where, merchant_id, change)
    last = {change["event_member_id"]: change for change in changes if change["event_member_id"] is not None}
    member_id = rows[0]["hold_member_id"]
    return Changed(rows[0], None if member_id is None else last.get(member_id), last)


class OverdueRow(TypedDict):
    """A hold whose time has passed."""

    hold_id: UUID


# Nothing is waited for: what others have locked they end themselves, and so they do a hold whose rewards are locked.
LOCK_OVERDUE: Final = statement(
    OverdueRow,
    """
WITH due AS MATERIALIZED (
    SELECT id FROM hold
    WHERE merchant_id = :merchant_id AND member_id = :member_id AND status = 'HELD' AND held_until <= now()
        AND held_points > 0
    ORDER BY held_until FOR UPDATE SKIP LOCKED
), rewards AS MATERIALIZED (
    SELECT id FROM reward WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(
        SELECT reward_id FROM hold_reward
        WHERE merchant_id = :merchant_id AND hold_id = ANY(ARRAY(SELECT id FROM due)) AND is_from_stock
    ))
    ORDER BY id FOR UPDATE SKIP LOCKED
)
SELECT due.id AS hold_id FROM due WHERE NOT EXISTS (
    SELECT FROM hold_reward WHERE merchant_id = :merchant_id AND hold_id = due.id AND is_from_stock
        AND reward_id NOT IN (SELECT id FROM rewards)
)
""",
)


@ends_overdue
async def _end_overdue(tx: Tx, merchant_id: UUID, member_id: UUID) -> bool:
    ended = False
    for row in await tx.rows(LOCK_OVERDUE, merchant_id=merchant_id, member_id=member_id):
        changed = await _end(tx, merchant_id, "system", row["hold_id"], "EXPIRED", version=None, is_overdue=True)
        ended = ended or changed is not None
    return ended
