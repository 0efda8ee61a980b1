"""Deliveries as rows: one statement to take some that are due, and one for each thing that may come of an attempt.

A delivery that is being attempted has its next attempt in the future: until then it is that worker's. What a worker
does after that changes nothing, because another attempt has another number.
"""

from datetime import datetime
from typing import Final, TypedDict
from uuid import UUID

from app.config import settings
from app.storage.database import Tx, database, transaction
from app.storage.fences import stands
from app.storage.statements import NoRow, statement
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


class TakenRow(TypedDict):
    """A delivery that is this worker's for the time that an attempt takes at most, with its webhook and its event."""

    merchant_id: UUID
    id: UUID
    webhook_id: UUID
    attempts: int
    position: int
    created_at: datetime
    url: bytes
    secret: bytes
    previous_secret: bytes | None
    failing_since: datetime | None
    event_id: UUID
    type: str
    subject_kind: str
    subject_id: UUID
    actor: str
    occurred_at: datetime
    points: int | None
    member_id: UUID | None
    wallet_version: int | None


TAKE: Final = statement(
    TakenRow,
    f"""
WITH RECURSIVE waiting AS (
    -- The webhooks for which something waits, each found by a step over the one before in an index of what waits: those
    -- with nothing to send cost nothing, however many they are.
    (SELECT merchant_id, webhook_id FROM webhook_delivery WHERE next_attempt_at IS NOT NULL
     ORDER BY merchant_id, webhook_id LIMIT 1)
    UNION ALL
    SELECT next.* FROM waiting CROSS JOIN LATERAL (
        SELECT merchant_id, webhook_id FROM webhook_delivery
        WHERE next_attempt_at IS NOT NULL AND (merchant_id, webhook_id) > (waiting.merchant_id, waiting.webhook_id)
        ORDER BY merchant_id, webhook_id LIMIT 1
    ) next
), due AS (
    -- Of each webhook as many as it has room for, of all of them those that are due the longest. One that fails gets
    -- one.
    SELECT d.merchant_id, d.id FROM waiting
    CROSS JOIN LATERAL (
        SELECT * FROM webhook WHERE merchant_id = waiting.merchant_id AND id = waiting.webhook_id OFFSET 0
    ) w
    LEFT JOIN unnest(:webhook_ids::uuid[], :rooms::int[]) AS known (webhook_id, room) ON known.webhook_id = w.id
    CROSS JOIN LATERAL (
        SELECT merchant_id, id, next_attempt_at FROM webhook_delivery
        WHERE merchant_id = w.merchant_id AND webhook_id = w.id AND next_attempt_at <= now()
        ORDER BY next_attempt_at
        LIMIT least(coalesce(known.room, :per_webhook), CASE WHEN w.failures > 0 THEN 1 ELSE :per_webhook END)
        FOR UPDATE SKIP LOCKED
    ) d
    WHERE w.disabled_at IS NULL AND (w.paused_until IS NULL OR w.paused_until <= now()) AND {stands("w")}
    ORDER BY d.next_attempt_at LIMIT :most
), taken AS (
    UPDATE webhook_delivery d
    SET attempts = d.attempts + 1, next_attempt_at = now() + make_interval(secs => :lease_seconds)
    FROM due WHERE d.merchant_id = due.merchant_id AND d.id = due.id
    RETURNING d.*
)
SELECT t.merchant_id, t.id, t.webhook_id, t.attempts, t.position, t.created_at,
    w.url, w.secret, CASE WHEN w.previous_secret_until > now() THEN w.previous_secret END AS previous_secret,
    w.failing_since,
    e.id AS event_id, e.type, e.subject_kind, e.subject_id, e.actor, e.occurred_at, e.points, e.member_id,
    e.wallet_version
FROM taken t
CROSS JOIN LATERAL (SELECT * FROM webhook WHERE merchant_id = t.merchant_id AND id = t.webhook_id OFFSET 0) w
CROSS JOIN LATERAL (SELECT * FROM event WHERE merchant_id = t.merchant_id AND id = t.event_id OFFSET 0) e
""",
)


