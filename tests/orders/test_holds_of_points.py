"""Holds of points. Without these points could pay twice, or be lost with a card that was declined."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app import ids
from app.orders.expire_holds import expire_holds
from app.storage.database import database
from tests.factories import Shop, problems, usd
from tests.orders.documents import CANCEL, cancellation, stackable, unguarded
from tests.orders.holding import CAPTURE, EXTEND, HOLD, RELEASE, cart, hold, let_pass, read
from tests.points.documents import CONFIGURE, grant, reward
from tests.points.documents import redeem as redeem_reward

WALLET = """
query ($id: ID!) {
  member(id: $id) {
    wallet {
      version points heldPoints spendablePoints
      entries(first: 5) { edges { node { amount reason reference balanceAfter } } }
    }
  }
}
"""


async def wallet(shop: Shop, member: Any) -> tuple[int, int, int]:
    """Return a member's points: all, held, spendable."""
    found = (await shop.data(WALLET, {"id": member["id"]}))["member"]["wallet"]
    return found["points"], found["heldPoints"], found["spendablePoints"]


async def entries(shop: Shop, member: Any) -> list[tuple[str, int]]:
    """Return the reasons and amounts of a member's entries, the newest first."""
    found = (await shop.data(WALLET, {"id": member["id"]}))["member"]["wallet"]["entries"]["edges"]
    return [(edge["node"]["reason"], edge["node"]["amount"]) for edge in found]


async def rich(shop: Shop, points: int = 1_000) -> Any:
    """Enrol a member with points."""
    member = await shop.member()
    await grant(shop, member, points, f"gift of {member['id']}")
    return member


# ------------------------------------------------------------------------------------------------------ holding


async def test_points_are_held_beside_codes_and_pay_a_part(shop: Shop) -> None:
    member = await rich(shop)
    (code,) = await stackable(shop, member, 1)
    before = await shop.state()

    held = await hold(shop, [code], member, points=700)

    assert (held["points"], held["pointsValue"], held["amountDue"]) == (700, usd(700), usd(8_300))
    assert held["member"]["wallet"]["version"] == 3
    assert await wallet(shop, member) == (1_000, 700, 300)
    assert (await shop.state()).since(before) == {
        "sales_order": 1, "hold": 1, "hold_code": 1, "hold_part": 1, "points_lot": 0, "code": 0, "wallet": 0, "event": 1
    }  # fmt: skip
    assert await shop.wallet_versions(member) == [1, 2, 3]
    assert await read(shop, held) == held
    assert await shop.broken_promises() == []


@pytest.mark.parametrize(
    ("value", "amount", "asked", "points", "pays"),
    [
        (3.0, 800, 1_000, 267, 800),
        (3.0, 801, 1_000, 267, 801),
        (3.0, 800, 266, 266, 798),
        (0.3, 100, 334, 334, 100),
        (1.0, 100, 1_000, 100, 100),
        (250.0, 100, 5, 1, 100),
    ],
)
async def test_the_fewest_points_that_cover_what_is_left_are_held(
    shop: Shop, value: float, amount: int, asked: int, points: int, pays: int
) -> None:
    await shop.do(CONFIGURE, pointValue=value)
    member = await rich(shop)

    held = await hold(shop, [], member, amount=amount, points=asked)

    assert (held["points"], held["pointsValue"]) == (points, usd(pays))


async def test_points_alone_can_pay_everything(shop: Shop) -> None:
    member = await rich(shop)

    held = await hold(shop, [], member, amount=600, points=1_000)
    captured = await shop.do(CAPTURE, holdId=held["id"], paymentReference="pay-1")

    assert (held["points"], held["amountDue"]) == (600, usd(0))
    assert captured["hold"]["status"] == "CAPTURED"
    assert await wallet(shop, member) == (400, 0, 400)
    found = (await shop.data(WALLET, {"id": member["id"]}))["member"]["wallet"]["entries"]["edges"][0]["node"]
    assert found == {"amount": -600, "reason": "PAYMENT", "reference": "pay-1", "balanceAfter": 400}
    assert (await shop.event_types())[-2:] == ["points.debited", "hold.captured"]
    assert await shop.broken_promises() == []


async def test_too_many_points_are_refused(shop: Shop) -> None:
    member = await rich(shop, 100)
    await hold(shop, [], member, order="B-1", points=60)

    refused = await shop.refused(HOLD, **cart([], await rich(shop, 40), points=41))

    assert (refused["__typename"], refused["balance"], refused["required"]) == ("InsufficientPoints", 40, 41)


