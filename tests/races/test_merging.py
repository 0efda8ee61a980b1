"""Merging under races, on two processes. Without these what a person does meanwhile would be lost, or be done twice."""

import asyncio
import itertools
from typing import Any

import pytest

from app.storage.database import transaction
from tests.conftest import Api
from tests.factories import CLAIM_CODE, EDIT_MEMBER, REDEEM_CODES, Shop, usd
from tests.orders.holding import CAPTURE, HOLD, cart, hold
from tests.people.documents import MERGE, merge
from tests.points.documents import (
    GRANT,
    RECORD,
    REDEEM_REWARD,
    REFUND,
    asked_refund,
    grant,
    member_uuid,
    points,
    purchase,
    reward,
    wallet,
)
from tests.races.storm import LOCK_WALLET, Processes, at_once, kinds, until_somebody_waits
from tests.referrals.documents import ACCEPT_INVITE, INVITE_MEMBERS, accepted, address, invited, program

CODES = "query ($id: ID!) { member(id: $id) { wallet { codes { edges { node { id state } } } } } }"


@pytest.fixture
def processes(shop: Shop, api: Api, second_api: Api) -> Processes:
    return Processes(shop, api, second_api)


def merging(processes: Processes, kept: Any, merged: Any) -> Any:
    """Return the merging of two members, on its way to the next process."""
    return processes.do(MERGE, keptId=kept["id"], mergedId=merged["id"], reason="One person.")


async def test_of_many_mergings_in_both_directions_one_is_made(shop: Shop, processes: Processes) -> None:
    one, two = await shop.member(), await shop.member()
    for member in (one, two):
        await grant(shop, member, 50, member["id"])

    answers = await at_once([merging(processes, *pair) for pair in ((one, two), (two, one)) * 10])

    assert kinds(answers) == {"MergeMembersSuccess": 20}
    assert [answer["replayed"] for answer in answers].count(False) == 1
    assert len({answer["member"]["id"] for answer in answers}) == 1
    assert await points(shop, one) == 100


async def test_a_chain_of_mergings_ends_at_one_member(shop: Shop, processes: Processes) -> None:
    people = [await shop.member() for _ in range(5)]
    for member in people:
        await grant(shop, member, 10, member["id"])

    answers = await at_once([merging(processes, *pair) for pair in itertools.pairwise(people)])

    assert kinds(answers) == {"MergeMembersSuccess": 4}
    assert {(await wallet(shop, member))["points"] for member in people} == {50}


async def test_whatever_is_done_meanwhile_is_the_kept_members(shop: Shop, processes: Processes) -> None:
    """Every verb that gives or takes, named by either id, while both become one."""
    await program(shop)
    kept, merged = await shop.member(), await shop.member()
    pool, mug = await shop.pool(codes=40, claimsPerMember=40), await reward(shop, cost=10)
    for member in (kept, merged):
        await grant(shop, member, 1000, member["id"])
    spent = [await shop.claim(pool, member, idempotencyKey=member["id"]) for member in (kept, merged)]
    held = [
        await hold(shop, [], member, order=f"held-{number}", points=30) for number, member in enumerate((kept, merged))
    ]
    await purchase(shop, merged, "returned", 5000)
    calls = []
    for number, member in enumerate((kept, merged)):
        calls += [
            processes.do(GRANT, memberId=member["id"], amount=1, reference="r", idempotencyKey=f"g{number}{each}")
            for each in range(4)
        ]
        calls += [
            processes.do(GRANT, memberId=member["id"], amount=-1, reference="r", idempotencyKey=f"d{number}{each}")
            for each in range(2)
        ]
        calls += [
            processes.do(RECORD, memberId=member["id"], source="STORE", orderId=f"o{number}{each}", amount=usd(100))
            for each in range(4)
        ]
        calls += [
            processes.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"], idempotencyKey=f"c{number}{each}")
            for each in range(3)
        ]
        calls += [
            processes.do(REDEEM_REWARD, rewardId=mug["id"], memberId=member["id"], idempotencyKey=f"m{number}{each}")
            for each in range(2)
        ]
        calls += [
            processes.do(HOLD, **cart([], member, order=f"h{number}", points=20)),
            processes.do(CAPTURE, holdId=held[number]["id"]),
            processes.do(REDEEM_CODES, codes=[spent[number]["text"]], orderId=f"s{number}", orderAmount=usd(1000),
                         memberId=member["id"]),
            processes.do(INVITE_MEMBERS, emails=[address()], memberId=member["id"]),
            processes.do(EDIT_MEMBER, memberId=member["id"], displayName=f"Kim {number}"),
        ]  # fmt: skip
    calls += [processes.do(REFUND, **asked_refund("returned", "r", 5000)), merging(processes, kept, merged)]

    answers = await at_once(sorted(calls, key=hash))

    assert {kind for kind in kinds(answers) if not kind.endswith("Success")} == set()
    # 2,000 and 8 grants, less 4 and 4 mugs and what two carts paid; 8 purchases of a point each; that is gone.
    assert await points(shop, kept) == 2000 + 8 - 4 - 40 - 60 + 8
    assert (await wallet(shop, kept))["heldPoints"] == 40
    edges = (await shop.data(CODES, {"id": kept["id"]}))["member"]["wallet"]["codes"]["edges"]
    assert len(edges) == 8


