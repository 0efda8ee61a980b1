"""Holds of rewards. Without these a mug could be promised to two carts, or be paid for and not be there."""

import asyncio
from typing import Any

import pytest

from app import ids
from app.orders.expire_holds import expire_holds
from app.storage.database import transaction
from tests.coupons.ownership import claim_by_email
from tests.coupons.test_audience import claimed, proved
from tests.coupons.test_offers import offered
from tests.factories import CHANGE_STATUS, CLAIM_CODE, CREATE_CAMPAIGN, VERIFY_MEMBER_EMAIL, Shop, problems, usd
from tests.orders.documents import CANCEL, cancellation, stackable
from tests.orders.holding import CAPTURE, EXTEND, HOLD, RELEASE, cart, hold, let_pass, read
from tests.orders.test_holds_of_points import entries, rich, wallet
from tests.points.documents import RETIRE_REWARD, grant, reward
from tests.points.documents import redeem as redeem_reward
from tests.races.storm import until_somebody_waits

OWN = "query ($id: ID!) { member(id: $id) { wallet { codes(first: 9) { edges { node { state } } } } } }"
LOCK = "SELECT FROM hold WHERE merchant_id = $1 AND id = $2 FOR UPDATE"
STOCK = "query { rewards(first: 100) { edges { node { id stock } } } }"


def of(*rewards: Any) -> list[str]:
    """Return the ids of rewards."""
    return [each["id"] for each in rewards]


async def stock(shop: Shop, wanted: Any) -> int | None:
    """Return how often a reward can be had."""
    found = (await shop.data(STOCK))["rewards"]["edges"]
    left: int | None = next(edge["node"]["stock"] for edge in found if edge["node"]["id"] == wanted["id"])
    return left


async def with_rewards(shop: Shop, rewards: list[Any], member: Any, **input: Any) -> Any:
    """Hold rewards for an order of a member, and return the answer."""
    return await shop.do(HOLD, **cart([], member, rewardIds=of(*rewards), **input))


async def test_a_reward_is_held_with_its_points_and_its_stock_and_had_when_captured(shop: Shop) -> None:
    member = await rich(shop)
    mug = await reward(shop, cost=50, stock=3)
    (code,) = await stackable(shop, member, 1)

    held = await hold(shop, [code], member, points=100, rewardIds=of(mug, mug))

    assert held["rewards"] == [{"cost": 50, "reward": {"id": mug["id"], "stock": 1}, "redemption": None}] * 2
    assert (held["points"], held["amountDue"]) == (100, usd(8_900))
    assert await wallet(shop, member) == (1_000, 200, 800)
    assert await stock(shop, mug) == 1
    assert await shop.broken_promises() == []
    captured = (await shop.do(CAPTURE, holdId=held["id"]))["hold"]
    assert [each["redemption"]["entry"] for each in captured["rewards"]] == [{"amount": -50, "reason": "REWARD"}] * 2
    assert await wallet(shop, member) == (800, 0, 800)
    assert await stock(shop, mug) == 1
    assert sorted(await entries(shop, member))[:3] == [("ADJUSTMENT", 1_000), ("PAYMENT", -100), ("REWARD", -50)]
    assert await shop.broken_promises() == []


async def test_the_code_of_a_reward_is_set_aside_and_nobodys_until_then(shop: Shop) -> None:
    member = await rich(shop)
    pool = await shop.pool(codes=2)
    voucher = await reward(shop, cost=50, poolId=pool["id"])

    held = (await with_rewards(shop, [voucher], member))["hold"]

    assert await shop.stock(pool) == {
        "total": 2, "available": 1, "allocated": 1, "redeemed": 0, "expired": 0, "revoked": 0
    }  # fmt: skip
    listed = await shop.data(
        "query ($id: ID!) { pool(id: $id) { codes(first: 9) { edges { node { state heldUntil owner { id } } } } } }",
        {"id": pool["id"]},
    )
    states = sorted(edge["node"]["state"] for edge in listed["pool"]["codes"]["edges"])
    assert states == ["ALLOCATED", "AVAILABLE"]
    assert await shop.broken_promises() == []
    await shop.do(CHANGE_STATUS % "pausePool", poolId=pool["id"])
    await shop.do(RETIRE_REWARD, rewardId=voucher["id"])
    captured = (await shop.do(CAPTURE, holdId=held["id"]))["hold"]
    assert captured["rewards"][0]["redemption"]["code"]["state"] == "ALLOCATED"
    assert captured["member"]["wallet"]["version"] == 4
    assert await wallet(shop, member) == (950, 0, 950)
    assert await shop.broken_promises() == []


