"""What statements select of the program, quotas, invites and referrals, and what reads them."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, TypedDict
from uuid import UUID

from app import ids
from app.api.context import Role, Viewer
from app.members.rows import MEMBER_COLUMNS
from app.points.rows import ENTRY_COLUMNS
from app.storage.database import Row, database
from app.storage.statements import columns, row_of

#: What a statement selects to make a ReferralProgram (`p`) and an InviteQuota (of `p` and the member's `q`, if it has
#: one, at `today`, the day that it is for the merchant). A day that is behind the latest one counts to that.
PROGRAM_COLUMNS: Final = """
    p.referrer_points, p.referee_points, p.invites_per_batch, p.invites_per_day, p.invites_lifetime,
    p.invite_lifetime_days, p.converts_on, p.reports_members, p.review_policy, p.refund_window_days
"""


QUOTA_COLUMNS: Final = """
    p.invites_per_batch AS quota_batch,
    greatest(0, p.invites_per_day - CASE WHEN q.day >= today THEN q.sent_today ELSE 0 END) AS quota_today,
    greatest(0, p.invites_lifetime - coalesce(q.sent_lifetime, 0)) AS quota_lifetime
"""


@row_of(i="invite")
class InviteRow(TypedDict):
    """An invite `i`."""

    invite_id: Annotated[UUID, "i.id"]
    invite_referrer_id: Annotated[UUID, "i.referrer_id"]
    invite_status: Annotated[str, "i.status"]
    invite_email: Annotated[bytes, "i.email"]
    invite_token: Annotated[bytes, "i.token"]
    invite_created_at: Annotated[datetime, "i.created_at"]
    invite_expires_at: Annotated[datetime, "i.expires_at"]
    invite_accepted_at: Annotated[datetime | None, "i.accepted_at"]
    invite_converted_at: Annotated[datetime | None, "i.converted_at"]
    invite_email_index: Annotated[bytes, "i.email_index"]


INVITE_COLUMNS: Final = columns(InviteRow)


def prefixed(prefix: str, columns: str, **tables: str) -> str:
    """Return columns of other tables, each name with a prefix: for two members in one row."""
    for table, other in tables.items():
        columns = re.sub(rf"\b{table}\.", f"{other}.", columns)
    return re.sub(r" AS (\w+)", rf" AS {prefix}_\1", columns)


#: What a statement selects to make a Referral or a HeldReferral: the referral `r`, and of both members the member
#: itself, its wallet and its entry.
REFERRAL_COLUMNS: Final = f"""
    r.id AS referral_id, r.invite_id AS referral_invite_id, r.referrer_id AS referral_referrer_id,
    r.referee_id AS referral_referee_id, r.flags AS referral_flags, r.referrer_points AS referral_referrer_points,
    r.referee_points AS referral_referee_points, r.converted_at AS referral_converted_at,
    r.released_at AS referral_released_at, r.declined_at AS referral_declined_at,
    r.reversed_at AS referral_reversed_at, r.shortfall AS referral_shortfall,
    {prefixed("referrer", MEMBER_COLUMNS, m="referrer", w="referrer_wallet")},
    {prefixed("referrer", ENTRY_COLUMNS, e="referrer_entry")},
    {prefixed("referee", MEMBER_COLUMNS, m="referee", w="referee_wallet")},
    {prefixed("referee", ENTRY_COLUMNS, e="referee_entry")}
"""


#: Continues a FROM that has `p`, the program: the merchant's day at the instant $2 (now without one) and the quota row
#: of the member {0}.
TODAY: Final = """
CROSS JOIN LATERAL (
    SELECT (coalesce($2::timestamptz, now()) AT TIME ZONE time_zone)::date AS today
    FROM merchant WHERE merchant_id = $1
) days
LEFT JOIN LATERAL (SELECT * FROM invite_quota WHERE merchant_id = $1 AND member_id = {0} OFFSET 0) q ON true
"""


READ_PROGRAM: Final = f"SELECT {PROGRAM_COLUMNS} FROM referral_program p WHERE p.merchant_id = $1"


READ_QUOTA: Final = f"""
SELECT {QUOTA_COLUMNS} FROM referral_program p {TODAY.format("$3")} WHERE p.merchant_id = $1
"""


#: Each row is looked up by its whole key, whatever the planner knows of the tables.
FROM_INVITE: Final = """
    FROM invite i
    CROSS JOIN LATERAL (SELECT * FROM member WHERE merchant_id = $1 AND id = i.referrer_id OFFSET 0) m
    CROSS JOIN LATERAL (SELECT * FROM wallet WHERE merchant_id = $1 AND member_id = i.referrer_id OFFSET 0) w
