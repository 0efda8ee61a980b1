"""issueMemberToken: a short-lived token with which the member app acts for one member."""

from datetime import datetime
from typing import Annotated

import strawberry

from app.api.inputs import Problems
from app.api.operations import Info, InvalidInput, NotFound, mutation, not_found
from app.members import tokens
from app.members.member_keys import MemberKeyInput, named_member
from app.members.token_feed import FIND
from app.merchants.data_keys import TOKEN_SECONDS_MAX
from app.storage import events
from app.storage.database import transaction


@strawberry.input(description="A token to issue.")
class IssueMemberTokenInput:
    member_id: strawberry.ID | None = strawberry.field(
        default=None, description="The member it is for; this or `member`."
    )
    member: MemberKeyInput | None = strawberry.field(
        default=None, description="The member by a store's id or a proven address, in place of its id."
    )
    lifetime_seconds: int = strawberry.field(default=3600, description="For how long: 1 to 86,400 seconds.")


@strawberry.type(description="The token was issued.")
class IssueMemberTokenSuccess:
    token: str = strawberry.field(description="What the member app sends as `Authorization: Bearer …`.")
    expires_at: datetime = strawberry.field(description="When it stops working.")


IssueMemberTokenResult = Annotated[
    IssueMemberTokenSuccess | NotFound | InvalidInput,
    strawberry.union("IssueMemberTokenResult", description="The token, or why there is none."),
]


@mutation(description="Issue a token for a member. ADMIN and CHECKOUT.")
async def issue_member_token(
    info: Info,
    input: Annotated[IssueMemberTokenInput, strawberry.argument(description="The token to issue.")],
) -> IssueMemberTokenResult:
    viewer = info.context.viewer
    problems = Problems()
    named = named_member(problems, viewer, input.member_id, input.member)
    problems.refuse_if_any()
    member_id = await named.id(viewer)
    problems.number("lifetimeSeconds", input.lifetime_seconds, least=1, most=TOKEN_SECONDS_MAX)
    async with transaction(viewer.merchant_id) as tx:
        found = await tx.row(FIND, merchant_id=viewer.merchant_id, member_id=member_id)
        if found is None:
            raise not_found("member", named.shown(viewer))
        problems.refuse_if_any()
        # Tokens aren't stored: that one was issued, and by whom, is an event.
        await events.record(tx, viewer.merchant_id, "member.token_issued", member_id, viewer.actor)
    token, expires_at = tokens.issue(
        viewer.tenant, member_id, input.lifetime_seconds, generation=found["token_generation"]
    )
    return IssueMemberTokenSuccess(token=token, expires_at=expires_at)
