"""Campaigns to a segment, and their results. Without these a job could miss members, or send them two codes."""

import asyncio
from typing import Any

import pytest

from app import ids
from app.coupons.campaign_job import campaign_batch
from app.jobs.turns import TAKE
from app.storage.database import database
from tests.conftest import Api
from tests.coupons.ownership import breaches, claim_by_email, send
from tests.coupons.test_create_campaign import deliveries
from tests.coupons.test_reissue_code import REISSUE
from tests.factories import CHANGE_STATUS, CREATE_CAMPAIGN, DELIVERIES, EDIT_POOL, GENERATE_CODES, Shop, problems, usd
from tests.jobs.documents import CANCEL, JOB, REVOKE_CODES, carried_out, job_row, killed_everywhere, paged, progress
from tests.orders.documents import AMEND, amendment
from tests.orders.documents import CANCEL as CANCEL_ORDER
from tests.orders.presented import end_pool
from tests.points.documents import purchase, refund, reward

CAMPAIGN = f"""
id segment recipientCount allocatedCount redeemedCount discountGiven {{ amountMinor currency }}
revenue {{ amountMinor currency }} job {{ {JOB} }}
"""
READ = f"query ($id: ID!) {{ campaign(id: $id) {{ {CAMPAIGN} }} }}"
LEAVE = "UPDATE member SET joined_at = now() - interval '31 days' WHERE merchant_id = $1 AND id = $2"
FORGET = """
UPDATE bulk_job_page SET ids = array_append(array_remove(ids, $2), gen_random_uuid()) WHERE merchant_id = $1
"""


async def sent(shop: Shop, pool: Any, segment: str = "NEW", **input: Any) -> Any:
    """Send a campaign to a segment, and return it."""
    answer = await shop.do(CREATE_CAMPAIGN, name="Welcome", poolId=pool["id"], segment=segment, **input)
    assert answer["__typename"] == "CreateCampaignSuccess", answer
    return await read(shop, answer["campaign"])


async def read(shop: Shop, campaign: Any) -> Any:
    return (await shop.data(READ, {"id": campaign["id"]}))["campaign"]


async def leave(shop: Shop, member: Any) -> None:
    """Let a member leave the segment NEW."""
    await database().rows(LEAVE, shop.merchant_id, ids.decode("member", member["id"]))


async def recipients(shop: Shop, campaign: Any) -> list[str]:
    return [delivery["recipient"] for delivery in await deliveries(shop, campaign)]


async def test_everybody_in_the_segment_at_the_call_gets_a_code(shop: Shop) -> None:
    pool = await shop.pool(codes=5)
    anna, ben, cleo = [await shop.member() for _ in range(3)]
    await leave(shop, cleo)
    before = await shop.state()

    campaign = await sent(shop, pool)
    assert (campaign["segment"], campaign["recipientCount"], campaign["allocatedCount"]) == ("NEW", 2, 0)
    assert campaign["job"] | {"id": "", "createdAt": ""} == {
        "id": "", "kind": "CAMPAIGN", "status": "QUEUED", "total": 2, "done": 0, "failed": 0, "skipped": [],
        "problem": None, "createdAt": "", "finishedAt": None,
    }  # fmt: skip
    assert (await shop.state()).since(before) == {"campaign": 1, "bulk_job": 1, "bulk_job_page": 1, "event": 2}
    assert await deliveries(shop, campaign) == []
    dora = await shop.member()
    await leave(shop, ben)

    done = await carried_out(shop, campaign["job"])

    assert progress(done) == {"status": "DONE", "total": 2, "done": 2, "failed": 0}
    assert await recipients(shop, campaign) == [anna["id"], ben["id"]]
    assert (await read(shop, campaign))["allocatedCount"] == 2
    assert [await shop.wallet_versions(member) for member in (anna, ben, cleo, dora)] == [[1], [1], [], []]
    types = await shop.event_types()
    assert (types.count("code.sent"), types.count("campaign.created"), types[-2]) == (2, 1, "job.finished")
    assert await breaches(shop) == {}
    assert await shop.broken_promises() == []


