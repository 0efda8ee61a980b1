"""adviceRunChanged: a run of the advisor as it is, and again whenever it has changed, until it has ended."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from graphql import GraphQLError

from app.advisor.advice_feed import AdviceFeed
from app.advisor.rows import RunRow, find_run
from app.advisor.types import AdviceRun
from app.api.operations import Id, Info, subscription


@subscription(
    description="A run of the advisor: as it is now, then after each of its steps, the last one included; then the "
    "subscription completes. Fails with NOT_FOUND for an id that names no run of the merchant's. ADMIN and ANALYST."
)
async def advice_run_changed(info: Info, id: Id) -> AsyncGenerator[AdviceRun, None]:
    run = await find_run(info.context.viewer, id)
    if run is None:
        raise GraphQLError("There is no such run.", extensions={"code": "NOT_FOUND"})
    return _shown(AdviceFeed.of_process().follow((run["run_merchant_id"], run["run_id"])))


async def _shown(changes: AsyncGenerator[RunRow, None]) -> AsyncGenerator[AdviceRun, None]:
    async with aclosing(changes):
        async for row in changes:
            yield AdviceRun.of(row)
