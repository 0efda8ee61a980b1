"""A purchase whose order changed: its amount, or what of it is paid with points. It has earned the points for that."""

from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from app.api.context import Viewer
from app.api.inputs import Problems
from app.api.operations import OutpacedError
from app.members.rows import JOIN_MEMBER
from app.orders.rows import REFERRAL_OF_PURCHASE, StandingPurchaseRow, WholePurchaseRow
from app.orders.rules import Paid, credit_of, credits_of, kept_points, money_part, points_of
from app.points.ledger import POINTS_MAX, PostedRow, too_many
from app.points.take_back import earn_more, take_back
from app.points.types import PointsReason
from app.referrals.conversion import convert, reconsider
from app.storage.database import Tx
from app.storage.statements import NoRow, columns, statement
from app.storage.wallet_versions import ChangeRow


@dataclass(slots=True)
class Followed:
    """A purchase after its order changed, the entries that this brought, and what could not be taken."""

    purchase: StandingPurchaseRow
    entries: list[PostedRow] = field(default_factory=list)
    shortfall: int = 0
    #: The last change of the buyer's wallet.
    latest: ChangeRow | None = None


class ChangedRow(StandingPurchaseRow):
    """A purchase that was changed, and the invite that its buyer came by, if by one."""

    invite_id: UUID | None


CHANGE: Final = statement(
    ChangedRow,
    f"""
WITH b AS (
    -- Shares begin anew with what stands.
    UPDATE purchase SET amount = :to_amount::bigint, points = :points::int, paid_points = :paid_points,
        paid_value = :paid_value, shares_from = refunded, shares_points = returned_points, shares_value = returned_value
    WHERE merchant_id = :merchant_id AND id = :purchase_id AND reversed_at IS NULL AND amount = :amount::bigint
        AND refunded = :refunded::bigint
    RETURNING *
)
SELECT {columns(WholePurchaseRow)}, {REFERRAL_OF_PURCHASE} AS referral_id, m.accepted_invite_id AS invite_id
FROM b {JOIN_MEMBER.format("b")}
""",
)
COUNT: Final = statement(
    NoRow, "UPDATE purchase SET credits = credits + 1 WHERE merchant_id = :merchant_id AND id = :purchase_id"
)


async def follow(
    tx: Tx,
    viewer: Viewer,
    purchase: StandingPurchaseRow,
    amount: int,
    *,
    paid: Paid | None = None,
    origin: str,
    path: str,
) -> Followed:
    """Let a purchase be worth another amount, at least what was refunded, or be paid with other points.

    One that was taken back whole stays. Points and referrals go by what stands and is not paid with points.

    Less is taken back as by a refund, and a referral falls for which too little stands. More may convert an invite or
    bring its referral back, fills what the purchase's own returns lack, and is then credited now, at its rate. `origin`
    names the change. The caller has locked the buyer, by a statement before the one that read the purchase. Raises
    OutpacedError when the purchase isn't what was read, and Refused(InvalidInput) at `path` when the balance can't hold
    what it earns, or less stands than is paid with points.
    """
    before = Paid(purchase["purchase_paid_points"], purchase["purchase_paid_value"])
    paid = paid or before
    if (amount, paid) == (purchase["purchase_amount"], before):
        return Followed(purchase)
    is_reversed = purchase["purchase_reversed_at"] is not None
    stands = 0 if is_reversed else amount - purchase["purchase_refunded"]
    if paid.value - purchase["purchase_returned_value"] > stands:
        problems = Problems()
        problems.add(path, "would leave less of the purchase than is paid with points")
        problems.refuse_if_any()
    if is_reversed:
        return Followed(purchase)
    points = points_of(amount - paid.value, purchase["purchase_points_per_unit"], purchase["purchase_minor_units"])
    if points > POINTS_MAX:
        raise too_many(path)
    changed = await tx.row(
        CHANGE,
        merchant_id=viewer.merchant_id,
        purchase_id=purchase["purchase_id"],
        to_amount=amount,
        points=points,
        paid_points=paid.points,
        paid_value=paid.value,
        amount=purchase["purchase_amount"],
        refunded=purchase["purchase_refunded"],
    )
    if changed is None:
        raise OutpacedError
    # The referral first, because it locks two wallets, and several are locked by member.
    higher = money_part(changed) - money_part(purchase)
    if higher > 0 and changed["invite_id"] is not None:
        await convert(tx, viewer.tenant.keys, viewer.actor, changed["invite_id"])
    elif higher < 0 and changed["referral_id"] is not None:
        await reconsider(tx, viewer.merchant_id, viewer.actor, changed["referral_id"])
    more = kept_points(changed) - kept_points(purchase)
    followed = Followed(changed)
    if more < 0:
        taken = await take_back(
            tx, viewer.merchant_id, viewer.actor, purchase["member_id"], reason=PointsReason.PURCHASE,
            credited=credits_of(changed), points=-more, origin=origin, reference=purchase["purchase_order_id"],
        )  # fmt: skip
        followed.entries, followed.shortfall, followed.latest = taken.entries, taken.shortfall, taken.latest
    elif more > 0:
        earned = await earn_more(
            tx, viewer.merchant_id, viewer.actor, purchase["member_id"], more, credited=credits_of(changed),
            origin=credit_of(changed, changed["purchase_credits"] + 1), reference=purchase["purchase_order_id"],
            spendable_at=purchase["purchase_spendable_at"], path=path,
        )  # fmt: skip
        followed.latest = earned.latest
        if earned.entry is not None:
            followed.entries.append(earned.entry)
            await tx.row(COUNT, merchant_id=viewer.merchant_id, purchase_id=purchase["purchase_id"])
    return followed
