"""The judge is judged: bugs are planted in the engine. Without these a verdict of `Ok` could be worth nothing."""

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import pytest

from app.coupons.carry_out import carry_out_jobs
from app.stress.clients import Client, Http, Socket
from app.stress.races import ENROL
from app.stress.things import Stock
from app.stress.verbs import VERBS
from app.stress.worlds import About, Bring, World, play
from tests.conftest import run_api
from tests.factories import Shop, open_shop, usd
from tests.histories.broken import BUGS, RIVAL_SECONDS, credited_twice
from tests.histories.clock import Clock
from tests.histories.judging import Case, Judge, counterexample, timeline
from tests.histories.moving import Mover
from tests.histories.provoked import document
from tests.histories.run import PROGRAM, TERMS
from tests.histories.test_worlds import at_work
from tests.sizes import FULL, size
from tests.starts import BROKEN

WORLDS_MAX: Final = 300
#: A script needs every answer.
PATIENCE_SECONDS: Final = 90.0
#: Of a timeline that a person reads.
LINES_MAX: Final = 30

#: What is so of the pools of scripts.
POOL: Final[dict[str, Any]] = {"codes": 10, "claimsPerMember": 2, "stacking": "STACKABLE"}
#: What a world is about in which a bug is met; any other bug is met in every world.
MET_IN: Final = {
    "stolen hold": About.HOLDS, "forgotten hold": About.PEOPLE, "two for one": About.PEOPLE,
    "code of nobody": About.PEOPLE, "balance twice": About.PEOPLE, "overspent budget": About.AIMS,
    "second first order": About.AIMS, "job that goes on": About.AIMS, "stale discount": About.AIMS,
}  # fmt: skip

Script = Callable[["Stage"], Awaitable[None]]


class Stage:
    """A member and a pool, on which a script calls verbs over HTTP and a WebSocket."""

    def __init__(self, url: str, shop: Shop, member: str, pool: str, clock: Clock, bring: Bring) -> None:
        self.world = World("a script", TERMS, random.Random(1), clock.lapse, bring=bring)
        self._shop = shop
        self.member, self.pool = member, ""
        self._is_at(pool)
        self.clients = [
            Client("shop", Http(url, shop.admin), PATIENCE_SECONDS),
            Client("till", Socket(url, shop.admin), PATIENCE_SECONDS),
        ]

    async def record(self, number: int) -> str:
        """Enrol a member who is found by a number, and let the world be about people."""
        asked = {"externalId": f"a script-{number}", "source": "IMPORT"}
        member: str = (await self.clients[0].patiently(ENROL, asked))["member"]["id"]
        self.world.members.append(member)
        self.world.facts["address"] = "nobody@example.com"
        return member

    async def merge(self, kept: str, merged: str) -> Any:
        """Make one member of two records."""
        return await self.call("mergeMembers", keptId=kept, mergedId=merged, reason="One.", dropReferrals=False)

    def _is_at(self, pool: str) -> None:
        self.pool = pool
        self.world.facts["limits"][pool] = 2
        self.world.facts["initial"] |= {f"stock:{pool}": list(Stock(available=10)), f"pool:{pool}": ["ACTIVE", True]}

    async def go_to(self, **terms: Any) -> None:
        """Go on with another pool, which has a budget or is for first orders."""
        pool = (await self._shop.pool(**POOL, **terms))["id"]
        self._is_at(pool)
        if "maximumTotalDiscount" in terms:
            self.world.facts["budgets"].append(pool)
            self.world.facts["initial"][f"budget:{pool}"] = [terms["maximumTotalDiscount"]["amountMinor"]]
        else:
            self.world.facts["first"].append(pool)

    async def claim(self, key: str) -> Any:
        """Claim a code."""
        return (await self.call("claimCode", poolId=self.pool, memberId=self.member, idempotencyKey=key))["code"]

    async def call(self, verb: str, client: int = 0, about: Any = None, **input: Any) -> Any:
        """Call a verb, and return its answer."""
        return await self.world.call(self.clients[client], VERBS[verb], input, about or {})

    async def grant(self, amount: int, key: str, client: int = 0) -> Any:
        """Grant points."""
        return await self.call(
            "grantPoints", client, memberId=self.member, amount=amount, reference="r", idempotencyKey=key
        )

    async def read(self) -> Any:
        """Read the wallet."""
        return await self.call("readWallet", id=self.member)


