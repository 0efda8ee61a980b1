"""revokeMemberTokens. Without these a stolen phone could go on reading a wallet, or a check cost a read per request."""

import asyncio
import time
from collections import Counter
from typing import Any

import pytest

from app import ids
from app.config import Settings
from app.members import token_feed
from app.members.token_feed import TokenFeed, has_ended, stands_until
from app.storage.database import database
from app.storage.feed import Watched
from app.storage.statements import Statement
from tests.conftest import Api
from tests.factories import REFUSALS, Shop
from tests.wallets.sockets import CHANGED, address, joined
from tests.web.test_event_streams import streaming

REVOKE = f"""
mutation ($input: RevokeMemberTokensInput!) {{
  answer: revokeMemberTokens(input: $input) {{
    __typename ... on RevokeMemberTokensSuccess {{ member {{ id wallet {{ version }} }} }} {REFUSALS}
  }}
}}
"""
ROLE = "{ viewer { role } }"
STOPS_SECONDS_MAX = 5.0
EVENTS = "SELECT subject_id, actor FROM event WHERE merchant_id = $1 AND type = 'member.tokens_revoked' ORDER BY id"


async def _works(shop: Shop, token: str, url: str) -> bool:
    answer = await shop.post(ROLE, key=token, url=url)
    if "errors" in answer:
        assert [error["extensions"]["code"] for error in answer["errors"]] == ["UNAUTHENTICATED"]
        return False
    assert answer == {"data": {"viewer": {"role": "MEMBER"}}}
    return True


async def _stops(shop: Shop, token: str, *, url: str, since: float) -> bool:
    """Ask until the token is refused, or until it should have been."""
    while time.monotonic() < since + STOPS_SECONDS_MAX:
        if not await _works(shop, token, url):
            return True
        await asyncio.sleep(0.05)
    return False


async def test_revoked_tokens_stop_here_at_once_and_soon_everywhere_and_new_ones_work(
    shop: Shop, api: Api, second_api: Api
) -> None:
    member, other = await shop.member(), await shop.member()
    urls = [f"{running.url}/graphql" for running in (api, second_api)]
    before = [await shop.token(member["id"]) for _ in range(2)]
    others = await shop.token(other["id"])
    assert all([await _works(shop, token, url) for token in (*before, others) for url in urls])

    answer = await shop.do(REVOKE, memberId=member["id"])

    revoked_at = time.monotonic()
    after = await shop.token(member["id"])
    assert answer == {
        "__typename": "RevokeMemberTokensSuccess",
        "member": {"id": member["id"], "wallet": {"version": member["wallet"]["version"]}},
    }
    assert [await _works(shop, token, urls[0]) for token in before] == [False, False]
    # Also where the generation of before is still kept.
    assert [await _works(shop, token, url) for token in (after, others) for url in urls] == [True] * 4
    assert await asyncio.gather(*(_stops(shop, token, url=urls[1], since=revoked_at) for token in before)) == [True] * 2


async def test_what_is_open_with_revoked_tokens_ends_and_the_rest_goes_on(
    shop: Shop, api: Api, second_api: Api
) -> None:
    member, other = await shop.member(), await shop.member()
    pool = await shop.pool(claimsPerMember=2)
    token, others = await shop.token(member["id"]), await shop.token(other["id"])
    far = f"{second_api.url.replace('http', 'ws')}/graphql"
    async with (
        joined(address(shop), token) as here,
        joined(far, token) as there,
        joined(address(shop), others) as going_on,
        streaming(shop, token, CHANGED, after=0) as stream,
    ):
        for socket in (here, there, going_on):
            await socket.follow(0)
        await shop.claim(pool, member)
        await shop.claim(pool, other)
        changes = [await each.change() for each in (here, there, stream, going_on)]

        await shop.do(REVOKE, memberId=member["id"])
        async with joined(address(shop), await shop.token(member["id"])) as fresh:
            await fresh.follow(1)
            ended = [await socket.closed() for socket in (here, there)]
            kind, data = await stream.next()
            for each in (member, other):
                await shop.claim(pool, each, idempotencyKey=each["id"])
            changes += [await socket.change() for socket in (fresh, going_on)]

    assert [change["version"] for change in changes] == [1, 1, 1, 1, 2, 2]
    assert [code for code, _ in ended] == [4403, 4403]
    assert (kind, data["errors"][0]["extensions"]["code"]) == ("next", "UNAUTHENTICATED")


