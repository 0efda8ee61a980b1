"""What statements select of the program, quotas, invites and referrals, and what reads them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, TypedDict
from uuid import UUID

from app import ids
from app.api.access import may
from app.api.context import Viewer
from app.members.rows import MemberRow
from app.points.rows import WholeEntryRow
from app.storage.database import database
from app.storage.statements import Statement, columns, row_of, statement


@row_of(p="referral_program")
class ProgramRow(TypedDict):
    """A merchant's program `p`."""

    program_referrer_points: Annotated[int, "p.referrer_points"]
    program_referee_points: Annotated[int, "p.referee_points"]
    program_invites_per_batch: Annotated[int, "p.invites_per_batch"]
    program_invites_per_day: Annotated[int, "p.invites_per_day"]
    program_invites_lifetime: Annotated[int, "p.invites_lifetime"]
    program_invite_lifetime_days: Annotated[int, "p.invite_lifetime_days"]
    program_converts_on: Annotated[str, "p.converts_on"]
    program_reports_members: Annotated[bool, "p.reports_members"]
    program_review_policy: Annotated[str, "p.review_policy"]
    program_refund_window_days: Annotated[int, "p.refund_window_days"]
    program_minimum_purchase: Annotated[int | None, "p.minimum_purchase"]
    program_one_reward_per_mailbox: Annotated[bool, "p.one_reward_per_mailbox"]


@row_of(p="referral_program", q="invite_quota?")
class QuotaRow(TypedDict):
    """What the program `p` leaves a member `today`, by its quota `q` if it has one: JOIN_QUOTA has both.

    A day that is behind the latest one counts to that.
    """

    quota_batch: Annotated[int, "p.invites_per_batch"]
    quota_today: Annotated[
        int, "greatest(0, p.invites_per_day - CASE WHEN q.day >= today THEN q.sent_today ELSE 0 END)"
    ]
    quota_lifetime: Annotated[int, "greatest(0, p.invites_lifetime - coalesce(q.sent_lifetime, 0))"]


@row_of(i="invite")
class InviteRow(TypedDict):
    """An invite `i`."""

    invite_id: Annotated[UUID, "i.id"]
    invite_referrer_id: Annotated[UUID, "i.referrer_id"]
    invite_status: Annotated[str, "i.status"]
    invite_email: Annotated[bytes | None, "i.email"]
    invite_token: Annotated[bytes | None, "i.token"]
    invite_created_at: Annotated[datetime, "i.created_at"]
    invite_expires_at: Annotated[datetime, "i.expires_at"]
    invite_accepted_at: Annotated[datetime | None, "i.accepted_at"]
    invite_obstacle: Annotated[str | None, "i.obstacle"]
    invite_converted_at: Annotated[datetime | None, "i.converted_at"]
    invite_email_index: Annotated[bytes, "i.email_index"]


@row_of(i="invite", m="member", w="wallet")
class WholeInviteRow(InviteRow, MemberRow):
    """An invite with the member that sent it."""


@row_of(r="referral")
class ReferralRow(TypedDict):
    """A referral `r`, held or not.

    Selected besides, with the prefixes `referrer_` and `referee_`, are the WholeEntryRow of each of its members: `part`
    reads them. Those of a held referral have no entry, and the entries' fields are null.
    """

    referral_id: Annotated[UUID, "r.id"]
    referral_referee_id: Annotated[UUID, "r.referee_id"]
    referral_flags: Annotated[list[str], "r.flags"]
    referral_referrer_points: Annotated[int, "r.referrer_points"]
    referral_referee_points: Annotated[int, "r.referee_points"]
    referral_converted_at: Annotated[datetime, "r.converted_at"]
    referral_released_at: Annotated[datetime | None, "r.released_at"]
    referral_declined_at: Annotated[datetime | None, "r.declined_at"]
    referral_reversed_at: Annotated[datetime | None, "r.reversed_at"]
    referral_shortfall: Annotated[int | None, "r.shortfall"]