def lease_seconds() -> float:
    """Return for how long a delivery that was taken is its worker's."""
    return settings().webhook_timeout_seconds + SPARE_SECONDS


async def take(room: dict[UUID, int], *, per_webhook: int, most: int) -> list[TakenRow]:
    """Take deliveries that are due, at most `per_webhook` of each webhook, or what `room` says."""
    return await database().many(
        TAKE,
        webhook_ids=list(room),
        rooms=list(room.values()),
        per_webhook=per_webhook,
        most=most,
        lease_seconds=lease_seconds(),
    )


#: The delivery is still that of the worker that took it.
_HELD: Final = """
    merchant_id = :merchant_id AND id = :delivery_id AND attempts = :attempts AND position = :position
    AND state = 'PENDING'
"""


def _held(delivery: TakenRow) -> dict[str, object]:
    return {
        "merchant_id": delivery["merchant_id"],
        "delivery_id": delivery["id"],
        "attempts": delivery["attempts"],
        "position": delivery["position"],
    }


RELEASE: Final = statement(NoRow, f"UPDATE webhook_delivery SET next_attempt_at = now() WHERE {_HELD}")


async def release(delivery: TakenRow) -> None:
    """Give a delivery back that can't be attempted here, to whoever looks next."""
    await database().row(RELEASE, **_held(delivery))


# Shared by all that end deliveries of the webhook, and not with the feed (`feed.HOLD`).
HOLD: Final = statement(NoRow, "SELECT FROM webhook WHERE merchant_id = :merchant_id AND id = :webhook_id FOR SHARE")
RECOVER: Final = statement(
    NoRow,
    f"""
WITH was AS (
    SELECT failures FROM webhook
    WHERE merchant_id = :merchant_id AND id = :webhook_id AND failing_since IS NOT NULL FOR NO KEY UPDATE
), well AS (
    UPDATE webhook SET failing_since = NULL, failures = 0, paused_until = NULL
    WHERE merchant_id = :merchant_id AND id = :webhook_id AND EXISTS (SELECT FROM was)
), waiting AS (
    -- What is being attempted has its next attempt within the seconds of a lease, and is left alone.
    SELECT each.id FROM was CROSS JOIN LATERAL (
        SELECT id FROM webhook_delivery
        WHERE merchant_id = :merchant_id AND webhook_id = :webhook_id
            AND next_attempt_at > now() + make_interval(secs => :lease_seconds)
        ORDER BY next_attempt_at LIMIT {RESUMED_MAX} FOR UPDATE SKIP LOCKED
    ) each
    WHERE was.failures >= {OUTAGE_FAILURES}
)
UPDATE webhook_delivery SET next_attempt_at = now()
WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(SELECT id FROM waiting))
""",
)
RETRY: Final = statement(
    NoRow,
    f"""
UPDATE webhook_delivery
SET next_attempt_at = now() + make_interval(secs => greatest(:seconds * (0.8 + 0.4 * random()), :asked_seconds)),
    last_status = :status, last_failure = :failure
WHERE {_HELD}
""",
)


async def settle(delivery: TakenRow, outcome: Outcome) -> None:
    """Store what came of an attempt. Of a delivery that is another worker's by now only its webhook is changed."""
    merchant_id, webhook_id = delivery["merchant_id"], delivery["webhook_id"]
    if outcome.is_accepted:
        async with transaction(merchant_id) as tx:
            await tx.row(HOLD, merchant_id=merchant_id, webhook_id=webhook_id)
            await _end(tx, delivery, "DELIVERED", outcome)
        if delivery["failing_since"] is not None:
            await database().row(RECOVER, merchant_id=merchant_id, webhook_id=webhook_id, lease_seconds=lease_seconds())
    elif outcome.status == _GONE:
        await _give_up(delivery, outcome, WebhookDisabledReason.GONE)
    else:
        await _note_failure(delivery, outcome)
        if delivery["attempts"] < ATTEMPTS_MAX:
            await database().row(
                RETRY,
                **_held(delivery),
                seconds=float(BACKOFF_SECONDS[delivery["attempts"] - 1]),
                asked_seconds=_asked(outcome),
                status=outcome.status,
                failure=_name(outcome.failure),
            )
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


