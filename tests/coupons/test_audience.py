"""Audiences and mailboxes. Without these an offer could go to people that it isn't for, or twice to one."""

import asyncio
from typing import Any

import pytest

from app.storage.database import database
from tests.advisor.documents import AGE_MEMBERS, age
from tests.coupons.ownership import claim_by_email
from tests.factories import (
    CLAIM_CODE,
    CREATE_CAMPAIGN,
    CREATE_POOL,
    DELIVERIES,
    EDIT_POOL,
    VERIFY_MEMBER_EMAIL,
    Shop,
    problems,
)
from tests.points.documents import REDEEM_REWARD, grant, purchase, reward
from tests.segments.test_segments import bought

WHY = " ... on NotEligible { reason } } }"
CLAIM = CLAIM_CODE.rstrip().removesuffix("}").rstrip().removesuffix("}") + WHY
REDEEM = REDEEM_REWARD.rstrip().removesuffix("}").rstrip().removesuffix("}") + WHY
AIMED = "audience firstOrderOnly oneClaimPerMailbox listed"
READ = f"query ($id: ID!) {{ node(id: $id) {{ ... on Pool {{ {AIMED} }} }} }}"


async def claimed(shop: Shop, pool: Any, **claimant: Any) -> str:
    """Claim, and return the code's id, or why not."""
    answer = await shop.do(CLAIM, poolId=pool["id"], **claimant)
    return str(answer["code"]["id"] if "code" in answer else answer["reason"])


async def proved(shop: Shop, address: str) -> Any:
    """Enrol a member that has proved an address."""
    return await shop.member(email=address, emailVerified=True)


async def test_a_pool_says_whom_it_is_for(shop: Shop) -> None:
    plain = await shop.pool()
    aimed = await shop.pool(audience=["ADVOCATES", "NEW", "NEW"], firstOrderOnly=True, oneClaimPerMailbox=False,
                            listed=True)  # fmt: skip
    member = await shop.member()
    await shop.claim(aimed, member)

    assert (await shop.data(READ, {"id": plain["id"]}))["node"] == {
        "audience": [], "firstOrderOnly": False, "oneClaimPerMailbox": True, "listed": False
    }  # fmt: skip
    told = {"audience": ["NEW", "ADVOCATES"], "firstOrderOnly": True, "oneClaimPerMailbox": False, "listed": True}
    assert (await shop.data(READ, {"id": aimed["id"]}))["node"] == told
    token = await shop.token(member["id"])
    assert (await shop.data(READ, {"id": aimed["id"]}, key=token))["node"] == told | {"audience": None}


async def test_only_members_of_the_audience_claim(shop: Shop) -> None:
    pool = await shop.pool(audience=["LAPSED"])
    lapsed, active = await shop.member(), await shop.member()
    await bought(shop, lapsed, "o-1", days=100)
    await bought(shop, active, "o-2", days=10)

    refusal = await shop.refused(CLAIM, poolId=pool["id"], memberId=active["id"])
    assert (refusal["__typename"], refusal["reason"]) == ("NotEligible", "AUDIENCE")
    assert await claimed(shop, pool, email="stranger@example.com") == "AUDIENCE"
    code = await claimed(shop, pool, memberId=lapsed["id"])
    assert code.startswith("code_")

    # Who buys leaves the segment, and keeps its code.
    await purchase(shop, lapsed, "o-3")
    assert await claimed(shop, pool, memberId=lapsed["id"]) == code
    assert await claimed(shop, await shop.pool(audience=["LAPSED"]), memberId=lapsed["id"]) == "AUDIENCE"


async def test_a_member_is_in_one_of_several_segments(shop: Shop) -> None:
    pool = await shop.pool(audience=["NEW", "HIGH_SPEND"])
    rich, old, young = [await shop.member() for _ in range(3)]
    await age(AGE_MEMBERS, shop, [rich, old], 100)
    await bought(shop, rich, "o-1", days=200, amount=90_000)
    await bought(shop, old, "o-2", days=200, amount=10)
    # Its segments of last night were worked out when it was created, before anybody had bought.
    assert await claimed(shop, pool, memberId=rich["id"]) == "AUDIENCE"
    await database().row("DELETE FROM segment_refresh WHERE merchant_id = $1", shop.merchant_id)
    await shop.do(EDIT_POOL, poolId=pool["id"], name="again")

    assert await claimed(shop, pool, memberId=old["id"]) == "AUDIENCE"
    assert (await claimed(shop, pool, memberId=young["id"])).startswith("code_")
    assert (await claimed(shop, pool, memberId=rich["id"])).startswith("code_")


