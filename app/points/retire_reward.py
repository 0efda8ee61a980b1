"""retireReward: a reward isn't offered any more; retiring it again changes nothing."""

from typing import Annotated, Final

import strawberry

from app import ids
from app.api.inputs import node_id
from app.api.operations import Info, NotFound, mutation, not_found
from app.points.rows import REWARD_COLUMNS, find_reward
from app.points.types import Reward
from app.storage.database import database


@strawberry.input(description="A reward to retire.")
class RetireRewardInput:
    """Which reward."""

    reward_id: strawberry.ID = strawberry.field(description="The reward.")


@strawberry.type(description="The reward isn't offered any more.")
class RetireRewardSuccess:
    """The retired reward."""

    reward: Reward = strawberry.field(description="The reward.")


RetireRewardResult = Annotated[
    RetireRewardSuccess | NotFound,
    strawberry.union("RetireRewardResult", description="The retired reward, or why there is none."),
]

RETIRE: Final = f"""
WITH a AS (
    UPDATE reward SET active = false WHERE merchant_id = $1 AND id = $2 AND active RETURNING *
), recorded AS (
    INSERT INTO event (merchant_id, id, type, subject_id, actor, occurred_at)
    SELECT $1, $3, 'reward.retired', id, $4, now() FROM a
)
SELECT {REWARD_COLUMNS} FROM a
"""


@mutation(description="Stop offering a reward; doing it again changes nothing. ADMIN only.")
async def retire_reward(
    info: Info, input: Annotated[RetireRewardInput, strawberry.argument(description="The reward to retire.")]
) -> RetireRewardResult:
    """Change the row and record it in one statement."""
    viewer = info.context.viewer
    reward_id = node_id("reward", "reward", input.reward_id)
    row = await database().row(RETIRE, viewer.merchant_id, reward_id, ids.new(), viewer.actor)
    if row is None:
        row = await find_reward(viewer, input.reward_id)
    if row is None:
        raise not_found("reward", input.reward_id)
    return RetireRewardSuccess(reward=Reward.of(row))
