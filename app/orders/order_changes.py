"""What changes an order that was redeemed: codes come back, others change places, and its purchase follows.

The order of locks is buyer, order, invite, referral, codes by id, wallets by member; the purchase's own change locks no
more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypedDict
from uuid import UUID

from app import ids
from app.api.context import Viewer
from app.api.inputs import MONEY_MAX, Problems
from app.api.operations import OutpacedError
from app.coupons.end_returned import HAS_ENDED
from app.coupons.rows import CODE_OF_REDEMPTION, JOIN_CODE, WholeRedemptionRow
from app.coupons.rules import Applied, stack
from app.members.rows import lock_member
from app.members.types import MemberSource
from app.orders.follow import Followed, follow
from app.orders.payments import need, paid_from_now, settle
from app.orders.presented_codes import TermsRow, terms_of
from app.orders.rows import FIND_BY_ORDER, FIND_ORDER, OF_ORDER, OrderRow, StandingPurchaseRow
from app.storage.database import Statements, Tx, database
from app.storage.statements import NoRow, columns, statement
from app.storage.wallet_versions import ChangeRow, raise_wallets, ring_wallet


class BuyerRow(TypedDict):
    """Whose purchase an order is."""

    member_id: UUID


FIND_BUYER: Final = statement(
    BuyerRow,
    f"SELECT member_id FROM purchase WHERE {OF_ORDER}",
)
LOCK_ORDER: Final = statement(
    NoRow,
    """
SELECT FROM sales_order WHERE merchant_id = :merchant_id AND source = :source AND order_id = :order_id
FOR NO KEY UPDATE
""",
)
LOCK_CODES: Final = statement(
    NoRow, "SELECT FROM code WHERE merchant_id = :merchant_id AND id = ANY(:code_ids::uuid[]) ORDER BY id FOR UPDATE"
)


async def buyer_of(viewer: Viewer, source: MemberSource, order_id: str) -> UUID | None:
    """Return who bought, as far as it is known before anything is locked."""
    found = await database().row(FIND_BUYER, merchant_id=viewer.merchant_id, source=source.value, order_id=order_id)
    return None if found is None else found["member_id"]


async def lock_order(
    tx: Tx, viewer: Viewer, source: MemberSource, order_id: str, buyer: UUID | None
) -> StandingPurchaseRow | None:
    """Lock the buyer and an order, which may be unknown, and return its purchase. Raises OutpacedError.

    Afterwards nobody records a purchase for an order that is known, or changes one.
    """
    if buyer is not None:
        await lock_member(tx, viewer.merchant_id, buyer)
    await tx.row(LOCK_ORDER, merchant_id=viewer.merchant_id, source=source.value, order_id=order_id)
    purchase = await tx.row(FIND_BY_ORDER, merchant_id=viewer.merchant_id, source=source.value, order_id=order_id)
    if purchase is not None and purchase["member_id"] != buyer:
        raise OutpacedError
    return purchase


async def standing_order(tx: Tx, viewer: Viewer, source: MemberSource, order_id: str) -> OrderRow:
    """Return an order as it stands, locked. Raises OutpacedError when there is none."""
    order = await tx.row(FIND_ORDER, merchant_id=viewer.merchant_id, source=source.value, order_id=order_id)
    if order is None:
        raise OutpacedError
    return order


async def let_follow(
    tx: Tx, viewer: Viewer, purchase: StandingPurchaseRow, difference: int, *, origin: str, path: str
) -> Followed:
    """Let the purchase of an order follow a change of what the order is worth after discounts.

    Raises Refused(InvalidInput) at `path` when less than what was refunded would be left, or too much.
    """
    amount = worth_after(purchase, difference, path=path)
    return await follow(tx, viewer, purchase, amount, origin=origin, path=path)


@dataclass(frozen=True, slots=True)
class OrderFollowed:
    """An order whose worth changed: its version since, points that were paid and came back, what could not be taken."""

    version: int
    points_returned: int = 0
    shortfall: int = 0


async def let_order_follow(
    tx: Tx,
    viewer: Viewer,
    order: OrderRow,
    purchase: StandingPurchaseRow | None,
    worth: int,
    difference: int,
    *,
    points: int | None = None,
    payer_id: UUID | None,
    origin: str,
) -> OrderFollowed:
    """Let what an order is paid with, and then its purchase, follow a change by `difference` of what it is worth.

    `worth` is what it is worth after discounts, from now on. At most `points` pay for it, where they are told; points
    beyond what it needs come back first. The wallets that this concerns are locked. Raises Refused with InvalidInput or
    InsufficientPoints.
    """
    path = "orderAmount.amountMinor"
    amount = 0 if purchase is None else worth_after(purchase, difference, path=path)
    paid = paid_from_now(order, purchase, need(worth, purchase, amount), points)
    version, back, shortfall = order["version"] or 0, None, 0
    if payer_id is not None:
        back = await settle(tx, viewer, order, payer_id, paid, origin=origin, path=path)
    if purchase is not None:
        followed = await follow(tx, viewer, purchase, amount, paid=paid, origin=origin, path=path)
        shortfall = followed.shortfall
    if back is None:
        return OrderFollowed(version, 0, shortfall)
    return OrderFollowed(version + 1, back.points, shortfall)


def worth_after(purchase: StandingPurchaseRow, difference: int, *, path: str) -> int:
    """Return what the purchase of an order is worth after a change. Raises Refused(InvalidInput) as `let_follow`."""
    amount = purchase["purchase_amount"] + difference
    problems = Problems()
    if purchase["purchase_reversed_at"] is None and difference:
        if amount < purchase["purchase_refunded"]:
            problems.add(path, "would leave less of the purchase than was refunded")
        if amount > MONEY_MAX:
            problems.add(path, f"would make the purchase worth more than {MONEY_MAX}")
    problems.refuse_if_any()
    return amount


class GivenBackRow(ChangeRow):
    """The order, and the event of each redemption that was given back; null where none was."""

    order_id: UUID


# The version is the guard: what was read of the order stands. So do the ends of codes, where they are to be alive.
# Codes that stay go aside, so that each finds its new place free. Without a code that is live again nobody's wallet
# changes.
GIVE_BACK: Final = statement(
    GivenBackRow,
    f"""
