"""Reading the record, and merchants, API keys and events by their ids."""

from app.api.connections import After, Connection, First, connect, page
from app.api.context import Viewer
from app.api.node import refetches
from app.api.operations import Info, query
from app.merchants.rows import LIST_API_KEYS, LIST_EVENTS, find_api_key, find_event
from app.merchants.types import ApiKey, Event, Merchant
from app.storage.database import database


@query(description="Everything that happened, newest first. ADMIN, SUPPORT and ANALYST.")
async def events(info: Info, first: First = None, after: After = None) -> Connection[Event]:
    asked = page(first, after)
    rows = await database().rows(
        LIST_EVENTS, merchant_id=info.context.viewer.merchant_id, before=asked.id, limit=asked.limit
    )
    return connect(rows, asked, Event.of, key="event_id")


@query(description="All API keys, newest first, revoked ones too. ADMIN only.")
async def api_keys(info: Info, first: First = None, after: After = None) -> Connection[ApiKey]:
    asked = page(first, after)
    rows = await database().rows(
        LIST_API_KEYS, merchant_id=info.context.viewer.merchant_id, before=asked.id, limit=asked.limit
    )
    return connect(rows, asked, ApiKey.of, key="api_key_id")


@refetches("merchant")
async def _merchant(viewer: Viewer, node_id: str) -> Merchant | None:
    own = Merchant.of(viewer.tenant)
    return own if own.id == node_id else None


@refetches("apikey")
async def _api_key(viewer: Viewer, node_id: str) -> ApiKey | None:
    row = await find_api_key(viewer, node_id)
    return None if row is None else ApiKey.of(row)


@refetches("event")
async def _event(viewer: Viewer, node_id: str) -> Event | None:
    row = await find_event(viewer, node_id)
    return None if row is None else Event.of(row)
