"""Rows of the referral program, invites, quotas and referrals."""

from tortoise import fields
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.fields.db_defaults import Now
from tortoise.models import Model


class ReferralProgram(Model):
    """A merchant's program, made with the merchant: closed (its quotas are 0) until somebody configures it.

    Points and the minimum are those of the conversion; a lifetime is that of the invite when it was sent, and the
    trigger is that of its acceptance. The minimum is in minor units.
    """

    merchant_id = fields.UUIDField(primary_key=True)
    referrer_points = fields.IntField(db_default=100)
    referee_points = fields.IntField(db_default=100)
    invites_per_batch = fields.IntField(db_default=0)
    invites_per_day = fields.IntField(db_default=0)
    invites_lifetime = fields.IntField(db_default=0)
    invite_lifetime_days = fields.IntField(db_default=30)
    converts_on = fields.CharField(max_length=20, db_default="FIRST_PURCHASE")
    reports_members = fields.BooleanField(db_default=True)
    review_policy = fields.CharField(max_length=10, db_default="NONE")
    refund_window_days = fields.IntField(db_default=30)
    minimum_purchase = fields.BigIntField(null=True)
    one_reward_per_mailbox = fields.BooleanField(db_default=True)

    class Meta:
        table = "referral_program"


class Invite(Model):
    """An address that a member invited. Address and token are ciphertexts; the index and the hash find them.

    An invite that was accepted stays PENDING until it converts; it has its referee then, and an obstacle where it
    won't. Mailbox and domain are blind indexes that invites are compared by; the domain is null where it is a public
    provider's.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    referrer_id = fields.UUIDField()
    status = fields.CharField(max_length=10)
    email = fields.BinaryField(null=True)
    email_index = fields.BinaryField()
    mailbox_index = fields.BinaryField()
    domain_index = fields.BinaryField(null=True)
    token = fields.BinaryField(null=True)
    token_hash = fields.BinaryField()
    created_at = fields.DatetimeField()
    expires_at = fields.DatetimeField()
    accepted_at = fields.DatetimeField(null=True)
    referee_id = fields.UUIDField(null=True)
    converts_on = fields.CharField(max_length=20, null=True)
    obstacle = fields.CharField(max_length=20, null=True)
    converted_at = fields.DatetimeField(null=True)

    class Meta:
        table = "invite"


class InviteQuota(Model):
    """How many invites a member sent: on its latest day of sending, and ever, less those that expired.

    The limits are those of the latest batch, so that a check can hold it to them.
    """

    member_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    day = fields.DateField()
    sent_today = fields.IntField()
    sent_lifetime = fields.IntField()
    day_max = fields.IntField()
    lifetime_max = fields.IntField()

    class Meta:
        table = "invite_quota"


class Referral(Model):
    """Who brought whom: one row per converted invite. Without its entries it is held for a person's review.

    The purchase is the one that it stands by, or stood by when it fell. A reversal stays on the row until another
    purchase brings the referral back, and `falls` counts them; a shortfall is what the balances lacked then. A declined
    one never has entries. The minimum, in minor units, and the window in which a return ends it are those of the
    conversion. What the network shows of it changed last at `changed_at`.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    invite_id = fields.UUIDField()
    invite_status = fields.CharField(max_length=10, db_default="CONVERTED")
    referrer_id = fields.UUIDField()
    referee_id = fields.UUIDField()
    purchase_id = fields.UUIDField(null=True)
    referrer_points = fields.IntField()
    referee_points = fields.IntField()
    flags = ArrayField(element_type="text")
    minimum_purchase = fields.BigIntField(null=True)
    refund_window_days = fields.IntField(db_default=30)
    referrer_entry_id = fields.UUIDField(null=True)
    referee_entry_id = fields.UUIDField(null=True)
    converted_at = fields.DatetimeField()
    released_at = fields.DatetimeField(null=True)
    declined_at = fields.DatetimeField(null=True)
    reversed_at = fields.DatetimeField(null=True)
    shortfall = fields.IntField(null=True)
    falls = fields.IntField(db_default=0)
    changed_at = fields.DatetimeField(db_default=Now())

    class Meta:
        table = "referral"
