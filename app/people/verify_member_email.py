"""verifyMemberEmail: an address is known to be the member's; codes and an accepted invite that waited for it follow."""

from typing import Annotated, Final, TypedDict
from uuid import UUID

import asyncpg
import strawberry

from app import ids
from app.api.inputs import Problems, node_id
from app.api.operations import Info, InvalidInput, NotFound, mutation, not_found
from app.coupons.adopt_codes import adopt_codes
from app.members.rows import member_row
from app.members.types import Member
from app.referrals.conversion import convert
from app.referrals.rows import referral_row
from app.referrals.types import Referral, released
from app.storage.database import transaction
from app.storage.events import event
from app.storage.statements import statement

ATTEMPTS_MAX: Final = 20


@strawberry.input(description="A member whose address is known to be its own.")
class VerifyMemberEmailInput:
    member_id: strawberry.ID = strawberry.field(description="The member.")


@strawberry.type(description="The address counts, and what waited for it is in the member's wallet.")
class VerifyMemberEmailSuccess:
    member: Member = strawberry.field(description="The member, with its wallet as it is now.")
    referral: Referral | None = strawberry.field(
        description="The referral that it converted; null when it converted none, and while that is held for review."
    )


VerifyMemberEmailResult = Annotated[
    VerifyMemberEmailSuccess | InvalidInput | NotFound,
    strawberry.union("VerifyMemberEmailResult", description="The member, or why not."),
]


class _VerifiedRow(TypedDict):
    """A proven address, and the invite that waited for the proof, if one did."""

    email_index: bytes
    invite_id: UUID | None


VERIFY: Final = statement(
    _VerifiedRow,
    f"""
WITH m AS (
    UPDATE member SET email_verified = true
    WHERE merchant_id = :merchant_id AND id = :member_id AND email_index IS NOT NULL AND NOT email_verified
    RETURNING id, email_index, accepted_invite_id
), addressed AS (
    -- Waits for claims by e-mail that are under way for this address; later ones are the member's.
    INSERT INTO address (merchant_id, email_index, member_id) SELECT :merchant_id, email_index, id FROM m
    ON CONFLICT (merchant_id, email_index) DO UPDATE SET member_id = excluded.member_id
), recorded AS (
    {event("member.email_verified", subject="id", source="m")}
)
SELECT email_index,
    (SELECT id FROM invite WHERE merchant_id = :merchant_id AND id = m.accepted_invite_id AND status = 'PENDING')
        AS invite_id
FROM m
""",
)


@mutation(
    description="Tell that a member's address is known to be its own; again changes nothing. An invite that the "
    "member accepted converts with it, or waits for the purchase. ADMIN, CHECKOUT and SUPPORT."
)
async def verify_member_email(
    info: Info, input: Annotated[VerifyMemberEmailInput, strawberry.argument(description="Whose address.")]
) -> VerifyMemberEmailResult:
    viewer = info.context.viewer
    member_id = node_id("member", "member", input.member_id)
    referral_id: UUID | None = None
    for _ in range(ATTEMPTS_MAX):
        try:
            async with transaction(viewer.merchant_id) as tx:
                verified = await tx.row(
                    VERIFY,
                    merchant_id=viewer.merchant_id,
                    member_id=member_id,
                    event_id=ids.new(),
                    actor=viewer.actor,
                )
                if verified is not None:
                    await adopt_codes(tx, viewer, member_id, verified["email_index"])
                    if verified["invite_id"] is not None:
                        converted = await convert(tx, viewer.merchant_id, viewer.actor, verified["invite_id"])
                        referral_id = converted.referral_id
            break
        except asyncpg.UniqueViolationError:
            # The member claimed in between.
            continue
    else:
        raise RuntimeError("a member kept claiming while its address was verified")
    row = await member_row(viewer, member_id)
    if row is None:
        raise not_found("member", input.member_id)
    if row["member_email"] is None:
        problems = Problems()
        problems.add("memberId", "names a member without an address")
        problems.refuse_if_any()
    referral = None if referral_id is None else released(await referral_row(viewer, referral_id))
    return VerifyMemberEmailSuccess(member=Member.of(row), referral=referral)
