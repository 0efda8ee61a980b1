"""Any order through the API. Without these checkCodes and redeemCodes could answer differently for the same codes."""

import itertools
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.coupons.ownership import claim_by_email
from tests.factories import CHANGE_STATUS, CHECK_CODES, REDEEM_CODES, Shop, usd
from tests.orders.presented import NEVER_ISSUED, expire
from tests.sizes import FULL, size

_numbers = itertools.count(1)
SHARES = st.integers(1, 1_000_000).map(lambda tenthousandths: tenthousandths / 10_000)
AMOUNTS = st.integers(1, 8_000)


@dataclass(frozen=True)
class Presented:
    """A code of a pool of its own, and what became of it before it is presented."""

    terms: tuple[tuple[str, Any], ...]
    minimum: int | None
    is_stackable: bool
    is_transferable: bool
    owner: str
    fate: str


VALUES = st.one_of(
    st.builds(lambda share: (("percentOff", share),), SHARES),
    st.builds(lambda share, most: (("percentOff", share), ("maximumDiscount", most)), SHARES, AMOUNTS),
    st.builds(lambda amount: (("kind", "AMOUNT"), ("amountOff", amount)), AMOUNTS),
    st.just((("kind", "GIFT"), ("giftSku", "MUG-1"))),
)
ALWAYS = st.sampled_from([True])
MOSTLY = st.sampled_from([True, True, True, True, False])
#: Whose a code is: claimed by the member, with its verified address, with an address that is nobody's, by another one.
OWNERS = ["member", "address of the member", "address of nobody"]
#: Who presents: what the checkout tells of it.
PRESENTERS = [
    "member", "address of the member", "address of nobody", "member with the address of nobody",
    "another with the address of the member", "no one",
]  # fmt: skip
CODES = st.builds(
    Presented,
    terms=VALUES,
    minimum=st.none() | st.none() | AMOUNTS,
    is_stackable=MOSTLY,
    is_transferable=st.booleans(),
    owner=st.sampled_from([*OWNERS * 2, "another"]),
    fate=st.sampled_from(["good"] * 9 + ["expired", "paused", "redeemed", "unknown"]),
)
GOOD_CODES = st.builds(
    Presented,
    terms=VALUES,
    minimum=st.none(),
    is_stackable=ALWAYS,
    is_transferable=st.booleans(),
    owner=st.sampled_from(OWNERS),
    fate=st.just("good"),
)


@dataclass(frozen=True)
class Order:
    """Codes and what they are presented for."""

    codes: list[Presented]
    amount: int
    currency: str
    presenter: str


