"""mergeMembers: two records of one person become one; nothing that was written for either is rewritten."""

from typing import Annotated

import strawberry

from app import ids
from app.api.inputs import Problems
from app.api.operations import Info, InvalidInput, NotFound, Refusal, Refused, mutation
from app.api.reasons import REASON_LENGTH_MAX
from app.members.rows import member_row
from app.members.types import Member
from app.people.merging import NotMergeableError, merge, pair_of
from app.referrals.rows import referral_row
from app.referrals.types import Referral
from app.storage.database import transaction


@strawberry.input(
    description="Everything of `mergedId` becomes `keptId`'s, and the merged id goes on naming the kept member."
)
class MergeMembersInput:
    kept_id: strawberry.ID = strawberry.field(description="The member that is kept; one that was merged stands for it.")
    merged_id: strawberry.ID = strawberry.field(description="The member that becomes a part of it.")
    reason: str = strawberry.field(description="Why they are one person, for the record; at most 500 characters.")
    drop_referrals: bool = strawberry.field(
        default=False, description="Whether referrals that one person can't have fall, as after a return, for good."
    )


@strawberry.type(description="The two are one member.")
class MergeMembersSuccess:
    member: Member = strawberry.field(description="The kept member, with all that both had.")
    replayed: bool = strawberry.field(description="Whether they were one already.")


@strawberry.type(
    description="One person can't have these referrals: it would have brought itself, or have been brought by two, or "
    "by somebody that it brought. `dropReferrals` lets them fall."
)
class MembersNotMergeable(Refusal):
    referrals: list[Referral] = strawberry.field(description="Those that would have to fall.")


MergeMembersResult = Annotated[
    MergeMembersSuccess | InvalidInput | NotFound | MembersNotMergeable,
    strawberry.union("MergeMembersResult", description="The kept member, or why they stay two."),
]


@mutation(
    description="Make one member of two records of one person: points with their dates, codes, holds, orders, invites "
    "and referrals become the kept one's. Of codes beyond a pool's limit the latest live ones are revoked. Again: the "
    "same answer. ADMIN and SUPPORT."
)
async def merge_members(
    info: Info, input: Annotated[MergeMembersInput, strawberry.argument(description="Which two.")]
) -> MergeMembersResult:
    viewer = info.context.viewer
    problems = Problems()
    reason = problems.text("reason", input.reason, length_max=REASON_LENGTH_MAX)
    problems.refuse_if_any()
    pair = await pair_of(viewer, input.kept_id, input.merged_id)
    replayed = pair.kept_id == pair.merged_id
    if not replayed:
        try:
            async with transaction(viewer.merchant_id) as tx:
                await merge(tx, viewer, pair, reason, drop_referrals=input.drop_referrals)
        except NotMergeableError as found:
            raise await not_mergeable(info, found) from None
    row = await member_row(viewer, pair.kept_id)
    if row is None:
        raise RuntimeError("a kept member has no row")
    return MergeMembersSuccess(member=Member.of(row), replayed=replayed)


async def not_mergeable(info: Info, found: NotMergeableError) -> Refused:
    """Return the refusal that lists the referrals which one person can't have."""
    rows = [await referral_row(info.context.viewer, each) for each in found.referral_ids]
    referrals = [Referral.of(row) for row in rows if row is not None]
    listed = ", ".join(ids.encode("referral", each) for each in found.referral_ids)
    return Refused(
        MembersNotMergeable(message=f"One person can't have these referrals: {listed}.", referrals=referrals)
    )
