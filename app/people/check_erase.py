"""checkErase: what erasing a member would end."""

from typing import Annotated, Final, TypedDict

import strawberry

from app import ids
from app.api.operations import Info, query
from app.coupons.rows import SHOWN_STATE
from app.members.rows import IS_HERE
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


PREVIEW: Final = statement(
    _PreviewRow,
    f"""
SELECT w.points, (
    SELECT count(*)::int FROM code c JOIN pool p ON p.merchant_id = :merchant_id AND p.id = c.pool_id
    WHERE c.merchant_id = :merchant_id AND c.member_id = m.id AND {SHOWN_STATE} = 'ALLOCATED'
) AS live_codes, (
    SELECT count(*)::int FROM invite i
    WHERE i.merchant_id = :merchant_id AND i.status = 'PENDING' AND i.accepted_at IS NULL
        AND (i.referrer_id = m.id OR i.email_index IN (m.email_index, m.pending_email_index))
) AS pending_invites, (
    SELECT count(*)::int FROM hold h
    WHERE h.merchant_id = :merchant_id AND h.member_id = m.id AND h.status = 'HELD' AND h.held_until > now()
) AS holds
FROM (
    SELECT * FROM member WHERE merchant_id = :merchant_id AND {IS_HERE} AND id = (
        SELECT coalesce(merged_into_id, id) FROM member WHERE merchant_id = :merchant_id AND id = :member_id
    )
) m JOIN wallet w ON w.merchant_id = :merchant_id AND w.member_id = m.id
""",
)


@query(description="What `eraseMember` would end; null of nobody, and of a member that was erased. ADMIN and SUPPORT.")
async def check_erase(
    info: Info, member_id: Annotated[strawberry.ID, strawberry.argument(description="The member.")]
) -> ErasePreview | None:
    named = ids.decode("member", member_id)
    if named is None:
        return None
    row = await database().row(PREVIEW, merchant_id=info.context.viewer.merchant_id, member_id=named)
    return None if row is None else ErasePreview(**row)
