"""Segments. Without these an offer could reach members that it isn't for."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app import ids
from app.segments import refresh
from app.storage.database import database, transaction
from tests.advisor.documents import AGE_MEMBERS, AGE_PURCHASES, age
from tests.api.test_round_trips import Counter
from tests.api.test_round_trips import counted_shop as counted_shop  # noqa: PLC0414  (fixtures of this file, too)
from tests.api.test_round_trips import counter as counter  # noqa: PLC0414
from tests.factories import Shop
from tests.graph.documents import taken
from tests.orders.documents import CANCEL
from tests.points.documents import RECORD, REFUND, REVERSE, asked_refund, purchase, refund
from tests.races.storm import until_somebody_waits
from tests.referrals.documents import accepted, program
from tests.unguarded import unguarded

SEGMENTS = """
query ($first: Int, $after: String) {
  portfolio {
    segments {
      segment name memberCount
      members(first: $first, after: $after) {
        edges { cursor node { id wallet { version } } } pageInfo { hasNextPage endCursor }
      }
    }
  }
}
"""
BOUGHT = "SELECT last_bought_at FROM member WHERE merchant_id = $1 AND id = $2"
YESTERDAY = "UPDATE segment_refresh SET refreshed_at = now() - interval '24 hours' WHERE merchant_id = $1"
OLDER_DRAWING = "UPDATE graph_drawing SET read_at = read_at - interval '3 days' WHERE merchant_id = $1"
OLDER_EVENTS = """
UPDATE event SET id = (left(event_first_id(now() - interval '3 days')::text, 13) || right(id::text, 23))::uuid
WHERE merchant_id = $1
"""
LOCK = "SELECT FROM member WHERE merchant_id = $1 AND id = $2 FOR UPDATE"


def member_uuid(member: Any) -> UUID:
    """Return the row's id of a member."""
    found = ids.decode("member", member["id"])
    assert found is not None
    return found


async def last_bought(shop: Shop, member: Any) -> datetime | None:
    """Return when a member bought last, as its row says."""
    (row,) = await database().rows(BOUGHT, shop.merchant_id, member_uuid(member))
    found: datetime | None = row["last_bought_at"]
    return found


async def bought(shop: Shop, member: Any, order: str, *, days: int, amount: int = 1_000) -> datetime:
    """Record a purchase of so many days ago, and return when that was."""
    at = (datetime.now(UTC) - timedelta(days=days)).replace(microsecond=0)
    answer = await purchase(shop, member, order, amount, occurredAt=at.isoformat())
    assert answer["__typename"] == "RecordPurchaseSuccess"
    return at


async def in_segments(shop: Shop, **page: Any) -> dict[str, list[str]]:
    """Return the ids of the members of each segment."""
    found = (await shop.data(SEGMENTS, page))["portfolio"]["segments"]
    return {each["segment"]: [edge["node"]["id"] for edge in each["members"]["edges"]] for each in found}


async def test_a_member_knows_when_it_bought_last(shop: Shop) -> None:
    member = await shop.member()
    assert await last_bought(shop, member) is None

    first = await bought(shop, member, "o-1", days=40)
    assert await last_bought(shop, member) == first
    last = await bought(shop, member, "o-2", days=10)
    assert await last_bought(shop, member) == last
    # A till that was offline tells of it late.
    await bought(shop, member, "o-0", days=90)
    assert await last_bought(shop, member) == last
    assert await shop.broken_promises() == []


async def test_what_went_back_whole_was_not_bought(shop: Shop) -> None:
    member = await shop.member()
    first = await bought(shop, member, "o-1", days=40)
    second = await bought(shop, member, "o-2", days=30)
    third = await bought(shop, member, "o-3", days=20)

    await refund(shop, "o-3", "a part", 400)
    assert await last_bought(shop, member) == third
    await shop.do(REVERSE, source="STORE", orderId="o-3", reason="all of it")
    assert await last_bought(shop, member) == second
    await shop.do(CANCEL, source="STORE", orderId="o-1", reason="called off")
    assert await last_bought(shop, member) == second
    await refund(shop, "o-2", "the whole", 1_000)
    assert await last_bought(shop, member) is None
    assert first < second < third
    assert await shop.broken_promises() == []


async def test_a_purchase_that_is_recorded_while_another_goes_back_is_the_last(shop: Shop) -> None:
    member = await shop.member()
    await bought(shop, member, "o-1", days=3)
    async with transaction(shop.merchant_id) as tx:
        await tx.rows(LOCK, shop.merchant_id, member_uuid(member))
        at = datetime.now(UTC).replace(microsecond=0)
        calls = [
            asyncio.ensure_future(shop.do(REFUND, **asked_refund("o-1", "r-1", 1_000))),
            asyncio.ensure_future(
                shop.do(
                    RECORD, memberId=member["id"], source="STORE", orderId="o-2",
                    amount={"amountMinor": 500, "currency": "USD"}, occurredAt=at.isoformat(),
                )
            ),
        ]  # fmt: skip
        await until_somebody_waits(tx)
    answers = await asyncio.gather(*calls)

    assert [answer["__typename"] for answer in answers] == ["RefundPurchaseSuccess", "RecordPurchaseSuccess"]
    assert await last_bought(shop, member) == at
    assert await shop.broken_promises() == []


async def test_the_report_finds_a_member_that_bought_at_another_time(shop: Shop) -> None:
    member = await shop.member()
    await bought(shop, member, "o-1", days=3)

    await database().row("UPDATE member SET last_bought_at = now() WHERE merchant_id = $1", shop.merchant_id)

    assert await shop.broken_promises() == [("CREDITED_ONCE", 1)]


