"""eraseMember. Without these a person who asked to be forgotten would still be found, or a total change with it."""

import asyncio
import os
from typing import Any

import pytest
from redis.asyncio import Redis

from app import ids
from app.referrals.expire_invites import expire_invites
from app.storage.database import database
from tests.conftest import Api
from tests.coupons.ownership import claim_by_email, send
from tests.coupons.test_reissue_code import REISSUE
from tests.coupons.test_revoke_code import REVOKE
from tests.dump import dump, traces
from tests.factories import CLAIM_CODE, EDIT_MEMBER, ENROLL_MEMBER, REFUSALS, Shop
from tests.orders.documents import CANCEL, cancellation
from tests.orders.holding import CAPTURE, hold
from tests.people.documents import MERGE, addresses, merge
from tests.people.lives import EMAIL, PENDING, TRACES, indexes, told_of, whole_life
from tests.points.documents import GRANT, REVERSE_REWARD, entries, grant, purchase, redeem, refund, reward, wallet
from tests.referrals.documents import ACCEPT_INVITE, accepted, invited, invites_age, program

MEMBER = """
  id externalId externalIds { id } displayName maskedEmail pendingMaskedEmail emailVerified source joinedAt erasedAt
  wallet { points heldPoints pendingPoints shortfall }
"""
ERASE = f"""
mutation ($input: EraseMemberInput!) {{
  answer: eraseMember(input: $input) {{
    __typename ... on EraseMemberSuccess {{ member {{ {MEMBER} }} }} {REFUSALS}
  }}
}}
"""
CHECK = "query ($id: ID!) { checkErase(memberId: $id) { liveCodes points pendingInvites holds } }"
TOTALS = """
SELECT (SELECT sum(amount) FROM purchase WHERE merchant_id = $1) AS bought,
    (SELECT count(*) FROM redemption WHERE merchant_id = $1) AS redemptions,
    (SELECT count(*) FROM referral WHERE merchant_id = $1) AS referrals,
    (SELECT count(*) FROM reward_redemption WHERE merchant_id = $1) AS rewards
"""


async def erase(shop: Shop, member: Any) -> Any:
    """Erase a member, and return what is left of it."""
    answer = await shop.do(ERASE, memberId=member["id"], ground="REQUEST")
    assert answer["__typename"] == "EraseMemberSuccess", answer
    return answer["member"]


async def totals(shop: Shop) -> tuple[Any, ...]:
    (row,) = await database().rows(TOTALS, shop.merchant_id)
    return tuple(row.values())


async def found(shop: Shop) -> list[str]:
    """Return where a person of `lives` can still be found."""
    dumped = await dump(shop.merchant_id)
    return traces(dumped, *TRACES, EMAIL, PENDING, *await indexes(shop, EMAIL, PENDING))


async def test_nothing_of_a_person_is_left_in_the_database_and_every_total_is(shop: Shop) -> None:
    life = await whole_life(shop)
    assert await found(shop) != []
    before = await totals(shop)
    preview = (await shop.data(CHECK, {"id": life.member["id"]}))["checkErase"]
    points = (await wallet(shop, life.member))["points"]

    left = await erase(shop, life.member)

    assert preview == {"liveCodes": 3, "points": points, "pendingInvites": 1, "holds": 1}
    assert left == {
        "id": life.member["id"], "externalId": None, "externalIds": [], "displayName": None, "maskedEmail": None,
        "pendingMaskedEmail": None, "emailVerified": False, "source": "REFERRAL", "joinedAt": left["joinedAt"],
        "erasedAt": left["erasedAt"],
        "wallet": {"points": 0, "heldPoints": 0, "pendingPoints": 0, "shortfall": 0},
    }  # fmt: skip
    assert left["erasedAt"] is not None
    assert await found(shop) == []
    assert await totals(shop) == before
    assert (await entries(shop, life.member))[-1] == (-points, 0, "ERASURE")
    assert (await shop.event_types()).count("member.erased") == 1
    assert await shop.broken_promises() == []


