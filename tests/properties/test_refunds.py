"""Rounding: refunds in parts against the whole, in currencies of 0, 2 and 3 decimals. Without these parts could add up
to a point more or less than the purchase earned."""

from decimal import Decimal
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from app import ids
from app.orders.rows import PurchaseRow
from app.orders.rules import kept_points, points_of
from app.points.taking import OwnLot, attribute, own_shares
from tests.sizes import FULL, size

RATES = st.decimals(min_value=0, max_value=10_000, places=4)
MINOR_UNITS = st.sampled_from([1, 100, 1000])


@st.composite
def parts(draw: st.DrawFn, least: int = 1) -> list[int]:
    """Return amounts of 1 to 7 refunds; their sum is the purchase."""
    return draw(st.lists(st.integers(least, 10**9), min_size=1, max_size=7))


@settings(max_examples=size(200, 20_000), deadline=None, derandomize=not FULL)
@given(parts(), RATES, MINOR_UNITS)
def test_the_sum_of_the_parts_is_the_whole(amounts: list[int], rate: Decimal, minor_units: int) -> None:
    amount = sum(amounts)
    purchase: dict[str, Any] = {
        "purchase_amount": amount, "purchase_refunded": 0, "purchase_points_per_unit": rate,
        "purchase_minor_units": minor_units, "purchase_paid_value": 0, "purchase_returned_value": 0,
    }  # fmt: skip
    earned = kept_points(cast("PurchaseRow", purchase))
    assert earned == points_of(amount, rate, minor_units) == int(amount * int(rate * 10_000)) // (minor_units * 10_000)
    owed = []
    for part in amounts:
        before = kept_points(cast("PurchaseRow", purchase))
        purchase["purchase_refunded"] += part
        owed.append(before - kept_points(cast("PurchaseRow", purchase)))

    assert sum(owed) == earned
    assert min(owed) >= 0
    assert kept_points(cast("PurchaseRow", purchase)) == 0


LOTS = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.lists(st.integers(1, 20), max_size=2)),
    min_size=1,
    max_size=3,
)


@settings(max_examples=size(150, 10_000), deadline=None, derandomize=not FULL)
@given(LOTS, st.data())
def test_what_goes_back_of_each_lot_is_what_goes_back(
    shapes: list[tuple[int, int, int, list[int]]], data: st.DataObject
) -> None:
    """However much of it was spent, expired or paid for others, and whoever pays."""
    lots = [
        OwnLot(ids.new(), left, expired, left + expired + spent + sum(paid), {ids.new(): each for each in paid})
        for left, expired, spent, paid in shapes
    ]
    points = data.draw(st.integers(0, sum(lot.standing for lot in lots)))
    shares, lacking = own_shares(lots, points)
    payers = data.draw(st.lists(st.integers(1, 30), max_size=3))
    others, left = [], lacking
    for each in payers:
        if paid := min(each, left):
            others.append((ids.new(), paid))
            left -= paid

    attribute(shares, lots, others, lacking)

    assert sum(share.amount for share in shares) == points
    assert sum(share.shortfall for share in shares) == left
    assert sum(sum(share.covers.values()) for share in shares) == lacking - left
    for share, lot in zip(shares, lots, strict=True):
        assert 0 <= share.amount <= lot.standing
        assert share.own <= lot.free
        # Nobody else pays while something is left in the lot.
        if share.covers or share.shortfall:
            assert (share.own, share.expired, share.uncovers) == (lot.free, lot.uncounted, lot.paid)
