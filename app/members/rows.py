"""What statements select of members."""

from typing import Final
from uuid import UUID

from app import ids
from app.api.context import Role, Viewer
from app.storage.database import Row, database

#: What a statement selects to make a Member; `m` is the member, `w` its wallet.
MEMBER_COLUMNS: Final = """
    m.id AS member_id, m.external_id AS member_external_id, m.email AS member_email,
    m.email_verified AS member_email_verified, m.display_name AS member_display_name,
    m.source AS member_source, m.joined_at AS member_joined_at, w.version AS wallet_version,
    w.points AS wallet_points
"""


#: A member's wallet is looked up by its whole key, whatever the planner knows of the tables.
FROM: Final = """
    FROM member m
    CROSS JOIN LATERAL (SELECT * FROM wallet WHERE merchant_id = $1 AND member_id = m.id OFFSET 0) w
"""


FIND: Final = f"SELECT {MEMBER_COLUMNS} {FROM} WHERE m.merchant_id = $1 AND m.id = $2"


LIST: Final = f"""
SELECT {MEMBER_COLUMNS} {FROM} WHERE m.merchant_id = $1 AND m.id < $2 ORDER BY m.id DESC LIMIT $3
"""


async def find_member(viewer: Viewer, node_id: str, kind: ids.Kind = "member") -> Row | None:
    """Return the row behind a member's or wallet's id, if this viewer may see it: a member sees itself only."""
    member_id = ids.decode(kind, node_id)
    if member_id is None or (viewer.role is Role.MEMBER and member_id != viewer.member_id):
        return None
    return await member_row(viewer, member_id)


async def member_row(viewer: Viewer, member_id: UUID) -> Row | None:
    """Return a member of the viewer's merchant."""
    return await database().row(FIND, viewer.merchant_id, member_id)
