"""createApiKey: a new key with a role; its secret is in this answer and nowhere else."""

from typing import Annotated

import strawberry

from app.api.context import Role
from app.api.inputs import Problems
from app.api.operations import Info, InvalidInput, mutation
from app.merchants import api_keys
from app.merchants.types import ApiKey
from app.storage.database import transaction


@strawberry.input(description="A key to make.")
class CreateApiKeyInput:
    """Label and role."""

    label: str = strawberry.field(description="What to call it, at most 100 characters.")
    role: Role = strawberry.field(description="What it may do: ADMIN, CHECKOUT, SUPPORT or ANALYST.")


@strawberry.type(description="The key was made.")
class CreateApiKeySuccess:
    """The key and its secret."""

    api_key: ApiKey = strawberry.field(description="The key.")
    secret: str = strawberry.field(description="What to send as `Authorization: Bearer …`; shown only here.")


CreateApiKeyResult = Annotated[
    CreateApiKeySuccess | InvalidInput,
    strawberry.union("CreateApiKeyResult", description="The key, or why there is none."),
]


@mutation(description="Make an API key. ADMIN only.")
async def create_api_key(
    info: Info, input: Annotated[CreateApiKeyInput, strawberry.argument(description="The key to make.")]
) -> CreateApiKeyResult:
    problems = Problems()
    label = problems.text("label", input.label, length_max=100)
    if input.role is Role.MEMBER:
        problems.add("role", "must be ADMIN, CHECKOUT, SUPPORT or ANALYST; members use tokens")
    problems.refuse_if_any()
    viewer = info.context.viewer
    async with transaction(viewer.merchant_id) as tx:
        row, secret = await api_keys.insert(tx, viewer.merchant_id, label=label, role=input.role, actor=viewer.actor)
    return CreateApiKeySuccess(api_key=ApiKey.of(row), secret=secret)
