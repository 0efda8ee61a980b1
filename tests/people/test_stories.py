"""Stories of people and addresses, as shops tell them. Without these the rules could hold and help nobody."""

from dataclasses import dataclass
from typing import Any

import pytest

from tests.coupons.ownership import breaches
from tests.factories import (
    CLAIM_CODE,
    CREATE_CAMPAIGN,
    EDIT_MEMBER,
    ENROLL_MEMBER,
    ISSUE_MEMBER_TOKEN,
    REDEEM_CODES,
    VERIFY_MEMBER_EMAIL,
    Shop,
    usd,
)
from tests.points.documents import RECORD

WALLET = "{ wallet { points codes(first: 50) { edges { node { text state } } } } }"
MAILS = """
query ($id: ID!) { campaign(id: $id) { deliveries(first: 50) { edges { node { recipient code { text } } } } } }
"""
FIND = """
query ($externalId: String, $externalSource: MemberSource, $email: String) {
  member(externalId: $externalId, externalSource: $externalSource, email: $email) {
    id maskedEmail emailVerified pendingMaskedEmail
  }
}
"""
OF_SOMEBODY_ELSE = "NOT_OWNER"


@dataclass
class Store:
    """A shop as its staff speaks of it: its till, its web site, its mailer and its support."""

    shop: Shop
    checkout: str

    async def enrols(self, **person: Any) -> Any:
        """Enrol somebody at the till."""
        answer = await self.shop.do(ENROLL_MEMBER, key=self.checkout, **({"source": "STORE"} | person))
        return answer.get("member") or answer

    async def hears_that_a_link_was_followed(self, person: Any, email: str) -> Any:
        """Record the proof that the site made by a link in a mail."""
        return await self.shop.do(VERIFY_MEMBER_EMAIL, key=self.checkout, memberId=person["id"], email=email)

    async def support_edits(self, person: Any, **change: Any) -> Any:
        """Edit a member."""
        return await self.shop.do(EDIT_MEMBER, memberId=person["id"], **change)

    async def gives_a_coupon(self, pool: Any, **who: Any) -> str:
        """Claim a code for a member or an address, and return its text."""
        answer = await self.shop.do(CLAIM_CODE, key=self.checkout, poolId=pool["id"], **who)
        return str(answer["code"]["text"] if "code" in answer else answer["__typename"])

    async def is_shown(self, coupon: str, **by: Any) -> str:
        """Redeem a code at the till. Returns REDEEMED, or why not."""
        order: dict[str, Any] = {"codes": [coupon], "orderId": f"order of {coupon}", "orderAmount": usd(1000)}
        answer = await self.shop.do(REDEEM_CODES, key=self.checkout, **order, **by)
        return str(answer["rejections"][0]["reason"] if "rejections" in answer else "REDEEMED")

    async def sells(self, order: str, amount: int, **to: Any) -> str:
        """Record a purchase. Returns what came of it."""
        answer = await self.shop.do(
            RECORD, key=self.checkout, orderId=order, amount=usd(amount), **({"source": "STORE"} | to)
        )
        return str(answer["__typename"])

    async def mails(self, pool: Any, *recipients: dict[str, str]) -> str:
        """Send a campaign and return its id."""
        answer = await self.shop.do(CREATE_CAMPAIGN, name="Spring", poolId=pool["id"], recipients=list(recipients))
        return str(answer["campaign"]["id"])

    async def mailbag(self, campaign: str) -> dict[str, str]:
        """Return what the mailer sends: a code's text by its recipient."""
        found = (await self.shop.data(MAILS, {"id": campaign}))["campaign"]["deliveries"]["edges"]
        return {edge["node"]["recipient"]: edge["node"]["code"]["text"] for edge in found}

    async def finds(self, **key: Any) -> Any:
        """Look a member up by what the till knows."""
        return (await self.shop.data(FIND, key, key=self.checkout))["member"]

    async def app_of(self, person: Any) -> tuple[int, set[str]]:
        """Return the points and the live codes that a member sees in its own app."""
        issued = await self.shop.do(ISSUE_MEMBER_TOKEN, key=self.checkout, memberId=person["id"])
        wallet = (await self.shop.data(WALLET, key=issued["token"]))["wallet"]
        nodes = [edge["node"] for edge in wallet["codes"]["edges"]]
        return wallet["points"], {node["text"] for node in nodes if node["state"] == "ALLOCATED"}


