"""What statements select of members."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, TypedDict, TypeVar, cast
from uuid import UUID

from app import ids
from app.api.context import Role, Viewer
from app.storage.database import Tx, database
from app.storage.gone import MemberGoneError, forfeiting
from app.storage.statements import NoRow, columns, row_of, statement


@row_of(m="member", w="wallet")
class MemberRow(TypedDict):
    """A member `m` with its wallet `w`."""

    member_id: Annotated[UUID, "m.id"]
    member_external_id: Annotated[str | None, "m.external_id"]
    member_email: Annotated[bytes | None, "m.email"]
    member_email_verified: Annotated[bool, "m.email_verified"]
    member_pending_email: Annotated[bytes | None, "m.pending_email"]
    member_display_name: Annotated[bytes | None, "m.display_name"]
    member_source: Annotated[str, "m.source"]
    member_joined_at: Annotated[datetime, "m.joined_at"]
    member_erased_at: Annotated[datetime | None, "m.erased_at"]
    wallet_version: Annotated[int, "w.version"]
    wallet_points: Annotated[int, "w.points"]
    wallet_held_points: Annotated[int, "w.held_points"]
    # Of those, what holds have whose time has passed: it can be spent, though nobody has written that down.
    wallet_late_points: Annotated[
        int,
        """CASE WHEN w.held_points > 0 THEN (
            SELECT coalesce(sum(held_points), 0)::int FROM hold
            WHERE merchant_id = :merchant_id AND member_id = w.member_id AND status = 'HELD' AND held_until <= now()
        ) ELSE 0 END""",
    ]
    wallet_pending_points: Annotated[int, "w.pending_points"]
    wallet_shortfall: Annotated[int, "w.shortfall"]


AnyMemberRow = TypeVar("AnyMemberRow", bound=MemberRow)

#: Continues a FROM: the member and wallet of a row's `member_id`, each looked up by its whole key. OFFSET 0 keeps the
#: planner from joining by the merchant's index, as it would before the first ANALYZE.
JOIN_MEMBER: Final = """
    CROSS JOIN LATERAL (SELECT * FROM member WHERE merchant_id = :merchant_id AND id = {0}.member_id OFFSET 0) m
    CROSS JOIN LATERAL (SELECT * FROM wallet WHERE merchant_id = :merchant_id AND member_id = {0}.member_id OFFSET 0) w
"""
#: The same, of whoever stands for the row's member: what is written once keeps the member that it was written for.
JOIN_STANDING: Final = f"""
    CROSS JOIN LATERAL (
        SELECT coalesce(merged_into_id, id) AS member_id FROM member
        WHERE merchant_id = :merchant_id AND id = {{0}}.member_id OFFSET 0
    ) standing
    {JOIN_MEMBER.format("standing")}
"""
_FROM: Final = """
    FROM member m
    CROSS JOIN LATERAL (SELECT * FROM wallet WHERE merchant_id = :merchant_id AND member_id = m.id OFFSET 0) w
"""
#: Whether a member is neither merged nor erased.
IS_HERE: Final = "(merged_into_id IS NULL AND erased_at IS NULL)"
#: An array: the member {0} and the records that were merged into it.
RECORDS_OF: Final = """
    ARRAY(
        SELECT {0} UNION ALL SELECT id FROM member WHERE merchant_id = :merchant_id AND merged_into_id = {0}
    )
"""
#: The member `:member_id`, or who stands for it.
FIND: Final = statement(
    MemberRow,
    f"""
SELECT {columns(MemberRow)} {_FROM}
WHERE m.merchant_id = :merchant_id AND m.id = (
    SELECT coalesce(merged_into_id, id) FROM member WHERE merchant_id = :merchant_id AND id = :member_id
)
""",
)
LIST: Final = statement(
    MemberRow,
    f"""
SELECT {columns(MemberRow)} {_FROM}
WHERE m.merchant_id = :merchant_id AND m.id < :before AND m.merged_into_id IS NULL ORDER BY m.id DESC LIMIT :limit
""",
)


class _AskedMemberRow(MemberRow):
    """A member, and by which id it was asked for: its own, or that of one that was merged into it."""

    asked_id: UUID


BY_ID: Final = statement(
    _AskedMemberRow,
    f"""
SELECT asked.member_id AS asked_id, {columns(MemberRow)} FROM unnest(:member_ids::uuid[]) AS asked (member_id)
{JOIN_STANDING.format("asked")}
""",
)


class _PartRow(MemberRow):
    """A record that was merged, and into which member."""

    kept_id: UUID


MERGED_FROM: Final = statement(
    _PartRow,
    f"""
