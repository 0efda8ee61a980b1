"""checkIntegrity: the promises are to be recomputed now, by a worker."""

from typing import Annotated

import strawberry

from app.api.operations import Info, mutation
from app.integrity.integrity_report import IntegrityReport
from app.reports import runs


@strawberry.type(description="A worker recomputes the promises.")
class CheckIntegritySuccess:
    """What there is meanwhile."""

    report: IntegrityReport = strawberry.field(
        description="What the run before found; ask `integrityReport` until its `status` isn't RUNNING any more."
    )


CheckIntegrityResult = Annotated[
    CheckIntegritySuccess,
    strawberry.union("CheckIntegrityResult", description="The report, as far as it is."),
]


@mutation(
    description="Ask for a run that recomputes every promise. One at a time: asking while one waits or runs asks for "
    "nothing more. A night's comes by itself. Nothing is changed but the report. ADMIN and ANALYST."
)
async def check_integrity(info: Info) -> CheckIntegrityResult:
    # While Valkey is away, the run waits for it.
    viewer = info.context.viewer
    report = await runs.request(viewer.merchant_id, runs.INTEGRITY, viewer.actor)
    return CheckIntegritySuccess(report=IntegrityReport.of(report))
