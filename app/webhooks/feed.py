"""The feed: events become deliveries, each exactly once for each webhook, whatever order they are committed in.

An event may be committed after one with a higher id, so no id says what was seen. A snapshot of the database does: the
events of a step are those that this snapshot sees and the last one didn't. Which these are is known by the transaction
that wrote them (`event.txid`): one that was under way at the last snapshot, or one that began after it. What a disabled
webhook isn't told of is a set of transactions, too, which the steps skip.
"""

import logging
import time
from typing import Final, TypedDict
from uuid import UUID

from app import ids
from app.storage.database import database, transaction
from app.storage.fences import stands
from app.storage.news import News
from app.storage.statements import NoRow, statement

log = logging.getLogger("flash.webhooks")

#: How many events one step takes; what was committed since is read in steps of one window.
BATCH: Final = 1000
SECONDS_MAX: Final = 1.0
#: How often webhooks of merchants without new events are looked at, too.
LOOK_AT_ALL_SECONDS: Final = 60.0


class BehindRow(TypedDict):
    """A webhook whose merchant has an event that it may have to be told of."""

    merchant_id: UUID
    id: UUID
    now: str
    is_of_another_server: bool


# Of the webhooks that are looked at those whose merchant has an event that the webhook's snapshot doesn't see: a look
# at an index for the latest event, and one for each transaction that was under way. Ranges keep the planner to that
# index; an equality may be looked for in all events, where it believes that many have it.
_FIND: Final = f"""
SELECT w.merchant_id, w.id, pg_current_snapshot()::text AS now,
    pg_snapshot_xmax(w.feed_from::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot()) AS is_of_another_server
FROM {{}}
WHERE w.disabled_at IS NULL AND {stands("w")} AND (
    w.feed_to IS NOT NULL
    OR pg_snapshot_xmax(w.feed_from::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot())
    OR (SELECT max(e.txid) FROM event e WHERE e.merchant_id = w.merchant_id)
        >= pg_snapshot_xmax(w.feed_from::pg_snapshot)::text::bigint
    OR (
        SELECT max(late.txid) FROM pg_snapshot_xip(w.feed_from::pg_snapshot) x CROSS JOIN LATERAL (
            SELECT txid FROM event
            WHERE merchant_id = w.merchant_id AND txid >= x::text::bigint AND txid <= x::text::bigint
            ORDER BY txid LIMIT 1
        ) late
    ) IS NOT NULL
)
-- Who comes first in short time isn't always the same.
ORDER BY random()
"""
FIND: Final = statement(BehindRow, _FIND.format("webhook w"))
# Only those that are in the middle of a window, and those of merchants with events of transactions since `:since`: what
# is read are the pages of events that were written last.
FIND_SINCE: Final = statement(
    BehindRow,
    f"""
WITH news AS MATERIALIZED (
    SELECT DISTINCT merchant_id FROM event WHERE txid + 0 >= :since
)
{
        _FIND.format(
            '''(
    SELECT * FROM webhook WHERE disabled_at IS NULL AND feed_to IS NOT NULL
    UNION ALL
    SELECT each.* FROM news CROSS JOIN LATERAL (
        SELECT * FROM webhook
        WHERE merchant_id = news.merchant_id AND disabled_at IS NULL AND feed_to IS NULL OFFSET 0
    ) each
) w'''
        )
    }
""",
)
# Where a dump was restored transactions are counted anew, and the old snapshot would hide all of them. There a webhook
# is told of what is committed after the snapshot `:now`.
BEGIN_ANEW: Final = statement(
    NoRow,
    """
UPDATE webhook SET feed_from = :now::text, feed_to = NULL, feed_txid = NULL, feed_event_id = NULL, skipped = '{}'
WHERE merchant_id = :merchant_id AND id = :webhook_id
    AND pg_snapshot_xmax(feed_from::pg_snapshot) > pg_snapshot_xmax(:now::text::pg_snapshot)
""",
)


_news: Final = News(all_seconds=LOOK_AT_ALL_SECONDS)


