"""What becomes of a merged member's invites, quota and referrals: the kept one's, but for those that can't be its."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final, TypedDict
from uuid import UUID

from app import ids
from app.referrals.cancel_invite import cancel_each
from app.storage.database import Tx
from app.storage.events import event
from app.storage.statements import NoRow, statement


class AcceptedRow(TypedDict):
    """An invite that one of both accepted, and the referral that it converted to, if it did.

    `is_above` says that the other one sent it, or is found above whoever did.
    """

    invite_id: UUID
    referrer_id: UUID
    referee_id: UUID
    accepted_at: datetime
    referral_id: UUID | None
    converted_at: datetime | None
    stands: bool
    is_released: bool
    is_above: bool


# All that either of both sent or accepted is locked, invites before referrals, each by id.
LOCK_INVITES: Final = statement(
    NoRow,
    """
SELECT FROM invite WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(
    SELECT id FROM invite
    WHERE merchant_id = :merchant_id AND referrer_id = ANY(ARRAY[:kept_id::uuid, :merged_id::uuid])
    UNION ALL
    SELECT id FROM invite
    WHERE merchant_id = :merchant_id AND referee_id = ANY(ARRAY[:kept_id::uuid, :merged_id::uuid])
        AND status <> 'EXPIRED'
))
ORDER BY id FOR UPDATE
""",
)
LOCK_REFERRALS: Final = statement(
    NoRow,
    """
SELECT FROM referral WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(
    SELECT id FROM referral
    WHERE merchant_id = :merchant_id AND referrer_id = ANY(ARRAY[:kept_id::uuid, :merged_id::uuid])
    UNION ALL
    SELECT id FROM referral
    WHERE merchant_id = :merchant_id AND referee_id = ANY(ARRAY[:kept_id::uuid, :merged_id::uuid])
))
ORDER BY id FOR UPDATE
""",
)
FIND_ACCEPTED: Final = statement(
    AcceptedRow,
    """
WITH RECURSIVE above AS (
    SELECT id AS invite_id, referrer_id FROM invite
    WHERE merchant_id = :merchant_id AND referee_id = ANY(ARRAY[:kept_id::uuid, :merged_id::uuid])
        AND status <> 'EXPIRED'
    UNION ALL
    SELECT above.invite_id, r.referrer_id FROM above CROSS JOIN LATERAL (
        SELECT referrer_id FROM referral
        WHERE merchant_id = :merchant_id AND referee_id = above.referrer_id OFFSET 0
    ) r
)
SELECT i.id AS invite_id, i.referrer_id, i.referee_id, i.accepted_at, r.id AS referral_id, r.converted_at,
    r.reversed_at IS NULL AND r.declined_at IS NULL AS stands, r.released_at IS NOT NULL AS is_released,
    EXISTS (
        SELECT FROM above WHERE invite_id = i.id
            AND above.referrer_id = CASE i.referee_id WHEN :kept_id THEN :merged_id ELSE :kept_id END
    ) AS is_above
FROM invite i LEFT JOIN LATERAL (
    SELECT * FROM referral WHERE merchant_id = :merchant_id AND invite_id = i.id OFFSET 0
) r ON true
WHERE i.merchant_id = :merchant_id AND i.referee_id = ANY(ARRAY[:kept_id::uuid, :merged_id::uuid])
    AND i.status <> 'EXPIRED'
ORDER BY i.accepted_at, i.id
""",
)


async def lock_invites(tx: Tx, merchant_id: UUID, kept_id: UUID, merged_id: UUID) -> None:
    """Lock the invites that both sent or accepted, and their referrals."""
    pair = {"merchant_id": merchant_id, "kept_id": kept_id, "merged_id": merged_id}
    await tx.rows(LOCK_INVITES, **pair)
    await tx.rows(LOCK_REFERRALS, **pair)


async def accepted(tx: Tx, merchant_id: UUID, kept_id: UUID, merged_id: UUID) -> list[AcceptedRow]:
    """Return the invites that both accepted and that haven't expired: at most one each. They are locked."""
    return await tx.rows(FIND_ACCEPTED, merchant_id=merchant_id, kept_id=kept_id, merged_id=merged_id)


def impossible(accepted: Sequence[AcceptedRow]) -> list[AcceptedRow]:
    """Return which of the invites that both accepted one person can't have accepted.

    Its own, one by whoever it brought itself, and the later one of two; what converted and stands goes before what
    waits or has fallen.
    """
    own = [each for each in accepted if each["is_above"]]
    rest = [each for each in accepted if not each["is_above"]]
    rest.sort(key=lambda each: (not _counts(each), each["converted_at"] or each["accepted_at"]))
    return own + rest[1:]


def _counts(invite: AcceptedRow) -> bool:
    return invite["referral_id"] is not None and invite["stands"]


# An invite that waits ends; its sender's lifetime quota has it back, as with any that expires.
EXPIRE: Final = statement(
    NoRow,
    f"""
WITH i AS (
    UPDATE invite SET status = 'EXPIRED'
    WHERE merchant_id = :merchant_id AND id = ANY(:invite_ids::uuid[]) AND status = 'PENDING'
    RETURNING id, referrer_id
), reclaimed AS (
    UPDATE invite_quota SET sent_lifetime = sent_lifetime - ended.count
    FROM (SELECT referrer_id, count(*)::int AS count FROM i GROUP BY 1) ended
    WHERE merchant_id = :merchant_id AND member_id = ended.referrer_id
), recorded AS (
    {event("invite.expired", id="(:event_ids::uuid[])[row_number() OVER (ORDER BY id)]", subject="id", source="i")}
)
SELECT FROM i
""",
)


class _InviteRow(TypedDict):
    id: UUID


