"""reverseRewardRedemption: a reward goes back, once: its points to their lots, one to the stock, and its code dies."""

from typing import Annotated, Final, TypedDict
from uuid import UUID

import strawberry

from app.api.context import Viewer
from app.api.inputs import node_id
from app.api.operations import Info, InvalidInput, NotFound, Refusal, Refused, mutation, not_found
from app.api.reasons import sealed
from app.coupons import stock_levels
from app.coupons.revive_codes import revive_needed
from app.coupons.revoke_code import REVOKE
from app.coupons.types import Code, CodeState
from app.points.give_back import GivenBack, give_back
from app.points.ledger import POINTS_MAX, too_many
from app.points.rows import FIND_EXCHANGE, WholeExchangeRow, code_of, entry_by_origin
from app.points.types import PointsEntry, PointsReason, RewardRedemption
from app.storage.database import Statements, Tx, database, transaction
from app.storage.events import event
from app.storage.statements import statement
from app.storage.wallet_versions import ring_wallet


@strawberry.input(description="A reward that goes back.")
class ReverseRewardRedemptionInput:
    redemption_id: strawberry.ID = strawberry.field(description="The redemption of the reward.")
    reason: str = strawberry.field(description="Why, for the record; at most 500 characters, stored encrypted.")


@strawberry.type(description="The redemption doesn't stand any more.")
class ReverseRewardRedemptionSuccess:
    redemption: RewardRedemption = strawberry.field(description="The redemption, with its `reversedAt`.")
    entry: PointsEntry | None = strawberry.field(
        description="The points that came back: all that were paid. What of them was past its date expired at once."
    )
    replayed: bool = strawberry.field(description="Whether an earlier call reversed it.")


@strawberry.type(
    description="The code that the reward brought was spent, or an order that isn't paid holds it: it can't go back."
)
class RewardNotReversible(Refusal):
    """What was had was used, or is about to be."""


ReverseRewardRedemptionResult = Annotated[
    ReverseRewardRedemptionSuccess | InvalidInput | NotFound | RewardNotReversible,
    strawberry.union("ReverseRewardRedemptionResult", description="The redemption, or why it stands."),
]


class ReversedRow(TypedDict):
    """A redemption of a reward that was just reversed."""

    subject_id: UUID


# The redemption's row is the guard: of two callers one finds it standing. What it took from a stock goes back there,
# unless somebody has filled that to the brim.
# The order of locks is redemption, reward, code, wallet.
REVERSE: Final = statement(
    ReversedRow,
    f"""
WITH x AS (
    UPDATE reward_redemption SET reversed_at = now()
    WHERE merchant_id = :merchant_id AND id = :exchange_id AND reversed_at IS NULL RETURNING *
), a AS (
    UPDATE reward SET stock = least(stock, {POINTS_MAX - 1}) + 1 FROM x
    WHERE reward.merchant_id = :merchant_id AND reward.id = x.reward_id AND x.is_from_stock
)
{event("reward.returned", subject="x.id", source="x", reason=":reason")} RETURNING subject_id
""",
)


@mutation(
    description="Take a reward back, once: the points that were paid go to where they came from, with their dates, the "
    "stock has one more, and a code that isn't spent dies. ADMIN, CHECKOUT and "
    "SUPPORT."
)
async def reverse_reward_redemption(
    info: Info,
    input: Annotated[ReverseRewardRedemptionInput, strawberry.argument(description="What goes back.")],
) -> ReverseRewardRedemptionResult:
    """Mark the redemption, end its code and give the points back, in one transaction."""
    viewer = info.context.viewer
    sealed(viewer, input.reason)
    exchange_id = node_id("rewardredemption", "reward redemption", input.redemption_id)
    async with transaction(viewer.merchant_id) as tx:
        back = await reverse_reward(tx, viewer, exchange_id, reason=input.reason, path="redemptionId")
    exchange = await _exchange(database(), viewer, exchange_id)
    if exchange is None:
        raise not_found("reward redemption", input.redemption_id)
    code = await code_of(database(), viewer, exchange)
    entry = await entry_by_origin(viewer, PointsReason.REFUND.value, _origin(exchange_id))
    return ReverseRewardRedemptionSuccess(
        redemption=RewardRedemption.of(
            exchange, reward=exchange, entry=exchange, code=None if code is None else Code.of(code)
        ),
        entry=None if entry is None else PointsEntry.of(entry),
        replayed=back is None,
    )


def _origin(exchange_id: UUID) -> str:
    return f"reward/{exchange_id.hex}"


async def reverse_reward(tx: Tx, viewer: Viewer, exchange_id: UUID, *, reason: str, path: str) -> GivenBack | None:
    """Mark a redemption, end its code and give the points back. Returns None where it doesn't stand.

    Raises Refused with InvalidInput for a reason that is none, with RewardNotReversible, or with InvalidInput at `path`
    when the balance can't hold the points.
    """
    event_id, sealed_reason = sealed(viewer, reason)
    reversed_now = await tx.row(
        REVERSE,
        merchant_id=viewer.merchant_id,
        exchange_id=exchange_id,
        event_id=event_id,
        reason=sealed_reason,
        actor=viewer.actor,
    )
    if reversed_now is None:
        return None
    exchange = await _exchange(tx, viewer, exchange_id)
    if exchange is None:
        raise RuntimeError("a locked redemption is gone")
    await _end_code(tx, viewer, exchange, reason)
    back = await give_back(
        tx, viewer.merchant_id, viewer.actor, exchange["member_id"], exchange["entry_id"],
        origin=_origin(exchange_id), reference=exchange["reward_name"],
    )  # fmt: skip
    if back is None:
        raise too_many(path)
    return back


async def _exchange(where: Statements, viewer: Viewer, exchange_id: UUID) -> WholeExchangeRow | None:
    return await where.row(FIND_EXCHANGE, merchant_id=viewer.merchant_id, exchange_id=exchange_id, member_id=None)


async def _end_code(tx: Tx, viewer: Viewer, exchange: WholeExchangeRow, why: str) -> None:
    """Revoke the code of a redemption, if it lives. Raises Refused(RewardNotReversible) if it is spent or held."""
    code_id = exchange["exchange_code_id"]
    if code_id is None:
        return
    event_id, reason = sealed(viewer, why)
    while True:
        revoked = await tx.row(
            REVOKE,
            merchant_id=viewer.merchant_id,
            code_id=code_id,
            event_id=event_id,
            reason=reason,
            actor=viewer.actor,
        )
        code = await code_of(tx, viewer, exchange)
        if code is None:
            raise RuntimeError("a redemption's code is gone")
        if revoked is not None or code["code_state"] != CodeState.ALLOCATED.value:
            break
        if code["code_held_until"] is not None:
            raise Refused(RewardNotReversible(message="An order holds the code that the reward brought."))
        # One that lives again, or that a reversal of the order has given back since, is tried again.
        await revive_needed(tx, viewer.merchant_id, [code_id])
    if code["code_state"] == CodeState.REDEEMED.value:
        raise Refused(RewardNotReversible(message="The code that the reward brought was spent."))
    if revoked is not None:
        ring_wallet(tx, viewer.merchant_id, revoked, about=code)
        await stock_levels.check(tx, viewer.merchant_id, revoked["pool_id"], viewer.actor)