async def _two_grants(stage: Stage) -> None:
    await asyncio.gather(stage.grant(10, "a"), stage.grant(10, "b", client=1))
    await stage.read()


async def _two_orders(stage: Stage) -> None:
    claimed = await stage.call("claimCode", poolId=stage.pool, memberId=stage.member, idempotencyKey="c")
    for client, order in enumerate(("first", "second")):
        await _redeem(stage, [claimed["code"]], client, order)


async def _a_grant_between_reads(stage: Stage) -> None:
    await stage.read()
    await stage.grant(10, "a")
    await stage.read()


async def _a_grant_again(stage: Stage) -> None:
    await stage.grant(10, "a")
    await stage.grant(10, "a", client=1)


async def _a_refused_debit(stage: Stage) -> None:
    await stage.grant(10, "a")
    await stage.grant(-30, "b", client=1)
    await stage.read()


async def _a_return_of_what_was_spent(stage: Stage) -> None:
    await stage.call("recordPurchase", memberId=stage.member, source="STORE", orderId="o", amount=usd(1000))
    await stage.grant(-10, "b")
    (bought,) = stage.world.purchases
    await stage.call("reversePurchase", client=1, about=bought, purchaseId=bought["id"], reason="returned")


async def _one_of_two_codes_back(stage: Stage) -> None:
    codes = [
        (await stage.call("claimCode", poolId=stage.pool, memberId=stage.member, idempotencyKey=key))["code"]
        for key in ("c", "d")
    ]
    redeemed = await _redeem(stage, codes, client=1)
    (first, _) = redeemed["redemptions"]
    about = {"id": first["id"], "order": "o", "code": codes[0]["id"]}
    await stage.call("reverseRedemption", about=about, redemptionId=first["id"], reason="returned", reinstate=True)
    await _redeem(stage, codes[1:], client=1)


async def _two_carts(stage: Stage) -> None:
    claimed = await stage.call("claimCode", poolId=stage.pool, memberId=stage.member, idempotencyKey="c")
    first = await _hold(stage, claimed["code"], "first")
    await stage.call("lapse", about={"order": "first"}, holdId=first)
    await _hold(stage, claimed["code"], "second", client=1)
    await stage.call("captureHold", about={"order": "first"}, holdId=first)


async def _two_records_and_a_cart(stage: Stage) -> None:
    kept, merged = await stage.record(0), await stage.record(1)
    await stage.call("grantPoints", memberId=merged, amount=10, reference="r", idempotencyKey="a")
    await stage.call(
        "holdCheckout", 1, {"codes": []}, orderId="o", codes=[], points=5, orderAmount=usd(1000), memberId=merged,
        idempotencyKey="b",
    )  # fmt: skip
    await stage.merge(kept, merged)
    await stage.call("readWallet", id=merged)


async def _two_records_with_three_codes(stage: Stage) -> None:
    kept, merged = await stage.record(0), await stage.record(1)
    for key, member in (("a", kept), ("b", kept), ("c", merged)):
        await stage.call("claimCode", poolId=stage.pool, memberId=member, idempotencyKey=key)
    await stage.merge(kept, merged)
    await stage.call("readCodes", 1, id=kept)


async def _a_code_of_somebody_forgotten(stage: Stage) -> None:
    member = await stage.record(0)
    code = (await stage.call("claimCode", poolId=stage.pool, memberId=member, idempotencyKey="a"))["code"]
    await stage.call("eraseMember", memberId=member, ground="REQUEST")
    about = {"codes": [{"id": code["id"], "pool": stage.pool, "owner": member, "masked": code["masked"]}]}
    typed = [code["text"]]
    await stage.call("checkCodes", 1, about, orderId="o", codes=typed, orderAmount=usd(1000), memberId=member)


