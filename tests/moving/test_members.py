"""Members of another system. Without these a person could be there twice, or an address could change hands."""

from typing import Any

import pytest

from app import ids
from app.members.types import MemberSource
from app.moving.bring_in import discard
from app.storage.database import database
from tests.factories import CLAIM_CODE, EDIT_MEMBER, Shop
from tests.moving.files import Mover, staged
from tests.people.documents import addresses

READ = """
query ($id: ID!) { member(id: $id) {
  externalIds { source id } maskedEmail emailVerified displayName source joinedAt
} }
"""
HEADER = "externalId,externalSource,email,emailVerified,displayName,joinedAt\n"
ANNA = "1001,,anna@example.com,true,Anna Example,2019-04-01T12:00:00+02:00\n"
NO_ANSWER = "must be true or false"
NO_SOURCE = f"must be one of {', '.join(MemberSource.__members__)}"
TOO_LONG = "must be at most 100 characters"
NO_EMAIL = "must be an e-mail address"
NO_TIME = "must be a date or a time like 2026-11-30 or 2026-11-30T14:05:00Z"
BEN = "77,SHOPIFY,ben@example.com,,,2020-02-29\n"


async def _member(mover: Mover, external_id: str, source: str = "STORE") -> Any:
    member_id = ids.encode("member", await mover.member(external_id, source))
    return {"id": member_id} | (await mover.shop.data(READ, {"id": member_id}))["member"]


async def test_members_come_with_their_names_addresses_and_dates(shop: Shop, mover: Mover) -> None:
    said = await mover.applied("members", HEADER + ANNA + BEN)

    assert said == ["members: 2 new, 0 to correct, 0 there already.", "members: 2 made, 0 corrected."]
    anna, ben = await _member(mover, "1001"), await _member(mover, "77", "SHOPIFY")
    assert (anna["maskedEmail"], anna["emailVerified"], anna["displayName"]) == (
        "a•••@example.com",
        True,
        "Anna Example",
    )
    assert (anna["source"], anna["joinedAt"]) == ("IMPORT", "2019-04-01T10:00:00Z")
    assert (ben["maskedEmail"], ben["emailVerified"], ben["displayName"]) == ("b•••@example.com", False, None)
    assert ben["externalIds"] == [{"source": "SHOPIFY", "id": "77"}]
    assert [each for each in await shop.event_types() if each.startswith("member")] == ["member.enrolled"] * 2


async def test_a_day_begins_where_the_merchant_is(shop: Shop, mover: Mover) -> None:
    await database().rows("UPDATE merchant SET time_zone = 'Europe/Berlin' WHERE merchant_id = $1", shop.merchant_id)

    await mover.applied("members", HEADER + BEN)

    assert (await _member(mover, "77", "SHOPIFY"))["joinedAt"] == "2020-02-28T23:00:00Z"


async def test_the_same_file_again_does_nothing(shop: Shop, mover: Mover) -> None:
    await mover.applied("members", HEADER + ANNA + BEN)
    before = await shop.state()

    (said,) = await mover.applied("members", HEADER + ANNA + BEN)

    assert said.startswith("Nothing to do: this file was applied at 20")
    assert await shop.state() == before


async def test_the_same_members_in_another_file_are_there_already(shop: Shop, mover: Mover) -> None:
    await mover.applied("members", HEADER + ANNA + BEN)
    events = await shop.event_types()

    said = await mover.applied("members", HEADER + BEN + ANNA + "3,,,,,\n")

    assert said[0] == "members: 1 new, 0 to correct, 2 there already."
    assert await shop.event_types() == [*events, "member.enrolled"]


async def test_what_differs_is_refused_and_with_correct_is_changed(shop: Shop, mover: Mover) -> None:
    await mover.applied("members", HEADER + ANNA + BEN)
    events = await shop.event_types()
    changed = HEADER + ANNA.replace("Anna Example", "Anna Sample").replace("2019", "2018") + BEN.replace("ben", "benny")

    assert await mover.refused("members", changed) == [
        "2: displayName, joinedAt differs from the member's; see --correct",
        "3: email differs from the member's; see --correct",
    ]
    assert (await mover.applied("members", changed, corrects=True))[-1] == "members: 0 made, 2 corrected."

    anna, ben = await _member(mover, "1001"), await _member(mover, "77", "SHOPIFY")
    assert (anna["displayName"], anna["joinedAt"]) == ("Anna Sample", "2018-04-01T10:00:00Z")
    assert await addresses(shop, ben) == ("b•••@example.com", False, None)
    assert (await shop.event_types())[len(events) :] == ["member.edited", "member.edited", "member.edited"]
    assert (await mover.applied("members", changed + "\n", corrects=True))[-1] == "members: 0 made, 0 corrected."


async def test_an_empty_field_says_nothing_and_no_proof_is_withdrawn(shop: Shop, mover: Mover) -> None:
    await mover.applied("members", HEADER + ANNA)

    said = await mover.applied("members", HEADER + "1001,STORE,,false,,\n", corrects=True)

    assert said[0] == "members: 0 new, 0 to correct, 1 there already."
    assert (await _member(mover, "1001"))["emailVerified"] is True


async def test_a_new_address_waits_beside_a_proven_one(shop: Shop, mover: Mover) -> None:
    await mover.applied("members", HEADER + ANNA)
    anna = await _member(mover, "1001")

    await mover.applied("members", "externalId,email\n1001,new@example.com\n", corrects=True)
    assert await addresses(shop, anna) == ("a•••@example.com", True, "n•••@example.com")

    # What waits is no other address, and a name is no reason to drop it.
    await mover.applied("members", "externalId,email,displayName\n1001,anna@example.com,A\n", corrects=True)
    assert await addresses(shop, anna) == ("a•••@example.com", True, "n•••@example.com")


