"""Reading the portfolio and the advisor's runs; never for members or tills."""

from datetime import UTC, datetime
from typing import Final

from app import ids
from app.advisor.runs import RUN_COLUMNS
from app.advisor.types import AdviceRun, Portfolio
from app.api.context import Role, Viewer
from app.api.operations import Id, Info, query
from app.storage.database import Row, database

_READERS: Final = {Role.ADMIN, Role.ANALYST}

FIND_RUN: Final = f"SELECT {RUN_COLUMNS} FROM advice_run a WHERE a.merchant_id = $1 AND a.id = $2"
LATEST_RUN: Final = f"SELECT {RUN_COLUMNS} FROM advice_run a WHERE a.merchant_id = $1 ORDER BY a.id DESC LIMIT 1"


async def find_run(viewer: Viewer, node_id: str) -> Row | None:
    """Return the run behind an id, if this viewer may see it."""
    run_id = ids.decode("advicerun", node_id)
    if run_id is None or viewer.role not in _READERS:
        return None
    return await database().row(FIND_RUN, viewer.merchant_id, run_id)


@query(description="How the merchant's pools and audiences do, computed now. ADMIN and ANALYST.")
async def portfolio(info: Info) -> Portfolio:
    """Read nothing: its lists do, where they are selected."""
    return Portfolio(tenant=info.context.viewer.tenant, generated_at=datetime.now(UTC))


@query(description="A run of the advisor, as far as it is. ADMIN and ANALYST.")
async def advice_run(info: Info, id: Id) -> AdviceRun | None:
    """Read one run."""
    row = await find_run(info.context.viewer, id)
    return None if row is None else AdviceRun.of(row)


@query(description="The run of the advisor that was asked for last; null before the first one. ADMIN and ANALYST.")
async def latest_advice_run(info: Info) -> AdviceRun | None:
    """Read one run."""
    row = await database().row(LATEST_RUN, info.context.viewer.merchant_id)
    return None if row is None else AdviceRun.of(row)