async def test_each_segment_lists_its_members_newest_first(shop: Shop) -> None:
    await program(shop)
    newcomer, regular, gone, hub = [await shop.member() for _ in range(4)]
    await age(AGE_MEMBERS, shop, [regular, gone, hub], 400)
    await bought(shop, regular, "r", days=89, amount=90_000)
    await bought(shop, gone, "g", days=91, amount=5_000)
    await bought(shop, hub, "h", days=1)
    referees = [(await accepted(shop, hub))["member"] for _ in range(3)]
    await taken(shop)

    found = await in_segments(shop, first=10)

    assert found == {
        "NEW": [*(each["id"] for each in reversed(referees)), newcomer["id"]],
        "ACTIVE": [hub["id"], regular["id"]],
        "LAPSED": [gone["id"]],
        "HIGH_SPEND": [regular["id"]],
        "ADVOCATES": [hub["id"]],
    }


async def test_a_segment_is_read_in_pages(shop: Shop) -> None:
    crowd = [(await shop.member())["id"] for _ in range(5)]
    seen: list[str] = []
    after = None
    for _ in range(3):
        answer = await shop.data(SEGMENTS, {"first": 2, "after": after})
        (new, *_) = answer["portfolio"]["segments"]
        seen += [edge["node"]["id"] for edge in new["members"]["edges"]]
        after = new["members"]["pageInfo"]["endCursor"]

    assert seen == crowd[::-1]
    assert new["members"]["pageInfo"]["hasNextPage"] is False


async def test_who_spends_most_is_as_of_last_night(shop: Shop) -> None:
    before, after = [await shop.member() for _ in range(2)]
    await bought(shop, before, "o-1", days=2, amount=5_000)
    assert (await in_segments(shop))["HIGH_SPEND"] == [before["id"]]

    await bought(shop, after, "o-2", days=1, amount=9_000)
    assert (await in_segments(shop))["HIGH_SPEND"] == [before["id"]]
    await refresh.refresh(shop.merchant_id)

    assert (await in_segments(shop))["HIGH_SPEND"] == [after["id"]]


async def test_a_second_refresh_changes_its_date_alone(shop: Shop) -> None:
    await bought(shop, await shop.member(), "o-1", days=2)
    await refresh.refresh(shop.merchant_id)
    before = await shop.state()

    await asyncio.gather(*(refresh.refresh(shop.merchant_id) for _ in range(4)))

    assert (await shop.state()).since(before) == {"segment_refresh": 0}


async def test_every_night_is_had_once(shop: Shop) -> None:
    async def is_due() -> bool:
        return shop.merchant_id in {row["merchant_id"] for row in await database().rows(refresh.DUE)}

    assert await is_due()
    await refresh.refresh(shop.merchant_id)
    assert not await is_due()
    await database().row(YESTERDAY, shop.merchant_id)
    assert await is_due()


async def test_the_night_passes_over_segments_that_would_come_out_as_they_are(shop: Shop) -> None:
    async def night() -> bool:
        """Let a night come after the last. Returns whether it worked the segments out."""
        await database().row(YESTERDAY, shop.merchant_id)
        row = await database().row(refresh.PASS, after=UUID(int=shop.merchant_id.int - 1))
        assert row is not None
        is_due = shop.merchant_id in {row["merchant_id"] for row in await database().rows(refresh.DUE)}
        await refresh.refresh(shop.merchant_id)
        return is_due

    async def nothing_more() -> None:
        async with unguarded("event") as tx:
            await tx.row(OLDER_EVENTS, shop.merchant_id)

    await program(shop)
    member = (await accepted(shop, await shop.member()))["member"]
    await bought(shop, member, "o-1", days=300)
    await taken(shop)
    await database().row(OLDER_DRAWING, shop.merchant_id)
    await refresh.refresh(shop.merchant_id)
    worked = [await night()]
    await nothing_more()
    worked += [await night(), await night()]
    await age(AGE_PURCHASES, shop, ["o-1"], 365)
    worked += [await night()]
    await age(AGE_PURCHASES, shop, ["o-1"], 368)
    worked += [await night()]
    await taken(shop)
    worked += [await night()]

    assert worked == [True, False, False, True, False, True]


async def test_one_merchant_whose_segments_fail_keeps_nobody_from_theirs(
    shop: Shop, other_shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    of_merchant = refresh.refresh

    async def fail_for_one(merchant_id: UUID, *, seconds_max: float | None = None) -> None:
        if merchant_id == min(shop.merchant_id, other_shop.merchant_id):
            raise ValueError("a bug")
        await of_merchant(merchant_id, seconds_max=seconds_max)

    monkeypatch.setattr(refresh, "refresh", fail_for_one)
    await refresh.refresh_due()

    assert await shop.count("segment_refresh") + await other_shop.count("segment_refresh") == 1
    assert "segments can't be worked out" in caplog.text


async def test_a_merchant_whose_nights_were_missed_is_refreshed_when_it_looks(shop: Shop) -> None:
    member = await shop.member()
    await refresh.refresh(shop.merchant_id)
    await bought(shop, member, "o-1", days=1)
    await age(AGE_PURCHASES, shop, ["o-1"], 2)
    stale = "UPDATE segment_refresh SET refreshed_at = now() - interval '37 hours' WHERE merchant_id = $1"
    await database().row(stale, shop.merchant_id)

    assert (await in_segments(shop))["HIGH_SPEND"] == [member["id"]]


async def test_members_of_all_segments_are_one_round_trip_more(counter: Counter, counted_shop: Shop) -> None:
    await counted_shop.member()
    await in_segments(counted_shop)

    # What is kept of the portfolio, the sums of pools and of segments, the pools, and the members.
    assert len(await counter.during(lambda: in_segments(counted_shop))) == 5
