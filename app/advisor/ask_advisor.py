"""askAdvisor: a run of the advisor is asked for, one at a time for each merchant."""

from typing import Annotated, Final

import strawberry

from app.advisor import runs
from app.advisor.types import AdviceRun
from app.api.operations import Info, mutation
from app.storage import doorbell

#: The worker's function; the engine knows it by name only.
JOB: Final = "advise"


@strawberry.type(description="The advisor works at it.")
class AskAdvisorSuccess:
    """The run, to be followed by `adviceRunChanged`."""

    run: AdviceRun = strawberry.field(description="The run; one that waits or runs already is returned as it is.")


AskAdvisorResult = Annotated[
    AskAdvisorSuccess,
    strawberry.union("AskAdvisorResult", description="The merchant's run."),
]


@mutation(
    description="Ask the advisor for offers that the merchant doesn't run yet. One run at a time: asking while one "
    "waits or runs returns that one. Nothing is created but the run. ADMIN only."
)
async def ask_advisor(info: Info) -> AskAdvisorResult:
    """Write the run and its event in one statement, then ring. While Valkey is away, the run waits for it."""
    viewer = info.context.viewer
    run, is_new = await runs.request(viewer.merchant_id, viewer.actor)
    if is_new:
        await doorbell.wake_workers(JOB)
    return AskAdvisorSuccess(run=AdviceRun.of(run))
