"""configureReferralProgram. Without these a typo could give points away, or abusers read what guards it."""

from typing import Any

import pytest

from tests.factories import Shop, problems, usd
from tests.referrals.documents import CONFIGURE_PROGRAM, READ_PROGRAM, program

SETTINGS: dict[str, Any] = {
    "referrerPoints": 500, "refereePoints": 250, "invitesPerBatch": 10, "invitesPerDay": 20, "invitesLifetime": 200,
    "inviteLifetimeDays": 14, "convertsOn": "FIRST_PURCHASE",
}  # fmt: skip
DEFAULTS: dict[str, Any] = {"minimumPurchase": None, "oneRewardPerMailbox": True}
SAFEGUARDS: dict[str, Any] = {"reportsMembers": False, "reviewPolicy": "FLAGGED", "refundWindowDays": 14}
UNTOUCHED = {"reportsMembers": True, "reviewPolicy": "NONE", "refundWindowDays": 30}


async def test_a_new_merchants_program_is_closed(shop: Shop) -> None:
    read = (await shop.data(READ_PROGRAM))["referralProgram"]

    assert read == {
        "referrerPoints": 100, "refereePoints": 100, "invitesPerBatch": 0, "invitesPerDay": 0, "invitesLifetime": 0,
        "inviteLifetimeDays": 30, "convertsOn": "FIRST_PURCHASE", "safeguards": UNTOUCHED, **DEFAULTS,
    }  # fmt: skip


async def test_a_program_is_as_it_was_configured(shop: Shop) -> None:
    answer = await shop.do(CONFIGURE_PROGRAM, **SETTINGS)

    assert answer["program"] == SETTINGS | {"safeguards": UNTOUCHED} | DEFAULTS
    assert (await shop.data(READ_PROGRAM))["referralProgram"] == answer["program"]
    assert (await shop.event_types())[-1] == "referral_program.configured"


async def test_safeguards_that_are_left_out_stay(shop: Shop) -> None:
    await shop.do(CONFIGURE_PROGRAM, **SETTINGS, **SAFEGUARDS)

    again = await shop.do(CONFIGURE_PROGRAM, **SETTINGS, refundWindowDays=None)

    assert again["program"]["safeguards"] == SAFEGUARDS


async def test_members_and_tills_see_what_it_brings_and_not_what_guards_it(shop: Shop) -> None:
    await program(shop)

    for key in (await shop.token((await shop.member())["id"]), await shop.key("CHECKOUT")):
        read = (await shop.data(READ_PROGRAM, key=key))["referralProgram"]
        assert (read["referrerPoints"], read["safeguards"]) == (100, None)
    analyst = (await shop.data(READ_PROGRAM, key=await shop.key("ANALYST")))["referralProgram"]
    assert analyst["safeguards"] == UNTOUCHED


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("referrerPoints", 0, "must be between 1 and 2147483647"),
        ("refereePoints", -1, "must be between 1 and 2147483647"),
        ("invitesPerBatch", 5001, "must be between 0 and 5000"),
        ("invitesPerDay", -1, "must be between 0 and 100000"),
        ("invitesLifetime", 1_000_001, "must be between 0 and 1000000"),
        ("inviteLifetimeDays", 0, "must be between 1 and 3650"),
        ("refundWindowDays", 3651, "must be between 0 and 3650"),
    ],
)
async def test_values_out_of_range_are_refused(shop: Shop, name: str, wrong: int, message: str) -> None:
    answer = await shop.refused(CONFIGURE_PROGRAM, **(SETTINGS | {name: wrong}))

    assert problems(answer) == {name: message}


async def test_a_minimum_and_one_reward_per_mailbox_stay_until_they_are_changed(shop: Shop) -> None:
    await shop.do(CONFIGURE_PROGRAM, **SETTINGS, minimumPurchase=usd(2_000), oneRewardPerMailbox=False)

    kept = (await shop.do(CONFIGURE_PROGRAM, **SETTINGS))["program"]
    taken_away = (await shop.do(CONFIGURE_PROGRAM, **SETTINGS, minimumPurchase=None, oneRewardPerMailbox=True))[
        "program"
    ]

    assert (kept["minimumPurchase"], kept["oneRewardPerMailbox"]) == (usd(2_000), False)
    assert (taken_away["minimumPurchase"], taken_away["oneRewardPerMailbox"]) == (None, True)


async def test_joining_converts_without_a_minimum_or_not_at_all(shop: Shop) -> None:
    joining = SETTINGS | {"convertsOn": "JOIN"}
    await shop.do(CONFIGURE_PROGRAM, **SETTINGS, minimumPurchase=usd(2_000))
    told = {"minimumPurchase": "must be null where joining converts"}

    assert problems(await shop.refused(CONFIGURE_PROGRAM, **joining, minimumPurchase=usd(1))) == told
    # One that stays as it is would go with it, too.
    assert problems(await shop.refused(CONFIGURE_PROGRAM, **joining)) == told
    assert (await shop.do(CONFIGURE_PROGRAM, **joining, minimumPurchase=None))["program"]["convertsOn"] == "JOIN"
    assert problems(await shop.refused(CONFIGURE_PROGRAM, **joining, minimumPurchase=usd(1))) == told


@pytest.mark.parametrize(
    ("amount", "told"),
    [
        (usd(0), {"minimumPurchase.amountMinor": "must be between 1 and 1000000000000000"}),
        (usd(-1), {"minimumPurchase.amountMinor": "must be between 1 and 1000000000000000"}),
        ({"amountMinor": 1, "currency": "EUR"}, {"minimumPurchase.currency": "must be USD, the merchant's currency"}),
    ],
)
async def test_a_minimum_is_an_amount_in_the_merchants_currency(
    shop: Shop, amount: dict[str, Any], told: dict[str, str]
) -> None:
    assert problems(await shop.refused(CONFIGURE_PROGRAM, **SETTINGS, minimumPurchase=amount)) == told
