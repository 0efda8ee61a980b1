"""grantPoints. Without these a retry could give points twice, or a debit take what isn't there."""

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from app.storage.database import database
from tests.dump import dump, traces
from tests.factories import EDIT_MEMBER, Shop, problems
from tests.points.documents import CONFIGURE, GRANT, WALLET, broken, days_later, entries, grant, points, wallet
from tests.unguarded import unguarded

INT_MAX = 2**31 - 1


async def test_points_are_given_and_taken_with_an_exact_balance(shop: Shop) -> None:
    member = await shop.member()

    given = await grant(shop, member, 100, "a")
    taken = await grant(shop, member, -30, "b", reference="correction")

    assert given["replayed"] is taken["replayed"] is False
    assert {name: given["entry"][name] for name in ("amount", "balanceAfter", "reason", "reference", "expiresAt")} == {
        "amount": 100, "balanceAfter": 100, "reason": "ADJUSTMENT", "reference": "goodwill", "expiresAt": None
    }  # fmt: skip
    assert given["entry"]["member"] == {"id": member["id"], "wallet": {"version": 1, "points": 100}}
    assert (taken["entry"]["amount"], taken["entry"]["balanceAfter"]) == (-30, 70)
    assert taken["entry"]["member"]["wallet"] == {"version": 2, "points": 70}
    assert await entries(shop, member) == [(100, 100, "ADJUSTMENT"), (-30, 70, "ADJUSTMENT")]
    assert await shop.wallet_versions(member) == [1, 2]
    assert [kind for kind in await shop.event_types() if kind.startswith("points")] == [
        "points.credited", "points.debited"
    ]  # fmt: skip
    assert await broken(shop) == []


async def test_the_same_key_is_the_same_grant(shop: Shop) -> None:
    member = await shop.member()
    first = await grant(shop, member, 100, "once")
    before = await shop.state()

    again = await grant(shop, member, 100, "once")

    assert again["replayed"] is True
    assert again["entry"] == first["entry"]
    assert await shop.state() == before


async def test_a_debit_that_emptied_the_balance_is_replayed_not_refused(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 100, "in")
    first = await grant(shop, member, -100, "out")

    again = await grant(shop, member, -100, "out")

    assert again["replayed"] is True
    assert again["entry"]["id"] == first["entry"]["id"]
    assert await points(shop, member) == 0


async def test_one_reference_can_name_several_grants(shop: Shop) -> None:
    first, second = await shop.member(), await shop.member()

    for number, member in enumerate((first, first, second)):
        assert (await grant(shop, member, 5, f"key-{number}", reference="summer"))["replayed"] is False

    assert [await points(shop, first), await points(shop, second)] == [10, 5]


async def test_a_key_with_another_body_is_refused(shop: Shop) -> None:
    member, other = await shop.member(), await shop.member()
    await grant(shop, member, 100, "k")
    same = {"memberId": member["id"], "amount": 100, "reference": "goodwill", "idempotencyKey": "k"}

    for change in ({"amount": 101}, {"amount": -100}, {"reference": "else"}, {"memberId": other["id"]}):
        answer = await shop.refused(GRANT, **(same | change))
        assert answer["__typename"] == "IdempotencyKeyReused"


async def test_what_can_not_be_is_invalid(shop: Shop) -> None:
    member = await shop.member()
    same = {"memberId": member["id"], "amount": 1, "reference": "r", "idempotencyKey": "k"}

    assert problems(await shop.refused(GRANT, **(same | {"amount": 0}))) == {"amount": "must not be 0"}
    assert problems(await shop.refused(GRANT, **(same | {"amount": -(2**31)}))) == {
        "amount": f"must be between {-INT_MAX} and {INT_MAX}"
    }
    assert problems(await shop.refused(GRANT, **(same | {"reference": " "}))) == {"reference": "must not be blank"}
    assert problems(await shop.refused(GRANT, **(same | {"reference": "r" * 201}))) == {
        "reference": "must be at most 200 characters"
    }
    assert problems(await shop.refused(GRANT, **(same | {"idempotencyKey": ""}))) == {
        "idempotencyKey": "must not be blank"
    }
    assert problems(await shop.refused(GRANT, **(same | {"idempotencyKey": "k" * 201}))) == {
        "idempotencyKey": "must be at most 200 characters"
    }


