"""Guessing codes. Without these a program could try codes until one fits, by lists, aliases, members or processes."""

from collections.abc import Iterator
from typing import Any

import pytest

from app.coupons import code_text
from tests.conftest import Api, run_api
from tests.factories import CHECK_CODES, REDEEM_CODES, Shop, usd

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


async def reasons(shop: Shop, url: str, codes: list[str], document: str = REDEEM_CODES, **input: Any) -> set[str]:
    """Try codes and return the reasons against them, or the success."""
    answer = await shop.do(document, url=f"{url}/graphql", codes=codes, orderId="order", orderAmount=usd(100), **input)
    if answer["__typename"] == "RedeemCodesSuccess":
        return {"success"}
    return {rejection["reason"] for rejection in answer["rejections"]}


@pytest.mark.parametrize("document", [REDEEM_CODES, CHECK_CODES], ids=["redeem", "check"])
async def test_unknown_codes_are_counted_one_by_one(shop: Shop, limited: Api, document: str) -> None:
    guesses = code_text.new_codes("PERCENT", PER_KEY)

    assert await reasons(shop, limited.url, guesses, document) == {"UNKNOWN"}

    assert await reasons(shop, limited.url, ["PCT-0"], document) == {"TOO_MANY_ATTEMPTS"}


async def test_a_list_that_passes_the_limit_is_refused_whole(shop: Shop, limited: Api) -> None:
    guesses = code_text.new_codes("PERCENT", PER_KEY + 1)

    assert await reasons(shop, limited.url, guesses) == {"TOO_MANY_ATTEMPTS"}


async def test_aliases_in_one_document_are_counted_each(shop: Shop, limited: Api) -> None:
    calls = " ".join(
        f'a{number}: checkCodes(input: {{codes: ["{code}"], orderId: "o", '
        'orderAmount: {amountMinor: 1, currency: "USD"}}) { ... on CodesRejected { rejections { reason } } }'
        for number, code in enumerate(code_text.new_codes("PERCENT", PER_KEY + 4))
    )

    answers = (await shop.data(f"query {{ {calls} }}", url=f"{limited.url}/graphql")).values()

    told = [answer["rejections"][0]["reason"] for answer in answers]
    assert told.count("UNKNOWN") == PER_KEY
    assert told.count("TOO_MANY_ATTEMPTS") == 4


async def test_over_the_limit_a_real_code_is_not_told_from_a_guess(shop: Shop, limited: Api) -> None:
    member = await shop.member()
    code = await shop.claim(await shop.pool(codes=1), member)
    await reasons(shop, limited.url, code_text.new_codes("PERCENT", PER_KEY))

    assert await reasons(shop, limited.url, [code["text"]], memberId=member["id"]) == {"TOO_MANY_ATTEMPTS"}

    # Another key of the merchant goes on.
    assert await reasons(shop, limited.url, [code["text"]], memberId=member["id"], key=await shop.key("CHECKOUT")) == {
        "success"
    }


async def test_a_presenting_member_has_a_limit_of_its_own(shop: Shop, limited: Api) -> None:
    member = await shop.member()
    key = await shop.key("CHECKOUT")

    assert await reasons(shop, limited.url, code_text.new_codes("PERCENT", PER_MEMBER), memberId=member["id"]) == {
        "UNKNOWN"
    }

    assert await reasons(shop, limited.url, ["x"], memberId=member["id"], key=key) == {"TOO_MANY_ATTEMPTS"}
    assert await reasons(shop, limited.url, ["x"], memberId=(await shop.member())["id"], key=key) == {"UNKNOWN"}


async def test_known_codes_are_not_counted(shop: Shop, limited: Api) -> None:
    member = await shop.member()
    code = await shop.claim(await shop.pool(codes=1), member)
    for _ in range(PER_KEY + 1):
        assert await reasons(shop, limited.url, [code["text"]], CHECK_CODES, memberId=member["id"]) == {"success"}


async def test_without_valkey_the_process_counts_by_itself(shop: Shop, without_valkey: Api) -> None:
    for guess in code_text.new_codes("PERCENT", PER_KEY):
        assert await reasons(shop, without_valkey.url, [guess]) == {"UNKNOWN"}

    assert await reasons(shop, without_valkey.url, ["PCT-0"]) == {"TOO_MANY_ATTEMPTS"}
