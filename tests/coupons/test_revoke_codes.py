"""revokeCodes. Without these codes could be revoked that nobody meant, live on, or be lost from the stock."""

import asyncio
from typing import Any

import pytest

from app.storage.database import database
from tests.conftest import Api
from tests.coupons.ownership import breaches, send
from tests.coupons.test_issue_codes import issue
from tests.coupons.test_reissue_code import REISSUE
from tests.factories import CHANGE_STATUS, CLAIM_CODE, EDIT_POOL, GENERATE_CODES, REDEEM_CODES, Shop, problems, usd
from tests.jobs.documents import REVOKE_CODES, carried_out, job_row, killed_everywhere, paged, progress
from tests.orders.holding import hold
from tests.orders.presented import expire

NOWHERE = "pool_0123456789abcdef0123456789abcdef"
NO_BATCH = "batch_0123456789abcdef0123456789abcdef"
NO_CAMPAIGN = "campaign_0123456789abcdef0123456789abcdef"
REASONS = """
query { events(first: 100) { edges { node { type reason actor } } } }
"""
STATES = "SELECT state, count(*) AS codes FROM code WHERE merchant_id = $1 AND pool_id = $2 GROUP BY state"


async def asked(shop: Shop, pool: Any, key: str = "leaked", **input: Any) -> Any:
    """Ask for codes to be revoked, and return the job."""
    values = {"poolId": pool["id"], "expectedCount": 100, "reason": "leaked", "idempotencyKey": key} | input
    answer = await shop.do(REVOKE_CODES, **values)
    assert answer["__typename"] == "RevokeCodesSuccess", answer
    return answer["job"]


async def revoked(shop: Shop, pool: Any, key: str = "leaked", **input: Any) -> Any:
    """Revoke codes, and return the job when it has ended."""
    return await carried_out(shop, await asked(shop, pool, key, **input))


async def stock(shop: Shop, pool: Any) -> dict[str, int]:
    """Return how many codes there are in each state that has any."""
    return {state: codes for state, codes in (await shop.stock(pool)).items() if codes and state != "total"}


async def test_all_codes_that_live_are_revoked(shop: Shop) -> None:
    pool = await shop.pool(codes=5)
    anna, ben = await shop.member(), await shop.member()
    spent, live = await shop.claim(pool, anna), await shop.claim(pool, ben)
    await shop.redeem([spent["text"]], anna)
    before = await shop.state()

    job = await asked(shop, pool)
    assert (await shop.state()).since(before) == {"bulk_job": 1, "bulk_job_page": 1, "event": 1}
    assert job | {"id": "", "createdAt": ""} == {
        "id": "", "kind": "REVOKE", "status": "QUEUED", "total": 4, "done": 0, "failed": 0, "skipped": [],
        "problem": None, "createdAt": "", "finishedAt": None,
    }  # fmt: skip

    assert progress(await carried_out(shop, job)) == {"status": "DONE", "total": 4, "done": 4, "failed": 0}
    assert (await shop.state()).since(before) == {
        "bulk_job": 1, "code": 0, "stock_change": 1, "wallet": 0, "event": 10, "stock_alert": 4
    }  # fmt: skip
    assert await stock(shop, pool) == {"redeemed": 1, "revoked": 4}
    assert await shop.wallet_versions(ben) == [1, 2]
    rejected = await shop.redeem([live["text"]], ben)
    assert rejected["rejections"] == [{"masked": live["masked"], "reason": "REVOKED"}]
    told = [edge["node"] for edge in (await shop.data(REASONS))["events"]["edges"]]
    assert [event["reason"] for event in told if event["type"] == "code.revoked"] == ["leaked"] * 4
    assert len({event["actor"] for event in told if event["type"] == "code.revoked"}) == 1
    assert await shop.broken_promises() == []


