"""Reading pools, codes and redemptions: one statement per list, whatever is selected on its rows."""

from typing import Annotated

import strawberry
from graphql import GraphQLError

from app.api import attempts
from app.api.connections import After, Connection, First, connect, page
from app.api.context import Viewer
from app.api.node import refetches
from app.api.operations import Id, Info, query
from app.coupons.rows import (
    FIND_CODE_BY_TEXT,
    LIST_CAMPAIGNS,
    LIST_CODES,
    LIST_CODES_IN_STATE,
    LIST_POOLS,
    LIST_REDEMPTIONS,
    find_batch,
    find_campaign,
    find_code,
    find_pool,
    find_redemption,
)
from app.coupons.typed_codes import CODE_LENGTH_MAX, read_typed
from app.coupons.types import Campaign, Code, CodeBatch, CodeState, Pool, PoolStatus, Redemption
from app.storage.database import database


@query(description="A pool by id. ADMIN, CHECKOUT, SUPPORT and ANALYST.")
async def pool(info: Info, id: Id) -> Pool | None:
    """Read one pool."""
    row = await find_pool(info.context.viewer, id)
    return None if row is None else Pool.of(row)


@query(description="All pools, newest first. ADMIN, CHECKOUT, SUPPORT and ANALYST.")
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


@query(description="All codes of all pools, newest first. ADMIN, CHECKOUT, SUPPORT and ANALYST.")
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


@query(
    description="One code by its text, as typed; null if there is none. Counted as an attempt, whether there is one or "
    "not: too many fail with TOO_MANY_ATTEMPTS. ADMIN, CHECKOUT and SUPPORT."
)
async def code(info: Info, text: Annotated[str, strawberry.argument(description="The code.")]) -> Code | None:
    """Count, then look."""
    viewer = info.context.viewer
    (fingerprint,) = await read_typed(viewer, [text[:CODE_LENGTH_MAX]])
    if fingerprint is None or len(text) > CODE_LENGTH_MAX:
        return None
    if await attempts.exceeded(viewer, None, tried=1, unknown=1):
        message = "Too many codes were tried with this key; wait a minute."
        raise GraphQLError(message, extensions={"code": "TOO_MANY_ATTEMPTS"})
    row = await database().row(FIND_CODE_BY_TEXT, merchant_id=viewer.merchant_id, fingerprint=fingerprint)
    return None if row is None else Code.of(row)


@query(description="All redemptions, newest first. ADMIN, CHECKOUT, SUPPORT and ANALYST.")
async def redemptions(info: Info, first: First = None, after: After = None) -> Connection[Redemption]:
    """Read a page of redemptions with their codes."""
    asked = page(first, after)
    rows = await database().rows(
        LIST_REDEMPTIONS, merchant_id=info.context.viewer.merchant_id, before=asked.id, limit=asked.limit
    )
    return connect(rows, asked, Redemption.of, key="redemption_id")


@query(description="A campaign by id. ADMIN, CHECKOUT, SUPPORT and ANALYST.")
async def campaign(info: Info, id: Id) -> Campaign | None:
    """Read one campaign."""
    row = await find_campaign(info.context.viewer, id)
    return None if row is None else Campaign.of(row)


@query(description="All campaigns, newest first. ADMIN, CHECKOUT, SUPPORT and ANALYST.")
async def campaigns(info: Info, first: First = None, after: After = None) -> Connection[Campaign]:
    """Read a page of campaigns with their pools."""
    asked = page(first, after)
    rows = await database().rows(
        LIST_CAMPAIGNS, merchant_id=info.context.viewer.merchant_id, before=asked.id, limit=asked.limit
    )
    return connect(rows, asked, Campaign.of, key="campaign_id")


@refetches("pool")
async def _pool(viewer: Viewer, node_id: str) -> Pool | None:
    row = await find_pool(viewer, node_id)
    return None if row is None else Pool.of(row)


@refetches("code")
async def _code(viewer: Viewer, node_id: str) -> Code | None:
    row = await find_code(viewer, node_id)
    return None if row is None else Code.of(row)


@refetches("redemption")
async def _redemption(viewer: Viewer, node_id: str) -> Redemption | None:
    row = await find_redemption(viewer, node_id)
    return None if row is None else Redemption.of(row)


@refetches("batch")
async def _batch(viewer: Viewer, node_id: str) -> CodeBatch | None:
    row = await find_batch(viewer, node_id)
    return None if row is None else CodeBatch.of(row)


@refetches("campaign")
async def _campaign(viewer: Viewer, node_id: str) -> Campaign | None:
    row = await find_campaign(viewer, node_id)
    return None if row is None else Campaign.of(row)
