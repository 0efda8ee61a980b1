"""declineReferral: a person has looked at a conversion that was held, and nobody gets its points."""

from typing import Annotated, Final

import strawberry

from app.api.inputs import node_id
from app.api.operations import Info, InvalidInput, NotFound, Refusal, Refused, mutation, not_found
from app.api.reasons import sealed
from app.referrals.rows import referral_row
from app.referrals.types import HeldReferral
from app.storage.database import database
from app.storage.events import event
from app.storage.statements import NoRow, statement


@strawberry.input(description="A held referral to decline.")
class DeclineReferralInput:
    """Which one and why."""

    referral_id: strawberry.ID = strawberry.field(description="The held referral.")
    reason: str = strawberry.field(description="Why, for the record; at most 500 characters, stored encrypted.")


@strawberry.type(description="Nobody gets the points.")
class DeclineReferralSuccess:
    referral: HeldReferral = strawberry.field(description="The referral, with its `declinedAt`.")


@strawberry.type(description="The referral doesn't wait for a person any more. Nothing was changed.")
class ReferralNotDeclinable(Refusal):
    """Released before, or reversed."""


DeclineReferralResult = Annotated[
    DeclineReferralSuccess | InvalidInput | NotFound | ReferralNotDeclinable,
    strawberry.union("DeclineReferralResult", description="The declined referral, or why it stays as it was."),
]

# Waits for whoever is releasing or reversing it. The edge stays: its referee came by this invite and by no other.
DECLINE: Final = statement(
    NoRow,
    f"""
WITH r AS (
    UPDATE referral SET declined_at = now()
    WHERE merchant_id = :merchant_id AND id = :referral_id AND released_at IS NULL AND declined_at IS NULL
        AND reversed_at IS NULL
    RETURNING id
)
{event("referral.declined", subject="id", source="r", reason=":reason")}
""",
)


@mutation(
    description="Decide that nobody gets the points of a held referral, for good; doing it again changes nothing. "
    "ADMIN only."
)
async def decline_referral(
    info: Info, input: Annotated[DeclineReferralInput, strawberry.argument(description="What to decline, and why.")]
) -> DeclineReferralResult:
    viewer = info.context.viewer
    event_id, reason = sealed(viewer, input.reason)
    referral_id = node_id("referral", "referral", input.referral_id)
    await database().row(
        DECLINE,
        merchant_id=viewer.merchant_id,
        referral_id=referral_id,
        event_id=event_id,
        actor=viewer.actor,
        reason=reason,
    )
    row = await referral_row(viewer, referral_id)
    if row is None:
        raise not_found("referral", input.referral_id)
    if row["referral_released_at"] is not None:
        raise Refused(ReferralNotDeclinable(message="The referral was released before."))
    if row["referral_declined_at"] is None:
        raise Refused(ReferralNotDeclinable(message="The purchase that converted it was taken back."))
    return DeclineReferralSuccess(referral=HeldReferral.of(row))