async def test_fresh_codes_take_their_places_and_are_not_meant(shop: Shop) -> None:
    pool = await shop.pool(codes=5)
    job = await asked(shop, pool, recycle=True)
    assert await paged(shop, 2) == [2, 2, 1]

    job = await carried_out(shop, job)

    assert progress(job) == {"status": "DONE", "total": 5, "done": 5, "failed": 0}
    assert await stock(shop, pool) == {"available": 5, "revoked": 5}
    assert await shop.broken_promises() == []


@pytest.mark.parametrize(
    ("state", "left"), [("AVAILABLE", {"allocated": 2, "revoked": 3}), ("ALLOCATED", {"available": 3, "revoked": 2})]
)
async def test_only_codes_in_a_state(shop: Shop, state: str, left: dict[str, int]) -> None:
    pool = await shop.pool(codes=5)
    for _ in range(2):
        await shop.claim(pool, await shop.member())

    await revoked(shop, pool, state=state)

    assert await stock(shop, pool) == left


@pytest.mark.parametrize(("state", "done", "failed"), [("AVAILABLE", 2, 1), ("ALLOCATED", 1, 0), (None, 4, 0)])
async def test_what_is_claimed_meanwhile_is_judged_again(shop: Shop, state: str | None, done: int, failed: int) -> None:
    pool = await shop.pool(codes=4)
    await shop.claim(pool, await shop.member())
    job = await asked(shop, pool, state=state)

    await shop.claim(pool, await shop.member())

    ended = await carried_out(shop, job)
    assert progress(ended) == {"status": "DONE", "total": done + failed, "done": done, "failed": failed}


async def test_what_comes_meanwhile_is_not_meant(shop: Shop) -> None:
    pool = await shop.pool(codes=2, active=False)
    job = await asked(shop, pool)
    await shop.do(GENERATE_CODES, poolId=pool["id"], count=3)

    assert progress(await carried_out(shop, job)) == {"status": "DONE", "total": 2, "done": 2, "failed": 0}
    assert await stock(shop, pool) == {"available": 3, "revoked": 2}


async def test_only_codes_of_a_batch(shop: Shop) -> None:
    pool = await shop.pool(codes=2, active=False, transferable=True)
    batch = (await shop.do(GENERATE_CODES, poolId=pool["id"], count=3))["batch"]
    await shop.do(CHANGE_STATUS % "activatePool", poolId=pool["id"])
    printed = (await issue(shop, pool, 1))["batch"]

    assert (await revoked(shop, pool, "printed", batchId=printed["id"]))["done"] == 1
    assert (await revoked(shop, pool, "generated", batchId=batch["id"]))["done"] == 3
    assert await stock(shop, pool) == {"available": 1, "revoked": 4}


async def test_only_codes_that_a_campaign_allocated_and_what_took_their_places(shop: Shop) -> None:
    pool = await shop.pool(codes=9)
    anna, ben, cleo = [await shop.member() for _ in range(3)]
    await shop.claim(pool, anna)
    first = await send(shop, pool, {"memberId": ben["id"]}, {"email": "jane@example.com"})
    again = await send(shop, pool, {"memberId": anna["id"]}, {"memberId": ben["id"]}, {"memberId": cleo["id"]})

    assert again["campaign"]["allocatedCount"] == 1
    assert (await revoked(shop, pool, "again", campaignId=again["campaign"]["id"]))["done"] == 1
    code = await shop.claim(pool, cleo)
    assert code["state"] == "REVOKED"
    await shop.do(REISSUE, codeId=code["id"], reason="lost")
    assert (await revoked(shop, pool, "reissued", campaignId=again["campaign"]["id"]))["done"] == 1
    assert (await revoked(shop, pool, "first", campaignId=first["campaign"]["id"]))["done"] == 2
    assert await stock(shop, pool) == {"available": 4, "allocated": 1, "revoked": 4}
    assert await breaches(shop) == {}


