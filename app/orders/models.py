"""Tables of orders, of purchases and of what goes back of them."""

from tortoise import fields
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.models import Model


class SalesOrder(Model):
    """An order of one channel for which codes were held or redeemed, or that was cancelled: with what that paid out.

    What changes its redemptions or its hold raises `version`. What it was worth before discounts is null for an order
    that was never redeemed or captured. It is known for the member that presented its codes, or for a guest's mailbox.
    `paid_points` are those that `payer_id` paid for it with `payments` entries, before refunds, and `paid_value` is
    what they paid for, at `point_value` minor units each.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    source = fields.CharField(max_length=10)
    order_id = fields.CharField(max_length=100)
    order_amount = fields.BigIntField(null=True)
    currency = fields.CharField(max_length=3)
    version = fields.IntField()
    payer_id = fields.UUIDField(null=True)
    paid_points = fields.IntField(db_default=0)
    paid_value = fields.BigIntField(db_default=0)
    point_value = fields.DecimalField(max_digits=11, decimal_places=6, null=True)
    payments = fields.IntField(db_default=0)
    cancelled_at = fields.DatetimeField(null=True)
    money_returned = fields.BigIntField(null=True)
    points_returned = fields.IntField(null=True)
    points_expired = fields.IntField(null=True)
    shortfall = fields.IntField(null=True)
    presenter_id = fields.UUIDField(null=True)
    mailbox_index = fields.BinaryField(null=True)

    class Meta:
        table = "sales_order"


class OrderAmendment(Model):
    """That an order's codes and amount were replaced: what they came to before and after, and what the buyer lacks.

    The hash is of what was asked for, to know it again. `points_returned` had been paid and came back.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    sales_order_id = fields.UUIDField()
    idempotency_key = fields.BinaryField()
    request_hash = fields.BinaryField()
    amount_before = fields.BigIntField()
    discount_before = fields.BigIntField()
    amount_after = fields.BigIntField()
    discount_after = fields.BigIntField()
    shortfall = fields.IntField()
    points_returned = fields.IntField(db_default=0)
    amended_at = fields.DatetimeField()

    class Meta:
        table = "order_amendment"


class Purchase(Model):
    """An order as a source told it, once, and the points that it earned; `spendable_at` is when their pending ends.

    `amount` is what it was worth before refunds, `recorded_amount` what was told first, and `points` what the amount
    that is not paid with points earns at the rate of that moment: `points_per_unit`, for each `minor_units` of the
    currency. `credits` counts its lots. `paid_points` and `paid_value` are the order's, and `returned_points` and
    `returned_value` what refunds brought back of them: shares of what stood when the order changed last. By then
    `shares_from` had been refunded, and `shares_points` and `shares_value` had come back. Where the buyer was named by
    a key, a hash of the order and that key knows a call that comes again.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    member_id = fields.UUIDField()
    source = fields.CharField(max_length=10)
    order_id = fields.CharField(max_length=100)
    amount = fields.BigIntField()
    recorded_amount = fields.BigIntField()
    refunded = fields.BigIntField(db_default=0)
    paid_points = fields.IntField(db_default=0)
    paid_value = fields.BigIntField(db_default=0)
    returned_points = fields.IntField(db_default=0)
    returned_value = fields.BigIntField(db_default=0)
    shares_from = fields.BigIntField(db_default=0)
    shares_points = fields.IntField(db_default=0)
    shares_value = fields.BigIntField(db_default=0)
    currency = fields.CharField(max_length=3)
    points = fields.IntField()
    points_per_unit = fields.DecimalField(max_digits=9, decimal_places=4)
    minor_units = fields.IntField()
    credits = fields.IntField()
    spendable_at = fields.DatetimeField(null=True)
    occurred_at = fields.DatetimeField()
    recorded_at = fields.DatetimeField()
    reversed_at = fields.DatetimeField(null=True)
    told_of = fields.BinaryField(null=True)

    class Meta:
        table = "purchase"


class Refund(Model):
    """A part of a purchase that went back, once, and what was told of it.

    Of the points that it had earned, `points` were owed: `taken` left the balance, `shortfall` were not there. What had
    been paid with points came back as points; the rest is the money that the shop returned.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    purchase_id = fields.UUIDField()
    refund_id = fields.CharField(max_length=100)
    amount = fields.BigIntField()
    points = fields.IntField()
    taken = fields.IntField()
    shortfall = fields.IntField()
    points_returned = fields.IntField(db_default=0)
    points_expired = fields.IntField(db_default=0)
    points_forfeited = fields.IntField(db_default=0)
    money_returned = fields.BigIntField()
    ends_referral = fields.BooleanField()
    entry_ids = ArrayField(element_type="uuid")
    refunded_at = fields.DatetimeField()

    class Meta:
        table = "refund"


class Hold(Model):
    """What was set aside for an order while its customer pays: for a member, or for whoever gave an address.

    `points` pay `points_value` minor units of it, at the `point_value` of when they were held; `held_points` are those
    and what the rewards cost. Past `held_until` it is EXPIRED, whether that is written down yet or not. `presented_by`
    knows the presenter, as a redemption does.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    sales_order_id = fields.UUIDField()
    member_id = fields.UUIDField(null=True)
    email_index = fields.BinaryField(null=True)
    order_amount = fields.BigIntField()
    currency = fields.CharField(max_length=3)
    total_discount = fields.BigIntField()
    points = fields.IntField()
    points_value = fields.BigIntField()
    point_value = fields.DecimalField(max_digits=11, decimal_places=6)
    held_points = fields.IntField()
    status = fields.CharField(max_length=10)
    version = fields.IntField()
    held_at = fields.DatetimeField()
    held_until = fields.DatetimeField()
    ended_at = fields.DatetimeField(null=True)
    captured_points = fields.IntField(null=True)
    captured_value = fields.BigIntField(null=True)
    presented_by = fields.BinaryField()

    class Meta:
        table = "hold"


class HoldCode(Model):
    """A code of a hold, in its place on the order: what capturing it redeems, and the redemption once it has."""

    hold_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    code_id = fields.UUIDField()
    pool_id = fields.UUIDField()
    position = fields.SmallIntField()
    terms_version = fields.IntField()
    base = fields.BigIntField()
    eligible = fields.BigIntField(null=True)
    discount = fields.BigIntField()
    redemption_id = fields.UUIDField(null=True)

    class Meta:
        table = "hold_code"


class HoldReward(Model):
    """A reward of a hold, with the code that is set aside for it, and its redemption once it is captured."""

    hold_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    position = fields.SmallIntField()
    reward_id = fields.UUIDField()
    cost = fields.IntField()
    is_from_stock = fields.BooleanField()
    code_id = fields.UUIDField(null=True)
    redemption_id = fields.UUIDField(null=True)

    class Meta:
        table = "hold_reward"


class HoldRequest(Model):
    """A key by which something was held for an order: the same request again changes nothing."""

    sales_order_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    idempotency_key = fields.BinaryField()

    class Meta:
        table = "hold_request"
