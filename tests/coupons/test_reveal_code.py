"""revealCode. Without these somebody could read a code off the record."""

from tests.factories import REFUSALS, Shop

REVEAL = f"""
mutation ($input: RevealCodeInput!) {{
  answer: revealCode(input: $input) {{
    __typename ... on RevealCodeSuccess {{ code {{ id text masked }} }} {REFUSALS}
  }}
}}
"""
READ = "query ($id: ID!) { node(id: $id) { ... on Code { text masked } } }"
LAST_EVENT = "query { events(first: 1) { edges { node { type subjectId reason actor } } } }"


async def test_a_revealed_code_shows_its_text_once_and_the_record_says_who_and_why(shop: Shop) -> None:
    code = await shop.claim(await shop.pool(codes=1), await shop.member())

    answer = await shop.do(REVEAL, codeId=code["id"], reason="the customer's phone is broken")

    assert answer["code"] == {"id": code["id"], "text": code["text"], "masked": code["masked"]}
    assert (await shop.data(READ, {"id": code["id"]}))["node"] == {"text": None, "masked": code["masked"]}
    event = (await shop.data(LAST_EVENT))["events"]["edges"][0]["node"]
    assert event["type"] == "code.revealed"
    assert event["subjectId"] == code["id"]
    assert event["reason"] == "the customer's phone is broken"
    assert event["actor"].startswith("apikey_")


async def test_the_reason_is_for_admins_only(shop: Shop) -> None:
    code = await shop.claim(await shop.pool(codes=1), await shop.member())
    await shop.do(REVEAL, codeId=code["id"], reason="a phone call")

    seen = await shop.data(LAST_EVENT, key=await shop.key("ANALYST"))

    assert seen["events"]["edges"][0]["node"]["reason"] is None


async def test_without_a_reason_nothing_is_revealed(shop: Shop) -> None:
    code = await shop.claim(await shop.pool(codes=1), await shop.member())

    answer = await shop.refused(REVEAL, codeId=code["id"], reason="  ")

    assert answer["__typename"] == "InvalidInput"


async def test_unknown_and_foreign_codes_are_not_found(shop: Shop, other_shop: Shop) -> None:
    foreign = await other_shop.claim(await other_shop.pool(codes=1), await other_shop.member())
    before = await other_shop.state()
    for node in (foreign["id"], f"code_{'0' * 32}", ""):
        answer = await shop.refused(REVEAL, codeId=node, reason="curious")
        assert answer == {"__typename": "NotFound", "message": "There is no such code.", "id": node}
    assert await other_shop.state() == before
