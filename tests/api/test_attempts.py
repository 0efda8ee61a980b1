"""Guessing codes. Without these a program could try codes until one fits, or anybody could turn the limit on a shop."""

from collections.abc import Iterator
from typing import Any

import pytest

from app.coupons import code_text
from tests.conftest import Api, run_api
from tests.factories import CHANGE_STATUS, CHECK_CODES, CLAIM_CODE, REDEEM_CODES, Shop, usd
from tests.orders.documents import AMEND, amendment, stacked

PER_KEY = 12
PER_MEMBER = 5


@pytest.fixture(scope="module")
def limited(worker_database: str) -> Iterator[Api]:
    """An API with small limits."""
    limits = {"FLASH_ATTEMPTS_PER_KEY_MAX": str(PER_KEY), "FLASH_ATTEMPTS_PER_MEMBER_MAX": str(PER_MEMBER)}
    with run_api(worker_database, **limits) as running:
        yield running


@pytest.fixture(scope="module")
def without_valkey(worker_database: str) -> Iterator[Api]:
    """An API with small limits whose Valkey doesn't answer."""
    limits = {"FLASH_ATTEMPTS_PER_KEY_MAX": str(PER_KEY), "REDIS_URL": "redis://127.0.0.1:9"}
    with run_api(worker_database, **limits) as running:
        yield running


async def rejections(shop: Shop, url: str, codes: list[str], document: str = REDEEM_CODES, **input: Any) -> list[str]:
    """Try codes and return the reasons against them, in order; none for a success."""
    presented = {"codes": codes, "orderId": "order", "orderAmount": usd(100)} | input
    answer = await shop.do(document, url=f"{url}/graphql", **presented)
    return [rejection["reason"] for rejection in answer.get("rejections", [])]


async def reasons(shop: Shop, url: str, codes: list[str], document: str = REDEEM_CODES, **input: Any) -> set[str]:
    """Try codes and return the reasons against them, or the success."""
    return set(await rejections(shop, url, codes, document, **input)) or {"success"}


def guesses(count: int) -> list[str]:
    """Return texts that could be codes: whoever knows how codes are made makes as many as he likes."""
    return code_text.new_codes("PERCENT", count)


@pytest.mark.parametrize("document", [REDEEM_CODES, CHECK_CODES], ids=["redeem", "check"])
async def test_unknown_codes_are_counted_one_by_one(shop: Shop, limited: Api, document: str) -> None:
    assert await reasons(shop, limited.url, guesses(PER_KEY), document) == {"UNKNOWN"}

    assert await reasons(shop, limited.url, guesses(1), document) == {"TOO_MANY_ATTEMPTS"}


async def test_an_amendment_is_no_way_around_the_limit(shop: Shop, limited: Api) -> None:
    member = await shop.member()
    codes, _ = await stacked(shop, member, 20.0)
    own = await shop.claim(await shop.pool(stacking="STACKABLE"), member)
    key = await shop.key("CHECKOUT")

    async def amend(*more: str) -> list[str]:
        texts = [codes[0]["text"], *more]
        presented = amendment(codes, member) | {"codes": texts}
        answer = await shop.do(AMEND, url=f"{limited.url}/graphql", key=key, **presented)
        return [each["reason"] for each in answer.get("rejections", [])]

    assert await amend(*guesses(PER_MEMBER)) == ["UNKNOWN"] * PER_MEMBER
    assert await amend(*guesses(1)) == ["TOO_MANY_ATTEMPTS"]
    # What stays is no guess, and neither is what the presenter owns.
    assert await amend() == []
    assert await amend(own["text"]) == []


async def test_a_list_that_passes_the_limit_is_refused_whole(shop: Shop, limited: Api) -> None:
    assert await reasons(shop, limited.url, guesses(PER_KEY + 1)) == {"TOO_MANY_ATTEMPTS"}


async def test_aliases_in_one_document_are_counted_each(shop: Shop, limited: Api) -> None:
    calls = " ".join(
        f'a{number}: checkCodes(input: {{codes: ["{code}"], orderId: "o", '
        'orderAmount: {amountMinor: 1, currency: "USD"}}) { ... on CodesRejected { rejections { reason } } }'
        for number, code in enumerate(guesses(PER_KEY + 4))
    )

    answers = (await shop.data(f"query {{ {calls} }}", url=f"{limited.url}/graphql")).values()

    told = [answer["rejections"][0]["reason"] for answer in answers]
    assert told.count("UNKNOWN") == PER_KEY
    assert told.count("TOO_MANY_ATTEMPTS") == 4


