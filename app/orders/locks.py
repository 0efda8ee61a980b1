"""Locks of all wallets that a change of an order may concern, in their order."""

from collections.abc import Collection
from typing import Final
from uuid import UUID

from app.api.context import Viewer
from app.orders.rows import StandingPurchaseRow
from app.storage.database import Tx
from app.storage.statements import NoRow, statement

# A purchase's change locks its referral, or what it may convert or bring back, its buyer's wallet and the referrer's,
# before the codes' owners have theirs locked: here all are, in their order.
LOCK_WALLETS: Final = statement(
    NoRow,
    """
WITH i AS MATERIALIZED (
    SELECT referrer_id FROM (
        SELECT referrer_id, status FROM invite
        WHERE merchant_id = :merchant_id AND id = (
            SELECT accepted_invite_id FROM member WHERE merchant_id = :merchant_id AND id = :buyer_id
        )
        OFFSET 0 FOR UPDATE
    ) accepted WHERE status = 'PENDING'
), r AS MATERIALIZED (
    SELECT referrer_id FROM referral
    WHERE merchant_id = :merchant_id AND referee_id = :buyer_id AND (SELECT count(*) FROM i) >= 0
        AND (purchase_id = :purchase_id OR reversed_at IS NOT NULL)
    FOR UPDATE
), c AS MATERIALIZED (
    SELECT id, member_id FROM code
    WHERE merchant_id = :merchant_id AND id = ANY(:code_ids::uuid[]) AND (SELECT count(*) FROM r) >= 0
    ORDER BY id FOR UPDATE
)
SELECT FROM wallet WHERE merchant_id = :merchant_id AND member_id = ANY(ARRAY(
    SELECT member_id FROM c UNION ALL SELECT :buyer_id UNION ALL SELECT referrer_id FROM i
    UNION ALL SELECT referrer_id FROM r UNION ALL SELECT :payer_id::uuid
))
ORDER BY member_id FOR UPDATE
""",
)


async def lock_wallets(
    tx: Tx,
    viewer: Viewer,
    purchase: StandingPurchaseRow | None,
    code_ids: Collection[UUID],
    *,
    payer_id: UUID | None = None,
) -> None:
    """Lock codes and all wallets that a purchase's and their change may concern, and that of who pays with points."""
    # All rows, because a statement that is asked for its first row locks that one alone.
    await tx.rows(
        LOCK_WALLETS,
        merchant_id=viewer.merchant_id,
        code_ids=list(code_ids),
        buyer_id=None if purchase is None else purchase["member_id"],
        purchase_id=None if purchase is None else purchase["purchase_id"],
        payer_id=payer_id,
    )