@pytest.mark.parametrize("ending", ["release", "expiry", "cancel", "change"])
async def test_what_a_reward_had_goes_back_when_the_hold_ends(shop: Shop, ending: str) -> None:
    member = await rich(shop)
    pool = await shop.pool(codes=1)
    mug, voucher = await reward(shop, cost=50, stock=1), await reward(shop, cost=60, poolId=pool["id"])
    held = (await with_rewards(shop, [mug, voucher], member))["hold"]
    assert (await stock(shop, mug), (await shop.stock(pool))["available"]) == (0, 0)

    if ending == "release":
        await shop.do(RELEASE, holdId=held["id"])
    elif ending == "cancel":
        await shop.do(CANCEL, **cancellation())
    elif ending == "change":
        await hold(shop, [], member, points=5)
    else:
        await let_pass(shop, held)
        await expire_holds()

    assert (await stock(shop, mug), (await shop.stock(pool))["available"]) == (1, 1)
    assert await wallet(shop, member) == (1_000, 5 * (ending == "change"), 1_000 - 5 * (ending == "change"))
    assert await shop.broken_promises() == []


async def test_the_same_order_keeps_what_it_holds_and_takes_what_is_new(shop: Shop) -> None:
    member = await rich(shop)
    pool = await shop.pool(codes=1)
    mug, voucher = await reward(shop, cost=50, stock=2), await reward(shop, cost=60, poolId=pool["id"])
    held = (await with_rewards(shop, [mug, voucher], member))["hold"]

    again = (await with_rewards(shop, [voucher, mug, mug], member, lifetimeSeconds=3_600))["hold"]
    extended = await shop.do(EXTEND, holdId=held["id"], lifetimeSeconds=7_200)

    assert again["id"] == held["id"]
    assert [each["cost"] for each in again["rewards"]] == [60, 50, 50]
    assert await stock(shop, mug) == 0
    assert await wallet(shop, member) == (1_000, 160, 840)
    assert extended["__typename"] == "ExtendHoldSuccess"
    assert await shop.broken_promises() == []
    captured = await shop.do(CAPTURE, holdId=held["id"])
    assert captured["__typename"] == "CaptureHoldSuccess"
    assert await shop.broken_promises() == []


async def test_a_reward_that_is_gone_is_refused(shop: Shop) -> None:
    member, pool = await rich(shop), await shop.pool(codes=1, claimsPerMember=1)
    mug, voucher = await reward(shop, cost=50, stock=1), await reward(shop, cost=60, poolId=pool["id"])
    await with_rewards(shop, [mug, voucher], await rich(shop), order="B-1")

    for wanted in (mug, voucher):
        refused = await shop.refused(HOLD, **cart([], member, rewardIds=of(wanted)))
        assert refused["__typename"] == "RewardOutOfStock"


async def test_a_members_limit_counts_what_its_holds_have(shop: Shop) -> None:
    member, pool = await rich(shop), await shop.pool(codes=3, claimsPerMember=1)
    voucher = await reward(shop, cost=60, poolId=pool["id"])

    twice = await shop.refused(HOLD, **cart([], member, rewardIds=of(voucher, voucher)))
    held = (await with_rewards(shop, [voucher], member))["hold"]
    had = await redeem_reward(shop, voucher, member, "key")
    captured = await shop.do(CAPTURE, holdId=held["id"])

    assert twice["__typename"] == "RewardOutOfStock"
    assert had["__typename"] == "RewardOutOfStock"
    assert captured["__typename"] == "CaptureHoldSuccess"
    assert await shop.broken_promises() == []


