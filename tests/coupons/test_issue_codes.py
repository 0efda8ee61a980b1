"""issueCodes. Without these a printed code could be somebody's, be printed twice, or never work at a till."""

from typing import Any

import pytest

from app.storage.database import database
from tests.conftest import Api
from tests.coupons.test_revoke_code import REVOKE
from tests.factories import CHANGE_STATUS, CLAIM_CODE, REDEEM_CODES, REFUSALS, Shop, problems, usd
from tests.orders.presented import end_pool
from tests.points.documents import reward
from tests.races.storm import Processes, at_once, kinds

ISSUE = f"""
mutation ($input: IssueCodesInput!) {{
  answer: issueCodes(input: $input) {{
    __typename ... on IssueCodesSuccess {{ replayed batch {{ id size createdAt pool {{ id }} }} }}
    {REFUSALS} ... on PoolNotActive {{ status }} ... on PoolExhausted {{ poolsTried }}
    ... on PoolBacksReward {{ rewardId }}
  }}
}}
"""
TEXTS = """
query ($id: ID!, $after: String) {
  node(id: $id) { ... on CodeBatch {
    texts(first: 2, after: $after) {
      edges { node { id text masked state bearer owner { id } } } pageInfo { hasNextPage endCursor }
    }
  } }
}
"""
BATCHES = "query ($id: ID!) { pool(id: $id) { batches { edges { node { id size } } } } }"


async def issue(shop: Shop, pool: Any, count: int, key: str = "print") -> Any:
    """Issue codes of a pool, and return the answer."""
    return await shop.do(ISSUE, poolId=pool["id"], count=count, reason="print", idempotencyKey=key)


async def texts(shop: Shop, batch: Any) -> list[Any]:
    """Read what is printed, page by page."""
    found: list[Any] = []
    after, more = None, True
    while more:
        page = (await shop.data(TEXTS, {"id": batch["id"], "after": after}))["node"]["texts"]
        found += [edge["node"] for edge in page["edges"]]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
    return found


async def test_issued_codes_are_printed_and_work_for_whoever_holds_them(shop: Shop) -> None:
    pool = await shop.pool(codes=5, transferable=True, codeLifetimeDays=3)

    answer = await issue(shop, pool, 3)
    printed = await texts(shop, answer["batch"])
    redeemed = await shop.do(REDEEM_CODES, codes=[printed[0]["text"]], orderId="o-1", orderAmount=usd(10_000))

    assert (answer["replayed"], answer["batch"]["size"], answer["batch"]["pool"]["id"]) == (False, 3, pool["id"])
    assert [(code["state"], code["bearer"], code["owner"]) for code in printed] == [("ALLOCATED", True, None)] * 3
    assert len({code["text"] for code in printed}) == 3
    assert redeemed["totalDiscount"]["amountMinor"] == 1_000
    # A lifetime in days is for owners.
    assert redeemed["redemptions"][0]["code"]["expiresAt"] is None
    assert await shop.stock(pool) == {
        "total": 5, "available": 2, "allocated": 2, "redeemed": 1, "expired": 0, "revoked": 0
    }  # fmt: skip
    assert (await shop.event_types()).count("codes.texts_read") == 2
    assert await shop.broken_promises() == []


async def test_issues_are_batches_beside_those_that_were_generated(shop: Shop) -> None:
    pool = await shop.pool(codes=4, transferable=True)
    issued = await issue(shop, pool, 3)

    batches = [edge["node"] for edge in (await shop.data(BATCHES, {"id": pool["id"]}))["pool"]["batches"]["edges"]]

    assert [batch["size"] for batch in batches] == [3, 4]
    assert batches[0]["id"] == issued["batch"]["id"]
    assert await texts(shop, batches[1]) == []


async def test_the_same_key_is_the_same_batch_and_for_another_one_it_is_refused(shop: Shop) -> None:
    pool = await shop.pool(codes=4, transferable=True)
    first = await issue(shop, pool, 2)

    again = await issue(shop, pool, 2)
    other = await shop.refused(ISSUE, poolId=pool["id"], count=1, reason="print", idempotencyKey="print")

    assert again == first | {"replayed": True}
    assert other["__typename"] == "IdempotencyKeyReused"
    assert (await shop.stock(pool))["allocated"] == 2


async def test_a_key_of_a_generated_batch_is_taken(shop: Shop) -> None:
    pool = await shop.pool(codes=1, active=False, transferable=True)
    document = "mutation ($input: GenerateCodesInput!) { answer: generateCodes(input: $input) { __typename } }"
    await shop.do(document, poolId=pool["id"], count=2, idempotencyKey="print")
    await shop.do(CHANGE_STATUS % "activatePool", poolId=pool["id"])

    refused = await shop.refused(ISSUE, poolId=pool["id"], count=2, reason="print", idempotencyKey="print")

    assert refused["__typename"] == "IdempotencyKeyReused"


async def test_codes_can_be_printed_before_the_pool_begins(shop: Shop) -> None:
    pool = await shop.pool(codes=1, transferable=True, startsAt="2999-01-01T00:00:00Z")
    printed = await texts(shop, (await issue(shop, pool, 1))["batch"])

    refused = await shop.do(REDEEM_CODES, codes=[printed[0]["text"]], orderId="o-1", orderAmount=usd(10_000))

    assert refused["rejections"][0]["reason"] == "POOL_NOT_ACTIVE"


