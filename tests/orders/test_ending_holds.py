"""How holds end and go on. Without these what a cart held could be lost, or be gone for ever."""

from typing import Any

import pytest

from app import ids
from app.coupons.expire_codes import expire_codes
from app.orders.expire_holds import expire_holds
from app.storage.database import database
from tests.coupons.test_revoke_code import REVOKE
from tests.factories import CHANGE_STATUS, CLAIM_CODE, VERIFY_MEMBER_EMAIL, Shop, problems, usd
from tests.orders.documents import CANCEL, cancellation, order_of, stackable, unguarded
from tests.orders.holding import CAPTURE, EXTEND, HOLD_FIELDS, RELEASE, hold, let_pass, read
from tests.orders.presented import expire
from tests.points.documents import REVERSE_REWARD, grant, purchase, redeem, reward

LISTED = """query ($id: ID!, $state: CodeState) {
  pool(id: $id) { codes(first: 10, state: $state) { edges { node { id state heldUntil } } } }
}"""
IN_WALLET = """query ($id: ID!, $state: CodeState) {
  member(id: $id) { wallet { codes(first: 10, state: $state) { edges { node { id } } } } }
}"""
AGE = """
UPDATE hold SET held_at = held_at - interval '29 days', held_until = now() + interval '1 hour' WHERE merchant_id = $1
"""
AGE_CODES = """
UPDATE code SET held_until = now() + interval '1 hour' WHERE merchant_id = $1 AND hold_id IS NOT NULL
"""
UNTIL = "SELECT held_until - held_at AS lifetime FROM hold WHERE merchant_id = $1 AND id = $2"


async def held(shop: Shop, count: int = 1, **input: Any) -> tuple[Any, list[Any], Any]:
    """Return a member, its codes and the hold that has them."""
    member = await shop.member()
    codes = await stackable(shop, member, count)
    return member, codes, await hold(shop, codes, member, **input)


async def lifetime(shop: Shop, of: Any) -> float:
    """Return how many seconds a hold lives in all."""
    row = await database().row(UNTIL, shop.merchant_id, ids.decode("hold", of["id"]))
    assert row is not None
    seconds: float = row["lifetime"].total_seconds()
    return seconds


# ---------------------------------------------------------------------------------------------------- releasing


async def test_a_release_frees_the_codes_for_good(shop: Shop) -> None:
    member, codes, cart = await held(shop, 2)
    before = await shop.state()

    answer = await shop.do(RELEASE, holdId=cart["id"])

    assert (answer["__typename"], answer["replayed"]) == ("ReleaseHoldSuccess", False)
    assert (answer["hold"]["status"], answer["hold"]["member"]["wallet"]["version"]) == ("RELEASED", 4)
    assert [each["code"]["heldUntil"] for each in answer["hold"]["codes"]] == [None, None]
    assert (await shop.state()).since(before) == {"hold": 0, "code": 0, "wallet": 0, "event": 1}
    assert (await shop.event_types())[-1] == "hold.released"
    redeemed = await shop.redeem([code["text"] for code in codes], member, order="B-1")
    assert redeemed["__typename"] == "RedeemCodesSuccess"
    assert await shop.broken_promises() == []


async def test_a_release_again_is_the_same_answer(shop: Shop) -> None:
    _, _, cart = await held(shop)
    first = await shop.do(RELEASE, holdId=cart["id"])
    before = await shop.state()

    assert await shop.do(RELEASE, holdId=cart["id"]) == first | {"replayed": True}
    assert await shop.state() == before


@pytest.mark.parametrize("is_written", [False, True])
async def test_an_expired_hold_is_released_for_good(shop: Shop, is_written: bool) -> None:
    _, _, cart = await held(shop)
    await let_pass(shop, cart)
    if is_written:
        await expire_holds()

    answer = await shop.do(RELEASE, holdId=cart["id"])

    assert (answer["hold"]["status"], answer["replayed"]) == ("RELEASED", False)
    assert (await shop.refused(CAPTURE, holdId=cart["id"]))["__typename"] == "HoldNotOpen"
    assert await shop.broken_promises() == []