#: Continues a FROM that has `p`, the program: the merchant's day at the instant `:at` (now without one), and the quota
#: of the member `:member_id`.
JOIN_QUOTA: Final = """
    CROSS JOIN LATERAL (
        SELECT (coalesce(:at::timestamptz, now()) AT TIME ZONE time_zone)::date AS today
        FROM merchant WHERE merchant_id = :merchant_id
    ) days
    LEFT JOIN LATERAL (
        SELECT * FROM invite_quota WHERE merchant_id = :merchant_id AND member_id = :member_id OFFSET 0
    ) q ON true
"""
#: Continues a FROM that has an invite `i`: who sent it, each row looked up by its whole key, whatever the planner knows
#: of the tables.
JOIN_REFERRER: Final = """
    CROSS JOIN LATERAL (SELECT * FROM member WHERE merchant_id = :merchant_id AND id = i.referrer_id OFFSET 0) m
    CROSS JOIN LATERAL (SELECT * FROM wallet WHERE merchant_id = :merchant_id AND member_id = i.referrer_id OFFSET 0) w
"""

READ_PROGRAM: Final = statement(
    ProgramRow, f"SELECT {columns(ProgramRow)} FROM referral_program p WHERE p.merchant_id = :merchant_id"
)
READ_QUOTA: Final = statement(
    QuotaRow, f"SELECT {columns(QuotaRow)} FROM referral_program p {JOIN_QUOTA} WHERE p.merchant_id = :merchant_id"
)
FIND_INVITE: Final = statement(
    WholeInviteRow,
    f"""
SELECT {columns(WholeInviteRow)} FROM invite i {JOIN_REFERRER}
WHERE i.merchant_id = :merchant_id AND i.id = :invite_id AND (:member_id::uuid IS NULL OR i.referrer_id = :member_id)
""",
)


def _invites(condition: str) -> Statement[WholeInviteRow]:
    return statement(
        WholeInviteRow,
        f"""
SELECT {columns(WholeInviteRow)} FROM invite i {JOIN_REFERRER}
WHERE i.merchant_id = :merchant_id AND i.id < :before {condition} ORDER BY i.id DESC LIMIT :limit
""",
    )


#: By whether the list is of one referrer, and of one status: each has an index of its own.
LIST_INVITES: Final = {
    (False, False): _invites(""),
    (False, True): _invites("AND i.status = :status"),
    (True, False): _invites("AND i.referrer_id = :member_id"),
    (True, True): _invites("AND i.referrer_id = :member_id AND i.status = :status"),
}

_REFERRAL: Final = f"""
    {columns(ReferralRow)},
    {columns(WholeEntryRow, prefix="referrer_", e="referrer_entry", m="referrer", w="referrer_wallet")},
    {columns(WholeEntryRow, prefix="referee_", e="referee_entry", m="referee", w="referee_wallet")}
"""
#: Continues a FROM that has a referral `r`: both members, their wallets, and their entries if it has them.
_JOIN_MEMBERS: Final = """
    CROSS JOIN LATERAL (SELECT * FROM member WHERE merchant_id = :merchant_id AND id = r.referrer_id OFFSET 0) referrer
    CROSS JOIN LATERAL (
        SELECT * FROM wallet WHERE merchant_id = :merchant_id AND member_id = r.referrer_id OFFSET 0
    ) referrer_wallet
    LEFT JOIN LATERAL (
        SELECT * FROM points_entry WHERE merchant_id = :merchant_id AND id = r.referrer_entry_id OFFSET 0
    ) referrer_entry ON true
    CROSS JOIN LATERAL (
        -- Of a referral that a merging dropped, whoever stands for the referee.
        SELECT * FROM member WHERE merchant_id = :merchant_id AND id = (
            SELECT coalesce(merged_into_id, id) FROM member WHERE merchant_id = :merchant_id AND id = r.referee_id
        ) OFFSET 0
    ) referee
    CROSS JOIN LATERAL (
        SELECT * FROM wallet WHERE merchant_id = :merchant_id AND member_id = referee.id OFFSET 0
    ) referee_wallet
    LEFT JOIN LATERAL (
        SELECT * FROM points_entry WHERE merchant_id = :merchant_id AND id = r.referee_entry_id OFFSET 0
    ) referee_entry ON true
"""
#: A held referral is for those that may read the list of them.
FIND_REFERRAL: Final = statement(
    ReferralRow,
    f"""
SELECT {_REFERRAL} FROM referral r {_JOIN_MEMBERS}
WHERE r.merchant_id = :merchant_id AND r.id = :referral_id
    AND (:member_id::uuid IS NULL OR :member_id IN (r.referrer_id, r.referee_id))
    AND (r.released_at IS NOT NULL OR :sees_held)
""",
)
REFERRALS_OF_REFEREES: Final = statement(
    ReferralRow,
    f"""
SELECT {_REFERRAL} FROM referral r {_JOIN_MEMBERS}
WHERE r.merchant_id = :merchant_id AND r.referee_id = ANY(:member_ids::uuid[])
""",
)


