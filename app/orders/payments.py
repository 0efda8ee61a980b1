"""What an order is paid for with points: how many, where they come from, and how they come back.

The caller has locked the order, and its payer's wallet among all that its change concerns (`locks.lock_wallets`).
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final
from uuid import UUID

from app import ids
from app.api.context import Viewer
from app.api.operations import not_found
from app.orders.rows import OrderRow, PurchaseRow
from app.orders.rules import NOTHING, Paid, paid_with
from app.points.give_back import give_back_some
from app.points.ledger import PostedRow, debit, too_many
from app.points.types import PointsReason
from app.storage.database import Tx
from app.storage.statements import NoRow, statement


@dataclass(frozen=True, slots=True)
class PointsBack:
    """How many points that were paid came back, how many of them expired at once, and the payer's wallet then."""

    points: int = 0
    expired: int = 0
    latest: PostedRow | None = None


def need(worth: int, purchase: PurchaseRow | None, purchase_amount: int) -> int:
    """Return how much of an order could be paid with points: what stands of it, and of its purchase if there is one.

    `worth` is the order's amount less its discount. Both are before refunds.
    """
    if purchase is None:
        return worth
    return max(0, min(worth, purchase_amount) - purchase["purchase_refunded"])


def paid_from_now(order: OrderRow, purchase: PurchaseRow | None, need: int, points: int | None) -> Paid:
    """Return what an order is paid with that needs so much: `points` at most, or what it was where none are told.

    Points beyond the need are not kept. What came back by refunds stays back and counts, as in `paid_points`.
    """
    before, came_back = paid_so_far(order), NOTHING
    if purchase is not None:
        came_back = Paid(purchase["purchase_returned_points"], purchase["purchase_returned_value"])
    if points is None and before.value - came_back.value <= need:
        return before
    ceiling = before.points if points is None else points
    return paid_with(ceiling, need, order["point_value"], came_back)


def paid_so_far(order: OrderRow) -> Paid:
    """Return what an order is paid with, before refunds."""
    return Paid(order["paid_points"], order["paid_value"])


async def settle(
    tx: Tx, viewer: Viewer, order: OrderRow, payer_id: UUID, paid: Paid, *, origin: str, path: str
) -> PointsBack | None:
    """Let an order be paid with other points than before: more are taken from the payer's wallet, or some come back.

    Those that come back do so under this `origin`. Returns None where nothing changed; otherwise the order's version
    was raised. Raises Refused with InsufficientPoints or NotFound, or with InvalidInput at `path` when the balance
    can't hold what comes back.
    """
    if paid == paid_so_far(order):
        return None
    more, payments, back = paid.points - order["paid_points"], order["payments"], PointsBack()
    if more > 0:
        payments += 1
        await _pay(tx, viewer, order, payer_id, more, origin=_origin(order, payments))
    elif more < 0:
        back = await give_back_paid(tx, viewer, order, -more, origin=origin, path=path)
    await write_paid(tx, viewer, order, payer_id, paid, point_value=order["point_value"], payments=payments)
    return back


async def _pay(tx: Tx, viewer: Viewer, order: OrderRow, payer_id: UUID, points: int, *, origin: str) -> None:
    entry = await debit(
        tx, viewer.merchant_id, viewer.actor, payer_id, points, PointsReason.PAYMENT, origin=origin,
        reference=order["order_id"],
    )  # fmt: skip
    if entry is None:
        raise not_found("member", ids.encode("member", payer_id))


def _origin(order: OrderRow, number: int) -> str:
    """Return the origin of the n-th entry that paid for an order; they count from 1."""
    first = order["order_row_id"].hex
    return first if number == 1 else f"{first}/{number}"


async def give_back_paid(tx: Tx, viewer: Viewer, order: OrderRow, points: int, *, origin: str, path: str) -> PointsBack:
    """Give points back that were paid for an order, the last spent first. Raises Refused(InvalidInput) at `path`."""
    if order["payer_id"] is None:
        raise RuntimeError("nobody has paid for this order with points")
    given = await give_back_some(
        tx, viewer.merchant_id, viewer.actor, order["payer_id"], points,
        spent=(PointsReason.PAYMENT, [_origin(order, number) for number in range(1, order["payments"] + 1)]),
        origin=origin, reference=order["order_id"],
    )  # fmt: skip
    if given is None:
        raise too_many(path)
    return PointsBack(points, sum(each.expired for each in given), given[-1].latest)


WRITE_PAID: Final = statement(
    NoRow,
    """
UPDATE sales_order SET version = version + 1, payer_id = :payer_id, paid_points = :points, paid_value = :value,
    point_value = :point_value, payments = :payments
WHERE merchant_id = :merchant_id AND id = :order_row_id
""",
)


async def write_paid(
    tx: Tx, viewer: Viewer, order: OrderRow, payer_id: UUID, paid: Paid, *, point_value: Decimal, payments: int
) -> None:
    """Write down what an order is paid with, at which value of a point, by so many entries. Raises its version."""
    await tx.row(
        WRITE_PAID,
        merchant_id=viewer.merchant_id,
        order_row_id=order["order_row_id"],
        payer_id=payer_id,
        points=paid.points,
        value=paid.value,
        point_value=point_value,
        payments=payments,
    )
