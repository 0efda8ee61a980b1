"""importCodes, and reading what is typed. Without these a printed code could be refused, or be two people's."""

import itertools
from typing import Any

import pytest

from app.config import settings
from app.coupons import code_text
from app.coupons.expire_codes import expire_batch
from app.coupons.typed_codes import FIND, foreign_fingerprint
from app.merchants.tenants import tenant
from app.storage.database import database
from tests.conftest import Api
from tests.coupons.test_discard_pool import DISCARD
from tests.coupons.test_issue_codes import ISSUE, texts
from tests.factories import (
    CHANGE_STATUS,
    CHECK_CODES,
    CLAIM_CODE,
    EDIT_POOL,
    REDEEM_CODES,
    REFUSALS,
    VERIFY_MEMBER_EMAIL,
    Shop,
    problems,
    usd,
)
from tests.races.storm import Processes, at_once, kinds, members

IMPORT = f"""
mutation ($input: ImportCodesInput!) {{
  answer: importCodes(input: $input) {{
    __typename ... on ImportCodesSuccess {{ replayed batch {{ id size }} }} {REFUSALS}
    ... on PoolNotEditable {{ status fields }}
  }}
}}
"""
CODE = "query ($text: String!) { code(text: $text) { id masked state bearer text } }"
WALLET = "{ wallet { version codes { edges { node { text state matchedBy masked expiresAt } } } } }"
LONG = "WINTER-2019-AB"


async def imported(shop: Shop, pool: Any, *codes: Any, **more: Any) -> Any:
    """Import codes, and return the answer."""
    return await shop.do(IMPORT, poolId=pool["id"], codes=list(codes), **more)


async def draft(shop: Shop, **terms: Any) -> Any:
    return await shop.pool(codes=0, active=False, **terms)


async def activate(shop: Shop, pool: Any) -> None:
    assert (await shop.do(CHANGE_STATUS % "activatePool", poolId=pool["id"]))["__typename"] == "ChangePoolStatusSuccess"


async def redeem(shop: Shop, text: str, member: Any = None, order: str = "o-1") -> Any:
    return await shop.do(
        REDEEM_CODES, codes=[text], orderId=order, orderAmount=usd(10_000), memberId=member and member["id"]
    )


async def test_imported_stock_is_claimed_and_shown_as_it_was_imported(shop: Shop) -> None:
    pool, member = await draft(shop), await shop.member()
    answer = await imported(shop, pool, {"text": "Winter-2019 ab"})
    await activate(shop, pool)

    code = await shop.claim(pool, member)
    redeemed = await redeem(shop, "winter2019AB", member)

    assert (answer["replayed"], answer["batch"]["size"]) == (False, 1)
    assert (code["text"], code["masked"]) == ("Winter-2019 ab", "••••AB")
    assert redeemed["__typename"] == "RedeemCodesSuccess"
    assert (await shop.event_types()).count("codes.imported") == 1
    assert await shop.broken_promises() == []


async def test_owners_have_their_codes_at_once_and_each_is_a_claim(shop: Shop) -> None:
    pool = await draft(shop, claimsPerMember=2)
    anna, late = await shop.member(), await shop.member(email="late@example.com")
    await imported(
        shop,
        pool,
        {"text": "ANNA-0001-0001", "memberId": anna["id"]},
        {"text": "ANNA-0001-0002", "memberId": anna["id"]},
        {"text": "LATE-0001-0001", "email": "Late@example.com"},
    )
    wallet = (await shop.data(WALLET, key=await shop.token(anna["id"])))["wallet"]
    await activate(shop, pool)
    await shop.do(VERIFY_MEMBER_EMAIL, memberId=late["id"])
    adopted = (await shop.data(WALLET, key=await shop.token(late["id"])))["wallet"]
    again = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=anna["id"], idempotencyKey="more")

    assert wallet["version"] == 2
    assert {edge["node"]["text"] for edge in wallet["codes"]["edges"]} == {"ANNA-0001-0001", "ANNA-0001-0002"}
    assert {edge["node"]["matchedBy"] for edge in wallet["codes"]["edges"]} == {"MEMBER_ID"}
    assert [(e["node"]["text"], e["node"]["matchedBy"]) for e in adopted["codes"]["edges"]] == [
        ("LATE-0001-0001", "CLAIM_EMAIL")
    ]
    assert again["replayed"] is True
    assert (await shop.event_types()).count("code.imported") == 3
    assert await shop.stock(pool) == {
        "total": 3, "available": 0, "allocated": 3, "redeemed": 0, "expired": 0, "revoked": 0
    }  # fmt: skip
    assert await shop.broken_promises() == []


