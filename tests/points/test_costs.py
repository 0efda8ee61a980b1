"""What points cost the database. Without these a long history could make a wallet slow, and only load would tell."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from app import ids
from app.points import rows
from app.points.ledger import CREDIT, DEBIT
from app.points.liability import LIABILITY
from app.points.take_back import FIND_CREDITED, FIND_SHORT, PICK
from app.storage.database import database
from app.storage.statements import Statement
from bench.points_buffers import add_history, touched_by
from tests.factories import Shop
from tests.points.documents import broken, member_uuid, purchase, refund

MANY = 5_000
LAST = UUID(int=2**128 - 1)
INSTANT = datetime(9999, 1, 1, tzinfo=UTC)


async def buffers(asked: Statement[Any], **values: object) -> int:
    """Return how many buffers a statement touches; what it changes is changed."""
    explained = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {asked.text}"
    row = await database().row(explained, *asked.arguments(values))
    assert row is not None
    return touched_by(json.loads(row["QUERY PLAN"])[0]["Plan"])


async def history(shop: Shop, length: int) -> Any:
    """Return a member with so many entries."""
    member = await shop.member()
    await add_history(shop.merchant_id, member_uuid(member), length)
    return member


async def test_a_long_history_costs_what_a_short_one_does(shop: Shop) -> None:
    short, long = await history(shop, 10), await history(shop, MANY)

    async def page(member: Any) -> int:
        return await buffers(
            rows.ENTRIES_OF_MEMBERS,
            merchant_id=shop.merchant_id,
            member_ids=[member_uuid(member)],
            instant=INSTANT,
            before=LAST,
            limit=11,
        )

    async def post(asked: Statement[Any], member: Any, amount: int, **more: object) -> int:
        return await buffers(
            asked,
            merchant_id=shop.merchant_id,
            member_id=member_uuid(member),
            entry_id=ids.new(),
            amount=amount,
            reason="ADJUSTMENT",
            origin=ids.new().hex,
            reference=None,
            told_reference=None,
            reference_index=None,
            told_of=None,
            event_id=ids.new(),
            actor="system",
            **more,
        )

    async def credit(member: Any) -> int:
        return await post(CREDIT, member, 1, spendable_at=None, expires_at=None)

    for each in (short, long):
        await page(each)
        await credit(each)
        await post(DEBIT, each, 1)
    pages = [await page(each) for each in (short, long)]
    given = [await credit(each) for each in (short, long)]
    debits = [[await post(DEBIT, each, amount) for amount in (1, 5)] for each in (short, long)]
    print(f"buffers: a page {pages}, a credit {given}, debits of one lot and of five {debits}")

    # Because an index of many rows is deeper than one of few; the histories differ 500 times.
    assert pages[1] <= pages[0] * 2
    assert given[1] <= given[0] * 1.3
    assert all(costs[1] <= costs[0] * 1.3 for costs in zip(*debits, strict=True))


async def test_a_refund_costs_the_same_after_a_long_history(shop: Shop) -> None:
    members = [await history(shop, length) for length in (10, MANY)]

    async def read(number: int, member: Any) -> list[int]:
        bought = await purchase(shop, member, f"o-{number}", 300)
        credited = [bought["purchase"]["id"].removeprefix("purchase_")]
        await refund(shop, f"o-{number}", "r-1", 100)
        who = {"merchant_id": shop.merchant_id, "member_id": member_uuid(member)}
        return [
            await buffers(FIND_CREDITED, merchant_id=shop.merchant_id, reason="PURCHASE", origins=credited),
            await buffers(PICK, **who, amount=5, besides=[], before=None),
            await buffers(FIND_SHORT, **who),
        ]

    for number, member in enumerate(members):
        await read(number, member)
    short, long = [await read(number, member) for number, member in enumerate(members, start=2)]
    print(f"buffers: the lots of a purchase, five others, what is lacking {short}, after 5,000 entries {long}")

    assert all(after <= before * 1.5 for before, after in zip(short, long, strict=True))


async def test_the_liability_reads_wallets_and_what_came_after(shop: Shop) -> None:
    await history(shop, 1000)

    now = await buffers(LIABILITY, merchant_id=shop.merchant_id, as_of=None)
    past = await buffers(LIABILITY, merchant_id=shop.merchant_id, as_of=datetime(2001, 1, 1, tzinfo=UTC))
    print(f"buffers: liability now {now}, as of a time before 1,000 entries {past}")

    assert now < 100
    assert past < 3 * 1000


async def test_a_history_made_in_bulk_is_a_ledger(shop: Shop) -> None:
    """What the two tests above measure on must be what the ledger would have written, but for its events."""
    await history(shop, 10)

    assert {kind for kind, _ in await broken(shop)} == {"event"}
