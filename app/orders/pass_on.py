"""What becomes of a merged member's holds, purchases and rewards, and of orders that it paid for: the kept one's."""

from typing import Final, TypedDict
from uuid import UUID

from app.storage.database import Tx
from app.storage.statements import NoRow, statement


class PassedRow(TypedDict):
    """How many purchases, and how many holds that stand, became the kept member's."""

    purchases: int
    holds: int


#: Two at once that are both a first order of one of them: each sees that the person has changed since it looked.
MEET: Final = statement(
    NoRow,
    """
INSERT INTO first_order (merchant_id, person, version)
SELECT :merchant_id, person, 1 FROM unnest(ARRAY[uuid_send(:kept_id::uuid), uuid_send(:merged_id::uuid)]) AS t (person)
ORDER BY person
ON CONFLICT (merchant_id, person) DO UPDATE SET version = first_order.version + 1
""",
)
# In the order of locks: orders, holds, purchases, rewards. What a cancelled order says of its payer is history.
PASS: Final = statement(
    PassedRow,
    """
WITH paid AS MATERIALIZED (
    SELECT id FROM sales_order WHERE merchant_id = :merchant_id AND payer_id = :merged_id AND cancelled_at IS NULL
    ORDER BY id FOR NO KEY UPDATE
), held AS MATERIALIZED (
    SELECT id FROM hold
    WHERE merchant_id = :merchant_id AND (SELECT count(*) FROM paid) >= 0 AND id = ANY(ARRAY(
        SELECT id FROM hold WHERE merchant_id = :merchant_id AND member_id = :merged_id AND status = 'HELD'
        UNION ALL
        SELECT id FROM hold WHERE merchant_id = :merchant_id AND member_id = :merged_id AND status <> 'HELD'
    ))
    ORDER BY id FOR UPDATE
), bought AS MATERIALIZED (
    SELECT id FROM purchase
    WHERE merchant_id = :merchant_id AND member_id = :merged_id AND (SELECT count(*) FROM held) >= 0
    ORDER BY id FOR NO KEY UPDATE
), orders AS (
    UPDATE sales_order SET payer_id = :kept_id, version = version + 1
    WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(SELECT id FROM paid))
), holds AS (
    UPDATE hold SET member_id = :kept_id, version = version + 1
    WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(SELECT id FROM held))
    RETURNING status, held_until
), purchases AS (
    UPDATE purchase SET member_id = :kept_id
    WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(SELECT id FROM bought))
    RETURNING id
), rewards AS (
    UPDATE reward_redemption SET member_id = :kept_id
    WHERE merchant_id = :merchant_id AND member_id = :merged_id AND (SELECT count(*) FROM bought) >= 0
)
SELECT (SELECT count(*)::int FROM purchases) AS purchases,
    (SELECT count(*)::int FROM holds WHERE status = 'HELD' AND held_until > now()) AS holds
FROM merchant WHERE merchant_id = :merchant_id
""",
)


async def pass_orders(tx: Tx, merchant_id: UUID, kept_id: UUID, merged_id: UUID) -> PassedRow:
    """Make a merged member's holds and purchases the kept one's; both members are locked.

    Locks orders, holds, purchases and rewards, each by id.
    """
    pair = {"merchant_id": merchant_id, "kept_id": kept_id, "merged_id": merged_id}
    passed = await tx.row(PASS, **pair)
    if passed is None:
        raise RuntimeError("the viewer's merchant has no row")
    return passed


async def let_first_orders_meet(tx: Tx, merchant_id: UUID, kept_id: UUID, merged_id: UUID) -> None:
    """Let orders that are being redeemed as the first of a person look again, for whom two records are one by now.

    After the codes, as orders lock them.
    """
    await tx.row(MEET, merchant_id=merchant_id, kept_id=kept_id, merged_id=merged_id)
