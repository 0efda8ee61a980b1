"""reverseRedemption: a redemption is taken back, once, at any age, and its code is live again or not."""

from typing import Annotated, Final

import strawberry

from app.api.inputs import node_id
from app.api.operations import Info, InvalidInput, NotFound, Refusal, Refused, mutation, not_found
from app.api.reasons import sealed
from app.coupons.rows import FIND_REDEMPTION
from app.coupons.types import Code, Redemption
from app.storage.database import database
from app.storage.wallet_versions import CHANGE_COLUMNS, raise_wallets, ring_wallet


@strawberry.input(description="A redemption to take back.")
class ReverseRedemptionInput:
    """Which one, why, and what becomes of the code."""

    redemption_id: strawberry.ID = strawberry.field(description="The redemption.")
    reason: str = strawberry.field(description="Why, for the record; at most 500 characters, stored encrypted.")
    reinstate: bool = strawberry.field(default=True, description="Whether its owner can spend the code again.")


@strawberry.type(description="The redemption doesn't stand any more.")
class ReverseRedemptionSuccess:
    """The reversed redemption and its code."""

    redemption: Redemption = strawberry.field(description="The redemption, with its `reversedAt`.")
    code: Code = strawberry.field(description="The code: ALLOCATED again, or still REDEEMED.")


@strawberry.type(description="The redemption was taken back before.")
class AlreadyReversed(Refusal):
    """A redemption is reversed once."""

    redemption: Redemption = strawberry.field(description="The redemption, with its `reversedAt`.")


ReverseRedemptionResult = Annotated[
    ReverseRedemptionSuccess | InvalidInput | NotFound | AlreadyReversed,
    strawberry.union("ReverseRedemptionResult", description="The reversed redemption, or why it stands."),
]

# The redemption's row is the guard: of two callers one finds it standing. The order of locks is redemption, code,
# wallet; redeeming never waits for a redemption, because it takes no code that has a standing one.
REVERSE: Final = f"""
WITH r AS (
    UPDATE redemption SET reversed_at = now() WHERE merchant_id = $1 AND id = $2 AND reversed_at IS NULL
    RETURNING id, code_id
), reversal AS (
    INSERT INTO reversal (merchant_id, redemption_id, reinstated, reason, reversed_at)
    SELECT $1, id, $3, $7, now() FROM r
), c AS (
    UPDATE code SET state = 'ALLOCATED', redeemed_at = NULL
    WHERE merchant_id = $1 AND id = (SELECT code_id FROM r) AND state = 'REDEEMED' AND $3
    RETURNING id, pool_id, member_id
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT $1, pool_id, gen_random_uuid(), 0, 1, -1, 0, 0 FROM c
), changed AS (
    SELECT $5::uuid AS event_id, r.id AS subject_id, c.member_id, $4::bytea AS reason FROM r LEFT JOIN c ON true
), {raise_wallets("redemption.reversed", actor="$6")}
SELECT {CHANGE_COLUMNS} FROM recorded ev
"""


@mutation(description="Take a redemption back, once, at any age. ADMIN and CHECKOUT.")
async def reverse_redemption(
    info: Info, input: Annotated[ReverseRedemptionInput, strawberry.argument(description="What to take back.")]
) -> ReverseRedemptionResult:
    """Reverse in one statement, then read what stands."""
    viewer = info.context.viewer
    event_id, reason = sealed(viewer, input.reason)
    redemption_id = node_id("redemption", "redemption", input.redemption_id)
    # The reversal holds the reason too, sealed for its own row.
    own_reason = viewer.tenant.keys.encrypt(redemption_id, "reason", input.reason.strip())
    reversed_now = await database().row(
        REVERSE, viewer.merchant_id, redemption_id, input.reinstate, reason, event_id, viewer.actor, own_reason
    )
    row = await database().row(FIND_REDEMPTION, viewer.merchant_id, redemption_id)
    if row is None:
        raise not_found("redemption", input.redemption_id)
    if reversed_now is None:
        raise Refused(AlreadyReversed(message="The redemption was taken back before.", redemption=Redemption.of(row)))
    ring_wallet(database(), viewer.merchant_id, dict(row) | dict(reversed_now))
    return ReverseRedemptionSuccess(redemption=Redemption.of(row), code=Code.of(row))
