"""What statements select of members."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, TypedDict, TypeVar, cast
from uuid import UUID

from app import ids
from app.api.context import Role, Viewer
from app.storage.database import database
from app.storage.statements import columns, row_of, statement


@row_of(m="member", w="wallet")
class MemberRow(TypedDict):
    """A member `m` with its wallet `w`."""

    member_id: Annotated[UUID, "m.id"]
    member_external_id: Annotated[str | None, "m.external_id"]
    member_email: Annotated[bytes | None, "m.email"]
    member_email_verified: Annotated[bool, "m.email_verified"]
    member_display_name: Annotated[bytes | None, "m.display_name"]
    member_source: Annotated[str, "m.source"]
    member_joined_at: Annotated[datetime, "m.joined_at"]
    wallet_version: Annotated[int, "w.version"]
    wallet_points: Annotated[int, "w.points"]
    wallet_held_points: Annotated[int, "w.held_points"]
    wallet_pending_points: Annotated[int, "w.pending_points"]
    wallet_shortfall: Annotated[int, "w.shortfall"]


AnyMemberRow = TypeVar("AnyMemberRow", bound=MemberRow)

#: Continues a FROM: the member and wallet of a row's `member_id`, each looked up by its whole key. OFFSET 0 keeps the
#: planner from joining by the merchant's index, as it would before the first ANALYZE.
JOIN_MEMBER: Final = """
    CROSS JOIN LATERAL (SELECT * FROM member WHERE merchant_id = :merchant_id AND id = {0}.member_id OFFSET 0) m
    CROSS JOIN LATERAL (SELECT * FROM wallet WHERE merchant_id = :merchant_id AND member_id = {0}.member_id OFFSET 0) w
"""
_FROM: Final = """
    FROM member m
    CROSS JOIN LATERAL (SELECT * FROM wallet WHERE merchant_id = :merchant_id AND member_id = m.id OFFSET 0) w
"""
FIND: Final = statement(
    MemberRow,
    f"SELECT {columns(MemberRow)} {_FROM} WHERE m.merchant_id = :merchant_id AND m.id = :member_id",
)
LIST: Final = statement(
    MemberRow,
    f"""
SELECT {columns(MemberRow)} {_FROM}
WHERE m.merchant_id = :merchant_id AND m.id < :before ORDER BY m.id DESC LIMIT :limit
""",
)
BY_ID: Final = statement(
    MemberRow,
    f"SELECT {columns(MemberRow)} {_FROM} WHERE m.merchant_id = :merchant_id AND m.id = ANY(:member_ids::uuid[])",
)
# By one key and by the other, in no order: with OR, or with UNION, a plan that was made while there were few members
# walks all of them by their ids.
FIND_EXISTING: Final = statement(
    MemberRow,
    f"""
SELECT {columns(MemberRow)} {_FROM}
WHERE m.merchant_id = :merchant_id AND m.id = ANY(ARRAY(
    SELECT id FROM member WHERE merchant_id = :merchant_id AND external_id = :external_id
    UNION ALL
    SELECT id FROM member WHERE merchant_id = :merchant_id AND email_index = :email_index
)) ORDER BY m.id LIMIT 1
""",
)


#: The other one of a referral whose points were given, whichever of both asks.
FIND_TIED: Final = statement(
    MemberRow,
    f"""
SELECT {columns(MemberRow)} {_FROM}
WHERE m.merchant_id = :merchant_id AND m.id = :member_id AND EXISTS (
    SELECT FROM referral r
    WHERE r.merchant_id = :merchant_id AND r.referee_id IN (:member_id, :viewer_id)
        AND r.referrer_id IN (:member_id, :viewer_id) AND r.released_at IS NOT NULL
)
""",
)


async def find_member(viewer: Viewer, node_id: str, kind: ids.Kind = "member") -> MemberRow | None:
    """Return the row behind a member's or wallet's id, if this viewer may see it: a member sees itself only."""
    member_id = ids.decode(kind, node_id)
    if member_id is None or (viewer.role is Role.MEMBER and member_id != viewer.member_id):
        return None
    return await member_row(viewer, member_id)


async def find_tied_member(viewer: Viewer, node_id: str) -> MemberRow | None:
    """Return the row behind the id of a member that a referral ties to the viewing one, as referrals show it."""
    member_id = ids.decode("member", node_id)
    if member_id is None or viewer.member_id is None:
        return None
    row = await database().row(
        FIND_TIED, merchant_id=viewer.merchant_id, member_id=member_id, viewer_id=viewer.member_id
    )
    return None if row is None else unnamed(row)


def unnamed(row: AnyMemberRow) -> AnyMemberRow:
    """Return a member's row, or that of what is a member's, without what tells who it is."""
    return cast("AnyMemberRow", {**row, "member_external_id": None, "member_email": None, "member_display_name": None})


async def member_row(viewer: Viewer, member_id: UUID) -> MemberRow | None:
    """Return a member of the viewer's merchant."""
    return await database().row(FIND, merchant_id=viewer.merchant_id, member_id=member_id)


async def members_by_id(viewer: Viewer, member_ids: list[UUID]) -> Mapping[UUID, MemberRow]:
    """Return the rows of members that exist."""
    rows = await database().rows(BY_ID, merchant_id=viewer.merchant_id, member_ids=member_ids)
    return {row["member_id"]: row for row in rows}


async def find_existing(viewer: Viewer, external_id: str | None, email_index: bytes | None) -> MemberRow | None:
    """Return the member that has this external id or this address; the older one where they are two."""
    return await database().row(
        FIND_EXISTING, merchant_id=viewer.merchant_id, external_id=external_id, email_index=email_index
    )
