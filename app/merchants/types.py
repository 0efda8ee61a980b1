"""Merchants, API keys and events as the API shows them."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import strawberry

from app import ids
from app.api.context import Role, Tenant, Viewer
from app.api.operations import Info, Node, guarded
from app.api.scalars import BigInt
from app.merchants.rows import ApiKeyRow, EventRow, SettingsRow, settings_row
from app.merchants.tenants import decrypted
from app.storage.wallet_versions import ChangeRow


@strawberry.type(description="What the merchant has configured.")
class MerchantSettings:
    """The settings of configureMerchant."""

    points_per_unit: float = strawberry.field(description="Points for each unit of the currency of a purchase.")
    point_value: float = strawberry.field(description="What a point is worth, in minor units.")
    points_lifetime_days: int | None = strawberry.field(description="After how many days points expire; null: never.")
    points_warning_days: int = strawberry.field(description="How many days before that an event warns; 0: none does.")
    points_pending_days: int = strawberry.field(
        description="After how many days a purchase's points can be spent; 0: at once."
    )
    recover_shortfalls: bool = strawberry.field(
        description="Whether points of later purchases make good what a return could not take back."
    )
    erasure_memory_days: int = strawberry.field(
        description="For how many days limits and imports know that a person was erased; 0: not at all."
    )
    time_zone: str = strawberry.field(description="The IANA name of the zone in which the merchant's days begin.")
    margin_rate: float | None = strawberry.field(description="The share of a sale that is margin; null if unknown.")
    advised_percent_max: float | None = strawberry.field(
        description="The highest percentage that the advisor suggests; null: the margin alone decides."
    )
    advised_amount_max: BigInt | None = strawberry.field(
        description="The highest discount in minor units that the advisor suggests; null: the margin alone decides."
    )

    @classmethod
    def of(cls, row: SettingsRow) -> "MerchantSettings":
        """Return the settings of a row."""
        margin_rate, percent_max = row["settings_margin_rate"], row["settings_advised_percent_max"]
        amount_max = row["settings_advised_amount_max"]
        return cls(
            points_per_unit=float(row["settings_points_per_unit"]),
            point_value=float(row["settings_point_value"]),
            points_lifetime_days=row["settings_points_lifetime_days"],
            points_warning_days=row["settings_points_warning_days"],
            points_pending_days=row["settings_points_pending_days"],
            recover_shortfalls=row["settings_recover_shortfalls"],
            erasure_memory_days=row["settings_erasure_memory_days"],
            time_zone=row["settings_time_zone"],
            margin_rate=None if margin_rate is None else float(margin_rate),
            advised_percent_max=None if percent_max is None else float(percent_max),
            advised_amount_max=None if amount_max is None else BigInt(amount_max),
        )


async def _settings(viewer: Viewer, _merchant_ids: list[UUID]) -> Mapping[UUID, SettingsRow]:
    """Return the settings of the viewer's merchant, which is the only one that it can ask for."""
    row = await settings_row(viewer.merchant_id)
    return {} if row is None else {viewer.merchant_id: row}


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

    @guarded("Merchant.settings", description="What it has configured; for ADMIN and ANALYST, null to others.")
    async def settings(self, info: Info) -> MerchantSettings | None:
        return MerchantSettings.of(await info.context.load(_settings, info.context.viewer.merchant_id))


@strawberry.type(description="A key with which a program calls this API. Its secret is shown once, when it is made.")
class ApiKey(Node):
    """A key's public part."""

    label: str = strawberry.field(description="What the merchant calls it.")
    role: Role = strawberry.field(description="What it may do.")
    created_at: datetime = strawberry.field(description="When it was made.")
    revoked_at: datetime | None = strawberry.field(description="When it stopped working; null while it works.")

    @classmethod
    def of(cls, row: ApiKeyRow) -> "ApiKey":
        """Return the key of a row."""
        return cls(
            id=strawberry.ID(ids.encode("apikey", row["api_key_id"])),
            label=row["api_key_label"],
            role=Role(row["api_key_role"]),
            created_at=row["api_key_created_at"],
            revoked_at=row["api_key_revoked_at"],
        )


@strawberry.type(
    description="Something that happened: ids only, never personal data. One that was archived after a time, a year or "
    "more say, isn't found any more."
)
class Event(Node):
    """One row of the record, shown as it is: its type may be one that only newer processes know."""

    type: str = strawberry.field(description="What happened: a noun and a verb in the past tense.")
    subject_id: strawberry.ID = strawberry.field(description="The node it happened to.")
    actor: str = strawberry.field(description="The id of the API key or member that did it, or `system`.")
    occurred_at: datetime = strawberry.field(description="When.")
    points: int | None = strawberry.field(
        description="How many points came, went, matured, are about to expire or are lacking; null of other events."
    )
    sealed_reason: strawberry.Private[bytes | None]
    event_id: strawberry.Private[UUID]

    @classmethod
    def of(cls, row: EventRow) -> "Event":
        """Return the event of a row."""
        return cls.of_change(row, row["event_reason"])

    @classmethod
    def of_change(cls, row: ChangeRow, sealed_reason: bytes | None = None) -> "Event":
        """Return the event of a wallet's change, which tells no reason."""
        return cls(
            id=strawberry.ID(ids.encode("event", row["event_id"])),
            type=row["event_type"],
            subject_id=strawberry.ID(f"{row['event_subject_kind']}_{row['event_subject_id'].hex}"),
            actor=row["event_actor"],
            occurred_at=row["event_occurred_at"],
            points=row["event_points"],
            sealed_reason=sealed_reason,
            event_id=row["event_id"],
        )

    @guarded(
        "Event.reason",
        description="The reason that a person gave, where one was asked for; for ADMIN and SUPPORT, null to others.",
    )
    async def reason(self, info: Info) -> str | None:
        if self.sealed_reason is None:
            return None
        return await decrypted(info.context.viewer.tenant, self.event_id, "reason", self.sealed_reason)
