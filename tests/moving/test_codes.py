"""Codes of another system. Without these one could be in two pools, or nobody's that was somebody's."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app import ids
from app.errors import ConfigurationError
from app.moving.codes import Codes
from tests.factories import CHANGE_STATUS, Shop
from tests.moving.files import Mover

SOON = (datetime.now(UTC) + timedelta(days=100)).strftime("%Y-%m-%dT00:00:00+00:00")
LATER = (datetime.now(UTC) + timedelta(days=200)).strftime("%Y-%m-%dT00:00:00+00:00")
HEADER = "pool,text,externalId,externalSource,email,expiresAt\n"
ROWS = """
SELECT state, member_id, email_index IS NOT NULL AS waits, bearer, matched_by, expires_at FROM code
WHERE merchant_id = $1 ORDER BY id
"""


async def _rows(mover: Mover) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in await mover.rows(ROWS)]


async def test_codes_are_stock_or_their_owners(shop: Shop, mover: Mover) -> None:
    anna = await shop.member(externalId="1")
    ben = await shop.member(email="ben@example.com", emailVerified=True)
    pool = await shop.pool(codes=0, active=False, name="Moved")
    rows = [
        f"Moved,OLD-0000-0001,,,,{SOON}\n",
        "Moved,OLD-0000-0002,1,,,\n",
        f"{pool['id']},OLD-0000-0003,,,Ben@example.com,\n",
        "Moved,OLD-0000-0004,,,cleo@example.com,\n",
    ]

    said = await mover.applied("codes", HEADER + "".join(rows))

    assert said == ["codes: 4 new, 0 to correct, 0 there already.", "codes: 4 made, 0 corrected."]
    assert await _rows(mover) == [
        ("AVAILABLE", None, False, False, None, datetime.fromisoformat(SOON)),
        ("ALLOCATED", ids.decode("member", anna["id"]), False, False, "MEMBER_ID", None),
        ("ALLOCATED", ids.decode("member", ben["id"]), False, False, "CLAIM_EMAIL", None),
        ("ALLOCATED", None, True, False, "CLAIM_EMAIL", None),
    ]
    stock = await shop.stock(pool)
    assert (stock["available"], stock["allocated"]) == (1, 3)
    assert await shop.wallet_versions(anna) == [1]
    await shop.do(CHANGE_STATUS % "activatePool", poolId=pool["id"])
    assert (await shop.redeem(["old 0000 0002"], anna))["__typename"] == "RedeemCodesSuccess"
    again = await mover.applied("codes", HEADER + "".join(rows) + "\n")
    assert again[0] == "codes: 0 new, 0 to correct, 4 there already."


async def test_codes_in_circulation_are_whoever_holds_them(shop: Shop, mover: Mover) -> None:
    await shop.pool(codes=0, active=False, name="Cards", transferable=True)

    await mover.applied("codes", "pool,text\nCards,CARD-0000-0001\n", in_circulation=True)

    assert await _rows(mover) == [("ALLOCATED", None, False, True, None, None)]


async def test_a_code_that_got_an_owner_is_still_the_one_that_was_brought_in(shop: Shop, mover: Mover) -> None:
    pool = await shop.pool(codes=0, active=False, name="Moved", codeLifetimeDays=30)
    await mover.applied("codes", f"{HEADER}Moved,OLD-0000-0001,,,,{SOON}\n")
    await shop.do(CHANGE_STATUS % "activatePool", poolId=pool["id"])
    await shop.claim(pool, await shop.member())

    said = await mover.applied("codes", f"{HEADER}Moved,old00000001,,,,{SOON}\n")

    assert said[0] == "codes: 0 new, 0 to correct, 1 there already."


async def test_an_end_is_corrected_and_a_pool_or_an_owner_is_not(shop: Shop, mover: Mover) -> None:
    anna = await shop.member(externalId="1")
    await shop.pool(codes=0, active=False, name="Moved")
    await shop.pool(codes=0, active=False, name="Other")
    await mover.applied("codes", f"{HEADER}Moved,OLD-0000-0001,1,,,{SOON}\nMoved,OLD-0000-0002,,,,\n")
    changed = f"{HEADER}Moved,OLD-0000-0001,1,,,{LATER}\n"

    assert await mover.refused("codes", changed) == ["2: expiresAt differs from the code's; see --correct"]
    await mover.applied("codes", changed, corrects=True)
    assert [row[-1] for row in await _rows(mover)] == [datetime.fromisoformat(LATER), None]
    assert await shop.wallet_versions(anna) == [1, 2]
    wrong = "Other,OLD-0000-0001,,,x@example.com,\nMoved,OLD-0000-0002,1,,,\n"
    assert await mover.refused("codes", HEADER + wrong, corrects=True) == [
        "2: pool, owner differs and can't be corrected; revoke the code",
        "3: owner differs and can't be corrected; revoke the code",
    ]


async def test_every_wrong_row_is_a_line(shop: Shop, mover: Mover) -> None:
    await shop.member(externalId="1")
    await shop.pool(name="Live")
    for name in ("Twice", "Twice", "Moved"):
        await shop.pool(codes=0, active=False, name=name)
    rows = [
        "Twice,OLD-0001,,,,\n",
        "Nowhere,x,1,,a@example.com,2020-01-01\n",
        "Live,OLD-0002,,,,\n",
        "Moved,OLD-0003,1,,,\n",
        "Moved,OLD-0004,1,,,\n",
        "Moved,old 0003,,,,\n",
        "Moved,OLD-0005,nobody,,,\n",
        "Moved,OLD-0006,,,b@example.com,\n",
        "Moved,OLD-0007,,,B@example.com,\n",
    ]
    no_code = "must be 4 to 64 letters from A to Z and digits, besides dashes and spaces"
    both = "and externalId can't both be given"
    beyond = "is beyond the 1 codes that an owner can have of the pool"

    assert await mover.refused("codes", HEADER + "".join(rows)) == [
        "2: pool names several pools; give its id",
        f"3: pool is no pool's id or name; email {both}; expiresAt must be in the future; text {no_code}",
        "4: pool is ACTIVE; DRAFT and PAUSED ones take codes",
        f"6: {beyond}",
        "7: text is the code of line 5 already",
        "8: externalId is no member's; bring members in first",
        f"10: {beyond}",
    ]
    assert await mover.refused("codes", "pool,text\nMoved,CARD-0001\n", in_circulation=True) == [
        "2: pool isn't transferable, as codes in circulation need it"
    ]


async def test_a_pool_that_opened_meanwhile_is_waited_for(
    shop: Shop, mover: Mover, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = await shop.pool(codes=1, active=False, name="Moved")
    judge = Codes.judge

    async def judged(self: Codes, of: Any) -> None:
        await judge(self, of)
        await shop.do(CHANGE_STATUS % "activatePool", poolId=pool["id"])

    monkeypatch.setattr(Codes, "judge", judged)
    file = f"{HEADER}Moved,OLD-0000-0001,,,,\n"

    with pytest.raises(ConfigurationError, match="Pause it, and run this again"):
        await mover.move("codes", file)
    monkeypatch.undo()
    await shop.do(CHANGE_STATUS % "pausePool", poolId=pool["id"])

    assert await mover.move("codes", file) is not None
    assert (await shop.stock(pool))["available"] == 2
    assert await shop.broken_promises() == []
