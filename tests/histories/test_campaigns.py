"""Campaigns to a segment beside claims, revocations, cancelling and edits of their pool, judged.

Without these a member could have a code too many, or a campaign send what was called off.
"""

import asyncio
import random
from typing import Any

import pytest

from app.stress.campaigning import CampaignWorld
from app.stress.clients import Client, Http, Socket
from app.stress.things import Pool, Stock
from app.stress.verbs import VERBS
from tests.conftest import Api
from tests.factories import Shop, open_shop
from tests.histories.judging import Judge
from tests.histories.run import TERMS
from tests.histories.test_judging import Written, _verdict
from tests.histories.test_worlds import at_work, innocent
from tests.sizes import size

WORLDS = size(2, 20)
SENT_AT_ONCE = size(4, 12)


async def test_some_order_explains_what_is_told_beside_campaigns(
    shop: Shop, api: Api, second_api: Api, judging: Judge
) -> None:
    """Each world has a merchant of its own. A worker is there all the time."""
    urls = [f"{each.url}/graphql" for each in (api, second_api)]
    for number in range(WORLDS):
        async with open_shop(shop.url) as own, at_work():
            clients = [
                Client(f"client {each}", (Http if each % 2 else Socket)(urls[each // 2 % 2], own.admin))
                for each in range(1, SENT_AT_ONCE + 1)
            ]
            world = CampaignWorld(f"campaign-{number}", TERMS, random.Random(number))
            await world.prepare(clients[0])
            asked = VERBS["createCampaign"].ask(world)
            assert asked is not None
            await asyncio.gather(*(world.call(client, VERBS["createCampaign"], *asked) for client in clients))
            await play_on(world, clients)
        innocent(judging, world)


async def play_on(world: CampaignWorld, clients: list[Client]) -> None:
    """Let the clients use a world that is made, and leave."""
    await asyncio.gather(*(world.play(client) for client in clients))
    for client in clients:
        await client.close()


class Sending(Written):
    """A history of two members, of whom one has a code of a pool that has two more and gives each two."""

    def __init__(self) -> None:
        super().__init__()
        self.history.facts |= {"limits": {"p": 2}, "transferable": [], "members": ["m", "n"]}
        self.history.facts["initial"] = {
            "stock:p": list(Stock(2, 1)), "pool:p": list(Pool("ACTIVE")), "claims:p/m": ("c0",),
        }  # fmt: skip
        self.asked: dict[str, Any] = {"name": "x", "poolId": "p", "segment": "NEW", "idempotencyKey": "k"}

    def create(self, total: int = 2, refusal: dict[str, Any] | None = None) -> None:
        """Ask for a campaign, which somebody sends at some time, or be told why not."""
        if refusal is None:
            self.recorder.call("time", "sent", self.asked, {}, self.now)
        campaign = {"job": self._job("QUEUED", total)}
        made = {"__typename": "CreateCampaignSuccess", "replayed": False, "campaign": campaign}
        self.call("createCampaign", refusal or made, **self.asked)

    def is_told(self, status: str, done: int = 0) -> None:
        """Read the job."""
        self.call("readJob", {"__typename": "Read", **self._job(status, 2, done)}, {"key": "k"}, id="j")

    @staticmethod
    def _job(status: str, total: int, done: int = 0) -> dict[str, Any]:
        return {"id": "j", "status": status, "total": total, "done": done, "failed": 0}

    def gets(self, code: str, member: str) -> None:
        """Claim a code of the pool."""
        answer = {"__typename": "ClaimCodeSuccess", "replayed": False, "servedBy": {"id": "p"},
                  "code": {"id": code, "text": code, "masked": code}}  # fmt: skip
        self.call("claimCode", answer, poolId="p", memberId=member, idempotencyKey=code)

    def revokes(self) -> None:
        """Ask for all codes of the pool to be revoked, which somebody does at some time."""
        asked: dict[str, Any] = {"poolId": "p", "state": None, "expectedCount": 9, "recycle": False}
        asked["idempotencyKey"] = "r"
        self.recorder.call("time", "carriedOut", asked, {}, self.now)
        made = {"__typename": "RevokeCodesSuccess", "replayed": False, "job": self._job("QUEUED", 3)}
        self.call("revokeCodes", made, **asked)

    def has_revoked(self, done: int) -> None:
        """Read the job that revokes."""
        told = self._job("DONE", 3, done) | {"failed": 3 - done}
        self.call("readJob", {"__typename": "Read", **told}, {"key": "r"}, id="j")

    def sees(self, member: str, *codes: str) -> None:
        """Read a member's codes."""
        nodes = [{"node": {"id": code, "state": "ALLOCATED", "heldUntil": None, "pool": {"id": "p"}}} for code in codes]
        self.call("readCodes", {"__typename": "Read", "wallet": {"codes": {"edges": nodes}}}, id=member)


@pytest.fixture
def sending() -> Sending:
    return Sending()


@pytest.mark.parametrize(
    ("total", "status", "done", "verdict"),
    [
        (2, "DONE", 2, "Ok"), (2, "DONE", 1, "Illegal"), (3, "DONE", 2, "Illegal"), (2, "QUEUED", 0, "Ok"),
        (2, "CANCELLED", 0, "Illegal"),
    ],
)  # fmt: skip
def test_a_campaign_sends_to_all_that_it_is_for(
    judging: Judge, sending: Sending, total: int, status: str, done: int, verdict: str
) -> None:
    sending.create(total)
    sending.is_told(status, done)
    assert _verdict(judging, sending) == verdict


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        ((("c1",), ("c2",)), "Ok"), (((), ()), "Ok"), ((("c1",), ("c1",)), "Illegal"), ((("c1", "c2"), ()), "Illegal"),
    ],
)  # fmt: skip
def test_all_get_one_code_at_once(
    judging: Judge, sending: Sending, seen: tuple[tuple[str, ...], tuple[str, ...]], verdict: str
) -> None:
    sending.create()
    for member, codes in zip("mn", seen, strict=True):
        sending.sees(member, *codes)
    assert _verdict(judging, sending) == verdict


@pytest.mark.parametrize(("done", "verdict"), [(1, "Ok"), (2, "Illegal")])
def test_who_has_all_its_codes_by_then_gets_none(judging: Judge, sending: Sending, done: int, verdict: str) -> None:
    sending.create()
    sending.gets("c1", "m")
    sending.is_told("DONE", done)
    assert _verdict(judging, sending) == verdict


def test_a_campaign_waits_while_there_are_too_few(judging: Judge, sending: Sending) -> None:
    sending.create()
    sending.gets("c1", "n")
    sending.is_told("WAITING")
    assert _verdict(judging, sending) == "Ok"
    sending.is_told("DONE", 2)
    assert _verdict(judging, sending) == "Illegal"


@pytest.mark.parametrize(("takes", "verdict"), [(True, "Ok"), (False, "Illegal")])
def test_who_is_told_that_there_are_too_few_had_too_few(
    judging: Judge, sending: Sending, takes: bool, verdict: str
) -> None:
    if takes:
        sending.gets("c1", "n")
    sending.create(refusal={"__typename": "PoolExhausted"})
    assert _verdict(judging, sending) == verdict


@pytest.mark.parametrize(("done", "verdict"), [(3, "Ok"), (2, "Ok"), (4, "Illegal")])
def test_what_a_campaign_sent_unseen_is_revoked_with_all_that_were_in_stock(
    judging: Judge, sending: Sending, done: int, verdict: str
) -> None:
    """Of the codes that are gone, nobody is told of the other member's and of one that there was before."""
    sending.revokes()
    sending.create()
    sending.sees("m", "c1")
    sending.has_revoked(done)
    assert _verdict(judging, sending) == verdict