@pytest.mark.parametrize("status", ["DRAFT", "PAUSED", "ARCHIVED", "ACTIVE"])
async def test_a_pool_that_issues_nothing_prints_nothing(shop: Shop, status: str) -> None:
    pool = await shop.pool(active=status != "DRAFT", transferable=True, endsAt="2999-01-01T00:00:00Z")
    if status == "ACTIVE":
        await end_pool(shop, pool)
    elif status != "DRAFT":
        await shop.do(CHANGE_STATUS % {"PAUSED": "pausePool", "ARCHIVED": "archivePool"}[status], poolId=pool["id"])

    refused = await shop.refused(ISSUE, poolId=pool["id"], count=1, reason="print", idempotencyKey="a")

    assert (refused["__typename"], refused["status"]) == ("PoolNotActive", status)


async def test_a_pool_that_is_not_transferable_prints_nothing(shop: Shop) -> None:
    pool = await shop.pool()

    refused = await shop.refused(ISSUE, poolId=pool["id"], count=1, reason="print", idempotencyKey="a")

    assert refused["__typename"] == "PoolNotTransferable"


async def test_a_pool_that_backs_a_reward_prints_nothing(shop: Shop) -> None:
    pool = await shop.pool(transferable=True)
    made = await reward(shop, cost=5, poolId=pool["id"])

    refused = await shop.refused(ISSUE, poolId=pool["id"], count=1, reason="print", idempotencyKey="a")

    assert (refused["__typename"], refused["rewardId"]) == ("PoolBacksReward", made["id"])


async def test_too_few_codes_are_none(shop: Shop) -> None:
    pool = await shop.pool(codes=2, transferable=True)

    refused = await shop.refused(ISSUE, poolId=pool["id"], count=3, reason="print", idempotencyKey="a")

    assert refused == {
        "__typename": "PoolExhausted", "message": "The pool has too few codes left.", "poolsTried": [pool["id"]]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("input", "expected"),
    [
        ({"count": 0}, {"count": "must be between 1 and 5000"}),
        ({"count": 5_001}, {"count": "must be between 1 and 5000"}),
        ({"reason": " "}, {"reason": "must not be blank"}),
        ({"idempotencyKey": "x" * 201}, {"idempotencyKey": "must be at most 200 characters"}),
    ],
)
async def test_bad_input_is_refused(shop: Shop, input: dict[str, Any], expected: dict[str, str]) -> None:
    pool = await shop.pool(transferable=True)
    good: dict[str, Any] = {"poolId": pool["id"], "count": 1, "reason": "print", "idempotencyKey": "a"}

    assert problems(await shop.refused(ISSUE, **(good | input))) == expected


async def test_another_merchants_pool_is_not_found(shop: Shop, other_shop: Shop) -> None:
    theirs = await other_shop.pool(transferable=True)

    refused = await shop.refused(ISSUE, poolId=theirs["id"], count=1, reason="print", idempotencyKey="a")

    assert (refused["__typename"], refused["id"]) == ("NotFound", theirs["id"])


@pytest.mark.parametrize("role", ["CHECKOUT", "SUPPORT", "ANALYST"])
async def test_only_an_admin_prints_and_reads_what_is_printed(shop: Shop, role: str) -> None:
    pool = await shop.pool(transferable=True)
    batch, key = (await issue(shop, pool, 1))["batch"], await shop.key(role)

    assert await shop.failed(
        ISSUE, key=key, poolId=pool["id"], count=1, reason="print", idempotencyKey="a"
    ) == "FORBIDDEN"  # fmt: skip
    assert await shop.error_code(TEXTS, {"id": batch["id"]}, key=key) == "FORBIDDEN"
    assert "codes.texts_read" not in await shop.event_types()


async def test_a_bearer_code_can_be_revoked_and_is_in_no_wallet(shop: Shop) -> None:
    pool = await shop.pool(codes=1, transferable=True)
    (code,) = await texts(shop, (await issue(shop, pool, 1))["batch"])

    revoked = await shop.do(REVOKE, codeId=code["id"], reason="lost", recycle=False)

    assert revoked["code"]["state"] == "REVOKED"
    assert await shop.broken_promises() == []


async def test_issues_claims_and_redemptions_at_once_take_each_code_once(shop: Shop, api: Api, second_api: Api) -> None:
    processes = Processes(shop, api, second_api)
    pool = await shop.pool(codes=60, transferable=True)
    owners = [await shop.member() for _ in range(30)]

    answers = await at_once(
        [
            *(
                processes.do(ISSUE, poolId=pool["id"], count=10, reason="p", idempotencyKey=f"k{n % 4}")
                for n in range(8)
            ),
            *(processes.do(CLAIM_CODE, poolId=pool["id"], memberId=owner["id"]) for owner in owners),
        ]
    )

    issued = kinds(answers[:8]).get("IssueCodesSuccess", 0)
    stock = await shop.stock(pool)
    batches = {answer["batch"]["id"] for answer in answers[:8] if answer["__typename"] == "IssueCodesSuccess"}
    claimed = kinds(answers[8:]).get("ClaimCodeSuccess", 0)
    assert issued >= 2 * len(batches) - 8
    assert (stock["allocated"], stock["available"]) == (10 * len(batches) + claimed, 60 - 10 * len(batches) - claimed)
    rows = await database().rows(
        "SELECT count(*) AS codes FROM code WHERE merchant_id = $1 AND bearer", shop.merchant_id
    )
    assert rows[0]["codes"] == 10 * len(batches)
    assert await shop.broken_promises() == []