async def test_each_revocation_is_on_record_and_ends_what_was_issued_until_then(shop: Shop) -> None:
    member = await shop.member()
    before = await shop.state()
    tokens = []
    for _ in range(2):
        tokens.append(await shop.token(member["id"]))
        assert await _works(shop, tokens[-1], shop.url)
        await shop.do(REVOKE, memberId=member["id"])

    assert [await _works(shop, token, shop.url) for token in tokens] == [False, False]
    row = await database().row("SELECT id FROM api_key WHERE merchant_id = $1", shop.merchant_id)
    assert row is not None
    events = await database().rows(EVENTS, shop.merchant_id)
    assert [(event["subject_id"], event["actor"]) for event in events] == [
        (ids.decode("member", member["id"]), ids.encode("apikey", row["id"]))
    ] * 2
    assert (await shop.state()).since(before) == {"event": 4, "member": 0}


async def test_twenty_revocations_at_once_are_twenty_generations(shop: Shop, api: Api, second_api: Api) -> None:
    member = await shop.member()
    urls = [f"{running.url}/graphql" for running in (api, second_api)]

    await asyncio.gather(*(shop.do(REVOKE, url=urls[turn % 2], memberId=member["id"]) for turn in range(20)))

    token = await shop.token(member["id"])
    assert [await _works(shop, token, url) for url in urls] == [True, True]
    row = await database().row("SELECT token_generation FROM member WHERE merchant_id = $1", shop.merchant_id)
    assert row is not None
    assert row["token_generation"] == 20


@pytest.mark.parametrize(
    "member_id",
    [ids.encode("member", ids.new()), ids.encode("wallet", ids.new()), "member_", "", "\x00", "7"],
    ids=["unknown", "wallet", "empty", "nothing", "NUL", "number"],
)
async def test_an_id_that_names_no_member_is_not_found(shop: Shop, member_id: str) -> None:
    answer = await shop.refused(REVOKE, memberId=member_id)

    assert answer == {"__typename": "NotFound", "message": "There is no such member.", "id": member_id}


async def test_another_merchants_member_is_not_found_and_its_tokens_work(shop: Shop, other_shop: Shop) -> None:
    member = await other_shop.member()
    token = await other_shop.token(member["id"])
    before = await other_shop.state()

    answer = await shop.refused(REVOKE, memberId=member["id"])

    assert answer == {"__typename": "NotFound", "message": "There is no such member.", "id": member["id"]}
    assert (await other_shop.state()).since(before) == {}
    assert await _works(other_shop, token, other_shop.url)


@pytest.mark.parametrize("role", ["CHECKOUT", "ANALYST", "MEMBER"])
async def test_only_admins_revoke(shop: Shop, role: str) -> None:
    member = await shop.member()
    key = await shop.token(member["id"]) if role == "MEMBER" else await shop.key(role)

    assert await shop.failed(REVOKE, key=key, memberId=member["id"]) == "FORBIDDEN"


# ------------------------------------------------------------------------------------------------ what checking costs


