"""What points cost the database. Without these a long history could make a wallet slow, and only load would tell."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from app import ids
from app.database import database
from app.points import queries
from app.points.ledger import POST
from tests.factories import Shop
from tests.points.documents import member_uuid

MANY = 100_000
LAST = UUID(int=2**128 - 1)
INSTANT = datetime(9999, 1, 1, tzinfo=UTC)
#: A history made in bulk: each entry gives a point that expires.
HISTORY = """
WITH made AS (
    INSERT INTO points_entry (merchant_id, id, member_id, amount, balance_after, reason, origin, mark, expires_at,
                              created_at)
    SELECT $1, gen_random_uuid(), $2::uuid, 1, n, 'ADJUSTMENT', $2::uuid::text || n, n, now() + interval '30 days',
        now() - make_interval(secs => $3 - n)
    FROM generate_series(1, $3::int) AS n RETURNING *
), due AS (
    INSERT INTO points_due (merchant_id, entry_id, member_id, mark, expires_at, warned)
    SELECT merchant_id, id, member_id, mark, expires_at, false FROM made
)
UPDATE wallet SET points = $3, expiring_earned = $3, expiring_until = now() + interval '30 days'
WHERE merchant_id = $1 AND member_id = $2
"""


async def buffers(sql: str, *args: object) -> int:
    """Return how many buffers a statement touches; what it changes is undone."""
    async with database()._in_transaction() as tx:
        (row,) = await tx.rows(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", *args)  # type: ignore[attr-defined]
        await tx.rollback()
    plan = json.loads(row["QUERY PLAN"])[0]["Plan"]
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


async def history(shop: Shop, length: int) -> Any:
    """Return a member with so many entries."""
    member = await shop.member()
    await database().row(HISTORY, shop.merchant_id, member_uuid(member), length)
    return member


async def test_a_wallet_with_100_000_entries_costs_what_one_with_10_does(shop: Shop) -> None:
    short, long = await history(shop, 10), await history(shop, MANY)

    async def page(member: Any) -> int:
        return await buffers(queries.ENTRIES_OF_MEMBERS, shop.merchant_id, [member_uuid(member)], INSTANT, LAST, 11)

    async def debit(member: Any, amount: int) -> int:
        arguments = (amount, "ADJUSTMENT", f"test {member['id']}", None, ids.new(), "system")
        return await buffers(POST, shop.merchant_id, member_uuid(member), ids.new(), *arguments)

    for each in (short, long):
        await page(each)
        await debit(each, -1)
    pages = [await page(short), await page(long)]
    debits = [await debit(short, -10), await debit(long, -MANY)]
    print(f"buffers: a page {pages}, a debit of everything {debits}")

    # An index of 100,000 rows is two levels deeper than one of 10, and eleven rows are looked up in it.
    assert pages[1] <= pages[0] * 2
    assert debits[1] <= debits[0] * 2


async def test_the_liability_reads_wallets_and_what_came_after(shop: Shop) -> None:
    from app.points.liability import LIABILITY

    await history(shop, 10_000)

    now, past = (
        await buffers(LIABILITY, shop.merchant_id, None),
        await buffers(LIABILITY, shop.merchant_id, datetime(2001, 1, 1, tzinfo=UTC)),
    )
    print(f"buffers: liability now {now}, as of a time before {past}")

    assert now < 50
    assert past < 10_000
