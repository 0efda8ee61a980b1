"""Any history of addresses. Without this one that nobody thought of could hand a person's codes to somebody else.

What should stand after each step is worked out from the rules alone: who has proved what, who has written what down,
and whose each code is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.coupons.ownership import breaches
from tests.coupons.test_ownership import NOBODY
from tests.factories import (
    CLAIM_CODE,
    CREATE_CAMPAIGN,
    EDIT_MEMBER,
    ENROLL_MEMBER,
    REDEEM_CODES,
    VERIFY_MEMBER_EMAIL,
    Shop,
    open_shop,
    usd,
)
from tests.people.documents import addresses
from tests.sizes import FULL, size

EMAILS = ("anna@example.com", "bert@example.com", "cleo@example.com")
POOLS = 2
OWNERS = "{ codes(first: 100) { edges { node { id owner { id } } } } }"
WALLET = "{ wallet { codes(first: 100) { edges { node { id text } } } } }"
DELIVERIES = """
query ($id: ID!) { campaign(id: $id) { deliveries(first: 20) { edges { node { recipient code { id text } } } } } }
"""

EMAIL = st.sampled_from(EMAILS)
NEW_EMAIL = st.just("as it is") | st.none() | EMAIL | EMAIL
#: A member by its number, of however many there are then.
WHO = st.integers(0, 3)
POOL = st.integers(0, POOLS - 1)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("enrol"), st.none() | EMAIL, st.booleans()),
        st.tuples(st.just("prove"), WHO, st.none() | EMAIL),
        st.tuples(st.just("edit"), WHO, NEW_EMAIL, st.sampled_from([None, True, False])),
        st.tuples(st.just("claim as member"), WHO, POOL),
        st.tuples(st.just("claim by address"), EMAIL, POOL),
        st.tuples(st.just("send"), st.lists(WHO | EMAIL, min_size=1, max_size=3), POOL),
        st.tuples(st.just("present"), WHO | EMAIL, st.integers(0, 9)),
    ),
    min_size=6,
    max_size=24,
)


@dataclass
class Person:
    """A member: its present address, whether it is proven, the one that waits, and whether it was ever edited."""

    id: str
    present: str | None
    is_proven: bool
    pending: str | None = None
    is_edited: bool = False

    def masked(self) -> tuple[str | None, bool, str | None]:
        """Return what the API shows of the addresses."""
        present, pending = (
            None if each is None else f"{each[0]}•••@example.com" for each in (self.present, self.pending)
        )
        return present, self.is_proven, pending


def _masked(email: str | None) -> str | None:
    return None if email is None else f"{email[0]}•••@example.com"


@dataclass
class World:
    """What should stand: the people, and whose each code is, an address's or a member's (by its id)."""

    shop: Shop
    pools: list[Any]
    people: list[Person] = field(default_factory=list)
    owners: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    campaigns: list[str] = field(default_factory=list)
    orders: int = 0

    def person(self, number: int) -> Person | None:
        """Return a member by its number, if there is any."""
        return self.people[number % len(self.people)] if self.people else None

    def prover(self, email: str) -> Person | None:
        """Return who has proved an address."""
        return next((each for each in self.people if each.is_proven and each.present == email), None)

    def claimant(self, email: str) -> str:
        """Return who claims by an address: the member that has proved it, or the address."""
        prover = self.prover(email)
        return email if prover is None else prover.id

    def proves(self, person: Person, email: str) -> list[str]:
        """Let somebody prove an address. Returns who loses it."""
        lost = []
        for other in self.people:
            if other is not person and email in {other.present, other.pending}:
                lost.append(other.id)
                other.present = None if other.present == email else other.present
                other.pending = None if other.pending == email else other.pending
        person.present, person.is_proven, person.pending = email, True, None
        self.owners = {code: person.id if owner == email else owner for code, owner in self.owners.items()}
        return lost

    # ------------------------------------------------------------------------------------------------------- steps

    async def enrol(self, email: str | None, verified: bool) -> None:
        """Enrol somebody, perhaps with an address that others have, too."""
        asked: dict[str, Any] = {"source": "STORE", "email": email, "emailVerified": verified and email is not None}
        answer = await self.shop.do(ENROLL_MEMBER, **asked)
        prover = None if email is None else self.prover(email)
        if prover is not None:
            assert (answer["__typename"], answer["existing"]) == ("MemberAlreadyExists", {"id": prover.id})
            return
        person = Person(answer["member"]["id"], email, is_proven=False)
        self.people.append(person)
        lost = self.proves(person, email) if verified and email is not None else []
        assert {each["id"] for each in answer["displaced"]} == set(lost)

    async def prove(self, number: int, named: str | None) -> None:
        """Record a proof, perhaps of an address that isn't the member's."""
        person = self.person(number)
        if person is None:
            return
        asked = {"memberId": person.id} | ({} if named is None else {"email": named})
        answer = await self.shop.do(VERIFY_MEMBER_EMAIL, **asked)
        if named is not None and named not in {person.present, person.pending}:
            expected = "InvalidInput" if self.prover(named) is None else "MemberAlreadyExists"
            assert answer["__typename"] == expected
        elif named is None and (person.present is None or person.is_edited):
            assert answer["__typename"] == "InvalidInput"
        else:
            self._proved(person, named or person.present, answer)

    def _proved(self, person: Person, email: str | None, answer: Any) -> None:
        assert email is not None
        is_new = email != person.present or not person.is_proven
        lost = self.proves(person, email) if is_new else []
        assert {each["id"] for each in answer["displaced"]} == set(lost)

    async def edit(self, number: int, email: str | None, verified: bool | None) -> None:
        """Edit an address, prove it, withdraw a proof, or some of these at once."""
        person = self.person(number)
        if person is None:
            return
        given: dict[str, Any] = {} if email == "as it is" else {"email": email}
        proof = {} if verified is None else {"emailVerified": verified}
        asked = {"memberId": person.id} | given | proof
        answer = await self.shop.do(EDIT_MEMBER, **asked)
        prover = None if email is None or not given else self.prover(email)
        if prover is not None and prover is not person:
            assert answer["__typename"] == "MemberAlreadyExists"
            return
        if verified and (email is None if given else person.present is None):
            assert answer["__typename"] == "InvalidInput"
            return
        if verified is False and person.is_proven:
            person.present, person.is_proven, person.pending = person.pending or person.present, False, None
        if given:
            self._written(person, email)
        if verified:
            self._proved(person, email if given else person.pending or person.present, answer)
        else:
            assert answer["displaced"] == []

    def _written(self, person: Person, email: str | None) -> None:
        """Let a member have an address written down, or none."""
        if email is None:
            person.is_edited = person.is_edited or person.present is not None
            person.present, person.is_proven, person.pending = None, False, None
        elif email == person.present:
            person.pending = None
        elif person.is_proven:
            person.pending, person.is_edited = email, True
        else:
            person.present, person.is_edited = email, True

    async def claim(self, claimant: str, pool: int, **name: str) -> None:
        """Claim a code. Whoever claims is shown what is its own, and nothing else."""
        answer = await self.shop.do(CLAIM_CODE, poolId=self.pools[pool]["id"], **name)
        if answer["__typename"] == "PoolExhausted":
            return
        code = answer["code"]
        assert (code["id"] in self.owners) is answer["replayed"]
        assert self.owners.setdefault(code["id"], claimant) == claimant
        self.texts[code["id"]] = code["text"]

    async def send(self, recipients: Sequence[int | str], pool: int) -> None:
        """Send a campaign to members and addresses, and read what the mailer reads."""
        named = [{"email": each} if isinstance(each, str) else {"memberId": self._id(each)} for each in recipients]
        asked: dict[str, Any] = {"name": "Spring", "poolId": self.pools[pool]["id"], "recipients": named}
        answer = await self.shop.do(CREATE_CAMPAIGN, **asked)
        if answer["__typename"] == "CreateCampaignSuccess":
            self.campaigns.append(answer["campaign"]["id"])
            await self.read_deliveries(answer["campaign"]["id"], is_new=True)

    def _id(self, number: int) -> str:
        person = self.person(number)
        return NOBODY if person is None else person.id

    async def read_deliveries(self, campaign_id: str, *, is_new: bool = False) -> None:
        """Read a campaign's deliveries: each code goes to its owner, wherever that one's mail goes now."""
        found = (await self.shop.data(DELIVERIES, {"id": campaign_id}))["campaign"]["deliveries"]["edges"]
        for delivery in (edge["node"] for edge in found):
            recipient, code = delivery["recipient"], delivery["code"]
            reached = recipient if recipient.startswith("member_") else self.claimant(recipient)
            if is_new:
                self.owners.setdefault(code["id"], reached)
                self.texts[code["id"]] = code["text"]
            assert self.owners[code["id"]] == reached

    async def present(self, presenter: int | str, number: int) -> None:
        """Present a code whose text somebody has seen, by member or by address."""
        if not self.texts or (isinstance(presenter, int) and not self.people):
            return
        code_id, text = list(self.texts.items())[number % len(self.texts)]
        if isinstance(presenter, str):
            named, owner = {"email": presenter}, self.claimant(presenter)
        else:
            owner = self._id(presenter)
            named = {"memberId": owner}
        order: dict[str, Any] = {"codes": [text], "orderId": f"order {self.orders}", "orderAmount": usd(100)}
        answer = await self.shop.do(REDEEM_CODES, **order, **named)
        self.orders += 1
        reasons = {rejection["reason"] for rejection in answer.get("rejections", [])}
        assert ("NOT_OWNER" in reasons) is (self.owners[code_id] != owner)
        for redemption in answer.get("redemptions", []):
            assert redemption["code"]["text"] is None

    async def step(self, what: str, *args: Any) -> None:
        """Do one step."""
        if what == "claim by address":
            email, pool = args
            await self.claim(self.claimant(email), pool, email=email)
        elif what == "claim as member":
            person = self.person(args[0])
            if person is not None:
                await self.claim(person.id, args[1], memberId=person.id)
        else:
            await getattr(self, what)(*args)


@settings(
    deadline=None,
    max_examples=size(6, 150),
    derandomize=not FULL,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS, limit=st.integers(1, 2))
async def test_whatever_becomes_of_addresses_a_code_is_its_owners(
    shop: Shop, steps: list[tuple[Any, ...]], limit: int
) -> None:
    async with open_shop(shop.url) as fresh:
        world = World(fresh, [await fresh.pool(codes=8, claimsPerMember=limit) for _ in range(POOLS)])

        for step in steps:
            await world.step(*step)

        assert await breaches(fresh) == {}
        assert await fresh.broken_promises() == []
        edges = (await fresh.data(OWNERS))["codes"]["edges"]
        shown = {edge["node"]["id"]: edge["node"]["owner"] for edge in edges}
        for code_id, owner in world.owners.items():
            assert shown[code_id] == ({"id": owner} if owner.startswith("member_") else None)
        for campaign_id in world.campaigns:
            await world.read_deliveries(campaign_id)
        for person in world.people:
            assert await addresses(fresh, {"id": person.id}) == person.masked()
            wallet = (await fresh.data(WALLET, key=await fresh.token(person.id)))["wallet"]["codes"]["edges"]
            assert {edge["node"]["id"] for edge in wallet} == {
                code_id for code_id, owner in world.owners.items() if owner == person.id
            }