async def test_codes_in_circulation_are_bearer_codes_and_are_never_claimed(shop: Shop) -> None:
    pool = await draft(shop, transferable=True)
    answer = await imported(shop, pool, {"text": LONG}, inCirculation=True)
    await activate(shop, pool)

    claimed = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=(await shop.member())["id"])
    (listed,) = await texts(shop, answer["batch"])
    redeemed = await redeem(shop, LONG.lower())

    assert claimed["__typename"] == "PoolExhausted"
    assert (listed["text"], listed["bearer"]) == (LONG, True)
    assert redeemed["__typename"] == "RedeemCodesSuccess"
    assert await shop.broken_promises() == []


async def test_a_text_is_read_exactly_first_and_then_as_people_misread_it(shop: Shop) -> None:
    pool = await draft(shop, transferable=True)
    one, two, alone = "OLDE-2019-AAA0", "OLDE-2019-AAAO", "SOLO-2019-1111"
    await imported(shop, pool, {"text": one}, {"text": two}, {"text": alone}, inCirculation=True)
    await activate(shop, pool)

    async def reason(text: str) -> Any:
        answer = await shop.do(CHECK_CODES, codes=[text], orderId="o", orderAmount=usd(1_000))
        return answer["rejections"][0]["reason"] if "rejections" in answer else "OK"

    assert [await reason(text) for text in (one, two, "“olde 2019 aaa0.”")] == ["OK"] * 3
    # Between the two it names neither; where there is one, it is that.
    assert await reason("0LDE-2019-AAAO") == "UNKNOWN"
    assert await reason("S0L0-2019-IL1I") == "OK"


async def test_one_of_our_own_form_is_that_code(shop: Shop) -> None:
    member, pool = await shop.member(), await shop.pool(codes=1)
    own = (await shop.claim(pool, member))["text"]
    other = await draft(shop)

    refused = await shop.refused(IMPORT, poolId=other["id"], codes=[{"text": own.lower().replace("0", "o")}])

    assert problems(refused) == {"codes.0.text": "exists already"}


async def test_the_end_of_a_row_caps_every_lifetime_and_ends_stock(shop: Shop) -> None:
    pool, member = await draft(shop, codeLifetimeDays=3650, claimsPerMember=2), await shop.member()
    end = "2030-01-01T00:00:00Z"
    await imported(shop, pool, {"text": "STOCK-2019-0001", "expiresAt": end})
    await imported(shop, pool, {"text": "OWNED-2019-0001", "memberId": member["id"], "expiresAt": end})
    await imported(shop, pool, {"text": "STOCK-2019-0002", "expiresAt": end})
    await activate(shop, pool)
    claimed = await shop.claim(pool, member, idempotencyKey="b")
    await database().row(
        "UPDATE code SET expires_at = now() WHERE merchant_id = $1 AND state = 'AVAILABLE'", shop.merchant_id
    )

    late = await shop.do(CLAIM_CODE, poolId=pool["id"], memberId=(await shop.member())["id"])
    listed = await shop.data("{ codes(state: EXPIRED) { edges { node { state } } } }")
    expired = await expire_batch(shop.merchant_id)

    assert claimed["expiresAt"] == end
    assert late["__typename"] == "PoolExhausted"
    assert listed["codes"]["edges"] == [{"node": {"state": "EXPIRED"}}]
    assert expired == 1
    assert await shop.stock(pool) == {
        "total": 3, "available": 0, "allocated": 2, "redeemed": 0, "expired": 1, "revoked": 0
    }  # fmt: skip
    assert await shop.broken_promises() == []


