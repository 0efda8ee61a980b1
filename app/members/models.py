"""Rows of members and wallets."""

from tortoise import fields
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.models import Model


class Member(Model):
    """A member, one record whatever the source. Addresses and name are ciphertexts; the indexes find the addresses.

    Both addresses are encrypted as `email`, so that the pending one can take the other's place as it is; it waits
    beside a proven one only. All spellings of an address's mailbox have one `mailbox_index`. `email_edited` says that a
    proof must name its address. `accepted_invite_id` is the invite that it accepted last. Its tokens name the
    `token_generation` that they were issued in, and stand as long as that is the member's. `last_bought_at` is when the
    last of its purchases happened that stand. A member that is gone was merged, into one that wasn't, or erased. The
    address of a merged one is what its person has proved besides that of the kept one; `dropped_email_indexes` are of
    those that were only written down, and that the kept one doesn't show.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    external_id = fields.CharField(max_length=100, null=True)
    email = fields.BinaryField(null=True)
    email_index = fields.BinaryField(null=True)
    mailbox_index = fields.BinaryField(null=True)
    email_verified = fields.BooleanField()
    pending_email = fields.BinaryField(null=True)
    pending_email_index = fields.BinaryField(null=True)
    pending_mailbox_index = fields.BinaryField(null=True)
    dropped_email_indexes = ArrayField(element_type="bytea", null=True)
    dropped_mailbox_indexes = ArrayField(element_type="bytea", null=True)
    email_edited = fields.BooleanField(db_default=False)
    display_name = fields.BinaryField(null=True)
    source = fields.CharField(max_length=10)
    joined_at = fields.DatetimeField()
    token_generation = fields.IntField(db_default=0)
    accepted_invite_id = fields.UUIDField(null=True)
    last_bought_at = fields.DatetimeField(null=True)
    merged_into_id = fields.UUIDField(null=True)
    erased_at = fields.DatetimeField(null=True)

    class Meta:
        table = "member"


class Erasure(Model):
    """That a person was erased: a member, or, without one, an address that is no member's. Nothing in it names anybody.

    By `row_ids` it is found in an older copy of the database, where `invite_ids`, which it accepted, may be open.
    `logged_at` is when it was written to the log outside.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    member_id = fields.UUIDField(null=True)
    merged_ids = ArrayField(element_type="uuid")
    row_ids = ArrayField(element_type="uuid")
    invite_ids = ArrayField(element_type="uuid")
    ground = fields.CharField(max_length=10)
    erased_at = fields.DatetimeField()
    logged_at = fields.DatetimeField(null=True)

    class Meta:
        table = "erasure"


class ExternalId(Model):
    """What a source calls a member. Each source's ids are its own; `member.external_id` repeats that of its source."""

    member_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    source = fields.CharField(max_length=10)
    external_id = fields.CharField(max_length=100)

    class Meta:
        table = "external_id"


class Wallet(Model):
    """A member's wallet: its version counts the changes to it, without gaps, and `changed_at` dates the last one.

    Of its points some may be held for orders, others pending; `shortfall` is what its lots lack together. That of a
    member that is gone is closed, and changes no more.
    """

    member_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    version = fields.BigIntField()
    points = fields.IntField(db_default=0)
    held_points = fields.IntField(db_default=0)
    pending_points = fields.IntField(db_default=0)
    shortfall = fields.IntField(db_default=0)
    changed_at = fields.DatetimeField(null=True)
    closed_at = fields.DatetimeField(null=True)

    class Meta:
        table = "wallet"
