"""revokeMemberTokens: all tokens of a member stop working, and what is open with them ends."""

from typing import Annotated, Final

import strawberry

from app import ids
from app.api.inputs import member_id_of
from app.api.operations import Info, NotFound, mutation, not_found
from app.members.rows import IS_HERE, member_row
from app.members.token_feed import GenerationRow, TokenFeed
from app.members.types import Member
from app.storage.database import database
from app.storage.events import event
from app.storage.statements import statement


@strawberry.input(description="A member whose tokens are to end.")
class RevokeMemberTokensInput:
    member_id: strawberry.ID = strawberry.field(description="The member.")


@strawberry.type(description="The member's tokens don't work any more, or will not within 5 seconds.")
class RevokeMemberTokensSuccess:
    member: Member = strawberry.field(description="The member.")


RevokeMemberTokensResult = Annotated[
    RevokeMemberTokensSuccess | NotFound,
    strawberry.union("RevokeMemberTokensResult", description="The member, or why there is none."),
]

REVOKE: Final = statement(
    GenerationRow,
    f"""
WITH m AS (
    UPDATE member SET token_generation = token_generation + 1
    WHERE merchant_id = :merchant_id AND id = :member_id AND {IS_HERE} RETURNING id, token_generation
), recorded AS (
    {event("member.tokens_revoked", subject="id", source="m")}
)
SELECT token_generation FROM m
""",
)


@mutation(
    description="End all tokens that a member has, and the sockets and streams that are open with them: at once on the "
    "process that is asked, within 5 seconds on every other. Tokens that are issued afterwards work. ADMIN and SUPPORT."
)
async def revoke_member_tokens(
    info: Info, input: Annotated[RevokeMemberTokensInput, strawberry.argument(description="Whose tokens.")]
) -> RevokeMemberTokensResult:
    viewer = info.context.viewer
    member_id = member_id_of(viewer, input.member_id)
    raised = await database().row(
        REVOKE, merchant_id=viewer.merchant_id, member_id=member_id, event_id=ids.new(), actor=viewer.actor
    )
    if raised is None:
        raise not_found("member", input.member_id)
    TokenFeed.of_process().end((viewer.merchant_id, member_id), raised["token_generation"])
    row = await member_row(viewer, member_id)
    if row is None:
        raise RuntimeError("a member whose tokens were revoked has no row")
    return RevokeMemberTokensSuccess(member=Member.of(row))
