"""revokeApiKey: a key stops working, at once on the process that is asked and within seconds on every other."""

from typing import Annotated

import strawberry

from app import ids
from app.api.inputs import node_id
from app.api.operations import Info, NotFound, mutation, not_found
from app.merchants.api_keys import revoked_here
from app.merchants.types import ApiKey
from app.storage import events
from app.storage.database import transaction


@strawberry.input(description="A key to revoke.")
class RevokeApiKeyInput:
    """Which key."""

    api_key_id: strawberry.ID = strawberry.field(description="The key.")


@strawberry.type(description="The key doesn't work any more, or will not within 5 seconds.")
class RevokeApiKeySuccess:
    """The revoked key."""

    api_key: ApiKey = strawberry.field(description="The key, with its `revokedAt`.")


RevokeApiKeyResult = Annotated[
    RevokeApiKeySuccess | NotFound,
    strawberry.union("RevokeApiKeyResult", description="The revoked key, or why not."),
]

REVOKE = """
UPDATE api_key SET revoked_at = now() WHERE merchant_id = $1 AND id = $2 AND revoked_at IS NULL
RETURNING id, label, role, created_at, revoked_at
"""
FIND = "SELECT id, label, role, created_at, revoked_at FROM api_key WHERE merchant_id = $1 AND id = $2"


@mutation(description="Revoke an API key; revoking it again changes nothing. ADMIN only.")
async def revoke_api_key(
    info: Info, input: Annotated[RevokeApiKeyInput, strawberry.argument(description="The key to revoke.")]
) -> RevokeApiKeyResult:
    """Revoke a key. The caches of other processes forget it when their entry ends."""
    viewer = info.context.viewer
    api_key_id = node_id("apikey", "API key", input.api_key_id)
    async with transaction() as tx:
        row = await tx.row(REVOKE, viewer.merchant_id, api_key_id)
        if row is not None:
            await events.record(tx, viewer.merchant_id, "api_key.revoked", api_key_id, viewer.actor)
        else:
            row = await tx.row(FIND, viewer.merchant_id, api_key_id)
    if row is None:
        raise not_found("API key", input.api_key_id)
    revoked_here[ids.encode("apikey", api_key_id)] = None
    return RevokeApiKeySuccess(api_key=ApiKey.of(row))