async def test_rewards_of_an_abandoned_cart_are_taken_over(shop: Shop) -> None:
    member = await rich(shop)
    mug = await reward(shop, cost=50, stock=1)
    phone = (await with_rewards(shop, [mug], member, order="phone"))["hold"]

    laptop = await with_rewards(shop, [mug], member, order="laptop")

    assert (laptop["__typename"], laptop["takenOver"]) == ("HoldCheckoutSuccess", True)
    assert (await read(shop, phone))["status"] == "EXPIRED"
    assert await wallet(shop, member) == (1_000, 50, 950)
    assert await shop.broken_promises() == []


async def test_a_cart_ends_for_its_reward_and_another_for_its_points(shop: Shop) -> None:
    member = await rich(shop)
    mug = await reward(shop, cost=50, stock=1)
    phone = (await with_rewards(shop, [mug], member, order="phone", points=450))["hold"]
    tablet = (await with_rewards(shop, [], member, order="tablet", points=300))["hold"]

    laptop = await with_rewards(shop, [mug], member, order="laptop", points=850)

    assert (laptop["__typename"], laptop["takenOver"]) == ("HoldCheckoutSuccess", True)
    assert [(await read(shop, each))["status"] for each in (phone, tablet)] == ["EXPIRED", "EXPIRED"]
    assert await wallet(shop, member) == (1_000, 900, 100)
    assert await shop.broken_promises() == []


async def test_a_cart_that_ends_for_its_reward_ends_no_other_for_its_points(shop: Shop) -> None:
    member, pool = await rich(shop), await shop.pool(codes=3, claimsPerMember=1)
    voucher = await reward(shop, cost=60, poolId=pool["id"])
    phone = (await with_rewards(shop, [], member, order="phone", points=100))["hold"]
    tablet = (await with_rewards(shop, [voucher], member, order="tablet", points=700))["hold"]

    laptop = await with_rewards(shop, [voucher], member, order="laptop", points=200)

    assert (laptop["__typename"], laptop["takenOver"]) == ("HoldCheckoutSuccess", True)
    assert [(await read(shop, each))["status"] for each in (phone, tablet)] == ["HELD", "EXPIRED"]
    assert await wallet(shop, member) == (1_000, 360, 640)
    assert await shop.broken_promises() == []


async def test_a_cart_with_another_reward_of_the_pool_stays_where_stock_is_lacking(shop: Shop) -> None:
    member, pool = await rich(shop), await shop.pool(codes=3, claimsPerMember=3)
    rare = await reward(shop, cost=50, stock=1, poolId=pool["id"])
    usual = await reward(shop, cost=60, poolId=pool["id"])
    phone = (await with_rewards(shop, [usual], member, order="phone"))["hold"]
    tablet = (await with_rewards(shop, [rare], member, order="tablet"))["hold"]

    laptop = await with_rewards(shop, [rare], member, order="laptop")

    assert (laptop["__typename"], laptop["takenOver"]) == ("HoldCheckoutSuccess", True)
    assert [(await read(shop, each))["status"] for each in (phone, tablet)] == ["HELD", "EXPIRED"]
    assert await shop.broken_promises() == []


