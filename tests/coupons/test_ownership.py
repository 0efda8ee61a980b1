"""Three ways to own a code. Without these a code could belong to a name instead of a person, or show itself to both."""

from typing import Any

import pytest

from app import ids
from app.coupons import code_text
from app.storage.database import database
from tests.conftest import Api, run_api
from tests.coupons.ownership import breaches, claim_by_email, send, verify
from tests.factories import (
    CHANGE_STATUS,
    CHECK_CODES,
    CLAIM_CODE,
    ENROLL_MEMBER,
    REDEEM_CODES,
    VERIFY_MEMBER_EMAIL,
    Shop,
    problems,
    usd,
)

JANE = "jane.doe@example.com"
SPELLINGS = ["  jane.doe@example.com\t", "JANE.DOE@EXAMPLE.COM", "\uff4a\uff41\uff4e\uff45.doe@example\uff0ecom"]
WALLET = "{ wallet { version codes { edges { node { id text masked state matchedBy owner { id } } } } } }"
NODE = "query ($id: ID!) { node(id: $id) { ... on Code { id text state matchedBy owner { id } } } }"
EVENTS = """
SELECT subject_id, actor, wallet_version FROM event WHERE merchant_id = $1 AND type = $2 ORDER BY id
"""
NOBODY = "member_0123456789abcdef0123456789abcdef"


async def wallet(shop: Shop, member: Any) -> tuple[int, list[Any]]:
    """Return the version and the codes of a member's wallet as the member sees it, first allocated first."""
    seen = (await shop.data(WALLET, key=await shop.token(member["id"])))["wallet"]
    return seen["version"], [edge["node"] for edge in seen["codes"]["edges"]][::-1]


async def node(shop: Shop, code: Any, **how: Any) -> Any:
    """Read a code by its id."""
    return (await shop.data(NODE, {"id": code["id"]}, **how))["node"]


async def present(shop: Shop, code: Any, document: str = REDEEM_CODES, **by: Any) -> str:
    """Present a code for an order of its own; return what became of it: REDEEMED, or the reason against it."""
    order: dict[str, Any] = {"codes": [code["text"]], "orderId": f"order of {code['id']}", "orderAmount": usd(1000)}
    answer = await shop.do(document, **order, **by)
    if answer["__typename"] == "CodesRejected":
        return str(answer["rejections"][0]["reason"])
    assert answer["__typename"] == "RedeemCodesSuccess", answer
    return "REDEEMED"


# ---------------------------------------------------------------------------------------------------- by address


async def test_a_claim_by_address_is_nobodys_until_its_owner_is_known(shop: Shop) -> None:
    pool = await shop.pool(codes=3, codeLifetimeDays=30)
    before = await shop.state()

    answer = await shop.do(CLAIM_CODE, poolId=pool["id"], email=JANE)

    code = answer["code"]
    assert (answer["replayed"], answer["servedBy"]) == (False, {"id": pool["id"]})
    assert code["text"].startswith("PCT-")
    assert (code["state"], code["matchedBy"], code["owner"]) == ("ALLOCATED", "CLAIM_EMAIL", None)
    assert code["expiresAt"] is not None
    assert (await shop.state()).since(before) == {
        "claim": 1, "code": 0, "address": 1, "stock_change": 1, "event": 1
    }  # fmt: skip
    (event,) = await database().rows(EVENTS, shop.merchant_id, "code.claimed")
    assert (ids.encode("code", event["subject_id"]), event["wallet_version"]) == (code["id"], None)


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_an_address_is_one_claimant_however_it_is_spelled(shop: Shop, spelling: str) -> None:
    pool = await shop.pool(codes=3)
    code = await claim_by_email(shop, pool, JANE)
    before = await shop.state()

    again = await shop.do(CLAIM_CODE, poolId=pool["id"], email=spelling)

    assert (again["replayed"], again["code"]) == (True, code)
    assert await shop.state() == before


async def test_an_address_with_several_keys_has_as_many_codes_as_a_member(shop: Shop) -> None:
    pool = await shop.pool(codes=9, claimsPerMember=3)

    answers = [await shop.do(CLAIM_CODE, poolId=pool["id"], email=JANE, idempotencyKey=key) for key in "abcdb"]

    codes = [answer["code"]["id"] for answer in answers]
    assert [answer["replayed"] for answer in answers] == [False, False, False, True, True]
    assert codes[3:] == [codes[2], codes[1]]
    assert len(set(codes)) == 3


