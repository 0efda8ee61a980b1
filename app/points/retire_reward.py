"""retireReward: a reward isn't offered any more; retiring it again changes nothing."""

from typing import Annotated, Final

import strawberry

from app import ids
from app.api.inputs import node_id
from app.api.operations import Info, NotFound, mutation, not_found
from app.points.rows import RewardRow, find_reward
from app.points.types import Reward
from app.storage.database import database
from app.storage.events import event
from app.storage.statements import columns, statement


@strawberry.input(description="A reward to retire.")
class RetireRewardInput:
    reward_id: strawberry.ID = strawberry.field(description="The reward.")


@strawberry.type(description="The reward isn't offered any more.")
class RetireRewardSuccess:
    reward: Reward = strawberry.field(description="The reward.")


RetireRewardResult = Annotated[
    RetireRewardSuccess | NotFound,
    strawberry.union("RetireRewardResult", description="The retired reward, or why there is none."),
]

RETIRE: Final = statement(
    RewardRow,
    f"""
WITH a AS (
    UPDATE reward SET active = false WHERE merchant_id = :merchant_id AND id = :reward_id AND active RETURNING *
), recorded AS (
    {event("reward.retired", subject="id", source="a")}
)
SELECT {columns(RewardRow)} FROM a
""",
)


@mutation(description="Stop offering a reward; doing it again changes nothing. ADMIN only.")
async def retire_reward(
    info: Info, input: Annotated[RetireRewardInput, strawberry.argument(description="The reward to retire.")]
) -> RetireRewardResult:
    viewer = info.context.viewer
    reward_id = node_id("reward", "reward", input.reward_id)
    row = await database().row(
        RETIRE, merchant_id=viewer.merchant_id, reward_id=reward_id, event_id=ids.new(), actor=viewer.actor
    )
    if row is None:
        row = await find_reward(viewer, input.reward_id)
    if row is None:
        raise not_found("reward", input.reward_id)
    return RetireRewardSuccess(reward=Reward.of(row))