async def make_deliveries() -> tuple[int, bool]:
    """Turn events since the last time into deliveries, a step for every webhook that has some.

    Returns how many deliveries were made, and whether there are more events: then, or when all the steps take long, the
    caller comes back after it has sent something. Safe to run twice and at once. An event whose transaction is still
    under way is met when that has ended.
    """
    made, has_more = 0, False
    look = await _news.look()
    if look.since is None:
        found = await database().rows(FIND)
    else:
        found = await database().rows(FIND_SINCE, since=look.since)
    until = time.monotonic() + SECONDS_MAX
    for turn, row in enumerate(found):
        # However long finding and the first step took, each call gets on.
        if turn and time.monotonic() >= until:
            return made, True
        if row["is_of_another_server"]:
            log.warning("%s begins anew: its database was restored", ids.encode("webhook", row["id"]))
            await database().row(BEGIN_ANEW, merchant_id=row["merchant_id"], webhook_id=row["id"], now=row["now"])
        step = await _step(row["merchant_id"], row["id"])
        if step is not None:
            made += step[0]
            has_more = has_more or not step[1]
    _news.seen(look)
    return made, has_more


# Whoever turns events into deliveries, or sends one again, is alone with the webhook; who ends a delivery shares it
# (`deliveries.HOLD`). So of a subject's deliveries somebody always sees that the next one has its turn.
HOLD: Final = statement(
    NoRow,
    """
SELECT FROM webhook WHERE merchant_id = :merchant_id AND id = :webhook_id AND disabled_at IS NULL FOR UPDATE
""",
)

#: The first of a subject's deliveries to a webhook that wait, looked up by itself and not among all that wait.
FIRST_WAITING: Final = """
    (SELECT p.id FROM webhook_delivery p
     WHERE p.merchant_id = :merchant_id AND p.webhook_id = :webhook_id AND p.subject_id = {} AND p.state = 'PENDING'
     ORDER BY p.position LIMIT 1)
"""


def unseen(snapshot: str) -> str:
    """Return the multirange of the transactions that a snapshot doesn't see: those under way, and all later ones."""
    return f"""(
        int8multirange(int8range(pg_snapshot_xmax({snapshot})::text::bigint, NULL))
        + coalesce((
            SELECT range_agg(int8range(x::text::bigint, x::text::bigint, '[]')) FROM pg_snapshot_xip({snapshot}) x
        ), '{{}}')
    )"""


class StepRow(TypedDict):
    """How many deliveries a step made, whether it ended its window, and whether that had begun before it."""

    deliveries: int
    is_end: bool
    is_continued: bool


