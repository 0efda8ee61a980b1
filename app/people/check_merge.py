"""checkMerge: what mergeMembers would do, without doing it."""

from typing import Annotated

import strawberry

from app.api.operations import Id, Info, InvalidInput, NotFound, query
from app.people.merge_members import MembersNotMergeable, not_mergeable
from app.people.merging import Merged, NotMergeableError, merge, pair_of, shown
from app.storage.database import tried


@strawberry.type(description="What a merging would do; nothing more of two that are one already.")
class MergePreview:
    display_name: str | None = strawberry.field(description="The name that the kept member would have.")
    masked_email: str | None = strawberry.field(description="The address that it would show, masked.")
    codes: int = strawberry.field(description="How many codes would become the kept member's, spent ones too.")
    codes_revoked: int = strawberry.field(description="How many live ones would be revoked, beyond a pool's limit.")
    points: int = strawberry.field(description="How many points would become the kept member's.")
    purchases: int = strawberry.field(description="How many purchases would.")
    referral_count: int = strawberry.field(description="How many standing referrals by the merged member would.")
    holds: int = strawberry.field(description="How many holds for orders that aren't paid yet would.")

    @classmethod
    def of(cls, merged: Merged) -> "MergePreview":
        """Return the preview of a merging that was tried."""
        return cls(
            display_name=merged.display_name,
            masked_email=merged.masked_email,
            codes=merged.codes,
            codes_revoked=merged.codes_revoked,
            points=merged.points,
            purchases=merged.purchases,
            referral_count=merged.referrals,
            holds=merged.holds,
        )


CheckMergeResult = Annotated[
    MergePreview | InvalidInput | NotFound | MembersNotMergeable,
    strawberry.union("CheckMergeResult", description="What would happen, or why they would stay two."),
]


@query(description="What mergeMembers would do, without doing it and without dropping referrals. ADMIN and SUPPORT.")
async def check_merge(
    info: Info,
    kept_id: Id,
    merged_id: Id,
) -> CheckMergeResult:
    """Merge in a transaction that is rolled back, so that the answer can't differ from what would happen."""
    viewer = info.context.viewer
    pair = await pair_of(viewer, kept_id, merged_id)
    if pair.kept_id == pair.merged_id:
        return MergePreview.of(await shown(viewer, pair.kept_id))
    try:
        merged = await tried(viewer.merchant_id, lambda tx: merge(tx, viewer, pair, "tried", drop_referrals=False))
    except NotMergeableError as found:
        raise await not_mergeable(info, found) from None
    return MergePreview.of(merged)
