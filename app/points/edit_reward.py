"""editReward: another name, cost or stock for a reward; what was redeemed before stays as it was."""

from typing import Annotated, Final, TypeVar

import strawberry
from strawberry import UNSET

from app import ids
from app.api.inputs import Problems, node_id
from app.api.operations import Info, InvalidInput, NotFound, mutation, not_found
from app.points.create_reward import NAME_LENGTH_MAX
from app.points.ledger import POINTS_MAX
from app.points.rows import RewardRow
from app.points.types import Reward
from app.storage.database import database
from app.storage.events import event
from app.storage.statements import columns, statement

T = TypeVar("T")


@strawberry.input(description="What to change; what is left out stays, null takes a limit on the stock away.")
class EditRewardInput:
    """Name, cost and stock; the pool is fixed."""

    reward_id: strawberry.ID = strawberry.field(description="The reward.")
    name: str | None = strawberry.field(default=UNSET, description="Its name, at most 200 characters.")
    cost: int | None = strawberry.field(default=UNSET, description="What it costs, in points; over 0.")
    stock: int | None = strawberry.field(default=UNSET, description="How often it can still be had; 0 or more.")


@strawberry.type(description="The reward was changed.")
class EditRewardSuccess:
    reward: Reward = strawberry.field(description="The reward as it is now.")


EditRewardResult = Annotated[
    EditRewardSuccess | InvalidInput | NotFound,
    strawberry.union("EditRewardResult", description="The edited reward, or why it stays as it was."),
]

EDIT: Final = statement(
    RewardRow,
    f"""
WITH a AS (
    UPDATE reward SET name = coalesce(:name, name), cost = coalesce(:cost, cost),
        stock = CASE WHEN :sets_stock THEN :stock ELSE stock END
    WHERE merchant_id = :merchant_id AND id = :reward_id RETURNING *
), recorded AS (
    {event("reward.edited", subject="id", source="a")}
)
SELECT {columns(RewardRow)} FROM a
""",
)


@mutation(description="Change a reward's name, cost or stock. ADMIN only.")
async def edit_reward(
    info: Info, input: Annotated[EditRewardInput, strawberry.argument(description="What to change.")]
) -> EditRewardResult:
    viewer = info.context.viewer
    problems = Problems()
    for path in ("name", "cost"):
        if getattr(input, path) is None:
            problems.add(path, "must not be null")
    name = problems.optional_text("name", _given(input.name), length_max=NAME_LENGTH_MAX)
    cost = problems.number("cost", _given(input.cost), least=1, most=POINTS_MAX)
    stock = problems.number("stock", _given(input.stock), least=0, most=POINTS_MAX)
    problems.refuse_if_any()
    reward_id = node_id("reward", "reward", input.reward_id)
    row = await database().row(
        EDIT,
        merchant_id=viewer.merchant_id,
        reward_id=reward_id,
        name=name,
        cost=cost,
        sets_stock=input.stock is not UNSET,
        stock=stock,
        event_id=ids.new(),
        actor=viewer.actor,
    )
    if row is None:
        raise not_found("reward", input.reward_id)
    return EditRewardSuccess(reward=Reward.of(row))


def _given(value: T | None) -> T | None:
    """Return what was sent, or None where the field was left out."""
    return None if value is UNSET else value
