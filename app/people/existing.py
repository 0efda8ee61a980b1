"""People that are members already, and the refusal that says so."""

from typing import Final
from uuid import UUID

import strawberry

from app.api.context import Viewer
from app.api.operations import Refusal
from app.members.rows import BY_EXTERNAL_ID, FIND, JOIN_MEMBER, MemberRow, find_existing
from app.members.types import Member, MemberSource
from app.storage.database import Tx
from app.storage.statements import columns, statement


@strawberry.type(description="Another member has this external id, or has proved this address; nothing was changed.")
class MemberAlreadyExists(Refusal):
    existing: Member | None = strawberry.field(description="Who it is; only for callers that may see it.")


async def already_exists(
    viewer: Viewer, external_source: MemberSource, external_id: str | None, address: str | None
) -> MemberAlreadyExists:
    """Return the refusal for a person that is a member; who it is, because only those that may see members ask."""
    email_index = None if address is None else viewer.tenant.keys.email_index(address)
    return _refusal(await find_existing(viewer, external_source.value, external_id, email_index))


async def proved_by(tx: Tx, viewer: Viewer, member_id: UUID) -> MemberAlreadyExists:
    """Return the refusal for an address that this member has proved."""
    return _refusal(await tx.row(FIND, merchant_id=viewer.merchant_id, member_id=member_id))


FIND_CALLED: Final = statement(
    MemberRow, f"SELECT {columns(MemberRow)} FROM ({BY_EXTERNAL_ID}) called {JOIN_MEMBER.format('called')}"
)


async def called(tx: Tx, viewer: Viewer, external_source: MemberSource, external_id: str) -> MemberAlreadyExists:
    """Return the refusal for an external id that is another member's."""
    existing = await tx.row(
        FIND_CALLED,
        merchant_id=viewer.merchant_id,
        external_source=external_source.value,
        external_id=external_id,
    )
    return _refusal(existing)


def _refusal(existing: MemberRow | None) -> MemberAlreadyExists:
    return MemberAlreadyExists(
        message="A member with this external id or address is enrolled already.",
        existing=None if existing is None else Member.of(existing),
    )
