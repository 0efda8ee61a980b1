"""generateCodes. Without these a batch could exist in part, twice for one key, or in a pool that takes no codes."""

import asyncio
from typing import Any

import asyncpg
import pytest

from app import ids
from app.api.context import Role, Viewer
from app.api.inputs import stored_key
from app.coupons.generate_codes import encrypted_codes, store_batch
from app.merchants.tenants import tenant
from app.storage.database import database, is_away, transaction
from tests.factories import CHANGE_STATUS, GENERATE_CODES, Shop, problems

COUNT_INSIDE = """
SELECT pg_backend_pid() AS backend, count(*) AS codes FROM code WHERE merchant_id = $1 AND batch_id = $2
"""
TOO_MANY = "must be between 1 and 5000"


async def as_admin(shop: Shop) -> Viewer:
    """Return the viewer that this shop's ADMIN key stands for, inside this process."""
    owner = await tenant(shop.merchant_id)
    assert owner is not None
    return Viewer(Role.ADMIN, owner, "system")


async def test_a_batch_is_stock_that_can_be_claimed(shop: Shop) -> None:
    pool = await shop.pool(codes=0, active=False)
    before = await shop.state()

    answer = await shop.do(GENERATE_CODES, poolId=pool["id"], count=7)

    batch = answer["batch"]
    assert answer["__typename"] == "GenerateCodesSuccess"
    assert answer["replayed"] is False
    assert batch["id"].startswith("batch_")
    assert batch["size"] == 7
    assert batch["pool"] == {"id": pool["id"]}
    assert (await shop.state()).since(before) == {"code_batch": 1, "code": 7, "stock_change": 1, "event": 1}
    assert await shop.stock(pool) == {
        "total": 7, "available": 7, "allocated": 0, "redeemed": 0, "expired": 0, "revoked": 0
    }  # fmt: skip
    assert (await shop.event_types())[-1] == "codes.generated"


async def test_the_largest_batch_has_5000_different_codes(shop: Shop) -> None:
    pool = await shop.pool(codes=0, active=False)

    answer = await shop.do(GENERATE_CODES, poolId=pool["id"], count=5000)

    assert answer["batch"]["size"] == 5000
    distinct = await database().row(
        "SELECT count(DISTINCT fingerprint) AS texts, count(DISTINCT ciphertext) AS ciphertexts FROM code "
        "WHERE merchant_id = $1",
        shop.merchant_id,
    )
    assert distinct is not None
    assert dict(distinct) == {"texts": 5000, "ciphertexts": 5000}


@pytest.mark.parametrize(
    ("terms", "prefix"),
    [
        ({"kind": "PERCENT", "percentOff": 5.0}, "PCT-"),
        ({"kind": "AMOUNT", "amountOff": {"amountMinor": 500, "currency": "USD"}}, "AMT-"),
        ({"kind": "GIFT", "giftSku": "MUG-1"}, "GFT-"),
    ],
)
async def test_each_kind_has_its_prefix(shop: Shop, terms: dict[str, Any], prefix: str) -> None:
    pool = await shop.pool(codes=1, **terms)

    code = await shop.claim(pool, await shop.member())

    assert code["text"].startswith(prefix)
    assert code["masked"] == f"{prefix}••••{code['text'][-2:]}"


async def test_no_text_is_stored_as_it_is(shop: Shop) -> None:
    pool = await shop.pool(codes=1)
    text = (await shop.claim(pool, await shop.member()))["text"]

    row = await database().row("SELECT * FROM code WHERE merchant_id = $1", shop.merchant_id)

    assert row is not None
    stored = b"|".join(value if isinstance(value, bytes) else str(value).encode() for value in row.values())
    assert text.encode() not in stored
    assert text[4:].encode() not in stored
    assert row["suffix"] == text[-2:]


async def test_the_same_key_again_is_the_same_batch(shop: Shop) -> None:
    pool = await shop.pool(codes=0, active=False)
    first = await shop.do(GENERATE_CODES, poolId=pool["id"], count=5, idempotencyKey="may")
    before = await shop.state()

    again = await shop.do(GENERATE_CODES, poolId=pool["id"], count=5, idempotencyKey="may")

    assert again == first | {"replayed": True}
    assert await shop.state() == before


async def test_the_same_key_is_still_the_same_batch_once_the_pool_is_active(shop: Shop) -> None:
    pool = await shop.pool(codes=0, active=False)
    first = await shop.do(GENERATE_CODES, poolId=pool["id"], count=5, idempotencyKey="may")
    await shop.do(CHANGE_STATUS % "activatePool", poolId=pool["id"])

    again = await shop.do(GENERATE_CODES, poolId=pool["id"], count=5, idempotencyKey="may")

    assert again == first | {"replayed": True}


