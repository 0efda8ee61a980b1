"""codePattern. Without these a code could be guessed, unreadable at the till, or of a pattern that its pool hasn't."""

import asyncio
import re
from typing import Any

import pytest

from app import ids
from app.coupons import code_text
from app.coupons.expire_codes import expire_batch
from app.storage.database import transaction
from tests.conftest import Api
from tests.coupons.test_create_pool import PERCENT
from tests.coupons.test_expire_codes import age
from tests.coupons.test_import_codes import CODE, IMPORT, redeem
from tests.coupons.test_issue_codes import ISSUE, texts
from tests.coupons.test_reissue_code import reissue
from tests.coupons.test_revoke_code import REVOKE
from tests.factories import CHANGE_STATUS, CHECK_CODES, CREATE_POOL, EDIT_POOL, GENERATE_CODES, Shop, problems, usd
from tests.races.storm import Processes, at_once, kinds, until_somebody_waits

WINTER = "Winter-####-####-####"
WINTER_TEXT = re.compile("Winter(-[0-9A-HJKMNP-TV-Z]{4}){3}")
NEEDS = "random bits besides the two characters that masks show; it needs 50: 12 times #"
LETTERS = "must be letters from A to Z, digits, dashes, and # for a random character"
LENGTH = "must have 4 to 64 characters"

WRONG = [
    ("WINTER", f"has 0 {NEEDS}"),
    ("####", f"has 10 {NEEDS}"),
    ("WINTER-###########", f"has 45 {NEEDS}"),
    ("", LENGTH),
    ("###", LENGTH),
    ("#" * 65, LENGTH),
    ("-" * 500, LENGTH),
    ("WÄRME-############", LETTERS),
    ("A B-############", LETTERS),
    ("A_############", LETTERS),
    ("A\x00############", LETTERS),
    ("Α############", LETTERS),  # noqa: RUF001  (a Greek letter)
]


async def pool_of(shop: Shop, pattern: str, **terms: Any) -> Any:
    return await shop.pool(**{"codes": 2, "codePattern": pattern, **terms})


async def stocked(shop: Shop, pool: Any) -> list[str]:
    """Return the texts of a draft's stock, which is issued for that."""
    await shop.do(CHANGE_STATUS % "activatePool", poolId=pool["id"])
    count = (await shop.stock(pool))["available"]
    issued = await shop.do(ISSUE, poolId=pool["id"], count=count, reason="print", idempotencyKey="all")
    return [each["text"] for each in await texts(shop, issued["batch"])]


@pytest.mark.parametrize(("pattern", "message"), WRONG)
async def test_a_pattern_that_is_guessed_or_cannot_be_typed_is_refused(shop: Shop, pattern: str, message: str) -> None:
    draft = await shop.pool(codes=0, active=False)

    created = await shop.refused(CREATE_POOL, **PERCENT, codePattern=pattern)
    edited = await shop.refused(EDIT_POOL, poolId=draft["id"], codePattern=pattern)

    assert problems(created) == problems(edited) == {"codePattern": message}


@pytest.mark.parametrize(
    "pattern", ["############", "a" * 52 + "#" * 12, "-#-#-#-#-#-#-#-#-#-#-#-#-", "1############Z"]
)
async def test_every_pattern_that_is_taken_makes_codes_that_can_be_spent(shop: Shop, pattern: str) -> None:
    pool, member = await pool_of(shop, pattern), await shop.member()
    code = await shop.claim(pool, member)

    assert pool["codePattern"] == pattern
    assert re.fullmatch(pattern.replace("#", "[0-9A-HJKMNP-TV-Z]"), code["text"])
    assert (await shop.redeem([code["text"]], member))["__typename"] == "RedeemCodesSuccess"
    assert await shop.broken_promises() == []


async def test_a_pattern_that_was_typed_full_width_is_the_plain_one(shop: Shop) -> None:
    pool = await pool_of(shop, " ＡＢ-＃###########  ")  # noqa: RUF001

    assert pool["codePattern"] == "AB-############"


async def test_a_code_is_read_however_it_is_typed(shop: Shop) -> None:
    pool, member = await pool_of(shop, "Sol-Oil-############", stacking="STACKABLE"), await shop.member()
    text = (await shop.claim(pool, member))["text"]
    spellings = [text.lower(), text.replace("-", " "), f"“{text}”.", text.replace("Sol-Oil", "S01-0L1")]

    for spelling in spellings:
        checked = await shop.do(
            CHECK_CODES, codes=[spelling], orderId="o-1", orderAmount=usd(10_000), memberId=member["id"]
        )
        assert checked["__typename"] == "RedeemCodesSuccess", spelling
    assert (await redeem(shop, spellings[-1], member))["__typename"] == "RedeemCodesSuccess"


@pytest.mark.parametrize("pattern", ["############-SUMMER", "A-############", "#SPRING###########Q"])
async def test_masks_show_the_last_two_random_characters_wherever_they_stand(shop: Shop, pattern: str) -> None:
    code = await shop.claim(await pool_of(shop, pattern), await shop.member())

    drawn = [letter for place, letter in enumerate(code["text"]) if pattern[place] == "#"]
    assert code["masked"] == "••••" + "".join(drawn[-2:])


async def test_a_code_of_a_pattern_is_no_short_one(shop: Shop) -> None:
    pool = await pool_of(shop, "############", transferable=True)
    issued = await shop.do(ISSUE, poolId=pool["id"], count=1, reason="print", idempotencyKey="p")
    (printed,) = await texts(shop, issued["batch"])

    # A short one needs a named presenter.
    assert (await redeem(shop, printed["text"]))["__typename"] == "RedeemCodesSuccess"


