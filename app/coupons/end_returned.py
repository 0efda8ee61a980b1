"""Codes that come back from an order after their end: they are EXPIRED at once, and replaced where the pool says so."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Final
from uuid import UUID

from app import ids
from app.api.context import Viewer
from app.coupons.recycle import recycle
from app.coupons.rows import JOIN_CODE, PoolRow, WholeCodeRow
from app.storage.database import Tx
from app.storage.statements import columns, statement
from app.storage.wallet_versions import ChangeRow, raise_wallets, ring_wallet


class EndedRow(WholeCodeRow, ChangeRow):
    """A code that came back and expired."""


#: Whether a row of `code` is past its own end or that of its pool `p`; `has_ended` is the same in Python.
HAS_ENDED: Final = "(least(code.expires_at, p.ends_at) <= now() OR p.status = 'ARCHIVED')"
END: Final = statement(
    EndedRow,
    f"""
WITH c AS (
    UPDATE code SET state = 'EXPIRED' FROM pool p
    WHERE code.merchant_id = :merchant_id AND code.id = ANY(:code_ids::uuid[]) AND code.state = 'ALLOCATED'
        AND p.merchant_id = :merchant_id AND p.id = code.pool_id
        AND {HAS_ENDED}
    RETURNING code.*
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT :merchant_id, pool_id, gen_random_uuid(), 0, -count(*), 0, count(*), 0 FROM c GROUP BY pool_id
), changed AS (
    SELECT (:event_ids::uuid[])[row_number() OVER (ORDER BY id)] AS event_id, id AS subject_id, member_id,
        NULL::bytea AS reason
    FROM c
), {raise_wallets("code.expired")}
SELECT {columns(WholeCodeRow)}, {columns(ChangeRow)} FROM c {JOIN_CODE} JOIN recorded ev ON ev.subject_id = c.id
""",
)


def has_ended(row: WholeCodeRow, now: datetime) -> bool:
    """Whether a code is past its own end or that of its pool."""
    ends = [end for end in (row["code_expires_at"], row["pool_ends_at"]) if end is not None]
    return is_archived(row) or any(end <= now for end in ends)


def is_archived(row: PoolRow) -> bool:
    """Whether a pool is closed for good."""
    return row["pool_status"] == "ARCHIVED"


async def end_returned(tx: Tx, viewer: Viewer, code_ids: Iterable[UUID]) -> list[EndedRow]:
    """Let those of the codes expire that have just come back past their end, in their return's transaction."""
    returned = sorted(code_ids)
    if not returned:
        return []
    rows = await tx.rows(
        END,
        merchant_id=viewer.merchant_id,
        code_ids=returned,
        event_ids=[ids.new() for _ in returned],
        actor=viewer.actor,
    )
    for row in rows:
        ring_wallet(tx, viewer.merchant_id, row)
    places = Counter(
        (row["pool_id"], row["pool_kind"], row["pool_code_pattern"])
        for row in rows
        if row["pool_recycle_expired"] and not is_archived(row)
    )
    for (pool_id, kind, pattern), count in sorted(places.items()):
        await recycle(tx, viewer.tenant.keys, pool_id, kind, pattern, count=count, actor=viewer.actor)
    return rows