async def test_the_same_key_is_the_same_batch(shop: Shop) -> None:
    pool = await draft(shop)
    first = await imported(shop, pool, {"text": LONG}, idempotencyKey="k")

    again = await imported(shop, pool, {"text": LONG}, idempotencyKey="k")
    other = await shop.refused(IMPORT, poolId=pool["id"], codes=[{"text": "WINTER-2019-AC"}], idempotencyKey="k")

    assert again == first | {"replayed": True}
    assert other["__typename"] == "IdempotencyKeyReused"


@pytest.mark.parametrize("path", [["activatePool"], ["activatePool", "archivePool"]], ids=["ACTIVE", "ARCHIVED"])
async def test_only_drafts_and_paused_pools_take_imports(shop: Shop, path: list[str]) -> None:
    pool = await shop.pool(codes=1, active=False)
    for step in path:
        await shop.do(CHANGE_STATUS % step, poolId=pool["id"])

    refused = await shop.refused(IMPORT, poolId=pool["id"], codes=[{"text": LONG}])

    assert (refused["__typename"], refused["fields"]) == ("PoolNotEditable", [])


async def test_a_paused_pool_takes_an_import(shop: Shop) -> None:
    pool = await shop.pool(codes=1)
    await shop.do(CHANGE_STATUS % "pausePool", poolId=pool["id"])

    assert (await imported(shop, pool, {"text": LONG}))["__typename"] == "ImportCodesSuccess"


BAD: list[tuple[list[Any], dict[str, str]]] = [
    ([], {"codes": "must be 1 to 5000 codes"}),
    ([{"text": f"WINTER-{number:08}"} for number in range(5_001)], {"codes": "must be 1 to 5000 codes"}),
    ([{"text": LONG}, {"text": "winter 2019 ab"}], {"codes.1.text": "is the same code as codes.0"}),
    ([{"text": LONG}, {"text": "\uff37INTER2019\u2013AB"}], {"codes.1.text": "is the same code as codes.0"}),
    ([{"text": "TAKEN-2019-0001"}], {"codes.0.text": "exists already"}),
    ([{"text": LONG, "expiresAt": "2020-01-01T00:00:00Z"}], {"codes.0.expiresAt": "must be in the future"}),
    ([{"text": LONG, "email": "nobody"}], {"codes.0.email": "must be an e-mail address"}),
    (
        [{"text": LONG, "email": "a@example.com", "memberId": "member_"}],
        {"codes.0": "may name a member or an address, and not both"},
    ),
    (
        [{"text": f"WINTER-2019-0{number}", "email": "a@example.com"} for number in range(2)],
        {"codes.1": "is beyond the 1 that an owner can have of the pool"},
    ),
    *(
        (
            [{"text": text}],
            {"codes.0.text": "must be 4 to 64 letters from A to Z and digits, besides dashes and spaces"},
        )
        for text in ("", "ABC", "A" * 65, "ÄÖÜ-1234", "AB_CD", "A\x00BCDE", "x" * 201)
    ),
]


@pytest.mark.parametrize(("codes", "expected"), BAD)
async def test_bad_rows_are_named_and_nothing_is_imported(
    shop: Shop, codes: list[Any], expected: dict[str, str]
) -> None:
    pool = await draft(shop)
    await imported(shop, pool, {"text": "TAKEN-2019-0001"})

    assert problems(await shop.refused(IMPORT, poolId=pool["id"], codes=codes)) == expected


