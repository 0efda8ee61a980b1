"""Webhooks: what the feed's index costs the writer of an event, and what a backlog costs the workers that send it."""

import json
import time
from statistics import median
from typing import Any
from uuid import UUID

from app import ids
from app.api.context import Viewer
from app.storage import events
from app.storage.database import database, transaction
from app.storage.statements import Statement
from app.webhooks import deliveries, feed
from app.webhooks.create_webhook import INSERT as INSERT_WEBHOOK
from app.webhooks.posting import Outcome
from app.webhooks.rows import LIST_DELIVERIES

BACKLOGS = (1_000, 100_000)
SAMPLES = 51
RECORD_MANY = """
INSERT INTO event (merchant_id, id, type, subject_kind, subject_id, actor, occurred_at)
SELECT $1, uuidv7(), 'pool.edited', 'pool', CASE WHEN n % 2 = 0 THEN gen_random_uuid() ELSE $2 END, 'bench', now()
FROM generate_series(1, $3::int) AS n
"""
LAST = UUID(int=2**128 - 1)


async def _explained(tx: Any, asked: Statement[Any], **values: object) -> int:
    """Run a statement under EXPLAIN. Returns the buffers that it hit or read."""
    sql = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON, TIMING OFF) {asked.text}"
    (row,) = await tx.many(sql, *asked.arguments(values))
    plan = json.loads(row["QUERY PLAN"])[0]["Plan"]
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


async def _events(viewer: Viewer) -> list[str]:
    """Count the buffers of recording one event beside many, with the feed's index and without."""
    await database().row(RECORD_MANY, viewer.merchant_id, ids.new(), max(BACKLOGS))
    await database().row("ANALYZE event")
    with_index = await _recorded(viewer)
    await database().row("DROP INDEX event_feed")
    without = await _recorded(viewer)
    await database().row("CREATE INDEX event_feed ON event (merchant_id, txid) WHERE txid IS NOT NULL")
    return [
        f"Recording an event beside {max(BACKLOGS):,} touches {with_index:.0f} buffers with the feed's index and",
        f"{without:.0f} without. A claim records one.",
    ]


async def _recorded(viewer: Viewer) -> float:
    counted = []
    for _ in range(SAMPLES):
        touched = await _explained(
            database(),
            events.RECORD,
            merchant_id=viewer.merchant_id,
            event_id=ids.new(),
            type="pool.edited",
            subject_kind="pool",
            subject_id=ids.new(),
            actor=viewer.actor,
        )
        counted.append(touched)
    return median(counted)


async def _webhook(viewer: Viewer) -> UUID:
    webhook_id = ids.new()
    keys = viewer.tenant.keys
    now = await database().row("SELECT pg_current_snapshot()::text AS now")
    if now is None:
        raise RuntimeError("a function returned no row")
    await database().row(
        INSERT_WEBHOOK,
        merchant_id=viewer.merchant_id,
        webhook_id=webhook_id,
        url=keys.encrypt(webhook_id, "url", "x"),
        event_types=["pool.edited"],
        secret=keys.encrypt(webhook_id, "secret", "x"),
        feed_from=now["now"],
        event_id=ids.new(),
        actor=viewer.actor,
    )
    return webhook_id


async def measure(viewer: Viewer) -> list[str]:
    """Count events with the index and without, then the statements of workers beside a small and a large backlog."""
    lines = [*await _events(viewer), ""]
    lines += ["| waiting deliveries | looking for events | taking 4 | ending one | a page | µs per delivery made |"]
    lines += ["|---:|---:|---:|---:|---:|---:|"]
    for size in BACKLOGS:
        webhook_id = await _webhook(viewer)
        await feed.make_deliveries()
        await database().row(RECORD_MANY, viewer.merchant_id, ids.new(), size)
        began = time.perf_counter()
        while (await feed.make_deliveries())[1]:
            pass
        micros = (time.perf_counter() - began) / size * 1e6
        await database().row("VACUUM (ANALYZE) webhook_delivery")
        looked = await _explained(database(), feed.FIND)
        async with transaction(None) as tx:
            taken = await _explained(
                tx, deliveries.TAKE, webhook_ids=[], rooms=[], per_webhook=4, most=4, lease_seconds=30.0
            )
        (delivery,) = await deliveries.take({}, per_webhook=1, most=1)
        async with transaction(None) as tx:
            ended = await _explained(
                tx,
                deliveries.SETTLE,
                merchant_id=delivery["merchant_id"],
                delivery_id=delivery["id"],
                attempts=delivery["attempts"],
                position=delivery["position"],
                state="DELIVERED",
                status=200,
                failure=None,
            )
        page = await _explained(
            database(),
            LIST_DELIVERIES,
            merchant_id=viewer.merchant_id,
            before=LAST,
            limit=101,
            webhook_id=webhook_id,
            states=["DEAD", "DELIVERED", "PENDING"],
        )
        lines.append(f"| {size:,} | {looked} | {taken} | {ended} | {page} | {micros:.0f} |")
        await deliveries.settle(delivery, Outcome(200))
        await database().row("DELETE FROM webhook_delivery")
        await database().row("DELETE FROM webhook")
    return lines
