"""The feed. Without these an event could become no delivery, or two, when transactions end in another order."""

import asyncio
import contextlib
import json
import os
import random
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from app import ids
from app.storage import events
from app.storage.database import database, transaction
from app.webhooks import feed
from app.webhooks.deliveries import HOLD_ALONE
from app.webhooks.disable_webhook import disable
from app.webhooks.feed import make_deliveries
from app.webhooks.forget_deliveries import forget_batch
from app.webhooks.types import WebhookDisabledReason
from tests.factories import Shop
from tests.webhooks.documents import DISABLE, ENABLE, deliver, deliveries, happen, hook
from tests.webhooks.receiver import receiving

NOWHERE = "https://nowhere.invalid/"
WAITING = """
SELECT subject_id, state, next_attempt_at IS NOT NULL AS has_turn FROM webhook_delivery
WHERE merchant_id = $1 ORDER BY position
"""
MANY_EVENTS = """
INSERT INTO event (merchant_id, id, type, subject_kind, subject_id, actor, occurred_at)
SELECT $1, gen_random_uuid(), 'pool.edited', 'pool', gen_random_uuid(), 'system', now() FROM generate_series(1, 100)
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

    # The first of them saw the webhook's own event too, of which it isn't told; the last one goes on behind the window.
    assert steps == [(3, False), (4, False), (4, False), (4, False), (2, True)]
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


# -------------------------------------------------------------------------------- what a disabled webhook isn't told of


@pytest.mark.parametrize("is_behind", [True, False], ids=["the feed is behind", "the feed has caught up"])
async def test_what_happened_before_a_webhook_was_disabled_is_told_when_it_is_enabled(
    shop: Shop, is_behind: bool
) -> None:
    webhook = await hook(shop, NOWHERE, "pool.edited")
    before = [await _record(shop) for _ in range(3)]
    if not is_behind:
        await make_deliveries()
    await shop.do(DISABLE, webhookId=webhook["id"])
    for _ in range(3):
        await _record(shop)
    await shop.do(ENABLE, webhookId=webhook["id"])
    after = [await _record(shop) for _ in range(3)]
    await make_deliveries()

    assert await _subjects(shop, webhook) == before + after


@pytest.mark.parametrize("is_behind", [True, False], ids=["the feed is behind", "the feed has caught up"])
async def test_what_was_under_way_when_a_webhook_was_disabled_counts_as_before(shop: Shop, is_behind: bool) -> None:
    webhook = await hook(shop, NOWHERE, "pool.edited")
    async with contextlib.AsyncExitStack() as stack:
        early, ends_early = await stack.enter_async_context(_under_way(shop))
        late, ends_late = await stack.enter_async_context(_under_way(shop))
        _, undone = await stack.enter_async_context(_under_way(shop))
        before = await _record(shop)
        # No snapshot lists this one among those that are under way, because none after it has ended.
        latest, ends_latest = await stack.enter_async_context(_under_way(shop))
        if not is_behind:
            await make_deliveries()
        await shop.do(DISABLE, webhookId=webhook["id"])
        _, meanwhile = await stack.enter_async_context(_under_way(shop))
        through, ends_through = await stack.enter_async_context(_under_way(shop))
        for connection, end in ((ends_early, "COMMIT"), (undone, "ROLLBACK"), (meanwhile, "COMMIT")):
            await connection.execute(end)
        await make_deliveries()
        await shop.do(ENABLE, webhookId=webhook["id"])
        if not is_behind:
            await make_deliveries()
        await ends_late.execute("COMMIT")
        await ends_latest.execute("COMMIT")
        await ends_through.execute("COMMIT")
    after = await _record(shop)
    await make_deliveries()

    # All but what began and ended while it was disabled, and what never was.
    assert sorted(await _subjects(shop, webhook)) == sorted([early, late, before, latest, through, after])


async def test_a_webhook_may_be_disabled_within_a_window_that_takes_many_steps(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = await hook(shop, NOWHERE, "pool.edited")
    row_id = ids.decode("webhook", webhook["id"])
    assert row_id is not None
    monkeypatch.setattr(feed, "BATCH", 4)
    expected = [await _record(shop) for _ in range(10)]
    first = await feed._step(shop.merchant_id, row_id)
    for _ in range(2):
        expected.append(await _record(shop))
        await shop.do(DISABLE, webhookId=webhook["id"])
        while_disabled = await feed._step(shop.merchant_id, row_id)
        await _record(shop)
        await shop.do(ENABLE, webhookId=webhook["id"])
    expected.append(await _record(shop))
    while await make_deliveries() != (0, False):
        pass

    assert (first, while_disabled) == ((3, False), None)
    assert await _subjects(shop, webhook) == expected


async def test_a_webhook_that_the_worker_disables_is_told_of_what_was_before_and_not_of_its_own_end(
    shop: Shop,
) -> None:
    webhook, other = await hook(shop, NOWHERE), await hook(shop, NOWHERE, "webhook.disabled")
    row_id = ids.decode("webhook", webhook["id"])
    assert row_id is not None
    async with _under_way(shop) as (slow, connection):
        before = await _record(shop)
        async with transaction(shop.merchant_id) as tx:
            # As a worker does, which ends the delivery first: others begin and end before it disables the webhook.
            await tx.row(HOLD_ALONE, merchant_id=shop.merchant_id, webhook_id=row_id)
            await shop.member()
            await disable(tx, shop.merchant_id, row_id, WebhookDisabledReason.GONE, "system")
        await connection.execute("COMMIT")
    await _record(shop)
    await shop.do(ENABLE, webhookId=webhook["id"])
    await make_deliveries()

    told = [(each["eventType"], each["subjectId"]) for each in await deliveries(shop, webhook)]
    assert told == [
        ("webhook.created", webhook["id"]), ("webhook.created", other["id"]), ("pool.edited", slow),
        ("pool.edited", before), ("webhook.enabled", webhook["id"]),
    ]  # fmt: skip
    assert [each["subjectId"] for each in await deliveries(shop, other)] == [webhook["id"]]


@pytest.mark.parametrize("turn", range(4))
async def test_whenever_a_webhook_is_disabled_it_misses_what_began_and_ended_meanwhile_and_nothing_else(
    shop: Shop, turn: int
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    webhook = await hook(shop, NOWHERE, "pool.edited")
    expected: list[str] = []
    period, is_disabled = 0, False
    async with contextlib.AsyncExitStack() as stack:
        #: The event, the connection, and the period of disabling in which it was written.
        under_way: list[tuple[str, asyncpg.Connection, int | None]] = []
        for _ in range(60):
            match dice.choice(("open", "open", "end", "end", "end", "undo", "turn", "turn", "feed")):
                case "open" if len(under_way) < 6:
                    subject, connection = await stack.enter_async_context(_under_way(shop))
                    under_way.append((subject, connection, period if is_disabled else None))
                case "end" | "undo" as how if under_way:
                    subject, connection, written_in = under_way.pop(dice.randrange(len(under_way)))
                    await connection.execute("COMMIT" if how == "end" else "ROLLBACK")
                    if how == "end" and not (is_disabled and written_in == period):
                        expected.append(subject)
                case "turn":
                    await shop.do(ENABLE if is_disabled else DISABLE, webhookId=webhook["id"])
                    is_disabled = not is_disabled
                    period += is_disabled
                case "feed":
                    await make_deliveries()
    if is_disabled:
        await shop.do(ENABLE, webhookId=webhook["id"])
    await make_deliveries()

    rows = await database().rows("SELECT subject_id FROM webhook_delivery WHERE merchant_id = $1", shop.merchant_id)
    assert sorted(ids.encode("pool", row["subject_id"]) for row in rows) == sorted(expected)
    # What is skipped is forgotten as soon as the feed is past it.
    row = await database().row("SELECT skipped FROM webhook WHERE merchant_id = $1", shop.merchant_id)
    assert row is not None
    assert row["skipped"] == "{}"


async def test_a_webhook_that_was_disabled_for_long_is_enabled_without_a_look_at_what_it_missed(shop: Shop) -> None:
    webhook = await hook(shop, NOWHERE, "pool.edited")
    row_id = ids.decode("webhook", webhook["id"])
    before = await _record(shop)
    await shop.do(DISABLE, webhookId=webhook["id"])
    for _ in range(20):
        async with transaction(None) as tx:
            await tx.rows(MANY_EVENTS, shop.merchant_id)
    await database().rows("ANALYZE event")
    await shop.do(ENABLE, webhookId=webhook["id"])
    after = await _record(shop)
    values: dict[str, object] = {"merchant_id": shop.merchant_id, "webhook_id": row_id, "batch": 1000}
    values["delivery_ids"] = [ids.new() for _ in range(1000)]

    (plan,) = await database().rows(f"EXPLAIN (ANALYZE, FORMAT JSON) {feed.STEP.text}", *feed.STEP.arguments(values))

    assert _rows_read(json.loads(plan["QUERY PLAN"])[0]["Plan"], "event") <= 10
    assert await _subjects(shop, webhook) == [before, after]


def _rows_read(plan: dict[str, Any], table: str) -> float:
    """Return how many rows of a table the nodes of a plan looked at."""
    is_of_it = plan.get("Relation Name") == table
    own = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"] if is_of_it else 0
    return float(own) + sum(_rows_read(each, table) for each in plan.get("Plans", []))


async def test_where_a_dump_was_restored_a_webhook_that_was_disabled_begins_anew(shop: Shop) -> None:
    webhook = await hook(shop, NOWHERE)
    await shop.do(DISABLE, webhookId=webhook["id"])
    await database().row(
        "UPDATE webhook SET feed_from = '9000000000:9000000001:9000000000', skipped = '{[9000000002,)}' "
        "WHERE merchant_id = $1",
        shop.merchant_id,
    )
    await shop.do(ENABLE, webhookId=webhook["id"])
    told = await _record(shop)
    await make_deliveries()

    assert [each["subjectId"] for each in await deliveries(shop, webhook)] == [webhook["id"], told]


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
    return UUID(int=row_id.int - (days * 86_400_000 << 80))