async def test_who_has_a_code_of_the_pool_or_was_erased_is_skipped(shop: Shop) -> None:
    pool = await shop.pool(codes=5)
    anna, ben, cleo, dora = [await shop.member() for _ in range(4)]
    await shop.claim(pool, anna)
    campaign = await sent(shop, pool)
    await shop.claim(pool, ben)
    # A member whose row says no more who it is.
    await database().rows(FORGET, shop.merchant_id, ids.decode("member", cleo["id"]))

    done = await carried_out(shop, campaign["job"])

    assert progress(done) == {"status": "DONE", "total": 4, "done": 1, "failed": 0}
    assert done["skipped"] == [{"reason": "ERASED", "count": 1}, {"reason": "HAS_ALL", "count": 2}]
    assert await recipients(shop, campaign) == [dora["id"]]
    assert await shop.broken_promises() == []


async def test_of_people_with_one_mailbox_the_first_gets_a_code(shop: Shop) -> None:
    pool = await shop.pool(codes=5)
    addresses = ("jane.doe@gmail.com", "janedoe@gmail.com", "jane@example.com")
    first, _, other = [await shop.member(email=each, emailVerified=True) for each in addresses]
    campaign = await sent(shop, pool)

    done = await carried_out(shop, campaign["job"])

    assert progress(done) == {"status": "DONE", "total": 3, "done": 2, "failed": 0}
    assert done["skipped"] == [{"reason": "MAILBOX", "count": 1}]
    assert len(await recipients(shop, campaign)) == 2
    assert [await shop.wallet_versions(each) for each in (first, other)] == [[1], [1]]


async def test_where_a_member_may_have_two_it_gets_another(shop: Shop) -> None:
    pool, anna = await shop.pool(codes=5, claimsPerMember=2), await shop.member()
    await shop.claim(pool, anna)

    for allocated in (1, 0):
        campaign = await sent(shop, pool)
        assert (await carried_out(shop, campaign["job"]))["done"] == allocated


async def test_segments_of_last_night_have_their_members(shop: Shop) -> None:
    pool = await shop.pool(codes=5)
    anna, _ = await shop.member(), await shop.member()
    await purchase(shop, anna, "order-1")

    for segment in ("HIGH_SPEND", "ACTIVE"):
        campaign = await sent(shop, await shop.pool(codes=5), segment)
        await carried_out(shop, campaign["job"])
        assert await recipients(shop, campaign) == [anna["id"]]
    refused = await shop.refused(CREATE_CAMPAIGN, name="Come back", poolId=pool["id"], segment="LAPSED")
    assert problems(refused) == {"segment": "has no members"}


