"""releaseReferral: a person has looked at a conversion that was held, and both members get their points."""

from datetime import datetime
from typing import Annotated, Final

import strawberry

from app import ids
from app.api.inputs import node_id
from app.api.operations import Info, NotFound, Refusal, Refused, mutation, not_found
from app.referrals.conversion import EarningRow, credit, lock_wallets
from app.referrals.rows import referral_row
from app.referrals.types import Referral
from app.storage.database import transaction
from app.storage.events import event
from app.storage.statements import NoRow, statement


@strawberry.input(description="A held referral to release.")
class ReleaseReferralInput:
    referral_id: strawberry.ID = strawberry.field(description="The held referral.")


@strawberry.type(description="Both members have their points.")
class ReleaseReferralSuccess:
    referral: Referral = strawberry.field(description="The referral with its entries.")


@strawberry.type(
    description="The referral isn't held any more, or a balance can't hold its points. Nothing was changed."
)
class ReferralNotReleasable(Refusal):
    """Reversed, released or declined before, or too much for a balance."""


ReleaseReferralResult = Annotated[
    ReleaseReferralSuccess | NotFound | ReferralNotReleasable,
    strawberry.union("ReleaseReferralResult", description="The referral, or why nothing was given."),
]


class LockedReferralRow(EarningRow):
    """A referral that is locked, what became of it, and when the pending of its purchase ends.

    `is_known` is false where it has waited for one that recorded the purchase which the referral stands by now.
    """

    released_at: datetime | None
    declined_at: datetime | None
    reversed_at: datetime | None
    spendable_at: datetime | None
    is_known: bool


# Waits for whoever is releasing, declining or reversing it.
LOCK: Final = statement(
    LockedReferralRow,
    """
SELECT invite_id, referrer_id, referee_id, referrer_points, referee_points, released_at, declined_at, reversed_at,
    (SELECT spendable_at FROM purchase
     WHERE merchant_id = :merchant_id AND id = referral.purchase_id) AS spendable_at,
    purchase_id IS NULL OR EXISTS (
        SELECT FROM purchase WHERE merchant_id = :merchant_id AND id = referral.purchase_id
    ) AS is_known
FROM referral WHERE merchant_id = :merchant_id AND id = :referral_id FOR UPDATE
""",
)
RELEASE: Final = statement(
    NoRow,
    f"""
WITH r AS (
    UPDATE referral
    SET released_at = now(), referrer_entry_id = :referrer_entry_id, referee_entry_id = :referee_entry_id
    WHERE merchant_id = :merchant_id AND id = :referral_id AND released_at IS NULL AND declined_at IS NULL
        AND reversed_at IS NULL
    RETURNING id
)
{event("referral.converted", subject="id", source="r")}
""",
)


@mutation(description="Give the points of a held referral: as many as its conversion was to bring. ADMIN only.")
async def release_referral(
    info: Info, input: Annotated[ReleaseReferralInput, strawberry.argument(description="What to release.")]
) -> ReleaseReferralResult:
    """Write both entries, mark the referral and record it, in one transaction."""
    viewer = info.context.viewer
    referral_id = node_id("referral", "referral", input.referral_id)
    async with transaction(viewer.merchant_id) as tx:
        held = await tx.row(LOCK, merchant_id=viewer.merchant_id, referral_id=referral_id)
        if held is not None and not held["is_known"]:
            held = await tx.row(LOCK, merchant_id=viewer.merchant_id, referral_id=referral_id)
        if held is None:
            raise not_found("referral", input.referral_id)
        if held["reversed_at"] is not None:
            raise Refused(ReferralNotReleasable(message="The purchase that converted it was taken back."))
        if held["released_at"] is not None:
            raise Refused(ReferralNotReleasable(message="The referral was released before."))
        if held["declined_at"] is not None:
            raise Refused(ReferralNotReleasable(message="The referral was declined."))
        here = await lock_wallets(tx, viewer.merchant_id, held)
        if here is None:
            raise Refused(ReferralNotReleasable(message="A balance can't hold so many points."))
        referrer_entry_id, referee_entry_id = await credit(
            tx, viewer.merchant_id, viewer.actor, held, here, spendable_at=held["spendable_at"]
        )
        await tx.row(
            RELEASE,
            merchant_id=viewer.merchant_id,
            referral_id=referral_id,
            referrer_entry_id=referrer_entry_id,
            referee_entry_id=referee_entry_id,
            event_id=ids.new(),
            actor=viewer.actor,
        )
    row = await referral_row(viewer, referral_id)
    if row is None:
        raise RuntimeError("a released referral has no row")
    return ReleaseReferralSuccess(referral=Referral.of(row))