async def test_a_cart_with_a_reward_stays_if_the_points_come_from_elsewhere_meanwhile(shop: Shop) -> None:
    member = await rich(shop)
    mug = await reward(shop, cost=50, stock=1)
    phone = (await with_rewards(shop, [mug], member, order="phone"))["hold"]

    async with transaction(shop.merchant_id) as tx:
        await tx.row(LOCK, shop.merchant_id, ids.decode("hold", phone["id"]))
        laptop = asyncio.create_task(hold(shop, [], member, order="laptop", points=1_000))
        # It has found too few points, and waits for the cart that has some.
        await until_somebody_waits(tx)
        await grant(shop, member, 50, "more")
    await laptop

    assert (await read(shop, phone))["status"] == "HELD"
    assert await wallet(shop, member) == (1_050, 1_050, 0)
    assert await shop.broken_promises() == []


async def test_too_few_points_for_a_reward_are_refused(shop: Shop) -> None:
    mug = await reward(shop, cost=50, stock=1)

    refused = await shop.refused(HOLD, **cart([], await rich(shop, 70), points=30, rewardIds=of(mug)))

    assert (refused["__typename"], refused["balance"], refused["required"]) == ("InsufficientPoints", 70, 80)


async def test_a_late_capture_has_the_rewards_if_they_are_there(shop: Shop) -> None:
    member = await rich(shop)
    pool = await shop.pool(codes=1)
    mug, voucher = await reward(shop, cost=50, stock=1), await reward(shop, cost=60, poolId=pool["id"])
    held = (await with_rewards(shop, [mug, voucher], member))["hold"]
    await let_pass(shop, held)
    await expire_holds()

    captured = await shop.do(CAPTURE, holdId=held["id"])

    assert captured["__typename"] == "CaptureHoldSuccess"
    assert [each["redemption"] is not None for each in captured["hold"]["rewards"]] == [True, True]
    assert await wallet(shop, member) == (890, 0, 890)
    assert await shop.broken_promises() == []


async def test_a_late_capture_names_the_rewards_that_are_missing(shop: Shop) -> None:
    member = await rich(shop)
    mug = await reward(shop, cost=50, stock=1)
    held = (await with_rewards(shop, [mug], member, points=100))["hold"]
    await let_pass(shop, held)
    await expire_holds()
    await redeem_reward(shop, mug, await rich(shop), "mug")

    refused = await shop.refused(CAPTURE, holdId=held["id"])

    assert (refused["__typename"], refused["rewardsMissing"], refused["pointsMissing"]) == ("HoldNotOpen", of(mug), 0)


async def test_calling_an_order_off_reverses_its_rewards(shop: Shop) -> None:
    member = await rich(shop)
    pool = await shop.pool(codes=1, stacking="STACKABLE")
    mug, voucher = await reward(shop, cost=50, stock=1), await reward(shop, cost=60, poolId=pool["id"])
    held = (await with_rewards(shop, [mug, voucher], member, points=100))["hold"]
    captured = (await shop.do(CAPTURE, holdId=held["id"]))["hold"]
    code_id = captured["rewards"][1]["redemption"]["code"]["id"]
    key = await shop.token(member["id"])
    code = await shop.data("query ($id: ID!) { node(id: $id) { ... on Code { text } } }", {"id": code_id}, key=key)
    await shop.redeem([code["node"]["text"]], member, order="B-1")

    answer = await shop.do(CANCEL, **cancellation())
    again = await shop.do(CANCEL, **cancellation())

    assert answer["pointsReturned"] == 150
    assert [each["id"] for each in answer["kept"]] == [captured["rewards"][1]["redemption"]["id"]]
    assert again == answer | {"replayed": True}
    assert await wallet(shop, member) == (940, 0, 940)
    assert await stock(shop, mug) == 1
    assert await shop.broken_promises() == []


async def test_rewards_need_the_member_by_its_id(shop: Shop) -> None:
    mug = await reward(shop, cost=50)

    refused = await shop.refused(HOLD, **cart([], email="a@example.com", rewardIds=of(mug)))
    too_many = await shop.refused(HOLD, **cart([], await rich(shop), rewardIds=of(mug) * 21))

    assert problems(refused) == {"rewardIds": "need the member by its id or a store's id"}
    assert problems(too_many) == {"rewardIds": "must be at most 20 rewards"}


