"""Reading the program, quotas, invites and referrals: one statement per list, whatever is selected on its rows."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

import strawberry

from app import ids
from app.api.connections import After, Connection, First, connect, page
from app.api.context import Role, Viewer
from app.api.operations import Info, query
from app.members.types import MEMBER_COLUMNS
from app.referrals.types import (
    INVITE_COLUMNS,
    PROGRAM_COLUMNS,
    QUOTA_COLUMNS,
    REFERRAL_COLUMNS,
    HeldReferral,
    Invite,
    InviteQuota,
    InviteStatus,
    Referral,
    ReferralProgram,
    released,
)
from app.storage.database import Row, database

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


async def quota_of(merchant_id: UUID, member_id: UUID, at: datetime | None = None) -> InviteQuota:
    """Return what a member may still send, now or at an instant."""
    row = await database().row(READ_QUOTA, merchant_id, at, member_id)
    if row is None:
        raise RuntimeError("a merchant has no referral program")
    return InviteQuota.of(row)


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


async def referral_of_member(info: Info, member_id: UUID) -> Referral | None:
    """Return the referral that brought a member, read together with those of its siblings; a member's own only."""
    viewer = info.context.viewer
    if viewer.role is Role.MEMBER and viewer.member_id != member_id:
        return None
    return released(await info.context.load(_referrals_by_referee, member_id))


async def _referrals_by_referee(viewer: Viewer, member_ids: list[UUID]) -> Mapping[UUID, Row | None]:
    rows = await database().rows(REFERRALS_OF_REFEREES, viewer.merchant_id, member_ids)
    found = {row["referral_referee_id"]: row for row in rows}
    return {member_id: found.get(member_id) for member_id in member_ids}


@query(description="What inviting brings, and how much of it there may be.")
async def referral_program(info: Info) -> ReferralProgram:
    """Read it as it is now."""
    return ReferralProgram.of(await program_row(info.context.viewer))


@query(description="How many invites the viewing member may still send; null for API keys.")
async def invite_quota(info: Info) -> InviteQuota | None:
    """Read the member's quota."""
    viewer = info.context.viewer
    return None if viewer.member_id is None else await quota_of(viewer.merchant_id, viewer.member_id)


@query(description="Invites, newest first: to a member those that it sent, to API keys all.")
async def invites(
    info: Info,
    first: First = None,
    after: After = None,
    status: Annotated[InviteStatus | None, strawberry.argument(description="Only invites in this status.")] = None,
) -> Connection[Invite]:
    """Read a page of invites with their referrers."""
    viewer = info.context.viewer
    asked = page(first, after)
    only = [each for each in (viewer.member_id, None if status is None else status.value) if each is not None]
    statement = LIST_INVITES[viewer.member_id is not None, status is not None]
    rows = await database().rows(statement, viewer.merchant_id, asked.id, asked.limit, *only)
    return connect(rows, asked, Invite.of, key="invite_id")


@query(
    description="Who brought whom, newest first, reversed ones included: to a member those whom it brought, to API "
    "keys all."
)
async def referrals(info: Info, first: First = None, after: After = None) -> Connection[Referral]:
    """Read a page of referrals with their members and entries."""
    viewer = info.context.viewer
    asked = page(first, after)
    statement = LIST_REFERRALS if viewer.member_id is None else LIST_REFERRALS_OF_REFERRER
    only = [] if viewer.member_id is None else [viewer.member_id]
    rows = await database().rows(statement, viewer.merchant_id, asked.id, asked.limit, *only)
    return connect(rows, asked, Referral.of, key="referral_id")


@query(description="Conversions whose points wait for a person, newest first. ADMIN and ANALYST.")
async def held_referrals(
    info: Info,
    first: First = None,
    after: After = None,
    declined: Annotated[
        bool | None, strawberry.argument(description="Those that a person declined, instead of those that wait.")
    ] = None,
) -> Connection[HeldReferral]:
    """Read a page of held or declined referrals with their members."""
    viewer = info.context.viewer
    asked = page(first, after)
    statement = LIST_DECLINED if declined else LIST_HELD
    rows = await database().rows(statement, viewer.merchant_id, asked.id, asked.limit)
    return connect(rows, asked, HeldReferral.of, key="referral_id")
