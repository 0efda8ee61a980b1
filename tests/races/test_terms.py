"""Edits, ends and revivals that meet claims and redemptions. Without these an extension could lose a code."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from app import ids
from app.api.context import Role, Viewer
from app.coupons.end_returned import end_returned
from app.coupons.expire_codes import expire_batch
from app.coupons.revive_codes import revive_codes
from app.merchants.tenants import tenant
from app.storage.database import database, transaction
from tests.conftest import Api
from tests.coupons.test_revoke_code import REVOKE
from tests.factories import CHANGE_STATUS, CLAIM_CODE, CREATE_CAMPAIGN, EDIT_POOL, REDEEM_CODES, Shop, usd
from tests.orders.presented import end_pool
from tests.races.storm import Processes, at_once, kinds, members, until_somebody_waits

LATER = "2999-01-01T00:00:00Z"
STATES = "SELECT state, count(*) AS codes FROM code WHERE merchant_id = $1 AND pool_id = $2 GROUP BY state"
SHARE = "SELECT FROM pool WHERE merchant_id = $1 AND id = $2 FOR SHARE"
GAPS = """
SELECT w.member_id FROM wallet w WHERE w.merchant_id = $1 AND w.version <> (
    SELECT count(*) FROM event e WHERE e.merchant_id = $1 AND e.member_id = w.member_id
)
"""


@pytest.fixture
def processes(shop: Shop, api: Api, second_api: Api) -> Processes:
    return Processes(shop, api, second_api)


def uuid(pool: Any) -> UUID:
    return ids.decode("pool", pool["id"]) or UUID(int=0)


async def states(shop: Shop, pool: Any) -> dict[str, int]:
    """Return how many codes of a pool are in each state."""
    return {row["state"]: row["codes"] for row in await database().rows(STATES, shop.merchant_id, uuid(pool))}


def order(code: Any, member: Any) -> dict[str, Any]:
    """Present a code for an order of its own."""
    return {"codes": [code["text"]], "orderId": code["id"], "orderAmount": usd(1_000), "memberId": member["id"]}


async def test_of_an_extension_and_the_job_that_expires_none_leaves_a_code_dead(
    shop: Shop, processes: Processes
) -> None:
    for _ in range(5):
        pool = await shop.pool(codes=8, endsAt=LATER)
        owners = [await shop.member() for _ in range(6)]
        codes = [await shop.claim(pool, owner) for owner in owners]
        await end_pool(shop, pool)

        await at_once(
            [
                *(expire_batch(shop.merchant_id) for _ in range(2)),
                processes.do(EDIT_POOL, poolId=pool["id"], endsAt=LATER),
                processes.do(CLAIM_CODE, poolId=pool["id"], memberId=(await shop.member())["id"]),
                revive_codes(),
                *(processes.do(REVOKE, codeId=code["id"], reason="leaked", recycle=False) for code in codes[:1]),
                *(processes.do(REDEEM_CODES, **order(c, m)) for c, m in zip(codes, owners, strict=True)),
            ]
        )
        await revive_codes()

        found = await states(shop, pool)
        assert "EXPIRED" not in found
        assert sum(found.values()) == 8
        assert await shop.count("code_revival") == 0
    assert await database().rows(GAPS, shop.merchant_id) == []
    assert await shop.broken_promises() == []


async def test_codes_that_live_again_are_spent_while_the_job_another_edit_and_the_next_expiry_run(
    shop: Shop, processes: Processes
) -> None:
    for _ in range(3):
        pool = await shop.pool(codes=10, endsAt=LATER)
        owners = [await shop.member() for _ in range(8)]
        codes = [await shop.claim(pool, owner) for owner in owners]
        await end_pool(shop, pool)
        assert await expire_batch(shop.merchant_id) == 8
        await processes.do(EDIT_POOL, poolId=pool["id"], endsAt=LATER)
        (leaked, *spent), (_, *spenders) = codes, owners

        answers = await at_once(
            [
                *(processes.do(REDEEM_CODES, **order(c, m)) for c, m in zip(spent, spenders, strict=True)),
                *(processes.do(REDEEM_CODES, **order(c, m)) for c, m in zip(spent, spenders, strict=True)),
                processes.do(REVOKE, codeId=leaked["id"], reason="leaked", recycle=False),
                processes.do(EDIT_POOL, poolId=pool["id"], endsAt=None),
                *(revive_codes() for _ in range(2)),
                expire_batch(shop.merchant_id),
            ]
        )
        await revive_codes()

        assert kinds(answers[:16]) == {"RedeemCodesSuccess": 14, "RevokeCodeSuccess": 1, "EditPoolSuccess": 1}
        assert sum(answer["replayed"] for answer in answers[:14]) == 7
        assert await states(shop, pool) == {"AVAILABLE": 2, "REDEEMED": 7, "REVOKED": 1}
        for owner in owners:
            assert await shop.wallet_versions(owner) == [1, 2, 3, 4]
    assert await database().rows(GAPS, shop.merchant_id) == []
    assert await shop.count("code_revival") == 0
    assert await shop.broken_promises() == []


async def test_an_edit_waits_for_codes_that_are_being_expired_and_has_them_revived(
    shop: Shop, processes: Processes
) -> None:
    pool = await shop.pool(codes=1, endsAt=LATER)
    member = await shop.member()
    await shop.claim(pool, member)
    await end_pool(shop, pool)

    async with transaction(shop.merchant_id) as tx:
        await tx.row(SHARE, shop.merchant_id, uuid(pool))
        edit = asyncio.ensure_future(processes.do(EDIT_POOL, poolId=pool["id"], endsAt=LATER))
        await until_somebody_waits(tx)
        # What the job does in its own transaction it could have done in this one.
        assert await expire_batch(shop.merchant_id) == 1

    assert (await edit)["__typename"] == "EditPoolSuccess"
    await revive_codes()
    assert await states(shop, pool) == {"ALLOCATED": 1}


async def test_a_redemption_names_the_terms_that_gave_its_discount(shop: Shop, processes: Processes) -> None:
    pool = await shop.pool(codes=30, percentOff=1.0)
    owners = [await shop.member() for _ in range(30)]
    codes = [await shop.claim(pool, owner) for owner in owners]

    answers = await at_once(
        [
            *(processes.do(REDEEM_CODES, **order(c, m)) for c, m in zip(codes, owners, strict=True)),
            *(processes.do(EDIT_POOL, poolId=pool["id"], percentOff=float(percent)) for percent in (2, 3, 4, 5)),
        ]
    )

    assert kinds(answers)["RedeemCodesSuccess"] == 30
    rows = await database().rows(
        """SELECT r.discount, t.percent_off FROM redemption r JOIN pool_terms t
        ON t.merchant_id = r.merchant_id AND t.pool_id = r.pool_id AND t.version = r.terms_version
        WHERE r.merchant_id = $1""",
        shop.merchant_id,
    )
    assert [row["discount"] for row in rows] == [int(row["percent_off"] * 10) for row in rows]
    assert len(rows) == 30
    assert await shop.broken_promises() == []


async def test_pauses_of_both_scopes_and_archiving_meet_redemptions(shop: Shop, processes: Processes) -> None:
    for _ in range(3):
        pool = await shop.pool(codes=12)
        owners = [await shop.member() for _ in range(12)]
        codes = [await shop.claim(pool, owner) for owner in owners]

        answers = await at_once(
            [
                *(processes.do(REDEEM_CODES, **order(c, m)) for c, m in zip(codes, owners, strict=True)),
                processes.do(CHANGE_STATUS % "pausePool", poolId=pool["id"], scope="ISSUING"),
                processes.do(CHANGE_STATUS % "pausePool", poolId=pool["id"]),
                processes.do(CHANGE_STATUS % "archivePool", poolId=pool["id"]),
                expire_batch(shop.merchant_id),
            ]
        )
        redeemed = sum(each["__typename"] == "RedeemCodesSuccess" for each in answers[:12])
        while await expire_batch(shop.merchant_id):
            pass

        assert await states(shop, pool) == {
            state: codes for state, codes in (("REDEEMED", redeemed), ("EXPIRED", 12 - redeemed)) if codes
        }
    assert await shop.broken_promises() == []


async def test_a_campaign_of_a_pool_that_is_extended_meanwhile(shop: Shop, processes: Processes) -> None:
    pool = await shop.pool(codes=200, endsAt=LATER)
    many = await members(shop, 150)
    await shop.claim(pool, {"id": many[0]})

    answers = await at_once(
        [
            processes.do(CREATE_CAMPAIGN, name="Sale", poolId=pool["id"], recipients=[{"memberId": m} for m in many]),
            processes.do(EDIT_POOL, poolId=pool["id"], endsAt=None),
            processes.do(EDIT_POOL, poolId=pool["id"], claimsPerMember=2),
            revive_codes(),
        ]
    )

    assert kinds(answers[:3]) == {"CreateCampaignSuccess": 1, "EditPoolSuccess": 2}
    assert await shop.broken_promises() == []


async def test_a_later_end_waits_for_a_code_that_comes_back_by_the_end_before(shop: Shop) -> None:
    pool, member = await shop.pool(codes=1, endsAt=LATER), await shop.member()
    code = await shop.claim(pool, member)
    await end_pool(shop, pool)
    owner = await tenant(shop.merchant_id)
    assert owner is not None
    async with transaction(shop.merchant_id) as tx:
        await end_returned(tx, Viewer(Role.ADMIN, owner, "system"), [ids.decode("code", code["id"]) or UUID(int=0)])
        editing = asyncio.ensure_future(shop.do(EDIT_POOL, poolId=pool["id"], endsAt=LATER))
        await until_somebody_waits(tx)
    assert (await editing)["__typename"] == "EditPoolSuccess"
    await revive_codes()

    assert await states(shop, pool) == {"ALLOCATED": 1}
    assert await shop.broken_promises() == []
