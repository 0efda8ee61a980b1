"""redeemReward: points, stock and the code of a reward change together or not at all."""

from typing import Annotated, Final, TypedDict
from uuid import UUID

import asyncpg
import strawberry

from app import ids
from app.api.context import Viewer
from app.api.inputs import Problems, node_id, stored_key
from app.api.operations import IdempotencyKeyReused, Info, InvalidInput, NotFound, Refusal, Refused, mutation, not_found
from app.coupons.claims import HELD_OF_POOL, Claimant, NotEligible, PoolExhausted, PoolNotActive, claim
from app.coupons.overdue import end_overdue
from app.coupons.rows import WholeCodeRow
from app.coupons.types import Code
from app.members.member_keys import MemberKeyInput, named_member
from app.members.rows import lock_member
from app.points.ledger import InsufficientPoints, debit
from app.points.rows import FIND_EXCHANGE_BY_KEY, ExchangeRow, RewardRow, code_of
from app.points.types import PointsReason, RewardRedemption
from app.storage.database import Statements, Tx, database, transaction
from app.storage.events import event
from app.storage.gone import MemberGoneError
from app.storage.statements import columns, statement


@strawberry.input(description="A member redeems for itself. ADMIN and CHECKOUT keys name the member.")
class RedeemRewardInput:
    """Which reward, for whom, and the caller's key for a retry."""

    reward_id: strawberry.ID = strawberry.field(description="The reward.")
    member_id: strawberry.ID | None = strawberry.field(
        default=None, description="The member that redeems; a member may leave it out."
    )
    member: MemberKeyInput | None = strawberry.field(
        default=None,
        description="The member that redeems, by a store's id, in place of its id: an address spends nobody's points.",
    )
    expected_cost: int | None = strawberry.field(
        default=None, description="What the caller told the member that it costs: refused if it costs something else."
    )
    idempotency_key: str = strawberry.field(
        description="Each key is a redemption of its own, and the same key again is the same one. "
        "At most 200 characters; a member's keys are its own."
    )


@strawberry.type(description="The reward is the member's.")
class RedeemRewardSuccess:
    redemption: RewardRedemption = strawberry.field(description="The redemption, with the code's text if it has one.")
    replayed: bool = strawberry.field(description="Whether an earlier call with the same key made it.")


@strawberry.type(
    description="The reward can't be had: it is retired or out of stock, or its pool has no further code for the "
    "member (it is empty or not open, or the member has as many of it as it may have)."
)
class RewardOutOfStock(Refusal):
    """Nothing left for this member."""


@strawberry.type(description="The reward costs something else by now; nothing was changed.")
class RewardCostChanged(Refusal):
    """What it costs."""

    cost: int = strawberry.field(description="What it costs now, in points.")


RedeemRewardResult = Annotated[
    RedeemRewardSuccess
    | InvalidInput
    | NotFound
    | RewardCostChanged
    | InsufficientPoints
    | RewardOutOfStock
    | NotEligible
    | IdempotencyKeyReused,
    strawberry.union("RedeemRewardResult", description="The redemption, or why there is none."),
]


class TakenRewardRow(RewardRow):
    """A reward, and whether it can be had: one is taken from its stock then."""

    is_taken: bool
    #: How many codes of its pool are set aside for the member, by holds.
    held_of_pool: int


TAKE: Final = statement(
    TakenRewardRow,
    f"""
WITH taken AS (
    -- Of a limited stock, under the reward's lock until the commit: redemptions of one limited reward go one after the
    -- other.
    UPDATE reward SET stock = stock - 1
    WHERE merchant_id = :merchant_id AND id = :reward_id AND active AND stock > 0 RETURNING *
), a AS (
    SELECT taken.*, true AS is_taken FROM taken
    UNION ALL
    -- An unlimited reward is only read, and so is one that can't be had.
    SELECT reward.*, active AND stock IS NULL FROM reward
    WHERE merchant_id = :merchant_id AND id = :reward_id AND NOT EXISTS (SELECT FROM taken)
)
SELECT {columns(RewardRow)}, is_taken, {HELD_OF_POOL.format("a.pool_id", ":member_id")} AS held_of_pool FROM a
""",
)
INSERT: Final = statement(
    ExchangeRow,
    f"""
WITH x AS (
    INSERT INTO reward_redemption (merchant_id, id, reward_id, member_id, code_id, entry_id, idempotency_key,
                                   is_from_stock, created_at)
    VALUES (:merchant_id, :exchange_id, :reward_id, :member_id, :code_id, :entry_id, :key, :is_from_stock, now())
    RETURNING *
), recorded AS (
    {event("reward.redeemed", subject="id", source="x")}
)
SELECT {columns(ExchangeRow)} FROM x WHERE x.merchant_id = :merchant_id
""",
)