async def test_what_it_had_ends(shop: Shop) -> None:
    life = await whole_life(shop)
    token = await shop.token(life.member["id"])
    await erase(shop, life.member)

    rows = await database().rows(
        "SELECT state, count(*) AS codes FROM code WHERE merchant_id = $1 AND member_id IS NOT NULL GROUP BY 1",
        shop.merchant_id,
    )
    assert {row["state"]: row["codes"] for row in rows} == {"REVOKED": 4}
    assert (await shop.do(CAPTURE, holdId=life.held["id"]))["__typename"] == "HoldNotOpen"
    assert await shop.error_code("{ viewer { role } }", key=token) == "UNAUTHENTICATED"
    invites = await database().rows(
        "SELECT status FROM invite WHERE merchant_id = $1 AND referrer_id = $2 ORDER BY id",
        shop.merchant_id, ids.decode("member", life.member["id"]),
    )  # fmt: skip
    assert [row["status"] for row in invites] == ["PENDING", "CANCELLED"]
    assert (await shop.data(CHECK, {"id": life.member["id"]}))["checkErase"] is None


async def test_verbs_find_nobody_and_erasing_again_neither(shop: Shop) -> None:
    life = await whole_life(shop)
    await erase(shop, life.member)
    member, other = life.member["id"], await shop.pool()

    asked: dict[str, Any]
    for document, asked in (
        (ERASE, {"memberId": member, "ground": "SHOP"}),
        (GRANT, {"memberId": member, "amount": 5, "reference": "late", "idempotencyKey": "late"}),
        (CLAIM_CODE, {"poolId": other["id"], "memberId": member}),
    ):
        answer = await shop.refused(document, **asked)
        assert (answer["__typename"], answer["id"]) == ("NotFound", member)
    late = await purchase(shop, life.member, "A-9")
    assert late["__typename"] == "NotFound"
    by_number = await shop.do(CLAIM_CODE, poolId=other["id"], member={"externalId": "card-1815"})
    assert by_number["__typename"] == "NotFound"


async def test_who_is_erased_is_named_by_exactly_one_thing(shop: Shop) -> None:
    member = await shop.member(email="ada@example.com")

    neither = await shop.refused(ERASE, ground="SHOP")
    both = await shop.refused(ERASE, memberId=member["id"], email="bob@example.com", ground="SHOP")
    members = await shop.refused(ERASE, email="ada@example.com", ground="SHOP")
    nobody = await shop.refused(ERASE, email="bob@example.com", ground="SHOP")

    assert [each["__typename"] for each in (neither, both, members, nobody)] == [*["InvalidInput"] * 3, "NotFound"]
    assert nobody["id"] == "b•••@example.com"


async def test_earlier_calls_are_still_answered(shop: Shop) -> None:
    life = await whole_life(shop)
    mug = await reward(shop, cost=10)
    await redeem(shop, mug, life.member, "mug")
    asked: dict[str, Any] = {
        "member": {"externalId": "card-1815"},
        "amount": 5,
        "reference": "for Ada Lovelace",
        "idempotencyKey": "a",
    }
    first = await shop.do(GRANT, **asked)
    await erase(shop, life.member)

    again = await shop.do(GRANT, **asked)
    bought = await purchase(shop, life.member, "A-1816", 10_000)

    assert (again["replayed"], again["entry"]["id"]) == (True, first["entry"]["id"])
    assert again["entry"]["reference"] is None
    assert bought["replayed"] is True
    claimed = await shop.do(
        CLAIM_CODE, poolId=life.pool["id"], memberId=life.member["id"], idempotencyKey=f"for-{EMAIL}-0"
    )
    assert (claimed["__typename"], claimed["replayed"], claimed["code"]["state"]) == (
        "ClaimCodeSuccess", True, "REVOKED"
    )  # fmt: skip
    had = await redeem(shop, mug, life.member, "mug")
    assert had["__typename"] == "RedeemRewardSuccess", had
    assert (had["__typename"], had["replayed"]) == ("RedeemRewardSuccess", True)


