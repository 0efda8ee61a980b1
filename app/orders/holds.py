"""What statements select of holds, what reads them, and how one ends that isn't captured."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Final, TypedDict
from uuid import UUID

from app import ids
from app.api.access import may
from app.api.context import Role, Viewer
from app.coupons.rows import JOIN_CODE, WholeRedemptionRow
from app.members.rows import MemberRow
from app.storage.database import Statements, Tx, database
from app.storage.statements import NoRow, columns, row_of, statement
from app.storage.wallet_versions import ChangeRow, raise_wallets, ring_wallet

#: How many codes an order may have.
CODES_MAX: Final = 20


@row_of(h="hold", o="sales_order")
class HoldRow(TypedDict):
    """A hold `h` of the order `o`, as it reads now: `stored_status` is what is written down of it.

    Amounts are in minor units of its currency.
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


#: Continues a FROM that has a hold `h`: its member, if it is a member's.
JOIN_HOLDER: Final = """
    LEFT JOIN LATERAL (SELECT * FROM member WHERE merchant_id = :merchant_id AND id = h.member_id OFFSET 0) m ON true
    LEFT JOIN LATERAL (
        SELECT * FROM wallet WHERE merchant_id = :merchant_id AND member_id = h.member_id OFFSET 0
    ) w ON true
"""
#: The same and the hold's order.
JOIN_HOLD: Final = f"""
    CROSS JOIN LATERAL (SELECT * FROM sales_order WHERE merchant_id = :merchant_id AND id = h.sales_order_id OFFSET 0) o
    {JOIN_HOLDER}
"""
FIND_HOLD: Final = statement(
    WholeHoldRow,
    f"""
SELECT {columns(WholeHoldRow)} FROM hold h {JOIN_HOLD}
WHERE h.merchant_id = :merchant_id AND h.id = :hold_id AND (:member_id::uuid IS NULL OR h.member_id = :member_id)
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
SELECT {columns(HeldCodeRow)} FROM hold_code x
LEFT JOIN LATERAL (
    SELECT * FROM redemption WHERE merchant_id = :merchant_id AND id = x.redemption_id OFFSET 0
) r ON true
CROSS JOIN LATERAL (SELECT * FROM code WHERE merchant_id = :merchant_id AND id = x.code_id OFFSET 0) c {JOIN_CODE}
WHERE x.merchant_id = :merchant_id AND x.hold_id = ANY(:hold_ids::uuid[])
ORDER BY x.hold_id, x.position
""",
)


async def find_hold(viewer: Viewer, node_id: str) -> WholeHoldRow | None:
    """Return the hold behind an id, for those who may see holds; a member's own only."""
    hold_id = ids.decode("hold", node_id)
    if hold_id is None or not may(viewer.role, "Hold"):
        return None
    return await hold_row(database(), viewer, hold_id)


async def hold_row(where: Statements, viewer: Viewer, hold_id: UUID) -> WholeHoldRow | None:
    """Return a hold of the viewer's merchant; a member's own only."""
    member_id = viewer.member_id if viewer.role is Role.MEMBER else None
    return await where.row(FIND_HOLD, merchant_id=viewer.merchant_id, hold_id=hold_id, member_id=member_id)


async def hold_of_order(where: Statements, viewer: Viewer, order_row_id: UUID) -> WholeHoldRow | None:
    """Return the hold of an order that counts: the one that was captured, or else the newest."""
    return await where.row(FIND_HOLD_OF_ORDER, merchant_id=viewer.merchant_id, order_row_id=order_row_id)


async def codes_by_hold(viewer: Viewer, hold_ids: list[UUID]) -> Mapping[UUID, list[HeldCodeRow]]:
    """Return the codes of holds in the order in which they apply, with what redeemed them."""
    rows = await database().rows(CODES_OF_HOLDS, merchant_id=viewer.merchant_id, hold_ids=hold_ids)
    grouped: defaultdict[UUID, list[HeldCodeRow]] = defaultdict(list)
    for row in rows:
        grouped[row["held_hold_id"]].append(row)
    return grouped


#: Locks holds; what is read after it stays.
LOCK_HOLDS: Final = statement(
    NoRow, "SELECT FROM hold WHERE merchant_id = :merchant_id AND id = ANY(:hold_ids::uuid[]) ORDER BY id FOR UPDATE"
)
#: Locks all holds of an order that may still become something else.
LOCK_HOLDS_OF_ORDER: Final = statement(
    NoRow,
    """
SELECT FROM hold WHERE merchant_id = :merchant_id AND sales_order_id = :order_row_id AND status IN ('HELD', 'EXPIRED')
ORDER BY id FOR UPDATE
""",
)


