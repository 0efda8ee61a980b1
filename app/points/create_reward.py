"""createReward: something to have for points, with a code of a pool where it names one."""

from typing import Annotated, Final
from uuid import UUID

import strawberry

from app import ids
from app.api.inputs import Problems, node_id
from app.api.operations import Info, InvalidInput, NotFound, mutation, not_found
from app.coupons.rows import pool_row
from app.points.ledger import POINTS_MAX
from app.points.rows import RewardRow
from app.points.types import Reward
from app.storage.database import database
from app.storage.events import event
from app.storage.statements import columns, statement

NAME_LENGTH_MAX: Final = 200


@strawberry.input(description="A reward to create.")
class CreateRewardInput:
    """What it is, what it costs, and how often it can be had."""

    name: str = strawberry.field(description="Its name, at most 200 characters.")
    cost: int = strawberry.field(description="What it costs, in points; over 0.")
    stock: int | None = strawberry.field(
        default=None, description="How often it can be had; 0 or more, without limit unless told."
    )
    pool_id: strawberry.ID | None = strawberry.field(
        default=None,
        description="The pool that gives a code with each redemption. While the reward is offered neither claims nor "
        "campaigns nor fallbacks get codes of it.",
    )


@strawberry.type(description="The reward was created and is offered.")
class CreateRewardSuccess:
    reward: Reward = strawberry.field(description="The new reward.")


CreateRewardResult = Annotated[
    CreateRewardSuccess | InvalidInput | NotFound,
    strawberry.union("CreateRewardResult", description="The new reward, or why there is none."),
]

# Waits for campaigns that are sending the pool's codes (HOLD_POOL in create_campaign.py), so that none of them goes on
# once the reward is there.
INSERT: Final = statement(
    RewardRow,
    f"""
WITH p AS (
    SELECT id FROM pool WHERE merchant_id = :merchant_id AND id = :pool_id FOR NO KEY UPDATE
), a AS (
    INSERT INTO reward (merchant_id, id, name, cost, stock, pool_id, active, created_at)
    SELECT :merchant_id, :reward_id, :name, :cost, :stock, :pool_id, true, now()
    WHERE :pool_id::uuid IS NULL OR EXISTS (SELECT FROM p) RETURNING *
), recorded AS (
    {event("reward.created", subject="id", source="a")}
)
SELECT {columns(RewardRow)} FROM a WHERE a.merchant_id = :merchant_id
""",
)


@mutation(description="Create a reward. ADMIN only.")
async def create_reward(
    info: Info, input: Annotated[CreateRewardInput, strawberry.argument(description="The reward to create.")]
) -> CreateRewardResult:
    viewer = info.context.viewer
    problems = Problems()
    name = problems.text("name", input.name, length_max=NAME_LENGTH_MAX)
    problems.number("cost", input.cost, least=1, most=POINTS_MAX)
    problems.number("stock", input.stock, least=0, most=POINTS_MAX)
    problems.refuse_if_any()
    pool_id: UUID | None = None
    if input.pool_id is not None:
        pool_id = node_id("pool", "pool", input.pool_id)
        if await pool_row(database(), viewer, pool_id) is None:
            raise not_found("pool", input.pool_id)
    row = await database().row(
        INSERT,
        merchant_id=viewer.merchant_id,
        reward_id=ids.new(),
        name=name,
        cost=input.cost,
        stock=input.stock,
        pool_id=pool_id,
        event_id=ids.new(),
        actor=viewer.actor,
    )
    if row is None:
        # The pool was discarded at this moment.
        raise not_found("pool", input.pool_id or "")
    return CreateRewardSuccess(reward=Reward.of(row))
