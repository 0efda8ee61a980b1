"""Reading reports: nullable connections of flat rows, a page of a thousand in one statement."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any, Final, Generic, TypeVar, cast
from uuid import UUID

import strawberry

from app.api.connections import After, Lazily, PageInfo, cursor, page, page_info
from app.api.operations import Info, query
from app.config import settings
from app.reports.rows import (
    ReportCode,
    ReportInvite,
    ReportMember,
    ReportPointsEntry,
    ReportPool,
    ReportPurchase,
    ReportRedemption,
    ReportReferral,
)
from app.reports.tables import REPORTS, PageRow, Report, money_of
from app.storage.database import replica

T = TypeVar("T")

_FIRST_ID: Final = UUID(int=0)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: How far the milliseconds of a UUIDv7 stand from its end.
_INSTANT_SHIFT: Final = 80

First = Annotated[
    int | None,
    strawberry.argument(description="How many, at most 1,000 (FLASH_REPORT_ROWS_MAX); as many as that unless told."),
]
Since = Annotated[datetime | None, strawberry.argument(description="Only rows that came into being then or later.")]
Until = Annotated[datetime | None, strawberry.argument(description="Only rows that came into being before.")]


@strawberry.type(name="Edge", description="A row of a report and its place in it.")
class ReportEdge(Generic[T]):
    """One row. SQL over GraphQL finds the type of a nullable node only."""

    cursor: str = strawberry.field(description="The row's place, for `after`.")
    node: T | None = strawberry.field(description="The row, never null.")


@strawberry.type(name="Connection", description="A page of a report, newest first.")
class ReportConnection(Generic[T]):
    """One page. SQL over GraphQL finds the type of nullable edges only."""

    edges: list[ReportEdge[T] | None] | None = strawberry.field(description="The rows of this page, never null.")
    page_info: PageInfo = strawberry.field(description="Where this page stands.")


async def _read(
    info: Info, report: Report, first: int | None, after: str | None, since: datetime | None, until: datetime | None
) -> ReportConnection[Any]:
    """Read a page of a report, newest first."""
    tenant = info.context.viewer.tenant
    rows_max = settings().report_rows_max
    asked = page(first, after, unless_told=rows_max, most=rows_max)
    below = asked.id if until is None else min(asked.id, _lowest_id(until))
    from_id = _FIRST_ID if since is None else _lowest_id(since)
    rows = await replica().rows(
        report.page,
        merchant_id=tenant.id,
        before=below,
        from_id=from_id,
        limit=asked.limit,
        **money_of(tenant.currency),
    )
    kept = rows[: asked.size]
    edges = cast("list[ReportEdge[Any] | None]", Lazily(kept, partial(_edge, report.row_type)))
    ends = [cursor(row["key"]) for row in (*kept[:1], *kept[-1:])]
    return ReportConnection(edges=edges, page_info=page_info(asked, ends, len(rows)))


def _edge(row_type: type, row: PageRow) -> ReportEdge[Any]:
    values = {name: value for name, value in row.items() if name != "key"}
    return ReportEdge(cursor=cursor(row["key"]), node=row_type(**values))


def _lowest_id(instant: datetime) -> UUID:
    """Return the lowest id of a row that came into being then or later, to the millisecond."""
    microseconds = (instant - _EPOCH) // timedelta(microseconds=1)
    return UUID(int=max(-(-microseconds // 1000), 0) << _INSTANT_SHIFT)


@query(description="All pools with their terms and stock, as flat rows for BI. ADMIN and ANALYST.")
async def report_pools(
    info: Info, first: First = None, after: After = None, since: Since = None, until: Until = None
) -> ReportConnection[ReportPool] | None:
    return await _read(info, REPORTS["pools"], first, after, since, until)


@query(description="All codes, masked, with their owners, values and orders, as flat rows for BI. ADMIN and ANALYST.")
async def report_codes(
    info: Info, first: First = None, after: After = None, since: Since = None, until: Until = None
) -> ReportConnection[ReportCode] | None:
    return await _read(info, REPORTS["codes"], first, after, since, until)


@query(description="All members, without names and addresses, as flat rows for BI. ADMIN and ANALYST.")
async def report_members(
    info: Info, first: First = None, after: After = None, since: Since = None, until: Until = None
) -> ReportConnection[ReportMember] | None:
    return await _read(info, REPORTS["members"], first, after, since, until)


@query(description="All purchases, as flat rows for BI. ADMIN and ANALYST.")
async def report_purchases(
    info: Info, first: First = None, after: After = None, since: Since = None, until: Until = None
) -> ReportConnection[ReportPurchase] | None:
    return await _read(info, REPORTS["purchases"], first, after, since, until)


@query(description="All changes of points, as flat rows for BI. ADMIN and ANALYST.")
async def report_points_entries(
    info: Info, first: First = None, after: After = None, since: Since = None, until: Until = None
) -> ReportConnection[ReportPointsEntry] | None:
    return await _read(info, REPORTS["pointsEntries"], first, after, since, until)


@query(description="All redemptions, as flat rows for BI. ADMIN and ANALYST.")
async def report_redemptions(
    info: Info, first: First = None, after: After = None, since: Since = None, until: Until = None
) -> ReportConnection[ReportRedemption] | None:
    return await _read(info, REPORTS["redemptions"], first, after, since, until)


@query(description="All invites, without addresses, as flat rows for BI. ADMIN and ANALYST.")
async def report_invites(
    info: Info, first: First = None, after: After = None, since: Since = None, until: Until = None
) -> ReportConnection[ReportInvite] | None:
    return await _read(info, REPORTS["invites"], first, after, since, until)


@query(description="All conversions, held and declined ones too, as flat rows for BI. ADMIN and ANALYST.")
async def report_referrals(
    info: Info, first: First = None, after: After = None, since: Since = None, until: Until = None
) -> ReportConnection[ReportReferral] | None:
    return await _read(info, REPORTS["referrals"], first, after, since, until)