ORDERS = st.builds(
    Order,
    codes=st.lists(CODES, min_size=1, max_size=4),
    amount=st.integers(0, 10_000),
    currency=st.sampled_from(["USD", "USD", "USD", "USD", "EUR"]),
    presenter=st.sampled_from(PRESENTERS),
)
GOOD_ORDERS = st.builds(
    Order,
    codes=st.lists(GOOD_CODES, min_size=1, max_size=5),
    amount=st.integers(0, 10_000),
    currency=st.just("USD"),
    presenter=st.just("member with the address of nobody"),
)
MODEST = settings(
    deadline=None,
    max_examples=size(12, 100),
    derandomize=not FULL,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@dataclass(frozen=True)
class People:
    """A member with a verified address, another one, and an address that is nobody's."""

    member: Any
    address: str
    other: Any
    stranger: str

    def named(self, who: str) -> dict[str, str]:
        """Return how a checkout names somebody: by id, by address, by both or not at all."""
        by_id, by_address = {"memberId": self.member["id"]}, {"email": self.address.upper()}
        return {
            "member": by_id,
            "another": {"memberId": self.other["id"]},
            "address of the member": by_address,
            "address of nobody": {"email": self.stranger},
            "member with the address of nobody": by_id | {"email": self.stranger},
            "another with the address of the member": by_address | {"memberId": self.other["id"]},
            "no one": {},
        }[who]


async def prepare(shop: Shop, code: Presented, people: People) -> str:
    """Make the code in its state, and return what is typed."""
    if code.fate == "unknown":
        return NEVER_ISSUED
    money = {"amountOff", "maximumDiscount"}
    terms: dict[str, Any] = {field: usd(value) if field in money else value for field, value in code.terms}
    if code.minimum is not None:
        terms["minimumSpend"] = usd(code.minimum)
    pool = await shop.pool(
        codes=1,
        stacking="STACKABLE" if code.is_stackable else "EXCLUSIVE",
        transferable=code.is_transferable,
        **terms,
    )
    owner = people.named(code.owner)
    if "email" in owner:
        claimed = await claim_by_email(shop, pool, owner["email"])
    else:
        claimed = await shop.claim(pool, {"id": owner["memberId"]})
    if code.fate == "expired":
        await expire(shop, claimed)
    if code.fate == "paused":
        await shop.do(CHANGE_STATUS % "pausePool", poolId=pool["id"])
    if code.fate == "redeemed":
        order: dict[str, Any] = {"orderId": f"order of {claimed['id']}", "orderAmount": usd(10**6)}
        redeemed = await shop.do(REDEEM_CODES, codes=[claimed["text"]], **order, **owner)
        assert redeemed["__typename"] == "RedeemCodesSuccess"
    text: str = claimed["text"]
    return text


def comparable(answer: Any) -> Any:
    """Return an answer without what only redeeming makes: ids, instants and the wallet's next version."""
    return answer | {
        "redemptions": [
            {
                "position": each["position"],
                "orderId": each["orderId"],
                "orderAmount": each["orderAmount"],
                "base": each["base"],
                "discount": each["discount"],
                "code": (each["code"]["id"], each["code"]["masked"], each["code"]["text"], each["code"]["state"]),
            }
            for each in answer.get("redemptions", [])
        ]
    }


async def check_and_redeem(shop: Shop, order: Order) -> tuple[dict[str, Any], Any]:
    """Check an order and redeem it; both must say the same. Returns the input and what redeeming answered."""
    address = f"member-{next(_numbers)}@example.com"
    member, other = await shop.member(email=address, emailVerified=True), await shop.member()
    people = People(member, address, other, f"stranger-of-{address}")
    texts = list(dict.fromkeys([await prepare(shop, code, people) for code in order.codes]))
    presented: dict[str, Any] = {
        "codes": texts,
        "orderId": f"order of {member['id']}",
        "orderAmount": {"amountMinor": order.amount, "currency": order.currency},
    } | people.named(order.presenter)
    before = await shop.state()

    checked = await shop.do(CHECK_CODES, **presented)
    assert await shop.state() == before
    redeemed = await shop.do(REDEEM_CODES, **presented)

    assert comparable(checked) == comparable(redeemed)
    after = await shop.state()
    if redeemed["__typename"] != "RedeemCodesSuccess":
        assert redeemed["__typename"] == "CodesRejected"
        assert 1 <= len(redeemed["rejections"]) <= len(texts)
        assert after == before
    else:
        grown = after.since(before)
        assert grown.items() >= {"redemption": len(texts), "event": len(texts), "code": 0}.items()
        assert grown.keys() <= {"sales_order", "redemption", "event", "code", "wallet", "stock_change"}
        assert grown["sales_order"] == 1
    return presented, redeemed


@MODEST
@given(ORDERS)
async def test_a_check_of_any_order_is_what_redeeming_answers(shop: Shop, order: Order) -> None:
    await check_and_redeem(shop, order)


@MODEST
@given(GOOD_ORDERS)
async def test_good_codes_share_the_order_and_a_retry_is_the_same_answer(shop: Shop, order: Order) -> None:
    presented, redeemed = await check_and_redeem(shop, order)
    after = await shop.state()

    if redeemed["__typename"] == "CodesRejected":
        assert {rejection["reason"] for rejection in redeemed["rejections"]} == {"NO_DISCOUNT"}
        return
    left = order.amount
    for position, each in enumerate(redeemed["redemptions"], start=1):
        assert each["position"] == position
        assert each["base"]["amountMinor"] == left
        assert 0 <= each["discount"]["amountMinor"] <= left
        left -= each["discount"]["amountMinor"]
    assert redeemed["totalDiscount"] == {"amountMinor": order.amount - left, "currency": "USD"}
    again = await shop.do(REDEEM_CODES, **presented)
    assert again == redeemed | {"replayed": True}
    assert await shop.do(CHECK_CODES, **presented) == again
    assert await shop.state() == after
