"""claimCode. Without these a member could get two codes, another's code, or one from a pool that is on hold."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from app import ids
from app.coupons import claims
from app.coupons.claims import Claimant, claim
from app.coupons.stock import fold_stock
from app.storage.database import database
from app.storage.lasting import Lasting
from app.web.authentication import authenticate
from tests.factories import CHANGE_STATUS, CLAIM_CODE, GENERATE_CODES, Shop, problems
from tests.orders.presented import end_pool

WALLET_CODES = """
{ wallet { version codes { edges { node { id masked text state matchedBy owner { id } pool { id } } } } } }
"""
NODE_TEXT = "query ($id: ID!) { node(id: $id) { ... on Code { id masked text } } }"


def stock(total: int, **states: int) -> dict[str, int]:
    """Return a pool's stock: what isn't named is zero."""
    return {"total": total, "available": 0, "allocated": 0, "redeemed": 0, "expired": 0, "revoked": 0} | states


async def test_a_claim_allocates_one_code_and_shows_its_text(shop: Shop) -> None:
    pool = await shop.pool(codes=3)
    member = await shop.member()
    before = await shop.state()

    answer = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"])

    code = answer["code"]
    assert answer["__typename"] == "ClaimCodeSuccess"
    assert answer["replayed"] is False
    assert answer["servedBy"] == {"id": pool["id"]}
    assert code["text"].startswith("PCT-")
    assert code["masked"] == f"PCT-••••{code['text'][-2:]}"
    assert code["state"] == "ALLOCATED"
    assert code["matchedBy"] == "MEMBER_ID"
    assert code["allocatedAt"].endswith("Z")
    assert code["expiresAt"] is None
    assert code["redeemedAt"] is None
    assert code["pool"] == {"id": pool["id"]}
    assert code["owner"] == {"id": member["id"], "wallet": {"version": 1}}
    assert await shop.stock(pool) == stock(3, available=2, allocated=1)
    assert (await shop.state()).since(before) == {
        "claim": 1, "code": 0, "wallet": 0, "stock_change": 1, "event": 1
    }  # fmt: skip
    assert (await shop.event_types())[-1] == "code.claimed"
    assert await shop.wallet_versions(member) == [1]


async def test_a_second_claim_returns_the_first_code(shop: Shop) -> None:
    pool = await shop.pool(codes=3)
    member = await shop.member()
    first = await shop.claim(pool, member)
    before = await shop.state()

    again = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"])

    assert again["replayed"] is True
    assert again["code"] == first
    assert await shop.state() == before


async def test_two_members_get_two_codes(shop: Shop) -> None:
    pool = await shop.pool(codes=2)

    first, second = [await shop.claim(pool, await shop.member()) for _ in range(2)]

    assert first["id"] != second["id"]
    assert first["text"] != second["text"]
    assert await shop.stock(pool) == stock(2, allocated=2)


async def test_one_member_gets_a_code_of_each_pool_and_a_wallet_version_for_each(shop: Shop) -> None:
    member = await shop.member()

    codes = [await shop.claim(await shop.pool(codes=1), member) for _ in range(3)]

    assert [code["owner"]["wallet"]["version"] for code in codes] == [1, 2, 3]
    assert await shop.wallet_versions(member) == [1, 2, 3]


async def test_a_member_claims_for_itself_without_naming_itself(shop: Shop) -> None:
    pool = await shop.pool(codes=2)
    member = await shop.member()
    token = await shop.token(member["id"])

    unnamed = await shop.do(CLAIM_CODE, key=token, poolId=pool["id"])
    named = await shop.do(CLAIM_CODE, key=token, poolId=pool["id"], memberId=member["id"])

    assert unnamed["code"]["owner"]["id"] == member["id"]
    assert named == unnamed | {"replayed": True}
    rows = await database().rows(
        "SELECT actor FROM event WHERE merchant_id = $1 AND type = 'code.claimed'", shop.merchant_id
    )
    assert [row["actor"] for row in rows] == [member["id"]]


async def test_a_checkout_claims_for_a_member_and_gets_the_text(shop: Shop) -> None:
    pool = await shop.pool(codes=1)
    member = await shop.member()
    key = await shop.key("CHECKOUT")

    answer = await shop.do(CLAIM_CODE, key=key, poolId=pool["id"], memberId=member["id"])

    assert answer["code"]["text"].startswith("PCT-")


async def test_outside_the_answer_of_a_claim_an_admin_never_sees_a_text(shop: Shop) -> None:
    pool = await shop.pool(codes=2)
    member = await shop.member()
    document = CLAIM_CODE.replace("code { ", "code { owner { wallet { codes { edges { node { id text } } } } } ")
    claimed = (await shop.do(document, poolId=pool["id"], memberId=member["id"]))["code"]

    answer = await shop.data("{ codes { edges { node { text masked } } } }")
    node = await shop.data(NODE_TEXT, {"id": claimed["id"]})

    assert claimed["text"].startswith("PCT-")
    assert claimed["owner"]["wallet"]["codes"]["edges"] == [{"node": {"id": claimed["id"], "text": None}}]
    assert [edge["node"]["text"] for edge in answer["codes"]["edges"]] == [None, None]
    assert node["node"] == {"id": claimed["id"], "masked": claimed["masked"], "text": None}


async def test_the_owner_sees_the_text_in_its_wallet_and_by_id(shop: Shop) -> None:
    pool = await shop.pool(codes=2)
    member = await shop.member()
    claimed = await shop.claim(pool, member)
    token = await shop.token(member["id"])

    wallet = (await shop.data(WALLET_CODES, key=token))["wallet"]
    node = await shop.data(NODE_TEXT, {"id": claimed["id"]}, key=token)

    assert wallet == {
        "version": 1,
        "codes": {
            "edges": [
                {
                    "node": {
                        "id": claimed["id"],
                        "masked": claimed["masked"],
                        "text": claimed["text"],
                        "state": "ALLOCATED",
                        "matchedBy": "MEMBER_ID",
                        "owner": {"id": member["id"]},
                        "pool": {"id": pool["id"]},
                    }
                }
            ]
        },
    }
    assert node == {"node": {"id": claimed["id"], "masked": claimed["masked"], "text": claimed["text"]}}


async def test_another_member_sees_neither_the_text_nor_the_code(shop: Shop) -> None:
    pool = await shop.pool(codes=2)
    claimed = await shop.claim(pool, await shop.member())
    token = await shop.token((await shop.member())["id"])

    wallet = (await shop.data(WALLET_CODES, key=token))["wallet"]
    node = await shop.data(NODE_TEXT, {"id": claimed["id"]}, key=token)

    assert wallet == {"version": 0, "codes": {"edges": []}}
    assert node == {"node": None}


async def test_another_merchant_sees_no_code(shop: Shop, other_shop: Shop) -> None:
    claimed = await shop.claim(await shop.pool(codes=1), await shop.member())

    assert await other_shop.data(NODE_TEXT, {"id": claimed["id"]}) == {"node": None}


async def test_a_code_lives_as_many_days_as_its_pool_says(shop: Shop) -> None:
    pool = await shop.pool(codes=1, codeLifetimeDays=30)
    claimed = await shop.claim(pool, await shop.member())

    row = await database().row(
        "SELECT expires_at - allocated_at AS lifetime FROM code WHERE merchant_id = $1", shop.merchant_id
    )

    assert row is not None
    assert row["lifetime"].days == 30
    assert row["lifetime"].seconds == 0
    assert claimed["expiresAt"] is not None


# --------------------------------------------------------------------------------- several codes for one member


async def test_each_key_is_a_claim_of_its_own_up_to_the_limit(shop: Shop) -> None:
    pool = await shop.pool(codes=5, claimsPerMember=3)
    member = await shop.member()

    answers = [
        await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"], idempotencyKey=key)
        for key in ("a", "b", "c", "d", "b")
    ]

    codes = [answer["code"]["id"] for answer in answers]
    assert [answer["replayed"] for answer in answers] == [False, False, False, True, True]
    assert len(set(codes[:3])) == 3
    assert codes[3] == codes[2]
    assert codes[4] == codes[1]
    assert answers[4]["code"]["text"] == answers[1]["code"]["text"]
    assert await shop.stock(pool) == stock(5, available=2, allocated=3)
    assert await shop.wallet_versions(member) == [1, 2, 3]


async def test_without_a_key_a_claim_is_the_first_one_even_below_the_limit(shop: Shop) -> None:
    pool = await shop.pool(codes=5, claimsPerMember=3)
    member = await shop.member()
    first = await shop.claim(pool, member)
    before = await shop.state()

    again = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"])

    assert again["replayed"] is True
    assert again["code"] == first
    assert await shop.state() == before


async def test_a_claim_without_a_key_counts_towards_the_limit(shop: Shop) -> None:
    pool = await shop.pool(codes=5, claimsPerMember=2)
    member = await shop.member()
    unkeyed = await shop.claim(pool, member)
    keyed = await shop.claim(pool, member, idempotencyKey="a")

    over = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"], idempotencyKey="b")

    assert unkeyed["id"] != keyed["id"]
    assert over["replayed"] is True
    assert over["code"]["id"] == keyed["id"]


async def test_where_one_code_is_the_limit_another_key_gets_the_code_that_is_held(shop: Shop) -> None:
    pool = await shop.pool(codes=5)
    member = await shop.member()
    first = await shop.claim(pool, member, idempotencyKey="a")
    before = await shop.state()

    second = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"], idempotencyKey="b")

    assert second["replayed"] is True
    assert second["code"] == first
    assert await shop.state() == before


async def test_keys_of_members_are_their_own(shop: Shop) -> None:
    pool = await shop.pool(codes=5)
    tokens = [await shop.token((await shop.member())["id"]) for _ in range(2)]

    answers = [await shop.do(CLAIM_CODE, key=token, poolId=pool["id"], idempotencyKey="tap") for token in tokens]

    assert [answer["replayed"] for answer in answers] == [False, False]
    assert answers[0]["code"]["id"] != answers[1]["code"]["id"]


async def test_two_merchants_may_use_the_same_key(shop: Shop, other_shop: Shop) -> None:
    for each in (shop, other_shop):
        pool, member = await each.pool(codes=1), await each.member()

        answer = await each.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"], idempotencyKey="a")

        assert answer["replayed"] is False


async def test_one_key_many_times_at_once_is_one_claim(shop: Shop) -> None:
    pool = await shop.pool(codes=20, claimsPerMember=10)
    member = await shop.member()

    answers = await asyncio.gather(
        *(shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"], idempotencyKey="a") for _ in range(20))
    )

    assert len({answer["code"]["id"] for answer in answers}) == 1
    assert sorted(answer["replayed"] for answer in answers) == [False] + [True] * 19
    assert await shop.stock(pool) == stock(20, available=19, allocated=1)


# ------------------------------------------------------------------------------------------------ pools on hold


@pytest.mark.parametrize("steps", [["pausePool"], ["archivePool"], ["pausePool", "archivePool"]])
async def test_a_code_that_is_held_is_shown_again_whatever_became_of_the_pool(shop: Shop, steps: list[str]) -> None:
    pool = await shop.pool(codes=2)
    member = await shop.member()
    first = await shop.claim(pool, member)
    for step in steps:
        await shop.do(CHANGE_STATUS % step, poolId=pool["id"])
    before = await shop.state()

    again = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"])

    # Who asks again hears what became of it.
    is_over = "archivePool" in steps
    assert again["replayed"] is True
    assert again["code"] == first | ({"state": "EXPIRED"} if is_over else {})
    assert await shop.state() == before


async def test_a_pool_whose_pause_is_lifted_issues_again(shop: Shop) -> None:
    pool = await shop.pool(codes=1)
    await shop.do(CHANGE_STATUS % "pausePool", poolId=pool["id"])
    await shop.do(CHANGE_STATUS % "activatePool", poolId=pool["id"])

    assert (await shop.claim(pool, await shop.member()))["state"] == "ALLOCATED"


async def test_codes_added_in_a_pause_can_be_claimed_after_it(shop: Shop) -> None:
    pool = await shop.pool(codes=1)
    await shop.claim(pool, await shop.member())
    await shop.do(CHANGE_STATUS % "pausePool", poolId=pool["id"])
    await shop.do(GENERATE_CODES, poolId=pool["id"], count=1)
    await shop.do(CHANGE_STATUS % "activatePool", poolId=pool["id"])

    assert (await shop.claim(pool, await shop.member()))["state"] == "ALLOCATED"
    assert await shop.stock(pool) == stock(2, allocated=2)


async def test_a_pool_issues_inside_its_window(shop: Shop) -> None:
    pool = await shop.pool(codes=1, startsAt="2020-01-01T00:00:00Z", endsAt="2999-01-01T00:00:00Z")

    assert (await shop.claim(pool, await shop.member()))["state"] == "ALLOCATED"


async def test_the_stock_is_the_same_after_it_was_folded(shop: Shop) -> None:
    pool = await shop.pool(codes=60)
    members = await asyncio.gather(*(shop.member() for _ in range(55)))
    await asyncio.gather(*(shop.claim(pool, member) for member in members))
    expected = stock(60, available=5, allocated=55)
    assert await shop.stock(pool) == expected

    await asyncio.gather(fold_stock(), fold_stock())

    assert await shop.stock(pool) == expected
    assert await shop.count("stock_change") < 55
    await shop.claim(pool, await shop.member())
    assert await shop.stock(pool) == stock(60, available=4, allocated=56)


# ------------------------------------------------------------------------------------ refusals, in checking order


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("x" * 201, "must be at most 200 characters"),
        ("x" * 10_000, "must be at most 200 characters"),
        ("a\x00b", "must not contain control characters"),
        ("a\rb", "must not contain control characters"),
        ("a ", "must not begin or end with white space"),
    ],
)
async def test_an_unusable_key_is_refused(shop: Shop, key: str, message: str) -> None:
    pool, member = await shop.pool(codes=1), await shop.member()

    refusal = await shop.refused(CLAIM_CODE, poolId=pool["id"], memberId=member["id"], idempotencyKey=key)

    assert problems(refusal) == {"idempotencyKey": message}


async def test_a_key_of_200_characters_is_a_key(shop: Shop) -> None:
    pool, member = await shop.pool(codes=1), await shop.member()
    token = await shop.token(member["id"])

    answer = await shop.do(CLAIM_CODE, key=token, poolId=pool["id"], idempotencyKey="界" * 200)

    assert answer["replayed"] is False


@pytest.mark.parametrize("role", ["ADMIN", "CHECKOUT"])
async def test_a_key_must_name_the_claimant(shop: Shop, role: str) -> None:
    pool = await shop.pool(codes=1)
    key = await shop.key(role)

    refusal = await shop.refused(CLAIM_CODE, key=key, poolId=pool["id"])

    assert problems(refusal) == {"memberId": "or member or email must be given, and only one of them"}


@pytest.mark.parametrize("input", [{"poolId": None}, {"memberId": 1.5}, {"idempotencyKey": 5}, {"status": "ACTIVE"}])
async def test_a_value_of_the_wrong_type_is_bad_user_input(shop: Shop, input: dict[str, Any]) -> None:
    pool, member = await shop.pool(codes=1), await shop.member()
    valid: dict[str, Any] = {"poolId": pool["id"], "memberId": member["id"]}

    assert await shop.failed(CLAIM_CODE, **(valid | input)) == "BAD_USER_INPUT"


@pytest.mark.parametrize("pool_id", ["", "7", "pool_0123456789abcdef0123456789abcdef", "pool_\x00"])
async def test_an_id_that_names_no_pool_is_not_found(shop: Shop, pool_id: str) -> None:
    member = await shop.member()

    refusal = await shop.refused(CLAIM_CODE, poolId=pool_id, memberId=member["id"])

    assert refusal == {"__typename": "NotFound", "message": "There is no such pool.", "id": pool_id}


@pytest.mark.parametrize("member_id", ["", "7", "member_0123456789abcdef0123456789abcdef", "member_\x00"])
async def test_an_id_that_names_no_member_is_not_found(shop: Shop, member_id: str) -> None:
    pool = await shop.pool(codes=1)

    refusal = await shop.refused(CLAIM_CODE, poolId=pool["id"], memberId=member_id)

    assert refusal == {"__typename": "NotFound", "message": "There is no such member.", "id": member_id}


async def test_another_merchants_pool_and_member_are_not_found(shop: Shop, other_shop: Shop) -> None:
    pool, member = await shop.pool(codes=1), await shop.member()
    foreign_pool, foreign_member = await other_shop.pool(codes=1), await other_shop.member()
    before = await other_shop.state()

    no_pool = await shop.refused(CLAIM_CODE, poolId=foreign_pool["id"], memberId=member["id"])
    no_member = await shop.refused(CLAIM_CODE, poolId=pool["id"], memberId=foreign_member["id"])

    assert no_pool == {"__typename": "NotFound", "message": "There is no such pool.", "id": foreign_pool["id"]}
    assert no_member == {"__typename": "NotFound", "message": "There is no such member.", "id": foreign_member["id"]}
    assert await other_shop.state() == before


async def test_for_a_member_any_other_member_is_not_found(shop: Shop) -> None:
    pool, member, other = await shop.pool(codes=1), await shop.member(), await shop.member()
    token = await shop.token(member["id"])

    for named in (other["id"], "member_0123456789abcdef0123456789abcdef"):
        refusal = await shop.refused(CLAIM_CODE, key=token, poolId=pool["id"], memberId=named)

        assert refusal == {"__typename": "NotFound", "message": "There is no such member.", "id": named}


async def test_a_paused_pool_issues_nothing(shop: Shop) -> None:
    pool = await shop.pool(codes=3)
    member = await shop.member()
    await shop.do(CHANGE_STATUS % "pausePool", poolId=pool["id"])

    assert await shop.refused(CLAIM_CODE, poolId=pool["id"], memberId=member["id"]) == {
        "__typename": "PoolNotActive", "message": "The pool issues no codes: it is PAUSED.", "status": "PAUSED"
    }  # fmt: skip


async def test_a_draft_issues_nothing(shop: Shop) -> None:
    pool = await shop.pool(codes=3, active=False)
    member = await shop.member()

    assert await shop.refused(CLAIM_CODE, poolId=pool["id"], memberId=member["id"]) == {
        "__typename": "PoolNotActive", "message": "The pool issues no codes: it is DRAFT.", "status": "DRAFT"
    }  # fmt: skip


async def test_an_archived_pool_issues_nothing(shop: Shop) -> None:
    pool = await shop.pool(codes=3)
    member = await shop.member()
    await shop.do(CHANGE_STATUS % "archivePool", poolId=pool["id"])

    assert await shop.refused(CLAIM_CODE, poolId=pool["id"], memberId=member["id"]) == {
        "__typename": "PoolNotActive", "message": "The pool issues no codes: it is ARCHIVED.", "status": "ARCHIVED"
    }  # fmt: skip


@pytest.mark.parametrize(
    "window", [{"startsAt": "2999-01-01T00:00:00Z"}, {"endsAt": "2999-01-01T00:00:00Z"}], ids=["early", "late"]
)
async def test_a_pool_outside_its_window_issues_nothing(shop: Shop, window: dict[str, Any]) -> None:
    pool = await shop.pool(codes=3, **window)
    if "endsAt" in window:
        await end_pool(shop, pool)
    member = await shop.member()

    assert await shop.refused(CLAIM_CODE, poolId=pool["id"], memberId=member["id"]) == {
        "__typename": "PoolNotActive",
        "message": "The pool issues no codes: it is outside its dates.",
        "status": "ACTIVE",
    }


async def test_a_new_key_below_the_limit_gets_nothing_from_a_paused_pool(shop: Shop) -> None:
    pool = await shop.pool(codes=3, claimsPerMember=2)
    member = await shop.member()
    await shop.claim(pool, member, idempotencyKey="a")
    await shop.do(CHANGE_STATUS % "pausePool", poolId=pool["id"])

    refusal = await shop.refused(CLAIM_CODE, poolId=pool["id"], memberId=member["id"], idempotencyKey="b")
    again = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"], idempotencyKey="a")

    assert refusal["__typename"] == "PoolNotActive"
    assert again["replayed"] is True


async def test_an_empty_pool_is_exhausted_for_newcomers_only(shop: Shop) -> None:
    pool = await shop.pool(codes=1)
    owner, late = await shop.member(), await shop.member()
    first = await shop.claim(pool, owner)

    refusal = await shop.refused(CLAIM_CODE, poolId=pool["id"], memberId=late["id"])
    again = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=owner["id"])

    assert refusal == {
        "__typename": "PoolExhausted",
        "message": "The pool has no code left.",
        "poolsTried": [pool["id"]],
    }
    assert again["code"] == first
    assert await shop.stock(pool) == stock(1, allocated=1)


async def test_a_new_key_below_the_limit_gets_nothing_from_an_empty_pool(shop: Shop) -> None:
    pool = await shop.pool(codes=1, claimsPerMember=2)
    member = await shop.member()
    await shop.claim(pool, member, idempotencyKey="a")

    refusal = await shop.refused(CLAIM_CODE, poolId=pool["id"], memberId=member["id"], idempotencyKey="b")

    assert refusal["__typename"] == "PoolExhausted"


@pytest.mark.parametrize("difference", ["pool", "member"])
async def test_a_key_that_was_used_for_another_claim_is_refused(shop: Shop, difference: str) -> None:
    pool, member = await shop.pool(codes=3, claimsPerMember=3), await shop.member()
    other_pool, other_member = await shop.pool(codes=3), await shop.member()
    await shop.claim(pool, member, idempotencyKey="a")

    refusal = await shop.refused(
        CLAIM_CODE,
        poolId=(other_pool if difference == "pool" else pool)["id"],
        memberId=(other_member if difference == "member" else member)["id"],
        idempotencyKey="a",
    )

    assert refusal == {
        "__typename": "IdempotencyKeyReused",
        "message": "This idempotencyKey was used for another claim.",
    }


async def test_a_member_that_uses_its_key_for_another_pool_is_refused(shop: Shop) -> None:
    first, second = await shop.pool(codes=1), await shop.pool(codes=1)
    token = await shop.token((await shop.member())["id"])
    await shop.do(CLAIM_CODE, key=token, poolId=first["id"], idempotencyKey="tap")

    refusal = await shop.refused(CLAIM_CODE, key=token, poolId=second["id"], idempotencyKey="tap")

    assert refusal["__typename"] == "IdempotencyKeyReused"


async def test_an_analyst_claims_nothing(shop: Shop) -> None:
    pool, member = await shop.pool(codes=1), await shop.member()
    key = await shop.key("ANALYST")

    assert await shop.failed(CLAIM_CODE, key=key, poolId=pool["id"], memberId=member["id"]) == "FORBIDDEN"


async def test_the_record_of_a_claim_names_ids_only(shop: Shop) -> None:
    pool, member = await shop.pool(codes=1), await shop.member(email="jo@example.com", displayName="Jo Doe")
    code = await shop.claim(pool, member)

    row = await database().row("SELECT * FROM event WHERE merchant_id = $1 AND type = 'code.claimed'", shop.merchant_id)

    assert row is not None
    assert row["subject_id"] == ids.decode("code", code["id"])
    assert row["member_id"] == ids.decode("member", member["id"])
    assert row["wallet_version"] == 1
    assert row["actor"].startswith("apikey_")
    written = " ".join(str(value) for value in row.values())
    assert not any(secret in written for secret in ("jo@", "Jo Doe", code["text"], code["text"][-4:]))


async def test_a_process_remembers_so_many_pools_and_claims_from_all(shop: Shop, monkeypatch: Any) -> None:
    monkeypatch.setattr(claims, "_last_found", Lasting(2))
    viewer = await authenticate(f"Bearer {shop.admin}")
    assert viewer is not None
    claimants = [Claimant(ids.decode("member", (await shop.member())["id"])) for _ in range(2)]
    pools = [UUID((await shop.pool(codes=2))["id"].removeprefix("pool_")) for _ in range(3)]
    for claimant in claimants:
        for pool_id in pools:
            claimed = await claim(database(), viewer, pool_id, claimant, None)
            assert claimed is not None
            assert not claimed.replayed

    assert [pool_id in claims._last_found for pool_id in pools] == [False, True, True]