async def test_a_captured_hold_is_not_released(shop: Shop) -> None:
    _, _, cart = await held(shop)
    await shop.do(CAPTURE, holdId=cart["id"])

    refused = await shop.refused(RELEASE, holdId=cart["id"])

    assert (refused["__typename"], refused["hold"]["status"]) == ("HoldNotOpen", "CAPTURED")


@pytest.mark.parametrize("document", [RELEASE, EXTEND], ids=["release", "extend"])
async def test_a_hold_that_is_not_there_is_not_found(shop: Shop, other_shop: Shop, document: str) -> None:
    _, _, theirs = await held(other_shop)
    more: dict[str, Any] = {"lifetimeSeconds": 60} if document == EXTEND else {}

    for hold_id in (theirs["id"], "hold_1"):
        refused = await shop.refused(document, holdId=hold_id, **more)
        assert (refused["__typename"], refused["id"]) == ("NotFound", hold_id)


# ---------------------------------------------------------------------------------------------------- extending


async def test_a_hold_is_extended_and_never_shortened(shop: Shop) -> None:
    member, _, cart = await held(shop, 2)

    longer = (await shop.do(EXTEND, holdId=cart["id"], lifetimeSeconds=3_600))["hold"]
    before = await shop.state()
    same = (await shop.do(EXTEND, holdId=cart["id"], lifetimeSeconds=60))["hold"]

    assert longer["heldUntil"] > cart["heldUntil"]
    assert [each["code"]["heldUntil"] for each in longer["codes"]] == [longer["heldUntil"]] * 2
    assert longer["member"]["wallet"]["version"] == 4
    assert same == longer
    assert await shop.state() == before
    assert (await shop.event_types())[-1] == "hold.extended"
    assert await shop.wallet_versions(member) == [1, 2, 3, 4]
    assert await shop.broken_promises() == []


async def test_a_hold_lives_for_thirty_days_at_most(shop: Shop) -> None:
    member, codes, cart = await held(shop, lifetimeSeconds=604_800)
    await unguarded(shop, AGE)
    await unguarded(shop, AGE_CODES)
    await shop.do(EXTEND, holdId=cart["id"], lifetimeSeconds=604_800)
    extended = await lifetime(shop, cart)
    await hold(shop, codes, member, lifetimeSeconds=604_800)

    assert extended == await lifetime(shop, cart) == 30 * 86_400


@pytest.mark.parametrize("seconds", [0, -1, 59, 604_801, 2**31 - 1])
async def test_an_impossible_lifetime_is_refused(shop: Shop, seconds: int) -> None:
    refused = await shop.refused(EXTEND, holdId="hold_1", lifetimeSeconds=seconds)

    assert problems(refused) == {"lifetimeSeconds": "must be between 60 and 604800"}


@pytest.mark.parametrize("status", ["EXPIRED", "RELEASED", "CAPTURED"])
async def test_a_hold_that_has_ended_is_not_extended(shop: Shop, status: str) -> None:
    _, _, cart = await held(shop)
    if status == "EXPIRED":
        await let_pass(shop, cart)
    else:
        await shop.do(RELEASE if status == "RELEASED" else CAPTURE, holdId=cart["id"])

    refused = await shop.refused(EXTEND, holdId=cart["id"], lifetimeSeconds=60)

    assert (refused["__typename"], refused["hold"]["status"]) == ("HoldNotOpen", status)


# ----------------------------------------------------------------------------------------------------- expiring


async def test_the_job_writes_down_what_has_ended_and_nothing_else(shop: Shop) -> None:
    member, codes, cart = await held(shop, 2)
    _, _, live = await held(shop, order="B-1")
    await let_pass(shop, cart)
    before = await shop.state()

    assert await expire_holds() >= 1

    assert (await shop.state()).since(before) == {"hold": 0, "code": 0, "wallet": 0, "event": 1}
    assert (await shop.event_types())[-1] == "hold.expired"
    assert await shop.wallet_versions(member) == [1, 2, 3, 4]
    assert (await read(shop, live))["status"] == "HELD"
    redeemed = await shop.redeem([code["text"] for code in codes], member, order="B-2")
    assert redeemed["__typename"] == "RedeemCodesSuccess"
    assert await shop.broken_promises() == []


