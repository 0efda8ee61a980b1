"""verifyMemberEmail: an address is known to be the member's; codes and an accepted invite that waited for it follow."""

from typing import Annotated

import strawberry

from app.api.context import Viewer
from app.api.inputs import Problems, member_id_of
from app.api.operations import Info, InvalidInput, NotFound, Refused, mutation, not_found
from app.members.types import Member
from app.people.addresses import HeldRow, Proved, as_it_is, on_held, prove
from app.people.existing import MemberAlreadyExists, proved_by
from app.referrals.rows import referral_row
from app.referrals.types import Referral, released
from app.storage.database import Tx


@strawberry.input(description="A member whose address is known to be its own.")
class VerifyMemberEmailInput:
    member_id: strawberry.ID = strawberry.field(description="The member.")
    email: str | None = strawberry.field(
        default=None,
        description="The address that was proved: it must be the member's present or pending one. Left out: the "
        "member's, if it was never edited.",
    )


@strawberry.type(description="The address counts, and what waited for it is in the member's wallet.")
class VerifyMemberEmailSuccess:
    member: Member = strawberry.field(description="The member, with its wallet as it is now.")
    displaced: list[Member] = strawberry.field(
        description="Who else had the address written down, and lost it; the shop may know them to be one person."
    )
    referral: Referral | None = strawberry.field(
        description="The referral that it converted; null when it converted none, and while that is held for review."
    )


VerifyMemberEmailResult = Annotated[
    VerifyMemberEmailSuccess | InvalidInput | NotFound | MemberAlreadyExists,
    strawberry.union("VerifyMemberEmailResult", description="The member, or why not."),
]


@mutation(
    description="Record a proof that an address is a member's own: whoever else wrote it down loses it. An invite that "
    "the member accepted converts with it, or waits for the purchase. Again changes nothing. ADMIN, CHECKOUT and "
    "SUPPORT."
)
async def verify_member_email(
    info: Info, input: Annotated[VerifyMemberEmailInput, strawberry.argument(description="Whose address.")]
) -> VerifyMemberEmailResult:
    viewer = info.context.viewer
    problems = Problems()
    address = None if input.email is None else problems.email("email", input.email)
    problems.refuse_if_any()
    member_id = member_id_of(viewer, input.member_id)
    named = None if address is None else viewer.tenant.keys.email_index(address)

    async def work(tx: Tx, held: HeldRow) -> Proved:
        return await _prove(tx, viewer, held, named)

    proved = await on_held(viewer, member_id, named, work)
    if proved is None:
        raise not_found("member", input.member_id)
    return VerifyMemberEmailSuccess(
        member=Member.of(proved.row),
        displaced=[Member.of(lost) for lost in proved.displaced],
        referral=None if proved.referral_id is None else released(await referral_row(viewer, proved.referral_id)),
    )


async def _prove(tx: Tx, viewer: Viewer, member: HeldRow, named: bytes | None) -> Proved:
    """Prove the named address of a held member, or its only one. Raises Refused when it isn't the member's."""
    problems = Problems()
    if named is not None and named not in {member["email_index"], member["pending_email_index"]}:
        if member["owner_id"] == member["member_id"]:
            # A record that was merged into it has proved it.
            return Proved(await as_it_is(tx, viewer, member), [], None)
        if member["owner_id"] is not None:
            raise Refused(await proved_by(tx, viewer, member["owner_id"]))
        problems.add("email", "must be the member's present or pending address")
    elif named is None and member["email_index"] is None:
        problems.add("memberId", "names a member without an address")
    elif named is None and member["email_edited"]:
        problems.add("email", "must name the address that was proved, because the member's was edited")
    problems.refuse_if_any()
    address = named or member["email_index"]
    if address is not None and (address != member["email_index"] or not member["email_verified"]):
        return await prove(tx, viewer, member, address)
    return Proved(await as_it_is(tx, viewer, member), [], None)
