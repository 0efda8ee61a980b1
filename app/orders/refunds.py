"""What goes back of a purchase: a part of it, or the rest, and the points that it had earned with it.

After any refunds a purchase has earned exactly its points for what stands of it and was not paid with points. The
order of locks is member, purchase, referral, wallets.
"""

from dataclasses import dataclass
from typing import Final, TypedDict
from uuid import UUID

from app import ids
from app.api.context import Viewer
from app.api.operations import OutpacedError
from app.api.reasons import sealed
from app.members.rows import JOIN_MEMBER
from app.orders.locks import lock_wallets
from app.orders.payments import PointsBack, give_back_paid
from app.orders.rows import FIND_ORDER, REFERRAL_OF_PURCHASE, StandingPurchaseRow, WholePurchaseRow
from app.orders.rules import come_back, credits_of, kept_points
from app.points.erase_points import erase_points
from app.points.take_back import TakenBack, take_back
from app.points.types import PointsReason
from app.referrals.conversion import reconsider
from app.storage.database import Tx
from app.storage.events import event
from app.storage.gone import forfeiting
from app.storage.statements import columns, statement
from app.storage.wallet_versions import ChangeRow


@dataclass(frozen=True, slots=True)
class Returned:
    """What a refund did: the purchase as it stands now, what was taken of the points owed, and the money to return.

    `back` are points that were paid and came back.
    """

    purchase: StandingPurchaseRow
    back: PointsBack
    taken: TakenBack
    owed: int
    money: int
    ends_referral: bool
    #: How many of the points that came back were due to a member that was erased.
    forfeited: int = 0

    @property
    def latest(self) -> ChangeRow | None:
        """Return the last change that it made to the buyer's wallet, but for what a referral's fall changed."""
        own = self.back.latest
        is_buyers = own is not None and own["event_member_id"] == self.purchase["member_id"]
        return self.taken.latest or (own if is_buyers else None)

    @property
    def points(self) -> int:
        """Return how many points left the balance."""
        return -sum(entry["entry_amount"] for entry in self.taken.entries)


# The purchase's row is the guard: what was read of it must stand. Its buyer is locked first, so that a conversion by
# this purchase is either seen or waits.
LOWER: Final = statement(
    StandingPurchaseRow,
    f"""
WITH buyer AS MATERIALIZED (
    SELECT id FROM member WHERE merchant_id = :merchant_id AND id = :member_id FOR NO KEY UPDATE
), b AS (
    UPDATE purchase SET refunded = refunded + :part::bigint,
        returned_points = :returned_points, returned_value = :returned_value,
        reversed_at = CASE WHEN refunded + :part = amount THEN now() END
    FROM buyer
    WHERE merchant_id = :merchant_id AND purchase.id = :purchase_id AND member_id = buyer.id AND reversed_at IS NULL
        AND amount = :amount::bigint AND refunded = :refunded::bigint
        AND (paid_points, paid_value, shares_from) = (:paid_points::int, :paid_value::bigint, :shares_from::bigint)
    RETURNING purchase.*
)
SELECT {columns(WholePurchaseRow)}, {REFERRAL_OF_PURCHASE} AS referral_id
FROM b {JOIN_MEMBER.format("b")}
""",
)


async def give_up(tx: Tx, viewer: Viewer, purchase: StandingPurchaseRow, part: int, *, origin: str) -> Returned:
    """Take a part of a purchase off what stands of it, and what that had earned from the buyer's wallet.

    Before that, what had been paid for it with points comes back to who paid. A referral falls for which too little
    stands, unless another purchase takes its place. `origin` names what takes it. Raises OutpacedError.
    """
    shares = come_back(purchase, purchase["purchase_refunded"] + part)
    lowered = await tx.row(
        LOWER,
        merchant_id=viewer.merchant_id,
        member_id=purchase["member_id"],
        purchase_id=purchase["purchase_id"],
        part=part,
        amount=purchase["purchase_amount"],
        refunded=purchase["purchase_refunded"],
        paid_points=purchase["purchase_paid_points"],
        paid_value=purchase["purchase_paid_value"],
        shares_from=purchase["purchase_shares_from"],
        returned_points=shares.points,
        returned_value=shares.value,
    )
    if lowered is None:
        raise OutpacedError
    back, forfeited = PointsBack(), 0
    if points := shares.points - purchase["purchase_returned_points"]:
        back = await _give_back(tx, viewer, lowered, points, origin=origin)
        forfeited = await _forfeit(tx, viewer, back)
    # First, because it locks two wallets, and several are locked by member.
    fell = lowered["referral_id"] is not None and await reconsider(
        tx, viewer.merchant_id, viewer.actor, lowered["referral_id"]
    )
    owed = kept_points(purchase) - kept_points(lowered)
    taken = TakenBack()
    if owed:
        taken = await take_back(
            tx, viewer.merchant_id, viewer.actor, purchase["member_id"], reason=PointsReason.PURCHASE,
            credited=credits_of(lowered), points=owed, origin=origin, reference=purchase["purchase_order_id"],
        )  # fmt: skip
    money = part - (shares.value - purchase["purchase_returned_value"])
    return Returned(lowered, back, taken, owed, money=money, ends_referral=fell, forfeited=forfeited)


