"""Merchants and API keys as the API shows them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

import strawberry

from app import ids
from app.api.context import Role, Tenant, Viewer
from app.api.operations import Info, Node, field
from app.api.scalars import BigInt
from app.storage.database import Row, database

#: What a statement selects to make MerchantSettings; `s` is the merchant.
SETTINGS_COLUMNS: Final = """
    s.merchant_id, s.points_per_unit, s.point_value, s.points_lifetime_days, s.points_warning_days, s.time_zone,
    s.margin_rate, s.advised_percent_max, s.advised_amount_max
"""
#: Settings are read when they are asked for: what a process remembers of a tenant is some seconds old.
READ_SETTINGS: Final = f"SELECT {SETTINGS_COLUMNS} FROM merchant s WHERE s.merchant_id = ANY($1::uuid[])"
SEES_SETTINGS: Final = {Role.ADMIN, Role.ANALYST}


@strawberry.type(description="What the merchant has configured.")
class MerchantSettings:
    """The settings of configureMerchant."""

    points_per_unit: float = strawberry.field(description="Points for each unit of the currency of a purchase.")
    point_value: float = strawberry.field(description="What a point is worth, in minor units.")
    points_lifetime_days: int | None = strawberry.field(description="After how many days points expire; null: never.")
    points_warning_days: int = strawberry.field(description="How many days before that an event warns; 0: none does.")
    time_zone: str = strawberry.field(description="The IANA name of the zone in which the merchant's days begin.")
    margin_rate: float | None = strawberry.field(description="The share of a sale that is margin; null if unknown.")
    advised_percent_max: float | None = strawberry.field(
        description="The highest percentage that the advisor suggests; null: the margin alone decides."
    )
    advised_amount_max: BigInt | None = strawberry.field(
        description="The highest discount in minor units that the advisor suggests; null: the margin alone decides."
    )

    @classmethod
    def of(cls, row: Row) -> "MerchantSettings":
        """Return the settings of a row of SETTINGS_COLUMNS."""
        margin_rate, percent_max = row["margin_rate"], row["advised_percent_max"]
        return cls(
            points_per_unit=float(row["points_per_unit"]),
            point_value=float(row["point_value"]),
            points_lifetime_days=row["points_lifetime_days"],
            points_warning_days=row["points_warning_days"],
            time_zone=row["time_zone"],
            margin_rate=None if margin_rate is None else float(margin_rate),
            advised_percent_max=None if percent_max is None else float(percent_max),
            advised_amount_max=row["advised_amount_max"],
        )


async def settings_of(_viewer: Viewer, merchant_ids: list[UUID]) -> Mapping[UUID, Row]:
    """Return the settings of merchants by their ids."""
    return {row["merchant_id"]: row for row in await database().rows(READ_SETTINGS, merchant_ids)}


@strawberry.type(description="A merchant: the tenant whose members, pools and codes these are.")
class Merchant(Node):
    """A tenant."""

    name: str = strawberry.field(description="Its name.")
    currency: str = strawberry.field(description="The ISO 4217 code of all its amounts.")

    @classmethod
    def of(cls, tenant: Tenant) -> "Merchant":
        """Return the merchant of a tenant."""
        node_id = strawberry.ID(ids.encode("merchant", tenant.id))
        return cls(id=node_id, name=tenant.name, currency=tenant.currency)

    @field(description="What it has configured; for ADMIN and ANALYST, null to others.")
    async def settings(self, info: Info) -> MerchantSettings | None:
        """Read them as they are now."""
        viewer = info.context.viewer
        if viewer.role not in SEES_SETTINGS:
            return None
        return MerchantSettings.of(await info.context.load(settings_of, viewer.merchant_id))


@strawberry.type(description="A key with which a program calls this API. Its secret is shown once, when it is made.")
class ApiKey(Node):
    """A key's public part."""

    label: str = strawberry.field(description="What the merchant calls it.")
    role: Role = strawberry.field(description="What it may do.")
    created_at: datetime = strawberry.field(description="When it was made.")
    revoked_at: datetime | None = strawberry.field(description="When it stopped working; null while it works.")

    @classmethod
    def of(cls, row: Row) -> "ApiKey":
        """Return the key of a row of `api_key`."""
        return cls(
            id=strawberry.ID(ids.encode("apikey", row["id"])),
            label=row["label"],
            role=Role(row["role"]),
            created_at=row["created_at"],
            revoked_at=row["revoked_at"],
        )
