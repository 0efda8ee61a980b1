"""What statements select of merchants' settings, API keys and events."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final, TypedDict
from uuid import UUID

from app import ids
from app.api.access import may
from app.api.context import Viewer
from app.storage.database import database
from app.storage.statements import columns, row_of, statement
from app.storage.wallet_versions import ChangeRow


@row_of(s="merchant")
class SettingsRow(TypedDict):
    """The settings of a merchant `s`."""

    settings_points_per_unit: Annotated[Decimal, "s.points_per_unit"]
    settings_point_value: Annotated[Decimal, "s.point_value"]
    settings_points_lifetime_days: Annotated[int | None, "s.points_lifetime_days"]
    settings_points_warning_days: Annotated[int, "s.points_warning_days"]
    settings_points_pending_days: Annotated[int, "s.points_pending_days"]
    settings_recover_shortfalls: Annotated[bool, "s.recover_shortfalls"]
    settings_erasure_memory_days: Annotated[int, "s.erasure_memory_days"]
    settings_time_zone: Annotated[str, "s.time_zone"]
    settings_margin_rate: Annotated[Decimal | None, "s.margin_rate"]
    settings_advised_percent_max: Annotated[Decimal | None, "s.advised_percent_max"]
    settings_advised_amount_max: Annotated[int | None, "s.advised_amount_max"]


@row_of(k="api_key")
class ApiKeyRow(TypedDict):
    """An API key `k`."""

    api_key_id: Annotated[UUID, "k.id"]
    api_key_label: Annotated[str, "k.label"]
    api_key_role: Annotated[str, "k.role"]
    api_key_created_at: Annotated[datetime, "k.created_at"]
    api_key_revoked_at: Annotated[datetime | None, "k.revoked_at"]


@row_of(ev="event")
class EventRow(ChangeRow):
    """An event `ev`, with the reason that a person gave."""

    event_reason: Annotated[bytes | None, "ev.reason"]


#: Settings are read when they are asked for: what a process remembers of a tenant is some seconds old.
READ_SETTINGS: Final = statement(
    SettingsRow, f"SELECT {columns(SettingsRow)} FROM merchant s WHERE s.merchant_id = :merchant_id"
)
FIND_API_KEY: Final = statement(
    ApiKeyRow, f"SELECT {columns(ApiKeyRow)} FROM api_key k WHERE k.merchant_id = :merchant_id AND k.id = :api_key_id"
)
LIST_API_KEYS: Final = statement(
    ApiKeyRow,
    f"""
SELECT {columns(ApiKeyRow)} FROM api_key k
WHERE k.merchant_id = :merchant_id AND k.id < :before ORDER BY k.id DESC LIMIT :limit
""",
)
#: Of one member's wallet only, or any where `member_id` is null.
FIND_EVENT: Final = statement(
    EventRow,
    f"""
SELECT {columns(EventRow)} FROM event ev
WHERE ev.merchant_id = :merchant_id AND ev.id = :event_id AND (:member_id::uuid IS NULL OR ev.member_id = :member_id)
""",
)
LIST_EVENTS: Final = statement(
    EventRow,
    f"""
SELECT {columns(EventRow)} FROM event ev
WHERE ev.merchant_id = :merchant_id AND ev.id < :before ORDER BY ev.id DESC LIMIT :limit
""",
)


async def settings_row(merchant_id: UUID) -> SettingsRow | None:
    """Return a merchant's settings as they are now."""
    return await database().row(READ_SETTINGS, merchant_id=merchant_id)


async def find_api_key(viewer: Viewer, node_id: str) -> ApiKeyRow | None:
    """Return the key behind an id, if this viewer may see it."""
    api_key_id = ids.decode("apikey", node_id)
    if api_key_id is None or not may(viewer.role, "ApiKey"):
        return None
    return await database().row(FIND_API_KEY, merchant_id=viewer.merchant_id, api_key_id=api_key_id)


async def find_event(viewer: Viewer, node_id: str) -> EventRow | None:
    """Return the event behind an id, if this viewer may see it: a member the changes of its wallet only."""
    event_id = ids.decode("event", node_id)
    if event_id is None or not may(viewer.role, "Event"):
        return None
    return await database().row(
        FIND_EVENT, merchant_id=viewer.merchant_id, event_id=event_id, member_id=viewer.member_id
    )