async def test_a_grant_may_have_an_end_of_its_own(shop: Shop) -> None:
    member = await shop.member()
    await shop.do(CONFIGURE, pointsLifetimeDays=30)
    soon = (datetime.now(UTC) + timedelta(days=7)).isoformat()
    late = (datetime.now(UTC) + timedelta(days=3650)).isoformat()

    first = await grant(shop, member, 10, "soon", expiresAt=soon)
    await grant(shop, member, 20, "late", expiresAt=late)
    await grant(shop, member, 30, "as all")

    assert datetime.fromisoformat(first["entry"]["expiresAt"]) == datetime.fromisoformat(soon)
    assert (await wallet(shop, member))["nextExpiry"] == {"points": 10, "expiresAt": first["entry"]["expiresAt"]}
    again = await grant(shop, member, 10, "soon", expiresAt=soon)
    assert (again["replayed"], again["entry"]["id"]) == (True, first["entry"]["id"])
    same = {"memberId": member["id"], "amount": 10, "reference": "goodwill", "idempotencyKey": "soon"}
    assert (await shop.refused(GRANT, **same, expiresAt=late))["__typename"] == "IdempotencyKeyReused"
    await days_later(shop, member, 7.1)
    assert (await entries(shop, member))[3:] == [(-10, 50, "EXPIRY")]


async def test_a_grant_ends_neither_in_the_past_nor_beyond_ten_years(shop: Shop) -> None:
    member = await shop.member()
    same = {"memberId": member["id"], "reference": "r", "idempotencyKey": "k"}
    now = datetime.now(UTC)

    async def wrong(amount: int, ends: datetime) -> dict[str, str]:
        return problems(await shop.refused(GRANT, **same, amount=amount, expiresAt=ends.isoformat()))

    assert await wrong(1, now - timedelta(seconds=1)) == {"expiresAt": "must be in the future"}
    assert await wrong(1, now + timedelta(days=3654)) == {"expiresAt": "must be at most ten years from now"}
    assert await wrong(-1, now + timedelta(days=1)) == {"expiresAt": "has no meaning where points are taken"}


async def test_a_retry_is_one_after_the_end_of_its_points_too(shop: Shop) -> None:
    member = await shop.member()
    now = datetime.now(UTC)
    first = await grant(shop, member, 5, "k", expiresAt=(now + timedelta(days=1)).isoformat())
    ended = now - timedelta(days=1)
    async with unguarded("points_entry") as tx:
        await tx.rows("UPDATE points_entry SET expires_at = $1 WHERE merchant_id = $2", ended, shop.merchant_id)

    again = await grant(shop, member, 5, "k", expiresAt=ended.isoformat())

    assert again["replayed"] is True
    assert again["entry"]["id"] == first["entry"]["id"]


async def test_another_merchants_member_is_not_found(shop: Shop, other_shop: Shop) -> None:
    theirs = await other_shop.member()
    before = await other_shop.state()

    for node in (theirs["id"], f"member_{'0' * 32}", "nonsense"):
        answer = await shop.refused(GRANT, memberId=node, amount=1, reference="r", idempotencyKey="k")
        assert answer == {"__typename": "NotFound", "message": "There is no such member.", "id": node}
    assert await other_shop.state() == before


async def test_a_debit_beyond_the_balance_is_refused(shop: Shop) -> None:
    member = await shop.member()
    await grant(shop, member, 99, "in")

    answer = await shop.refused(GRANT, memberId=member["id"], amount=-100, reference="r", idempotencyKey="k")
    least = await shop.refused(GRANT, memberId=member["id"], amount=-INT_MAX, reference="r", idempotencyKey="k")

    assert (answer["__typename"], answer["balance"], answer["required"]) == ("InsufficientPoints", 99, 100)
    assert answer["message"] == "The member can spend 99 points; 100 are needed."
    assert (least["balance"], least["required"]) == (99, INT_MAX)
    assert await points(shop, member) == 99


