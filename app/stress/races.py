"""The races: many callers want the same thing at the same time, and a promise says who gets it.

Everything that a run makes is named after it: pools, which are archived at its end, and members without addresses,
which stay. No other rows are touched, and no setting is changed.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Iterable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from app.replay.engine import CannotGoOn, Engine, Fault
from app.replay.recomputed import recomputed
from app.stress.report import Outcome, tell

#: How many requests are under way at once; more wait in the client.
AT_ONCE: Final = 100
TAPS: Final = 100
CHECKOUTS: Final = 50
SPENDS, COVERED, SPENT_EACH = 50, 20, 10
BATCHES: Final = 50
#: A larger quota isn't raced for, because that many invites would be left behind.
QUOTA_RACED_MAX: Final = 1_000

VIEWER: Final = "query { viewer { role merchant { name currency } } }"
ENROL: Final = """
mutation ($input: EnrollMemberInput!) {
  answer: enrollMember(input: $input) {
    __typename ... on EnrollMemberSuccess { member { id } } ... on MemberAlreadyExists { existing { id } }
    ... on Refusal { message }
  }
}
"""
CREATE_POOL: Final = """
mutation ($input: CreatePoolInput!) {
  answer: createPool(input: $input) { __typename ... on CreatePoolSuccess { pool { id } } ... on Refusal { message } }
}
"""
GENERATE: Final = """
mutation ($input: GenerateCodesInput!) {
  answer: generateCodes(input: $input) { __typename ... on Refusal { message } }
}
"""
CHANGE: Final = """
mutation ($input: PoolIdInput!) { answer: %s(input: $input) { __typename ... on Refusal { message } } }
"""
CLAIM: Final = """
mutation ($input: ClaimCodeInput!) {
  answer: claimCode(input: $input) {
    __typename ... on ClaimCodeSuccess { replayed code { id text } } ... on Refusal { message }
  }
}
"""
STOCK: Final = "query ($id: ID!) { pool(id: $id) { stock { available allocated redeemed } } }"
REDEEM: Final = """
mutation ($input: RedeemCodesInput!) {
  answer: redeemCodes(input: $input) {
    __typename ... on RedeemCodesSuccess { replayed redemptions { id } }
    ... on CodesRejected { rejections { reason } } ... on Refusal { message }
  }
}
"""
GRANT: Final = """
mutation ($input: GrantPointsInput!) {
  answer: grantPoints(input: $input) { __typename ... on GrantPointsSuccess { replayed } ... on Refusal { message } }
}
"""
BALANCE: Final = "query ($id: ID!) { member(id: $id) { wallet { points } } }"
PROGRAM: Final = "query { referralProgram { invitesPerBatch invitesPerDay invitesLifetime } }"
INVITE: Final = """
mutation ($input: InviteMembersInput!) {
  answer: inviteMembers(input: $input) {
    __typename ... on InviteMembersSuccess { invites { id } } ... on Refusal { message }
  }
}
"""
CANCEL: Final = """
mutation ($input: CancelInviteInput!) {
  answer: cancelInvite(input: $input) { __typename ... on Refusal { message } }
}
"""

T = TypeVar("T")
Answer = dict[str, Any]


async def run(urls: list[str], key: str, members: int) -> bool:
    """Fire every race, clean up, and print a verdict. Requests go to the addresses in turn.

    Returns whether every promise held. Raises CannotGoOn and Fault.
    """
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(Engine(url, key, "--key or FLASH_KEY")) for url in urls]
        stressed = Stress(engines, members)
        await stressed.look()
        try:
            await stressed.fire()
        finally:
            await stressed.tidy_up()
        await stressed.check_integrity()
        tell(stressed.outcomes, stressed.left_out)
    return all(outcome.held for outcome in stressed.outcomes)


class Stress:
    """A run against a merchant."""

    def __init__(self, engines: list[Engine], members: int) -> None:
        self._engines = itertools.cycle(engines)
        self._room = asyncio.Semaphore(AT_ONCE)
        self._members_count = members
        self._name = f"Stress {datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}"
        self._pools: list[str] = []
        self._invites: list[str] = []
        self._currency = ""
        self.outcomes: list[Outcome] = []
        self.left_out: list[str] = []

    async def look(self) -> None:
        """Read the role and the merchant of the key. Raises CannotGoOn unless the role is ADMIN."""
        viewer = (await next(self._engines).ask(VIEWER, {}))["viewer"]
        if viewer["role"] != "ADMIN":
            raise CannotGoOn(f"The races need an ADMIN key, and the role of this one is {viewer['role']}.")
        self._currency = viewer["merchant"]["currency"]

    async def fire(self) -> None:
        """Fire the races one after another."""
        members = await self._at_once(self._enrol(number) for number in range(self._members_count))
        await self._taps(members[0])
        await self._rush(members)
        await self._checkouts(members[0])
        await self._spends(members[0])
        await self._invited(members[0])

    async def tidy_up(self) -> None:
        """Archive the run's pools and cancel its invites."""
        await self._at_once(self._do(CHANGE % "archivePool", poolId=pool) for pool in self._pools)
        await self._at_once(self._do(CANCEL, inviteId=invite) for invite in self._invites)

    async def check_integrity(self) -> None:
        """Add an outcome for the promises that the server recomputes from the rows."""
        begun = time.monotonic()
        report = await recomputed(next(self._engines))
        checks = [] if report is None else report["checks"]
        broken = [f"{check['name']}: {check['violations']:,}" for check in checks if check["violations"]]
        found = ", ".join(broken) or (f"{len(checks)} promises hold" if checks else "nobody recomputed them in time")
        self._held("what the rows say", 1, f"{len(checks)} promises hold", found, begun)

    async def _taps(self, member: str) -> None:
        """One member claims many times and gets one code, with the same answer each time."""
        pool, begun = await self._pool(TAPS), time.monotonic()
        answers = await self._at_once(self._do(CLAIM, poolId=pool, memberId=member) for _ in range(TAPS))
        codes = {answer["code"]["id"] for answer in answers if "code" in answer}
        fresh = sum(answer.get("replayed") is False for answer in answers)
        found = f"{len(codes)} code, claimed {fresh} time{self._faults(answers)}"
        self._held("one member taps", TAPS, "1 code, claimed 1 time", found, begun)

    async def _rush(self, members: list[str]) -> None:
        """More members than codes: each code goes to one member, and the others learn that there are no more."""
        codes = max(1, len(members) * 7 // 10)
        pool, begun = await self._pool(codes), time.monotonic()
        answers = await self._at_once(self._do(CLAIM, poolId=pool, memberId=member) for member in members)
        given = {answer["code"]["id"] for answer in answers if "code" in answer}
        out = sum(answer["__typename"] == "PoolExhausted" for answer in answers)
        stock = (await next(self._engines).ask(STOCK, {"id": pool}))["pool"]["stock"]
        self._held(
            "members rush for codes", len(members),
            f"{codes:,} codes, {len(members) - codes:,} too late, stock 0 + {codes:,}",
            f"{len(given):,} codes, {out:,} too late, stock {stock['available']:,} + {stock['allocated']:,}"
            f"{self._faults(answers)}",
            begun,
        )  # fmt: skip

    async def _checkouts(self, member: str) -> None:
        """Many checkouts redeem a code at once. With orders of their own one succeeds; with the same order all do."""
        for race, orders, expected in (
            ("checkouts, an order each", range(CHECKOUTS), f"1 redeemed, {CHECKOUTS - 1} refused, 0 replayed"),
            ("checkouts, the same order", [0] * CHECKOUTS, f"1 redeemed, 0 refused, {CHECKOUTS - 1} replayed"),
        ):
            pool = await self._pool(1)
            code = await self._do(CLAIM, poolId=pool, memberId=member)
            begun = time.monotonic()
            answers = await self._at_once(
                self._do(
                    REDEEM, codes=[code["code"]["text"]], orderId=f"{self._name} {pool} {order}", memberId=member,
                    orderAmount={"amountMinor": 1000, "currency": self._currency},
                )
                for order in orders
            )  # fmt: skip
            counts = Counter(
                "refused" if answer["__typename"] == "CodesRejected" else str(answer.get("replayed"))
                for answer in answers
            )
            found = f"{counts['False']} redeemed, {counts['refused']} refused, {counts['True']} replayed"
            self._held(race, CHECKOUTS, expected, f"{found}{self._faults(answers)}", begun)

    async def _spends(self, member: str) -> None:
        """Members spend more points than there are. The balance is spent and no more; repeats have no effect."""

        async def spend(number: int) -> Answer:
            return await self._grant(member, -SPENT_EACH, f"spend {number}")

        await self._grant(member, COVERED * SPENT_EACH, "balance")
        begun = time.monotonic()
        answers = await self._at_once(spend(number) for number in range(SPENDS))
        done = [number for number, answer in enumerate(answers) if answer["__typename"] == "GrantPointsSuccess"]
        again = await self._at_once(spend(number) for number in done)
        replayed = sum(answer.get("replayed") is True for answer in again)
        points = (await next(self._engines).ask(BALANCE, {"id": member}))["member"]["wallet"]["points"]
        refused = sum(answer["__typename"] == "InsufficientPoints" for answer in answers)
        self._held(
            "more is spent than is there", SPENDS + len(done),
            f"{COVERED} spent, {SPENDS - COVERED} refused, {COVERED} replayed, 0 points left",
            f"{len(done)} spent, {refused} refused, {replayed} replayed, {points} points left{self._faults(answers)}",
            begun,
        )  # fmt: skip

    async def _invited(self, member: str) -> None:
        """More invites than the day's quota allows: whole batches are sent, as many as fit."""
        program = (await next(self._engines).ask(PROGRAM, {}))["referralProgram"]
        quota = min(program["invitesPerDay"], program["invitesLifetime"])
        size = min(program["invitesPerBatch"], max(1, quota * 2 // BATCHES))
        if not 0 < quota <= QUOTA_RACED_MAX or size * BATCHES <= quota:
            self.left_out.append(f"Invites aren't raced for: a member may send {quota:,} a day.")
            return
        begun = time.monotonic()
        stamp = f"{time.time_ns():x}"
        answers = await self._at_once(
            self._do(
                INVITE, memberId=member,
                emails=[f"stress-{stamp}-{batch}-{number}@example.com" for number in range(size)],
            )
            for batch in range(BATCHES)
        )  # fmt: skip
        sent = [invite["id"] for answer in answers for invite in answer.get("invites", [])]
        self._invites += sent
        refused = sum(answer["__typename"] == "InviteQuotaExceeded" for answer in answers)
        fit = quota // size
        self._held(
            "batches of invites", BATCHES,
            f"{fit * size} of {quota} sent, {BATCHES - fit} batches refused",
            f"{len(sent)} of {quota} sent, {refused} batches refused{self._faults(answers)}",
            begun,
        )  # fmt: skip

    def _held(self, race: str, requests: int, expected: str, found: str, begun: float) -> None:
        self.outcomes.append(Outcome(race, requests, expected, found, time.monotonic() - begun))

    @staticmethod
    def _faults(answers: list[Answer]) -> str:
        faults = Counter(answer["fault"] for answer in answers if "fault" in answer)
        return "".join(f", {count} times {code}" for code, count in faults.items())

    async def _enrol(self, number: int) -> str:
        answer = await self._do(ENROL, externalId=f"{self._name} {number}", source="IMPORT")
        member: str = self._of(answer, "member", "existing")["id"]
        return member

    async def _pool(self, codes: int) -> str:
        """Return the id of a new active pool with codes."""
        terms = {"name": self._name, "kind": "PERCENT", "percentOff": 1.0, "claimsPerMember": 1}
        pool: str = self._of(await self._do(CREATE_POOL, **terms), "pool")["id"]
        self._pools.append(pool)
        await self._do(GENERATE, poolId=pool, count=codes, idempotencyKey=f"{self._name} {pool}")
        await self._do(CHANGE % "activatePool", poolId=pool)
        return pool

    async def _grant(self, member: str, amount: int, what: str) -> Answer:
        key = f"{self._name} {what}"
        return await self._do(GRANT, memberId=member, amount=amount, reference=self._name, idempotencyKey=key)

    @staticmethod
    def _of(answer: Answer, *names: str) -> Answer:
        """Return a field of a success. Raises CannotGoOn for a refusal."""
        for name in names:
            if name in answer:
                found: Answer = answer[name]
                return found
        raise CannotGoOn(f"The races can't begin: {answer.get('message', answer.get('fault'))}")

    async def _do(self, document: str, **input: Any) -> Answer:
        """Return a mutation's answer, or its fault as an answer."""
        async with self._room:
            try:
                answer: Answer = (await next(self._engines).ask(document, {"input": input}))["answer"]
            except Fault as fault:
                return {"__typename": "Fault", "fault": str(fault)}
        return answer

    @staticmethod
    async def _at_once(asked: Iterable[Awaitable[T]]) -> list[T]:
        return list(await asyncio.gather(*asked))