async def _forfeit(tx: Tx, viewer: Viewer, back: PointsBack) -> int:
    """Take from an erased member what is left of what came back to it. Returns how many points."""
    payer_id = None if back.latest is None else back.latest["event_member_id"]
    if payer_id is None or payer_id not in forfeiting.get():
        return 0
    return await erase_points(tx, viewer.merchant_id, viewer.actor, payer_id)


async def _give_back(tx: Tx, viewer: Viewer, purchase: StandingPurchaseRow, points: int, *, origin: str) -> PointsBack:
    """Give points back that were paid for a purchase that is locked."""
    order = await tx.row(
        FIND_ORDER,
        merchant_id=viewer.merchant_id,
        source=purchase["purchase_source"],
        order_id=purchase["purchase_order_id"],
    )
    if order is None:
        raise RuntimeError("a purchase has no order")
    # All that are concerned, because the referral's wallets come after this one, and several are locked by member.
    await lock_wallets(tx, viewer, purchase, (), payer_id=order["payer_id"])
    return await give_back_paid(tx, viewer, order, points, origin=origin, path="amount.amountMinor")


class FinishedRow(TypedDict):
    """The referral that a purchase converted, as it is known in the end."""

    referral_id: UUID | None


FINISH: Final = statement(
    FinishedRow,
    f"""
WITH f AS (
    INSERT INTO refund (merchant_id, id, purchase_id, refund_id, amount, points, taken, shortfall, points_returned,
                        points_expired, points_forfeited, money_returned, ends_referral, entry_ids, refunded_at)
    VALUES (:merchant_id, :row_id, :purchase_id, :refund_id, :amount, :points, :taken, :shortfall, :points_returned,
            :points_expired, :points_forfeited, :money_returned, :ends_referral, :entry_ids::uuid[], now())
), gone AS (
    SELECT member_id, occurred_at FROM purchase
    WHERE merchant_id = :merchant_id AND id = :purchase_id AND reversed_at IS NOT NULL
), bought AS (
    -- What the member bought last, if that went back whole: the one before. Whoever records a purchase waits for the
    -- member's lock, which is had since the statement before.
    UPDATE member SET last_bought_at = (
        SELECT occurred_at FROM purchase
        WHERE merchant_id = :merchant_id AND member_id = gone.member_id AND reversed_at IS NULL
        ORDER BY member_id, occurred_at DESC LIMIT 1
    ) FROM gone
    WHERE member.merchant_id = :merchant_id AND member.id = gone.member_id
        AND member.last_bought_at = gone.occurred_at
), refunded AS (
    {event("purchase.refunded", subject=":purchase_id", reason=":reason")}
), reversed AS (
    {
        event(
            "purchase.reversed",
            id=":reversed_event_id",
            subject="id",
            source="purchase WHERE merchant_id = :merchant_id AND id = :purchase_id AND reversed_at IS NOT NULL",
            reason=":reversed_reason::bytea",
        )
    }
)
SELECT (SELECT id FROM referral WHERE merchant_id = :merchant_id AND purchase_id = :purchase_id) AS referral_id
""",
)


async def refund(
    tx: Tx, viewer: Viewer, purchase: StandingPurchaseRow, part: int, *, refund_id: str | None, reason: str
) -> Returned:
    """Refund a part of a purchase, and write that down under the shop's id of it, or under its own.

    The purchase is as it was read, locked or not; at most what stands of it goes back. Raises OutpacedError when it
    isn't that any more, and Refused(InvalidInput) for a reason that is none.
    """
    row_id = ids.new()
    event_id, why = sealed(viewer, reason)
    reversed_event_id, why_reversed = sealed(viewer, reason)
    returned = await give_up(tx, viewer, purchase, part, origin=row_id.hex)
    finished = await tx.row(
        FINISH,
        merchant_id=viewer.merchant_id,
        row_id=row_id,
        purchase_id=purchase["purchase_id"],
        refund_id=refund_id or ids.encode("refund", row_id),
        amount=part,
        points=returned.owed,
        taken=returned.points,
        shortfall=returned.taken.shortfall,
        points_returned=returned.back.points,
        points_expired=returned.back.expired,
        points_forfeited=returned.forfeited,
        money_returned=returned.money,
        ends_referral=returned.ends_referral,
        entry_ids=[entry["entry_id"] for entry in returned.taken.entries],
        event_id=event_id,
        reason=why,
        reversed_event_id=reversed_event_id,
        reversed_reason=why_reversed,
        actor=viewer.actor,
    )
    if finished is None or finished["referral_id"] not in (None, returned.purchase["referral_id"]):
        # Whoever had the buyer's lock before has just let the purchase convert an invite.
        raise OutpacedError
    return returned


async def refund_rest(tx: Tx, viewer: Viewer, purchase: StandingPurchaseRow, *, reason: str) -> Returned:
    """Refund all that stands of a purchase, as `refund` does."""
    rest = purchase["purchase_amount"] - purchase["purchase_refunded"]
    return await refund(tx, viewer, purchase, rest, refund_id=None, reason=reason)