async def _a_file_again(stage: Stage) -> None:
    first, second = await stage.record(0), await stage.record(1)
    for member in (first, second, first):
        await stage.call("bringBalance", memberId=member, points=10)


async def _a_budget_of_one_discount_and_a_half(stage: Stage) -> None:
    await stage.go_to(maximumTotalDiscount=usd(150))
    await _one_code_on_each_of_two_orders(stage)


async def _two_first_orders(stage: Stage) -> None:
    await stage.go_to(firstOrderOnly=True)
    await _one_code_on_each_of_two_orders(stage)


async def _one_code_on_each_of_two_orders(stage: Stage) -> None:
    codes = [await stage.claim(key) for key in ("c", "d")]
    for client, (code, order) in enumerate(zip(codes, ("first", "second"), strict=True)):
        await _redeem(stage, [code], client, order)


async def _a_job_that_is_called_off(stage: Stage) -> None:
    await stage.claim("c")
    revoking = await stage.call(
        "revokeCodes", poolId=stage.pool, reason="leaked", state="ALLOCATED", recycle=False, expectedCount=1,
        idempotencyKey="k",
    )  # fmt: skip
    await stage.call("cancelJob", client=1, about={"key": "k"}, jobId=revoking["job"]["id"])
    await carry_out_jobs(seconds_max=30)
    await stage.call("readCodes", id=stage.member)


async def _hold(stage: Stage, code: Any, order: str, client: int = 0) -> str:
    about = {"codes": [{"id": code["id"], "pool": stage.pool, "owner": stage.member, "masked": code["masked"]}]}
    answer = await stage.call(
        "holdCheckout", client, about, orderId=order, codes=[code["text"]], orderAmount=usd(1000),
        memberId=stage.member, idempotencyKey=order,
    )  # fmt: skip
    hold: str = answer["hold"]["id"]
    return hold


async def _redeem(stage: Stage, codes: list[Any], client: int, order: str = "o") -> Any:
    about = {"codes": [
        {"id": code["id"], "pool": stage.pool, "owner": stage.member, "masked": code["masked"]} for code in codes
    ]}  # fmt: skip
    typed = [code["text"] for code in codes]
    return await stage.call(
        "redeemCodes", client, about, orderId=order, codes=typed, orderAmount=usd(1000), memberId=stage.member
    )


