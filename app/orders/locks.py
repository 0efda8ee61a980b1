"""Locks of all wallets that a change of an order or the end of holds may concern, in their order."""

from collections.abc import Collection, Iterable
from typing import Final
from uuid import UUID

from app.api.context import Viewer
from app.members.types import MemberSource
from app.orders.rows import StandingPurchaseRow
from app.storage.database import Tx
from app.storage.statements import NoRow, statement

# A purchase's change locks its referral, or what it may convert or bring back, its buyer's wallet and the referrer's,
# before the codes' owners have theirs locked: here all are, in their order.
_REFERRALS: Final = """
i AS MATERIALIZED (
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
)"""
LOCK_WALLETS: Final = statement(
    NoRow,
    f"""
WITH {_REFERRALS}, c AS MATERIALIZED (
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


# The same with what holds have that end, change or are captured: rewards and codes go back, and points come free.
LOCK_HELD: Final = statement(
    NoRow,
    f"""
WITH {_REFERRALS}, h AS MATERIALIZED (
    SELECT id, member_id FROM hold
    WHERE merchant_id = :merchant_id AND id = ANY(:hold_ids::uuid[]) AND (SELECT count(*) FROM r) >= 0
), y AS MATERIALIZED (
    SELECT reward_id, is_from_stock, code_id FROM hold_reward
    WHERE merchant_id = :merchant_id AND hold_id = ANY(ARRAY(SELECT id FROM h))
), x AS MATERIALIZED (
    SELECT reward_id, is_from_stock, code_id, member_id FROM reward_redemption
    WHERE merchant_id = :merchant_id AND id = ANY(:exchange_ids::uuid[]) AND (SELECT count(*) FROM h) >= 0
    ORDER BY id FOR NO KEY UPDATE
), a AS MATERIALIZED (
    -- Those whose stock is limited.
    SELECT id FROM reward
    WHERE merchant_id = :merchant_id AND stock IS NOT NULL AND id = ANY(ARRAY(
        SELECT unnest(:reward_ids::uuid[])
        UNION ALL SELECT reward_id FROM y WHERE is_from_stock
        UNION ALL SELECT reward_id FROM x WHERE is_from_stock
    ))
    ORDER BY id FOR NO KEY UPDATE
), c AS MATERIALIZED (
    SELECT id, member_id FROM code
    WHERE merchant_id = :merchant_id AND (SELECT count(*) FROM a) >= 0 AND id = ANY(ARRAY(
        SELECT unnest(:code_ids::uuid[])
        UNION ALL SELECT code_id FROM hold_code
        WHERE merchant_id = :merchant_id AND hold_id = ANY(ARRAY(SELECT id FROM h))
        UNION ALL SELECT code_id FROM y
        UNION ALL SELECT code_id FROM x
    ))
    ORDER BY id FOR UPDATE
), n AS MATERIALIZED (
    -- The name of an order that is to begin.
    SELECT lock_order_name(:merchant_id, :source, :order_id) WHERE :is_new AND (SELECT count(*) FROM c) >= 0
)
SELECT FROM wallet WHERE merchant_id = :merchant_id AND (SELECT count(*) FROM n) >= 0 AND member_id = ANY(ARRAY(
    SELECT unnest(:member_ids::uuid[])
    UNION ALL SELECT :buyer_id UNION ALL SELECT referrer_id FROM i UNION ALL SELECT referrer_id FROM r
    UNION ALL SELECT member_id FROM h UNION ALL SELECT member_id FROM x UNION ALL SELECT member_id FROM c
))
ORDER BY member_id FOR UPDATE
""",
)


async def lock_held(
    tx: Tx,
    viewer: Viewer,
    source: MemberSource,
    order_id: str,
    hold_ids: Iterable[UUID],
    *,
    purchase: StandingPurchaseRow | None = None,
    exchange_ids: Iterable[UUID] = (),
    reward_ids: Iterable[UUID] = (),
    code_ids: Iterable[UUID] = (),
    member_ids: Iterable[UUID] = (),
    is_new: bool = False,
) -> None:
    """Lock what holds have that end, change or are captured, whose rows are locked, and all wallets that this concerns.

    Besides: what `lock_wallets` locks for a purchase, what takes back redemptions of rewards, rewards and codes that
    are to be held, wallets of members, and the name of the order if `is_new`. Redemptions of rewards, rewards, codes,
    the name and wallets are locked in this order, each by its id.
    """
    await tx.rows(
        LOCK_HELD,
        merchant_id=viewer.merchant_id,
        source=source.value,
        order_id=order_id,
        hold_ids=list(hold_ids),
        exchange_ids=list(exchange_ids),
        reward_ids=list(reward_ids),
        code_ids=list(code_ids),
        member_ids=list(member_ids),
        is_new=is_new,
        buyer_id=None if purchase is None else purchase["member_id"],
        purchase_id=None if purchase is None else purchase["purchase_id"],
    )