FAIL: Final = statement(
    NoRow,
    """
UPDATE webhook SET failing_since = now()
WHERE merchant_id = :merchant_id AND id = :webhook_id AND failing_since IS NULL
""",
)
# Attempts that were made at once fail at once: only the first of them counts.
PAUSE: Final = statement(
    NoRow,
    f"""
UPDATE webhook SET failing_since = coalesce(failing_since, now()), failures = failures + 1,
    paused_until = greatest(paused_until, now() + make_interval(
        secs => greatest(:asked_seconds, least({PAUSE_SECONDS_MAX}, 2 ^ least(failures, 20)) * (0.5 + random() / 2))
    ))
WHERE merchant_id = :merchant_id AND id = :webhook_id
    AND (paused_until IS NULL OR paused_until <= now() OR :asked_seconds > 0)
""",
)


async def _note_failure(delivery: TakenRow, outcome: Outcome) -> None:
    """Pause the webhook of a server that fails; of any other, remember since when nothing was accepted."""
    merchant_id, webhook_id = delivery["merchant_id"], delivery["webhook_id"]
    if _is_ill(outcome):
        await database().row(PAUSE, merchant_id=merchant_id, webhook_id=webhook_id, asked_seconds=_asked(outcome))
    elif delivery["failing_since"] is None and outcome.failure is not WebhookFailure.NOT_SENT:
        await database().row(FAIL, merchant_id=merchant_id, webhook_id=webhook_id)


HOLD_ALONE: Final = statement(
    NoRow, "SELECT FROM webhook WHERE merchant_id = :merchant_id AND id = :webhook_id FOR NO KEY UPDATE"
)


async def _give_up(delivery: TakenRow, outcome: Outcome, reason: WebhookDisabledReason | None) -> None:
    """End a delivery as DEAD, and with it the webhook if there is a reason."""
    merchant_id, webhook_id = delivery["merchant_id"], delivery["webhook_id"]
    async with transaction(merchant_id) as tx:
        await tx.row(HOLD_ALONE, merchant_id=merchant_id, webhook_id=webhook_id)
        if await _end(tx, delivery, "DEAD", outcome) and reason is not None:
            await disable(tx, merchant_id, webhook_id, reason, "system")


SETTLE: Final = statement(
    NoRow,
    f"""
WITH settled AS (
    UPDATE webhook_delivery SET state = :state, settled_at = now(), next_attempt_at = NULL, last_status = :status,
        last_failure = :failure
    WHERE {_HELD} RETURNING webhook_id, subject_id
), next AS (
    -- The next of its subject has its turn.
    UPDATE webhook_delivery d SET next_attempt_at = now()
    WHERE d.merchant_id = :merchant_id AND d.id = (
        SELECT n.id FROM settled CROSS JOIN LATERAL (
            SELECT id FROM webhook_delivery
            WHERE merchant_id = :merchant_id AND webhook_id = settled.webhook_id AND subject_id = settled.subject_id
                AND state = 'PENDING' AND id <> :delivery_id
            ORDER BY position LIMIT 1
        ) n
    )
)
SELECT FROM settled
""",
)


async def _end(tx: Tx, delivery: TakenRow, state: str, outcome: Outcome) -> bool:
    """End a delivery. Returns whether it was still ours."""
    row = await tx.row(SETTLE, **_held(delivery), state=state, status=outcome.status, failure=_name(outcome.failure))
    return row is not None