"""


FIND_INVITE: Final = f"""
SELECT {INVITE_COLUMNS}, {MEMBER_COLUMNS} {FROM_INVITE}
WHERE i.merchant_id = $1 AND i.id = $2 AND ($3::uuid IS NULL OR i.referrer_id = $3)
"""


_LIST_INVITES: Final = f"""
SELECT {INVITE_COLUMNS}, {MEMBER_COLUMNS} {FROM_INVITE}
WHERE i.merchant_id = $1 AND i.id < $2 {{0}} ORDER BY i.id DESC LIMIT $3
"""


#: By whether the list is of one referrer, and of one status: each has an index of its own.
LIST_INVITES: Final = {
    (False, False): _LIST_INVITES.format(""),
    (False, True): _LIST_INVITES.format("AND i.status = $4"),
    (True, False): _LIST_INVITES.format("AND i.referrer_id = $4"),
    (True, True): _LIST_INVITES.format("AND i.referrer_id = $4 AND i.status = $5"),
}


FROM_REFERRAL: Final = "FROM referral r" + "".join(
    f"""
    CROSS JOIN LATERAL (SELECT * FROM member WHERE merchant_id = $1 AND id = r.{who}_id OFFSET 0) {who}
    CROSS JOIN LATERAL (SELECT * FROM wallet WHERE merchant_id = $1 AND member_id = r.{who}_id OFFSET 0) {who}_wallet
    LEFT JOIN LATERAL (
        SELECT * FROM points_entry WHERE merchant_id = $1 AND id = r.{who}_entry_id OFFSET 0
    ) {who}_entry ON true
    """
    for who in ("referrer", "referee")
)


#: A held referral is for those that may read the list of them.
FIND_REFERRAL: Final = f"""
SELECT {REFERRAL_COLUMNS} {FROM_REFERRAL}
WHERE r.merchant_id = $1 AND r.id = $2 AND ($3::uuid IS NULL OR $3 IN (r.referrer_id, r.referee_id))
    AND (r.released_at IS NOT NULL OR $4)
"""


REFERRALS_OF_REFEREES: Final = f"""
SELECT {REFERRAL_COLUMNS} {FROM_REFERRAL} WHERE r.merchant_id = $1 AND r.referee_id = ANY($2::uuid[])
"""


_LIST_REFERRALS: Final = f"""
SELECT {REFERRAL_COLUMNS} {FROM_REFERRAL}
WHERE r.merchant_id = $1 AND r.id < $2 AND {{0}} ORDER BY r.id DESC LIMIT $3
"""


LIST_REFERRALS: Final = _LIST_REFERRALS.format("r.released_at IS NOT NULL")


LIST_REFERRALS_OF_REFERRER: Final = _LIST_REFERRALS.format("r.released_at IS NOT NULL AND r.referrer_id = $4")


LIST_HELD: Final = _LIST_REFERRALS.format("r.released_at IS NULL AND r.reversed_at IS NULL AND r.declined_at IS NULL")


LIST_DECLINED: Final = _LIST_REFERRALS.format("r.declined_at IS NOT NULL")


SEES_HELD: Final = {Role.ADMIN, Role.ANALYST}


async def program_row(viewer: Viewer) -> Row:
    """Return the merchant's program; every merchant has one."""
    row = await database().row(READ_PROGRAM, viewer.merchant_id)
    if row is None:
        raise RuntimeError("a merchant has no referral program")
    return row


async def invite_row(viewer: Viewer, invite_id: UUID) -> Row | None:
    """Return an invite of the viewer's merchant; a member's own only."""
    return await database().row(FIND_INVITE, viewer.merchant_id, invite_id, viewer.member_id)


async def find_invite(viewer: Viewer, node_id: str) -> Row | None:
    """Return the invite behind an id; a member sees those that it sent."""
    invite_id = ids.decode("invite", node_id)
    return None if invite_id is None else await invite_row(viewer, invite_id)


async def referral_row(viewer: Viewer, referral_id: UUID) -> Row | None:
    """Return a referral that this viewer may see: a member those that it is part of, most nobody held ones."""
    return await database().row(
        FIND_REFERRAL, viewer.merchant_id, referral_id, viewer.member_id, viewer.role in SEES_HELD
    )


async def find_referral(viewer: Viewer, node_id: str) -> Row | None:
    """Return the referral behind an id, held or not, if this viewer may see it."""
    referral_id = ids.decode("referral", node_id)
    return None if referral_id is None else await referral_row(viewer, referral_id)


async def _referrals_by_referee(viewer: Viewer, member_ids: list[UUID]) -> Mapping[UUID, Row | None]:
    rows = await database().rows(REFERRALS_OF_REFEREES, viewer.merchant_id, member_ids)
    found = {row["referral_referee_id"]: row for row in rows}
    return {member_id: found.get(member_id) for member_id in member_ids}
