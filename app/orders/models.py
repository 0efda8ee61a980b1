"""Tables of orders and purchases."""

from tortoise import fields
from tortoise.models import Model


class SalesOrder(Model):
    """An order of one channel whose codes were redeemed. What changes its redemptions raises `version` by one.

    What it was worth before discounts is null for an order that was never redeemed, and cancelled.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    source = fields.CharField(max_length=10)
    order_id = fields.CharField(max_length=100)
    order_amount = fields.BigIntField(null=True)
    currency = fields.CharField(max_length=3)
    version = fields.IntField()
    cancelled_at = fields.DatetimeField(null=True)

    class Meta:
        table = "sales_order"


class Purchase(Model):
    """An order as a source told it, once, and the points that it earned; `spendable_at` is when their pending ends.

    Where the buyer was named by a key, a hash of the order and that key knows a call that comes again.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    member_id = fields.UUIDField()
    source = fields.CharField(max_length=10)
    order_id = fields.CharField(max_length=100)
    amount = fields.BigIntField()
    currency = fields.CharField(max_length=3)
    points = fields.IntField()
    spendable_at = fields.DatetimeField(null=True)
    occurred_at = fields.DatetimeField()
    recorded_at = fields.DatetimeField()
    reversed_at = fields.DatetimeField(null=True)
    told_of = fields.BinaryField(null=True)

    class Meta:
        table = "purchase"


class PurchaseReversal(Model):
    """That a purchase was taken back, once: how many of its points were there to take, and how many were not."""

    purchase_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    taken = fields.IntField()
    shortfall = fields.IntField()
    reversed_at = fields.DatetimeField()

    class Meta:
        table = "purchase_reversal"