async def test_a_fallback_is_judged_by_its_own_terms(shop: Shop) -> None:
    everybody = await shop.pool()
    lapsed = await shop.pool(audience=["LAPSED"], fallbackPoolId=everybody["id"])
    empty = await shop.pool(codes=1, fallbackPoolId=lapsed["id"])
    await shop.claim(empty, await shop.member())

    served = await shop.do(CLAIM, poolId=empty["id"], memberId=(await shop.member())["id"])
    assert served["servedBy"] == {"id": everybody["id"]}
    assert await claimed(shop, lapsed, memberId=(await shop.member())["id"]) == "AUDIENCE"


async def test_a_reward_is_refused_before_points_move(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 500, "gift")
    mug = await reward(shop, cost=100, poolId=(await shop.pool(audience=["ACTIVE"]))["id"])

    refusal = await shop.refused(REDEEM, rewardId=mug["id"], memberId=member["id"], idempotencyKey="k")
    assert refusal["reason"] == "AUDIENCE"

    await purchase(shop, member, "o-1")
    redeemed = await shop.do(REDEEM, rewardId=mug["id"], memberId=member["id"], idempotencyKey="k")
    assert redeemed["__typename"] == "RedeemRewardSuccess"


async def test_a_mailbox_claims_once_however_it_is_spelt(shop: Shop) -> None:
    pool = await shop.pool()
    first = await claim_by_email(shop, pool, "anna.smith@gmail.com")

    assert await claimed(shop, pool, email="annasmith+shop@googlemail.com") == "MAILBOX"
    member = await proved(shop, "a.nnasmith@gmail.com")
    refusal = await shop.refused(CLAIM, poolId=pool["id"], memberId=member["id"])
    assert (refusal["__typename"], refusal["reason"]) == ("NotEligible", "MAILBOX")
    assert await claimed(shop, pool, email="anna.smith@gmail.com") == first["id"]
    assert (await claimed(shop, await shop.pool(oneClaimPerMailbox=False), memberId=member["id"])).startswith("code_")
    assert await shop.broken_promises() == []


async def test_an_address_that_nobody_proved_is_no_mailbox_of_a_member(shop: Shop) -> None:
    pool = await shop.pool()
    one, two = [await shop.member(email="smiths@example.com") for _ in range(2)]

    codes = {await claimed(shop, pool, memberId=each["id"]) for each in (one, two)}

    assert len(codes) == 2
    assert not codes & {"MAILBOX"}


async def test_the_first_person_goes_on_claiming_after_it_proved_its_address(shop: Shop) -> None:
    pool = await shop.pool(claimsPerMember=3)
    await claim_by_email(shop, pool, "a+1@example.com")
    member = await proved(shop, "a+1@example.com")

    for key in ("k2", "k3"):
        assert (await claimed(shop, pool, memberId=member["id"], idempotencyKey=key)).startswith("code_")
    assert await claimed(shop, pool, email="a+2@example.com") == "MAILBOX"
    assert await shop.broken_promises() == []


async def test_a_mailbox_stays_taken_when_the_code_that_took_it_is_one_too_many(shop: Shop) -> None:
    pool = await shop.pool()
    member = await shop.member(email="a@example.com")
    await shop.claim(pool, member)
    await claim_by_email(shop, pool, "a@example.com")

    await shop.do(VERIFY_MEMBER_EMAIL, memberId=member["id"])

    assert await claimed(shop, pool, email="a+2@example.com") == "MAILBOX"
    assert await shop.broken_promises() == []


async def test_who_leaves_a_mailbox_leaves_it_to_the_next_person(shop: Shop) -> None:
    pool = await shop.pool()
    ruth = await proved(shop, "sales@example.com")
    hers = await shop.claim(pool, ruth)
    assert await claimed(shop, pool, email="sales+2@example.com") == "MAILBOX"

    await shop.do(
        "mutation ($input: EditMemberInput!) { answer: editMember(input: $input) { __typename } }",
        memberId=ruth["id"], email="ruth@example.com", emailVerified=True,
    )  # fmt: skip

    successor = await proved(shop, "sales@example.com")
    theirs = await claimed(shop, pool, memberId=successor["id"])
    assert theirs not in {hers["id"], "MAILBOX"}
    assert await claimed(shop, pool, memberId=ruth["id"]) == hers["id"]
    assert await claimed(shop, pool, email="sales+2@example.com") == "MAILBOX"
    assert await shop.broken_promises() == []