async def test_a_claim_by_either_id_at_the_limit_leaves_one_code(shop: Shop, processes: Processes) -> None:
    kept, merged = await shop.member(), await shop.member()
    pool = await shop.pool(codes=10)
    claims = [
        processes.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"])
        for member in (kept, merged)
        for _ in range(5)
    ]

    answers = await at_once([*claims[:5], merging(processes, kept, merged), *claims[5:]])

    assert {kind for kind in kinds(answers) if not kind.endswith("Success")} == set()
    edges = (await shop.data(CODES, {"id": kept["id"]}))["member"]["wallet"]["codes"]["edges"]
    assert [edge["node"]["state"] for edge in edges].count("ALLOCATED") == 1


async def test_a_verb_that_waits_for_the_merged_wallet_acts_for_the_kept_member(
    shop: Shop, processes: Processes
) -> None:
    kept, merged = await shop.member(), await shop.member()
    await grant(shop, merged, 100, "first")
    async with transaction(shop.merchant_id) as tx:
        await tx.row(LOCK_WALLET, shop.merchant_id, member_uuid(merged))
        first = asyncio.ensure_future(merging(processes, kept, merged))
        await until_somebody_waits(tx)
        waiting = asyncio.ensure_future(
            processes.do(GRANT, memberId=merged["id"], amount=7, reference="r", idempotencyKey="second")
        )
        await asyncio.sleep(0)

    assert (await first)["replayed"] is False
    given = await waiting
    assert (given["__typename"], given["replayed"]) == ("GrantPointsSuccess", False)
    assert await points(shop, kept) == 107


async def test_an_invite_that_is_accepted_meanwhile_is_the_kept_members(shop: Shop, processes: Processes) -> None:
    await program(shop)
    kept, merged = await shop.member(), await shop.member()
    sent = [await invited(shop, member) for member in (kept, merged) for _ in range(3)]
    calls = [processes.do(ACCEPT_INVITE, token=each["token"], email=email, emailVerified=True) for each, email in sent]

    answers = await at_once([*calls[:4], merging(processes, kept, merged), *calls[4:]])

    assert kinds(answers) == {"AcceptInviteSuccess": 6, "MergeMembersSuccess": 1}
    assert await points(shop, kept) == 600


async def test_mergings_of_a_tree_never_make_a_circle(shop: Shop, processes: Processes) -> None:
    await program(shop)
    root = await shop.member()
    child = (await accepted(shop, root))["member"]
    grandchild = (await accepted(shop, child))["member"]
    other = await shop.member()
    pairs = [(root, grandchild), (child, grandchild), (other, root), (other, grandchild)]

    answers = await at_once([merging(processes, *pair) for pair in pairs])

    assert set(kinds(answers)) <= {"MergeMembersSuccess", "MembersNotMergeable"}
    assert (await merge(shop, other, child, dropReferrals=True))["__typename"] == "MergeMembersSuccess"
