"""Merging against erasing, adoption and an import, on two processes.

Without these somebody could be told that a person is forgotten who is not, or have codes and points of nobody.
"""

import asyncio
from typing import Any

import pytest

from app import ids
from app.storage.database import database, transaction
from tests.conftest import Api
from tests.factories import CLAIM_CODE, VERIFY_MEMBER_EMAIL, Shop
from tests.histories.moving import Mover
from tests.people.documents import MERGE
from tests.people.test_erase_member import ERASE
from tests.points.documents import grant, points
from tests.races.storm import BEHIND_IT, LOCK_WALLET, Processes, at_once, kinds, until_somebody_waits
from tests.sizes import size

ROUNDS = size(3, 12)
#: What is of anybody who is gone, and what of an address that somebody has proved.
ASTRAY = """
SELECT c.id FROM code c LEFT JOIN member m ON m.merchant_id = $1 AND m.id = c.member_id
WHERE c.merchant_id = $1 AND c.state = 'ALLOCATED' AND (
    m.merged_into_id IS NOT NULL OR m.erased_at IS NOT NULL OR EXISTS (
        SELECT FROM address a WHERE a.merchant_id = $1 AND a.email_index = c.email_index AND a.member_id IS NOT NULL
    )
)
UNION ALL
SELECT w.member_id FROM wallet w JOIN member m ON m.merchant_id = $1 AND m.id = w.member_id
WHERE w.merchant_id = $1 AND w.points > 0 AND (m.merged_into_id IS NOT NULL OR m.erased_at IS NOT NULL)
"""
ERASED = "SELECT erased_at IS NOT NULL AS is_erased FROM member WHERE merchant_id = $1 AND id = ANY($2)"


@pytest.fixture
def processes(shop: Shop, api: Api, second_api: Api) -> Processes:
    return Processes(shop, api, second_api)


def merging(processes: Processes, kept: Any, merged: Any) -> Any:
    """Return the merging of two members, on its way to the next process."""
    return processes.do(MERGE, keptId=kept["id"], mergedId=merged["id"], reason="One person.")


async def erased(shop: Shop, *members: Any) -> set[bool]:
    """Return whether the rows of members say that they were erased."""
    rows = await database().rows(ERASED, shop.merchant_id, [ids.decode("member", each["id"]) for each in members])
    return {row["is_erased"] for row in rows}


async def test_an_erasing_that_waits_for_a_merging_forgets_the_whole_person(shop: Shop, processes: Processes) -> None:
    """It was asked while the record that it names stood alone."""
    kept, merged = await shop.member(), await shop.member()
    await grant(shop, kept, 10, "a")
    async with transaction(shop.merchant_id) as tx:
        await tx.row(LOCK_WALLET, shop.merchant_id, ids.decode("member", merged["id"]))
        first = asyncio.ensure_future(merging(processes, kept, merged))
        await until_somebody_waits(tx)
        second = asyncio.ensure_future(processes.do(ERASE, memberId=merged["id"], ground="REQUEST"))
        await until_somebody_waits(tx, BEHIND_IT)

    assert (await first)["__typename"] == "MergeMembersSuccess"
    answer = await second
    assert answer["member"]["id"] == kept["id"]
    assert answer["member"]["erasedAt"] is not None
    assert await erased(shop, kept, merged) == {True}
    assert await points(shop, kept) == 0


async def test_of_mergings_and_erasings_of_one_person_nothing_is_left(shop: Shop, processes: Processes) -> None:
    for number in range(ROUNDS):
        people = [await shop.member() for _ in range(3)]
        for member in people:
            await grant(shop, member, 10, member["id"])
        first, second, third = people

        answers = await at_once([
            merging(processes, first, second),
            processes.do(ERASE, memberId=second["id"], ground="REQUEST"),
            merging(processes, third, first),
            processes.do(ERASE, memberId=first["id"], ground="SHOP"),
        ])  # fmt: skip

        assert set(kinds(answers)) <= {"MergeMembersSuccess", "EraseMemberSuccess", "NotFound"}, number
        # Whoever was told to be forgotten is.
        assert await erased(shop, first, second) == {True}
        gone = await erased(shop, third) == {True}
        assert gone == (answers[2]["__typename"] == "MergeMembersSuccess")
        assert await database().rows(ASTRAY, shop.merchant_id) == []


@pytest.mark.parametrize("proves", ["kept", "merged"])
async def test_codes_that_wait_for_an_address_are_the_kept_members(
    shop: Shop, processes: Processes, proves: str
) -> None:
    pool = await shop.pool(codes=4 * ROUNDS, claimsPerMember=1, oneClaimPerMailbox=False)
    for number in range(ROUNDS):
        email = f"a-{number}@example.com"
        pair = {"kept": await shop.member(), "merged": await shop.member()}
        pair[proves] = await shop.member(email=email)
        await shop.do(CLAIM_CODE, poolId=pool["id"], email=email)
        other = pair["merged" if proves == "kept" else "kept"]
        await shop.claim(pool, other)

        answers = await at_once([
            processes.do(VERIFY_MEMBER_EMAIL, memberId=pair[proves]["id"], email=email),
            merging(processes, pair["kept"], pair["merged"]),
            processes.do(CLAIM_CODE, poolId=pool["id"], email=email),
            processes.do(VERIFY_MEMBER_EMAIL, memberId=pair[proves]["id"], email=email),
        ])  # fmt: skip

        assert kinds(answers) == {
            "VerifyMemberEmailSuccess": 2, "MergeMembersSuccess": 1, "ClaimCodeSuccess": 1
        }  # fmt: skip
        assert await live_codes(shop, pair["kept"]) == 1
        assert await database().rows(ASTRAY, shop.merchant_id) == []


async def live_codes(shop: Shop, member: Any) -> int:
    """Return how many codes a member can spend."""
    query = "query ($id: ID!) { member(id: $id) { wallet { codes { edges { node { state } } } } } }"
    edges = (await shop.data(query, {"id": member["id"]}))["member"]["wallet"]["codes"]["edges"]
    return [edge["node"]["state"] for edge in edges].count("ALLOCATED")


async def test_a_balance_of_either_record_is_brought_in_once(shop: Shop, processes: Processes) -> None:
    mover = Mover(shop)
    for number in range(ROUNDS):
        pair = [await shop.member(externalId=f"{number}-{each}") for each in ("kept", "merged")]
        file = f"externalId,points\n{number}-merged,30\n"

        (status, said), merged = await asyncio.gather(mover.bring(file), merging(processes, *pair))

        assert merged["__typename"] == "MergeMembersSuccess"
        # Whoever was gone before the file was applied is missed, and nobody else.
        assert (status, await points(shop, pair[0])) in {(0, 30), (3, 0)}, said
        again, _ = await mover.bring(f"{file}\n")
        assert (again, await points(shop, pair[0])) == (0, 30)
