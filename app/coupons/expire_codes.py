"""Expiry: allocated codes past their end or their pool's become EXPIRED; those of pools that go on are replaced."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypedDict
from uuid import UUID

from app import ids
from app.coupons.recycle import recycle_each
from app.coupons.rows import IS_HELD, IS_OVER, IS_OVER_FOR, JOIN_CODE, WholeCodeRow
from app.merchants.tenants import tenant
from app.storage.database import database, transaction
from app.storage.fences import stands
from app.storage.news import News
from app.storage.statements import columns, statement
from app.storage.wallet_versions import ChangeRow, raise_wallets, ring_wallet

BATCH: Final = 500
#: Of the codes that are past an end of their own a run finds the merchants of so many; the next run finds others.
FOUND_MAX: Final = 50_000


class _MerchantRow(TypedDict):
    merchant_id: UUID


class ExpiredRow(WholeCodeRow, ChangeRow):
    """A code that expired, and whether a fresh one takes its place."""

    recycled: bool


# Codes with an end of their own are found in the order of their ends, whatever the merchant: what isn't due isn't
# looked at.
_DUE: Final = f"""
SELECT merchant_id FROM (
    SELECT merchant_id FROM code c
    WHERE state IN ('AVAILABLE', 'ALLOCATED') AND expires_at <= now() AND NOT {IS_HELD} AND {stands("c")}
    ORDER BY expires_at LIMIT {FOUND_MAX}
) due GROUP BY merchant_id
"""
#: Whether the pool `p` has a code that dies with it.
_HAS_DUE: Final = f"""
EXISTS (
    SELECT FROM code c
    WHERE c.merchant_id = p.merchant_id AND c.pool_id = p.id AND c.state = 'ALLOCATED' AND {IS_OVER_FOR.format("c")}
        AND NOT {IS_HELD}
)
"""
FIND: Final = statement(
    _MerchantRow,
    f"{_DUE} UNION SELECT p.merchant_id FROM pool p WHERE {IS_OVER} AND {_HAS_DUE} AND {stands('p')}",
)
# Of pools those that ended lately, and those of merchants that archived one since `:since`.
FIND_SINCE: Final = statement(
    _MerchantRow,
    f"""
{_DUE}
UNION
SELECT p.merchant_id FROM pool p
WHERE p.ends_at > now() - interval '1 day' AND p.ends_at <= now() AND {_HAS_DUE} AND {stands("p")}
UNION
SELECT merchant_id FROM event e WHERE txid + 0 >= :since AND type = 'pool.archived' AND {stands("e")}
""",
)
#: How often pools that ended long ago are looked at, too: a hold may have kept a code of theirs alive since.
LOOK_AT_ALL_SECONDS: Final = 3600.0

_news: Final = News(all_seconds=LOOK_AT_ALL_SECONDS)


async def expire_codes() -> int:
    """Expire all codes that are due, a batch per transaction. Returns how many. Safe to run twice and at once."""
    expired = 0
    look = await _news.look()
    if look.since is None:
        found = await database().rows(FIND)
    else:
        found = await database().rows(FIND_SINCE, since=look.since)
    for row in found:
        expired += await expire_codes_of(row["merchant_id"])
    _news.seen(look)
    return expired


_ZERO: Final = "'00000000-0000-0000-0000-000000000000'::uuid"
#: The code of a pool, a row of {}, behind which a batch looks.
_FIRST_CODE: Final = f"coalesce(CASE WHEN {{}}.id = :pool_id::uuid THEN :code_id::uuid END, {_ZERO})"
EXPIRE: Final = statement(
    ExpiredRow,
    f"""
