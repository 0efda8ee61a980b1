"""The feed. Without these an event could become no delivery, or two, when transactions end in another order."""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from app import ids
from app.storage import events
from app.storage.database import database, transaction
from app.webhooks import feed
from app.webhooks.feed import make_deliveries
from app.webhooks.forget_deliveries import forget_batch
from tests.factories import Shop
from tests.webhooks.documents import DISABLE, ENABLE, deliver, deliveries, happen, hook
from tests.webhooks.receiver import receiving

NOWHERE = "https://nowhere.invalid/"
WAITING = """
SELECT subject_id, state, next_attempt_at IS NOT NULL AS has_turn FROM webhook_delivery
WHERE merchant_id = $1 ORDER BY position
"""


async def _record(shop: Shop, subject: Any = None, where: Any = None) -> str:
    """Write an event of a made-up pool, in a transaction of its own unless told; return its subject's id."""
    subject = subject or ids.new()
    if where is not None:
        await events.record(where, shop.merchant_id, "pool.edited", subject, "system")
    else:
        async with transaction(None) as tx:
            await events.record(tx, shop.merchant_id, "pool.edited", subject, "system")
    return ids.encode("pool", subject)


@contextlib.asynccontextmanager
async def _under_way(shop: Shop) -> AsyncIterator[tuple[str, asyncpg.Connection]]:
    """Write an event on a connection of its own, in a transaction that is the test's to end."""
    subject = ids.new()
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    try:
        await connection.execute("BEGIN")
        values = {
            "merchant_id": shop.merchant_id,
            "event_id": ids.new(),
            "type": "pool.edited",
            "subject_kind": "pool",
            "subject_id": subject,
            "actor": "system",
        }
        await connection.execute(events.RECORD.text, *events.RECORD.arguments(values))
        yield ids.encode("pool", subject), connection
    finally:
        await connection.close()


async def _subjects(shop: Shop, webhook: Any) -> list[str]:
    return [each["subjectId"] for each in await deliveries(shop, webhook) if each["eventType"] == "pool.edited"]


async def test_an_event_that_is_committed_late_is_told_late_and_delays_nobody(shop: Shop) -> None:
    async with receiving() as receiver, contextlib.AsyncExitStack() as stack:
        await hook(shop, receiver.url, "pool.edited")
        late, slow = await stack.enter_async_context(_under_way(shop))
        later, slower = await stack.enter_async_context(_under_way(shop))
        first = [await _record(shop) for _ in range(3)]
        await deliver(shop)
        while_open = [each["data"]["subjectId"] for each in receiver.told()]
        # Both ways of being new: of a transaction that was under way, and of one that has begun since.
        second = await _record(shop)
        await slow.execute("COMMIT")
        await deliver(shop)
        after_one = [each["data"]["subjectId"] for each in receiver.told()]
        await slower.execute("COMMIT")
        await deliver(shop)
        everything = [each["data"]["subjectId"] for each in receiver.told()]

    assert sorted(while_open) == sorted(first)
    assert sorted(after_one) == sorted([*first, second, late])
    assert sorted(everything) == sorted([*first, second, late, later])


async def test_what_is_rolled_back_is_never_told(shop: Shop) -> None:
    webhook = await hook(shop, NOWHERE, "pool.edited")
    async with _under_way(shop) as (_, undone):
        await make_deliveries()
        await undone.execute("ROLLBACK")
    told = await _record(shop)
    await make_deliveries()

    assert await _subjects(shop, webhook) == [told]


async def test_only_events_of_its_types_and_its_merchant_and_of_its_time_are_told(shop: Shop, other_shop: Shop) -> None:
    await _record(shop)
    webhook, picky = await hook(shop, NOWHERE), await hook(shop, NOWHERE, "pool.edited")
    told = await _record(shop)
    await _record(other_shop)
    member = await shop.member()
    await make_deliveries()
    for each in (webhook, picky):
        await shop.do(DISABLE, webhookId=each["id"])
    await _record(shop)
    await make_deliveries()
    for each in (webhook, picky):
        await shop.do(ENABLE, webhookId=each["id"])
    again = await _record(shop)
    await make_deliveries()

    assert await _subjects(shop, picky) == [told, again]
    assert [each["eventType"] for each in await deliveries(shop, webhook)] == [
        "webhook.created", "webhook.created", "pool.edited", "member.enrolled",
        "webhook.enabled", "webhook.enabled", "pool.edited",
    ]  # fmt: skip
    assert member["id"] in {each["subjectId"] for each in await deliveries(shop, webhook)}
    assert await _subjects(shop, webhook) == [told, again]
    assert await deliveries(other_shop) == []


async def test_nobody_subscribed_is_nothing_written(shop: Shop) -> None:
    webhook = await hook(shop, NOWHERE)
    await shop.do(DISABLE, webhookId=webhook["id"])
    await happen(shop, 4)
    before = await shop.state()

    await make_deliveries()

    assert await shop.state() == before
    assert await shop.count("webhook_delivery") == 0