async def test_a_fallback_knows_its_own_mailboxes(shop: Shop) -> None:
    last = await shop.pool()
    middle = await shop.pool(fallbackPoolId=last["id"])
    empty = await shop.pool(codes=1, fallbackPoolId=middle["id"])
    await shop.claim(empty, await shop.member())
    await claim_by_email(shop, middle, "a@example.com")

    served = await shop.do(CLAIM, poolId=empty["id"], email="a+2@example.com")

    assert served["servedBy"] == {"id": last["id"]}
    assert await claimed(shop, empty, email="a+3@example.com") == "MAILBOX"


async def test_a_campaign_skips_mailboxes_that_are_taken(shop: Shop) -> None:
    pool = await shop.pool(claimsPerMember=2)
    await claim_by_email(shop, pool, "taken@example.com")
    member = await proved(shop, "taken+2@example.com")
    addresses = ["new@example.com", "new+2@example.com", "taken@example.com", "other@example.com"]

    answer = await shop.do(
        CREATE_CAMPAIGN, poolId=pool["id"], name="spring",
        recipients=[{"memberId": member["id"]}, *({"email": each} for each in addresses)],
    )  # fmt: skip

    assert (answer["campaign"]["recipientCount"], answer["campaign"]["allocatedCount"]) == (5, 3)
    sent = (await shop.data(DELIVERIES, {"id": answer["campaign"]["id"]}))["campaign"]["deliveries"]["edges"]
    assert {edge["node"]["recipient"] for edge in sent} == {addresses[0], addresses[2], addresses[3]}
    assert await claimed(shop, pool, email="new+3@example.com") == "MAILBOX"
    assert await shop.broken_promises() == []


@pytest.mark.parametrize(
    ("before", "after", "fields"),
    [
        ({"audience": ["NEW"]}, {"audience": ["NEW", "ACTIVE"]}, []),
        ({"audience": ["NEW"]}, {"audience": []}, []),
        ({"audience": ["NEW"]}, {"audience": None}, []),
        ({"audience": ["NEW"]}, {"audience": ["ACTIVE"]}, ["audience"]),
        ({}, {"audience": ["NEW"]}, ["audience"]),
        ({"firstOrderOnly": True}, {"firstOrderOnly": False}, []),
        ({}, {"firstOrderOnly": True}, ["firstOrderOnly"]),
        ({}, {"oneClaimPerMailbox": False}, []),
        ({"oneClaimPerMailbox": False}, {"oneClaimPerMailbox": True}, ["oneClaimPerMailbox"]),
        ({}, {"listed": True}, []),
    ],
)  # fmt: skip
async def test_after_the_draft_nobody_is_shut_out(
    shop: Shop, before: dict[str, Any], after: dict[str, Any], fields: list[str]
) -> None:
    pool = await shop.pool(codes=1, **before)

    answer = await shop.do(EDIT_POOL, poolId=pool["id"], **after)

    assert answer.get("fields", []) == fields


async def test_what_an_edit_may_not_leave_open_is_refused(shop: Shop) -> None:
    pool = await shop.pool(codes=0, active=False)

    refusal = await shop.refused(
        EDIT_POOL, poolId=pool["id"], firstOrderOnly=None, oneClaimPerMailbox=None, listed=None
    )

    assert set(problems(refusal)) == {"firstOrderOnly", "oneClaimPerMailbox", "listed"}


async def test_a_segment_that_is_none_is_no_audience(shop: Shop) -> None:
    assert await shop.error_code(CREATE_POOL, {"input": {"name": "x", "kind": "GIFT", "giftSku": "x",
                                                         "audience": ["RICH"]}}) == "BAD_USER_INPUT"  # fmt: skip


async def test_of_two_people_of_a_mailbox_at_once_one_claims(shop: Shop) -> None:
    pool = await shop.pool(codes=40)
    people = [await proved(shop, f"anna+{number}@example.com") for number in range(5)]
    claimants = [{"memberId": each["id"]} for each in people] + [{"email": f"anna+{n}@example.com"} for n in (7, 8, 9)]

    answers = await asyncio.gather(*(claimed(shop, pool, **each) for each in claimants * 3))

    winners = {answer for answer in answers if answer != "MAILBOX"}
    assert len(winners) == 1
    assert sum(answer in winners for answer in answers) == 3
    assert (await shop.stock(pool))["allocated"] == 1
    assert await shop.broken_promises() == []
