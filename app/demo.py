"""A demo merchant for development, made through the API itself: keys of each role, members, a pool to claim from."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

from app import ids
from app.authentication import authenticate
from app.config import settings
from app.context import Context, Role, Viewer
from app.database import connected
from app.embedded import DataDirectory
from app.merchants.create_merchant import create_merchant
from app.schema import schema

NAMES: Final = ("Ada Lovelace", "Grace Hopper", "Alan Turing")

CREATE_KEY: Final = """
mutation ($input: CreateApiKeyInput!) { answer: createApiKey(input: $input) { ... on CreateApiKeySuccess { secret } } }
"""
ENROL: Final = """
mutation ($input: EnrollMemberInput!) {
  answer: enrollMember(input: $input) { ... on EnrollMemberSuccess { member { id } } }
}
"""
CREATE_POOL: Final = """
mutation ($input: CreatePoolInput!) { answer: createPool(input: $input) { ... on CreatePoolSuccess { pool { id } } } }
"""
GENERATE: Final = """
mutation ($input: GenerateCodesInput!) {
  answer: generateCodes(input: $input) { ... on GenerateCodesSuccess { batch { size } } }
}
"""
ACTIVATE: Final = """
mutation ($input: PoolIdInput!) {
  answer: activatePool(input: $input) { ... on ChangePoolStatusSuccess { pool { status } } }
}
"""


@dataclass(frozen=True)
class Demo:
    """What a newcomer tries: secrets by role, and ids to use."""

    merchant_id: str
    admin: str
    checkout: str
    analyst: str
    pool_id: str
    member_id: str


async def ensure_demo(data: DataDirectory) -> None:
    """Make the demo merchant of this data directory, unless it is there and its key works."""
    async with connected(settings()):
        kept = _kept(data)
        if kept is None or await authenticate(f"Bearer {kept.admin}") is None:
            data.create()
            data.write_secret(data.demo, json.dumps(asdict(await _make()), indent=2) + "\n")


def _kept(data: DataDirectory) -> Demo | None:
    try:
        return Demo(**json.loads(data.demo.read_text()))
    except (OSError, ValueError, TypeError):
        return None


async def _make() -> Demo:
    merchant = await create_merchant("Demo store", "USD")
    viewer = await authenticate(f"Bearer {merchant.api_key}")
    if viewer is None:
        raise RuntimeError("a key that was just made proves nobody")
    keys = {
        role: await _do(viewer, CREATE_KEY, label=f"demo {role.value.lower()}", role=role.value)
        for role in (Role.CHECKOUT, Role.ANALYST)
    }
    members = [
        await _do(
            viewer,
            ENROL,
            externalId=f"demo-{number}",
            displayName=name,
            email=f"{name.split()[0].lower()}@example.com",
            emailVerified=True,
            source="STORE",
        )
        for number, name in enumerate(NAMES, start=1)
    ]
    made = await _do(viewer, CREATE_POOL, name="Welcome: 10 % off", kind="PERCENT", percentOff=10.0)
    pool_id = made["pool"]["id"]
    await _do(viewer, GENERATE, poolId=pool_id, count=500)
    await _do(viewer, ACTIVATE, poolId=pool_id)
    return Demo(
        merchant_id=ids.encode("merchant", merchant.id),
        admin=merchant.api_key,
        checkout=keys[Role.CHECKOUT]["secret"],
        analyst=keys[Role.ANALYST]["secret"],
        pool_id=pool_id,
        member_id=members[0]["member"]["id"],
    )


async def _do(viewer: Viewer, document: str, **values: object) -> Any:
    """Carry out one mutation as the demo's admin. Raises RuntimeError unless it succeeds."""
    result = await schema.execute(document, {"input": values}, context_value=Context(viewer))
    if result.errors or not result.data or not result.data["answer"]:
        raise RuntimeError(f"the demo merchant can't be made: {result.errors or result.data}")
    return result.data["answer"]