@pytest.mark.parametrize("named", ["address", "proven address", "number"])
async def test_an_earlier_claim_is_still_answered_however_the_claimant_was_named(shop: Shop, named: str) -> None:
    pool = await shop.pool(claimsPerMember=5)
    who: dict[str, Any] = {"member": {"externalId": "card-1815"}} if named == "number" else {"email": EMAIL}
    whom: dict[str, Any] = {"email": EMAIL}
    if named == "number":
        whom = {"memberId": (await shop.member(externalId="card-1815"))["id"]}
    first = await shop.do(CLAIM_CODE, poolId=pool["id"], idempotencyKey="a", **who)
    if named == "proven address":
        whom = {"memberId": (await shop.member(email=EMAIL, emailVerified=True))["id"]}
    await shop.do(ERASE, **whom, ground="REQUEST")

    again = await shop.do(CLAIM_CODE, poolId=pool["id"], idempotencyKey="a", **who)

    assert (again["__typename"], again["replayed"], again["code"]["id"]) == (
        "ClaimCodeSuccess", True, first["code"]["id"]
    )  # fmt: skip
    # A key that somebody else used says nothing.
    for other in ({"email": "bob@example.com"}, {"memberId": (await shop.member())["id"]}):
        refused = await shop.refused(CLAIM_CODE, poolId=pool["id"], idempotencyKey="a", **other)
        assert refused["__typename"] == "IdempotencyKeyReused"


async def test_a_refund_takes_what_is_not_there_and_forfeits_what_would_come_back(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 500, "a")
    await purchase(shop, member, "A-1", 10_000)
    held = await hold(shop, [], member, order="A-2", amount=10_000, points=60)
    await shop.do(CAPTURE, holdId=held["id"])
    await purchase(shop, member, "A-2", 10_000)
    await erase(shop, member)

    paid = await refund(shop, "A-2", "r-1", 10_000)
    earned = await refund(shop, "A-1", "r-1", 10_000)

    assert (paid["pointsReturned"], paid["pointsForfeited"], paid["shortfall"]) == (60, 60, 99)
    assert (earned["pointsReturned"], earned["pointsForfeited"], earned["shortfall"]) == (0, 0, 100)
    left = await wallet(shop, member)
    assert left["points"] == 0
    assert await shop.broken_promises() == []
    assert (await refund(shop, "A-2", "r-1", 10_000))["pointsForfeited"] == 60


async def test_an_order_of_the_erased_can_be_cancelled_and_its_codes_stay_dead(shop: Shop) -> None:
    member = await shop.member()
    pool = await shop.pool()
    code = await shop.claim(pool, member)
    await shop.redeem([code["text"]], member, order="A-1")
    await purchase(shop, member, "A-1", 9_000)
    await erase(shop, member)

    cancelled = await shop.do(CANCEL, **cancellation(orderId="A-1"))

    assert cancelled["__typename"] == "CancelOrderSuccess"
    (row,) = await database().rows(
        "SELECT state FROM code WHERE merchant_id = $1 AND id = $2", shop.merchant_id, ids.decode("code", code["id"])
    )
    assert row["state"] == "REVOKED"
    refused = await shop.refused(REISSUE, codeId=code["id"], reason="again")
    assert refused["__typename"] == "CodeNotReissuable"
    assert await shop.broken_promises() == []


async def test_a_reward_that_goes_back_is_forfeited(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "a")
    mug = (await redeem(shop, await reward(shop, cost=40), member, "mug"))["redemption"]
    await erase(shop, member)

    back = await shop.do(REVERSE_REWARD, redemptionId=mug["id"], reason="broken")

    assert back["__typename"] == "ReverseRewardRedemptionSuccess"
    assert [entry[0] for entry in (await entries(shop, member))[-2:]] == [40, -40]
    assert await shop.broken_promises() == []


async def test_a_referrer_that_is_gone_is_never_credited_and_the_referee_is_paid_alone(shop: Shop) -> None:
    await program(shop, convertsOn="FIRST_PURCHASE")
    ada = await shop.member(email=EMAIL, emailVerified=True)
    friend = (await accepted(shop, ada, email="friend@example.com"))["member"]
    await erase(shop, ada)

    bought = await purchase(shop, friend, "A-1", 5_000)

    assert bought["__typename"] == "RecordPurchaseSuccess"
    assert (await shop.count("referral")) == 1
    assert {entry[2] for entry in await entries(shop, friend)} == {"PURCHASE", "REFERRAL_REFEREE"}
    assert await entries(shop, ada) == []
    await refund(shop, "A-1", "r-1", 5_000)
    assert await shop.broken_promises() == []