async def test_the_same_order_again_holds_what_is_asked_now(shop: Shop) -> None:
    member = await rich(shop)
    held = await hold(shop, [], member, points=700)

    for points, free in ((900, 100), (900, 100), (200, 800)):
        again = await hold(shop, [], member, points=points)
        assert (again["id"], again["points"]) == (held["id"], points)
        assert await wallet(shop, member) == (1_000, points, free)
        assert await shop.broken_promises() == []
    codes = await stackable(shop, member, 1)
    without = await hold(shop, codes, member)

    assert (without["points"], without["amountDue"]) == (0, usd(9_000))
    assert await wallet(shop, member) == (1_000, 0, 1_000)
    assert await shop.broken_promises() == []


async def test_a_refused_change_leaves_the_points_held(shop: Shop) -> None:
    member = await rich(shop)
    held = await hold(shop, [], member, points=700)

    refused = await shop.refused(HOLD, **cart([], member, points=1_001))

    assert (refused["balance"], refused["required"]) == (1_000, 1_001)
    assert await read(shop, held) == held


async def test_the_order_of_somebody_else_gives_the_points_back(shop: Shop) -> None:
    first, second = await rich(shop), await rich(shop)
    held = await hold(shop, [], first, points=700)

    again = await hold(shop, [], second, points=300)

    assert (again["id"], again["member"]["id"]) == (held["id"], second["id"])
    assert await wallet(shop, first) == (1_000, 0, 1_000)
    assert await wallet(shop, second) == (1_000, 300, 700)
    assert await shop.broken_promises() == []


@pytest.mark.parametrize(
    "presenter", [{}, {"email": "anna@example.com"}, {"member": {"email": "anna@example.com"}}],
    ids=["nobody", "address", "proven address"],
)  # fmt: skip
async def test_a_typed_address_spends_nobodys_points(shop: Shop, presenter: Any) -> None:
    member = await shop.member(email="anna@example.com", emailVerified=True)
    await grant(shop, member, 100, "gift")

    refused = await shop.refused(HOLD, **cart([], points=10) | presenter)

    assert problems(refused) == {"points": "need the member by its id or a store's id"}


async def test_a_stores_id_names_whose_points_they_are(shop: Shop) -> None:
    member = await shop.member(externalId="1001")
    await grant(shop, member, 100, "gift")

    answer = await shop.do(HOLD, **cart([], points=10) | {"member": {"externalId": "1001"}})

    assert answer["hold"]["member"]["id"] == member["id"]


@pytest.mark.parametrize("points", [-1, -(2**31)])
async def test_impossible_points_are_refused(shop: Shop, points: int) -> None:
    refused = await shop.refused(HOLD, **cart([], await rich(shop), points=points))

    assert problems(refused) == {"points": "must be between 0 and 2147483647"}


async def test_nothing_is_no_hold(shop: Shop) -> None:
    member = await rich(shop)

    assert problems(await shop.refused(HOLD, **cart([], member, points=0))) == {
        "codes": "or points or rewardIds must hold something"
    }
    assert problems(await shop.refused(HOLD, **cart([], member, points=5, amount=0))) == {"points": "would pay nothing"}
    await shop.do(CONFIGURE, pointValue=0.000001)
    assert problems(await shop.refused(HOLD, **cart([], member, points=5))) == {"points": "would pay nothing"}


# --------------------------------------------------------------------------------------------------- take-over


async def test_points_of_abandoned_carts_are_taken_over_the_earliest_first(shop: Shop) -> None:
    member = await rich(shop)
    carts = [await hold(shop, [], member, order=f"cart-{number}", points=300) for number in range(3)]

    beside = await shop.do(HOLD, **cart([], member, order="beside", points=100))
    await shop.do(RELEASE, holdId=beside["hold"]["id"])
    answer = await shop.do(HOLD, **cart([], member, order="laptop", points=500))

    assert (beside["takenOver"], answer["takenOver"]) == (False, True)
    assert [(await read(shop, each))["status"] for each in carts] == ["EXPIRED", "EXPIRED", "HELD"]
    assert await wallet(shop, member) == (1_000, 800, 200)
    assert await shop.broken_promises() == []


async def test_nothing_is_taken_over_for_points_that_are_not_there(shop: Shop) -> None:
    member = await rich(shop)
    held = await hold(shop, [], member, order="phone", points=300)

    refused = await shop.refused(HOLD, **cart([], member, order="laptop", points=1_001))

    assert (refused["balance"], refused["required"]) == (700, 1_001)
    assert (await read(shop, held))["status"] == "HELD"