class HeldCodeIdRow(TypedDict):
    """A code of a hold."""

    code_id: UUID


CODE_IDS_OF_HOLDS: Final = statement(
    HeldCodeIdRow,
    "SELECT code_id FROM hold_code WHERE merchant_id = :merchant_id AND hold_id = ANY(:hold_ids::uuid[])",
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
    """A hold that has changed, and one event of that."""


# The hold's row is the guard, and what it held goes with it. A code that another hold has since isn't its own any more.
# The order's row has no part in this: whatever reads that the order is held refuses, and whatever holds it again finds
# the hold's row written.
END: Final = statement(
    ChangedHoldRow,
    f"""
WITH open AS MATERIALIZED (
    SELECT id FROM hold
    WHERE merchant_id = :merchant_id AND id = :hold_id AND (:version::int IS NULL OR version = :version)
        AND status = ANY(CASE :status::text WHEN 'EXPIRED' THEN ARRAY['HELD'] ELSE ARRAY['HELD', 'EXPIRED'] END)
    FOR UPDATE
), locked AS (
    SELECT c.id, c.member_id FROM code c
    WHERE c.merchant_id = :merchant_id AND c.hold_id = :hold_id AND c.id = ANY(ARRAY(
        SELECT code_id FROM hold_code WHERE merchant_id = :merchant_id AND hold_id = (SELECT id FROM open)
    ))
    ORDER BY c.id FOR UPDATE
), freed AS (
    UPDATE code SET hold_id = NULL, held_until = NULL
    WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(SELECT id FROM locked))
), h AS (
    UPDATE hold SET status = :status, version = version + 1, ended_at = now()
    WHERE merchant_id = :merchant_id AND id = (SELECT id FROM open) AND (SELECT count(*) FROM locked) >= 0
    RETURNING *
), owners AS (
    SELECT DISTINCT member_id FROM locked WHERE member_id IS NOT NULL
), changed AS (
    SELECT (:event_ids::uuid[])[row_number() OVER (ORDER BY owners.member_id)] AS event_id, h.id AS subject_id,
        owners.member_id, NULL::bytea AS reason
    FROM h LEFT JOIN owners ON true
), {raise_wallets([("hold.released", ":status = 'RELEASED'"), ("hold.expired", "")])}
SELECT {columns(WholeHoldRow)}, {columns(ChangeRow)} FROM h {JOIN_HOLD} CROSS JOIN recorded ev
ORDER BY ev.wallet_version
""",
)


async def end_hold(
    where: Statements, merchant_id: UUID, actor: str, hold_id: UUID, status: str, *, version: int | None = None
) -> ChangedHoldRow | None:
    """Let a hold be RELEASED or EXPIRED, with all that it held, and tell who watches the wallets that this changes.

    Locks the hold, codes by id and wallets by member. Returns the hold as it is then, with its own member's change if
    there is one, or None when it isn't of this version, or any if the caller holds its lock, or can't become that.
    """
    rows = await where.rows(
        END,
        merchant_id=merchant_id,
        hold_id=hold_id,
        version=version,
        status=status,
        event_ids=event_ids(),
        actor=actor,
    )
    return changed_hold(where, merchant_id, rows)


def event_ids() -> list[UUID]:
    """Return ids for the events of a hold: one for each wallet that its codes and points are in."""
    return [ids.new() for _ in range(CODES_MAX + 1)]


def changed_hold(where: Statements, merchant_id: UUID, rows: Sequence[ChangedHoldRow]) -> ChangedHoldRow | None:
    """Tell who watches the wallets that a change of a hold raised. Returns the last row of its own member, if any."""
    for row in rows:
        ring_wallet(where, merchant_id, of_change(row))
    own = [row for row in rows if row["event_member_id"] == row["hold_member_id"]]
    return (own or rows)[-1] if rows else None


def of_change(row: ChangeRow) -> ChangeRow:
    """Return the change that a row tells, without the hold's member, who needn't be the wallet's."""
    return {name: row[name] for name in ChangeRow.__annotations__}  # type: ignore[return-value, literal-required]
