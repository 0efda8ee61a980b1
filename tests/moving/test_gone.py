"""Members that are gone since a file was judged. Without these a batch could fail for ever, or points could be lost."""

from typing import Any

import pytest

from app import ids
from app.moving.balances import Balances
from app.moving.codes import Codes
from app.moving.kind import Kind
from app.moving.members import Members
from app.moving.purchases import Purchases
from app.storage.database import database
from tests.factories import EDIT_MEMBER, Shop
from tests.moving.files import Mover
from tests.people.documents import MERGE, addresses, merge
from tests.points.documents import points

FILES: dict[str, tuple[type[Kind], str, str]] = {
    "balances": (Balances, "externalId,points\n", "{0},5\n"),
    "codes": (Codes, "pool,text,externalId\n", "Moved,OLD-0000-000{0},{0}\n"),
    "purchases": (
        Purchases,
        "source,orderId,externalId,amountMinor,currency,occurredAt\n",
        "STORE,A-{0},{0},500,USD,2024-01-01\n",
    ),
}


def _judged(kind: type[Kind], shop: Shop, member: Any) -> Any:
    """Return a way to judge after which a member is gone, as erasing ends."""
    judge = kind.judge

    async def judged(self: Kind, of: Any) -> None:
        await judge(self, of)
        for table, column, key in (("member", "erased_at", "id"), ("wallet", "closed_at", "member_id")):
            await database().row(
                f"UPDATE {table} SET {column} = now() WHERE merchant_id = $1 AND {key} = $2",
                shop.merchant_id,
                ids.decode("member", member["id"]),
            )

    return judged


@pytest.mark.parametrize("kind", FILES)
async def test_whoever_is_erased_after_the_file_was_judged_is_left_out(
    shop: Shop, mover: Mover, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    anna, _ = await shop.member(externalId="1"), await shop.member(externalId="2")
    await shop.pool(codes=0, active=False, name="Moved")
    making, header, row = FILES[kind]

    monkeypatch.setattr(making, "judge", _judged(making, shop, anna))

    brought = await mover.move(kind, header + row.format(1) + row.format(2))

    assert (brought.status, brought.said[-1]) == (3, f"{kind}: 1 made, 0 corrected.")
    assert [line.partition(" ")[0] for line in brought.wrong] == ["export.csv:2:"]
    assert await shop.count("import_row") == 0


@pytest.mark.parametrize("kind", ["balances", "purchases"])
async def test_whoever_is_erased_before_a_correction_is_left_out(
    shop: Shop, mover: Mover, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    anna = await shop.member(externalId="1")
    making, header, row = FILES[kind]
    await mover.applied(kind, header + row.format(1))

    monkeypatch.setattr(making, "judge", _judged(making, shop, anna))

    brought = await mover.move(kind, header + row.format(1).replace(",5", ",7"), corrects=True)

    assert (brought.status, brought.said[-1]) == (3, f"{kind}: 0 made, 0 corrected.")


async def test_a_member_that_is_gone_before_its_correction_is_left_out(
    shop: Shop, mover: Mover, monkeypatch: pytest.MonkeyPatch
) -> None:
    anna = await shop.member(externalId="1")
    monkeypatch.setattr(Members, "judge", _judged(Members, shop, anna))

    brought = await mover.move("members", "externalId,displayName\n1,Anna\n", corrects=True)

    assert (brought.status, brought.said[-1]) == (3, "members: 0 made, 0 corrected.")
    assert await shop.count("import_row") == 0


async def test_an_address_that_a_merged_record_has_proved_isnt_proved_again(shop: Shop, mover: Mover) -> None:
    kept = await shop.member(externalId="1", email="new@example.com", emailVerified=True)
    merged = await shop.member(externalId="2", email="old@example.com", emailVerified=True)
    assert (await merge(shop, kept, merged))["__typename"] == "MergeMembersSuccess"

    row = "externalId,email,emailVerified,displayName\n2,old@example.com,true,Anna\n"
    said = await mover.applied("members", row, corrects=True)

    assert said[-1] == "members: 0 made, 1 corrected."
    assert await addresses(shop, kept) == ("n•••@example.com", True, None)


async def test_a_list_that_still_has_both_records_says_what_is_so(shop: Shop, mover: Mover) -> None:
    header = "externalId,email,emailVerified,displayName,joinedAt\n"
    anna, a_other = "1,anna@example.com,true,Anna,2021-05-01\n", "2,typed@example.com,,A. Other,2019-05-01\n"
    await mover.applied("members", header + anna + a_other)
    pair = [{"id": ids.encode("member", await mover.member(number))} for number in "12"]
    await shop.do(EDIT_MEMBER, memberId=pair[0]["id"], email="waits@example.com")
    await merge(shop, *pair)
    assert await addresses(shop, pair[0]) == ("a•••@example.com", True, "w•••@example.com")

    for corrects in (False, True):
        said = await mover.applied("members", header + a_other + anna + "\n" * corrects, corrects=corrects)
        assert said[0] == "members: 0 new, 0 to correct, 2 there already."
    # A row that says something new corrects what the other one doesn't undo.
    renamed, again = anna.replace(",Anna,", ",Anna King,"), a_other.replace("A. Other", "Anna")
    wrong = await mover.refused("members", header + renamed + again, corrects=True)
    assert wrong == ["2: externalId names the member of line 3, too, which says something else"]
    for rows in (renamed + a_other, renamed + again.replace("Anna", "Anna King")):
        await mover.applied("members", header + rows, corrects=True)
        said = await mover.applied("members", header + rows + "\n", corrects=True)
        assert said[0] == "members: 0 new, 0 to correct, 2 there already."
    mail = "externalId,email\n1,{0}@example.com\n2,new@example.com\n"
    wrong = await mover.refused("members", mail.format("newer"), corrects=True)
    assert [line.partition(",")[0] for line in wrong] == [
        "2: externalId names the member of line 3", "3: externalId names the member of line 2"
    ]  # fmt: skip
    for known in ("anna", "typed"):
        await mover.applied("members", mail.format(known), corrects=True)
    assert await addresses(shop, pair[0]) == ("a•••@example.com", True, "n•••@example.com")


async def test_what_a_merged_record_was_brought_is_the_kept_members(shop: Shop, mover: Mover) -> None:
    kept, merged = await shop.member(externalId="1"), await shop.member(externalId="2")
    balances, purchases = "externalId,points\n2,{0}\n", FILES["purchases"][1] + FILES["purchases"][2].format(2)
    await mover.applied("balances", balances.format(50))
    await mover.applied("purchases", purchases)
    done = await shop.do(MERGE, keptId=kept["id"], mergedId=merged["id"], reason="one person")
    assert done["__typename"] == "MergeMembersSuccess", done

    assert (await mover.applied("balances", balances.format(50) + "\n"))[0].endswith("1 there already.")
    assert (await mover.applied("purchases", purchases + "\n"))[0].endswith("1 there already.")
    for amount in (60, 65, 49):
        await mover.applied("balances", balances.format(amount), corrects=True)
        assert await points(shop, kept) == amount