async def test_a_referral_that_falls_after_its_referrer_was_erased_is_a_shortfall(shop: Shop) -> None:
    await program(shop, convertsOn="FIRST_PURCHASE")
    ada = await shop.member(email=EMAIL, emailVerified=True)
    friend = (await accepted(shop, ada, email="friend@example.com"))["member"]
    await purchase(shop, friend, "A-1", 5_000)
    await erase(shop, ada)

    await refund(shop, "A-1", "r-1", 5_000)
    again = await purchase(shop, friend, "A-2", 5_000)

    assert again["__typename"] == "RecordPurchaseSuccess"
    assert (await wallet(shop, ada))["points"] == 0
    assert await shop.broken_promises() == []


async def test_an_address_that_never_became_a_member_is_erased(shop: Shop) -> None:
    await program(shop)
    ada = await shop.member(email="ada@example.com", emailVerified=True)
    pool = await shop.pool()
    await claim_by_email(shop, pool, EMAIL)
    await send(shop, await shop.pool(), {"email": EMAIL})
    invite, _ = await invited(shop, ada, EMAIL)

    answer = await shop.do(ERASE, email=EMAIL, ground="REQUEST")

    assert answer == {"__typename": "EraseMemberSuccess", "member": None}
    assert await found(shop) == []
    assert (await shop.do(ACCEPT_INVITE, token=invite["token"], email=EMAIL))["__typename"] != "AcceptInviteSuccess"
    again = await shop.do(ENROLL_MEMBER, source="STORE", email=EMAIL, emailVerified=True)
    assert again["__typename"] == "EnrollMemberSuccess"
    assert await shop.broken_promises() == []


@pytest.mark.parametrize("role", ["CHECKOUT", "ANALYST"])
async def test_only_some_may_erase(shop: Shop, role: str) -> None:
    member = await shop.member()

    code = await shop.error_code(
        ERASE, {"input": {"memberId": member["id"], "ground": "SHOP"}}, key=await shop.key(role)
    )

    assert code == "FORBIDDEN"


async def test_an_address_of_two_members_stays_the_others(shop: Shop) -> None:
    ada, bob = await shop.member(email=EMAIL), await shop.member(email=EMAIL)
    code = await claim_by_email(shop, await shop.pool(), EMAIL)

    await erase(shop, ada)

    (row,) = await database().rows(
        "SELECT state FROM code WHERE merchant_id = $1 AND id = $2", shop.merchant_id, ids.decode("code", code["id"])
    )
    assert row["state"] == "ALLOCATED"
    shown = await shop.data("query ($id: ID!) { member(id: $id) { maskedEmail } }", {"id": bob["id"]})
    assert shown["member"]["maskedEmail"] == "a•••@gmail.com"


async def test_neither_logs_nor_valkey_ever_knew_who_it_was(shop: Shop, api: Api) -> None:
    life = await whole_life(shop)
    await shop.do(CLAIM_CODE, poolId=life.pool["id"], email=EMAIL)
    await erase(shop, life.member)

    async with Redis.from_url(os.environ["REDIS_URL"]) as valkey:
        kept = [key async for key in valkey.scan_iter()]
        told = [await valkey.dump(key) for key in kept]

    log = await asyncio.to_thread(api.log.read_text)
    known = [EMAIL, PENDING, *TRACES]
    assert [each for each in known if each in log] == []
    assert [each for each in known if any(each.encode() in (raw or b"") for raw in (*kept, *told))] == []


