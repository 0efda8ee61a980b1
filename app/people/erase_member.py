"""eraseMember: a person is forgotten; what it did stays, under an id that names nobody."""

from enum import Enum
from typing import Annotated

import strawberry

from app.api.context import Viewer
from app.api.inputs import Problems, member_id_of
from app.api.operations import Info, InvalidInput, NotFound, mutation, not_found
from app.api.scalars import described
from app.members.mailboxes import mailbox_index
from app.members.rows import member_row
from app.members.token_feed import NEVER, TokenFeed
from app.members.types import Member, mask_email
from app.people import erasing
from app.people.known_by import KnownBy


@strawberry.enum(description="Why a person is erased.")
class ErasureGround(Enum):
    """Without a text: that could say again who it was."""

    REQUEST = described("REQUEST", "The person asked for it.")
    RETENTION = described("RETENTION", "Its time was over.")
    SHOP = described("SHOP", "The shop wants it so.")


@strawberry.input(description="A member, or an address that never became one: exactly one of them.")
class EraseMemberInput:
    member_id: strawberry.ID | None = strawberry.field(default=None, description="The member.")
    email: str | None = strawberry.field(
        default=None, description="An address that is no member's, to which codes or invites were sent."
    )
    ground: ErasureGround = strawberry.field(description="Why.")


@strawberry.type(description="The person is forgotten.")
class EraseMemberSuccess:
    member: Member | None = strawberry.field(
        description="What is left of the member: its id, `source`, `joinedAt` and `erasedAt`. Null of an address."
    )


EraseMemberResult = Annotated[
    EraseMemberSuccess | InvalidInput | NotFound,
    strawberry.union("EraseMemberResult", description="What is left, or why nobody was erased."),
]


@mutation(
    description="Forget a person: name, addresses, numbers and words are gone from every row. Points are debited, "
    "codes revoked, holds released, open invites cancelled, tokens ended. What it bought, redeemed and brought stays, "
    "under an id that names nobody, and no total changes. It can't be undone. ADMIN and SUPPORT."
)
async def erase_member(
    info: Info, input: Annotated[EraseMemberInput, strawberry.argument(description="Whom, and why.")]
) -> EraseMemberResult:
    viewer = info.context.viewer
    problems = Problems()
    address = None if input.email is None else problems.email("email", input.email)
    if (input.member_id is None) == (input.email is None):
        problems.add("memberId", "or email must be given, and not both")
    problems.refuse_if_any()
    if address is not None:
        await _erase_address(viewer, problems, address, input.ground)
        return EraseMemberSuccess(member=None)
    named = input.member_id or strawberry.ID("")
    member_id = member_id_of(viewer, named)
    if not await erasing.erase_member(viewer.tenant.keys, viewer.actor, member_id, input.ground.value):
        raise not_found("member", named)
    TokenFeed.of_process().end((viewer.merchant_id, member_id), NEVER)
    row = await member_row(viewer, member_id)
    return EraseMemberSuccess(member=None if row is None else Member.of(row))


async def _erase_address(viewer: Viewer, problems: Problems, address: str, ground: ErasureGround) -> None:
    """Erase an address that is no member's. Raises Refused."""
    keys = viewer.tenant.keys
    person = KnownBy([], [keys.email_index(address)], [mailbox_index(keys, address)])
    try:
        is_erased = await erasing.erase_address(keys, viewer.actor, person, ground.value)
    except erasing.MembersAddressError:
        problems.add("email", "is a member's: erase the member")
        problems.refuse_if_any()
        raise
    if not is_erased:
        raise not_found("address", mask_email(address))
