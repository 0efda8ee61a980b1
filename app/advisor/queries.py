"""Reading the portfolio and the advisor's runs; never for members or tills."""

from collections.abc import Mapping
from uuid import UUID

from graphql import GraphQLError

from app.advisor.figures import compute_shown, report
from app.advisor.portfolio import Figures, figures
from app.advisor.rows import LATEST_RUN, find_run, find_suggestion
from app.advisor.types import AdviceRun, OfferSuggestion, Portfolio
from app.api.context import Viewer
from app.api.node import refetches
from app.api.operations import Id, Info, query
from app.reports.runs import CheckStatus, Report
from app.storage.database import database


async def _reports(_viewer: Viewer, merchant_ids: list[UUID]) -> Mapping[UUID, tuple[Report, Figures | None]]:
    found = {}
    for merchant_id in merchant_ids:
        kept = await report(merchant_id, compute_shown)
        found[merchant_id] = (kept, await figures(merchant_id, kept))
    return found


@query(
    description="How the merchant's pools and audiences do. Fails with TIMEOUT while there are no figures yet, because "
    "computing the first ones takes a worker longer than a request may. ADMIN and ANALYST."
)
async def portfolio(info: Info) -> Portfolio:
    """Read it once, however often it is selected."""
    tenant = info.context.viewer.tenant
    kept, found = await info.context.load(_reports, tenant.id)
    if found is None:
        message = (
            "Its figures are being computed, which takes a worker some time; ask again in a minute."
            if kept.status is CheckStatus.RUNNING
            else f"Its figures couldn't be computed. {kept.problem} The next try is this night's."
        )
        raise GraphQLError(message, extensions={"code": "TIMEOUT"})
    return Portfolio(
        figures=found, tenant=tenant, generated_at=found.generated_at, status=kept.status, problem=kept.problem
    )


@refetches("advicerun")
async def _run(viewer: Viewer, node_id: str) -> AdviceRun | None:
    row = await find_run(viewer, node_id)
    return None if row is None else AdviceRun.of(row)


@refetches("suggestion")
async def _suggestion(viewer: Viewer, node_id: str) -> OfferSuggestion | None:
    row = await find_suggestion(viewer, node_id)
    return None if row is None else OfferSuggestion.of(row, viewer.tenant.currency)


@query(description="A run of the advisor, as far as it is. ADMIN and ANALYST.")
async def advice_run(info: Info, id: Id) -> AdviceRun | None:
    return await _run(info.context.viewer, id)


@query(description="The run of the advisor that was asked for last; null before the first one. ADMIN and ANALYST.")
async def latest_advice_run(info: Info) -> AdviceRun | None:
    row = await database().row(LATEST_RUN, merchant_id=info.context.viewer.merchant_id)
    return None if row is None else AdviceRun.of(row)
