"""pointsLiability: what the points that members hold, now or at a past instant, would cost the merchant."""

from datetime import datetime
from typing import Annotated, Final, TypedDict

import strawberry

from app.api.inputs import Money
from app.api.operations import Info, query
from app.api.scalars import BigInt
from app.storage.database import database
from app.storage.statements import statement


@strawberry.type(description="The points that are outstanding and what they are worth.")
class PointsLiability:
    """A sum over all members."""

    outstanding_points: BigInt = strawberry.field(description="All members' points together, exactly.")
    value: Money = strawberry.field(
        description="Outstanding points x today's value of a point, half a minor unit rounded up."
    )
    as_of: datetime = strawberry.field(description="The instant that it is of.")


class LiabilityRow(TypedDict):
    """The points of all members at an instant, and what they are worth."""

    points: int
    value: int
    as_of: datetime


# Balances now, less what was written since: both from one snapshot, so the sum is exact. Summed up once: both columns
# need it. Reads the merchant's wallets
# and, from an index that holds the amounts, the entries after the instant: bench/points_buffers.py counts them.
LIABILITY: Final = statement(
    LiabilityRow,
    """
WITH outstanding AS MATERIALIZED (
    SELECT (SELECT coalesce(sum(points), 0) FROM wallet WHERE merchant_id = :merchant_id)
        - (SELECT coalesce(sum(amount), 0) FROM points_entry
           WHERE merchant_id = :merchant_id AND created_at > :as_of::timestamptz) AS points
)
SELECT outstanding.points, round(outstanding.points * m.point_value)::bigint AS value, least(:as_of, now()) AS as_of
FROM merchant m, outstanding WHERE m.merchant_id = :merchant_id
""",
)


@query(description="What the points that members hold would cost the merchant. ADMIN and ANALYST.")
async def points_liability(
    info: Info,
    as_of: Annotated[
        datetime | None,
        strawberry.argument(description="Of which instant; now unless told, and at the latest."),
    ] = None,
) -> PointsLiability:
    viewer = info.context.viewer
    row = await database().row(LIABILITY, merchant_id=viewer.merchant_id, as_of=as_of)
    if row is None:
        raise RuntimeError("the viewer's merchant has no row")
    return PointsLiability(
        outstanding_points=BigInt(row["points"]),
        value=Money(amount_minor=BigInt(row["value"]), currency=viewer.tenant.currency),
        as_of=row["as_of"],
    )