async def test_a_cart_ends_for_its_code_and_another_for_its_points(shop: Shop) -> None:
    member = await rich(shop)
    (code,) = await stackable(shop, member, 1)
    phone = await hold(shop, [code], member, order="phone", points=500)
    tablet = await hold(shop, [], member, order="tablet", points=300)

    refused = await shop.refused(HOLD, **cart([code], member, order="laptop", points=1_001))
    answer = await shop.do(HOLD, **cart([code], member, order="laptop", points=900))

    assert (refused["__typename"], refused["required"]) == ("InsufficientPoints", 1_001)
    assert (answer["takenOver"], answer["hold"]["points"]) == (True, 900)
    assert [(await read(shop, each))["status"] for each in (phone, tablet)] == ["EXPIRED", "EXPIRED"]
    assert await wallet(shop, member) == (1_000, 900, 100)
    assert await shop.broken_promises() == []


# -------------------------------------------------------------------------------------------------------- ends


async def test_a_release_frees_the_points_by_one_change(shop: Shop) -> None:
    member = await rich(shop)
    (code,) = await stackable(shop, member, 1)
    held = await hold(shop, [code], member, points=700)
    before = await shop.state()

    answer = await shop.do(RELEASE, holdId=held["id"])

    assert answer["hold"]["member"]["wallet"]["version"] == 4
    assert await wallet(shop, member) == (1_000, 0, 1_000)
    assert (await shop.state()).since(before) == {
        "hold": 0, "hold_part": -1, "points_lot": 0, "code": 0, "wallet": 0, "event": 1
    }  # fmt: skip
    assert (await shop.event_types())[-1] == "hold.released"
    assert await shop.broken_promises() == []


async def test_the_job_frees_points_whose_time_has_passed(shop: Shop) -> None:
    member = await rich(shop)
    held = await hold(shop, [], member, points=700)
    await let_pass(shop, held)

    assert await expire_holds() >= 1

    assert await wallet(shop, member) == (1_000, 0, 1_000)
    assert (await shop.event_types())[-1] == "hold.expired"
    assert await shop.broken_promises() == []


async def test_points_whose_time_has_passed_are_shown_as_free_before_that_is_written(shop: Shop) -> None:
    member = await rich(shop)
    held = await hold(shop, [], member, points=700)
    await let_pass(shop, held)

    assert await wallet(shop, member) == (1_000, 0, 1_000)


async def test_whoever_wants_the_points_first_ends_a_hold_that_is_late(shop: Shop) -> None:
    member = await rich(shop, 100)
    held = await hold(shop, [], member, points=70)
    await let_pass(shop, held)

    had = await redeem_reward(shop, await reward(shop, cost=50), member, "mug")

    assert had["__typename"] == "RedeemRewardSuccess"
    assert (await read(shop, held))["status"] == "EXPIRED"
    assert await wallet(shop, member) == (50, 0, 50)
    assert await shop.broken_promises() == []


async def test_held_points_buy_nothing_else(shop: Shop) -> None:
    member = await rich(shop, 100)
    await hold(shop, [], member, points=70)

    had = await redeem_reward(shop, await reward(shop, cost=50), member, "mug")

    assert had["__typename"] == "InsufficientPoints"


async def test_an_extension_is_a_change_of_the_wallet(shop: Shop) -> None:
    member = await rich(shop)
    held = await hold(shop, [], member, points=70)

    extended = await shop.do(EXTEND, holdId=held["id"], lifetimeSeconds=3_600)

    assert extended["hold"]["member"]["wallet"]["version"] == 3
    assert await shop.broken_promises() == []


async def test_calling_an_order_off_frees_its_points(shop: Shop) -> None:
    member = await rich(shop)
    await hold(shop, [], member, points=70)

    await shop.do(CANCEL, **cancellation())

    assert await wallet(shop, member) == (1_000, 0, 1_000)
    assert await shop.broken_promises() == []


# ---------------------------------------------------------------------------------------------------- capturing


async def test_fewer_points_are_captured_and_the_others_are_free(shop: Shop) -> None:
    await shop.do(CONFIGURE, pointValue=1.5)
    member = await rich(shop)
    held = await hold(shop, [], member, points=700)

    captured = await shop.do(CAPTURE, holdId=held["id"], points=301)
    again = await shop.do(CAPTURE, holdId=held["id"], points=301)

    assert (captured["hold"]["points"], captured["hold"]["pointsValue"]) == (301, usd(451))
    assert captured["hold"]["amountDue"] == usd(9_549)
    assert again == captured | {"replayed": True}
    assert await wallet(shop, member) == (699, 0, 699)
    assert await shop.wallet_versions(member) == [1, 2, 3]
    for points in (None, 300):
        refused = await shop.refused(CAPTURE, holdId=held["id"], points=points)
        assert refused["__typename"] == "IdempotencyKeyReused"
    assert await shop.broken_promises() == []