async def test_a_window_is_taken_in_steps_and_what_is_committed_meanwhile_comes_after_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = await hook(shop, NOWHERE, "pool.edited")
    row_id = ids.decode("webhook", webhook["id"])
    assert row_id is not None
    monkeypatch.setattr(feed, "BATCH", 4)
    subjects = [ids.new() for _ in range(3)]
    expected = [await _record(shop, subjects[turn % 3]) for turn in range(6)]
    async with transaction(None) as tx:
        # One transaction that is larger than a step.
        expected += [await _record(shop, subjects[turn % 3], tx) for turn in range(9)]
    steps = [await feed._step(shop.merchant_id, row_id)]
    late = [await _record(shop, subjects[0]) for _ in range(2)]
    while steps[-1] is not None and not steps[-1][1]:
        steps.append(await feed._step(shop.merchant_id, row_id))
    first_window = await _subjects(shop, webhook)
    await make_deliveries()

    # The first of them saw the webhook's own event too, of which it isn't told.
    assert steps == [(3, False), (4, False), (4, False), (4, False), (0, True)]
    assert first_window == expected
    assert await _subjects(shop, webhook) == expected + late
    rows = await database().rows(WAITING, shop.merchant_id)
    assert [row["has_turn"] for row in rows] == [True] * 3 + [False] * 14


async def test_steps_that_take_long_are_taken_one_by_one(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    webhooks = [await hook(shop, NOWHERE, "pool.edited") for _ in range(3)]
    told = await _record(shop)
    monkeypatch.setattr(feed, "SECONDS_MAX", 0.0)

    assert [await make_deliveries() for _ in range(4)] == [(1, True), (1, True), (1, False), (0, False)]
    assert [await _subjects(shop, webhook) for webhook in webhooks] == [[told]] * 3


async def test_feeds_at_once_beside_writers_make_each_event_one_delivery_in_order(shop: Shop) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    webhook = await hook(shop, NOWHERE, "pool.edited")
    subjects = [ids.new() for _ in range(5)]
    turns = {subject: asyncio.Lock() for subject in subjects}
    happened: dict[str, int] = {}

    async def write(subject: Any) -> None:
        # As verbs do, who changes a subject has it to itself until its commit.
        async with turns[subject], transaction(None) as tx:
            if dice.random() < 0.3:
                await tx.row("SELECT pg_sleep(0.02)")
            name = await _record(shop, subject, tx)
            happened[name] = happened.get(name, 0) + 1

    writers = [asyncio.create_task(write(dice.choice(subjects))) for _ in range(120)]
    while not all(writer.done() for writer in writers):
        await asyncio.gather(make_deliveries(), make_deliveries())
    await asyncio.gather(*writers)
    await make_deliveries()

    rows = await database().rows(
        """
        SELECT d.subject_id, d.event_id FROM webhook_delivery d WHERE d.merchant_id = $1 ORDER BY d.position
        """,
        shop.merchant_id,
    )
    assert len(rows) == len({row["event_id"] for row in rows}) == 120
    for name, count in happened.items():
        told = [row["event_id"] for row in rows if ids.encode("pool", row["subject_id"]) == name]
        assert told == sorted(told)
        assert len(told) == count
    assert (await deliveries(shop, webhook, "DELIVERED")) == []


async def test_where_a_dump_was_restored_a_feed_begins_anew(shop: Shop) -> None:
    webhook = await hook(shop, NOWHERE, "pool.edited")
    await database().row(
        "UPDATE webhook SET feed_from = '9000000000:9000000001:9000000000' WHERE merchant_id = $1", shop.merchant_id
    )
    await make_deliveries()
    told = await _record(shop)
    await make_deliveries()

    assert await _subjects(shop, webhook) == [told]


async def test_deliveries_that_ended_long_ago_go_and_others_stay(shop: Shop) -> None:
    webhook = await hook(shop, NOWHERE)
    for _ in range(5):
        await _record(shop)
    await make_deliveries()
    made = [ids.decode("webhookdelivery", each["id"]) for each in await deliveries(shop, webhook)]
    ages = [("DELIVERED", 8), ("DELIVERED", 6), ("DEAD", 31), ("DEAD", 29)]
    for turn, (state, days) in enumerate(ages):
        # Ids tell when they were made: these are of forty days ago.
        aged = _aged(made[turn], 40)
        await database().row(
            """
            UPDATE webhook_delivery SET id = $3, state = $4, settled_at = now() - make_interval(days => $5),
                next_attempt_at = NULL
            WHERE merchant_id = $1 AND id = $2
            """,
            shop.merchant_id, made[turn], aged, state, days,
        )  # fmt: skip
    await database().row(
        "UPDATE webhook SET previous_secret = secret, previous_secret_until = now() - interval '1 s' "
        "WHERE merchant_id = $1",
        shop.merchant_id,
    )

    while await forget_batch():
        pass

    assert [each["state"] for each in await deliveries(shop, webhook)] == ["DELIVERED", "DEAD", "PENDING", "PENDING"]
    row = await database().row("SELECT previous_secret FROM webhook WHERE merchant_id = $1", shop.merchant_id)
    assert row is not None
    assert row["previous_secret"] is None


def _aged(row_id: Any, days: int) -> Any:
    return type(row_id)(int=row_id.int - (days * 86_400_000 << 80))
