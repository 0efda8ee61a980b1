"""docs/refunds.md. Without this a shop could plan with numbers that aren't so, or send what isn't valid."""

import json
import re
from typing import Any

import pytest

from tests.factories import Shop
from tests.guides import ROOT, blocks
from tests.orders.documents import AMEND, amendment
from tests.points.documents import (
    CONFIGURE,
    REVERSE_REWARD,
    broken,
    days_later,
    grant,
    purchase,
    redeem,
    refund,
    reward,
    wallet,
)

GUIDE = "docs/refunds.md"
_TABLE = re.compile(r"^### (.+)\n(?:\n.+)+?\n\n\| What happens .*\n\|[-|]+\|\n((?:\|.*\n)+)", re.MULTILINE)
HISTORIES = {
    title: [tuple(cell.strip() for cell in row.strip("|").split("|")) for row in rows.splitlines()]
    for title, rows in _TABLE.findall((ROOT / GUIDE).read_text())
}
KEPT = "query ($id: ID!) { node(id: $id) { ... on Purchase { keptPoints } } }"


class History:
    """A member, and what happens to it."""

    def __init__(self, shop: Shop, member: Any) -> None:
        """Begin with nothing."""
        self.shop = shop
        self.member = member
        self.bought: dict[str, str] = {}
        self.rewards: list[str] = []
        self.codes: dict[str, Any] = {}
        self.numbers = 0

    async def step(self, what: str) -> None:
        """Do what a line says."""
        self.numbers += 1
        for pattern, act in (
            (r"buy (\w) for (.+)", self._buy),
            (r"refund (.+) of (\w)", self._refund),
            (r"pay for (\w) of (.+) with (\d+) points", self._pay),
            (r"give (\d+) points", self._give),
            (r"a reward for (\d+) points", self._spend),
            (r"reward (\d) goes back", self._give_back),
            (r"(\d+) days pass", self._wait),
            (r"points live for (\d+) days", lambda days: self._set(pointsLifetimeDays=int(days))),
            (r"points are pending for (\d+) days", lambda days: self._set(pointsPendingDays=int(days))),
            (r"a unit earns (.+) points", lambda rate: self._set(pointsPerUnit=float(rate))),
        ):
            found = re.fullmatch(pattern, what)
            if found:
                await act(*found.groups())
                return
        raise AssertionError(what)

    async def _buy(self, order: str, amount: str) -> None:
        answer = await purchase(self.shop, self.member, order, _minor(amount))
        self.bought[order] = answer["purchase"]["id"]

    async def _pay(self, order: str, amount: str, points: str) -> None:
        """Pay for an order with points; the first time with a gift's code, which takes nothing off."""
        if order not in self.codes:
            code = await self.shop.claim(await self.shop.pool(kind="GIFT", giftSku="MUG-1"), self.member)
            self.codes[order] = code
            await self.shop.redeem([code["text"]], self.member, order=order, amount=_minor(amount))
        asked = amendment([self.codes[order]], self.member, _minor(amount), orderId=order, points=int(points))
        answer = await self.shop.do(AMEND, **asked)
        assert answer["__typename"] == "AmendOrderSuccess"

    async def _refund(self, amount: str, order: str) -> None:
        answer = await refund(self.shop, order, f"r-{self.numbers}", _minor(amount))
        assert answer["replayed"] is False

    async def _give(self, points: str) -> None:
        await grant(self.shop, self.member, int(points), f"g-{self.numbers}")

    async def _spend(self, points: str) -> None:
        had = await redeem(self.shop, await reward(self.shop, cost=int(points)), self.member, f"m-{self.numbers}")
        self.rewards.append(had["redemption"]["id"])

    async def _give_back(self, number: str) -> None:
        await self.shop.do(REVERSE_REWARD, redemptionId=self.rewards[int(number) - 1], reason="broken")

    async def _wait(self, days: str) -> None:
        await days_later(self.shop, self.member, int(days))

    async def _set(self, **settings: Any) -> None:
        await self.shop.do(CONFIGURE, **settings)

    async def shown(self) -> tuple[str, ...]:
        """Return what the columns say."""
        found = await wallet(self.shop, self.member)
        kept = ""
        if "A" in self.bought:
            kept = str((await self.shop.data(KEPT, {"id": self.bought["A"]}))["node"]["keptPoints"])
        return str(found["points"]), str(found["pendingPoints"]), str(found["shortfall"]), kept


def _minor(amount: str) -> int:
    return int(amount.replace(".", ""))


@pytest.mark.parametrize("title", HISTORIES)
async def test_each_history_is_as_the_guide_says(shop: Shop, title: str) -> None:
    history = History(shop, await shop.member())
    for what, *expected in HISTORIES[title]:
        await history.step(what)
        assert await history.shown() == tuple(expected), what
    assert await broken(shop) == await shop.broken_promises() == []


def test_there_are_eight_histories() -> None:
    assert list(HISTORIES) == [
        "All spent", "Partly expired", "Pending", "Three parts", "A shortfall filled by what comes back",
        "Another rate since", "Paid with points", "Paid after it was recorded, and changed",
    ]  # fmt: skip


async def test_the_guides_documents_do_what_it_says(shop: Shop) -> None:
    await purchase(shop, await shop.member(), "1001", 9999)
    check, change = [block.text for block in blocks("docs/refunds.md", "Refund a part", "graphql")]
    (values,) = [json.loads(block.text) for block in blocks(GUIDE, "Refund a part", "json")]

    checked = (await shop.data(check, values))["checkRefund"]
    answers = [(await shop.data(change, values))["refundPurchase"] for _ in range(2)]

    assert (checked["points"], checked["moneyReturned"]["amountMinor"]) == (33, 3333)
    assert [answer["replayed"] for answer in answers] == [False, True]
    assert {answer["purchase"]["keptPoints"] for answer in answers} == {66}