async def test_points_that_pay_nothing_are_not_captured(shop: Shop) -> None:
    await shop.do(CONFIGURE, pointValue=0.5)
    member = await rich(shop)
    held = await hold(shop, await stackable(shop, member, 1), member, points=700)

    captured = await shop.do(CAPTURE, holdId=held["id"], points=1)
    again = [await shop.do(CAPTURE, holdId=held["id"], points=points) for points in (1, 0)]

    assert (captured["hold"]["points"], captured["hold"]["pointsValue"]) == (0, usd(0))
    assert captured["hold"]["amountDue"] == usd(9_000)
    assert again == [captured | {"replayed": True}] * 2
    assert await wallet(shop, member) == (1_000, 0, 1_000)
    assert await shop.broken_promises() == []


async def test_a_capture_without_points_frees_them_all(shop: Shop) -> None:
    member = await rich(shop)
    (code,) = await stackable(shop, member, 1)
    held = await hold(shop, [code], member, points=700)

    captured = await shop.do(CAPTURE, holdId=held["id"], points=0)

    assert (captured["hold"]["points"], captured["hold"]["amountDue"]) == (0, usd(9_000))
    assert await wallet(shop, member) == (1_000, 0, 1_000)
    assert await shop.wallet_versions(member) == [1, 2, 3, 4, 5]
    assert await shop.broken_promises() == []


@pytest.mark.parametrize("points", [-1, 701])
async def test_more_than_is_held_is_not_captured(shop: Shop, points: int) -> None:
    held = await hold(shop, [], await rich(shop), points=700)

    refused = await shop.refused(CAPTURE, holdId=held["id"], points=points)

    most = 2**31 - 1 if points < 0 else 700
    assert problems(refused) == {"points": f"must be between 0 and {most}"}


@pytest.mark.parametrize("is_written", [False, True])
async def test_a_late_capture_takes_the_points_if_they_are_there(shop: Shop, is_written: bool) -> None:
    member = await rich(shop)
    held = await hold(shop, [], member, points=700)
    await let_pass(shop, held)
    if is_written:
        await expire_holds()

    captured = await shop.do(CAPTURE, holdId=held["id"])

    assert (captured["hold"]["status"], captured["hold"]["points"]) == ("CAPTURED", 700)
    assert await wallet(shop, member) == (300, 0, 300)
    assert (await entries(shop, member))[0] == ("PAYMENT", -700)
    assert await shop.broken_promises() == []


async def test_a_late_capture_says_how_many_points_are_missing(shop: Shop) -> None:
    member = await rich(shop)
    (code,) = await stackable(shop, member, 1)
    held = await hold(shop, [code], member, points=700)
    await let_pass(shop, held)
    await expire_holds()
    await hold(shop, [code], member, order="laptop", points=600)

    refused = await shop.refused(CAPTURE, holdId=held["id"])

    assert (refused["__typename"], refused["pointsMissing"]) == ("HoldNotOpen", 300)
    assert [each["reason"] for each in refused["rejections"]] == ["HELD"]


async def test_points_that_came_free_past_their_date_expire(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "gift", expiresAt=(datetime.now(UTC) + timedelta(days=2)).isoformat())
    held = await hold(shop, [], member, points=70)
    await unguarded(shop, "UPDATE points_lot SET expires_at = now() WHERE merchant_id = $1")
    await unguarded(shop, "UPDATE points_entry SET expires_at = now() WHERE merchant_id = $1")

    await shop.do(RELEASE, holdId=held["id"])

    assert (await entries(shop, member))[0] == ("EXPIRY", -70)
    row = await database().row(
        "SELECT points FROM wallet WHERE merchant_id = $1 AND member_id = $2", shop.merchant_id,
        ids.decode("member", member["id"]),
    )  # fmt: skip
    assert row is not None
    assert row["points"] == 30


async def test_points_of_a_cart_that_ends_for_its_code_count_once(shop: Shop) -> None:
    member = await rich(shop, 100)
    (code,) = await stackable(shop, member, 1)
    phone = await hold(shop, [code], member, order="phone", points=50)

    refused = await shop.refused(HOLD, **cart([code], member, order="laptop", points=120, amount=100_000))

    assert (refused["__typename"], refused["balance"], refused["required"]) == ("InsufficientPoints", 100, 120)
    assert (await read(shop, phone))["status"] == "HELD"