SELECT m.merged_into_id AS kept_id, {columns(MemberRow)} {_FROM}
WHERE m.merchant_id = :merchant_id AND m.merged_into_id = ANY(:member_ids::uuid[]) ORDER BY m.id
""",
)
#: The member that `:external_source` calls `:external_id`. In the order of the index to read: to a planner that saw the
#: table empty, the index of a member's ids is as good (1,900 buffers instead of 3 after 2,000 members).
BY_EXTERNAL_ID: Final = """
    SELECT member_id FROM (
        SELECT external_id, member_id FROM external_id
        WHERE merchant_id = :merchant_id AND source = :external_source AND external_id >= :external_id
        ORDER BY external_id LIMIT 1
    ) next WHERE external_id = :external_id
"""
# By one key and by the other, in no order: with OR, or with UNION, a plan that was made while there were few members
# walks all of them by their ids.
FIND_EXISTING: Final = statement(
    MemberRow,
    f"""
SELECT {columns(MemberRow)} {_FROM}
WHERE m.merchant_id = :merchant_id AND m.id = ANY(ARRAY(
    {BY_EXTERNAL_ID}
    UNION ALL
    SELECT member_id FROM address WHERE merchant_id = :merchant_id AND email_index = :email_index
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
    row = None if member_id is None else await member_row(viewer, member_id)
    if row is None or (viewer.role is Role.MEMBER and row["member_id"] != viewer.member_id):
        return None
    return row


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
    hidden = dict.fromkeys(("member_external_id", "member_email", "member_pending_email", "member_display_name"), None)
    return cast("AnyMemberRow", {**row, **hidden})


async def member_row(viewer: Viewer, member_id: UUID) -> MemberRow | None:
    """Return a member of the viewer's merchant, or the one that it was merged into."""
    return await database().row(FIND, merchant_id=viewer.merchant_id, member_id=member_id)


EXISTS: Final = statement(
    NoRow, f"SELECT FROM member WHERE merchant_id = :merchant_id AND id = :member_id AND {IS_HERE}"
)


async def member_exists(viewer: Viewer, member_id: UUID) -> bool:
    """Whether the merchant has this member, and it isn't gone."""
    return await database().row(EXISTS, merchant_id=viewer.merchant_id, member_id=member_id) is not None


class _LockedRow(TypedDict):
    is_here: bool


LOCK: Final = statement(
    _LockedRow,
    f"""
SELECT {IS_HERE} AS is_here FROM member WHERE merchant_id = :merchant_id AND id = :member_id FOR NO KEY UPDATE
""",
)


async def lock_member(tx: Tx, merchant_id: UUID, member_id: UUID) -> bool:
    """Lock a member until the end of the transaction. Returns False when there is none.

    Raises MemberGoneError.
    """
    row = await tx.row(LOCK, merchant_id=merchant_id, member_id=member_id)
    if row is not None and not row["is_here"] and member_id not in forfeiting.get():
        raise MemberGoneError.of(member_id)
    return row is not None


async def members_by_id(viewer: Viewer, member_ids: list[UUID]) -> Mapping[UUID, MemberRow]:
    """Return the rows of members that exist, each by the id that it was asked by."""
    rows = await database().rows(BY_ID, merchant_id=viewer.merchant_id, member_ids=member_ids)
    return {row["asked_id"]: row for row in rows}


async def merged_by_member(viewer: Viewer, member_ids: list[UUID]) -> Mapping[UUID, list[MemberRow]]:
    """Return the records that were merged into each member, the oldest first."""
    grouped: dict[UUID, list[MemberRow]] = {member_id: [] for member_id in member_ids}
    for row in await database().rows(MERGED_FROM, merchant_id=viewer.merchant_id, member_ids=member_ids):
        grouped[row["kept_id"]].append(row)
    return grouped


async def find_existing(
    viewer: Viewer, external_source: str, external_id: str | None, email_index: bytes | None
) -> MemberRow | None:
    """Return the member that has this external id or has proved this address; the older one where they are two."""
    return await database().row(
        FIND_EXISTING,
        merchant_id=viewer.merchant_id,
        external_source=external_source,
        external_id=external_id,
        email_index=email_index,
    )


class ExternalIdRow(TypedDict):
    """What a source calls a member."""

    member_id: UUID
    source: str
    external_id: str


EXTERNAL_IDS: Final = statement(
    ExternalIdRow,
    """
SELECT member_id, source, external_id FROM external_id
WHERE merchant_id = :merchant_id AND member_id = ANY(:member_ids::uuid[]) ORDER BY member_id, source, external_id
""",
)


async def external_ids_by_member(viewer: Viewer, member_ids: list[UUID]) -> Mapping[UUID, list[ExternalIdRow]]:
    """Return the external ids of each member, in the order of their sources."""
    grouped: dict[UUID, list[ExternalIdRow]] = {member_id: [] for member_id in member_ids}
    for row in await database().rows(EXTERNAL_IDS, merchant_id=viewer.merchant_id, member_ids=member_ids):
        grouped[row["member_id"]].append(row)
    return grouped
