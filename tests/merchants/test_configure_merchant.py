"""configureMerchant. Without these a rate could be misread, or a setting be lost by changing its neighbour."""

import asyncio
import json
import os
from typing import Any

import pytest

from app import ids
from tests.factories import Shop, problems
from tests.points.documents import CONFIGURE
from tests.starts import run

SETTINGS = "{ viewer { merchant { settings { pointsPerUnit pointsLifetimeDays } } } }"
DEFAULTS = {
    "pointsPerUnit": 1.0, "pointValue": 1.0, "pointsLifetimeDays": None, "pointsWarningDays": 14,
    "pointsPendingDays": 0, "recoverShortfalls": True, "erasureMemoryDays": 730, "timeZone": "UTC",
    "marginRate": None, "advisedPercentMax": None, "advisedAmountMax": None,
}  # fmt: skip


async def configure(shop: Shop, **input: Any) -> Any:
    """Change settings and return all of them."""
    return (await shop.do(CONFIGURE, **input))["merchant"]["settings"]


async def test_what_is_left_out_stays(shop: Shop) -> None:
    changed: dict[str, Any] = {
        "pointsPerUnit": 2.5, "pointValue": 0.125, "pointsLifetimeDays": 365, "pointsWarningDays": 0,
        "pointsPendingDays": 14, "recoverShortfalls": False, "erasureMemoryDays": 90, "timeZone": "Europe/Berlin",
        "marginRate": 0.3, "advisedPercentMax": 12.5, "advisedAmountMax": 2000,
    }  # fmt: skip
    expected = DEFAULTS

    assert await configure(shop) == expected
    for name, value in changed.items():
        expected = expected | {name: value}
        assert await configure(shop, **{name: value}) == expected
    nothing = dict.fromkeys(("pointsLifetimeDays", "marginRate", "advisedPercentMax", "advisedAmountMax"))
    assert await configure(shop, **nothing) == expected | nothing
    assert (await shop.event_types()).count("merchant.configured") == 12


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("pointsPerUnit", -0.1, "must be between 0 and 10000"),
        ("pointsPerUnit", 10_000.1, "must be between 0 and 10000"),
        ("pointsPerUnit", 0.00001, "must have at most 4 decimals"),
        ("pointsPerUnit", None, "must not be null"),
        ("pointValue", -1, "must be between 0 and 10000"),
        ("pointValue", 1e300, "must be between 0 and 10000"),
        ("pointValue", 1e-7, "must have at most 6 decimals"),
        ("pointValue", None, "must not be null"),
        ("pointsLifetimeDays", 0, "must be between 1 and 3650"),
        ("pointsLifetimeDays", 3651, "must be between 1 and 3650"),
        ("pointsWarningDays", -1, "must be between 0 and 365"),
        ("pointsWarningDays", None, "must not be null"),
        ("pointsPendingDays", -1, "must be between 0 and 365"),
        ("pointsPendingDays", 10_000, "must be between 0 and 365"),
        ("pointsPendingDays", None, "must not be null"),
        ("recoverShortfalls", None, "must not be null"),
        ("erasureMemoryDays", -1, "must be between 0 and 3650"),
        ("erasureMemoryDays", 3651, "must be between 0 and 3650"),
        ("erasureMemoryDays", None, "must not be null"),
        ("timeZone", "Mars/Olympus", "must be the IANA name of a time zone, like Europe/Berlin"),
        ("timeZone", "../etc/passwd", "must be the IANA name of a time zone, like Europe/Berlin"),
        ("timeZone", "", "must be the IANA name of a time zone, like Europe/Berlin"),
        ("timeZone", "localtime", "must be the IANA name of a time zone, like Europe/Berlin"),
        ("timeZone", None, "must not be null"),
        ("marginRate", 1.1, "must be between 0 and 1"),
        ("marginRate", 0.00001, "must have at most 4 decimals"),
        ("advisedPercentMax", 0, "must be over 0"),
        ("advisedPercentMax", 100.1, "must be between 0 and 100"),
        ("advisedAmountMax", 0, "must be between 1 and 1000000000000000"),
    ],
)
async def test_what_can_not_be_is_invalid(shop: Shop, field: str, value: Any, problem: str) -> None:
    assert problems(await shop.refused(CONFIGURE, **{field: value})) == {field: problem}
    assert await configure(shop) == DEFAULTS


async def test_tills_and_members_do_not_see_the_settings(shop: Shop) -> None:
    member = await shop.token((await shop.member())["id"])
    seen = [
        (await shop.data(SETTINGS, key=key))["viewer"]["merchant"]["settings"]
        for key in (shop.admin, await shop.key("ANALYST"), await shop.key("CHECKOUT"), member)
    ]

    assert seen == [{"pointsPerUnit": 1.0, "pointsLifetimeDays": None}] * 2 + [None] * 2


async def flash(*arguments: str) -> tuple[int, str, str]:
    """Run a command on the tests' database."""
    ended = await asyncio.to_thread(run, *arguments, environment=dict(os.environ))
    return ended.returncode, ended.stdout, ended.stderr


async def test_the_command_shows_and_sets(shop: Shop) -> None:
    merchant_id = ids.encode("merchant", shop.merchant_id)
    await configure(shop, pointsLifetimeDays=30)

    shown = await flash("merchant", "show", merchant_id)
    made = await flash(
        "merchant", "set", merchant_id,
        "--points-per-unit", "2", "--points-lifetime-days", "0", "--time-zone", "Asia/Tokyo",
    )  # fmt: skip
    unknown = await flash("merchant", "show", f"merchant_{'0' * 32}")
    wrong = await flash("merchant", "set", merchant_id, "--margin-rate", "2")

    expected = {"merchantId": merchant_id} | DEFAULTS
    assert json.loads(shown[1]) == expected | {"pointsLifetimeDays": 30}
    assert json.loads(made[1]) == expected | {"pointsPerUnit": 2.0, "timeZone": "Asia/Tokyo"}
    assert (unknown[0], unknown[2]) == (1, f"flash: There is no merchant merchant_{'0' * 32}.\n")
    assert (wrong[0], wrong[2]) == (1, "flash: marginRate must be between 0 and 1.\n")