async def test_codes_that_have_ended_are_not_meant_and_those_that_live_again_are(shop: Shop) -> None:
    pool = await shop.pool(codes=4, endsAt="2999-01-01T00:00:00Z")
    dead, reborn, live = [await shop.claim(pool, await shop.member()) for _ in range(3)]
    await expire(shop, dead)
    await database().rows(
        "UPDATE code SET state = 'EXPIRED', died_with_pool = true WHERE merchant_id = $1 AND id = $2",
        shop.merchant_id, reborn["id"].removeprefix("code_"),
    )  # fmt: skip

    job = await revoked(shop, pool, state="ALLOCATED")

    assert progress(job) == {"status": "DONE", "total": 2, "done": 2, "failed": 0}
    for code, state in ((dead, "EXPIRED"), (reborn, "REVOKED"), (live, "REVOKED")):
        read = await shop.data("query ($id: ID!) { node(id: $id) { ... on Code { state } } }", {"id": code["id"]})
        assert read["node"]["state"] == state
    assert (await shop.event_types()).count("code.revived") == 1


async def test_a_code_that_an_order_holds_fails(shop: Shop) -> None:
    pool = await shop.pool(codes=3)
    anna, ben = await shop.member(), await shop.member()
    held, free = await shop.claim(pool, anna), await shop.claim(pool, ben)
    await hold(shop, [held], anna)

    job = await revoked(shop, pool, state="ALLOCATED")

    assert progress(job) == {"status": "DONE", "total": 2, "done": 1, "failed": 1}
    for code, state in ((held, "ALLOCATED"), (free, "REVOKED")):
        found = await shop.data("query ($id: ID!) { node(id: $id) { ... on Code { state } } }", {"id": code["id"]})
        assert found["node"]["state"] == state
    assert await shop.broken_promises() == []


async def test_more_than_expected_is_refused(shop: Shop) -> None:
    pool = await shop.pool(codes=3)
    values = {"poolId": pool["id"], "reason": "leaked", "idempotencyKey": "leaked"}

    refused = await shop.refused(REVOKE_CODES, expectedCount=2, **values)
    assert (refused["__typename"], refused["count"]) == ("CountDiffers", 3)
    assert (await shop.refused(REVOKE_CODES, expectedCount=0, **values))["count"] == 3
    assert progress(await revoked(shop, pool, expectedCount=3))["done"] == 3
    none = await revoked(shop, pool, "nothing is left", expectedCount=0)
    assert progress(none) == {"status": "DONE", "total": 0, "done": 0, "failed": 0}