async def test_a_proven_address_adopts_its_codes_and_leaves_whoever_wrote_it_down(shop: Shop, mover: Mover) -> None:
    rival = await shop.member(email="anna@example.com")
    pool = await shop.pool()
    await shop.do(CLAIM_CODE, poolId=pool["id"], email="anna@example.com")

    await mover.applied("members", HEADER + ANNA)

    anna = await _member(mover, "1001")
    assert await addresses(shop, rival) == (None, False, None)
    assert await shop.wallet_versions(anna) == [1]
    assert (await shop.event_types())[-2:] == ["member.email_displaced", "code.adopted"]


async def test_an_address_that_another_has_proved_is_refused(shop: Shop, mover: Mover) -> None:
    other = await shop.member(email="anna@example.com", emailVerified=True)

    assert await mover.refused("members", HEADER + ANNA.replace("true", "")) == [
        f"2: email is proven by {other['id']}, who isn't this member"
    ]


async def test_every_wrong_row_is_a_line_and_nothing_is_written(mover: Mover) -> None:
    await mover.applied("members", HEADER + ANNA)
    rows = [
        ANNA.replace("Anna", "Bea"),
        "1,TILL,nobody,perhaps,,2025-13-01\n",
        f"{'x' * 101},,,true,,2999-01-01\n",
        ",,,,,\n",
        "2,,,,\n",
        "3,,c@example.com,,,\n",
        "3,,d@example.com,,,\n",
        "4,,E@example.com,true,,\n",
        "5,,e@example.com,,,1066-10-14\n",
        "6,,e@example.com,,,\n",
    ]

    assert await mover.refused("members", HEADER + "".join(rows)) == [
        f"3: externalSource {NO_SOURCE}; email {NO_EMAIL}; emailVerified {NO_ANSWER}; joinedAt {NO_TIME}",
        f"4: externalId {TOO_LONG}; joinedAt must not be in the future; emailVerified needs an email",
        "5: externalId is missing",
        "6: has 5 fields, and the header 6",
        "10: joinedAt must be between 1970 and 9000",
        "2: displayName differs from the member's; see --correct",
        "8: externalId is that of line 7 already",
        "11: email is that of line 9, which says that it is verified",
    ]


async def test_a_file_that_ends_in_latin_1_is_refused_whole(mover: Mover) -> None:
    content = (HEADER + ANNA).encode() + "9,,,,Jörg,\n".encode("latin-1")

    assert await mover.refused("members", content) == ["3: isn't UTF-8 (byte 0xf6); save the file as UTF-8"]


async def test_a_dry_run_judges_and_writes_nothing(shop: Shop, mover: Mover) -> None:
    before = await shop.state()

    said = await mover.applied("members", HEADER + ANNA + BEN, is_dry=True)

    assert said == ["members: 2 new, 0 to correct, 0 there already. Nothing was applied."]
    assert await shop.state() == before


async def test_headers_of_another_system_are_mapped(mover: Mover) -> None:
    names = {"source_id": "externalId", "Name": "displayName", "Tier": ""}

    await mover.applied("members", "source_id,Name,Tier\n1,Anna,gold\n", names)

    assert (await _member(mover, "1"))["displayName"] == "Anna"


@pytest.mark.parametrize("tells", [False, True])
async def test_webhooks_hear_of_imports_only_when_asked(shop: Shop, mover: Mover, tells: bool) -> None:
    await mover.applied("members", HEADER + ANNA, tells=tells)
    await mover.applied("members", HEADER + ANNA.replace("Example", "Sample"), corrects=True, tells=tells)

    rows = await mover.rows(
        "SELECT txid IS NOT NULL AS is_told FROM event WHERE merchant_id = $1 AND type LIKE 'member.%'"
    )
    assert [row["is_told"] for row in rows] == [tells, tells]


async def test_what_a_killed_run_staged_can_be_discarded(shop: Shop) -> None:
    await staged(shop)
    merchant = ids.encode("merchant", shop.merchant_id)

    assert [await discard(merchant), await discard(merchant)] == [True, False]
    assert (await shop.count("import_file"), await shop.count("import_row")) == (0, 0)


async def test_the_next_file_takes_the_place_of_one_that_was_killed_before_it_was_applied(
    shop: Shop, mover: Mover
) -> None:
    await staged(shop)

    await mover.applied("members", HEADER + ANNA)

    assert await shop.count("import_file") == 1


async def test_who_was_enrolled_since_the_file_was_judged_is_told(
    shop: Shop, mover: Mover, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.moving.members import Members

    judge = Members.judge

    async def judged(self: Members, of: Any) -> None:
        await judge(self, of)
        await shop.member(externalId="1001")

    monkeypatch.setattr(Members, "judge", judged)

    brought = await mover.move("members", HEADER + ANNA + BEN)

    assert (brought.status, brought.said[-1]) == (3, "members: 1 made, 0 corrected.")
    assert brought.wrong == ["export.csv:2: was changed by somebody else meanwhile, and isn't applied; run it again"]
    assert await shop.broken_promises() == []
    # The file isn't the one that was applied.
    monkeypatch.undo()
    assert await mover.refused("members", HEADER + ANNA + BEN) == [
        "2: email, displayName, joinedAt differs from the member's; see --correct"
    ]


async def test_an_edit_before_the_next_file_differs(shop: Shop, mover: Mover) -> None:
    await mover.applied("members", HEADER + ANNA)
    anna = await _member(mover, "1001")
    await shop.do(EDIT_MEMBER, memberId=anna["id"], displayName="Another")

    assert await mover.refused("members", HEADER + ANNA + BEN) == [
        "2: displayName differs from the member's; see --correct"
    ]
