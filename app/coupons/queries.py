"""Reading pools, codes and redemptions: one statement per list, whatever is selected on its rows."""

from typing import Annotated

import strawberry

from app.api.connections import After, Connection, First, connect, page
from app.api.operations import Id, Info, query
from app.coupons.rows import LIST_CODES, LIST_CODES_IN_STATE, LIST_POOLS, LIST_REDEMPTIONS, find_campaign, find_pool
from app.coupons.types import Campaign, Code, CodeState, Pool, PoolStatus, Redemption
from app.storage.database import database


@query(description="A pool by id.")
async def pool(info: Info, id: Id) -> Pool | None:
    """Read one pool."""
    row = await find_pool(info.context.viewer, id)
    return None if row is None else Pool.of(row)


@query(description="All pools, newest first.")
async def pools(
    info: Info,
    first: First = None,
    after: After = None,
    status: Annotated[PoolStatus | None, strawberry.argument(description="Only pools in this status.")] = None,
) -> Connection[Pool]:
    """Read a page of pools."""
    asked = page(first, after)
    wanted = None if status is None else status.value
    rows = await database().rows(
        LIST_POOLS,
        merchant_id=info.context.viewer.merchant_id,
        before=asked.id,
        limit=asked.limit,
        status=wanted,
    )
    return connect(rows, asked, Pool.of, key="pool_id")


@query(description="All codes of all pools, newest first.")
async def codes(
    info: Info,
    first: First = None,
    after: After = None,
    state: Annotated[CodeState | None, strawberry.argument(description="Only codes in this state.")] = None,
) -> Connection[Code]:
    """Read a page of codes with their pools and owners."""
    asked = page(first, after)
    merchant_id = info.context.viewer.merchant_id
    if state is None:
        rows = await database().rows(LIST_CODES, merchant_id=merchant_id, before=asked.id, limit=asked.limit)
    else:
        rows = await database().rows(
            LIST_CODES_IN_STATE, merchant_id=merchant_id, before=asked.id, limit=asked.limit, state=state.value
        )
    return connect(rows, asked, Code.of, key="code_id")


@query(description="All redemptions, newest first.")
async def redemptions(info: Info, first: First = None, after: After = None) -> Connection[Redemption]:
    """Read a page of redemptions with their codes."""
    asked = page(first, after)
    rows = await database().rows(
        LIST_REDEMPTIONS, merchant_id=info.context.viewer.merchant_id, before=asked.id, limit=asked.limit
    )
    return connect(rows, asked, Redemption.of, key="redemption_id")


@query(description="A campaign by id.")
async def campaign(info: Info, id: Id) -> Campaign | None:
    """Read one campaign."""
    row = await find_campaign(info.context.viewer, id)
    return None if row is None else Campaign.of(row)
