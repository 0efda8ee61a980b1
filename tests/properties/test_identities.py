"""Any history of who claims, enrols, verifies and redeems. Without this one that nobody thought of could break it."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.coupons.ownership import breaches
from tests.factories import (
    CLAIM_CODE,
    CREATE_CAMPAIGN,
    ENROLL_MEMBER,
    REDEEM_CODES,
    VERIFY_MEMBER_EMAIL,
    Shop,
    open_shop,
    usd,
)
from tests.sizes import FULL, size

PEOPLE = 3
POOLS = 3
WALLETS = "{ members { edges { node { id emailVerified wallet { version codes { edges { node { id } } } } } } } }"
OWNERS = "{ codes(first: 100) { edges { node { id owner { id } } } } }"

PERSON = st.integers(0, PEOPLE - 1)
POOL = st.integers(0, POOLS - 1)
KEY = st.none() | st.sampled_from(["a", "b", "c"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("claim as member"), PERSON, POOL, KEY),
        st.tuples(st.just("claim by address"), PERSON, POOL, KEY),
        st.tuples(st.just("claim by address"), PERSON, POOL, KEY),
        st.tuples(st.just("send"), st.lists(PERSON, min_size=1, max_size=4), POOL, st.booleans()),
        st.tuples(st.just("enrol"), PERSON, st.booleans()),
        st.tuples(st.just("verify"), PERSON),
        st.tuples(st.just("redeem"), PERSON, st.integers(0, 5), st.booleans()),
    ),
    min_size=4,
    max_size=18,
)


@dataclass
class World:
    """People by number, each with an address and perhaps a record; and what was answered so far."""

    shop: Shop
    pools: list[Any]
    members: dict[int, str] = field(default_factory=dict)
    verified: set[int] = field(default_factory=set)
    #: The codes that answers gave to a name ("member" or "address") of a person, by the pool that was asked.
    given: defaultdict[tuple[str, int, int], dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    texts: dict[str, str] = field(default_factory=dict)
    #: Whom campaigns sent codes that no claim has shown yet.
    sent: set[int] = field(default_factory=set)
    orders: int = 0

    def email(self, person: int) -> str:
        """Return the address of a person."""
        return f"person-{person}@example.com"

    def name(self, person: int) -> str:
        """Return under which name the address of a person claims."""
        return "member" if person in self.verified else "address"

    async def claim(self, name: str, person: int, pool: int, key: str | None) -> None:
        """Claim under a name; who has as many as it can have gets nothing new."""
        claimant = {"memberId": self.members[person]} if name == "member" else {"email": self.email(person)}
        scoped = None if key is None else f"{key} of {name} {person} in {pool}"
        answer = await self.shop.do(CLAIM_CODE, poolId=self.pools[pool]["id"], idempotencyKey=scoped, **claimant)
        assert answer["__typename"] in {"ClaimCodeSuccess", "PoolExhausted"}, answer
        if answer["__typename"] == "ClaimCodeSuccess":
            self.give(name, person, pool, answer["code"], fresh=not answer["replayed"])

    def give(self, name: str, person: int, pool: int, code: Any, *, fresh: bool) -> None:
        """Note that a code was given: a fresh one to nobody before, any other by a claim or a campaign."""
        if fresh:
            assert code["id"] not in self.texts
        else:
            assert code["id"] in self.texts or person in self.sent
        self.texts[code["id"]] = code["text"]
        kept = self.given[self.name(person) if name == "address" else name, person, pool]
        kept[code["id"]] = None

    async def send(self, people: list[int], pool: int, *, by_member: bool) -> None:
        """Send a campaign to people, by their member ids where they have one and it is asked."""
        recipients = [
            {"memberId": self.members[person]}
            if by_member and person in self.members
            else {"email": self.email(person)}
            for person in people
        ]
        values: dict[str, Any] = {"name": "Spring", "poolId": self.pools[pool]["id"], "recipients": recipients}
        answer = await self.shop.do(CREATE_CAMPAIGN, **values)
        assert answer["__typename"] in {"CreateCampaignSuccess", "PoolExhausted"}, answer
        if answer["__typename"] == "CreateCampaignSuccess":
            assert answer["campaign"]["recipientCount"] == len(set(people))
            self.sent.update(people)

    async def enrol(self, person: int, *, verified: bool) -> None:
        """Enrol a person, once; a second record of an address that isn't proven is for test_addresses.py."""
        if person in self.members and person not in self.verified:
            return
        values: dict[str, Any] = {"source": "STORE", "email": self.email(person), "emailVerified": verified}
        answer = await self.shop.do(ENROLL_MEMBER, **values)
        assert (answer["__typename"] == "EnrollMemberSuccess") is (person not in self.members)
        if person not in self.members:
            self.members[person] = answer["member"]["id"]
            self.verified |= {person} if verified else set()

    async def verify(self, person: int) -> None:
        """Verify the address of a person that has a record."""
        if person in self.members:
            answer = await self.shop.do(VERIFY_MEMBER_EMAIL, memberId=self.members[person])
            assert answer["member"]["emailVerified"] is True
            self.verified.add(person)

    async def redeem(self, person: int, number: int, *, by_member: bool) -> None:
        """Present one of the codes that claims gave, whosever it is."""
        if not self.texts:
            return
        text = list(self.texts.values())[number % len(self.texts)]
        by = {"memberId": self.members[person]} if by_member and person in self.members else {}
        presented: dict[str, Any] = {"codes": [text], "orderId": f"order {self.orders}", "orderAmount": usd(100)}
        answer = await self.shop.do(REDEEM_CODES, **presented, **(by or {"email": self.email(person)}))
        assert answer["__typename"] in {"RedeemCodesSuccess", "CodesRejected"}
        self.orders += 1

    async def step(self, what: str, *args: Any) -> None:
        """Do one step."""
        if what == "claim as member":
            person, pool, key = args
            if person in self.members:
                await self.claim("member", person, pool, key)
        elif what == "claim by address":
            await self.claim("address", *args)
        elif what == "send":
            people, pool, by_member = args
            await self.send(people, pool, by_member=by_member)
        elif what == "enrol":
            await self.enrol(args[0], verified=args[1])
        elif what == "verify":
            await self.verify(args[0])
        else:
            person, number, by_member = args
            await self.redeem(person, number, by_member=by_member)


