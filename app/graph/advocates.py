"""Advocates: members with so many converted referrals of their own, as the latest snapshot has them."""

from typing import Final, TypedDict
from uuid import UUID

from app.storage.statements import statement

REFERRALS_MIN: Final = 3


class CountRow(TypedDict):
    """How many advocates a drawing has."""

    drawing_id: UUID
    advocates: int


#: A subquery: the advocates of the merchant with at least `:referrals_min` referrals; reads nobody else.
ADVOCATES: Final = """
SELECT n.member_id, n.recruited FROM graph_node n
WHERE n.merchant_id = :merchant_id AND n.recruited >= greatest(:referrals_min::int, 1) AND n.drawing_id = (
    SELECT s.drawing_id FROM graph_snapshot s WHERE s.merchant_id = :merchant_id ORDER BY s.taken_on DESC LIMIT 1
)
"""
COUNT: Final = statement(
    CountRow,
    """
SELECT asked.id AS drawing_id, (
    SELECT count(*) FROM graph_node n
    WHERE n.merchant_id = :merchant_id AND n.drawing_id = asked.id AND n.recruited >= :referrals_min
)::int AS advocates
FROM unnest(:drawing_ids::uuid[]) AS asked (id)
""",
)