async def test_a_caller_that_loses_to_its_own_retry_and_an_activation_gets_the_batch(shop: Shop) -> None:
    pool = await shop.pool(codes=0, active=False)
    await shop.do(GENERATE_CODES, poolId=pool["id"], count=1, idempotencyKey="may")
    await shop.do(CHANGE_STATUS % "activatePool", poolId=pool["id"])
    viewer = await as_admin(shop)
    pool_id = ids.decode("pool", pool["id"])
    assert pool_id is not None

    async with transaction(None) as tx:
        stored = await store_batch(tx, viewer, pool_id, ids.new(), [], stored_key(viewer, "may"))

    assert stored is False


async def test_without_a_key_each_call_is_a_batch(shop: Shop) -> None:
    pool = await shop.pool(codes=0, active=False)

    first = await shop.do(GENERATE_CODES, poolId=pool["id"], count=2)
    second = await shop.do(GENERATE_CODES, poolId=pool["id"], count=2)

    assert first["batch"]["id"] != second["batch"]["id"]
    assert (await shop.stock(pool))["available"] == 4


async def test_two_merchants_may_use_the_same_key(shop: Shop, other_shop: Shop) -> None:
    for each in (shop, other_shop):
        pool = await each.pool(codes=0, active=False)

        answer = await each.do(GENERATE_CODES, poolId=pool["id"], count=1, idempotencyKey="may")

        assert answer["replayed"] is False


async def test_callers_with_one_key_at_once_make_one_batch(shop: Shop) -> None:
    pool = await shop.pool(codes=0, active=False)
    before = await shop.state()

    answers = await asyncio.gather(
        *(shop.do(GENERATE_CODES, poolId=pool["id"], count=300, idempotencyKey="may") for _ in range(8))
    )

    assert {answer["__typename"] for answer in answers} == {"GenerateCodesSuccess"}
    assert len({answer["batch"]["id"] for answer in answers}) == 1
    assert sorted(answer["replayed"] for answer in answers) == [False] + [True] * 7
    assert (await shop.state()).since(before) == {"code_batch": 1, "code": 300, "stock_change": 1, "event": 1}


async def test_a_batch_whose_connection_dies_before_the_commit_leaves_nothing(shop: Shop) -> None:
    pool = await shop.pool(codes=3, active=False)
    viewer = await as_admin(shop)
    pool_id, batch_id = ids.decode("pool", pool["id"]), ids.new()
    assert pool_id is not None
    rows = encrypted_codes(viewer.tenant.keys, "PERCENT", 500, pool_id, batch_id)
    before = await shop.state()

    async def die_before_the_commit() -> None:
        async with transaction(None) as tx:
            assert await store_batch(tx, viewer, pool_id, batch_id, rows, b"may")
            inside = await tx.row(COUNT_INSIDE, shop.merchant_id, batch_id)
            assert inside is not None
            assert inside["codes"] == 500
            await database().row("SELECT pg_terminate_backend($1)", inside["backend"])

    with pytest.raises(Exception) as died:  # noqa: PT011  (the driver has several for it)
        await die_before_the_commit()

    assert is_away(died.value)
    assert await shop.state() == before
    assert (await shop.stock(pool))["total"] == 3
    again = await shop.do(GENERATE_CODES, poolId=pool["id"], count=500, idempotencyKey="may")
    assert again["replayed"] is False


async def test_a_batch_whose_last_code_exists_already_leaves_nothing(shop: Shop) -> None:
    pool = await shop.pool(codes=1, active=False)
    viewer = await as_admin(shop)
    pool_id, batch_id = ids.decode("pool", pool["id"]), ids.new()
    assert pool_id is not None
    rows = encrypted_codes(viewer.tenant.keys, "PERCENT", 50, pool_id, batch_id)
    taken = await database().row("SELECT fingerprint FROM code WHERE merchant_id = $1", shop.merchant_id)
    assert taken is not None
    rows[-1] = (*rows[-1][:6], taken["fingerprint"], *rows[-1][7:])
    before = await shop.state()

    with pytest.raises(asyncpg.UniqueViolationError) as violation:
        async with transaction(None) as tx:
            await store_batch(tx, viewer, pool_id, batch_id, rows, None)

    assert violation.value.constraint_name == "code_fingerprint"
    assert await shop.state() == before