async def test_an_address_is_stored_as_its_index_only(shop: Shop) -> None:
    pool = await shop.pool(codes=3)
    await claim_by_email(shop, pool, JANE)

    for table in ("claim", "code", "address", "event"):
        for row in await database().rows(
            f"SELECT each::text AS row FROM {table} each WHERE merchant_id = $1", shop.merchant_id
        ):
            assert "jane" not in row["row"]
            assert b"jane".hex() not in row["row"]


@pytest.mark.parametrize("address", ["", "nobody", "a@b", "a\x00@example.com", "a@exa mple.com"])
async def test_what_is_no_address_claims_nothing(shop: Shop, address: str) -> None:
    pool = await shop.pool()

    refused = await shop.refused(CLAIM_CODE, poolId=pool["id"], email=address)

    assert problems(refused) == {"email": "must be an e-mail address"}


async def test_a_claimant_has_one_name(shop: Shop) -> None:
    pool, member = await shop.pool(), await shop.member(email=JANE, emailVerified=True)

    refused = await shop.refused(CLAIM_CODE, poolId=pool["id"], memberId=member["id"], email=JANE)

    assert problems(refused) == {"memberId": "or member or email must be given, and only one of them"}


async def test_a_member_claims_for_no_address_not_even_its_own(shop: Shop) -> None:
    pool, member = await shop.pool(), await shop.member(email=JANE, emailVerified=True)
    token = await shop.token(member["id"])

    for named in ({"email": JANE}, {"email": JANE, "memberId": member["id"]}, {"email": "other@example.com"}):
        refused = await shop.refused(CLAIM_CODE, key=token, poolId=pool["id"], **named)
        assert problems(refused) == {"email": "is for API keys; a member claims for itself"}


async def test_a_refused_claim_by_address_leaves_no_trace(shop: Shop) -> None:
    paused, empty = await shop.pool(codes=1), await shop.pool(codes=1)
    await shop.do(CHANGE_STATUS % "pausePool", poolId=paused["id"])
    await shop.claim(empty, await shop.member())

    assert (await shop.refused(CLAIM_CODE, poolId=paused["id"], email=JANE))["__typename"] == "PoolNotActive"
    assert (await shop.refused(CLAIM_CODE, poolId=empty["id"], email=JANE))["poolsTried"] == [empty["id"]]
    missing = await shop.refused(CLAIM_CODE, poolId="pool_0123456789abcdef0123456789abcdef", email=JANE)
    assert missing["__typename"] == "NotFound"


async def test_two_merchants_know_an_address_apart(shop: Shop, other_shop: Shop) -> None:
    mine = await claim_by_email(shop, await shop.pool(), JANE)
    theirs = await claim_by_email(other_shop, await other_shop.pool(), JANE)

    member = await shop.member(email=JANE, emailVerified=True)

    assert [code["id"] for code in (await wallet(shop, member))[1]] == [mine["id"]]
    assert await node(shop, theirs) is None
    assert (await node(other_shop, theirs))["owner"] is None
    assert await present(shop, theirs, email=JANE) == "UNKNOWN"


# --------------------------------------------------------------------------------- an address that is a member's


async def test_a_claim_by_the_address_of_a_verified_member_is_that_members(shop: Shop) -> None:
    pool = await shop.pool(codes=5)
    member = await shop.member(email=JANE, emailVerified=True)

    answer = await shop.do(CLAIM_CODE, poolId=pool["id"], email=SPELLINGS[1])
    own = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"])

    assert answer["replayed"] is False
    assert answer["code"]["matchedBy"] == "CLAIM_EMAIL"
    assert answer["code"]["owner"] == {"id": member["id"], "wallet": {"version": 1}}
    assert own == answer | {"replayed": True}
    assert [code["id"] for code in (await wallet(shop, member))[1]] == [answer["code"]["id"]]
    assert await breaches(shop) == {}


async def test_the_address_of_a_verified_member_has_the_code_that_the_member_claimed(shop: Shop) -> None:
    pool = await shop.pool(codes=5)
    member = await shop.member(email=JANE, emailVerified=True)
    own = await shop.do(CLAIM_CODE, key=await shop.token(member["id"]), poolId=pool["id"])
    before = await shop.state()

    answer = await shop.do(CLAIM_CODE, poolId=pool["id"], email=JANE)

    assert answer == own | {"replayed": True}
    assert answer["code"]["matchedBy"] == "MEMBER_ID"
    assert await shop.state() == before