def _referrals(condition: str) -> Statement[ReferralRow]:
    return statement(
        ReferralRow,
        f"""
SELECT {_REFERRAL} FROM referral r {_JOIN_MEMBERS}
WHERE r.merchant_id = :merchant_id AND r.id < :before AND {condition} ORDER BY r.id DESC LIMIT :limit
""",
    )


LIST_REFERRALS: Final = _referrals("r.released_at IS NOT NULL")
LIST_REFERRALS_OF_REFERRER: Final = _referrals("r.released_at IS NOT NULL AND r.referrer_id = :member_id")
LIST_HELD: Final = _referrals("r.released_at IS NULL AND r.reversed_at IS NULL AND r.declined_at IS NULL")
LIST_DECLINED: Final = _referrals("r.declined_at IS NOT NULL")


async def program_row(viewer: Viewer) -> ProgramRow:
    """Return the merchant's program; every merchant has one."""
    row = await database().row(READ_PROGRAM, merchant_id=viewer.merchant_id)
    if row is None:
        raise RuntimeError("a merchant has no referral program")
    return row


async def invite_row(viewer: Viewer, invite_id: UUID) -> WholeInviteRow | None:
    """Return an invite of the viewer's merchant; a member's own only."""
    return await database().row(
        FIND_INVITE, merchant_id=viewer.merchant_id, invite_id=invite_id, member_id=viewer.member_id
    )


async def find_invite(viewer: Viewer, node_id: str) -> WholeInviteRow | None:
    """Return the invite behind an id; a member sees those that it sent."""
    invite_id = ids.decode("invite", node_id)
    return None if invite_id is None else await invite_row(viewer, invite_id)


async def referral_row(viewer: Viewer, referral_id: UUID) -> ReferralRow | None:
    """Return a referral that this viewer may see: a member those that it is part of, most nobody held ones."""
    return await database().row(
        FIND_REFERRAL,
        merchant_id=viewer.merchant_id,
        referral_id=referral_id,
        member_id=viewer.member_id,
        sees_held=may(viewer.role, "HeldReferral"),
    )


async def find_referral(viewer: Viewer, node_id: str) -> ReferralRow | None:
    """Return the referral behind an id, held or not, if this viewer may see it."""
    referral_id = ids.decode("referral", node_id)
    return None if referral_id is None else await referral_row(viewer, referral_id)


async def referrals_by_referee(viewer: Viewer, member_ids: list[UUID]) -> Mapping[UUID, ReferralRow | None]:
    """Return the referral that brought each member, held or not."""
    rows = await database().rows(REFERRALS_OF_REFEREES, merchant_id=viewer.merchant_id, member_ids=member_ids)
    found = {row["referral_referee_id"]: row for row in rows}
    return {member_id: found.get(member_id) for member_id in member_ids}