#: The snapshot that the statement itself has ends a window that it begins. `delivery_ids` are for the deliveries, in
#: order.
STEP: Final = statement(
    StepRow,
    f"""
WITH w AS (
    SELECT event_types, position, feed_from::pg_snapshot AS begun,
        coalesce(feed_to::pg_snapshot, pg_current_snapshot()) AS ended, skipped::int8multirange AS skipped,
        feed_to IS NOT NULL AS is_continued, coalesce(feed_txid, 0) AS feed_txid,
        coalesce(feed_event_id, '00000000-0000-0000-0000-000000000000') AS feed_event_id
    FROM webhook WHERE merchant_id = :merchant_id AND id = :webhook_id
), news AS (
    -- The next events of the window: those of transactions that were under way when it began, and those of later ones.
    SELECT e.* FROM w CROSS JOIN LATERAL (
        (SELECT late.* FROM pg_snapshot_xip(w.begun) x CROSS JOIN LATERAL (
            SELECT id, txid, type, subject_id FROM event
            WHERE merchant_id = :merchant_id AND txid >= x::text::bigint AND txid <= x::text::bigint
                AND txid >= w.feed_txid AND (txid, id) > (w.feed_txid, w.feed_event_id)
                AND pg_visible_in_snapshot(txid::text::xid8, w.ended)
            ORDER BY txid, id LIMIT :batch
        ) late WHERE NOT w.skipped @> late.txid)
        UNION ALL
        -- In each stretch that isn't skipped: in the months for which a webhook was disabled nothing is looked at.
        (SELECT later.* FROM unnest(
            int8multirange(int8range(
                pg_snapshot_xmax(w.begun)::text::bigint,
                greatest(pg_snapshot_xmax(w.begun), pg_snapshot_xmax(w.ended))::text::bigint
            )) - w.skipped
        ) AS stretch (txids) CROSS JOIN LATERAL (
            SELECT id, txid, type, subject_id FROM event
            WHERE merchant_id = :merchant_id AND txid >= lower(stretch.txids) AND txid < upper(stretch.txids)
                AND txid >= w.feed_txid AND (txid, id) > (w.feed_txid, w.feed_event_id)
                AND pg_visible_in_snapshot(txid::text::xid8, w.ended)
            ORDER BY txid, id LIMIT :batch
        ) later)
    ) e
    ORDER BY e.txid, e.id LIMIT :batch
), fresh AS (
    -- Those that the webhook is told of, and each one's turn among those of its subject.
    SELECT news.id, news.subject_id, row_number() OVER (ORDER BY news.txid, news.id) AS place,
        row_number() OVER (PARTITION BY news.subject_id ORDER BY news.txid, news.id) AS turn
    FROM news CROSS JOIN w
    WHERE w.event_types = '{{}}' OR news.type = ANY(w.event_types)
), made AS (
    INSERT INTO webhook_delivery (merchant_id, id, webhook_id, event_id, subject_id, position, state, attempts,
        created_at, next_attempt_at)
    SELECT :merchant_id, (:delivery_ids::uuid[])[fresh.place], :webhook_id, fresh.id, fresh.subject_id,
        w.position + fresh.place, 'PENDING', 0, now(),
        CASE WHEN fresh.turn = 1 AND {FIRST_WAITING.format("fresh.subject_id")} IS NULL THEN now() END
    FROM fresh CROSS JOIN w
    RETURNING id
), last AS (
    SELECT txid, id, (SELECT count(*) FROM news) < :batch AS is_end FROM news ORDER BY txid DESC, id DESC LIMIT 1
), step AS (
    SELECT w.ended::text AS ended, w.is_continued, coalesce(last.is_end, true) AS is_end, last.txid, last.id,
        (w.skipped * {unseen("w.ended")})::text AS skipped
    FROM w LEFT JOIN last ON true
)
UPDATE webhook SET position = webhook.position + (SELECT count(*) FROM made),
    feed_from = CASE WHEN step.is_end THEN step.ended ELSE webhook.feed_from END,
    feed_to = CASE WHEN NOT step.is_end THEN step.ended END,
    feed_txid = CASE WHEN NOT step.is_end THEN step.txid END,
    feed_event_id = CASE WHEN NOT step.is_end THEN step.id END,
    skipped = CASE WHEN step.is_end THEN step.skipped ELSE webhook.skipped END
FROM step WHERE webhook.merchant_id = :merchant_id AND webhook.id = :webhook_id
RETURNING (SELECT count(*)::int FROM made) AS deliveries, step.is_end, step.is_continued
""",
)


async def _step(merchant_id: UUID, webhook_id: UUID) -> tuple[int, bool] | None:
    """Take a step. Returns how many deliveries it made and whether it ended its window.

    A window that had begun before doesn't end now: behind it another step goes on, so that whoever ends a window has
    seen all that there is.
    """
    step = await _step_in_window(merchant_id, webhook_id)
    if step is None:
        return None
    made = step["deliveries"]
    if step["is_end"] and step["is_continued"]:
        step = await _step_in_window(merchant_id, webhook_id)
        if step is None:
            return made, True
        made += step["deliveries"]
    return made, step["is_end"]


async def _step_in_window(merchant_id: UUID, webhook_id: UUID) -> StepRow | None:
    """Take a step in a transaction. Returns None for a webhook that is disabled by now."""
    async with transaction(merchant_id) as tx:
        if await tx.row(HOLD, merchant_id=merchant_id, webhook_id=webhook_id) is None:
            return None
        # The statement must see what was committed before it had the webhook to itself: so it is one of its own.
        (step,) = await tx.many(
            STEP,
            merchant_id=merchant_id,
            webhook_id=webhook_id,
            batch=BATCH,
            delivery_ids=[ids.new() for _ in range(BATCH)],
        )
    return step
