"""What became of campaigns, by the redemptions that stand."""

from collections.abc import Mapping
from typing import Final, TypedDict
from uuid import UUID

from app.api.context import Viewer
from app.storage.database import database
from app.storage.statements import statement


class ResultsRow(TypedDict):
    """What became of a campaign's codes; amounts are in minor units of the merchant's currency."""

    campaign_id: UUID
    redeemed: int
    discount: int
    revenue: int


#: The codes of a campaign are those that it allocated and those that took their places. An order's revenue is what it
#: was worth less all its discounts, whosever codes took them off, and less what was refunded of its purchase.
RESULTS: Final = statement(
    ResultsRow,
    """
WITH redeemed AS (
    SELECT k.id AS campaign_id, r.source, r.order_id, r.order_amount, r.discount
    FROM campaign k
    JOIN redemption r ON r.merchant_id = :merchant_id AND r.pool_id = k.pool_id AND r.reversed_at IS NULL
    JOIN delivery d ON d.merchant_id = :merchant_id AND d.campaign_id = k.id AND d.code_id = r.code_id AND d.allocated
    WHERE k.merchant_id = :merchant_id AND k.id = ANY(:campaign_ids::uuid[])
), sold AS (
    SELECT each.campaign_id, greatest(each.order_amount - (
        SELECT sum(discount) FROM redemption
        WHERE merchant_id = :merchant_id AND order_id = each.order_id AND source = each.source AND reversed_at IS NULL
    ) - coalesce((
        SELECT refunded FROM purchase
        WHERE merchant_id = :merchant_id AND source = each.source AND order_id = each.order_id
    ), 0), 0) AS revenue
    FROM (SELECT DISTINCT campaign_id, source, order_id, order_amount FROM redeemed) each
)
SELECT redeemed.campaign_id, count(*) AS redeemed, sum(discount)::bigint AS discount,
    (SELECT sum(revenue)::bigint FROM sold WHERE sold.campaign_id = redeemed.campaign_id) AS revenue
FROM redeemed GROUP BY redeemed.campaign_id
""",
)


async def results_by_campaign(viewer: Viewer, campaign_ids: list[UUID]) -> Mapping[UUID, ResultsRow]:
    """Return what became of campaigns."""
    rows = await database().rows(RESULTS, merchant_id=viewer.merchant_id, campaign_ids=campaign_ids)
    none: dict[UUID, ResultsRow] = {
        each: {"campaign_id": each, "redeemed": 0, "discount": 0, "revenue": 0} for each in campaign_ids
    }
    return none | {row["campaign_id"]: row for row in rows}
