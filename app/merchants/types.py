"""Merchants and API keys as the API shows them."""

from datetime import datetime

import strawberry

from app import ids
from app.context import Role, Tenant
from app.database import Row
from app.operations import Node


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