async def test_a_reward_that_is_not_there_is_not_found(shop: Shop) -> None:
    nobody = "reward_0123456789abcdef0123456789abcdef"

    refused = await shop.refused(HOLD, **cart([], await rich(shop), rewardIds=[nobody]))

    assert (refused["__typename"], refused["id"]) == ("NotFound", nobody)


async def test_claims_pass_codes_that_are_set_aside_by(shop: Shop) -> None:
    member, other = await rich(shop), await shop.member()
    pool = await shop.pool(codes=2)
    voucher = await reward(shop, cost=60, poolId=pool["id"])
    await with_rewards(shop, [voucher], member)
    await shop.do(RETIRE_REWARD, rewardId=voucher["id"])

    first = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=other["id"])
    second = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=(await shop.member())["id"])

    assert (first["__typename"], second["__typename"]) == ("ClaimCodeSuccess", "PoolExhausted")


async def test_whoever_wants_what_a_late_hold_keeps_has_it_at_once(shop: Shop) -> None:
    late, other = await rich(shop), await rich(shop)
    pool = await shop.pool(codes=1)
    wanted = [await reward(shop, cost=50, stock=1), await reward(shop, cost=50, poolId=pool["id"])]

    async def kept(number: int) -> Any:
        held = await with_rewards(shop, wanted, late, order=f"late-{number}")
        assert held["__typename"] == "HoldCheckoutSuccess"
        assert await stock(shop, wanted[0]) == 0
        await let_pass(shop, held["hold"])
        return held["hold"]

    ended = [await kept(1)]
    again = await with_rewards(shop, wanted, other, order="B-1")
    await shop.do(RELEASE, holdId=again["hold"]["id"])
    ended.append(await kept(2))
    # What is captured late wants what another late hold keeps.
    captured = await shop.do(CAPTURE, holdId=ended[0]["id"])
    await shop.do(CANCEL, **cancellation(orderId="late-1"))

    assert (again["__typename"], captured["__typename"]) == ("HoldCheckoutSuccess", "CaptureHoldSuccess")
    assert [(await read(shop, each))["status"] for each in ended] == ["CAPTURED", "EXPIRED"]
    assert await shop.broken_promises() == []


@pytest.mark.parametrize("has_pool", [False, True])
async def test_a_reward_that_a_late_hold_keeps_is_redeemed(shop: Shop, has_pool: bool) -> None:
    late, other = await rich(shop), await rich(shop)
    of_pool = {"poolId": (await shop.pool(codes=1))["id"]} if has_pool else {"stock": 1}
    wanted = await reward(shop, cost=50, **of_pool)
    held = (await with_rewards(shop, [wanted], late))["hold"]
    refused = await redeem_reward(shop, wanted, other, "before")
    await let_pass(shop, held)

    assert refused["__typename"] == "RewardOutOfStock"
    assert (await redeem_reward(shop, wanted, other, "after"))["__typename"] == "RedeemRewardSuccess"
    assert (await read(shop, held))["status"] == "EXPIRED"
    assert await wallet(shop, late) == (1_000, 0, 1_000)
    assert await shop.broken_promises() == []


async def test_a_code_that_a_late_hold_keeps_is_claimed(shop: Shop) -> None:
    late, other = await rich(shop), await shop.member()
    pool = await shop.pool(codes=1)
    voucher = await reward(shop, cost=50, poolId=pool["id"])
    held = (await with_rewards(shop, [voucher], late))["hold"]
    await shop.do(RETIRE_REWARD, rewardId=voucher["id"])
    refused = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=other["id"])
    await let_pass(shop, held)

    assert refused["__typename"] == "PoolExhausted"
    assert (await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=other["id"]))["__typename"] == "ClaimCodeSuccess"
    assert (await read(shop, held))["status"] == "EXPIRED"
    assert await shop.broken_promises() == []