async def test_a_code_that_somebody_else_holds_since_stays_held(shop: Shop) -> None:
    owner = await shop.member()
    code = await shop.claim(await shop.pool(transferable=True), owner)
    first = await hold(shop, [code], owner)
    await let_pass(shop, first)
    second = await hold(shop, [code], await shop.member(), order="B-1")

    await expire_holds()

    assert (await read(shop, first))["status"] == "EXPIRED"
    assert (await read(shop, second))["codes"][0]["code"]["heldUntil"] == second["heldUntil"]
    assert await shop.broken_promises() == []


async def test_held_codes_expire_after_their_hold(shop: Shop) -> None:
    member, codes, cart = await held(shop, 2)
    pool = {"id": codes[0]["pool"]["id"]}
    await expire(shop, codes[0])
    await shop.do(CHANGE_STATUS % "archivePool", poolId=pool["id"])

    await expire_codes()

    async def listed(state: str) -> list[str]:
        found = await shop.data(LISTED, {"id": pool["id"], "state": state})
        of_member = await shop.data(IN_WALLET, {"id": member["id"], "state": state})
        ids = sorted(edge["node"]["id"] for edge in found["pool"]["codes"]["edges"])
        assert ids == sorted(edge["node"]["id"] for edge in of_member["member"]["wallet"]["codes"]["edges"])
        return ids

    both = sorted(code["id"] for code in codes)
    assert (await listed("ALLOCATED"), await listed("EXPIRED")) == (both, [])
    await let_pass(shop, cart)
    assert (await listed("ALLOCATED"), await listed("EXPIRED")) == ([], both)
    await expire_holds()
    assert await expire_codes() >= 2
    assert (await listed("ALLOCATED"), await listed("EXPIRED")) == ([], both)
    assert await shop.broken_promises() == []


# -------------------------------------------------------------------------------------- what else would end a code


async def test_a_held_code_is_not_revoked(shop: Shop) -> None:
    _, codes, cart = await held(shop)
    document = REVOKE.replace("... on CodeNotRevocable { state", "... on CodeNotRevocable { heldUntil state")
    assert document != REVOKE

    refused = await shop.refused(document, codeId=codes[0]["id"], reason="lost")

    assert (refused["__typename"], refused["state"], refused["heldUntil"]) == (
        "CodeNotRevocable", "ALLOCATED", cart["heldUntil"]
    )  # fmt: skip
    await let_pass(shop, cart)
    assert (await shop.do(REVOKE, codeId=codes[0]["id"], reason="lost"))["__typename"] == "RevokeCodeSuccess"


async def test_a_reward_whose_code_is_held_does_not_go_back(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "gift")
    had = await redeem(shop, await reward(shop, cost=50, poolId=(await shop.pool())["id"]), member, "mug")
    code = await shop.data(
        "query ($id: ID!) { node(id: $id) { ... on Code { text } } }", {"id": had["redemption"]["code"]["id"]},
        key=await shop.token(member["id"]),
    )  # fmt: skip
    cart = await hold(shop, [code["node"]], member)

    refused = await shop.refused(REVERSE_REWARD, redemptionId=had["redemption"]["id"], reason="a return")

    assert refused["__typename"] == "RewardNotReversible"
    await shop.do(RELEASE, holdId=cart["id"])
    answer = await shop.do(REVERSE_REWARD, redemptionId=had["redemption"]["id"], reason="a return")
    assert answer["__typename"] == "ReverseRewardRedemptionSuccess"


