"""Advocates: members with so many converted referrals of their own, as the latest snapshot has them."""

from typing import Final

REFERRALS_MIN: Final = 3

#: The advocates of the merchant $1 with at least $2 referrals, to be counted or joined by segments; reads nobody else.
ADVOCATES: Final = """
SELECT n.member_id, n.recruited FROM graph_node n
WHERE n.merchant_id = $1 AND n.recruited >= greatest($2, 1) AND n.snapshot_id = (
    SELECT s.id FROM graph_snapshot s WHERE s.merchant_id = $1 ORDER BY s.taken_on DESC LIMIT 1
)
"""
COUNT: Final = """
SELECT asked.id AS snapshot_id, (
    SELECT count(*) FROM graph_node n WHERE n.merchant_id = $1 AND n.snapshot_id = asked.id AND n.recruited >= $3
)::int AS advocates
FROM unnest($2::uuid[]) AS asked (id)
"""
