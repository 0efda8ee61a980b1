"""claimCode. Without these a member could get two codes, another's code, or one from a pool that is on hold."""

from tests.factories import CHANGE_STATUS, CLAIM_CODE, Shop


async def test_a_claim_allocates_one_code_and_shows_its_text(shop: Shop) -> None:
    pool = await shop.pool(codes=3)
    member = await shop.member()

    answer = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"])

    code = answer["code"]
    assert answer["__typename"] == "ClaimCodeSuccess"
    assert answer["replayed"] is False
    assert answer["servedBy"] == {"id": pool["id"]}
    assert code["text"].startswith("PCT-")
    assert code["masked"] == f"PCT-••••{code['text'][-2:]}"
    assert code["state"] == "ALLOCATED"
    assert code["matchedBy"] == "MEMBER_ID"
    assert code["owner"] == {"id": member["id"], "wallet": {"version": 1}}
    assert await shop.stock(pool) == {
        "total": 3, "available": 2, "allocated": 1, "redeemed": 0, "expired": 0, "revoked": 0
    }  # fmt: skip
    assert (await shop.event_types())[-1] == "code.claimed"


async def test_a_second_claim_returns_the_first_code(shop: Shop) -> None:
    pool = await shop.pool(codes=3)
    member = await shop.member()
    first = await shop.claim(pool, member)
    before = await shop.counts()

    again = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"])

    assert again["replayed"] is True
    assert again["code"] == first
    assert await shop.counts() == before


async def test_a_paused_pool_issues_nothing(shop: Shop) -> None:
    pool = await shop.pool(codes=3)
    member = await shop.member()
    await shop.do(CHANGE_STATUS % "pausePool", poolId=pool["id"])
    before = await shop.counts()

    answer = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"])

    assert answer == {
        "__typename": "PoolNotActive", "message": "The pool issues no codes: it is PAUSED.", "status": "PAUSED"
    }  # fmt: skip
    assert await shop.counts() == before