async def test_a_held_code_is_no_surplus_when_an_address_is_proved(shop: Shop) -> None:
    pool = await shop.pool()
    member = await shop.member(email="anna@example.com")
    own = await shop.claim(pool, member)
    waiting = await shop.do(CLAIM_CODE, poolId=pool["id"], email="anna@example.com")
    cart = await hold(shop, [waiting["code"]], email="anna@example.com")

    await shop.do(VERIFY_MEMBER_EMAIL, memberId=member["id"], email="anna@example.com")

    assert own["id"] != waiting["code"]["id"]
    assert await shop.broken_promises() == []
    captured = await shop.do(CAPTURE, holdId=cart["id"])
    assert captured["__typename"] == "CaptureHoldSuccess"


# --------------------------------------------------------------------------------------------------- cancelling


@pytest.mark.parametrize("is_recorded", [False, True])
async def test_calling_an_order_off_releases_its_hold(shop: Shop, is_recorded: bool) -> None:
    member, codes, cart = await held(shop, 2)
    if is_recorded:
        await purchase(shop, member, "A-1", 8_100)

    answer = await shop.do(CANCEL, **cancellation())

    assert answer["moneyReturned"] == usd(8_100 if is_recorded else 0)
    assert (await read(shop, cart))["status"] == "RELEASED"
    assert (await shop.refused(CAPTURE, holdId=cart["id"]))["__typename"] == "HoldNotOpen"
    redeemed = await shop.redeem([code["text"] for code in codes], member, order="B-1")
    assert redeemed["__typename"] == "RedeemCodesSuccess"
    assert await shop.broken_promises() == []


async def test_a_hold_that_expired_is_released_with_its_order(shop: Shop) -> None:
    _, _, cart = await held(shop)
    await let_pass(shop, cart)
    await expire_holds()

    await shop.do(CANCEL, **cancellation())

    assert (await read(shop, cart))["status"] == "RELEASED"


# ------------------------------------------------------------------------------------------------------ reading


async def test_a_member_reads_its_own_hold_and_no_others(shop: Shop) -> None:
    owner = await shop.member()
    code = await shop.claim(await shop.pool(transferable=True), owner)
    buyer = await shop.member()
    cart = await hold(shop, [code], buyer)
    document = "query ($id: ID!) { hold(id: $id) { id codes { code { text owner { externalId wallet { id } } } } } }"

    own = await shop.data(document, {"id": cart["id"]}, key=await shop.token(buyer["id"]))
    others = await shop.data(document, {"id": cart["id"]}, key=await shop.token(owner["id"]))

    assert own["hold"]["codes"] == [{"code": {"text": None, "owner": {"externalId": None, "wallet": None}}}]
    assert others == {"hold": None}


async def test_a_hold_is_a_node_of_those_who_may_see_it(shop: Shop) -> None:
    member, _, cart = await held(shop)
    document = f"query ($id: ID!) {{ node(id: $id) {{ ... on Hold {{ {HOLD_FIELDS} }} }} }}"

    for key in (shop.admin, await shop.key("CHECKOUT"), await shop.key("SUPPORT")):
        assert (await shop.data(document, {"id": cart["id"]}, key=key))["node"] == cart
    assert (await shop.data(document, {"id": cart["id"]}, key=await shop.key("ANALYST")))["node"] is None
    assert await shop.error_code('{ hold(id: "hold_1") { id } }', key=await shop.key("ANALYST")) == "FORBIDDEN"
    mine = await shop.data("query ($id: ID!) { node(id: $id) { id } }", {"id": cart["id"]},
                           key=await shop.token(member["id"]))  # fmt: skip
    assert mine["node"] == {"id": cart["id"]}


async def test_an_order_shows_the_hold_that_counts(shop: Shop) -> None:
    member, codes, first = await held(shop)
    await shop.do(RELEASE, holdId=first["id"])
    document = "query ($id: String!) { order(orderId: $id) { hold { id status } } }"
    shown = (await shop.data(document, {"id": "A-1"}))["order"]["hold"]
    second = await hold(shop, codes, member)

    again = (await shop.data(document, {"id": "A-1"}))["order"]["hold"]

    assert shown == {"id": first["id"], "status": "RELEASED"}
    assert again == {"id": second["id"], "status": "HELD"}
    assert (await order_of(shop, "A-1"))["cancelledAt"] is None
