"""Reading the program, quotas, invites and referrals: one statement per list, whatever is selected on its rows."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import strawberry

from app.api.connections import After, Connection, First, connect, page
from app.api.context import Role, Viewer
from app.api.node import refetches
from app.api.operations import Info, query
from app.referrals.rows import (
    LIST_DECLINED,
    LIST_HELD,
    LIST_INVITES,
    LIST_REFERRALS,
    LIST_REFERRALS_OF_REFERRER,
    READ_QUOTA,
    _referrals_by_referee,
    find_invite,
    find_referral,
    program_row,
)
from app.referrals.types import (
    HeldReferral,
    Invite,
    InviteQuota,
    InviteStatus,
    Referral,
    ReferralProgram,
    released,
    shown,
)
from app.storage.database import database


async def quota_of(merchant_id: UUID, member_id: UUID, at: datetime | None = None) -> InviteQuota:
    """Return what a member may still send, now or at an instant."""
    row = await database().row(READ_QUOTA, merchant_id, at, member_id)
    if row is None:
        raise RuntimeError("a merchant has no referral program")
    return InviteQuota.of(row)


async def referral_of_member(info: Info, member_id: UUID) -> Referral | None:
    """Return the referral that brought a member, read together with those of its siblings; a member's own only."""
    viewer = info.context.viewer
    if viewer.role is Role.MEMBER and viewer.member_id != member_id:
        return None
    return released(await info.context.load(_referrals_by_referee, member_id))


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


@refetches("invite")
async def _invite(viewer: Viewer, node_id: str) -> Invite | None:
    row = await find_invite(viewer, node_id)
    return None if row is None else Invite.of(row)


@refetches("referral")
async def _referral(viewer: Viewer, node_id: str) -> Referral | HeldReferral | None:
    row = await find_referral(viewer, node_id)
    return None if row is None else shown(row)
