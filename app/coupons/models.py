"""Rows of pools, codes, claims, stock and redemptions; amounts are in minor units of the merchant's currency."""

from tortoise import fields
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.models import Model


class Pool(Model):
    """The terms under which codes are issued and honoured."""

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    name = fields.CharField(max_length=200)
    status = fields.CharField(max_length=10)
    pause_scope = fields.CharField(max_length=10, null=True)
    kind = fields.CharField(max_length=10)
    percent_off = fields.DecimalField(max_digits=7, decimal_places=4, null=True)
    amount_off = fields.BigIntField(null=True)
    gift_sku = fields.CharField(max_length=100, null=True)
    minimum_spend = fields.BigIntField(null=True)
    maximum_discount = fields.BigIntField(null=True)
    starts_at = fields.DatetimeField(null=True)
    ends_at = fields.DatetimeField(null=True)
    code_lifetime_days = fields.IntField(null=True)
    claims_per_member = fields.IntField()
    stacking = fields.CharField(max_length=10)
    transferable = fields.BooleanField()
    recycle_expired = fields.BooleanField(db_default=False)
    code_pattern = fields.CharField(max_length=64, null=True)
    audience = ArrayField(element_type="text", db_default=[])
    first_order_only = fields.BooleanField(db_default=False)
    one_claim_per_mailbox = fields.BooleanField(db_default=True)
    listed = fields.BooleanField(db_default=False)
    maximum_total_discount = fields.BigIntField(null=True)
    fallback_pool_id = fields.UUIDField(null=True)
    suggestion_id = fields.UUIDField(null=True)
    terms_version = fields.IntField(db_default=1)
    created_at = fields.DatetimeField()

    class Meta:
        table = "pool"


class PoolBudget(Model):
    """A slice of what is left of a pool's budget. How many there are, and how they are cut, means nothing."""

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    pool_id = fields.UUIDField()
    remaining = fields.BigIntField()

    class Meta:
        table = "pool_budget"


class PoolTerms(Model):
    """A version of a pool's terms: what redemptions name. The pool's own row has the current ones."""

    pool_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    version = fields.IntField()
    percent_off = fields.DecimalField(max_digits=7, decimal_places=4, null=True)
    amount_off = fields.BigIntField(null=True)
    gift_sku = fields.CharField(max_length=100, null=True)
    minimum_spend = fields.BigIntField(null=True)
    maximum_discount = fields.BigIntField(null=True)
    starts_at = fields.DatetimeField(null=True)
    ends_at = fields.DatetimeField(null=True)
    code_lifetime_days = fields.IntField(null=True)
    claims_per_member = fields.IntField()
    stacking = fields.CharField(max_length=10)
    transferable = fields.BooleanField()
    written_at = fields.DatetimeField()

    class Meta:
        table = "pool_terms"


class CodeRevival(Model):
    """That a pool has a later end: its codes that only the end before had expired are to live again.

    A job walks them by their ids, and has come to `walked_to`.
    """

    pool_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    walked_to = fields.UUIDField(null=True)

    class Meta:
        table = "code_revival"


class CodeBatch(Model):
    """Codes that came into being together, or, ISSUED, that left the stock together for print."""

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    pool_id = fields.UUIDField()
    kind = fields.CharField(max_length=10, db_default="GENERATED")
    size = fields.IntField()
    idempotency_key = fields.BinaryField(null=True)
    request_hash = fields.BinaryField(null=True)
    created_at = fields.DatetimeField()

    class Meta:
        table = "code_batch"


class CodeLength(Model):
    """That the merchant has codes from elsewhere, or a pattern, of so many characters: nothing else can be one."""

    length = fields.SmallIntField(primary_key=True)
    merchant_id = fields.UUIDField()

    class Meta:
        table = "code_length"


class BearerCode(Model):
    """That a code is in the list of a batch of bearer codes, which whoever prints them reads."""

    code_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    batch_id = fields.UUIDField()
    pool_id = fields.UUIDField()

    class Meta:
        table = "bearer_code"


