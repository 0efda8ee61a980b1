"""Expiry. Without these a code could outlive its lifetime in the books, or its place in the stock be lost."""

from typing import Any
from uuid import UUID

import asyncpg
import pytest

from app import ids
from app.config import settings
from app.coupons import expire_codes as expiry
from app.coupons.expire_codes import expire_batch, expire_codes, expire_codes_of
from app.storage.database import database, dsn
from tests.factories import CHANGE_STATUS, Shop

CODE_STATES = "SELECT state, count(*) AS codes FROM code WHERE merchant_id = $1 GROUP BY state"


async def age(shop: Shop, code: Any) -> UUID:
    """End a code's lifetime a second ago."""
    code_id = ids.decode("code", code["id"])
    assert code_id is not None
    aged = "UPDATE code SET expires_at = now() - interval '1 second' WHERE merchant_id = $1 AND id = $2"
    await database().row(aged, shop.merchant_id, code_id)
    return code_id


async def states(shop: Shop) -> dict[str, int]:
    """Return how many of a shop's codes are in each state."""
    return {row["state"]: row["codes"] for row in await database().rows(CODE_STATES, shop.merchant_id)}


async def test_a_code_past_its_lifetime_expires_and_its_wallet_says_so(shop: Shop) -> None:
    pool = await shop.pool(codes=2, codeLifetimeDays=30)
    member = await shop.member()
    await age(shop, await shop.claim(pool, member))

    assert await expire_batch(shop.merchant_id) == 1

    assert await states(shop) == {"AVAILABLE": 1, "EXPIRED": 1}
    assert await shop.stock(pool) == {
        "total": 2, "available": 1, "allocated": 0, "redeemed": 0, "expired": 1, "revoked": 0
    }  # fmt: skip
    wallet = await shop.data("{ wallet { version codes { edges { node { state } } } } }",
                             key=await shop.token(member["id"]))  # fmt: skip
    assert wallet["wallet"] == {"version": 2, "codes": {"edges": [{"node": {"state": "EXPIRED"}}]}}
    assert (await shop.event_types()).count("code.expired") == 1


async def test_a_pool_that_recycles_replaces_what_expires(shop: Shop) -> None:
    pool = await shop.pool(codes=2, codeLifetimeDays=30, recycleExpired=True)
    for _ in range(2):
        await age(shop, await shop.claim(pool, await shop.member()))

    await expire_batch(shop.merchant_id)

    assert await states(shop) == {"AVAILABLE": 2, "EXPIRED": 2}
    assert await shop.stock(pool) == {
        "total": 4, "available": 2, "allocated": 0, "redeemed": 0, "expired": 2, "revoked": 0
    }  # fmt: skip


async def test_expiring_twice_expires_once(shop: Shop) -> None:
    pool = await shop.pool(codes=1, codeLifetimeDays=30, recycleExpired=True)
    await age(shop, await shop.claim(pool, await shop.member()))
    await expire_codes()
    before = await shop.state()

    await expire_codes()

    assert await shop.state() == before


async def test_a_living_code_stays(shop: Shop) -> None:
    pool = await shop.pool(codes=1, codeLifetimeDays=1)
    await shop.claim(pool, await shop.member())
    before = await shop.state()

    assert await expire_batch(shop.merchant_id) == 0

    assert await shop.state() == before


async def test_a_run_leaves_what_another_has_and_the_next_one_finds_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "BATCH", 2)
    pool = await shop.pool(codes=5, codeLifetimeDays=30)
    codes = [await age(shop, await shop.claim(pool, await shop.member())) for _ in range(5)]
    till = await asyncpg.connect(dsn(settings().database_url or ""))
    try:
        async with till.transaction():
            await till.execute("SELECT FROM code WHERE id = $1 FOR UPDATE", codes[1])
            during = await expire_codes_of(shop.merchant_id)
    finally:
        await till.close()

    assert (during, await expire_codes_of(shop.merchant_id)) == (4, 1)
    assert await states(shop) == {"EXPIRED": 5}


async def test_a_process_that_has_looked_at_everything_finds_a_pool_that_was_archived_since(shop: Shop) -> None:
    await expire_codes()
    pool = await shop.pool(codes=2)
    await shop.claim(pool, await shop.member())
    await expire_codes()
    before = await states(shop)

    await shop.do(CHANGE_STATUS % "archivePool", poolId=pool["id"])
    await expire_codes()

    assert before == {"ALLOCATED": 1, "AVAILABLE": 1}
    assert await states(shop) == {"AVAILABLE": 1, "EXPIRED": 1}