async def test_a_code_claimed_before_the_address_was_verified_is_the_addresss_too(shop: Shop) -> None:
    pool = await shop.pool(codes=5)
    member = await shop.member(email=JANE)
    own = await shop.claim(pool, member)
    await verify(shop, member)

    answer = await shop.do(CLAIM_CODE, poolId=pool["id"], email=JANE)

    assert (answer["replayed"], answer["code"]) == (True, own)


async def test_an_unverified_address_is_a_stranger(shop: Shop) -> None:
    pool = await shop.pool(codes=5)
    member = await shop.member(email=JANE)
    own = await shop.claim(pool, member)

    code = await claim_by_email(shop, pool, JANE)

    assert code["id"] != own["id"]
    assert code["owner"] is None


# ------------------------------------------------------------------------------------------------------- adoption


async def test_enrolling_with_a_verified_address_adopts_what_waits_for_it(shop: Shop) -> None:
    pools = [await shop.pool() for _ in range(3)]
    claimed = [await claim_by_email(shop, pool, JANE) for pool in pools]
    await claim_by_email(shop, pools[0], "other@example.com")
    before = await shop.state()

    answer = await shop.do(ENROLL_MEMBER, source="STORE", email=SPELLINGS[1], emailVerified=True)

    member = answer["member"]
    assert member["wallet"]["version"] == 3
    assert (await shop.state()).since(before) == {
        "member": 1, "wallet": 1, "claim": 0, "code": 0, "address": 0, "event": 4
    }  # fmt: skip
    assert await wallet(shop, member) == (
        3,
        [
            {
                "id": code["id"], "text": code["text"], "masked": code["masked"], "state": "ALLOCATED",
                "matchedBy": "CLAIM_EMAIL", "owner": {"id": member["id"]},
            }
            for code in claimed
        ],
    )  # fmt: skip
    events = await database().rows(EVENTS, shop.merchant_id, "code.adopted")
    assert [(ids.encode("code", event["subject_id"]), event["wallet_version"]) for event in events] == [
        (code["id"], version) for version, code in enumerate(claimed, start=1)
    ]
    assert {event["actor"][:7] for event in events} == {"apikey_"}
    assert (await shop.event_types())[-5:-1] == ["member.enrolled", *["code.adopted"] * 3]
    assert await breaches(shop) == {}


async def test_a_checkouts_enrolment_adopts_too(shop: Shop) -> None:
    code = await claim_by_email(shop, await shop.pool(), JANE)

    answer = await shop.do(
        ENROLL_MEMBER, key=await shop.key("CHECKOUT"), source="STORE", email=JANE, emailVerified=True
    )

    assert (await node(shop, code))["owner"] == {"id": answer["member"]["id"]}


async def test_an_unverified_address_reveals_and_redeems_nothing_until_it_is_verified(shop: Shop) -> None:
    pool = await shop.pool()
    code = await claim_by_email(shop, pool, JANE)
    member = await shop.member(email=JANE)
    token = await shop.token(member["id"])

    assert await wallet(shop, member) == (0, [])
    assert await node(shop, code, key=token) is None
    assert (await node(shop, code))["owner"] is None
    assert await present(shop, code, memberId=member["id"]) == "NOT_OWNER"
    verified = await verify(shop, member)

    assert verified == {"id": member["id"], "emailVerified": True, "wallet": {"version": 1}}
    version, codes = await wallet(shop, member)
    assert (version, [(each["id"], each["text"]) for each in codes]) == (1, [(code["id"], code["text"])])
    assert (await node(shop, code, key=token))["text"] == code["text"]
    assert (await shop.event_types())[-3:-1] == ["member.email_verified", "code.adopted"]
    assert await present(shop, code, memberId=member["id"]) == "REDEEMED"
    assert await breaches(shop) == {}


async def test_codes_of_any_state_are_adopted_as_they_are(shop: Shop) -> None:
    redeemed, live = [await claim_by_email(shop, await shop.pool(), JANE) for _ in range(2)]
    assert await present(shop, redeemed, email=JANE) == "REDEEMED"

    member = await shop.member(email=JANE, emailVerified=True)

    version, codes = await wallet(shop, member)
    assert version == 2
    assert {(code["id"], code["state"]) for code in codes} == {(redeemed["id"], "REDEEMED"), (live["id"], "ALLOCATED")}
    assert await breaches(shop) == {}