@pytest.fixture
async def store(shop: Shop) -> Store:
    return Store(shop, await shop.key("CHECKOUT"))


# ------------------------------------------------------------------------------------------------------ addresses


async def test_the_till_misheard_anna_and_support_corrects_it(store: Store) -> None:
    """Anna said "anna", the till wrote "hanna". Whoever reads Hanna's mail can't prove Anna's membership any more."""
    anna = await store.enrols(displayName="Anna", email="hanna@example.com")
    welcome = await store.gives_a_coupon(await store.shop.pool(), memberId=anna["id"])

    await store.support_edits(anna, email="anna@example.com")

    late = await store.hears_that_a_link_was_followed(anna, "hanna@example.com")
    assert late["__typename"] == "InvalidInput"
    assert (await store.hears_that_a_link_was_followed(anna, "anna@example.com"))["displaced"] == []
    assert await store.app_of(anna) == (0, {welcome})
    assert await store.is_shown(welcome, email="anna@example.com") == "REDEEMED"


async def test_somebody_typed_janes_address_into_the_web_form(store: Store) -> None:
    """Jane has a coupon from the newsletter. A stranger signs up with her address; she gets her coupon all the same."""
    coupon = await store.gives_a_coupon(await store.shop.pool(), email="jane@example.com")
    stranger = await store.enrols(source="SHOPIFY", email="jane@example.com")

    jane = await store.enrols(email="Jane@Example.com", emailVerified=True)

    assert await store.app_of(jane) == (0, {coupon})
    assert await store.app_of(stranger) == (0, set())
    assert await store.is_shown(coupon, memberId=stranger["id"]) == OF_SOMEBODY_ELSE
    assert (await store.finds(email="jane@example.com"))["id"] == jane["id"]


async def test_a_couple_gave_one_mailbox(store: Store) -> None:
    """Both gave the address of their household. Eva follows her link; Adam keeps what he has, and gives his own."""
    eva = await store.enrols(displayName="Eva", email="the.millers@example.com")
    adam = await store.enrols(displayName="Adam", email="the.millers@example.com")
    his = await store.gives_a_coupon(await store.shop.pool(), memberId=adam["id"])

    proof = await store.hears_that_a_link_was_followed(eva, "the.millers@example.com")

    assert proof["displaced"] == [{"id": adam["id"]}]
    assert await store.app_of(adam) == (0, {his})
    assert await store.is_shown(his, email="the.millers@example.com") == OF_SOMEBODY_ELSE
    await store.support_edits(adam, email="adam@example.com")
    await store.hears_that_a_link_was_followed(adam, "adam@example.com")
    assert await store.is_shown(his, email="adam@example.com") == "REDEEMED"


async def test_tom_changes_his_provider(store: Store) -> None:
    """Until Tom has followed the link in the new mailbox, the old one is his; from then on only the new one."""
    tom = await store.enrols(email="tom@old.example.com", emailVerified=True)
    pools = [await store.shop.pool() for _ in range(2)]
    first, second = [await store.gives_a_coupon(pool, email="tom@old.example.com") for pool in pools]

    await store.support_edits(tom, email="tom@new.example.com")

    seen = await store.finds(email="tom@old.example.com")
    assert (seen["maskedEmail"], seen["pendingMaskedEmail"]) == ("t•••@old.example.com", "t•••@new.example.com")
    assert await store.finds(email="tom@new.example.com") is None
    assert await store.is_shown(first, email="tom@old.example.com") == "REDEEMED"
    await store.hears_that_a_link_was_followed(tom, "tom@new.example.com")
    assert await store.is_shown(second, email="tom@old.example.com") == OF_SOMEBODY_ELSE
    assert await store.is_shown(second, email="tom@new.example.com") == "REDEEMED"


async def test_the_office_gives_a_desk_and_its_address_to_a_successor(store: Store) -> None:
    """Ruth leaves the company. Who gets her old address gets her desk, and none of her coupons."""
    pool = await store.shop.pool()
    ruth = await store.enrols(email="sales@office.example.com", emailVerified=True)
    hers = await store.gives_a_coupon(pool, email="sales@office.example.com")
    await store.support_edits(ruth, email="ruth@example.com", emailVerified=True)

    successor = await store.enrols(email="sales@office.example.com", emailVerified=True)

    theirs = await store.gives_a_coupon(pool, email="sales@office.example.com")
    assert theirs != hers
    assert await store.app_of(successor) == (0, {theirs})
    assert await store.app_of(ruth) == (0, {hers})
    assert await store.is_shown(hers, email="sales@office.example.com") == OF_SOMEBODY_ELSE