async def redeem(tx: Tx, viewer: Viewer, reward: TakenRewardRow, member_id: UUID, key: bytes) -> RewardRedemption:
    """Redeem a reward that TAKE has returned, for a member that is locked.

    Locks a code and its claim, and the wallet last. Raises Refused with RewardOutOfStock, NotEligible or
    InsufficientPoints, and asyncpg.UniqueViolationError when the key has a redemption.
    """
    if not reward["is_taken"]:
        raise out_of_stock("none is left" if reward["reward_active"] else "it is retired")
    exchange_id = ids.new()
    code = None
    if reward["reward_pool_id"] is not None:
        if reward["held_of_pool"]:
            await _refuse_beyond_limit(tx, viewer, reward["reward_pool_id"], member_id, reward["held_of_pool"])
        code = await _new_code(tx, viewer, reward["reward_pool_id"], member_id, exchange_id)
    entry = await debit(
        tx,
        viewer.merchant_id,
        viewer.actor,
        member_id,
        reward["reward_cost"],
        PointsReason.REWARD,
        origin=exchange_id.hex,
        reference=reward["reward_name"],
    )
    if entry is None:
        raise RuntimeError("a locked member is gone")
    made = await tx.row(
        INSERT,
        merchant_id=viewer.merchant_id,
        exchange_id=exchange_id,
        reward_id=reward["reward_id"],
        member_id=member_id,
        code_id=None if code is None else code["code_id"],
        entry_id=entry["entry_id"],
        key=key,
        is_from_stock=reward["reward_stock"] is not None,
        event_id=ids.new(),
        actor=viewer.actor,
    )
    if made is None:
        raise RuntimeError("INSERT returned no row")
    # The entry was written after the code was claimed: it has the wallet as it is now.
    shown = None if code is None else Code.of(code, as_of=entry, revealed=True)
    return RewardRedemption.of(made, reward=reward, entry=entry, code=shown)


class _LimitRow(TypedDict):
    claims: int
    claims_per_member: int


COUNT_CLAIMS: Final = statement(
    _LimitRow,
    """
SELECT claims_per_member, (
    SELECT count(*)::int FROM claim
    WHERE merchant_id = :merchant_id AND pool_id = pool.id AND member_id = :member_id
) AS claims
FROM pool WHERE merchant_id = :merchant_id AND id = :pool_id
""",
)


async def _refuse_beyond_limit(tx: Tx, viewer: Viewer, pool_id: UUID, member_id: UUID, held: int) -> None:
    """Raise Refused(RewardOutOfStock) when what holds have set aside is all that the member may still have."""
    row = await tx.row(COUNT_CLAIMS, merchant_id=viewer.merchant_id, pool_id=pool_id, member_id=member_id)
    if row is not None and row["claims"] + held >= row["claims_per_member"]:
        raise out_of_stock("an order holds as many codes of its pool as the member may have")


async def _new_code(tx: Tx, viewer: Viewer, pool_id: UUID, member_id: UUID, exchange_id: UUID) -> WholeCodeRow:
    """Claim a code that the member didn't have. The claim's key is the redemption's, so no other claim answers it."""
    try:
        key = viewer.tenant.keys.request_index(f"reward/{exchange_id.hex}")
        claimed = await claim(tx, viewer, pool_id, Claimant(member_id), key, is_paid=True)
    except Refused as refused:
        if isinstance(refused.refusal, PoolExhausted | PoolNotActive):
            raise out_of_stock(f"its pool gives no code ({refused.refusal.message.rstrip('.')})") from None
        raise
    if claimed is None:
        raise RuntimeError("a reward's pool or a locked member is gone")
    if claimed.replayed:
        raise out_of_stock("the member has as many codes of its pool as it may have")
    return claimed.row