async def test_who_has_left_a_mailbox_keeps_no_reward_from_the_next_person(shop: Shop) -> None:
    pool = await shop.pool()
    first = await proved(shop, "sales@example.com")
    await shop.claim(pool, first)
    voucher = await reward(shop, cost=60, poolId=pool["id"])
    await shop.do(
        "mutation ($input: EditMemberInput!) { answer: editMember(input: $input) { __typename } }",
        memberId=first["id"], email="first@example.com", emailVerified=True,
    )  # fmt: skip
    next_one, another = await proved(shop, "sales@example.com"), await proved(shop, "sales+2@example.com")
    for member in (next_one, another):
        await grant(shop, member, 100, f"gift {member['id']}")

    held = (await with_rewards(shop, [voucher], next_one))["hold"]
    captured = await shop.do(CAPTURE, holdId=held["id"])
    refused = await shop.refused(HOLD, **cart([], another, order="B-1", rewardIds=of(voucher)))

    assert captured["__typename"] == "CaptureHoldSuccess"
    assert refused["__typename"] == "RewardOutOfStock"
    assert await shop.broken_promises() == []


async def test_a_reward_whose_pool_has_spent_its_budget_is_not_held(shop: Shop) -> None:
    pool = await shop.pool(kind="AMOUNT", amountOff=usd(1_000), maximumTotalDiscount=usd(1_000))
    owner, member = await shop.member(), await rich(shop)
    code = await shop.claim(pool, owner)
    voucher = await reward(shop, cost=60, poolId=pool["id"])
    await shop.redeem([code["text"]], owner, order="B-1")

    refused = await shop.refused(HOLD, **cart([], member, rewardIds=of(voucher)))

    assert refused["__typename"] == "RewardOutOfStock"
    assert await wallet(shop, member) == (1_000, 0, 1_000)


async def test_whoever_holds_as_many_codes_as_it_may_have_claims_none(shop: Shop) -> None:
    member, pool = await rich(shop), await shop.pool(claimsPerMember=1, listed=True)
    voucher = await reward(shop, cost=60, poolId=pool["id"])
    held = (await with_rewards(shop, [voucher], member))["hold"]
    await shop.do(RETIRE_REWARD, rewardId=voucher["id"])

    refused = await claimed(shop, pool, memberId=member["id"])
    offer = await offered(shop, await shop.token(member["id"]))
    campaign = await shop.do(CREATE_CAMPAIGN, poolId=pool["id"], name="x", recipients=[{"memberId": member["id"]}])

    assert (refused, offer) == ("HAS_ALL", {pool["name"]: "HAS_ALL"})
    assert campaign["campaign"]["allocatedCount"] == 0
    # Nothing is held past its time, and yet the order brings it, if it is paid all the same.
    await let_pass(shop, held)
    assert (await claimed(shop, pool, memberId=member["id"])).startswith("code_")
    assert (await shop.do(CAPTURE, holdId=held["id"]))["__typename"] == "CaptureHoldSuccess"
    assert await shop.broken_promises() == []


async def test_a_code_that_comes_in_another_way_keeps_no_capture_from_its_own(shop: Shop) -> None:
    member, pool = await shop.member(email="anna@example.com"), await shop.pool(claimsPerMember=1)
    await grant(shop, member, 100, "gift")
    await claim_by_email(shop, pool, "anna@example.com")
    voucher = await reward(shop, cost=60, poolId=pool["id"])
    held = (await with_rewards(shop, [voucher], member))["hold"]
    await shop.do(VERIFY_MEMBER_EMAIL, memberId=member["id"])

    captured = await shop.do(CAPTURE, holdId=held["id"])

    assert captured["hold"]["rewards"][0]["redemption"]["code"]["state"] == "ALLOCATED"
    assert (await shop.data(OWN, {"id": member["id"]}))["member"]["wallet"]["codes"]["edges"] == [
        {"node": {"state": "ALLOCATED"}}
    ] * 2
    assert await shop.broken_promises() == []