#: A script that meets the bug, and the timeline that a person is shown, without its times.
SCRIPTS: Final[dict[str, tuple[Script, str]]] = {
    "lost update": (_two_grants, """
    wallet:member1 begins as Wallet(points=0, version=0)
    shop: grantPoints(memberId: member1, amount: 10, reference: r, idempotencyKey: a) → GrantPointsSuccess(...)
    till: grantPoints(memberId: member1, amount: 10, reference: r, idempotencyKey: b) → GrantPointsSuccess(...)
  ! shop: readWallet(id: member1) → wallet: points: 10, version: 2, shortfall: 0, heldPoints: 0, spendablePoints: 10
"""),
    "double spend": (_two_orders, """
    code:code1 begins as Code(owner=None, order=None, revoked=False, expired=False, reissued_as=None, hold=None)
    order:first begins as Order()
    order:second begins as Order()
    shop: claimCode(poolId: pool1, memberId: member1, idempotencyKey: c) → ClaimCodeSuccess(...)
  ! shop: redeemCodes(orderId: first, codes: [CODE], orderAmount: USD) → RedeemCodesSuccess(...)
  ! till: redeemCodes(orderId: second, codes: [CODE], orderAmount: USD) → RedeemCodesSuccess(...)
"""),
    "stale read": (_a_grant_between_reads, """
    wallet:member1 begins as Wallet(points=0, version=0)
    shop: readWallet(id: member1) → wallet: points: 0, version: 0, shortfall: 0, heldPoints: 0, spendablePoints: 0
  ! shop: grantPoints(memberId: member1, amount: 10, reference: r, idempotencyKey: a) → GrantPointsSuccess(...)
  ! shop: readWallet(id: member1) → wallet: points: 0, version: 0, shortfall: 0, heldPoints: 0, spendablePoints: 0
"""),
    "replay that differs": (_a_grant_again, """
    key:grant/a begins as None
  ! shop: grantPoints(memberId: member1, amount: 10, reference: r, idempotencyKey: a) → GrantPointsSuccess(...)
  ! till: grantPoints(memberId: member1, amount: 10, reference: r, idempotencyKey: a) → GrantPointsSuccess(...)
"""),
    "effect of a refused call": (_a_refused_debit, """
    wallet:member1 begins as Wallet(points=0, version=0)
    shop: grantPoints(memberId: member1, amount: 10, reference: r, idempotencyKey: a) → GrantPointsSuccess(...)
    till: grantPoints(memberId: member1, amount: -30, reference: r, idempotencyKey: b) → InsufficientPoints(...)
  ! shop: readWallet(id: member1) → wallet: points: 5, version: 1, shortfall: 0, heldPoints: 0, spendablePoints: 5
"""),
    "forgotten shortfall": (_a_return_of_what_was_spent, """
    order:o begins as Order()
    wallet:member1 begins as Wallet(points=0, version=0)
    shop: recordPurchase(memberId: member1, source: STORE, orderId: o, MONEY) → RecordPurchaseSuccess(...)
    shop: grantPoints(memberId: member1, amount: -10, reference: r, idempotencyKey: b) → GrantPointsSuccess(...)
  ! till: reversePurchase(purchaseId: purchase1, reason: returned) → ReversePurchaseSuccess(...)
"""),
    "stale discount": (_one_of_two_codes_back, """
    order:o begins as Order()
    till: redeemCodes(orderId: o, codes: [CODE; CODE], orderAmount: USD) → RedeemCodesSuccess(...)
    shop: reverseRedemption(redemptionId: redemption1, reason: returned, reinstate: True) → ReverseRedemptionSuccess
  ! till: redeemCodes(orderId: o, codes: [CODE], orderAmount: USD) → RedeemCodesSuccess(...)
    2 other operations of this world are about other things.
"""),
    "stolen hold": (_two_carts, """
    code:code1 begins as Code(owner=None, order=None, revoked=False, expired=False, reissued_as=None, hold=None)
    order:first begins as Order()
    order:second begins as Order()
    shop: claimCode(poolId: pool1, memberId: member1, idempotencyKey: c) → ClaimCodeSuccess(...)
    shop: holdCheckout(orderId: first, codes: [CODE], orderAmount: USD, KEY) → HoldCheckoutSuccess(...)
    time: lapse(holdId: hold1) → Passed
  ! till: holdCheckout(orderId: second, codes: [CODE], orderAmount: USD, KEY) → HoldCheckoutSuccess(...)
  ! shop: captureHold(holdId: hold1) → CaptureHoldSuccess(...)
"""),
    "forgotten hold": (_two_records_and_a_cart, """
    order:o begins as Order()
    people begins as People()
    wallet:member1 begins as Wallet(points=0, version=0)
    wallet:member2 begins as Wallet(points=0, version=0)
    shop: grantPoints(memberId: member2, amount: 10, reference: r, idempotencyKey: a) → GrantPointsSuccess(...)
  ! till: holdCheckout(orderId: o, codes: [], points: 5, POINTS) → HoldCheckoutSuccess(...)
    shop: mergeMembers(keptId: member1, mergedId: member2, ONE) → MergeMembersSuccess(...)
  ! shop: readWallet(id: member2) → wallet: points: 10, version: 1, shortfall: 0, heldPoints: 0, spendablePoints: 10
"""),
    "two for one": (_two_records_with_three_codes, """
    claims:pool1/member1 begins as ()
    claims:pool1/member2 begins as ()
    code:code1 begins as Code(owner=None, order=None, revoked=False, expired=False, reissued_as=None, hold=None)
    code:code2 begins as Code(owner=None, order=None, revoked=False, expired=False, reissued_as=None, hold=None)
    code:code3 begins as Code(owner=None, order=None, revoked=False, expired=False, reissued_as=None, hold=None)
    people begins as People()
    shop: claimCode(poolId: pool1, memberId: member1, idempotencyKey: a) → ClaimCodeSuccess(...)
    shop: claimCode(poolId: pool1, memberId: member1, idempotencyKey: b) → ClaimCodeSuccess(...)
    shop: claimCode(poolId: pool1, memberId: member2, idempotencyKey: c) → ClaimCodeSuccess(...)
    shop: mergeMembers(keptId: member1, mergedId: member2, ONE) → MergeMembersSuccess(...)
  ! till: readCodes(id: member1) → wallet: codes: edges: [ALLOCATED code3; ALLOCATED code2; ALLOCATED code1]
"""),
    "code of nobody": (_a_code_of_somebody_forgotten, """
    code:code1 begins as Code(owner=None, order=None, revoked=False, expired=False, reissued_as=None, hold=None)
    order:o begins as Order()
    people begins as People()
    shop: claimCode(poolId: pool1, memberId: member1, idempotencyKey: a) → ClaimCodeSuccess(...)
  ! shop: eraseMember(memberId: member1, ground: REQUEST) → EraseMemberSuccess(...)
  ! till: checkCodes(orderId: o, codes: [CODE], orderAmount: USD) → RedeemCodesSuccess(...)
"""),
    "balance twice": (_a_file_again, """
    brought:member1 begins as None
    people begins as People()
  ! import: bringBalance(memberId: member1, points: 10) → BroughtInSuccess(...)
    time: judged(number: 1, memberId: member1) → Passed
    import: bringBalance(memberId: member2, points: 10) → BroughtInSuccess(...)
    time: judged(number: 3, memberId: member2) → Passed
    import: bringBalance(memberId: member1, points: 10) → BroughtInSuccess(...)
  ! time: judged(number: 5, memberId: member1) → Passed
"""),
    "overspent budget": (_a_budget_of_one_discount_and_a_half, """
    budget:pool1 begins as Budget(limit=150, shares=(), late=())
    order:first begins as Order()
    order:second begins as Order()
    time: looked(number: 1, pool: pool1, who: member1) → Passed
    time: looked(number: 3, pool: pool1, who: member1) → Passed
  ! shop: redeemCodes(orderId: first, codes: [CODE], orderAmount: USD) → RedeemCodesSuccess(...)
  ! till: redeemCodes(orderId: second, codes: [CODE], orderAmount: USD) → RedeemCodesSuccess(...)
    2 other operations of this world are about other things.
"""),
    "second first order": (_two_first_orders, """
    order:first begins as Order()
    order:second begins as Order()
    person:member1 begins as ()
  ! shop: redeemCodes(orderId: first, codes: [CODE], orderAmount: USD) → RedeemCodesSuccess(...)
    time: looked(number: 3, who: member1, order: first, codes: [code1]) → Passed
  ! till: redeemCodes(orderId: second, codes: [CODE], orderAmount: USD) → RedeemCodesSuccess(...)
    time: looked(number: 5, who: member1, order: second, codes: [code2]) → Passed
    2 other operations of this world are about other things.
"""),
    "job that goes on": (_a_job_that_is_called_off, """
    code:code1 begins as Code(owner=None, order=None, revoked=False, expired=False, reissued_as=None, hold=None)
    shop: claimCode(poolId: pool1, memberId: member1, idempotencyKey: c) → ClaimCodeSuccess(...)
    shop: revokeCodes(JOB) → RevokeCodesSuccess(...)
  ! shop: readCodes(id: member1) → wallet: codes: edges: [REVOKED code1]
    1 other operations of this world are about other things.
"""),
}  # fmt: skip