class Reads:
    """Counts the statements of the feed that it passes to this process's database."""

    def __init__(self) -> None:
        """Begin at none."""
        self.made: Counter[str] = Counter()

    async def row(self, statement: Statement[Any], **values: object) -> Any:
        """Pass one that returns a row."""
        self.made[statement.text] += 1
        return await database().row(statement, **values)

    async def rows(self, statement: Statement[Any], **values: object) -> Any:
        """Pass one that returns rows."""
        self.made[statement.text] += 1
        return await database().rows(statement, **values)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch, database_pool: Settings) -> Reads:
    """What the feed reads in this process, which knows nobody yet and forgets nobody."""
    counted = Reads()
    patient = database_pool.model_copy(update={"api_key_cache_seconds": 3600.0})
    monkeypatch.setattr(token_feed, "database", lambda: counted)
    monkeypatch.setattr(token_feed, "settings", lambda: patient)
    token_feed._known.clear()
    return counted


async def _watched(shop: Shop, member: Any) -> Watched:
    member_id = ids.decode("member", member["id"])
    assert member_id is not None
    return shop.merchant_id, member_id


async def test_tokens_of_a_member_are_looked_up_once_in_a_while_whether_they_stand_or_not(
    shop: Shop, reads: Reads
) -> None:
    member, nobody = await _watched(shop, await shop.member()), (shop.merchant_id, ids.new())
    stand = [await stands_until(member, 0) for _ in range(50)]
    unknown = [await stands_until(nobody, 0) for _ in range(50)]
    first = dict(reads.made)
    await shop.do(REVOKE, memberId=ids.encode("member", member[1]))
    # What is issued since is looked up at once, and from then on the older ones are refused without a look.
    newer = [await stands_until(member, 1) for _ in range(50)]
    older = [await stands_until(member, 0) for _ in range(50)]

    assert None not in {*stand, *newer}
    assert {*unknown, *older} == {None}
    assert first == {token_feed.FIND.text: 2}
    assert reads.made == {token_feed.FIND.text: 3}


async def test_an_answer_from_before_a_revocation_does_not_undo_it(
    shop: Shop, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    member, feed = await _watched(shop, await shop.member()), TokenFeed(Settings())
    read = reads.row

    async def read_and_revoke(statement: Statement[Any], **values: object) -> Any:
        row = await read(statement, **values)
        feed.end(member, 1)
        return row

    monkeypatch.setattr(reads, "row", read_and_revoke)

    assert await stands_until(member, 0) is None
    assert (has_ended(member, 0), has_ended(member, 1)) == (True, False)


async def test_where_tokens_are_revoked_what_is_open_ends_without_a_look(shop: Shop, reads: Reads) -> None:
    member, other = await _watched(shop, await shop.member()), await _watched(shop, await shop.member())
    feed = TokenFeed(Settings())
    ended, newer, others = (asyncio.create_task(feed.ended(*each)) for each in ((member, 0), (member, 1), (other, 0)))
    await asyncio.sleep(0)

    feed.end(member, 1)
    await ended
    # Whoever comes with an old token while it is revoked is told, too.
    await feed.ended(member, 0)

    assert not newer.done()
    assert not others.done()
    assert reads.made == {}
    for task in (newer, others):
        task.cancel()


async def test_everything_that_is_open_is_compared_by_one_statement_a_merchant(
    shop: Shop, other_shop: Shop, reads: Reads
) -> None:
    members = [await _watched(each, await each.member()) for each in (*[shop] * 30, other_shop)]
    revoked, missing = members[7], (shop.merchant_id, ids.new())
    await shop.do(REVOKE, memberId=ids.encode("member", revoked[1]))
    feed = TokenFeed(Settings())
    followed = [(member, 0) for member in (*members, missing)] + [(revoked, 1)]
    tasks = {each: asyncio.create_task(feed.ended(*each)) for each in followed}
    await asyncio.sleep(0)

    await feed.sweep(dict(feed._watchers.values()))

    await asyncio.wait([tasks[revoked, 0], tasks[missing, 0]])
    assert reads.made == {token_feed.SWEEP.text: 2}
    still_open = {each for each, task in tasks.items() if not task.done()}
    assert still_open == set(followed) - {(revoked, 0), (missing, 0)}
    for task in tasks.values():
        task.cancel()
