"""What amounts of a purchase are worth: pure rules, without the database."""

from decimal import Decimal

from app.orders.rows import PurchaseRow


def points_of(amount: int, points_per_unit: Decimal, minor_units: int) -> int:
    """Return the whole points that an amount of minor units earns, cut down; as RECORD counts them."""
    return int(amount * points_per_unit // minor_units)


def kept_points(purchase: PurchaseRow) -> int:
    """Return the points that a purchase has earned after its refunds, those that are lacking included."""
    stands = purchase["purchase_amount"] - purchase["purchase_refunded"]
    return points_of(stands, purchase["purchase_points_per_unit"], purchase["purchase_minor_units"])


def credits_of(purchase: PurchaseRow) -> list[str]:
    """Return the origins of the entries that credited what a purchase earned, the first one first."""
    return [credit_of(purchase, number) for number in range(1, purchase["purchase_credits"] + 1)]


def credit_of(purchase: PurchaseRow, number: int) -> str:
    """Return the origin of the n-th entry that credits what a purchase earned; they count from 1."""
    first = purchase["purchase_id"].hex
    return first if number == 1 else f"{first}/{number}"