async def test_codes_of_a_pool_that_was_archived_are_adopted(shop: Shop) -> None:
    pool = await shop.pool()
    code = await claim_by_email(shop, pool, JANE)
    await shop.do(CHANGE_STATUS % "archivePool", poolId=pool["id"])

    member = await shop.member(email=JANE, emailVerified=True)

    assert [each["id"] for each in (await wallet(shop, member))[1]] == [code["id"]]


async def test_codes_of_a_fallback_are_adopted_with_both_their_claims(shop: Shop) -> None:
    last = await shop.pool(codes=5)
    first = await shop.pool(codes=1, fallbackPoolId=last["id"])
    await shop.claim(first, await shop.member())
    code = await claim_by_email(shop, first, JANE)
    member = await shop.member(email=JANE, emailVerified=True)
    before = await shop.state()

    for pool in (first, last):
        assert (await shop.claim(pool, member))["id"] == code["id"]
    assert await shop.state() == before
    assert await breaches(shop) == {}


async def test_a_key_of_the_address_is_the_same_claim_after_adoption(shop: Shop) -> None:
    pool = await shop.pool(claimsPerMember=3)
    first = await claim_by_email(shop, pool, JANE, idempotencyKey="first")
    await claim_by_email(shop, pool, JANE, idempotencyKey="second")
    member = await shop.member(email=JANE, emailVerified=True)

    again = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"], idempotencyKey="first")

    assert (again["replayed"], again["code"]["id"]) == (True, first["id"])


async def test_verifying_twice_changes_nothing(shop: Shop) -> None:
    await claim_by_email(shop, await shop.pool(), JANE)
    member = await shop.member(email=JANE)
    verified = await verify(shop, member)
    before = await shop.state()

    assert await verify(shop, member) == verified
    assert await shop.state() == before


async def test_verifying_who_was_enrolled_verified_changes_nothing(shop: Shop) -> None:
    member = await shop.member(email=JANE, emailVerified=True)
    before = await shop.state()

    assert await verify(shop, member) == {"id": member["id"], "emailVerified": True, "wallet": {"version": 0}}
    assert await shop.state() == before


async def test_a_member_without_an_address_has_none_to_verify(shop: Shop) -> None:
    member = await shop.member()

    refused = await shop.refused(VERIFY_MEMBER_EMAIL, memberId=member["id"])

    assert problems(refused) == {"memberId": "names a member without an address"}


async def test_a_member_that_doesnt_exist_or_is_another_merchants_is_not_found(shop: Shop, other_shop: Shop) -> None:
    theirs = await other_shop.member(email=JANE)

    for named in ("", "7", NOBODY, "pool_0123456789abcdef0123456789abcdef", theirs["id"]):
        refused = await shop.refused(VERIFY_MEMBER_EMAIL, memberId=named)
        assert (refused["__typename"], refused["id"]) == ("NotFound", named)
    document = "query ($id: ID!) { member(id: $id) { emailVerified } }"
    assert (await other_shop.data(document, {"id": theirs["id"]}))["member"] == {"emailVerified": False}


# --------------------------------------------------------------- more than one member can have, under two names


async def test_where_both_names_have_a_code_of_one_the_addresss_is_revoked_and_replaced(shop: Shop) -> None:
    pool = await shop.pool(codes=5)
    member = await shop.member(email=JANE)
    waiting = await claim_by_email(shop, pool, JANE)
    own = await shop.claim(pool, member)

    await verify(shop, member)

    version, codes = await wallet(shop, member)
    assert version == 3
    assert {code["id"]: code["state"] for code in codes} == {own["id"]: "ALLOCATED", waiting["id"]: "REVOKED"}
    assert await shop.stock(pool) == {
        "total": 6, "available": 4, "allocated": 1, "redeemed": 0, "expired": 0, "revoked": 1
    }  # fmt: skip
    (event,) = await database().rows(EVENTS, shop.merchant_id, "code.revoked")
    assert (ids.encode("code", event["subject_id"]), event["wallet_version"]) == (waiting["id"], 3)
    assert await present(shop, waiting, memberId=member["id"]) == "REVOKED"
    assert await breaches(shop) == {}


