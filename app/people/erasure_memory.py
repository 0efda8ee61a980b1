"""What is remembered of who was erased, for as long as its merchant wants: limits that hold, and whom imports skip."""

from datetime import datetime
from typing import Final, TypedDict

from app.members.remembered import IS_CURRENT, OF_ADDRESS, OF_EXTERNAL_ID, OF_MAILBOX
from app.people.known_by import KnownBy
from app.storage.crypto import MerchantKeys
from app.storage.database import Tx, database
from app.storage.fences import stands
from app.storage.statements import NoRow, statement

#: Rows that one statement deletes.
BATCH: Final = 10_000

_STANDS: Final = """
    EXISTS (
        SELECT FROM redemption r WHERE r.merchant_id = :merchant_id AND r.order_id = o.order_id AND r.source = o.source
            AND r.reversed_at IS NULL
    )
"""
# A mailbox counts if it is the person's alone or proven, and is kept if a limit is to hold. What was kept of it before
# is kept on, unless that is too old.
REMEMBER: Final = statement(
    NoRow,
    f"""
WITH own AS (
    SELECT mailbox_index AS index FROM member WHERE merchant_id = :merchant_id AND id = ANY(:member_ids::uuid[])
        AND email_verified AND mailbox_index IS NOT NULL
), mailbox_of AS (
    SELECT index FROM unnest(:mailbox_indexes::bytea[]) AS index UNION SELECT index FROM own
), known AS (
    SELECT 'EXTERNAL_ID' AS kind, {OF_EXTERNAL_ID.format("x.source", "x.external_id")} AS hmac,
        '{{}}'::uuid[] AS pool_ids, false AS has_ordered, false AS is_rewarded
    FROM external_id x WHERE x.merchant_id = :merchant_id AND x.member_id = ANY(:member_ids)
    UNION ALL
    SELECT 'ADDRESS', {OF_ADDRESS.format("index")}, '{{}}', false, false
    FROM unnest(:email_indexes::bytea[]) AS index
    UNION ALL
    SELECT 'MAILBOX', {OF_MAILBOX.format("b.index")}, ARRAY(
        SELECT DISTINCT k.pool_id FROM claim k
        WHERE k.merchant_id = :merchant_id AND k.mailbox_index = b.index AND k.code_id = ANY(ARRAY(
            SELECT id FROM code WHERE merchant_id = :merchant_id AND member_id = ANY(:member_ids)
            UNION ALL SELECT id FROM code WHERE merchant_id = :merchant_id AND email_index = ANY(:email_indexes)
        ))
    ), EXISTS (
        SELECT FROM sales_order o
        WHERE o.merchant_id = :merchant_id AND o.mailbox_index = b.index AND o.presenter_id IS NULL AND {_STANDS}
    ) OR (b.index IN (SELECT index FROM own) AND (EXISTS (
        SELECT FROM purchase p
        WHERE p.merchant_id = :merchant_id AND p.member_id = ANY(:member_ids) AND p.reversed_at IS NULL
    ) OR EXISTS (
        SELECT FROM sales_order o
        WHERE o.merchant_id = :merchant_id AND o.presenter_id = ANY(:member_ids) AND {_STANDS}
    ))), EXISTS (
        SELECT FROM rewarded_mailbox w WHERE w.merchant_id = :merchant_id AND w.mailbox_index = b.index
    )
    FROM mailbox_of b
)
INSERT INTO erasure_memory AS r (merchant_id, kind, hmac, pool_ids, has_ordered, is_rewarded, erased_at)
SELECT :merchant_id, kind, hmac, pool_ids, has_ordered, is_rewarded, coalesce(:erased_at::timestamptz, now())
FROM known
WHERE (kind <> 'MAILBOX' OR pool_ids <> '{{}}' OR has_ordered OR is_rewarded)
    AND EXISTS (SELECT FROM merchant WHERE merchant_id = :merchant_id AND erasure_memory_days > 0)
ORDER BY hmac
ON CONFLICT (merchant_id, hmac) DO UPDATE SET
    pool_ids = CASE WHEN {IS_CURRENT.format("r")}
        THEN ARRAY(SELECT unnest(r.pool_ids) UNION SELECT unnest(excluded.pool_ids)) ELSE excluded.pool_ids END,
    has_ordered = excluded.has_ordered OR (r.has_ordered AND {IS_CURRENT.format("r")}),
    is_rewarded = excluded.is_rewarded OR (r.is_rewarded AND {IS_CURRENT.format("r")}),
    erased_at = greatest(r.erased_at, excluded.erased_at)
""",
)


async def remember(tx: Tx, keys: MerchantKeys, person: KnownBy, erased_at: datetime | None) -> None:
    """Keep what limits and imports are to know of a person, before it is erased; nothing if the merchant wants none.

    Without a date it is erased now.
    """
    await tx.row(
        REMEMBER,
        merchant_id=keys.merchant_id,
        memory_pads=keys.memory_pads,
        erased_at=erased_at,
        **person.parameters(),
    )


class _ForgottenRow(TypedDict):
    rows: int


FORGET: Final = statement(
    _ForgottenRow,
    f"""
WITH old AS (
    SELECT r.merchant_id, r.hmac FROM merchant m JOIN erasure_memory r ON r.merchant_id = m.merchant_id
    WHERE r.erased_at <= now() - make_interval(days => m.erasure_memory_days) AND {stands("m")}
    LIMIT {BATCH}
), gone AS (
    DELETE FROM erasure_memory r USING old WHERE r.merchant_id = old.merchant_id AND r.hmac = old.hmac
    RETURNING r.hmac
)
SELECT count(*)::int AS rows FROM gone
""",
)


async def forget_batch() -> int:
    """Delete some of what is older than its merchant wants it. Returns how many. Safe to run twice and at once."""
    row = await database().row(FORGET)
    return 0 if row is None else row["rows"]