def planted(bug: str) -> AbstractContextManager[None]:
    """Plant the bug into this process, if it is one of what files bring in."""
    return credited_twice() if bug == "balance twice" else nullcontext()


async def _played(script: Script, url: str, shop: Shop, database: str) -> World:
    member, pool = await shop.member(), await shop.pool(**POOL)
    stage = Stage(url, shop, member["id"], pool["id"], Clock(database), Mover(shop).bring)
    await script(stage)
    for client in stage.clients:
        await client.close()
    assert stage.world.faults == []
    return stage.world


def _without_times(text: str) -> str:
    text = re.sub(r"^  (.) +[\d.]+ ms  .{24}  ", r"  \1 ", text.partition("\n")[2], flags=re.MULTILINE)
    text = re.sub(r"(Success|InsufficientPoints)\(.*\)", r"\1(...)", text)
    text = re.sub(r"idempotencyKey: (first|second)", "KEY", text)
    text = re.sub(r"revokeCodes\(.*\) →", "revokeCodes(JOB) →", text)
    text = re.sub(r"PCT-\w+", "CODE", text).replace("amountMinor: 1000, currency: USD, memberId: member1", "USD")
    text = text.replace("reason: One., dropReferrals: False", "ONE")
    text = re.sub(r"points: 5, orderAmount: .*, idempotencyKey: b", "points: 5, POINTS", text)
    text = re.sub(r"node: id: (code\d), state: (\w+), pool: id: pool1", r"\2 \1", text)
    return text.replace("amount: amountMinor: 1000, currency: USD", "MONEY")


