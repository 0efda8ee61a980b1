"""redeemReward: points, stock and the code of a reward change together or not at all."""

from typing import Annotated, Final
from uuid import UUID

import asyncpg
import strawberry

from app import ids
from app.api.context import Role, Viewer
from app.api.inputs import Problems, acting_member, node_id, scoped_key
from app.api.operations import IdempotencyKeyReused, Info, InvalidInput, NotFound, Refusal, Refused, mutation, not_found
from app.coupons.claims import Claimant, PoolExhausted, PoolNotActive, claim
from app.points.ledger import InsufficientPoints, insufficient, obstacle, post
from app.points.rows import REWARD_COLUMNS, WHOLE_EXCHANGE, code_of
from app.points.types import PointsReason, RewardRedemption
from app.storage.database import Row, Tx, transaction


@strawberry.input(description="A member redeems for itself. ADMIN and CHECKOUT keys name the member.")
class RedeemRewardInput:
    """Which reward, for whom, and the caller's key for a retry."""

    reward_id: strawberry.ID = strawberry.field(description="The reward.")
    member_id: strawberry.ID | None = strawberry.field(
        default=None, description="The member that redeems; a member may leave it out."
    )
    idempotency_key: str = strawberry.field(
        description="Each key is a redemption of its own, and the same key again is the same one. "
        "At most 200 characters; a member's keys are its own."
    )


@strawberry.type(description="The reward is the member's.")
class RedeemRewardSuccess:
    """The redemption."""

    redemption: RewardRedemption = strawberry.field(description="The redemption, with the code's text if it has one.")
    replayed: bool = strawberry.field(description="Whether an earlier call with the same key made it.")


@strawberry.type(
    description="The reward can't be had: it is retired or out of stock, or its pool has no further code for the "
    "member (it is empty or not open, or the member has as many of it as it may have)."
)
class RewardOutOfStock(Refusal):
    """Nothing left for this member."""


RedeemRewardResult = Annotated[
    RedeemRewardSuccess | InvalidInput | NotFound | InsufficientPoints | RewardOutOfStock | IdempotencyKeyReused,
    strawberry.union("RedeemRewardResult", description="The redemption, or why there is none."),
]

FIND_BY_KEY: Final = f"{WHOLE_EXCHANGE} WHERE x.merchant_id = $1 AND x.idempotency_key = $2"
# A limited stock is taken under the reward's lock, which is held until the commit: redemptions of
# one limited reward go one after the other. An unlimited one is only read. `is_taken` says whether it can be had.
TAKE: Final = f"""
WITH taken AS (
    UPDATE reward SET stock = stock - 1 WHERE merchant_id = $1 AND id = $2 AND active AND stock > 0 RETURNING *
), a AS (
    SELECT taken.*, true AS is_taken FROM taken
    UNION ALL
    SELECT reward.*, active AND stock IS NULL FROM reward
    WHERE merchant_id = $1 AND id = $2 AND NOT EXISTS (SELECT FROM taken)
)
SELECT {REWARD_COLUMNS}, is_taken FROM a
"""
INSERT: Final = """
WITH x AS (
    INSERT INTO reward_redemption (merchant_id, id, reward_id, member_id, code_id, entry_id, idempotency_key,
                                   created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, now()) RETURNING id, created_at
), recorded AS (
    INSERT INTO event (merchant_id, id, type, subject_id, actor, occurred_at)
    SELECT $1, $8, 'reward.redeemed', id, $9, now() FROM x
)
SELECT id AS exchange_id, created_at AS exchange_created_at FROM x
"""
# A member's redemptions go one after the other. Without this two of them would meet at the member's next slot of the
# pool, each holding the lock of a code that the other one looks for.
LOCK_MEMBER: Final = "SELECT FROM member WHERE merchant_id = $1 AND id = $2 FOR NO KEY UPDATE"


