"""Deliveries as rows: one statement to take some that are due, and one for each thing that may come of an attempt.

A delivery that is being attempted has its next attempt in the future: until then it is that worker's. What a worker
does after that changes nothing, because another attempt has another number.
"""

from typing import Final
from uuid import UUID

from app import ids
from app.config import settings
from app.storage.database import Row, Tx, database, transaction
from app.webhooks.disable_webhook import disable
from app.webhooks.posting import Outcome, WebhookFailure
from app.webhooks.types import WebhookDisabledReason

#: How long after the n-th failure a delivery is attempted again: three days in all, as Standard Webhooks proposes.
BACKOFF_SECONDS: Final = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
ATTEMPTS_MAX: Final = len(BACKOFF_SECONDS) + 1
#: A webhook whose server fails is left alone for a second, then for twice as long with each failure in a row.
PAUSE_SECONDS_MAX: Final = 300
RETRY_AFTER_SECONDS_MAX: Final = 3_600
#: After so many in a row it was the server that failed, and not what it was sent: what waits needn't wait any longer.
OUTAGE_FAILURES: Final = 3
RESUMED_MAX: Final = 1_000
#: Beyond the time that an endpoint has: reading the keys before, and storing what came of it.
SPARE_SECONDS: Final = 15.0
_GONE: Final = 410
_BUSY: Final = 429
_BROKEN: Final = 500

# Of each webhook as many as it has room for, of all of them those that are due the longest. One that fails gets one.
TAKE: Final = """
WITH due AS (
    SELECT d.merchant_id, d.id FROM webhook w
    LEFT JOIN unnest($1::uuid[], $2::int[]) AS known (webhook_id, room) ON known.webhook_id = w.id
    CROSS JOIN LATERAL (
        SELECT merchant_id, id, next_attempt_at FROM webhook_delivery
        WHERE merchant_id = w.merchant_id AND webhook_id = w.id AND next_attempt_at <= now()
        ORDER BY next_attempt_at
        LIMIT least(coalesce(known.room, $3), CASE WHEN w.failures > 0 THEN 1 ELSE $3 END)
        FOR UPDATE SKIP LOCKED
    ) d
    WHERE w.disabled_at IS NULL AND (w.paused_until IS NULL OR w.paused_until <= now())
    ORDER BY d.next_attempt_at LIMIT $4
), taken AS (
    UPDATE webhook_delivery d SET attempts = d.attempts + 1, next_attempt_at = now() + make_interval(secs => $5)
    FROM due WHERE d.merchant_id = due.merchant_id AND d.id = due.id
    RETURNING d.*
)
SELECT t.merchant_id, t.id, t.webhook_id, t.attempts, t.position, t.created_at,
    w.url, w.secret, CASE WHEN w.previous_secret_until > now() THEN w.previous_secret END AS previous_secret,
    w.failing_since, w.failures,
    e.id AS event_id, e.type, e.subject_id, e.actor, e.occurred_at, e.member_id, e.wallet_version
FROM taken t
CROSS JOIN LATERAL (SELECT * FROM webhook WHERE merchant_id = t.merchant_id AND id = t.webhook_id OFFSET 0) w
CROSS JOIN LATERAL (SELECT * FROM event WHERE merchant_id = t.merchant_id AND id = t.event_id OFFSET 0) e
"""
_HELD: Final = "merchant_id = $1 AND id = $2 AND attempts = $3 AND position = $4 AND state = 'PENDING'"
RELEASE: Final = f"UPDATE webhook_delivery SET next_attempt_at = now() WHERE {_HELD}"
RETRY: Final = f"""
UPDATE webhook_delivery
SET next_attempt_at = now() + make_interval(secs => greatest($5 * (0.8 + 0.4 * random()), $6)), last_status = $7,
    last_failure = $8
WHERE {_HELD} RETURNING id
"""
# Shared by all that end deliveries of the webhook, and not with the feed (`feed.HOLD`).
HOLD: Final = "SELECT FROM webhook WHERE merchant_id = $1 AND id = $2 FOR SHARE"
HOLD_ALONE: Final = "SELECT FROM webhook WHERE merchant_id = $1 AND id = $2 FOR NO KEY UPDATE"
SETTLE: Final = f"""
WITH settled AS (
    UPDATE webhook_delivery
    SET state = $5, settled_at = now(), next_attempt_at = NULL, last_status = $6, last_failure = $7
    WHERE {_HELD} RETURNING webhook_id, subject_id
), next AS (
    UPDATE webhook_delivery d SET next_attempt_at = now()
    WHERE d.merchant_id = $1 AND d.id = (
        SELECT n.id FROM settled CROSS JOIN LATERAL (
            SELECT id FROM webhook_delivery
            WHERE merchant_id = $1 AND webhook_id = settled.webhook_id AND subject_id = settled.subject_id
                AND state = 'PENDING' AND id <> $2
            ORDER BY position LIMIT 1
        ) n
    )
)
SELECT webhook_id FROM settled
"""
FAIL: Final = """
UPDATE webhook SET failing_since = now() WHERE merchant_id = $1 AND id = $2 AND failing_since IS NULL
"""
# Attempts that were made at once fail at once: only the first of them counts.
PAUSE: Final = f"""
UPDATE webhook SET failing_since = coalesce(failing_since, now()), failures = failures + 1,
    paused_until = greatest(paused_until, now() + make_interval(
        secs => greatest($3, least({PAUSE_SECONDS_MAX}, 2 ^ least(failures, 20)) * (0.5 + random() / 2))
    ))
WHERE merchant_id = $1 AND id = $2 AND (paused_until IS NULL OR paused_until <= now() OR $3 > 0)
"""
# What is being attempted has its next attempt within $3 seconds, and is left alone.
RECOVER: Final = f"""
WITH was AS (
    SELECT failures FROM webhook WHERE merchant_id = $1 AND id = $2 AND failing_since IS NOT NULL FOR NO KEY UPDATE
), well AS (
    UPDATE webhook SET failing_since = NULL, failures = 0, paused_until = NULL
    WHERE merchant_id = $1 AND id = $2 AND EXISTS (SELECT FROM was)
), waiting AS (
    SELECT each.id FROM was CROSS JOIN LATERAL (
        SELECT id FROM webhook_delivery
        WHERE merchant_id = $1 AND webhook_id = $2 AND next_attempt_at > now() + make_interval(secs => $3)
        ORDER BY next_attempt_at LIMIT {RESUMED_MAX} FOR UPDATE SKIP LOCKED
    ) each
    WHERE was.failures >= {OUTAGE_FAILURES}
)
UPDATE webhook_delivery SET next_attempt_at = now()
WHERE merchant_id = $1 AND id = ANY(ARRAY(SELECT id FROM waiting))
"""


