"""revokeApiKey: a key stops working, at once on the process that is asked and within seconds on every other."""

from typing import Annotated, Final

import strawberry

from app.api.inputs import node_id
from app.api.operations import Info, NotFound, Refusal, Refused, mutation, not_found
from app.merchants.key_feed import KeyFeed
from app.merchants.rows import FIND_API_KEY, ApiKeyRow
from app.merchants.types import ApiKey
from app.storage import events
from app.storage.database import transaction
from app.storage.statements import columns, statement


@strawberry.input(description="A key to revoke.")
class RevokeApiKeyInput:
    """Which key."""

    api_key_id: strawberry.ID = strawberry.field(description="The key.")


@strawberry.type(description="The key doesn't work any more, or will not within 5 seconds.")
class RevokeApiKeySuccess:
    """The revoked key."""

    api_key: ApiKey = strawberry.field(description="The key, with its `revokedAt`.")


@strawberry.type(
    description="It is the last ADMIN key that works: without it nobody could do anything. Make another one first."
)
class LastAdminKey(Refusal):
    """Whoever revokes it is locked out."""


RevokeApiKeyResult = Annotated[
    RevokeApiKeySuccess | NotFound | LastAdminKey,
    strawberry.union("RevokeApiKeyResult", description="The revoked key, or why not."),
]

REVOKE: Final = statement(
    ApiKeyRow,
    f"""
WITH admins AS (
    -- Of two ADMIN keys that are revoked at once, whichever comes second waits here, and isn't counted any more.
    SELECT id FROM api_key WHERE merchant_id = :merchant_id AND role = 'ADMIN' AND revoked_at IS NULL
    ORDER BY id FOR UPDATE
)
UPDATE api_key k SET revoked_at = now()
WHERE k.merchant_id = :merchant_id AND k.id = :api_key_id AND k.revoked_at IS NULL
    AND (k.role <> 'ADMIN' OR (SELECT count(*) FROM admins) > 1)
RETURNING {columns(ApiKeyRow)}
""",
)


@mutation(description="Revoke an API key; revoking it again changes nothing. The last ADMIN key stays. ADMIN only.")
async def revoke_api_key(
    info: Info, input: Annotated[RevokeApiKeyInput, strawberry.argument(description="The key to revoke.")]
) -> RevokeApiKeyResult:
    # The caches of other processes forget it when their entry ends.
    viewer = info.context.viewer
    api_key_id = node_id("apikey", "API key", input.api_key_id)
    async with transaction(viewer.merchant_id) as tx:
        revoked = await tx.row(REVOKE, merchant_id=viewer.merchant_id, api_key_id=api_key_id)
        if revoked is not None:
            await events.record(tx, viewer.merchant_id, "api_key.revoked", api_key_id, viewer.actor)
        row = revoked or await tx.row(FIND_API_KEY, merchant_id=viewer.merchant_id, api_key_id=api_key_id)
    if row is None:
        raise not_found("API key", input.api_key_id)
    if row["api_key_revoked_at"] is None:
        raise Refused(LastAdminKey(message="The last ADMIN key can't be revoked; make another one first."))
    KeyFeed.of_process().end((viewer.merchant_id, api_key_id))
    return RevokeApiKeySuccess(api_key=ApiKey.of(row))