async def test_a_coupon_came_before_the_membership(store: Store) -> None:
    """Ida took a coupon by mail, and the till enrols her without a proof. It is hers once she follows a link."""
    coupon = await store.gives_a_coupon(await store.shop.pool(), email="ida@example.com")
    ida = await store.enrols(email="ida@example.com")

    assert await store.app_of(ida) == (0, set())
    await store.hears_that_a_link_was_followed(ida, "ida@example.com")
    assert await store.app_of(ida) == (0, {coupon})


async def test_the_clerk_ticked_verified_for_the_wrong_smith(store: Store) -> None:
    """Support withdraws the proof, and the right Smith proves the address. What comes from now on is that one's."""
    wrong = await store.enrols(displayName="W. Smith", email="smith@example.com", emailVerified=True)
    right = await store.enrols(displayName="R. Smith")

    await store.support_edits(wrong, emailVerified=False)
    taken = await store.support_edits(right, email="smith@example.com", emailVerified=True)

    assert taken["displaced"] == [{"id": wrong["id"]}]
    coupon = await store.gives_a_coupon(await store.shop.pool(), email="smith@example.com")
    assert await store.app_of(right) == (0, {coupon})
    assert await store.app_of(wrong) == (0, set())


async def test_lea_types_the_address_of_another_customer(store: Store) -> None:
    """She is told at once, and the clerk sees whose it is; nothing of hers or the other's changes."""
    kim = await store.enrols(email="lee@example.com", emailVerified=True)
    lea = await store.enrols(email="lea@example.com", emailVerified=True)

    told = await store.support_edits(lea, email="lee@example.com")
    again = await store.enrols(source="SHOPIFY", email="lee@example.com")

    assert [each["__typename"] for each in (told, again)] == ["MemberAlreadyExists"] * 2
    assert [each["existing"] for each in (told, again)] == [{"id": kim["id"]}] * 2
    assert (await store.finds(email="lea@example.com"))["id"] == lea["id"]


async def test_max_corrects_himself_twice(store: Store) -> None:
    """Two mails are under way. Only the link in the second one proves anything."""
    max_ = await store.enrols(email="max@example.com", emailVerified=True)
    await store.support_edits(max_, email="max@exmaple.com")
    await store.support_edits(max_, email="max@work.example.com")

    first = await store.hears_that_a_link_was_followed(max_, "max@exmaple.com")
    second = await store.hears_that_a_link_was_followed(max_, "max@work.example.com")

    assert (first["__typename"], second["__typename"]) == ("InvalidInput", "VerifyMemberEmailSuccess")
    assert await store.finds(email="max@example.com") is None
    assert (await store.finds(email="max@work.example.com"))["id"] == max_["id"]


async def test_nora_wants_no_mail_any_more(store: Store) -> None:
    """Her address goes; her coupons and points stay, and her card still works."""
    nora = await store.enrols(externalId="card-9", email="nora@example.com", emailVerified=True)
    coupon = await store.gives_a_coupon(await store.shop.pool(), email="nora@example.com")
    await store.sells("1", 2500, member={"email": "nora@example.com"})

    await store.support_edits(nora, email=None)

    assert await store.app_of(nora) == (25, {coupon})
    assert await store.sells("2", 2500, member={"email": "nora@example.com"}) == "NotFound"
    assert await store.is_shown(coupon, email="nora@example.com") == OF_SOMEBODY_ELSE
    assert await store.is_shown(coupon, member={"externalId": "card-9"}) == "REDEEMED"