async def test_after_a_surplus_was_revoked_every_name_has_the_live_code(shop: Shop) -> None:
    pool = await shop.pool(codes=5)
    member = await shop.member(email=JANE)
    await claim_by_email(shop, pool, JANE, idempotencyKey="waiting")
    own = await shop.claim(pool, member)
    await verify(shop, member)
    before = await shop.state()

    names: list[dict[str, str]] = [{"memberId": member["id"]}, {"email": JANE}]
    for name in names:
        for key in ({}, {"idempotencyKey": "new"}, {"idempotencyKey": "waiting"}):
            answer = await shop.do(CLAIM_CODE, poolId=pool["id"], **name, **key)
            assert (answer["replayed"], answer["code"]["id"]) == (True, own["id"])
    assert await shop.state() == before
    sent = await send(shop, pool, {"memberId": member["id"]})
    assert (sent["campaign"]["recipientCount"], sent["campaign"]["allocatedCount"]) == (1, 0)
    assert await shop.count("delivery") == 1


async def test_with_three_of_a_pool_the_latest_of_the_address_are_too_many(shop: Shop) -> None:
    pool = await shop.pool(codes=9, claimsPerMember=3)
    member = await shop.member(email=JANE)
    own = [await shop.claim(pool, member, idempotencyKey=f"own {number}") for number in range(2)]
    waiting = [await claim_by_email(shop, pool, JANE, idempotencyKey=f"{number}") for number in range(3)]

    await verify(shop, member)

    version, codes = await wallet(shop, member)
    assert version == 2 + 3 + 2
    assert {code["id"] for code in codes if code["state"] == "ALLOCATED"} == {
        own[0]["id"], own[1]["id"], waiting[0]["id"]
    }  # fmt: skip
    assert {code["id"] for code in codes if code["state"] == "REVOKED"} == {waiting[1]["id"], waiting[2]["id"]}
    assert await shop.stock(pool) == {
        "total": 11, "available": 6, "allocated": 3, "redeemed": 0, "expired": 0, "revoked": 2
    }  # fmt: skip
    again = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"], idempotencyKey="fourth")
    assert (again["replayed"], again["code"]["id"]) == (True, waiting[0]["id"])
    assert await breaches(shop) == {}


async def test_with_room_for_all_every_code_is_kept(shop: Shop) -> None:
    pool = await shop.pool(codes=9, claimsPerMember=3)
    member = await shop.member(email=JANE)
    await shop.claim(pool, member)
    await claim_by_email(shop, pool, JANE, idempotencyKey="a")
    await verify(shop, member)

    fresh = await shop.do(CLAIM_CODE, poolId=pool["id"], email=JANE, idempotencyKey="b")
    full = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"], idempotencyKey="c")

    assert (fresh["replayed"], full["replayed"]) == (False, True)
    assert full["code"]["id"] == fresh["code"]["id"]
    assert (await shop.stock(pool))["allocated"] == 3
    assert await breaches(shop) == {}


async def test_a_spent_code_is_kept_even_if_it_is_one_too_many(shop: Shop) -> None:
    pool = await shop.pool(codes=5)
    member = await shop.member(email=JANE)
    waiting = await claim_by_email(shop, pool, JANE)
    assert await present(shop, waiting, email=JANE) == "REDEEMED"
    own = await shop.claim(pool, member)

    await verify(shop, member)

    version, codes = await wallet(shop, member)
    assert version == 2
    assert {code["id"]: code["state"] for code in codes} == {own["id"]: "ALLOCATED", waiting["id"]: "REDEEMED"}
    assert await shop.stock(pool) == {
        "total": 5, "available": 3, "allocated": 1, "redeemed": 1, "expired": 0, "revoked": 0
    }  # fmt: skip
    assert await breaches(shop) == {}


async def test_what_is_spent_counts_before_what_is_live(shop: Shop) -> None:
    pool = await shop.pool(codes=9, claimsPerMember=2)
    member = await shop.member(email=JANE)
    live, spent = [await claim_by_email(shop, pool, JANE, idempotencyKey=key) for key in "ab"]
    assert await present(shop, spent, email=JANE) == "REDEEMED"
    own = await shop.claim(pool, member)

    await verify(shop, member)

    states = {code["id"]: code["state"] for code in (await wallet(shop, member))[1]}
    assert states == {own["id"]: "ALLOCATED", spent["id"]: "REDEEMED", live["id"]: "REVOKED"}
    assert await breaches(shop) == {}