# To the person's own addresses, all spellings, also of records that were merged before, and nobody has accepted them.
FIND_OWN: Final = statement(
    _InviteRow,
    """
WITH own AS (
    SELECT unnest(:mailbox_indexes::bytea[]) AS mailbox_index
    UNION ALL
    SELECT unnest(mailbox_index || dropped_mailbox_indexes) FROM member
    WHERE merchant_id = :merchant_id AND merged_into_id = :kept_id
)
SELECT id FROM invite
WHERE merchant_id = :merchant_id AND referrer_id = ANY(ARRAY[:kept_id::uuid, :merged_id::uuid])
    AND status = 'PENDING' AND accepted_at IS NULL AND mailbox_index = ANY(ARRAY(SELECT mailbox_index FROM own))
""",
)


class _PassedRow(TypedDict):
    referrals: int


# In one statement, because an edge names its invite's two people. What one person can't have stays the merged id's:
# nothing looks for it there, so that it never comes back.
PASS: Final = statement(
    _PassedRow,
    """
WITH left_behind AS (
    SELECT unnest(:left_ids::uuid[]) AS id
), i AS (
    UPDATE invite SET
        referrer_id = CASE WHEN referrer_id = :merged_id THEN :kept_id ELSE referrer_id END,
        referee_id = CASE
            WHEN id = ANY(:left_ids) AND referee_id = :kept_id THEN :merged_id
            WHEN id <> ALL(:left_ids) AND referee_id = :merged_id THEN :kept_id
            ELSE referee_id END
    WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(
        SELECT id FROM invite WHERE merchant_id = :merchant_id AND referrer_id = :merged_id
        UNION ALL
        SELECT id FROM invite WHERE merchant_id = :merchant_id AND referee_id = ANY(ARRAY[:kept_id::uuid, :merged_id])
            AND status <> 'EXPIRED'
        UNION ALL
        SELECT id FROM left_behind
    ))
), r AS (
    UPDATE referral SET
        referrer_id = CASE WHEN referrer_id = :merged_id THEN :kept_id ELSE referrer_id END,
        referee_id = CASE
            WHEN invite_id = ANY(:left_ids) AND referee_id = :kept_id THEN :merged_id
            WHEN invite_id <> ALL(:left_ids) AND referee_id = :merged_id THEN :kept_id
            ELSE referee_id END,
        -- The purchase is free for the one that the person keeps.
        purchase_id = CASE WHEN invite_id <> ALL(:left_ids) THEN purchase_id END
    WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(
        SELECT id FROM referral WHERE merchant_id = :merchant_id AND referrer_id = :merged_id
        UNION ALL
        SELECT id FROM referral WHERE merchant_id = :merchant_id AND referee_id = ANY(ARRAY[:kept_id::uuid, :merged_id])
    ))
    RETURNING referrer_id, released_at, reversed_at
)
SELECT count(*)::int AS referrals FROM r
WHERE referrer_id = :kept_id AND released_at IS NOT NULL AND reversed_at IS NULL
""",
)
# A count over the limits of its latest batch is let stand: nobody sent it at once.
PASS_QUOTA: Final = statement(
    NoRow,
    """
WITH held AS MATERIALIZED (
    SELECT * FROM invite_quota
    WHERE merchant_id = :merchant_id AND member_id = ANY(ARRAY[:kept_id::uuid, :merged_id::uuid])
    ORDER BY member_id FOR UPDATE
), sums AS (
    SELECT max(day) AS day, sum(sent_lifetime)::int AS sent_lifetime, max(day_max) AS day_max,
        max(lifetime_max) AS lifetime_max,
        (sum(sent_today) FILTER (WHERE day = (SELECT max(day) FROM held)))::int AS sent_today
    FROM held HAVING count(*) > 0
), emptied AS (
    UPDATE invite_quota SET sent_today = 0, sent_lifetime = 0
    WHERE merchant_id = :merchant_id AND member_id = :merged_id
)
INSERT INTO invite_quota (merchant_id, member_id, day, sent_today, sent_lifetime, day_max, lifetime_max)
SELECT :merchant_id, :kept_id, day, sent_today, sent_lifetime, greatest(day_max, sent_today),
    greatest(lifetime_max, sent_lifetime)
FROM sums
ON CONFLICT (merchant_id, member_id) DO UPDATE SET day = excluded.day, sent_today = excluded.sent_today,
    sent_lifetime = excluded.sent_lifetime, day_max = excluded.day_max, lifetime_max = excluded.lifetime_max
""",
)


async def pass_invites(
    tx: Tx,
    merchant_id: UUID,
    actor: str,
    kept_id: UUID,
    merged_id: UUID,
    *,
    left_behind: Collection[UUID],
    mailboxes: Collection[bytes],
) -> int:
    """Make a merged member's invites, referrals and quota the kept one's; invites and referrals are locked.

    Of invites that one person can't have accepted, `left_behind`, those that wait expire. Those to its own `mailboxes`
    are cancelled. Returns how many referrals of the merged member stand that are the kept one's now.
    """
    pair = {"merchant_id": merchant_id, "kept_id": kept_id, "merged_id": merged_id}
    left = list(left_behind)
    if left:
        await tx.row(EXPIRE, merchant_id=merchant_id, invite_ids=left, event_ids=[ids.new() for _ in left], actor=actor)
    own = await tx.rows(FIND_OWN, **pair, mailbox_indexes=list(mailboxes))
    await cancel_each(tx, merchant_id, actor, [row["id"] for row in own])
    passed = await tx.row(PASS, **pair, left_ids=left)
    await tx.row(PASS_QUOTA, **pair)
    return 0 if passed is None else passed["referrals"]