async def test_a_presenting_member_has_a_limit_of_its_own(shop: Shop, limited: Api) -> None:
    member = await shop.member()
    key = await shop.key("CHECKOUT")

    assert await reasons(shop, limited.url, guesses(PER_MEMBER), memberId=member["id"]) == {"UNKNOWN"}

    assert await reasons(shop, limited.url, guesses(1), memberId=member["id"], key=key) == {"TOO_MANY_ATTEMPTS"}
    assert await reasons(shop, limited.url, guesses(1), memberId=(await shop.member())["id"], key=key) == {"UNKNOWN"}


async def test_a_presenter_is_the_member_where_one_is_named_and_else_the_address(shop: Shop, limited: Api) -> None:
    member, other = await shop.member(), await shop.member()
    named = {"memberId": member["id"], "email": "ada@example.com"}

    assert await reasons(shop, limited.url, guesses(PER_MEMBER), email="ada@example.com") == {"UNKNOWN"}

    assert await reasons(shop, limited.url, guesses(1), email="ADA@example.com") == {"TOO_MANY_ATTEMPTS"}
    assert await reasons(shop, limited.url, guesses(PER_MEMBER), **named) == {"UNKNOWN"}
    assert await reasons(shop, limited.url, guesses(1), **named) == {"TOO_MANY_ATTEMPTS"}
    assert await reasons(shop, limited.url, guesses(1), **(named | {"memberId": other["id"]})) == {"UNKNOWN"}


async def test_known_codes_are_not_counted(shop: Shop, limited: Api) -> None:
    member, other = await shop.member(), await shop.member()
    code = await shop.claim(await shop.pool(codes=1), member)
    gift = await shop.claim(await shop.pool(codes=1, transferable=True), member)

    for _ in range(PER_KEY + 1):
        assert await reasons(shop, limited.url, [code["text"]], CHECK_CODES, memberId=member["id"]) == {"success"}
        assert await reasons(shop, limited.url, [code["text"]], CHECK_CODES, memberId=other["id"]) == {"NOT_OWNER"}
        assert await reasons(shop, limited.url, [gift["text"]], CHECK_CODES) == {"success"}


async def test_a_short_text_counts_once_a_minute_for_whoever_is_named_whether_it_is_a_code_or_not(
    shop: Shop, limited: Api
) -> None:
    pool = await shop.pool(codes=1, active=False, transferable=True)
    document = "mutation ($input: ImportCodesInput!) { answer: importCodes(input: $input) { __typename } }"
    await shop.do(document, poolId=pool["id"], codes=[{"text": "XMAS19"}], inCirculation=True)
    await shop.do(CHANGE_STATUS % "activatePool", poolId=pool["id"])
    known, unknown = {"memberId": (await shop.member())["id"]}, {"memberId": (await shop.member())["id"]}

    for _ in range(PER_MEMBER + 2):
        assert await reasons(shop, limited.url, ["xmas-19"], CHECK_CODES, **known) == {"success"}
        assert await reasons(shop, limited.url, ["XMAS18"], CHECK_CODES, **unknown) == {"UNKNOWN"}
    for presenter, text in ((known, "XMAS19"), (unknown, "XMAS18")):
        others = [f"XMAS2{number}" for number in range(PER_MEMBER)]
        assert await reasons(shop, limited.url, others[1:], CHECK_CODES, **presenter) == {"UNKNOWN"}
        # A repeat isn't counted, but over the limit nobody is told.
        assert await reasons(shop, limited.url, others[:1], CHECK_CODES, **presenter) == {"TOO_MANY_ATTEMPTS"}
        assert await reasons(shop, limited.url, [text], CHECK_CODES, **presenter) == {"TOO_MANY_ATTEMPTS"}