@settings(
    deadline=None,
    max_examples=size(5, 100),
    derandomize=not FULL,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    steps=STEPS,
    limits=st.lists(st.integers(1, 3), min_size=POOLS, max_size=POOLS),
    codes=st.lists(st.integers(1, 8), min_size=POOLS, max_size=POOLS),
    falls_back=st.booleans(),
)
async def test_any_history_keeps_the_promises(
    shop: Shop, steps: list[tuple[Any, ...]], limits: list[int], codes: list[int], falls_back: bool
) -> None:
    async with open_shop(shop.url) as fresh:
        await _live(fresh, steps, limits, codes, falls_back=falls_back)
        assert await fresh.broken_promises() == []


async def _live(
    shop: Shop, steps: list[tuple[Any, ...]], limits: list[int], codes: list[int], *, falls_back: bool
) -> None:
    pools: list[Any] = []
    for limit, count in zip(limits, codes, strict=True):
        fallback = {"fallbackPoolId": pools[-1]["id"]} if pools and falls_back else {}
        pools.append(await shop.pool(codes=count, claimsPerMember=limit, **fallback))
    world = World(shop, pools)

    for step in steps:
        await world.step(*step)

    assert await breaches(shop) == {}
    owned: defaultdict[str, set[str]] = defaultdict(set)
    for edge in (await shop.data(OWNERS))["codes"]["edges"]:
        if edge["node"]["owner"] is not None:
            owned[edge["node"]["owner"]["id"]].add(edge["node"]["id"])
    wallets = {edge["node"]["id"]: edge["node"] for edge in (await shop.data(WALLETS))["members"]["edges"]}
    assert wallets.keys() == set(world.members.values())
    for person, member in world.members.items():
        listed = [edge["node"]["id"] for edge in wallets[member]["wallet"]["codes"]["edges"]]
        assert len(listed) == len(set(listed))
        assert set(listed) == owned[member]
        assert wallets[member]["emailVerified"] is (person in world.verified)
        # What claims gave to the member, or to its address once that counted or before, is in its wallet.
        names = {"member", "address"} if person in world.verified else {"member"}
        for (name, who, _), kept in world.given.items():
            if who == person and name in names:
                assert set(kept) <= set(listed)