async def test_whatever_kills_the_workers_each_code_is_revoked_once(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = await shop.pool(codes=10)
    members = [await shop.member() for _ in range(4)]
    for member in members:
        await shop.claim(pool, member)
    job = await asked(shop, pool, recycle=True)
    assert await paged(shop, 3) == [3, 3, 3, 1]

    assert await killed_everywhere(shop, job, monkeypatch) == 4

    assert progress(await job_row(shop, job)) == {"status": "DONE", "total": 10, "done": 10, "failed": 0}
    assert await stock(shop, pool) == {"available": 10, "revoked": 10}
    assert [await shop.wallet_versions(member) for member in members] == [[1, 2]] * 4
    assert await shop.count("bulk_job_page") == 0
    assert await shop.broken_promises() == []


async def test_a_cancelled_job_revokes_no_more(shop: Shop) -> None:
    pool = await shop.pool(codes=3)
    job = await asked(shop, pool)

    await shop.data("mutation ($id: ID!) { cancelJob(jobId: $id) { __typename } }", {"id": job["id"]})
    await carried_out(shop, job)

    assert await stock(shop, pool) == {"available": 3}
    assert await shop.count("bulk_job_page") == 0


async def test_an_archived_pool_gets_no_fresh_codes(shop: Shop) -> None:
    pool = await shop.pool(codes=3)
    await shop.claim(pool, await shop.member())
    await shop.do(CHANGE_STATUS % "archivePool", poolId=pool["id"])

    assert progress(await revoked(shop, pool, recycle=True)) == {"status": "DONE", "total": 2, "done": 2, "failed": 0}
    assert await shop.count("code") == 3


async def test_a_code_that_was_revoked_is_not_claimed(shop: Shop) -> None:
    pool, member = await shop.pool(codes=1), await shop.member()
    await revoked(shop, pool)

    answer = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"])

    assert answer["__typename"] == "PoolExhausted"


async def test_of_revoking_all_and_spending_or_claiming_one_wins(shop: Shop, second_api: Api) -> None:
    pool = await shop.pool(codes=30)
    members = [await shop.member() for _ in range(20)]
    codes = [await shop.claim(pool, member) for member in members[:10]]
    job = await asked(shop, pool)
    url = f"{second_api.url}/graphql"

    redeemed, claimed, ended = await asyncio.gather(
        asyncio.gather(*(
            shop.do(REDEEM_CODES, codes=[code["text"]], orderId=code["id"], orderAmount=usd(500),
                    memberId=member["id"], url=url)
            for code, member in zip(codes, members[:10], strict=True)
        )),
        asyncio.gather(*(
            shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"], url=url) for member in members[10:]
        )),
        carried_out(shop, job),
    )  # fmt: skip

    spent = sum(answer["__typename"] == "RedeemCodesSuccess" for answer in redeemed)
    assert progress(ended) == {"status": "DONE", "total": 30, "done": 30 - spent, "failed": spent}
    assert await stock(shop, pool) == {key: codes for key, codes in {"redeemed": spent, "revoked": 30 - spent}.items()
                                       if codes}  # fmt: skip
    assert {answer["__typename"] for answer in claimed} <= {"ClaimCodeSuccess", "PoolExhausted"}
    assert await breaches(shop) == {}
    assert await shop.broken_promises() == []


async def test_the_same_key_is_the_same_job(shop: Shop) -> None:
    pool = await shop.pool(codes=3)
    values = {"poolId": pool["id"], "expectedCount": 3, "reason": "leaked", "idempotencyKey": "leaked"}
    job = (await shop.do(REVOKE_CODES, **values))["job"]
    done = await carried_out(shop, job)
    before = await shop.state()

    assert await shop.do(REVOKE_CODES, **values) == {
        "__typename": "RevokeCodesSuccess", "replayed": True, "job": done
    }  # fmt: skip
    assert await shop.state() == before
    for other in ({"recycle": True}, {"reason": "lost"}, {"expectedCount": 4}, {"state": "AVAILABLE"}):
        assert (await shop.refused(REVOKE_CODES, **(values | other)))["__typename"] == "IdempotencyKeyReused"


async def test_refusals(shop: Shop, other_shop: Shop) -> None:
    pool, other = await shop.pool(), await shop.pool()
    batch = (await issue(shop, await shop.pool(transferable=True), 1))["batch"]
    campaign = (await send(shop, other, {"email": "jane@example.com"}))["campaign"]
    await shop.do(EDIT_POOL, poolId=pool["id"], name="renamed")
    values = {"poolId": pool["id"], "expectedCount": 9, "reason": "leaked", "idempotencyKey": "leaked"}

    for number in (-1, -(2**31)):
        refused = await shop.refused(REVOKE_CODES, **(values | {"expectedCount": number, "state": "REDEEMED",
                                                                "reason": " ", "idempotencyKey": ""}))  # fmt: skip
        assert problems(refused) == {
            "state": "must be AVAILABLE or ALLOCATED", "expectedCount": "must be between 0 and 2147483647",
            "reason": "must not be blank", "idempotencyKey": "must not be blank",
        }  # fmt: skip
    for missing in (
        {"poolId": NOWHERE}, {"poolId": (await other_shop.pool())["id"]}, {"batchId": NO_BATCH},
        {"batchId": batch["id"]}, {"batchId": "batch"}, {"campaignId": NO_CAMPAIGN}, {"campaignId": campaign["id"]},
    ):  # fmt: skip
        refused = await shop.refused(REVOKE_CODES, **(values | missing))
        assert (refused["__typename"], refused["id"]) == ("NotFound", next(iter(missing.values())))