WITH o AS (
    UPDATE sales_order SET version = version + 1, order_amount = :amount
    WHERE merchant_id = :merchant_id AND source = :source AND order_id = :order_id AND version = :version
        AND cancelled_at IS NULL AND NOT (:alive AND EXISTS (
            SELECT FROM redemption r JOIN code ON code.merchant_id = :merchant_id AND code.id = r.code_id
            JOIN pool p ON p.merchant_id = :merchant_id AND p.id = code.pool_id
            WHERE r.merchant_id = :merchant_id AND r.id = ANY(:redemption_ids::uuid[]) AND {HAS_ENDED}
        ))
    RETURNING id
), aside AS (
    UPDATE redemption SET position = -position
    WHERE merchant_id = :merchant_id AND source = :source AND order_id = :order_id AND reversed_at IS NULL
        AND id <> ALL(:redemption_ids::uuid[]) AND EXISTS (SELECT FROM o)
), asked AS (
    SELECT * FROM unnest(
        :redemption_ids::uuid[], :event_ids::uuid[], :event_reasons::bytea[], :reversal_reasons::bytea[]
    ) AS t (redemption_id, event_id, event_reason, reversal_reason)
), r AS (
    UPDATE redemption SET reversed_at = now()
    WHERE merchant_id = :merchant_id AND id = ANY(:redemption_ids::uuid[]) AND reversed_at IS NULL
        AND EXISTS (SELECT FROM o)
    RETURNING id, code_id
), reversal AS (
    INSERT INTO reversal (merchant_id, redemption_id, reinstated, reason, reversed_at)
    SELECT :merchant_id, r.id, :reinstate, asked.reversal_reason, now()
    FROM r JOIN asked ON asked.redemption_id = r.id
), c AS (
    UPDATE code SET state = 'ALLOCATED', redeemed_at = NULL, expires_at = coalesce(:expires_at, expires_at),
        outlives_pool = outlives_pool OR :expires_at::timestamptz IS NOT NULL
    WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(SELECT code_id FROM r)) AND state = 'REDEEMED' AND :reinstate
    RETURNING id, pool_id, member_id
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT :merchant_id, pool_id, gen_random_uuid(), 0, count(*), -count(*), 0, 0 FROM c GROUP BY pool_id
), changed AS (
    SELECT asked.event_id, r.id AS subject_id, c.member_id, asked.event_reason AS reason
    FROM r JOIN asked ON asked.redemption_id = r.id LEFT JOIN c ON c.id = r.code_id
), {raise_wallets("redemption.reversed")}
SELECT o.id AS order_id, {columns(ChangeRow)} FROM o LEFT JOIN recorded ev ON true ORDER BY ev.wallet_version
""",
)


async def give_back(
    where: Statements,
    viewer: Viewer,
    source: MemberSource,
    order_id: str,
    rows: Sequence[WholeRedemptionRow],
    *,
    version: int,
    amount: int | None,
    reason: str,
    reinstate: bool,
    alive: bool = False,
    expires_at: datetime | None = None,
) -> tuple[UUID, dict[UUID, ChangeRow]]:
    """Take redemptions of an order back, which is worth `amount` from now on, and raise its version.

    All others of the order are to be placed anew. Returns the order's row and the change of each redemption. `reason`
    is checked already; `alive` says that none of the codes has ended; `expires_at` is a new end for those that are
    reinstated, whatever their pools' ends are. Raises OutpacedError when that isn't so, or the
    order isn't of this version any more.
    """
    keys = viewer.tenant.keys
    event_ids = [ids.new() for _ in rows]
    given_back = await where.rows(
        GIVE_BACK,
        merchant_id=viewer.merchant_id,
        source=source.value,
        order_id=order_id,
        version=version,
        amount=amount,
        redemption_ids=[row["redemption_id"] for row in rows],
        event_ids=event_ids,
        # The event and the reversal hold the reason, each sealed for its own row.
        event_reasons=[keys.encrypt(event_id, "reason", reason) for event_id in event_ids],
        reversal_reasons=[keys.encrypt(row["redemption_id"], "reason", reason) for row in rows],
        reinstate=reinstate,
        alive=alive,
        expires_at=expires_at,
        actor=viewer.actor,
    )
    if not given_back:
        raise OutpacedError
    changes: dict[UUID, ChangeRow] = {row["event_subject_id"]: row for row in given_back if rows}
    for row in rows:
        ring_wallet(where, viewer.merchant_id, changes[row["redemption_id"]], about=row)
    return given_back[0]["order_id"], changes


PLACE: Final = statement(
    NoRow,
    """
