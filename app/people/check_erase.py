"""checkErase: what erasing a member would end."""

from typing import Annotated, Final, TypedDict
from uuid import UUID

import strawberry

from app import ids
from app.api.operations import Info, query
from app.coupons.rows import SHOWN_STATE
from app.members.rows import IS_HERE
from app.people.erasing import CODES_OF, HOLDS_OF, OPEN_INVITES_OF
from app.people.known_by import known_by
from app.storage.database import database
from app.storage.statements import statement


@strawberry.type(description="What erasing a member would end.")
class ErasePreview:
    live_codes: int = strawberry.field(description="Codes that it could spend, which would be revoked.")
    points: int = strawberry.field(description="Points that would be debited, pending and held ones included.")
    pending_invites: int = strawberry.field(description="Invites that nobody has accepted, which would be cancelled.")
    holds: int = strawberry.field(description="Holds that would be released.")


class _PreviewRow(TypedDict):
    live_codes: int
    points: int
    pending_invites: int
    holds: int


class _StandingRow(TypedDict):
    id: UUID


FIND: Final = statement(
    _StandingRow,
    f"""
SELECT id FROM member WHERE merchant_id = :merchant_id AND {IS_HERE} AND id = (
    SELECT coalesce(merged_into_id, id) FROM member WHERE merchant_id = :merchant_id AND id = :member_id
)
""",
)
# Of the person whom erasing would know, by what it would end.
PREVIEW: Final = statement(
    _PreviewRow,
    f"""
SELECT (
    SELECT coalesce(sum(points), 0)::int FROM wallet
    WHERE merchant_id = :merchant_id AND member_id = ANY(:member_ids::uuid[]) AND closed_at IS NULL
) AS points, (
    SELECT count(*)::int FROM code c JOIN pool p ON p.merchant_id = :merchant_id AND p.id = c.pool_id
    WHERE c.merchant_id = :merchant_id AND c.id = ANY(ARRAY({CODES_OF})) AND {SHOWN_STATE} = 'ALLOCATED'
) AS live_codes, (
    SELECT count(*)::int FROM invite WHERE merchant_id = :merchant_id AND id = ANY(ARRAY({OPEN_INVITES_OF}))
) AS pending_invites, (
    SELECT count(*)::int FROM hold
    WHERE merchant_id = :merchant_id AND id = ANY(ARRAY({HOLDS_OF})) AND status = 'HELD' AND held_until > now()
) AS holds
FROM merchant WHERE merchant_id = :merchant_id
""",
)


@query(description="What `eraseMember` would end; null of nobody, and of a member that was erased. ADMIN and SUPPORT.")
async def check_erase(
    info: Info, member_id: Annotated[strawberry.ID, strawberry.argument(description="The member.")]
) -> ErasePreview | None:
    merchant_id, named = info.context.viewer.merchant_id, ids.decode("member", member_id)
    standing = await database().row(FIND, merchant_id=merchant_id, member_id=named)
    person = None if standing is None else await known_by(database(), merchant_id, standing["id"])
    if person is None:
        return None
    row = await database().row(PREVIEW, merchant_id=merchant_id, **person.parameters())
    return None if row is None else ErasePreview(**row)
