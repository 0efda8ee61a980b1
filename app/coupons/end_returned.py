"""Codes that come back past their end: they expire at once, and are replaced where the pool goes on and says so."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final
from uuid import UUID

from app import ids
from app.api.context import Viewer
from app.coupons.recycle import recycle_each
from app.coupons.rows import IS_OVER, IS_OVER_FOR, JOIN_CODE, WholeCodeRow, end_of
from app.storage.database import Tx
from app.storage.statements import columns, statement
from app.storage.wallet_versions import ChangeRow, raise_wallets, ring_wallet


class EndedRow(WholeCodeRow, ChangeRow):
    """A code that came back and expired, and whether a fresh one takes its place."""

    recycled: bool


#: Whether a row of `code` is past its own end or that of its pool `p`; `has_ended` is the same in Python.
HAS_ENDED: Final = f"(coalesce(code.expires_at <= now(), false) OR {IS_OVER_FOR.format('code')})"
END: Final = statement(
    EndedRow,
    f"""
WITH over AS (
    -- Pools whose codes are dead. An edit that gives one a later end waits for this, and has revived what expired.
    SELECT id, status = 'ARCHIVED' AS is_archived FROM pool p
    WHERE merchant_id = :merchant_id AND {IS_OVER} AND id = ANY(ARRAY(
        SELECT pool_id FROM code WHERE merchant_id = :merchant_id AND id = ANY(:code_ids::uuid[])
    ))
    ORDER BY id FOR SHARE
), c AS (
    UPDATE code SET state = 'EXPIRED', died_with_pool = NOT coalesce(expires_at <= now(), false)
    WHERE merchant_id = :merchant_id AND id = ANY(:code_ids::uuid[]) AND state = 'ALLOCATED'
        AND (expires_at <= now() OR pool_id = ANY(ARRAY(SELECT id FROM over WHERE is_archived))
            OR (NOT outlives_pool AND pool_id = ANY(ARRAY(SELECT id FROM over))))
    RETURNING *
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT :merchant_id, pool_id, gen_random_uuid(), 0, -count(*), 0, count(*), 0 FROM c GROUP BY pool_id
), changed AS (
    SELECT (:event_ids::uuid[])[row_number() OVER (ORDER BY id)] AS event_id, id AS subject_id, member_id,
        NULL::bytea AS reason
    FROM c
), {raise_wallets("code.expired")}
SELECT {columns(WholeCodeRow)}, {columns(ChangeRow)}, p.recycle_expired AND NOT {IS_OVER} AS recycled
FROM c {JOIN_CODE} JOIN recorded ev ON ev.subject_id = c.id
""",
)


def has_ended(row: WholeCodeRow, now: datetime) -> bool:
    """Whether a code is past its own end or that of its pool."""
    end = end_of(row)
    return row["pool_status"] == "ARCHIVED" or (end is not None and end <= now)


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
    # A later end of a pool that is over revives its codes: those that took their places would be too many.
    places = [(row["pool_id"], row["pool_kind"], row["pool_code_pattern"]) for row in rows if row["recycled"]]
    await recycle_each(tx, viewer.tenant.keys, places, actor=viewer.actor)
    return rows