def lease_seconds() -> float:
    """Return for how long a delivery that was taken is its worker's."""
    return settings().webhook_timeout_seconds + SPARE_SECONDS


async def take(room: dict[UUID, int], *, per_webhook: int, most: int) -> list[Row]:
    """Take deliveries that are due, at most `per_webhook` of each, or what `room` says: rows of TAKE."""
    arguments = (list(room), list(room.values()), per_webhook, most, lease_seconds())
    return await database().many(TAKE, *arguments)


def _held(delivery: Row) -> tuple[object, ...]:
    return delivery["merchant_id"], delivery["id"], delivery["attempts"], delivery["position"]


async def release(delivery: Row) -> None:
    """Give a delivery back that can't be attempted here, to whoever looks next."""
    await database().row(RELEASE, *_held(delivery))


async def settle(delivery: Row, outcome: Outcome) -> None:
    """Store what came of an attempt. Of a delivery that is another worker's by now only its webhook is changed."""
    if outcome.is_accepted:
        async with transaction() as tx:
            await tx.row(HOLD, delivery["merchant_id"], delivery["webhook_id"])
            await _end(tx, delivery, "DELIVERED", outcome)
        if delivery["failing_since"] is not None:
            await database().row(RECOVER, delivery["merchant_id"], delivery["webhook_id"], lease_seconds())
    elif outcome.status == _GONE:
        await _give_up(delivery, outcome, WebhookDisabledReason.GONE)
    else:
        await _note_failure(delivery, outcome)
        if delivery["attempts"] < ATTEMPTS_MAX:
            seconds = BACKOFF_SECONDS[delivery["attempts"] - 1]
            arguments = (float(seconds), _asked(outcome), outcome.status, _name(outcome.failure))
            await database().row(RETRY, *_held(delivery), *arguments)
        else:
            since, made_at = delivery["failing_since"], delivery["created_at"]
            is_lost = since is not None and since <= made_at
            await _give_up(delivery, outcome, WebhookDisabledReason.FAILING if is_lost else None)


def _name(failure: WebhookFailure | None) -> str | None:
    return None if failure is None else failure.value


def _asked(outcome: Outcome) -> float:
    """Return for how many seconds an endpoint asked to be left alone, as far as it is listened to."""
    return min(outcome.retry_after or 0.0, RETRY_AFTER_SECONDS_MAX) if _is_ill(outcome) else 0.0


def _is_ill(outcome: Outcome) -> bool:
    """Whether it is the server that fails, whatever it is sent: it is busy or broken, or says nothing."""
    if outcome.failure is WebhookFailure.NOT_SENT:
        return False
    return outcome.status is None or outcome.status == _BUSY or outcome.status >= _BROKEN


async def _note_failure(delivery: Row, outcome: Outcome) -> None:
    """Pause the webhook of a server that fails; of any other, remember since when nothing was accepted."""
    webhook = (delivery["merchant_id"], delivery["webhook_id"])
    if _is_ill(outcome):
        await database().row(PAUSE, *webhook, _asked(outcome))
    elif delivery["failing_since"] is None and outcome.failure is not WebhookFailure.NOT_SENT:
        await database().row(FAIL, *webhook)


async def _give_up(delivery: Row, outcome: Outcome, reason: WebhookDisabledReason | None) -> None:
    """End a delivery as DEAD, and with it the webhook if there is a reason."""
    merchant_id, webhook_id = delivery["merchant_id"], delivery["webhook_id"]
    async with transaction() as tx:
        await tx.row(HOLD_ALONE, merchant_id, webhook_id)
        if await _end(tx, delivery, "DEAD", outcome) and reason is not None:
            await disable(tx, merchant_id, webhook_id, reason, ids.new(), "system")


async def _end(tx: Tx, delivery: Row, state: str, outcome: Outcome) -> bool:
    """End a delivery, so that the next of its subject has its turn. Returns whether it was still ours."""
    row = await tx.row(SETTLE, *_held(delivery), state, outcome.status, _name(outcome.failure))
    return row is not None