async def test_the_records_that_were_merged_into_it_are_erased_with_it(shop: Shop) -> None:
    life = await whole_life(shop)
    kept = await shop.member(email="ada@lovelace.example", emailVerified=True, externalId="lovelace-2")
    await grant(shop, kept, 40, "kept", reference="Lovelace again")
    merged = await shop.do(MERGE, keptId=kept["id"], mergedId=life.member["id"], reason="Ada Lovelace twice")
    assert merged["__typename"] == "MergeMembersSuccess", merged

    await erase(shop, kept)

    assert await found(shop) == []
    gone = await shop.refused(ERASE, memberId=life.member["id"], ground="SHOP")
    assert gone["__typename"] == "NotFound"
    assert await shop.broken_promises() == []
    back = await refund(shop, "A-1816", "r-2", 1_000)
    assert back["__typename"] == "RefundPurchaseSuccess"
    assert await shop.broken_promises() == []


async def test_what_was_sent_to_an_address_that_merging_dropped_is_forgotten_too(shop: Shop) -> None:
    kept = await shop.member(email="kept@example.com", emailVerified=True)
    await shop.do(EDIT_MEMBER, memberId=kept["id"], email="waits@example.com")
    merged = await shop.member(email=EMAIL)
    await claim_by_email(shop, await shop.pool(), EMAIL)
    await send(shop, await shop.pool(), {"email": EMAIL})
    await merge(shop, kept, merged)
    assert await addresses(shop, kept) == ("k•••@example.com", True, "w•••@example.com")
    told = await told_of(shop, [kept, merged], EMAIL)

    preview = (await shop.data(CHECK, {"id": kept["id"]}))["checkErase"]
    await erase(shop, kept)

    assert preview == {"liveCodes": 2, "points": 0, "pendingInvites": 0, "holds": 0}
    assert traces(await dump(shop.merchant_id), EMAIL, *told, *await indexes(shop, EMAIL)) == []
    assert await shop.broken_promises() == []


async def test_somebody_else_who_proves_an_address_that_merging_dropped_keeps_what_waits_for_it(shop: Shop) -> None:
    kept = await shop.member(email="kept@example.com", emailVerified=True)
    await shop.do(EDIT_MEMBER, memberId=kept["id"], email="waits@example.com")
    await merge(shop, kept, await shop.member(email=EMAIL))
    code = await claim_by_email(shop, await shop.pool(), EMAIL)

    owner = await shop.member(email=EMAIL, emailVerified=True)
    await erase(shop, kept)

    (row,) = await database().rows(
        "SELECT state, member_id FROM code WHERE merchant_id = $1 AND id = $2",
        shop.merchant_id, ids.decode("code", code["id"]),
    )  # fmt: skip
    assert (row["state"], row["member_id"]) == ("ALLOCATED", ids.decode("member", owner["id"]))
    assert await shop.broken_promises() == []


@pytest.mark.parametrize("is_member", [False, True])
async def test_words_about_a_code_whose_place_another_one_took_are_forgotten_too(
    shop: Shop, *, is_member: bool
) -> None:
    code = await claim_by_email(shop, await shop.pool(), EMAIL)
    await shop.do(REVOKE, codeId=code["id"], reason="Ms Lovelace lost it", recycle=False)
    await shop.do(REISSUE, codeId=code["id"], reason="for Ms Lovelace")
    who = {"memberId": (await shop.member(email=EMAIL, emailVerified=True))["id"]} if is_member else {"email": EMAIL}

    await shop.do(ERASE, **who, ground="REQUEST")

    words = "SELECT FROM event WHERE merchant_id = $1 AND reason IS NOT NULL"
    assert await database().rows(words, shop.merchant_id) == []


async def test_whom_an_invite_was_sent_to_is_forgotten_though_it_expired(shop: Shop) -> None:
    await program(shop, convertsOn="FIRST_PURCHASE")
    referrer = await shop.member()
    invite, _ = await invited(shop, referrer, EMAIL)
    joined = await shop.do(ACCEPT_INVITE, token=invite["token"], email="joined@example.com", emailVerified=True)
    await invites_age(shop, 40)
    await expire_invites()

    await erase(shop, joined["member"])

    (row,) = await database().rows("SELECT status, email FROM invite WHERE merchant_id = $1", shop.merchant_id)
    assert tuple(row.values()) == ("EXPIRED", None)
