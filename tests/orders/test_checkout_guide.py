"""docs/checkout.md. Without these a shop could follow the guide and lose a customer's money or code."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from tests.factories import Shop
from tests.guides import files
from tests.orders.holding import let_pass
from tests.points.documents import CONFIGURE, grant, wallet

GUIDE = "docs/checkout.md"
STANDS = """query ($orderId: String!) { order(source: SHOPIFY, orderId: $orderId) {
  cancelledAt
  hold { status }
  purchase { amount { amountMinor } paidPoints }
  redemptions { discount { amountMinor } }
} }"""


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """Return the program under "A checkout in Python" as a module."""
    (text,) = files(GUIDE).values()
    path: Path = tmp_path_factory.mktemp("guide") / "checkout.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("guides_checkout", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class FakeProcessor:
    """A processor that keeps what it authorised and charged, and fails as it is told."""

    def __init__(self, guide: ModuleType) -> None:
        """Begin without authorisations."""
        self.guide = guide
        self.authorised: dict[str, int] = {}
        self.charged: dict[str, int] = {}
        self.fails: set[str] = set()

    async def authorise(self, key: str, amount: int, card: str) -> bool:
        if card == "declined":
            return False
        if card == "silent":
            raise self.guide.NoAnswerError
        self.authorised[key] = amount
        if card == "slow":
            raise self.guide.NoAnswerError
        return True

    async def find(self, key: str) -> bool:
        return key in self.authorised

    async def charge(self, key: str) -> bool:
        if "charge" in self.fails:
            return False
        self.charged[key] = self.authorised[key]
        return True

    async def void(self, key: str) -> None:
        self.authorised.pop(key, None)


class Lossy(httpx.AsyncBaseTransport):
    """A network that carries every request, and loses the first answer to each."""

    def __init__(self) -> None:
        """Begin with nothing lost."""
        self.inner = httpx.AsyncHTTPTransport()
        self.seen: set[bytes] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self.inner.handle_async_request(request)
        if request.content not in self.seen:
            self.seen.add(request.content)
            await response.aread()
            raise httpx.ReadError("the connection was cut")
        return response


class Till:
    """Jane, who has 1,000 points and a code for 10 %, a cart of 100.00, and a checkout as the guide's."""

    def __init__(self, shop: Shop, guide: ModuleType, http: httpx.AsyncClient, jane: Any, code: Any, key: str) -> None:
        """Fill a cart."""
        self.shop = shop
        self.jane = jane
        self.code = code
        self.processor = FakeProcessor(guide)
        self.checkout = guide.Checkout(http, shop.url, key, self.processor)
        self.cart = guide.Cart("1001", 1, jane["id"], 10_000, [code["text"]], 500)

    async def begin(self) -> Any:
        """Hold what the cart uses, and return an attempt to pay for the rest."""
        held = await self.checkout.hold(self.cart)
        assert held["__typename"] == "HoldCheckoutSuccess", held
        return self.checkout.attempt(self.cart, held["hold"], 1)

    async def order(self) -> Any:
        """Return what stands of the order."""
        return (await self.shop.data(STANDS, {"orderId": "1001"}))["order"]

    async def points(self) -> tuple[int, int]:
        """Return Jane's points and how many of them are held."""
        now = await wallet(self.shop, self.jane)
        return now["points"], now["heldPoints"]


@pytest.fixture
async def till(shop: Shop, guide: ModuleType) -> Any:
    """Open a till at which Jane stands."""
    await shop.do(CONFIGURE, pointValue=1, pointsPerUnit=1)
    jane = await shop.member()
    await grant(shop, jane, 1_000, "gift")
    code = await shop.claim(await shop.pool(), jane)
    return Till(shop, guide, shop.http, jane, code, await shop.key("CHECKOUT"))


async def test_a_cart_is_paid_with_a_code_points_and_a_card(till: Till) -> None:
    attempt = await till.begin()

    outcome = await till.checkout.pay(attempt, "good")

    assert (attempt.due, outcome, till.processor.charged) == (8_500, "PAID", {"1001/1": 8_500})
    assert await till.order() == {
        "cancelledAt": None,
        "hold": {"status": "CAPTURED"},
        "purchase": {"amount": {"amountMinor": 9_000}, "paidPoints": 500},
        "redemptions": [{"discount": {"amountMinor": 1_000}}],
    }
    assert await till.points() == (585, 0)


async def test_a_card_that_is_declined_leaves_the_hold_for_another_one(till: Till) -> None:
    attempt = await till.begin()

    declined = await till.checkout.pay(attempt, "declined")
    held = await till.points()
    attempt.key = "1001/2"
    paid = await till.checkout.pay(attempt, "good")

    assert (declined, held) == ("DECLINED", (1_000, 500))
    assert (paid, till.processor.charged) == ("PAID", {"1001/2": 8_500})


async def test_a_processor_that_never_heard_of_it_costs_nothing(till: Till) -> None:
    attempt = await till.begin()

    outcomes = await till.checkout.pay(attempt, "silent"), await till.checkout.settle(attempt)

    assert outcomes == ("UNKNOWN", "DECLINED")
    assert (await till.order())["hold"] == {"status": "RELEASED"}
    assert await till.points() == (1_000, 0)
    assert (await till.shop.redeem([till.code["text"]], till.jane))["__typename"] == "RedeemCodesSuccess"


async def test_an_answer_a_day_late_is_still_captured_if_all_is_there(till: Till) -> None:
    attempt = await till.begin()

    unknown = await till.checkout.pay(attempt, "slow")
    await let_pass(till.shop, {"id": attempt.hold_id})
    status = (await till.order())["hold"]
    paid = await till.checkout.settle(attempt)

    assert (unknown, status, paid) == ("UNKNOWN", {"status": "EXPIRED"}, "PAID")
    assert till.processor.charged == {"1001/1": 8_500}
    assert await till.points() == (585, 0)


async def test_an_answer_that_is_too_late_charges_nothing(till: Till) -> None:
    attempt = await till.begin()

    await till.checkout.pay(attempt, "slow")
    await let_pass(till.shop, {"id": attempt.hold_id})
    await till.shop.redeem([till.code["text"]], till.jane, order="elsewhere")
    gone = await till.checkout.settle(attempt)

    assert (gone, till.processor.charged, till.processor.authorised) == ("GONE", {}, {})
    assert (await till.order())["hold"] == {"status": "RELEASED"}
    assert await till.points() == (1_000, 0)


async def test_a_charge_that_fails_takes_everything_back(till: Till) -> None:
    attempt = await till.begin()
    till.processor.fails.add("charge")

    outcome = await till.checkout.pay(attempt, "good")

    order = await till.order()
    assert (outcome, order["redemptions"], order["purchase"]) == ("DECLINED", [], None)
    assert order["cancelledAt"] is not None
    assert await till.points() == (1_000, 0)
    assert (await till.shop.redeem([till.code["text"]], till.jane))["__typename"] == "RedeemCodesSuccess"


async def test_answers_that_are_lost_change_nothing(till: Till, guide: ModuleType) -> None:
    async with httpx.AsyncClient(transport=Lossy()) as http:
        till.checkout.http = http
        attempt = await till.begin()
        outcome = await till.checkout.pay(attempt, "good")

    assert (outcome, till.processor.charged) == ("PAID", {"1001/1": 8_500})
    assert await till.points() == (585, 0)
    assert await till.shop.broken_promises() == []