async def test_a_surplus_of_an_archived_pool_is_not_replaced(shop: Shop) -> None:
    pool = await shop.pool(codes=5)
    member = await shop.member(email=JANE)
    await claim_by_email(shop, pool, JANE)
    await shop.claim(pool, member)
    await shop.do(CHANGE_STATUS % "archivePool", poolId=pool["id"])

    await verify(shop, member)

    assert await shop.stock(pool) == {
        "total": 5, "available": 3, "allocated": 1, "redeemed": 0, "expired": 0, "revoked": 1
    }  # fmt: skip
    assert await breaches(shop) == {}


async def test_a_code_of_a_fallback_is_surplus_where_the_pool_that_was_asked_is_full(shop: Shop) -> None:
    last = await shop.pool(codes=5, claimsPerMember=5)
    first = await shop.pool(codes=1, fallbackPoolId=last["id"])
    member = await shop.member(email=JANE)
    own = await shop.claim(first, member)
    waiting = await claim_by_email(shop, first, JANE)

    await verify(shop, member)

    states = {code["id"]: code["state"] for code in (await wallet(shop, member))[1]}
    assert states == {own["id"]: "ALLOCATED", waiting["id"]: "REVOKED"}
    assert (await shop.stock(last))["available"] == 5
    assert await breaches(shop) == {}


# ----------------------------------------------------------------------------------------------------- redemption


@pytest.mark.parametrize("document", [CHECK_CODES, REDEEM_CODES], ids=["check", "redeem"])
@pytest.mark.parametrize("way", ["claim", "recipient", "owner", "owner by claim", "owner by recipient"])
async def test_the_right_address_may_present_a_code(shop: Shop, way: str, document: str) -> None:
    pool = await shop.pool()
    member = await shop.member(email=JANE, emailVerified=True) if way.startswith("owner") else await shop.member()
    if way in {"recipient", "owner by recipient"}:
        await send(shop, pool, {"email": JANE})
        code = await claim_by_email(shop, pool, JANE)
    elif way == "owner":
        code = await shop.claim(pool, member)
    else:
        code = await claim_by_email(shop, pool, JANE)

    assert await present(shop, code, document, email="other@example.com") == "NOT_OWNER"
    assert await present(shop, code, document, memberId=(await shop.member())["id"]) == "NOT_OWNER"
    assert await present(shop, code, document) == "NOT_OWNER"
    assert await present(shop, code, document, email=SPELLINGS[1]) == "REDEEMED"


@pytest.mark.parametrize("document", [CHECK_CODES, REDEEM_CODES], ids=["check", "redeem"])
async def test_the_unverified_address_of_the_owner_may_not(shop: Shop, document: str) -> None:
    member = await shop.member(email=JANE)
    code = await shop.claim(await shop.pool(), member)

    assert await present(shop, code, document, email=JANE) == "NOT_OWNER"
    assert await present(shop, code, document, memberId=member["id"], email=JANE) == "REDEEMED"


@pytest.mark.parametrize("document", [CHECK_CODES, REDEEM_CODES], ids=["check", "redeem"])
async def test_of_a_code_with_an_owner_the_member_id_decides(shop: Shop, document: str) -> None:
    owner, other = await shop.member(email=JANE, emailVerified=True), await shop.member()
    code = await claim_by_email(shop, await shop.pool(), JANE)

    assert await present(shop, code, document, memberId=other["id"], email=JANE) == "NOT_OWNER"
    assert await present(shop, code, document, memberId=NOBODY, email=JANE) == "NOT_OWNER"
    assert await present(shop, code, document, memberId=owner["id"], email="other@example.com") == "REDEEMED"


@pytest.mark.parametrize("document", [CHECK_CODES, REDEEM_CODES], ids=["check", "redeem"])
async def test_of_a_code_without_an_owner_the_address_decides(shop: Shop, document: str) -> None:
    member = await shop.member()
    code = await claim_by_email(shop, await shop.pool(), JANE)

    assert await present(shop, code, document, memberId=member["id"]) == "NOT_OWNER"
    assert await present(shop, code, document, memberId=member["id"], email="other@example.com") == "NOT_OWNER"
    assert await present(shop, code, document, memberId=member["id"], email=JANE) == "REDEEMED"


