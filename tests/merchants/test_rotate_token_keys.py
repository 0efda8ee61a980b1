"""Token keys by version. Without these a rotation could sign what nobody can verify, or end tokens too early."""

import asyncio
import time
from typing import Any
from uuid import UUID

import pytest

from app import ids
from app.api.context import Tenant
from app.graph import signing
from app.members import tokens
from app.merchants import tenants
from app.merchants.data_keys import HONOURED_SECONDS, TOKEN_SECONDS_MAX, next_key
from app.merchants.rotate_token_keys import rotate_token_keys
from app.storage.database import database
from tests.conftest import Api
from tests.factories import Shop

ROLE = "{ viewer { role } }"
AGE = """
UPDATE data_key SET created_at = created_at - make_interval(secs => $3)
WHERE merchant_id = $1 AND purpose = 'TOKEN' AND version = $2 RETURNING version
"""
VERSIONS = "SELECT version, adopted_at FROM data_key WHERE merchant_id = $1 AND purpose = 'TOKEN' ORDER BY version"


async def _fresh(merchant_id: UUID) -> Tenant:
    """Return a tenant that was read just now, whatever is kept."""
    tenants._kept.drop(merchant_id)
    found = await tenants.tenant(merchant_id)
    assert found is not None
    return found


async def _age(shop: Shop, version: int, seconds: float) -> Tenant:
    """Make a token key older, and return the tenant as it is then."""
    assert await database().rows(AGE, shop.merchant_id, version, seconds)
    return await _fresh(shop.merchant_id)


async def _versions(shop: Shop) -> list[int]:
    """Return the versions of a shop's token keys, all of which are adopted."""
    rows = await database().rows(VERSIONS, shop.merchant_id)
    assert None not in [row["adopted_at"] for row in rows]
    return [row["version"] for row in rows]


def _signed(owner: Tenant) -> str:
    return tokens.issue(owner, ids.new(), 3600, generation=0)[0]


async def test_a_key_is_honoured_at_once_signs_once_it_has_settled_and_then_the_older_one_is_honoured_for_a_day(
    shop: Shop,
) -> None:
    first = await _fresh(shop.merchant_id)
    (old,) = first.keys.token_keys
    await rotate_token_keys([shop.merchant_id], at_once=False)
    made = await _fresh(shop.merchant_id)
    (new,) = set(made.keys.token_keys) - {old}
    settled = await _age(shop, 2, 10)
    last = await _age(shop, 2, HONOURED_SECONDS - 30)
    over = await _age(shop, 2, 30)

    assert [each.keys.token_keys for each in (made, settled, last, over)] == [
        (old, new), (new, old), (new, old), (new,)
    ]  # fmt: skip
    assert HONOURED_SECONDS > TOKEN_SECONDS_MAX
    before, after = _signed(first), _signed(settled)
    # A process that read the keys a moment ago honours what the new one signs on another.
    assert [tokens.verify(token, made) is not None for token in (before, after)] == [True, True]
    assert [tokens.verify(token, last) is not None for token in (before, after)] == [True, True]
    assert [tokens.verify(token, over) is not None for token in (before, after)] == [False, True]
    assert [tokens.verify(token, first) is not None for token in (before, after)] == [True, False]


async def test_an_address_of_a_picture_outlives_a_rotation(shop: Shop) -> None:
    first = await _fresh(shop.merchant_id)
    url = signing.signed_url(first, ids.new(), "svg")
    name, _, query = url.removeprefix("/graph/").partition("?")
    given = dict(each.split("=") for each in query.split("&"))
    await rotate_token_keys([shop.merchant_id], at_once=False)
    settled = await _age(shop, 2, 60)
    over = await _age(shop, 2, HONOURED_SECONDS)

    assert [signing.is_signed(each, name, given["expires"], given["signature"]) for each in (first, settled, over)] == [
        True,
        True,
        False,
    ]


async def test_keys_that_nothing_can_stand_under_go_with_the_next_rotation(shop: Shop) -> None:
    for _ in range(2):
        await rotate_token_keys([shop.merchant_id], at_once=False)
    at_first = await _versions(shop)
    await _age(shop, 2, HONOURED_SECONDS)
    await rotate_token_keys([shop.merchant_id], at_once=False)

    assert at_first == [1, 2, 3]
    assert await _versions(shop) == [2, 3, 4]
    assert (await shop.event_types()).count("merchant.data_key_created") == 3


async def test_a_rotation_that_was_killed_is_ended_by_the_next_one_and_rotates_nobody_twice(
    shop: Shop, other_shop: Shop
) -> None:
    await next_key(shop.merchant_id, "TOKEN")
    both = [shop.merchant_id, other_shop.merchant_id]

    await rotate_token_keys(both, at_once=False)
    ended = [await _versions(each) for each in (shop, other_shop)]
    await rotate_token_keys(both, at_once=False)

    assert ended == [[1, 2], [1, 2]]
    assert [await _versions(each) for each in (shop, other_shop)] == [[1, 2, 3], [1, 2, 3]]


async def test_rotations_at_once_leave_keys_that_are_all_adopted(shop: Shop) -> None:
    await asyncio.gather(*(rotate_token_keys([shop.merchant_id], at_once=False) for _ in range(5)))

    versions = await _versions(shop)
    assert versions == list(range(1, len(versions) + 1))
    assert 2 <= len(versions) <= 6


async def test_at_once_tokens_of_before_end_on_every_process_and_new_ones_work(
    shop: Shop, api: Api, second_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = await shop.member()
    urls = [f"{running.url}/graphql" for running in (api, second_api)]
    before = await shop.token(member["id"])
    assert [await _role(shop, before, url) for url in urls] == ["MEMBER"] * 2

    async def all_learn(seconds: float) -> None:
        """Let the time pass that the rotation waits for."""
        assert seconds == 30
        await _age(shop, 2, seconds)

    monkeypatch.setattr("app.merchants.rotate_token_keys.asyncio.sleep", all_learn)
    await rotate_token_keys([shop.merchant_id], at_once=True)
    monkeypatch.undo()

    assert await _versions(shop) == [2]
    deadline = time.monotonic() + 30
    while {await _role(shop, before, url) for url in urls} != {"UNAUTHENTICATED"}:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    after = await shop.token(member["id"])
    assert [await _role(shop, after, url) for url in urls] == ["MEMBER"] * 2


async def _role(shop: Shop, token: str, url: str) -> Any:
    answer = await shop.post(ROLE, key=token, url=url)
    if "errors" in answer:
        return answer["errors"][0]["extensions"]["code"]
    return answer["data"]["viewer"]["role"]