async def test_the_spring_mailing_goes_out_twice(store: Store) -> None:
    """Once when Otto was a stranger; and once after he joined, moved, and proved another address. He has one coupon."""
    pool = await store.shop.pool()
    first = await store.mails(pool, {"email": "otto@example.com"}, {"email": "pia@example.com"})
    coupon = (await store.mailbag(first))["otto@example.com"]
    otto = await store.enrols(email="otto@example.com", emailVerified=True)
    await store.support_edits(otto, email="otto@new.example.com", emailVerified=True)

    second = await store.mails(pool, {"email": "otto@new.example.com"}, {"memberId": otto["id"]})

    assert await store.mailbag(second) == {"otto@new.example.com": coupon}
    assert set(await store.mailbag(first)) == {"otto@new.example.com", "pia@example.com"}
    assert await store.app_of(otto) == (0, {coupon})


# ----------------------------------------------------------------------------------------------------------- names


async def test_two_people_are_number_1001(store: Store) -> None:
    """The till's 1001 is Ben, the web shop's is Cleo. Each is credited for what it bought."""
    ben = await store.enrols(externalId="1001")
    cleo = await store.enrols(source="SHOPIFY", externalId="1001")

    await store.sells("A", 1000, member={"externalId": "1001"})
    await store.sells("A", 3000, source="SHOPIFY", member={"externalId": "1001", "externalSource": "SHOPIFY"})

    assert (await store.app_of(ben), await store.app_of(cleo)) == ((10, set()), (30, set()))


async def test_one_person_is_known_to_every_channel_by_another_number(store: Store) -> None:
    """Dora has a card, a web account and the receipt app; all of them fill one wallet."""
    dora = await store.enrols(externalId="card-1", email="dora@example.com", emailVerified=True)
    await store.support_edits(dora, externalId="gid-1", externalSource="SHOPIFY")
    await store.support_edits(dora, externalId="app-1", externalSource="RECEIPT")
    keys: list[dict[str, Any]] = [
        {"externalId": "card-1"},
        {"externalId": "gid-1", "externalSource": "SHOPIFY"},
        {"externalId": "app-1", "externalSource": "RECEIPT"},
        {"email": "dora@example.com"},
    ]

    for number, key in enumerate(keys):
        assert await store.sells(f"{number}", 1000, member=key) == "RecordPurchaseSuccess"
        assert (await store.finds(**key))["id"] == dora["id"]

    assert await store.app_of(dora) == (40, set())


async def test_finn_lost_his_card(store: Store) -> None:
    """His new card is his; the lost one buys nothing for anybody until the store gives its number to somebody else."""
    finn = await store.enrols(externalId="card-1")
    coupon = await store.gives_a_coupon(await store.shop.pool(), member={"externalId": "card-1"})

    await store.support_edits(finn, externalId="card-2")

    assert await store.sells("1", 1000, member={"externalId": "card-1"}) == "NotFound"
    assert await store.is_shown(coupon, member={"externalId": "card-1"}) == OF_SOMEBODY_ELSE
    assert await store.is_shown(coupon, member={"externalId": "card-2"}) == "REDEEMED"
    assert (await store.enrols(externalId="card-1"))["externalId"] == "card-1"


async def test_the_till_was_offline_and_enrols_gus_again(store: Store) -> None:
    """It is told who he is, and goes on with that record."""
    gus = await store.enrols(externalId="77", email="gus@example.com", emailVerified=True)

    again = await store.enrols(externalId="77", displayName="Gus")
    by_mail = await store.enrols(externalId="78", email=" GUS@example.com ")

    assert [each["existing"] for each in (again, by_mail)] == [{"id": gus["id"]}] * 2
    assert await store.finds(externalId="78") is None


async def test_hugo_opens_a_web_account_with_the_number_of_his_card(store: Store) -> None:
    """The web shop enrols him anew. His card is taken, so he finds his old record instead, and the shop adds its id."""
    hugo = await store.enrols(externalId="card-5", displayName="Hugo")

    told = await store.enrols(source="SHOPIFY", externalId="card-5", externalSource="STORE", displayName="Hugo")
    edited = await store.support_edits(hugo, externalId="gid-5", externalSource="SHOPIFY")

    assert told["existing"] == {"id": hugo["id"]}
    ids = {each["source"]: each["id"] for each in edited["member"]["externalIds"]}
    assert ids == {"SHOPIFY": "gid-5", "STORE": "card-5"}
    for source, number in ids.items():
        key = {"externalId": number, "externalSource": source}
        assert await store.sells(number, 500, member=key) == "RecordPurchaseSuccess"
    assert await store.app_of(hugo) == (10, set())
    assert await breaches(store.shop) == {}
