"""createReward: something to have for points, with a code of a pool where it names one."""

from typing import Annotated, Final
from uuid import UUID

import strawberry

from app import ids
from app.api.inputs import Problems, node_id
from app.api.operations import Info, InvalidInput, NotFound, mutation, not_found
from app.coupons.rows import pool_row
from app.points.ledger import POINTS_MAX
from app.points.rows import REWARD_COLUMNS
from app.points.types import Reward
from app.storage.database import database

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
    """The new reward."""

    reward: Reward = strawberry.field(description="The new reward.")


CreateRewardResult = Annotated[
    CreateRewardSuccess | InvalidInput | NotFound,
    strawberry.union("CreateRewardResult", description="The new reward, or why there is none."),
]

# Waits for campaigns that are sending the pool's codes (HOLD_POOL in create_campaign.py), so that none of them goes on
# once the reward is there.
INSERT: Final = f"""
WITH p AS (
    SELECT id FROM pool WHERE merchant_id = $1 AND id = $6 FOR NO KEY UPDATE
), a AS (
    INSERT INTO reward (merchant_id, id, name, cost, stock, pool_id, active, created_at)
    VALUES ($1, $2, $3, $4, $5, (SELECT id FROM p), true, now()) RETURNING *
), recorded AS (
    INSERT INTO event (merchant_id, id, type, subject_id, actor, occurred_at)
    SELECT $1, $7, 'reward.created', id, $8, now() FROM a
)
SELECT {REWARD_COLUMNS} FROM a
"""


@mutation(description="Create a reward. ADMIN only.")
async def create_reward(
    info: Info, input: Annotated[CreateRewardInput, strawberry.argument(description="The reward to create.")]
) -> CreateRewardResult:
    """Insert the reward and its event in one statement."""
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
        INSERT, viewer.merchant_id, ids.new(), name, input.cost, input.stock, pool_id, ids.new(), viewer.actor
    )
    if row is None:
        raise RuntimeError("INSERT returned no row")
    return CreateRewardSuccess(reward=Reward.of(row))
