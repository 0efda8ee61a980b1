"""Adopting a suggestion. Without these two pools could be made of one, or a pool of another merchant's advice."""

import asyncio
from typing import Any

import pytest

from app import ids
from tests.advisor.documents import advised
from tests.coupons.test_discard_pool import DISCARD
from tests.factories import CREATE_POOL, Shop, problems

SUGGESTIONS = "{ latestAdviceRun { suggestions { id title draft { percentOff } pool { id name percentOff } } } }"
MADE_OF = """
query ($id: ID!) {
  pools { edges { node { id suggestion { id title pool { id } } } } }
  node(id: $id) { ... on OfferSuggestion { id pool { suggestion { id } } } }
}
"""
POOL: dict[str, Any] = {"name": "Adopted", "kind": "PERCENT", "percentOff": 7.0}


async def _suggestions(shop: Shop) -> list[Any]:
    found: list[Any] = (await shop.data(SUGGESTIONS))["latestAdviceRun"]["suggestions"]
    return found


async def test_a_suggestion_and_its_pool_name_each_other_whatever_its_terms(shop: Shop) -> None:
    first = (await advised(shop))["suggestions"][0]
    other = await shop.pool(codes=0, active=False)
    before = await shop.state()

    pool = (await shop.do(CREATE_POOL, suggestionId=first["id"], **POOL))["pool"]

    assert (await shop.state()).since(before) == {"pool": 1, "pool_terms": 1, "event": 1}
    read = await shop.data(MADE_OF, {"id": first["id"]})
    made_of = {"id": first["id"], "title": first["title"], "pool": {"id": pool["id"]}}
    assert [edge["node"] for edge in read["pools"]["edges"]] == [
        {"id": pool["id"], "suggestion": made_of}, {"id": other["id"], "suggestion": None}
    ]  # fmt: skip
    assert read["node"] == {"id": first["id"], "pool": {"suggestion": {"id": first["id"]}}}
    assert [each["pool"] for each in await _suggestions(shop)] == [
        {"id": pool["id"], "name": "Adopted", "percentOff": 7.0} if each["id"] == first["id"] else None
        for each in await _suggestions(shop)
    ]


@pytest.mark.parametrize("named", ["unknown", "not an id", "another merchant's"])
async def test_what_is_no_suggestion_of_the_merchant_can_not_be_adopted(
    shop: Shop, other_shop: Shop, named: str
) -> None:
    known = {"unknown": ids.encode("suggestion", ids.new()), "not an id": "suggestion_1"}
    if named not in known:
        known[named] = (await advised(other_shop))["suggestions"][0]["id"]

    refusal = await shop.refused(CREATE_POOL, suggestionId=known[named], **POOL)

    assert problems(refusal) == {"suggestionId": "names no suggestion"}
    assert refusal["message"] == "suggestionId names no suggestion."


async def test_a_suggestion_is_adopted_once_until_its_pool_is_discarded(shop: Shop) -> None:
    suggestion_id = (await advised(shop))["suggestions"][0]["id"]
    adoptions = [shop.do(CREATE_POOL, suggestionId=suggestion_id, **POOL) for _ in range(5)]

    answers = await asyncio.gather(*adoptions)
    refusal = await shop.refused(CREATE_POOL, suggestionId=suggestion_id, **POOL)
    (adopted,) = [answer["pool"] for answer in answers if answer["__typename"] == "CreatePoolSuccess"]
    await shop.do(DISCARD, poolId=adopted["id"])
    again = await shop.do(CREATE_POOL, suggestionId=suggestion_id, **POOL)

    assert problems(refusal) == {"suggestionId": "was adopted already"}
    assert [problems(answer) for answer in answers if answer["__typename"] == "InvalidInput"] == [
        {"suggestionId": "was adopted already"}
    ] * 4
    assert again["__typename"] == "CreatePoolSuccess"