async def test_a_balance_holds_what_an_int_can_and_no_more(shop: Shop) -> None:
    member = await shop.member()
    assert (await grant(shop, member, INT_MAX, "all"))["entry"]["balanceAfter"] == INT_MAX

    answer = await shop.refused(GRANT, memberId=member["id"], amount=1, reference="r", idempotencyKey="k")

    assert problems(answer) == {"amount": f"would take the member's balance over {INT_MAX}"}


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("UPDATE points_entry SET amount = 1 WHERE merchant_id = $1", "points_entry_fixed"),
        ("UPDATE points_entry SET reference = 'x' WHERE merchant_id = $1", "points_entry_fixed"),
        ("DELETE FROM points_entry WHERE merchant_id = $1", "points_entry_kept"),
    ],
)
async def test_the_database_keeps_entries_as_they_were_written(shop: Shop, statement: str, constraint: str) -> None:
    await grant(shop, await shop.member(), 100, "k")

    with pytest.raises(asyncpg.CheckViolationError) as violation:
        await database().row(statement, shop.merchant_id)

    assert violation.value.constraint_name == constraint


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("points = -1", "wallet_points"),
        ("pending_points = 101", "wallet_points_spendable"),
        ("held_points = 60, pending_points = 41", "wallet_points_spendable"),
        ("held_points = -1", "wallet_points_spendable"),
        ("pending_points = -1", "wallet_points_spendable"),
        ("shortfall = -1", "wallet_shortfall"),
    ],
)
async def test_the_database_keeps_balances_possible(shop: Shop, change: str, constraint: str) -> None:
    await grant(shop, await shop.member(), 100, "k")

    with pytest.raises(asyncpg.CheckViolationError) as violation:
        await database().row(f"UPDATE wallet SET {change} WHERE merchant_id = $1", shop.merchant_id)

    assert violation.value.constraint_name in {constraint, "wallet_points_spendable"}


async def test_a_wallets_entries_are_paged_newest_first(shop: Shop) -> None:
    member = await shop.member()
    for number in range(1, 6):
        await grant(shop, member, number, f"k{number}")
    amounts: list[int] = []
    after = None

    while True:
        page = (await shop.data(WALLET, {"id": member["id"], "first": 2, "after": after}))["member"]["wallet"][
            "entries"
        ]
        amounts += [edge["node"]["amount"] for edge in page["edges"]]
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]

    assert amounts == [5, 4, 3, 2, 1]


async def test_a_member_sees_its_own_entries_only(shop: Shop) -> None:
    me, other = await shop.member(), await shop.member()
    mine, theirs = await grant(shop, me, 5, "a"), await grant(shop, other, 7, "b")
    token = await shop.token(me["id"])
    node = "query ($id: ID!) { node(id: $id) { ... on PointsEntry { amount } } }"

    wallet = (await shop.data("{ wallet { points entries { edges { node { amount } } } } }", key=token))["wallet"]

    assert wallet == {"points": 5, "entries": {"edges": [{"node": {"amount": 5}}]}}
    assert (await shop.data(node, {"id": mine["entry"]["id"]}, key=token))["node"] == {"amount": 5}
    assert (await shop.data(node, {"id": theirs["entry"]["id"]}, key=token))["node"] is None
    assert await shop.error_code("{ pointsEntries { edges { cursor } } }", key=token) == "FORBIDDEN"


async def test_all_entries_are_listed_newest_first(shop: Shop) -> None:
    first, second = await shop.member(), await shop.member()
    for number, member in enumerate((first, second, first)):
        await grant(shop, member, number + 1, f"k{number}")
    document = "query ($after: String) { pointsEntries(first: 2, after: $after) { edges { cursor node { amount } } } }"

    page = (await shop.data(document))["pointsEntries"]["edges"]
    rest = (await shop.data(document, {"after": page[-1]["cursor"]}))["pointsEntries"]["edges"]

    assert [edge["node"]["amount"] for edge in page + rest] == [3, 2, 1]


async def test_what_a_person_says_is_sealed_and_beside_the_ledger(shop: Shop) -> None:
    member = await shop.member(externalId="c-9")
    words = "For Ada Lovelace, who called twice"

    given = await grant(shop, member, 100, "a", reference=words)
    page = await shop.data(WALLET, {"id": member["id"]})

    assert given["entry"]["reference"] == words
    assert words in str(page)
    assert traces(await dump(shop.merchant_id), words, "Lovelace") == []
    assert (await grant(shop, member, 100, "a", reference=words))["replayed"] is True
    other = await shop.refused(GRANT, memberId=member["id"], amount=100, reference="Other words", idempotencyKey="a")
    assert other["__typename"] == "IdempotencyKeyReused"


async def test_a_grant_that_named_a_key_is_replayed_when_the_key_fits_nobody(shop: Shop) -> None:
    member = await shop.member(externalId="c-9")
    asked: dict[str, Any] = {"member": {"externalId": "c-9"}, "amount": 5, "reference": "sorry", "idempotencyKey": "a"}
    first = await shop.do(GRANT, **asked)
    await shop.do(EDIT_MEMBER, memberId=member["id"], externalId=None)

    again = await shop.do(GRANT, **asked)
    other = await shop.do(GRANT, **(asked | {"idempotencyKey": "b"}))

    assert (again["replayed"], again["entry"]["id"]) == (True, first["entry"]["id"])
    assert other["__typename"] == "NotFound"