async def redeem(tx: Tx, viewer: Viewer, reward: Row, member_id: UUID, key: str) -> RewardRedemption:
    """Redeem a reward that TAKE has returned, for a member that is locked.

    Locks a code and its claim, and the wallet last. Raises Refused with InsufficientPoints or RewardOutOfStock, and
    asyncpg.UniqueViolationError when the key has a redemption.
    """
    if not reward["is_taken"]:
        raise _out_of_stock("none is left" if reward["reward_active"] else "it is retired")
    redemption_id = ids.new()
    code = None
    if reward["reward_pool_id"] is not None:
        code = await _new_code(tx, viewer, reward["reward_pool_id"], member_id, redemption_id)
    entry = await post(
        tx,
        viewer.merchant_id,
        viewer.actor,
        member_id,
        -reward["reward_cost"],
        PointsReason.REWARD,
        origin=redemption_id.hex,
        reference=reward["reward_name"],
    )
    if entry is None:
        _, balance = await obstacle(tx, viewer.merchant_id, member_id, -reward["reward_cost"])
        raise insufficient(balance, reward["reward_cost"])
    code_id = None if code is None else code["code_id"]
    values = (redemption_id, reward["reward_id"], member_id, code_id, entry["entry_id"], key)
    made = await tx.row(INSERT, viewer.merchant_id, *values, ids.new(), viewer.actor)
    if made is None:
        raise RuntimeError("INSERT returned no row")
    # The entry's row was written last, so it has the wallet as it is now.
    wallet = {name: entry[name] for name in ("wallet_version", "wallet_points")}
    row = dict(reward) | dict(entry) | dict(made)
    return RewardRedemption.of(row, None if code is None else dict(code) | wallet, revealed=True)


async def _new_code(tx: Tx, viewer: Viewer, pool_id: UUID, member_id: UUID, redemption_id: UUID) -> Row:
    """Claim a code that the member didn't have. The claim's key is the redemption's, so no other claim answers it."""
    try:
        claimed = await claim(tx, viewer, pool_id, Claimant(member_id), f"reward/{redemption_id.hex}", is_paid=True)
    except Refused as refused:
        if isinstance(refused.refusal, PoolExhausted | PoolNotActive):
            raise _out_of_stock(f"its pool gives no code ({refused.refusal.message.rstrip('.')})") from None
        raise
    if claimed is None:
        raise RuntimeError("a reward's pool or a locked member is gone")
    if claimed.replayed:
        raise _out_of_stock("the member has as many codes of its pool as it may have")
    return claimed.row


def _out_of_stock(why: str) -> Refused:
    return Refused(RewardOutOfStock(message=f"The reward can't be had: {why}."))


@mutation(description="Have a reward for points. A member for itself; ADMIN and CHECKOUT for the member they name.")
async def redeem_reward(
    info: Info, input: Annotated[RedeemRewardInput, strawberry.argument(description="The reward, and for whom.")]
) -> RedeemRewardResult:
    """Look for the key under the member's lock, then redeem.

    The order of locks is member, reward, code, claim, wallet.
    """
    viewer = info.context.viewer
    problems = Problems()
    problems.idempotency_key(input.idempotency_key)
    if viewer.role is not Role.MEMBER and input.member_id is None:
        problems.add("memberId", "must name the member that redeems")
    problems.refuse_if_any()
    reward_id = node_id("reward", "reward", input.reward_id)
    member_id = acting_member(viewer, input.member_id)
    key = scoped_key(viewer, input.idempotency_key)
    try:
        async with transaction() as tx:
            if await tx.row(LOCK_MEMBER, viewer.merchant_id, member_id) is None:
                raise not_found("member", input.member_id or viewer.actor)
            earlier = await _earlier(tx, viewer, key, reward_id, member_id)
            if earlier is not None:
                return RedeemRewardSuccess(redemption=earlier, replayed=True)
            reward = await tx.row(TAKE, viewer.merchant_id, reward_id)
            if reward is None:
                raise not_found("reward", input.reward_id)
            redemption = await redeem(tx, viewer, reward, member_id, key)
    except asyncpg.UniqueViolationError:
        raise _reused() from None
    return RedeemRewardSuccess(redemption=redemption, replayed=False)


async def _earlier(tx: Tx, viewer: Viewer, key: str, reward_id: UUID, member_id: UUID) -> RewardRedemption | None:
    """Return the redemption that this key made before. Raises Refused when it was another one."""
    row = await tx.row(FIND_BY_KEY, viewer.merchant_id, key)
    if row is None:
        return None
    if (row["reward_id"], row["member_id"]) != (reward_id, member_id):
        raise _reused()
    return RewardRedemption.of(row, await code_of(tx, viewer, row), revealed=True)


def _reused() -> Refused:
    return Refused(IdempotencyKeyReused(message="This idempotencyKey was used for another redemption."))
