"""docs/operations.md, tried: a deployment by its commands, a dump, a restore. Without this backups could be a hope."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from app import ids
from app.storage.crypto import new_master_key
from tests.conftest import run_api
from tests.factories import CLAIM_CODE, Shop
from tests.guides import blocks, run
from tests.scratch import scratch_database
from tests.wire import Wire

GUIDE = "docs/operations.md"
VALKEY = {"REDIS_URL": os.environ["REDIS_URL"]}
MEMBER = "query ($id: ID!) { member(id: $id) { displayName maskedEmail wallet { version points } } }"
GRANT = """
mutation ($input: GrantPointsInput!) { answer: grantPoints(input: $input) { __typename } }
"""


@asynccontextmanager
async def _shop(url: str, merchant_id: str, key: str) -> AsyncIterator[Shop]:
    merchant = ids.decode("merchant", merchant_id)
    assert merchant is not None
    async with httpx.AsyncClient(timeout=30, verify=False) as http, aclosing(Wire()) as wire:
        yield Shop(http, wire, f"{url}/graphql", merchant, key)


async def test_a_deployment_is_dumped_restored_and_goes_on(database_pool: object, tmp_path: Path) -> None:
    """Over ten seconds on a busy machine: two processes and nine commands start, one after the other."""
    (deploy,) = blocks(GUIDE, "Deploy", "sh")
    dump, restore = (block.text for block in blocks(GUIDE, "Back up and restore", "sh"))
    keys = tmp_path / "master.keys"
    keys.write_text(new_master_key("k1") + "\n")
    async with scratch_database() as url, scratch_database(migrated=False) as restored:
        name = urlsplit(restored).path.removeprefix("/")
        configured: dict[str, Any] = {"FLASH_ENV": "production", "FLASH_MASTER_KEYS_FILE": keys, "DATABASE_URL": url}
        own = {"FLASH_MASTER_KEYS": "", "FLASH_MASTER_KEYS_FILE": str(keys)}
        said = (await asyncio.to_thread(run, deploy.text, tmp_path, **configured, **VALKEY)).stdout
        merchant_id, key = re.findall(r"Merchant (merchant_\w+)\nADMIN key (\S+)", said)[0]

        with run_api(url, **own) as api:
            async with _shop(api.url, merchant_id, key) as shop:
                pool = await shop.pool(codes=5)
                ada = await shop.member(displayName="Ada Restored", email="ada@example.com")
                ben, late = await shop.member(), await shop.member()
                code, spent = await shop.claim(pool, ada), await shop.claim(pool, ben)
                await shop.redeem([spent["text"]], ben, order="order-1")
                await shop.do(GRANT, memberId=ada["id"], amount=250, idempotencyKey="g", reference="welcome")
                await asyncio.to_thread(run, dump, tmp_path, **configured)
                taken_back = await shop.claim(pool, late)
        await asyncio.to_thread(run, f"dropdb --maintenance-db='{url}' {name}", tmp_path)
        script = restore.replace("flash_restored", name)
        audited = (await asyncio.to_thread(run, script, tmp_path, RESTORED_URL=restored, **configured, **VALKEY)).stdout
        plain = (await asyncio.to_thread(run, "pg_restore --file=- flash.dump", tmp_path)).stdout

        with run_api(restored, **own) as api:
            async with _shop(api.url, merchant_id, key) as shop:
                again = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=ada["id"])
                read = (await shop.data(MEMBER, {"id": ada["id"]}))["member"]
                redeemed = await shop.redeem([code["text"]], ada)
                refused = await shop.redeem([spent["text"]], ben, order="order-2")
                fresh = await shop.claim(pool, late)
                stock = await shop.stock(pool)

    assert f"{merchant_id}: every promise holds" in audited
    assert (again["replayed"], again["code"]["text"]) == (True, code["text"])
    assert read == {
        "displayName": "Ada Restored",
        "maskedEmail": "a•••@example.com",
        "wallet": {"version": 2, "points": 250},
    }
    assert redeemed["__typename"] == "RedeemCodesSuccess"
    assert refused["rejections"][0]["reason"] == "ALREADY_REDEEMED"
    # What was claimed after the dump is anybody's again, as the guide says.
    assert fresh["text"] == taken_back["text"]
    assert stock == {"total": 5, "available": 2, "allocated": 1, "redeemed": 2, "expired": 0, "revoked": 0}
    for secret in ("Ada Restored", "ada@example.com", code["text"], code["text"].removeprefix("PCT-"), key):
        assert secret not in plain