async def test_without_a_name_a_short_text_counts_each_time(shop: Shop, limited: Api) -> None:
    pool = await shop.pool(codes=1, active=False)
    document = "mutation ($input: ImportCodesInput!) { answer: importCodes(input: $input) { __typename } }"
    await shop.do(document, poolId=pool["id"], codes=[{"text": "XMAS19"}])

    for text in ["XMAS19", "XMAS18"] * (PER_KEY // 2):
        assert await reasons(shop, limited.url, [text]) == {"UNKNOWN"}

    assert await reasons(shop, limited.url, ["XMAS19"]) == {"TOO_MANY_ATTEMPTS"}


async def test_without_valkey_the_process_counts_by_itself(shop: Shop, without_valkey: Api) -> None:
    for guess in guesses(PER_KEY):
        assert await reasons(shop, without_valkey.url, [guess]) == {"UNKNOWN"}

    assert await reasons(shop, without_valkey.url, guesses(1)) == {"TOO_MANY_ATTEMPTS"}


# ----------------------------------------------------------------------------------------- the limit is no weapon


async def test_a_bored_visitor_who_types_rubbish_at_the_guest_checkout_stops_nobody(shop: Shop, limited: Api) -> None:
    gift = await shop.claim(await shop.pool(codes=1, transferable=True), await shop.member())
    (real,) = guesses(1)
    mistyped = real[:-1] + ("0" if real[-1] != "0" else "1")
    rubbish = ["x", "", "PCT-0", "🎁", mistyped, *(f"rubbish {number}" for number in range(15))]

    for _ in range(5):
        assert await reasons(shop, limited.url, rubbish, email="bored@example.com") == {"UNKNOWN"}

    # Neither the shop's key nor the address is a step nearer to its limit.
    assert await reasons(shop, limited.url, guesses(PER_MEMBER), email="bored@example.com") == {"UNKNOWN"}
    assert await reasons(shop, limited.url, guesses(PER_KEY - PER_MEMBER)) == {"UNKNOWN"}
    assert await reasons(shop, limited.url, rubbish, email="bored@example.com") == {"UNKNOWN"}
    assert await reasons(shop, limited.url, [gift["text"]]) == {"TOO_MANY_ATTEMPTS"}
    assert await reasons(shop, limited.url, [gift["text"]], key=await shop.key("CHECKOUT")) == {"success"}


async def test_a_stranger_who_guesses_with_adas_address_does_not_lock_ada_out(shop: Shop, limited: Api) -> None:
    pool, unproven = await shop.pool(codes=2), await shop.pool(codes=1)
    ada = await shop.member(email="ada@example.com", emailVerified=True)
    own = [(await shop.claim(each, ada))["text"] for each in (pool, unproven)]
    bob = (await shop.do(CLAIM_CODE, poolId=pool["id"], email="bob@example.com"))["code"]["text"]
    for address in ("ada@example.com", "bob@example.com"):
        assert await reasons(shop, limited.url, guesses(PER_MEMBER + 1), email=address) == {"TOO_MANY_ATTEMPTS"}

    # By her address, which she has proved; by the address that the code was claimed with; and by her id.
    assert await reasons(shop, limited.url, [own[0]], email=" Ada@Example.com ", orderId="1") == {"success"}
    assert await reasons(shop, limited.url, [bob], email="bob@example.com", orderId="2") == {"success"}
    assert await reasons(shop, limited.url, [own[1]], memberId=ada["id"], orderId="3") == {"success"}


async def test_a_till_that_lost_an_answer_asks_again_under_attack_and_hears_what_it_did(
    shop: Shop, limited: Api
) -> None:
    member = await shop.member()
    gift = await shop.claim(await shop.pool(codes=1, transferable=True), member)
    url = f"{limited.url}/graphql"
    order: dict[str, Any] = {"codes": [gift["text"]], "orderId": "lost", "orderAmount": usd(1000)}
    redeemed = await shop.do(REDEEM_CODES, url=url, **order)
    assert await reasons(shop, limited.url, guesses(PER_KEY)) == {"UNKNOWN"}

    again = await shop.do(REDEEM_CODES, url=url, **order)

    assert again == redeemed | {"replayed": True}
    # A question about the same code that is no repeat isn't answered.
    assert await reasons(shop, limited.url, [gift["text"]], CHECK_CODES, orderId="other") == {"TOO_MANY_ATTEMPTS"}


async def test_a_bot_that_guesses_as_one_customer_is_stopped_long_before_the_shop_is(shop: Shop, limited: Api) -> None:
    bot = await shop.member()
    gift = await shop.claim(await shop.pool(codes=1, transferable=True), await shop.member())
    for _ in range(3 * PER_KEY):
        await reasons(shop, limited.url, guesses(1), CHECK_CODES, memberId=bot["id"])
    assert await reasons(shop, limited.url, guesses(1), memberId=bot["id"]) == {"TOO_MANY_ATTEMPTS"}

    # Of its guesses the key counts those that were answered.
    assert await reasons(shop, limited.url, guesses(PER_KEY - PER_MEMBER - 1)) == {"UNKNOWN"}
    assert await reasons(shop, limited.url, [gift["text"]]) == {"success"}


async def test_a_thief_over_the_limit_cannot_tell_adas_code_from_a_guess(shop: Shop, limited: Api) -> None:
    ada, thief = await shop.member(), await shop.member()
    live = await shop.claim(await shop.pool(codes=1, stacking="STACKABLE"), ada)
    gift = await shop.claim(await shop.pool(codes=1, transferable=True), ada)
    spent = await shop.claim(await shop.pool(codes=1), ada)
    assert (await shop.redeem([spent["text"]], ada))["__typename"] == "RedeemCodesSuccess"
    hits = [live["text"], gift["text"], spent["text"]]
    key = await shop.key("CHECKOUT")
    assert await reasons(shop, limited.url, guesses(PER_MEMBER), CHECK_CODES, memberId=thief["id"]) == {"UNKNOWN"}

    for document in (CHECK_CODES, REDEEM_CODES):
        for code in [*hits, *guesses(1)]:
            told = await rejections(shop, limited.url, [code], document, memberId=thief["id"], key=key)
            assert told == ["TOO_MANY_ATTEMPTS"]
    # Ada herself, beside a guess that her own limit doesn't cover any more, hears of her own codes alone.
    await reasons(shop, limited.url, guesses(PER_MEMBER), CHECK_CODES, memberId=ada["id"])
    mixed = [spent["text"], *guesses(1), live["text"], "x"]
    told = await rejections(shop, limited.url, mixed, memberId=ada["id"])
    assert told == ["ALREADY_REDEEMED", "TOO_MANY_ATTEMPTS", "UNKNOWN"]


@pytest.mark.parametrize("is_hit", [True, False], ids=["with a hit", "without one"])
async def test_what_a_list_at_the_limit_hears_and_costs_does_not_depend_on_what_exists(
    shop: Shop, limited: Api, is_hit: bool
) -> None:
    gift = await shop.claim(await shop.pool(codes=1, transferable=True), await shop.member())
    thief = {"memberId": (await shop.member())["id"]}
    hits = [gift["text"]] if is_hit else []
    assert await reasons(shop, limited.url, guesses(PER_MEMBER - 1), CHECK_CODES, **thief) == {"UNKNOWN"}

    # One guess is left: two are refused, whether one of them exists or not, and then none is left.
    two = [*hits, *guesses(2 - len(hits))]
    assert await rejections(shop, limited.url, two, CHECK_CODES, **thief) == ["TOO_MANY_ATTEMPTS"] * 2
    assert await rejections(shop, limited.url, hits or guesses(1), CHECK_CODES, **thief) == ["TOO_MANY_ATTEMPTS"]


async def test_what_the_key_refuses_costs_a_presenter_the_same_whether_it_exists_or_not(
    shop: Shop, limited: Api
) -> None:
    gift = await shop.claim(await shop.pool(codes=1, transferable=True), await shop.member())
    thief, key = {"memberId": (await shop.member())["id"]}, await shop.key("CHECKOUT")
    assert await reasons(shop, limited.url, guesses(PER_KEY)) == {"UNKNOWN"}
    for _ in range(PER_MEMBER):
        assert await reasons(shop, limited.url, [gift["text"]], CHECK_CODES, **thief) == {"TOO_MANY_ATTEMPTS"}

    # With a key that has guesses left the presenter has none, as it wouldn't have after so many that don't exist.
    assert await reasons(shop, limited.url, [gift["text"]], CHECK_CODES, **thief, key=key) == {"TOO_MANY_ATTEMPTS"}