def out_of_stock(why: str) -> Refused:
    """Return the refusal of a reward that can't be had."""
    return Refused(RewardOutOfStock(message=f"The reward can't be had: {why}."))


@mutation(description="Have a reward for points. MEMBER for itself; ADMIN and CHECKOUT for the member they name.")
async def redeem_reward(
    info: Info, input: Annotated[RedeemRewardInput, strawberry.argument(description="The reward, and for whom.")]
) -> RedeemRewardResult:
    """Look for the key under the member's lock, then redeem.

    The order of locks is member, reward, code, claim, wallet.
    """
    viewer = info.context.viewer
    problems = Problems()
    problems.idempotency_key(input.idempotency_key)
    named = named_member(problems, viewer, input.member_id, input.member)
    if not problems.found and input.member is not None and input.member.email is not None:
        # Whoever stands at a till can type anybody's address.
        problems.add("member.email", "spends nobody's points: name the member by its id or a store's id")
    problems.refuse_if_any()
    reward_id = node_id("reward", "reward", input.reward_id)
    member_id = await named.id(viewer)
    key = stored_key(viewer, input.idempotency_key)
    while True:
        try:
            async with transaction(viewer.merchant_id) as tx:
                # A member's redemptions go one after the other. Without this two of them would meet at the member's
                # next slot of the pool, each holding the lock of a code that the other one looks for.
                if not await lock_member(tx, viewer.merchant_id, member_id):
                    raise not_found("member", named.shown(viewer))
                earlier = await _earlier(tx, viewer, key, reward_id, member_id)
                if earlier is not None:
                    return RedeemRewardSuccess(redemption=earlier, replayed=True)
                return await _redeem(tx, viewer, input, reward_id, member_id, key)
        except asyncpg.UniqueViolationError:
            raise _reused() from None
        except MemberGoneError:
            # What it had before it went is told all the same.
            had = await _earlier(database(), viewer, key, reward_id, member_id)
            if had is None:
                raise
            return RedeemRewardSuccess(redemption=had, replayed=True)
        except Refused as refused:
            # What a hold has whose time has passed is there for others.
            if not isinstance(refused.refusal, RewardOutOfStock) or not await end_overdue(
                viewer.merchant_id, reward_ids=[reward_id]
            ):
                raise


async def _redeem(
    tx: Tx, viewer: Viewer, input: RedeemRewardInput, reward_id: UUID, member_id: UUID, key: bytes
) -> RedeemRewardSuccess:
    reward = await tx.row(TAKE, merchant_id=viewer.merchant_id, reward_id=reward_id, member_id=member_id)
    if reward is None:
        raise not_found("reward", input.reward_id)
    if input.expected_cost not in {None, reward["reward_cost"]}:
        cost = reward["reward_cost"]
        raise Refused(RewardCostChanged(message=f"The reward costs {cost:,} points now.", cost=cost))
    return RedeemRewardSuccess(redemption=await redeem(tx, viewer, reward, member_id, key), replayed=False)


async def _earlier(
    where: Statements, viewer: Viewer, key: bytes, reward_id: UUID, member_id: UUID
) -> RewardRedemption | None:
    """Return the redemption that this key made before. Raises Refused when it was another one."""
    row = await where.row(FIND_EXCHANGE_BY_KEY, merchant_id=viewer.merchant_id, key=key)
    if row is None:
        return None
    if (row["reward_id"], row["member_id"]) != (reward_id, member_id):
        raise _reused()
    code = await code_of(where, viewer, row)
    shown = None if code is None else Code.of(code, revealed=True)
    return RewardRedemption.of(row, reward=row, entry=row, code=shown)


def _reused() -> Refused:
    return Refused(IdempotencyKeyReused(message="This idempotencyKey was used for another redemption."))