async def test_circulation_needs_a_transferable_pool_and_keeps_it_so(shop: Shop) -> None:
    pool, bearer = await draft(shop), await draft(shop, transferable=True, claimsPerMember=2)
    await imported(shop, bearer, {"text": LONG}, inCirculation=True)
    rows = [{"text": f"WINTER-2020-A{number}", "email": "a@example.com"} for number in range(2)]
    await imported(shop, bearer, *rows)

    refused = await shop.refused(IMPORT, poolId=pool["id"], codes=[{"text": "WINTER-2019-AC"}], inCirculation=True)
    edited = await shop.refused(EDIT_POOL, poolId=bearer["id"], transferable=False, claimsPerMember=1)

    assert problems(refused) == {"inCirculation": "needs a pool that is transferable"}
    assert problems(edited) == {
        "transferable": "must stay: the pool has bearer codes",
        "claimsPerMember": "must be at least 2: somebody has so many codes of the pool",
    }


async def test_members_and_pools_that_do_not_exist_are_not_found(shop: Shop, other_shop: Shop) -> None:
    pool, theirs, stranger = await draft(shop), await draft(other_shop), await other_shop.member()

    for node_id, asked in (
        (theirs["id"], {"poolId": theirs["id"], "codes": [{"text": LONG}]}),
        (stranger["id"], {"poolId": pool["id"], "codes": [{"text": LONG, "memberId": stranger["id"]}]}),
        ("member_", {"poolId": pool["id"], "codes": [{"text": LONG, "memberId": "member_"}]}),
    ):
        refused = await shop.refused(IMPORT, **asked)
        assert (refused["__typename"], refused["id"]) == ("NotFound", node_id)


@pytest.mark.parametrize("role", ["CHECKOUT", "SUPPORT", "ANALYST"])
async def test_only_an_admin_imports(shop: Shop, role: str) -> None:
    pool = await draft(shop)

    assert await shop.failed(
        IMPORT, key=await shop.key(role), poolId=pool["id"], codes=[{"text": LONG}]
    ) == "FORBIDDEN"  # fmt: skip


async def test_a_discarded_draft_takes_imported_codes_along_and_frees_their_texts(shop: Shop) -> None:
    pool, member = await draft(shop, transferable=True), await shop.member()
    await imported(shop, pool, {"text": LONG, "memberId": member["id"]}, {"text": "PRINTED-2019"}, inCirculation=True)

    discarded = await shop.do(DISCARD, poolId=pool["id"])
    again = await imported(shop, await draft(shop), {"text": LONG})

    assert discarded["__typename"] == "DiscardPoolSuccess"
    assert again["__typename"] == "ImportCodesSuccess"
    assert await shop.wallet_versions(member) == [1, 2]
    assert await shop.broken_promises() == []


async def test_a_code_of_our_own_form_is_one_code_however_it_is_quoted(shop: Shop) -> None:
    ours, member = await shop.pool(codes=1), await shop.member()
    own = (await shop.claim(ours, member))["text"]
    (other,) = code_text.new_codes("PERCENT", 1)
    pool = await draft(shop, transferable=True)

    twice = await imported(shop, pool, {"text": f"“{own}”"})
    once = await imported(shop, pool, {"text": f"“{other}”"}, inCirculation=True)
    await activate(shop, pool)
    redeemed = [await redeem(shop, text, member, order) for text, order in ((f"'{own}'.", "o-1"), (other, "o-2"))]

    assert problems(twice) == {"codes.0.text": "exists already"}
    assert once["__typename"] == "ImportCodesSuccess"
    assert kinds(redeemed) == {"RedeemCodesSuccess": 2}