UPDATE redemption SET position = placed.position, order_amount = :amount, base = placed.base,
    discount = placed.discount, eligible = placed.eligible
FROM unnest(:redemption_ids::uuid[], :positions::int[], :bases::bigint[], :discounts::bigint[], :eligible::bigint[])
    AS placed (redemption_id, position, base, discount, eligible)
WHERE merchant_id = :merchant_id AND id = ANY(:redemption_ids) AND id = placed.redemption_id AND reversed_at IS NULL
""",
)


async def place(
    tx: Tx, viewer: Viewer, places: Mapping[int, tuple[WholeRedemptionRow, Applied]], *, amount: int
) -> None:
    """Give redemptions that stay on an order of this amount their places, and what they take off there."""
    if not places:
        return
    await tx.row(
        PLACE,
        merchant_id=viewer.merchant_id,
        amount=amount,
        redemption_ids=[row["redemption_id"] for row, _ in places.values()],
        positions=list(places),
        bases=[share.base for _, share in places.values()],
        discounts=[share.discount for _, share in places.values()],
        eligible=[share.eligible for _, share in places.values()],
    )


class StackRow(WholeRedemptionRow, TermsRow):
    """A redemption that stands on an order, or one that is asked about, beside its order and that one's buyer."""

    order_row_id: UUID
    order_version: int
    buyer_id: UUID | None
    asked_at: datetime


#: What stands on the order of a redemption, and that redemption itself.
READ_STACK: Final = statement(
    StackRow,
    f"""
WITH asked AS MATERIALIZED (
    SELECT source, order_id FROM redemption WHERE merchant_id = :merchant_id AND id = :redemption_id
)
SELECT {columns(WholeRedemptionRow, TermsRow)}, o.id AS order_row_id, o.version AS order_version, (
    -- In an order that one index alone has: to a planner that saw the table empty any of them is as good.
    SELECT member_id FROM purchase WHERE merchant_id = :merchant_id AND source = (SELECT source FROM asked)
        AND order_id = ANY(ARRAY[(SELECT order_id FROM asked)]) ORDER BY order_id LIMIT 1
) AS buyer_id, now() AS asked_at
FROM (
    (SELECT * FROM redemption WHERE merchant_id = :merchant_id AND reversed_at IS NULL
        AND source = (SELECT source FROM asked) AND order_id = (SELECT order_id FROM asked) ORDER BY position)
    UNION ALL
    SELECT * FROM redemption WHERE merchant_id = :merchant_id AND id = :redemption_id AND reversed_at IS NOT NULL
) r
CROSS JOIN (
    SELECT id, version FROM sales_order WHERE merchant_id = :merchant_id
        AND source = (SELECT source FROM asked) AND order_id = (SELECT order_id FROM asked) OFFSET 0
) o
{CODE_OF_REDEMPTION} {JOIN_CODE}
CROSS JOIN LATERAL (
    SELECT * FROM pool_terms
    WHERE merchant_id = :merchant_id AND pool_id = r.pool_id AND version = r.terms_version OFFSET 0
) t
ORDER BY r.position
""",
)


def placed_anew(rows: Sequence[StackRow], amount: int) -> dict[int, tuple[StackRow, Applied]]:
    """Return the places of the codes that are left of a stack, each by the terms that it was redeemed under.

    One whose pool has a budget takes no more than before.
    """
    left, places = amount, {}
    for position, row in enumerate(rows, start=1):
        (share,) = stack([(terms_of(row), row["redemption_eligible"])], left)
        if row["pool_maximum_total_discount"] is not None:
            # What comes back mustn't make another code take what its pool's budget doesn't have.
            share = replace(share, discount=min(share.discount, row["redemption_discount"]))
        places[position] = (row, share)
        left -= share.discount
    return places
