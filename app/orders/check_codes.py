"""checkCodes: what redeemCodes would answer, without changing anything."""

from dataclasses import replace

from app import ids
from app.api.operations import Info, query
from app.coupons.rows import RedemptionRow
from app.coupons.rules import Applied
from app.coupons.types import Code, CodeState, Redemption
from app.orders.expire_holds import end_of_budgets
from app.orders.order_changes import worth_after
from app.orders.presented_codes import Beside, FoundRow, Presentation, judged, limited, read
from app.orders.redeem_codes import Presented, RedeemCodesResult, presentation, refuse_if_rejected, success
from app.orders.rows import purchase_by_order
from app.orders.types import refuse_if_cancelled
from app.storage.database import database


@query(
    description="What redeemCodes would answer, without changing anything. The redemptions are what it would make: "
    "their ids name nothing yet. ADMIN, CHECKOUT and SUPPORT."
)
async def check_codes(info: Info, input: Presented) -> RedeemCodesResult:
    viewer = info.context.viewer
    presented = await presentation(viewer, input)
    seen = await read(database(), viewer, presented)
    refuse_if_cancelled(seen.order_row_id, presented.source, presented.order_id, seen.cancelled_at)
    verdict = judged(viewer, presented, seen, Beside.CHECK)
    if verdict.lacks_budget:
        await end_of_budgets(viewer.merchant_id, seen.budget_pools)
        seen = await read(database(), viewer, presented)
        verdict = judged(viewer, presented, seen, Beside.CHECK)
    verdict = await limited(viewer, presented, verdict)
    refuse_if_rejected(verdict)
    if verdict.replayed:
        return success([Redemption.of(row) for row in verdict.replayed], presented.currency, replayed=True)
    if seen.amount is not None:
        purchase = await purchase_by_order(viewer, presented.source.value, presented.order_id)
        if purchase is not None:
            worth = presented.amount - sum(share.discount for _, share in verdict.accepted)
            worth_after(purchase, worth - seen.amount, path="orderAmount.amountMinor")
    redemptions = [
        _would_be(presented, position, row, share) for position, (row, share) in enumerate(verdict.accepted, start=1)
    ]
    return success(redemptions, presented.currency, replayed=False)


def _would_be(presented: Presentation, position: int, row: FoundRow, share: Applied) -> Redemption:
    """Return the redemption of a code as it would be made, which leaves the wallet's version as it is."""
    spent = replace(Code.of(row), state=CodeState.REDEEMED, redeemed_at=row["asked_at"])
    made = RedemptionRow(
        redemption_id=ids.new(),
        redemption_source=presented.source.value,
        redemption_order_id=presented.order_id,
        redemption_position=position,
        redemption_order_amount=presented.amount,
        redemption_base=share.base,
        redemption_eligible=share.eligible,
        redemption_discount=share.discount,
        redemption_currency=presented.currency,
        redemption_redeemed_at=row["asked_at"],
        redemption_reversed_at=None,
    )
    return Redemption.of_code(spent, made)