@pytest.mark.parametrize("bug", size(BUGS[::2], BUGS))
async def test_a_planted_bug_is_found_and_shown(shop: Shop, worker_database: str, judging: Judge, bug: str) -> None:
    script, shown = SCRIPTS[bug]
    with run_api(worker_database, **{BROKEN: bug}) as broken, planted(bug):
        world = await _played(script, f"{broken.url}/graphql", shop, worker_database)

    assert judging.verdict(Case(world.history, world.history.operations)) == "Illegal"
    found = timeline(counterexample(judging, world.history))
    print(found)
    assert found.startswith("a script: no order of these operations explains the answers marked with !")
    assert _without_times(found) == shown.strip("\n")


async def test_the_engine_without_a_bug_is_found_innocent(shop: Shop, worker_database: str, judging: Judge) -> None:
    for script, _ in SCRIPTS.values():
        async with open_shop(shop.url) as own:
            world = await _played(script, own.url, own, worker_database)
        assert judging.verdict(Case(world.history, world.history.operations)) == "Ok"


@pytest.mark.skipif(not FULL, reason="`make full` looks for the planted bugs in worlds, too")
@pytest.mark.parametrize("bug", BUGS)
async def test_a_planted_bug_is_found_in_small_worlds(
    shop: Shop, worker_database: str, judging: Judge, bug: str
) -> None:
    await shop.do(document("configureMerchant", ""), pointsPerUnit=1.0)
    await shop.do(document("configureReferralProgram", ""), **PROGRAM)
    with run_api(worker_database, **{BROKEN: bug, RIVAL_SECONDS: "0.05"}) as broken, planted(bug):
        url = f"{broken.url}/graphql"
        clients = [Client(f"client {number}", Http(url, shop.admin)) for number in range(1, 5)]
        for number in range(WORLDS_MAX):
            lapse = Clock(worker_database).lapse
            about = MET_IN.get(bug, About.ANYTHING)
            world = World(
                f"{bug} {number}".replace(" ", "-"), TERMS, random.Random(number), lapse, about, Mover(shop).bring
            )
            async with at_work():
                await play(world, clients)
            verdict = judging.verdict(Case(world.history, world.history.operations))
            if verdict == "Illegal":
                break
        for client in clients:
            await client.close()

    assert verdict == "Illegal", f"none of {WORLDS_MAX} worlds has met it"
    found = timeline(counterexample(judging, world.history))
    print(found)
    assert "  ! " in found
    assert len(found.splitlines()) < LINES_MAX
