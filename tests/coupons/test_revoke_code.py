"""revokeCode. Without these a leaked code could be spent after it was revoked, or its place in the stock be lost."""

from tests.factories import CHANGE_STATUS, CLAIM_CODE, CODE, REDEEM_CODES, REFUSALS, Shop, usd

REVOKE = f"""
mutation ($input: RevokeCodeInput!) {{
  answer: revokeCode(input: $input) {{
    __typename ... on RevokeCodeSuccess {{ code {{ {CODE} }} replacement {{ {CODE} }} }}
    {REFUSALS} ... on CodeNotRevocable {{ state }}
  }}
}}
"""
REVEAL = """
mutation ($input: RevealCodeInput!) {
  answer: revealCode(input: $input) { ... on RevealCodeSuccess { code { text masked } } }
}
"""
FIRST_CODE = "query ($id: ID!) { pool(id: $id) { codes(first: 1, state: AVAILABLE) { edges { node { id } } } } }"
LAST_EVENTS = "query { events(first: 2) { edges { node { type subjectId reason actor } } } }"


async def test_a_revoked_code_is_dead_and_a_fresh_one_takes_its_place(shop: Shop) -> None:
    pool = await shop.pool(codes=2)
    member = await shop.member()
    code = await shop.claim(pool, member)

    answer = await shop.do(REVOKE, codeId=code["id"], reason="leaked to a voucher site")

    assert answer["code"]["state"] == "REVOKED"
    assert answer["code"]["owner"] == {"id": member["id"], "wallet": {"version": 2}}
    assert answer["replacement"]["state"] == "AVAILABLE"
    assert answer["replacement"]["text"] is None
    assert await shop.stock(pool) == {
        "total": 3, "available": 2, "allocated": 0, "redeemed": 0, "expired": 0, "revoked": 1
    }  # fmt: skip
    events = [edge["node"] for edge in (await shop.data(LAST_EVENTS))["events"]["edges"]]
    assert {event["type"] for event in events} == {"codes.generated", "code.revoked"}
    assert {event["reason"] for event in events} == {None, "leaked to a voucher site"}
    rejected = await shop.do(
        REDEEM_CODES, codes=[code["text"]], orderId="o", orderAmount=usd(100), memberId=member["id"]
    )
    assert rejected["rejections"] == [{"masked": code["masked"], "reason": "REVOKED"}]


async def test_a_code_in_stock_can_be_revoked_without_a_replacement_and_says_so(shop: Shop) -> None:
    pool = await shop.pool(codes=1)
    code = (await shop.data(FIRST_CODE, {"id": pool["id"]}))["pool"]["codes"]["edges"][0]["node"]

    answer = await shop.do(REVOKE, codeId=code["id"], reason="misprinted", recycle=False)

    assert answer["code"]["state"] == "REVOKED"
    assert answer["replacement"] is None
    assert await shop.stock(pool) == {
        "total": 1, "available": 0, "allocated": 0, "redeemed": 0, "expired": 0, "revoked": 1
    }  # fmt: skip
    member = await shop.member()
    assert (await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"]))["__typename"] == "PoolExhausted"
    revealed = (await shop.do(REVEAL, codeId=code["id"], reason="a customer asks"))["code"]
    rejected = await shop.do(
        REDEEM_CODES, codes=[revealed["text"]], orderId="o", orderAmount=usd(100), memberId=member["id"]
    )
    assert rejected["rejections"] == [{"masked": revealed["masked"], "reason": "REVOKED"}]


async def test_the_replacement_of_an_exhausted_pool_can_be_claimed(shop: Shop) -> None:
    pool = await shop.pool(codes=1)
    first, second = await shop.member(), await shop.member()
    code = await shop.claim(pool, first)
    assert (await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=second["id"]))["__typename"] == "PoolExhausted"

    answer = await shop.do(REVOKE, codeId=code["id"], reason="leaked")

    assert (await shop.claim(pool, second))["id"] == answer["replacement"]["id"]


async def test_an_archived_pool_gets_no_replacement(shop: Shop) -> None:
    pool = await shop.pool(codes=2)
    claimed = await shop.claim(pool, await shop.member())
    await shop.do(CHANGE_STATUS % "archivePool", poolId=pool["id"])
    (code,) = [
        edge["node"]
        for edge in (await shop.data("{ codes(state: AVAILABLE) { edges { node { id } } } }"))["codes"]["edges"]
    ]

    refusal = await shop.refused(REVOKE, codeId=claimed["id"], reason="leaked")
    answer = await shop.do(REVOKE, codeId=code["id"], reason="leaked")

    assert (refusal["__typename"], refusal["state"]) == ("CodeNotRevocable", "EXPIRED")

    assert answer["code"]["state"] == "REVOKED"
    assert answer["replacement"] is None


async def test_blank_and_overlong_reasons_are_refused(shop: Shop) -> None:
    code = await shop.claim(await shop.pool(codes=1), await shop.member())
    for reason in ("", "x" * 501, "a\x00b"):
        answer = await shop.refused(REVOKE, codeId=code["id"], reason=reason)
        assert answer["__typename"] == "InvalidInput"
        assert [problem["path"] for problem in answer["problems"]] == [["reason"]]


async def test_unknown_and_foreign_codes_are_not_found(shop: Shop, other_shop: Shop) -> None:
    foreign = await other_shop.claim(await other_shop.pool(codes=1), await other_shop.member())
    before = await other_shop.state()
    for node in (foreign["id"], f"code_{'0' * 32}", "code_1"):
        answer = await shop.refused(REVOKE, codeId=node, reason="leaked")
        assert answer == {"__typename": "NotFound", "message": "There is no such code.", "id": node}
    assert await other_shop.state() == before


async def test_a_spent_or_dead_code_cannot_be_revoked(shop: Shop) -> None:
    pool = await shop.pool(codes=2)
    spender, loser = await shop.member(), await shop.member()
    spent, lost = await shop.claim(pool, spender), await shop.claim(pool, loser)
    await shop.do(REDEEM_CODES, codes=[spent["text"]], orderId="o", orderAmount=usd(100), memberId=spender["id"])
    await shop.do(REVOKE, codeId=lost["id"], reason="lost", recycle=False)

    answers = [await shop.refused(REVOKE, codeId=code["id"], reason="again") for code in (spent, lost)]

    assert [answer["__typename"] for answer in answers] == ["CodeNotRevocable", "CodeNotRevocable"]
    assert [answer["state"] for answer in answers] == ["REDEEMED", "REVOKED"]