@pytest.mark.parametrize("count", [0, -1, 5001, 2**31 - 1, -(2**31)])
async def test_a_count_outside_1_to_5000_is_refused(shop: Shop, count: int) -> None:
    pool = await shop.pool(codes=0, active=False)

    refusal = await shop.refused(GENERATE_CODES, poolId=pool["id"], count=count)

    assert problems(refusal) == {"count": TOO_MANY}


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("x" * 201, "must be at most 200 characters"),
        ("x" * 10_000, "must be at most 200 characters"),
        ("a\x00b", "must not contain control characters"),
        ("a\nb", "must not contain control characters"),
        (" may", "must not begin or end with white space"),
    ],
)
async def test_an_unusable_key_is_refused(shop: Shop, key: str, message: str) -> None:
    pool = await shop.pool(codes=0, active=False)

    refusal = await shop.refused(GENERATE_CODES, poolId=pool["id"], count=1, idempotencyKey=key)

    assert problems(refusal) == {"idempotencyKey": message}


@pytest.mark.parametrize("key", ["", " "])
async def test_a_blank_key_is_refused(shop: Shop, key: str) -> None:
    pool = await shop.pool(codes=0, active=False)

    refusal = await shop.refused(GENERATE_CODES, poolId=pool["id"], count=1, idempotencyKey=key)

    assert refusal["problems"][0] == {"path": ["idempotencyKey"], "message": "must not be blank"}


@pytest.mark.parametrize("count", [None, "5", 1.5, True, 2**31])
async def test_a_count_of_the_wrong_type_is_bad_user_input(shop: Shop, count: Any) -> None:
    pool = await shop.pool(codes=0, active=False)

    assert await shop.failed(GENERATE_CODES, poolId=pool["id"], count=count) == "BAD_USER_INPUT"


@pytest.mark.parametrize("pool_id", ["", "7", "pool_0123456789abcdef0123456789abcdef", "pool_\x00"])
async def test_an_id_that_names_no_pool_is_not_found(shop: Shop, pool_id: str) -> None:
    assert await shop.refused(GENERATE_CODES, poolId=pool_id, count=1) == {
        "__typename": "NotFound",
        "message": "There is no such pool.",
        "id": pool_id,
    }


async def test_another_merchants_pool_is_not_found(shop: Shop, other_shop: Shop) -> None:
    pool = await other_shop.pool(codes=0, active=False)
    before = await other_shop.state()

    refusal = await shop.refused(GENERATE_CODES, poolId=pool["id"], count=1)

    assert refusal == {"__typename": "NotFound", "message": "There is no such pool.", "id": pool["id"]}
    assert await other_shop.state() == before


@pytest.mark.parametrize(("step", "status"), [("activatePool", "ACTIVE"), ("archivePool", "ARCHIVED")])
async def test_a_pool_that_is_active_or_archived_takes_no_codes(shop: Shop, step: str, status: str) -> None:
    pool = await shop.pool(codes=1)
    if step != "activatePool":
        await shop.do(CHANGE_STATUS % step, poolId=pool["id"])

    assert await shop.refused(GENERATE_CODES, poolId=pool["id"], count=1) == {
        "__typename": "PoolNotEditable",
        "message": f"Codes can't be generated in a pool that is {status}; DRAFT and PAUSED ones take them.",
        "status": status,
    }


async def test_a_paused_pool_takes_codes(shop: Shop) -> None:
    pool = await shop.pool(codes=1)
    await shop.do(CHANGE_STATUS % "pausePool", poolId=pool["id"])

    answer = await shop.do(GENERATE_CODES, poolId=pool["id"], count=4)

    assert answer["batch"]["size"] == 4
    assert (await shop.stock(pool))["available"] == 5


@pytest.mark.parametrize("difference", ["count", "pool"])
async def test_a_key_that_was_used_for_another_batch_is_refused(shop: Shop, difference: str) -> None:
    pool = await shop.pool(codes=0, active=False)
    other = await shop.pool(codes=0, active=False)
    await shop.do(GENERATE_CODES, poolId=pool["id"], count=5, idempotencyKey="may")

    refusal = await shop.refused(
        GENERATE_CODES,
        poolId=other["id"] if difference == "pool" else pool["id"],
        count=6 if difference == "count" else 5,
        idempotencyKey="may",
    )

    assert refusal == {
        "__typename": "IdempotencyKeyReused",
        "message": "This idempotencyKey was used for another batch.",
    }


@pytest.mark.parametrize("role", ["CHECKOUT", "ANALYST", "MEMBER"])
async def test_only_an_admin_generates_codes(shop: Shop, role: str) -> None:
    pool = await shop.pool(codes=0, active=False)
    key = await shop.token((await shop.member())["id"]) if role == "MEMBER" else await shop.key(role)

    assert await shop.failed(GENERATE_CODES, key=key, poolId=pool["id"], count=1) == "FORBIDDEN"