async def test_whatever_kills_the_workers_everybody_gets_one_code(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = await shop.pool(codes=10)
    members = [await shop.member() for _ in range(7)]
    campaign = await sent(shop, pool)
    assert await paged(shop, 3) == [3, 3, 1]

    assert await killed_everywhere(shop, campaign["job"], monkeypatch) == 3

    assert progress(await job_row(shop, campaign["job"])) == {"status": "DONE", "total": 7, "done": 7, "failed": 0}
    assert await recipients(shop, campaign) == [member["id"] for member in members]
    assert [await shop.wallet_versions(member) for member in members] == [[1]] * 7
    assert await breaches(shop) == {}
    assert await shop.broken_promises() == []


async def test_a_mailer_that_pages_while_the_job_runs_misses_nobody(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = await shop.pool(codes=2, active=False)
    # Codes that were made later are given first: their ids say nothing about when they are sent.
    await shop.do(GENERATE_CODES, poolId=pool["id"], count=8)
    await database().rows(
        "UPDATE code SET state = 'REVOKED' WHERE merchant_id = $1 AND id IN "
        "(SELECT id FROM code WHERE merchant_id = $1 ORDER BY id LIMIT 2)",
        shop.merchant_id,
    )
    await shop.do(CHANGE_STATUS % "activatePool", poolId=pool["id"])
    members = [await shop.member() for _ in range(6)]
    campaign = await sent(shop, pool)
    await paged(shop, 1)
    running = asyncio.create_task(carried_out(shop, campaign["job"]))
    found: list[str] = []
    after = None
    while len(found) < 6:
        page = await shop.data(DELIVERIES.replace("first: 100", "first: 2"), {"id": campaign["id"], "after": after})
        edges = page["campaign"]["deliveries"]["edges"]
        found += [edge["node"]["recipient"] for edge in edges]
        after = edges[-1]["cursor"] if edges else after
        if running.done() and not edges:
            break
    await running

    assert found == [member["id"] for member in members]


async def test_a_cursor_of_another_list_is_behind_all_deliveries(shop: Shop) -> None:
    campaign = (await send(shop, await shop.pool(), {"email": "jane@example.com"}))["campaign"]
    page = await shop.data("{ campaigns { edges { cursor } } }")
    cursor = page["campaigns"]["edges"][0]["cursor"]

    read = await shop.data(DELIVERIES, {"id": campaign["id"], "after": cursor})

    assert read["campaign"]["deliveries"]["edges"] == []


async def test_too_little_stock_at_the_call_is_refused(shop: Shop) -> None:
    pool = await shop.pool(codes=2)
    for _ in range(3):
        await shop.member()

    refused = await shop.refused(CREATE_CAMPAIGN, name="Welcome", poolId=pool["id"], segment="NEW")
    assert (refused["__typename"], refused["poolsTried"]) == ("PoolExhausted", [pool["id"]])

    # Who has its code needs none.
    await shop.claim(pool, await shop.member())
    assert (await shop.refused(CREATE_CAMPAIGN, name="Welcome", poolId=pool["id"], segment="NEW"))[
        "__typename"
    ] == "PoolExhausted"


async def test_a_job_waits_for_stock(shop: Shop) -> None:
    pool = await shop.pool(codes=2)
    anna, ben = await shop.member(), await shop.member()
    campaign = await sent(shop, pool)
    await claim_by_email(shop, pool, "jane@example.com")

    waiting = await carried_out(shop, campaign["job"])
    assert progress(waiting) == {"status": "WAITING", "total": 2, "done": 0, "failed": 0}
    assert waiting["problem"] == "The pool has too few codes left for the next members."
    await shop.do(CHANGE_STATUS % "pausePool", poolId=pool["id"])
    waiting = await carried_out(shop, campaign["job"])
    assert waiting["problem"] == "The pool is PAUSED; it sends codes while it is ACTIVE."
    await shop.do(GENERATE_CODES, poolId=pool["id"], count=1)
    await shop.do(CHANGE_STATUS % "activatePool", poolId=pool["id"])

    assert progress(await carried_out(shop, campaign["job"]))["done"] == 2
    assert await recipients(shop, campaign) == [anna["id"], ben["id"]]


async def test_a_job_waits_while_the_pool_backs_a_reward(shop: Shop) -> None:
    pool = await shop.pool()
    await shop.member()
    campaign = await sent(shop, pool)
    await reward(shop, poolId=pool["id"])

    waiting = await carried_out(shop, campaign["job"])

    assert (waiting["status"], waiting["problem"]) == (
        "WAITING", "The pool's codes are had for points; retire its reward."
    )  # fmt: skip


async def test_a_job_waits_once_the_budget_is_spent(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = await shop.pool(codes=5, kind="AMOUNT", amountOff=usd(1_000), maximumTotalDiscount=usd(1_000))
    anna, ben = await shop.member(), await shop.member()
    campaign = await sent(shop, pool)
    await paged(shop, 1)
    await _one_batch(shop, campaign["job"], monkeypatch)
    await shop.redeem([(await shop.claim(pool, anna))["text"]], anna, order="A-1", amount=5_000)

    waiting = await carried_out(shop, campaign["job"])

    assert progress(waiting) == {"status": "WAITING", "total": 2, "done": 1, "failed": 0}
    assert waiting["problem"] == "The pool's budget is spent; raise it."
    assert await shop.wallet_versions(ben) == []
    await shop.do(EDIT_POOL, poolId=pool["id"], maximumTotalDiscount=usd(2_000))
    assert progress(await carried_out(shop, campaign["job"])) == {
        "status": "DONE", "total": 2, "done": 2, "failed": 0
    }  # fmt: skip
    assert await recipients(shop, campaign) == [anna["id"], ben["id"]]
    assert await shop.broken_promises() == []


@pytest.mark.parametrize("end", ["archivePool", None])
async def test_a_pool_that_has_ended_fails_its_job(shop: Shop, end: str | None) -> None:
    pool = await shop.pool(endsAt="2999-01-01T00:00:00Z")
    await shop.member()
    campaign = await sent(shop, pool)
    if end is None:
        await end_pool(shop, pool)
    else:
        await shop.do(CHANGE_STATUS % end, poolId=pool["id"])

    failed = await carried_out(shop, campaign["job"])

    assert progress(failed) == {"status": "FAILED", "total": 1, "done": 0, "failed": 0}
    assert failed["problem"] == "The pool has ended."
    assert await shop.count("bulk_job_page") == 0
    assert await shop.broken_promises() == []


async def test_a_cancelled_campaign_keeps_what_it_allocated(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = await shop.pool(codes=5)
    members = [await shop.member() for _ in range(4)]
    campaign = await sent(shop, pool)
    await paged(shop, 2)
    await _one_batch(shop, campaign["job"], monkeypatch)

    cancelled = (await shop.data(CANCEL, {"input": campaign["job"]["id"]}))["answer"]["job"]

    assert progress(cancelled) == {"status": "CANCELLED", "total": 4, "done": 2, "failed": 0}
    assert await carried_out(shop, cancelled) == cancelled
    assert await recipients(shop, campaign) == [member["id"] for member in members[:2]]
    assert (await read(shop, campaign))["allocatedCount"] == 2
    assert await shop.broken_promises() == []


async def test_revoking_a_campaigns_codes_cancels_its_job_first(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = await shop.pool(codes=5)
    for _ in range(4):
        await shop.member()
    campaign = await sent(shop, pool)
    await paged(shop, 2)
    await _one_batch(shop, campaign["job"], monkeypatch)

    values = {"poolId": pool["id"], "campaignId": campaign["id"], "reason": "wrong", "idempotencyKey": "wrong"}
    assert (await shop.refused(REVOKE_CODES, expectedCount=1, **values))["count"] == 2
    revoking = (await shop.do(REVOKE_CODES, expectedCount=2, **values))["job"]

    assert (await job_row(shop, campaign["job"]))["status"] == "CANCELLED"
    assert progress(await carried_out(shop, revoking)) == {"status": "DONE", "total": 2, "done": 2, "failed": 0}
    assert await shop.stock(pool) == {
        "total": 5, "available": 3, "allocated": 0, "redeemed": 0, "expired": 0, "revoked": 2
    }  # fmt: skip
    assert await shop.broken_promises() == []


async def _one_batch(shop: Shop, job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = await database().row(TAKE, kinds=["CAMPAIGN"])
    assert taken is not None
    assert ids.encode("job", taken["id"]) == job["id"]
    assert await campaign_batch(taken) is True


async def test_of_cancelling_and_the_jobs_own_worker_all_is_told_as_it_is(shop: Shop, second_api: Api) -> None:
    pool = await shop.pool(codes=20)
    for _ in range(12):
        await shop.member()
    campaign = await sent(shop, pool)
    await paged(shop, 1)

    _, answer = await asyncio.gather(
        carried_out(shop, campaign["job"]),
        shop.data(CANCEL, {"input": campaign["job"]["id"]}, url=f"{second_api.url}/graphql"),
    )

    job = await job_row(shop, campaign["job"])
    assert answer["answer"]["job"] == job
    assert len(await deliveries(shop, campaign)) == job["done"] == (await read(shop, campaign))["allocatedCount"]
    assert await shop.broken_promises() == []


async def test_the_same_key_is_the_same_campaign(shop: Shop) -> None:
    pool = await shop.pool()
    await shop.member()
    values = {"name": "Welcome", "poolId": pool["id"], "idempotencyKey": "welcome"}
    campaign = await sent(shop, pool, idempotencyKey="welcome")
    before = await shop.state()

    again = await shop.do(CREATE_CAMPAIGN, segment="NEW", **values)
    assert (again["replayed"], again["campaign"]["id"]) == (True, campaign["id"])
    assert await shop.state() == before
    for other in ({"segment": "ACTIVE"}, {"recipients": [{"email": "jane@example.com"}]}):
        assert (await shop.refused(CREATE_CAMPAIGN, **values, **other))["__typename"] == "IdempotencyKeyReused"


@pytest.mark.parametrize(
    "both",
    [{}, {"recipients": None}, {"segment": None}, {"recipients": [{"email": "a@example.com"}], "segment": "NEW"}],
)
async def test_recipients_and_segment_together_or_neither_are_refused(shop: Shop, both: dict[str, Any]) -> None:
    pool = await shop.pool()

    refused = await shop.refused(CREATE_CAMPAIGN, name="Welcome", poolId=pool["id"], **both)

    assert problems(refused) == {"recipients": "must be given, or a segment, and not both"}


async def test_a_segment_of_nobody_is_refused(shop: Shop) -> None:
    refused = await shop.refused(CREATE_CAMPAIGN, name="Welcome", poolId=(await shop.pool())["id"], segment="NEW")

    assert problems(refused) == {"segment": "has no members"}


@pytest.mark.parametrize("status", ["pausePool", "archivePool"])
async def test_a_pool_that_isnt_open_begins_no_job(shop: Shop, status: str) -> None:
    pool = await shop.pool()
    await shop.member()
    await shop.do(CHANGE_STATUS % status, poolId=pool["id"])

    refused = await shop.refused(CREATE_CAMPAIGN, name="Welcome", poolId=pool["id"], segment="NEW")

    assert refused["__typename"] == "PoolNotActive"


async def test_campaigns_are_listed_newest_first(shop: Shop, other_shop: Shop) -> None:
    pool = await shop.pool()
    first = (await send(shop, pool, {"email": "jane@example.com"}))["campaign"]
    await shop.member()
    second = await sent(shop, pool)
    document = (
        "query ($after: String) { campaigns(first: 1, after: $after) { edges { cursor node { id job { id } } } } }"
    )

    (newest,) = (await shop.data(document))["campaigns"]["edges"]
    (older,) = (await shop.data(document, {"after": newest["cursor"]}))["campaigns"]["edges"]

    assert newest["node"] == {"id": second["id"], "job": {"id": second["job"]["id"]}}
    assert older["node"] == {"id": first["id"], "job": None}
    assert (await shop.data(document, {"after": older["cursor"]}))["campaigns"]["edges"] == []
    assert (await other_shop.data(document))["campaigns"]["edges"] == []
    support = await shop.data(document, key=await shop.key("SUPPORT"))
    assert support["campaigns"]["edges"][0]["node"] == {"id": second["id"], "job": None}


def results(campaign: Any) -> tuple[int, int, int]:
    """Return redemptions, discounts and revenue."""
    return (
        campaign["redeemedCount"], campaign["discountGiven"]["amountMinor"], campaign["revenue"]["amountMinor"]
    )  # fmt: skip


async def test_results_are_what_stands_of_the_codes_that_it_allocated(shop: Shop) -> None:
    pool = await shop.pool(codes=9, stacking="STACKABLE")
    other = await shop.pool(
        codes=9, stacking="STACKABLE", kind="AMOUNT", amountOff={"amountMinor": 500, "currency": "USD"}
    )
    anna, ben, cleo = [await shop.member() for _ in range(3)]
    had = await shop.claim(pool, cleo)
    campaign = (await send(shop, pool, *({"memberId": each["id"]} for each in (anna, ben, cleo))))["campaign"]
    second = (await send(shop, other, {"memberId": anna["id"]}))["campaign"]
    assert results(await read(shop, campaign)) == (0, 0, 0)
    codes = [await shop.claim(pool, each) for each in (anna, ben)]
    beside = await shop.claim(other, anna)

    # Another code on the same order takes off, too; an order counts once in each campaign.
    await shop.redeem([codes[0]["text"], beside["text"]], anna, order="A-1", amount=10_000)
    await shop.redeem([codes[1]["text"]], ben, order="A-2", amount=2_000)
    await shop.redeem([had["text"]], cleo, order="A-3", amount=5_000)
    assert results(await read(shop, campaign)) == (2, 1_200, 8_500 + 1_800)
    assert results(await read(shop, second)) == (1, 500, 8_500)

    await purchase(shop, anna, "A-1", 8_500)
    await refund(shop, "A-1", "refund-1", 500)
    assert results(await read(shop, campaign)) == (2, 1_200, 8_000 + 1_800)
    await shop.do(AMEND, **amendment([codes[0]], amount=12_000, member=anna))
    assert results(await read(shop, campaign)) == (2, 1_400, 10_300 + 1_800)
    assert results(await read(shop, second)) == (0, 0, 0)
    await shop.do(CANCEL_ORDER, orderId="A-2", reason="called off")
    assert results(await read(shop, campaign)) == (1, 1_200, 10_300)
    # What takes the place of a code is the campaign's, too.
    await shop.do(
        "mutation ($input: RevokeCodeInput!) { answer: revokeCode(input: $input) { __typename } }",
        codeId=codes[1]["id"], reason="lost",
    )  # fmt: skip
    fresh = (await shop.do(REISSUE, codeId=codes[1]["id"], reason="lost"))["code"]
    text = (await shop.claim(pool, ben))["text"]
    await shop.redeem([text], ben, order="A-4", amount=1_000)
    assert fresh["id"] != codes[1]["id"]
    assert results(await read(shop, campaign)) == (2, 1_300, 10_300 + 900)
