"""What amounts of a purchase are worth, in points earned and in points paid: pure rules, without the database."""

from decimal import Decimal
from typing import Final, NamedTuple

from app.orders.rows import PurchaseRow


def points_of(amount: int, points_per_unit: Decimal, minor_units: int) -> int:
    """Return the whole points that an amount of minor units earns, cut down; as RECORD counts them."""
    return int(amount * points_per_unit // minor_units)


def money_part(purchase: PurchaseRow) -> int:
    """Return how much stands of a purchase that was not paid with points: what points and referrals go by."""
    paid = purchase["purchase_paid_value"] - purchase["purchase_returned_value"]
    return purchase["purchase_amount"] - purchase["purchase_refunded"] - paid


def kept_points(purchase: PurchaseRow) -> int:
    """Return the points that a purchase has earned after its refunds, those that are lacking included."""
    return points_of(money_part(purchase), purchase["purchase_points_per_unit"], purchase["purchase_minor_units"])


class Paid(NamedTuple):
    """Points that were paid for an order, and what they paid for, in minor units."""

    points: int
    value: int


NOTHING: Final = Paid(0, 0)
#: A point's value has six decimals.
_SCALE: Final = 10**6


def paid_with(ceiling: int, need: int, point_value: Decimal, came_back: Paid = NOTHING) -> Paid:
    """Return what is paid with `ceiling` points at most: the fewest that cover `need`, their value cut to minor units.

    `need` is what stands of the order. What came back by refunds counts in the ceiling and in the answer, and stays
    back. Points that are worth nothing aren't taken.
    """
    scaled = int(point_value * _SCALE)
    if scaled == 0:
        return came_back
    fewest = -(-(need + came_back.value) * _SCALE // scaled)
    points = min(ceiling, fewest)
    value = min(points * scaled // _SCALE - came_back.value, need)
    if points <= came_back.points or value <= 0:
        return came_back
    return Paid(points, came_back.value + value)


def come_back(purchase: PurchaseRow, refunded: int) -> Paid:
    """Return what of the points paid has come back when so much of a purchase is refunded.

    Shares are cumulative and cut down, of what stood when the order changed last, so that the parts make the whole.
    """
    part = refunded - purchase["purchase_shares_from"]
    whole = purchase["purchase_amount"] - purchase["purchase_shares_from"]
    back = Paid(purchase["purchase_shares_points"], purchase["purchase_shares_value"])
    if part == 0:
        return back
    return Paid(
        back.points + (purchase["purchase_paid_points"] - back.points) * part // whole,
        back.value + (purchase["purchase_paid_value"] - back.value) * part // whole,
    )


def credits_of(purchase: PurchaseRow) -> list[str]:
    """Return the origins of the entries that credited what a purchase earned, the first one first."""
    return [credit_of(purchase, number) for number in range(1, purchase["purchase_credits"] + 1)]


def credit_of(purchase: PurchaseRow, number: int) -> str:
    """Return the origin of the n-th entry that credits what a purchase earned; they count from 1."""
    first = purchase["purchase_id"].hex
    return first if number == 1 else f"{first}/{number}"
