"""Reading the portfolio and the advisor's runs; never for members or tills."""

from datetime import UTC, datetime

from app.advisor.rows import LATEST_RUN, find_run, find_suggestion
from app.advisor.types import AdviceRun, OfferSuggestion, Portfolio
from app.api.context import Viewer
from app.api.node import refetches
from app.api.operations import Id, Info, query
from app.storage.database import database


@query(description="How the merchant's pools and audiences do, computed now. ADMIN and ANALYST.")
async def portfolio(info: Info) -> Portfolio:
    """Read nothing: its lists do, where they are selected."""
    return Portfolio(tenant=info.context.viewer.tenant, generated_at=datetime.now(UTC))


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
