"""reverseRedemption: a redemption is taken back, once, at any age, and its code is live again or not."""

from typing import Annotated, Final

import strawberry

from app.api.inputs import node_id
from app.api.operations import Info, InvalidInput, NotFound, Refusal, Refused, mutation, not_found
from app.api.reasons import sealed
from app.coupons.rows import FIND_REDEMPTION
from app.coupons.types import Code, Redemption
from app.storage.database import database
from app.storage.statements import columns, statement
from app.storage.wallet_versions import ChangeRow, raise_wallets, ring_wallet


@strawberry.input(description="A redemption to take back.")
class ReverseRedemptionInput:
    redemption_id: strawberry.ID = strawberry.field(description="The redemption.")
    reason: str = strawberry.field(description="Why, for the record; at most 500 characters, stored encrypted.")
    reinstate: bool = strawberry.field(default=True, description="Whether its owner can spend the code again.")


@strawberry.type(description="The redemption doesn't stand any more.")
class ReverseRedemptionSuccess:
    redemption: Redemption = strawberry.field(description="The redemption, with its `reversedAt`.")
    code: Code = strawberry.field(description="The code: ALLOCATED again, or still REDEEMED.")


@strawberry.type(description="The redemption was taken back before.")
class AlreadyReversed(Refusal):
    redemption: Redemption = strawberry.field(description="The redemption, with its `reversedAt`.")


ReverseRedemptionResult = Annotated[
    ReverseRedemptionSuccess | InvalidInput | NotFound | AlreadyReversed,
    strawberry.union("ReverseRedemptionResult", description="The reversed redemption, or why it stands."),
]

# The order of locks is redemption, code, wallet; redeeming never waits for a redemption, because it takes no code that
# has a standing one.
REVERSE: Final = statement(
    ChangeRow,
    f"""
WITH r AS (
    -- The guard: of two callers one finds the redemption standing.
    UPDATE redemption SET reversed_at = now()
    WHERE merchant_id = :merchant_id AND id = :redemption_id AND reversed_at IS NULL
    RETURNING id, code_id
), reversal AS (
    INSERT INTO reversal (merchant_id, redemption_id, reinstated, reason, reversed_at)
    SELECT :merchant_id, id, :reinstate, :reversal_reason, now() FROM r
), c AS (
    -- The code is live again, if that was asked.
    UPDATE code SET state = 'ALLOCATED', redeemed_at = NULL
    WHERE merchant_id = :merchant_id AND id = (SELECT code_id FROM r) AND state = 'REDEEMED' AND :reinstate
    RETURNING id, pool_id, member_id
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT :merchant_id, pool_id, gen_random_uuid(), 0, 1, -1, 0, 0 FROM c
), changed AS (
    -- Without a code that is live again nobody's wallet changes.
    SELECT :event_id::uuid AS event_id, r.id AS subject_id, c.member_id, :event_reason::bytea AS reason
    FROM r LEFT JOIN c ON true
), {raise_wallets("redemption.reversed")}
SELECT {columns(ChangeRow)} FROM recorded ev
""",
)


@mutation(description="Take a redemption back, once, at any age. ADMIN, CHECKOUT and SUPPORT.")
async def reverse_redemption(
    info: Info, input: Annotated[ReverseRedemptionInput, strawberry.argument(description="What to take back.")]
) -> ReverseRedemptionResult:
    viewer = info.context.viewer
    event_id, reason = sealed(viewer, input.reason)
    redemption_id = node_id("redemption", "redemption", input.redemption_id)
    reversed_now = await database().row(
        REVERSE,
        merchant_id=viewer.merchant_id,
        redemption_id=redemption_id,
        reinstate=input.reinstate,
        # The event and the reversal hold the reason, each sealed for its own row.
        event_reason=reason,
        reversal_reason=viewer.tenant.keys.encrypt(redemption_id, "reason", input.reason.strip()),
        event_id=event_id,
        actor=viewer.actor,
    )
    row = await database().row(FIND_REDEMPTION, merchant_id=viewer.merchant_id, redemption_id=redemption_id)
    if row is None:
        raise not_found("redemption", input.redemption_id)
    if reversed_now is None:
        raise Refused(AlreadyReversed(message="The redemption was taken back before.", redemption=Redemption.of(row)))
    ring_wallet(database(), viewer.merchant_id, reversed_now, about=row)
    return ReverseRedemptionSuccess(redemption=Redemption.of(row), code=Code.of(row))