async def test_a_redemption_by_address_is_replayed_for_that_address_only(shop: Shop) -> None:
    code = await claim_by_email(shop, await shop.pool(), JANE)
    order: dict[str, Any] = {"codes": [code["text"]], "orderId": "order", "orderAmount": usd(1000)}
    redeemed = await shop.do(REDEEM_CODES, email=JANE, **order)

    again = await shop.do(REDEEM_CODES, email=SPELLINGS[0], **order)
    other = await shop.refused(REDEEM_CODES, email="other@example.com", **order)

    assert again == redeemed | {"replayed": True}
    assert redeemed["redemptions"][0]["code"]["text"] is None
    assert [rejection["reason"] for rejection in other["rejections"]] == ["NOT_OWNER"]


@pytest.mark.parametrize("document", [CHECK_CODES, REDEEM_CODES], ids=["check", "redeem"])
@pytest.mark.parametrize("address", ["", "nobody", "a\x00@example.com"])
async def test_what_is_no_address_presents_nothing(shop: Shop, document: str, address: str) -> None:
    code = await claim_by_email(shop, await shop.pool(transferable=True), JANE)

    refused = await shop.refused(document, codes=[code["text"]], orderId="order", orderAmount=usd(1000), email=address)

    assert problems(refused) == {"email": "must be an e-mail address"}


async def test_guesses_are_counted_for_the_address_that_presents_them(shop: Shop, worker_database: str) -> None:
    pool = await shop.pool()
    code, other = await claim_by_email(shop, pool, JANE), await claim_by_email(shop, pool, "other@example.com")
    guesses = code_text.new_codes("PERCENT", 6)

    async def reasons(api: Api, codes: list[str], email: str) -> set[str]:
        order: dict[str, Any] = {"codes": codes, "orderId": "order", "orderAmount": usd(1000), "email": email}
        answer = await shop.do(CHECK_CODES, url=f"{api.url}/graphql", **order)
        return {rejection["reason"] for rejection in answer.get("rejections", [])}

    with run_api(worker_database, FLASH_ATTEMPTS_PER_MEMBER_MAX="5", FLASH_ATTEMPTS_PER_KEY_MAX="100") as api:
        assert await reasons(api, guesses[:5], JANE) == {"UNKNOWN"}
        assert await reasons(api, guesses[5:], SPELLINGS[1]) == {"TOO_MANY_ATTEMPTS"}
        assert await reasons(api, [code["text"]], JANE) == set()
        assert await reasons(api, [other["text"]], JANE) == {"TOO_MANY_ATTEMPTS"}
        assert await reasons(api, guesses[5:], "other@example.com") == {"UNKNOWN"}


# ----------------------------------------------------------------------------------------------- who sees the text


async def test_the_text_is_for_whoever_claimed_and_then_for_the_owner_only(shop: Shop) -> None:
    pool = await shop.pool()
    key = await shop.key("CHECKOUT")
    answer = await shop.do(CLAIM_CODE, key=key, poolId=pool["id"], email=JANE)
    code = answer["code"]
    other = await shop.token((await shop.member())["id"])

    assert code["text"].startswith("PCT-")
    for role in ("ADMIN", "CHECKOUT", "ANALYST"):
        assert (await node(shop, code, key=await shop.key(role)))["text"] is None
    assert await node(shop, code, key=other) is None
    owner = await shop.token((await shop.member(email=JANE, emailVerified=True))["id"])

    assert (await node(shop, code, key=owner))["text"] == code["text"]
    assert await node(shop, code, key=other) is None
    for role in ("ADMIN", "CHECKOUT", "ANALYST"):
        assert (await node(shop, code, key=await shop.key(role)))["text"] is None


async def test_verifying_is_not_for_members_and_analysts(shop: Shop) -> None:
    member = await shop.member(email=JANE)

    for key in (await shop.key("ANALYST"), await shop.token(member["id"])):
        assert await shop.failed(VERIFY_MEMBER_EMAIL, key=key, memberId=member["id"]) == "FORBIDDEN"
    answer = await shop.do(VERIFY_MEMBER_EMAIL, key=await shop.key("CHECKOUT"), memberId=member["id"])
    assert answer["member"]["emailVerified"] is True