WITH over AS (
    -- Pools whose codes are dead. An edit that gives one a later end waits for this, and has revived what expired.
    SELECT id, status = 'ARCHIVED' AS is_archived FROM pool p
    WHERE merchant_id = :merchant_id AND {IS_OVER} AND EXISTS (
        SELECT FROM code c
        WHERE merchant_id = :merchant_id AND pool_id = p.id AND state = 'ALLOCATED' AND {IS_OVER_FOR.format("c")}
            AND NOT {IS_HELD} AND c.id > {_FIRST_CODE.format("p")}
    ) AND id >= coalesce(:pool_id::uuid, {_ZERO})
    ORDER BY id LIMIT cardinality(:event_ids::uuid[]) FOR SHARE
), ended AS (
    -- Stock that was imported may have an end of its own, too. What is held doesn't end before its hold.
    SELECT id FROM code c
    WHERE merchant_id = :merchant_id AND state IN ('AVAILABLE', 'ALLOCATED') AND expires_at <= now() AND NOT {IS_HELD}
        AND expires_at >= coalesce(:ended_at::timestamptz, '-infinity')
    ORDER BY expires_at LIMIT cardinality(:event_ids::uuid[])
), found AS (
    -- As many as a batch takes, and not as many of each pool.
    SELECT id FROM ended
    UNION
    (SELECT each.id FROM over CROSS JOIN LATERAL (
        SELECT id FROM code c
        WHERE merchant_id = :merchant_id AND pool_id = over.id AND state = 'ALLOCATED'
            AND (over.is_archived OR NOT outlives_pool) AND NOT {IS_HELD} AND id > {_FIRST_CODE.format("over")}
        ORDER BY id LIMIT cardinality(:event_ids::uuid[])
     ) each LIMIT cardinality(:event_ids::uuid[]) - (SELECT count(*) FROM ended))
), due AS (
    -- Without codes that are being redeemed or revoked right now: they come up again, in whatever state they are then.
    SELECT id FROM code c
    WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(SELECT id FROM found))
        AND state IN ('AVAILABLE', 'ALLOCATED') AND NOT {IS_HELD}
        AND (expires_at <= now() OR (state = 'ALLOCATED' AND (
            pool_id = ANY(ARRAY(SELECT id FROM over WHERE is_archived))
            OR (NOT outlives_pool AND pool_id = ANY(ARRAY(SELECT id FROM over)))
        )))
    ORDER BY id LIMIT cardinality(:event_ids::uuid[]) FOR UPDATE SKIP LOCKED
), c AS (
    UPDATE code SET state = 'EXPIRED', died_with_pool = NOT coalesce(expires_at <= now(), false)
    WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(SELECT id FROM due))
    RETURNING new.*, old.state AS state_before
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT :merchant_id, pool_id, gen_random_uuid(), -count(*) FILTER (WHERE state_before = 'AVAILABLE'),
        -count(*) FILTER (WHERE state_before = 'ALLOCATED'), 0, count(*), 0
    FROM c GROUP BY pool_id
), changed AS (
    SELECT (:event_ids::uuid[])[row_number() OVER (ORDER BY id)] AS event_id, id AS subject_id, member_id,
        NULL::bytea AS reason
    FROM c
), {raise_wallets("code.expired", actor="'system'")}
SELECT {columns(WholeCodeRow)}, {columns(ChangeRow)},
    p.recycle_expired AND c.state_before = 'ALLOCATED' AND NOT {IS_OVER} AS recycled
FROM c {JOIN_CODE} JOIN recorded ev ON ev.subject_id = c.id
""",
)


@dataclass(slots=True)
class Place:
    """How far a run has come among the codes of a merchant: in the order of their ends, and of their pools and ids.

    A hint, so that a batch doesn't look at what the batches before have expired: as long as an old snapshot is open,
    that stands in each index, and the last of many batches would look at all of it.
    """

    ended_at: datetime | None = None
    pool_id: UUID | None = None
    code_id: UUID | None = None

    def move(self, rows: list[ExpiredRow]) -> None:
        """Move behind codes that expired."""
        now = datetime.now(UTC)
        ends = [row["code_expires_at"] for row in rows if row["code_expires_at"] is not None]
        self.ended_at = max((end for end in ends if end <= now), default=self.ended_at)
        with_pool = [
            (row["pool_id"], row["code_id"])
            for row in rows
            if row["code_expires_at"] is None or row["code_expires_at"] > now
        ]
        self.pool_id, self.code_id = max(with_pool, default=(self.pool_id, self.code_id))


async def expire_codes_of(merchant_id: UUID) -> int:
    """Expire all codes of a merchant that are due, but for those that others have at this moment. Returns how many."""
    expired, place = 0, Place()
    while True:
        if batch := await expire_batch(merchant_id, place):
            expired += batch
        elif place == Place():
            return expired
        else:
            # What others had when the run passed it.
            place = Place()


async def expire_batch(merchant_id: UUID, place: Place | None = None) -> int:
    """Expire up to BATCH codes of a merchant behind a place, which moves, in one transaction, recycling included."""
    place = place or Place()
    owner = await tenant(merchant_id)
    if owner is None:
        return 0
    async with transaction(merchant_id) as tx:
        rows = await tx.rows(
            EXPIRE,
            merchant_id=merchant_id,
            event_ids=[ids.new() for _ in range(BATCH)],
            ended_at=place.ended_at,
            pool_id=place.pool_id,
            code_id=place.code_id,
        )
        for row in rows:
            ring_wallet(tx, merchant_id, row)
        places = [(row["pool_id"], row["pool_kind"], row["pool_code_pattern"]) for row in rows if row["recycled"]]
        await recycle_each(tx, owner.keys, places, actor="system")
    place.move(rows)
    return len(rows)