class Code(Model):
    """One code for its whole life: the text is a ciphertext, `suffix` is what a masked code shows.

    One from elsewhere or of a pool's pattern isn't of our own form (`is_foreign`), and also has the fingerprint of its
    text with O as 0 and I and L as 1 (`folded`).
    It is a member's, or waits for an address (`email_index`) that nobody has proved, or is a bearer code, which belongs
    to whoever holds it; only one of these. It ends with its pool, unless it was given a later end of its own when it
    came back (`outlives_pool`). An EXPIRED one says whether its pool's end alone had expired it (`died_with_pool`): it
    lives again with a later one. Until `held_until` a hold has it, for an order.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    pool_id = fields.UUIDField()
    batch_id = fields.UUIDField()
    state = fields.CharField(max_length=10)
    ciphertext = fields.BinaryField()
    fingerprint = fields.BinaryField()
    folded = fields.BinaryField(null=True)
    is_foreign = fields.BooleanField(db_default=False)
    suffix = fields.CharField(max_length=2)
    member_id = fields.UUIDField(null=True)
    email_index = fields.BinaryField(null=True)
    bearer = fields.BooleanField(db_default=False)
    reissued_as = fields.UUIDField(null=True)
    matched_by = fields.CharField(max_length=20, null=True)
    allocated_at = fields.DatetimeField(null=True)
    expires_at = fields.DatetimeField(null=True)
    outlives_pool = fields.BooleanField(db_default=False)
    died_with_pool = fields.BooleanField(db_default=False)
    redeemed_at = fields.DatetimeField(null=True)
    hold_id = fields.UUIDField(null=True)
    held_until = fields.DatetimeField(null=True)

    class Meta:
        table = "code"


class Claim(Model):
    """That a claimant took its n-th code (`slot`) of a pool: a member, or an address that is no member's.

    A code that a fallback pool served has two: one of the pool that was asked, one of the pool it came from. The key
    is what makes a retry the same claim, and `told_of` knows the address or the key that named the claimant again, whom
    it may fit no more. The first claim of a person whose mailbox counts has that: all spellings of its address.
    """

    code_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    pool_id = fields.UUIDField()
    member_id = fields.UUIDField(null=True)
    email_index = fields.BinaryField(null=True)
    slot = fields.IntField()
    idempotency_key = fields.BinaryField(null=True)
    told_of = fields.BinaryField(null=True)
    mailbox_index = fields.BinaryField(null=True)
    claimed_at = fields.DatetimeField()

    class Meta:
        table = "claim"


class StockChange(Model):
    """What one change did to a pool's stock. The stock is the sum; a job folds old rows into one, which is folded."""

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    pool_id = fields.UUIDField()
    available = fields.IntField()
    allocated = fields.IntField()
    redeemed = fields.IntField()
    expired = fields.IntField()
    revoked = fields.IntField()
    is_folded = fields.BooleanField(db_default=False)

    class Meta:
        table = "stock_change"


class StockAlert(Model):
    """That a pool's stock fell to `level` percent, which is told once."""

    pool_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    level = fields.SmallIntField()
    raised_at = fields.DatetimeField()

    class Meta:
        table = "stock_alert"


class Campaign(Model):
    """One code of a pool for each of many recipients: those that were named, or who was in a segment at the call.

    The hash is of what was asked for, to know it again.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    pool_id = fields.UUIDField()
    name = fields.CharField(max_length=200)
    segment = fields.CharField(max_length=20, null=True)
    recipient_count = fields.IntField()
    allocated_count = fields.IntField()
    idempotency_key = fields.BinaryField(null=True)
    request_hash = fields.BinaryField()
    created_at = fields.DatetimeField()

    class Meta:
        table = "campaign"


class Delivery(Model):
    """A code that a campaign sends to an address (a ciphertext), or to the member that owns it where there is none.

    It is `allocated` by the campaign, or the recipient had it before. Positions count from 1, in the order in which
    they became visible.
    """

    code_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    campaign_id = fields.UUIDField()
    position = fields.IntField()
    recipient = fields.BinaryField(null=True)
    allocated = fields.BooleanField()

    class Meta:
        table = "delivery"


class Redemption(Model):
    """A code honoured on an order: what it was applied to (`base`), what it took off, and in which position.

    Where it may be applied to a part of the order only, `eligible` says how much that is.

    A hash of order and presenter, as the caller named it, knows a call that comes again.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    pool_id = fields.UUIDField()
    terms_version = fields.IntField()
    code_id = fields.UUIDField()
    source = fields.CharField(max_length=10)
    order_id = fields.CharField(max_length=100)
    position = fields.SmallIntField()
    order_amount = fields.BigIntField()
    base = fields.BigIntField()
    eligible = fields.BigIntField(null=True)
    discount = fields.BigIntField()
    currency = fields.CharField(max_length=3)
    redeemed_at = fields.DatetimeField()
    reversed_at = fields.DatetimeField(null=True)
    presented_by = fields.BinaryField(null=True)

    class Meta:
        table = "redemption"


class Reversal(Model):
    """That a redemption was taken back, once, and whether its code is live again. The reason is a ciphertext."""

    redemption_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    reinstated = fields.BooleanField()
    reason = fields.BinaryField(null=True)
    reversed_at = fields.DatetimeField()

    class Meta:
        table = "reversal"