async def test_a_short_code_needs_a_named_presenter_and_counts_as_a_guess(shop: Shop) -> None:
    pool, member = await draft(shop, transferable=True), await shop.member()
    await imported(shop, pool, {"text": "XMAS19"}, inCirculation=True)
    await activate(shop, pool)

    nobody = await redeem(shop, "XMAS19")
    code = (await shop.data(CODE, {"text": "xmas 19"}))["code"]
    redeemed = await redeem(shop, "XMAS19", member)

    assert nobody["rejections"] == [{"masked": "???-••••", "reason": "UNKNOWN"}]
    assert (code["masked"], code["bearer"], code["text"]) == ("••••", True, None)
    assert redeemed["__typename"] == "RedeemCodesSuccess"


async def test_of_many_codes_that_read_alike_two_are_read(shop: Shop) -> None:
    pool = await draft(shop, transferable=True)
    spellings = ["".join(each) for each in itertools.product("O0", repeat=5)]
    await imported(shop, pool, *({"text": f"WINTER{each}9"} for each in spellings), inCirculation=True)
    await activate(shop, pool)
    owner = await tenant(shop.merchant_id)
    assert owner is not None
    folded = foreign_fingerprint(owner.keys, "W1NTER000009")

    found = await database().row(FIND, merchant_id=shop.merchant_id, fingerprints=[], folded=[folded, folded])
    exact = await redeem(shop, "winter-o0o0o-9")
    between = await redeem(shop, "w1nter-o0o0o-9")

    assert found is not None
    assert found["folded"] == [folded] * 4
    assert len(set(found["meant"])) == 2
    assert exact["__typename"] == "RedeemCodesSuccess"
    assert [each["reason"] for each in between["rejections"]] == ["UNKNOWN"]


async def test_a_code_is_found_by_its_text_and_each_look_counts(shop: Shop) -> None:
    member = await shop.member()
    code = await shop.claim(await shop.pool(codes=1), member)

    found = await shop.data(CODE, {"text": code["text"].lower()}, key=await shop.key("SUPPORT"))
    nothing = [await shop.data(CODE, {"text": text}) for text in ("PCT-0000000000000", "", "x" * 10_000)]

    assert found["code"]["id"] == code["id"]
    assert [each["code"] for each in nothing] == [None, None, None]
    assert await shop.error_code(CODE, {"text": "x"}, key=await shop.key("ANALYST")) == "FORBIDDEN"
    till = await shop.key("CHECKOUT")
    for _ in range(settings().attempts_per_key_max):
        await shop.data(CODE, {"text": code["text"]}, key=till)
    assert await shop.error_code(CODE, {"text": code["text"]}, key=till) == "TOO_MANY_ATTEMPTS"


async def test_imports_claims_and_issues_at_once_keep_every_promise(shop: Shop, api: Api, second_api: Api) -> None:
    processes = Processes(shop, api, second_api)
    pool = await shop.pool(codes=30, transferable=True, claimsPerMember=3)
    many = await members(shop, 10)
    await shop.do(CHANGE_STATUS % "pausePool", poolId=pool["id"])
    rows = [{"text": f"RACE-2019-{number:04}", "memberId": many[number % 10]} for number in range(20)]

    answers = await at_once(
        [
            *(processes.do(IMPORT, poolId=pool["id"], codes=rows, idempotencyKey="k") for _ in range(4)),
            processes.do(IMPORT, poolId=pool["id"], codes=rows[:1]),
            processes.do(CHANGE_STATUS % "activatePool", poolId=pool["id"]),
            *(processes.do(CLAIM_CODE, poolId=pool["id"], memberId=member) for member in many),
            processes.do(ISSUE, poolId=pool["id"], count=5, reason="p", idempotencyKey="i"),
        ]
    )

    assert set(kinds(answers[:5])) <= {"ImportCodesSuccess", "InvalidInput", "PoolNotEditable"}
    batches = {answer["batch"]["id"] for answer in answers[:4] if answer["__typename"] == "ImportCodesSuccess"}
    assert len(batches) <= 1
    assert await shop.broken_promises() == []
