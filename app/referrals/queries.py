"""Reading the program, quotas, invites and referrals: one statement per list, whatever is selected on its rows."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import strawberry

from app.api.access import is_another
from app.api.connections import After, Connection, First, connect, page
from app.api.context import Viewer
from app.api.node import refetches
from app.api.operations import Info, query
from app.referrals.rows import (
    LIST_DECLINED,
    LIST_HELD,
    LIST_INVITES,
    LIST_REFERRALS,
    LIST_REFERRALS_OF_REFERRER,
    READ_QUOTA,
    find_invite,
    find_referral,
    program_row,
    referrals_by_referee,
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
    row = await database().row(READ_QUOTA, merchant_id=merchant_id, at=at, member_id=member_id)
    if row is None:
        raise RuntimeError("a merchant has no referral program")
    return InviteQuota.of(row)


async def referral_of_member(info: Info, member_id: UUID) -> Referral | None:
    """Return the referral that brought a member, read together with those of its siblings; a member's own only."""
    if is_another(info.context.viewer, member_id):
        return None
    return released(await info.context.load(referrals_by_referee, member_id))


@query(description="What inviting brings, and how much of it there may be. Everyone.")
async def referral_program(info: Info) -> ReferralProgram:
    return ReferralProgram.of(await program_row(info.context.viewer))


@query(description="How many invites the viewing member may still send; for MEMBER, null to others.")
async def invite_quota(info: Info) -> InviteQuota | None:
    viewer = info.context.viewer
    return None if viewer.member_id is None else await quota_of(viewer.merchant_id, viewer.member_id)


@query(description="Invites, newest first: to a member those that it sent, to API keys all. Everyone.")
async def invites(
    info: Info,
    first: First = None,
    after: After = None,
    status: Annotated[InviteStatus | None, strawberry.argument(description="Only invites in this status.")] = None,
) -> Connection[Invite]:
    viewer = info.context.viewer
    asked = page(first, after)
    only: dict[str, object] = {}
    if viewer.member_id is not None:
        only["member_id"] = viewer.member_id
    if status is not None:
        only["status"] = status.value
    statement = LIST_INVITES[viewer.member_id is not None, status is not None]
    rows = await database().rows(statement, merchant_id=viewer.merchant_id, before=asked.id, limit=asked.limit, **only)
    return connect(rows, asked, Invite.of, key="invite_id")


@query(
    description="Who brought whom, newest first, reversed ones included: to a member those whom it brought, to API "
    "keys all. Everyone."
)
async def referrals(info: Info, first: First = None, after: After = None) -> Connection[Referral]:
    viewer = info.context.viewer
    asked = page(first, after)
    bounds = {"merchant_id": viewer.merchant_id, "before": asked.id, "limit": asked.limit}
    if viewer.member_id is None:
        rows = await database().rows(LIST_REFERRALS, **bounds)
    else:
        rows = await database().rows(LIST_REFERRALS_OF_REFERRER, **bounds, member_id=viewer.member_id)
    return connect(rows, asked, Referral.of, key="referral_id")


@query(description="Conversions whose points wait for a person, newest first. ADMIN, SUPPORT and ANALYST.")
async def held_referrals(
    info: Info,
    first: First = None,
    after: After = None,
    declined: Annotated[
        bool | None, strawberry.argument(description="Those that a person declined, instead of those that wait.")
    ] = None,
) -> Connection[HeldReferral]:
    asked = page(first, after)
    rows = await database().rows(
        LIST_DECLINED if declined else LIST_HELD,
        merchant_id=info.context.viewer.merchant_id,
        before=asked.id,
        limit=asked.limit,
    )
    return connect(rows, asked, HeldReferral.of, key="referral_id")


@refetches("invite")
async def _invite(viewer: Viewer, node_id: str) -> Invite | None:
    row = await find_invite(viewer, node_id)
    return None if row is None else Invite.of(row)


@refetches("referral")
async def _referral(viewer: Viewer, node_id: str) -> Referral | HeldReferral | None:
    row = await find_referral(viewer, node_id)
    return None if row is None else shown(row)