def test_no_text_of_a_pattern_reads_as_one_of_our_own_form() -> None:
    # Of thirteen characters that are drawn after a prefix one in 32 has the right check character.
    made = code_text.new_codes_of("PCT-#############", 2000)

    assert len(made) == 2000
    assert [text for text in made if code_text.parse(text) is not None] == []
    assert all(text[-2:] == suffix for text, suffix in made.items())


async def test_codes_that_take_another_ones_place_have_the_pattern(shop: Shop) -> None:
    pool = await pool_of(shop, WINTER, codes=3, codeLifetimeDays=30, recycleExpired=True)
    members = [await shop.member() for _ in range(3)]
    codes = [await shop.claim(pool, member) for member in members]
    await age(shop, codes[0])
    assert await expire_batch(shop.merchant_id) == 1
    await shop.do(REVOKE, codeId=codes[1]["id"], reason="leaked")
    reissued = await reissue(shop, codes[1])

    again = await shop.claim(pool, await shop.member())
    moved = (await shop.data(CODE, {"text": again["text"]}))["code"]

    fresh = (await shop.do(REVOKE, codeId=codes[2]["id"], reason="leaked"))["replacement"]
    assert reissued["__typename"] == "ReissueCodeSuccess"
    assert WINTER_TEXT.fullmatch(again["text"])
    assert moved["id"] == again["id"]
    assert fresh["masked"].startswith("••••")
    assert await shop.broken_promises() == []


async def test_in_draft_a_pattern_changes_for_codes_that_are_generated_later(shop: Shop) -> None:
    pool = await pool_of(shop, WINTER, codes=1, active=False)

    edited = await shop.do(EDIT_POOL, poolId=pool["id"], codePattern="A-############")
    kept = await shop.do(EDIT_POOL, poolId=pool["id"], name="Summer")
    lifted = await shop.do(EDIT_POOL, poolId=pool["id"], codePattern=None)

    assert [each["pool"]["codePattern"] for each in (edited, kept, lifted)] == ["A-############"] * 2 + [None]
    # The text of codes is no term that a redemption names.
    assert await shop.count("pool_terms") == 1


@pytest.mark.parametrize("after", [None, "A-############"])
async def test_after_draft_a_pattern_is_fixed(shop: Shop, after: str | None) -> None:
    pool = await pool_of(shop, WINTER)

    same = await shop.do(EDIT_POOL, poolId=pool["id"], codePattern=WINTER, name="Summer")
    refusal = await shop.refused(EDIT_POOL, poolId=pool["id"], codePattern=after)

    assert same["__typename"] == "EditPoolSuccess"
    assert (refusal["__typename"], refusal["fields"]) == ("PoolNotEditable", ["codePattern"])


async def test_an_import_of_a_text_that_the_pattern_made_is_refused(shop: Shop) -> None:
    text = (await shop.claim(await pool_of(shop, WINTER), await shop.member()))["text"]
    other = await shop.pool(codes=0, active=False)

    refusal = await shop.refused(IMPORT, poolId=other["id"], codes=[{"text": text.lower()}])

    assert problems(refusal) == {"codes.0.text": "exists already"}


async def test_two_merchants_may_have_one_pattern(shop: Shop, other_shop: Shop) -> None:
    mine = await shop.claim(await pool_of(shop, WINTER), await shop.member())
    await pool_of(other_shop, WINTER)

    assert (await other_shop.data(CODE, {"text": mine["text"]}))["code"] is None


async def test_a_batch_that_waited_for_an_edit_has_the_pattern_of_the_edit(shop: Shop, second_api: Api) -> None:
    pool = await pool_of(shop, WINTER, codes=0, active=False)
    pool_id = ids.decode("pool", pool["id"])
    async with transaction(None) as tx:
        await tx.rows(
            "UPDATE pool SET code_pattern = $3 WHERE merchant_id = $1 AND id = $2",
            shop.merchant_id, pool_id, "Summer-############",
        )  # fmt: skip
        batch = asyncio.ensure_future(
            shop.do(GENERATE_CODES, url=f"{second_api.url}/graphql", poolId=pool["id"], count=3)
        )
        await until_somebody_waits(tx)
    assert (await batch)["__typename"] == "GenerateCodesSuccess"
    await shop.do(EDIT_POOL, poolId=pool["id"], transferable=True)

    assert {text[:7] for text in await stocked(shop, pool)} == {"Summer-"}


async def test_edits_and_batches_at_once_leave_codes_of_either_pattern(shop: Shop, api: Api, second_api: Api) -> None:
    processes = Processes(shop, api, second_api)
    pool = await pool_of(shop, WINTER, codes=0, active=False, transferable=True)

    answers = await at_once(
        [
            processes.do(GENERATE_CODES, poolId=pool["id"], count=5),
            processes.do(EDIT_POOL, poolId=pool["id"], codePattern="Summer-############"),
            *(processes.do(GENERATE_CODES, poolId=pool["id"], count=5) for _ in range(4)),
        ]
    )
    late = await shop.do(GENERATE_CODES, poolId=pool["id"], count=5)

    assert kinds([*answers, late]) == {"GenerateCodesSuccess": 6, "EditPoolSuccess": 1}
    made = await stocked(shop, pool)
    assert len(made) == 30
    assert {text[:7] for text in made} <= {"Winter-", "Summer-"}
    assert sum(text.startswith("Summer-") for text in made) >= 5
    assert await shop.broken_promises() == []
