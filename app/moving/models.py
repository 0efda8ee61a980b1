"""Rows of imports: what a file says, until it is applied."""

from tortoise import fields
from tortoise.models import Model


class ImportFile(Model):
    """A file that is brought in: STAGING until all of it is judged, APPLYING, and APPLIED in the end.

    The digest, under the merchant's key, knows the file again. `staged_line` is up to where it is staged.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    kind = fields.CharField(max_length=10)
    name = fields.CharField(max_length=200)
    digest = fields.BinaryField()
    status = fields.CharField(max_length=10)
    corrects = fields.BooleanField()
    tells = fields.BooleanField()
    staged_line = fields.IntField(db_default=0)
    applied = fields.IntField(db_default=0)
    begun_at = fields.DatetimeField()
    applied_at = fields.DatetimeField(null=True)

    class Meta:
        table = "import_file"


class ImportRow(Model):
    """A row of a file, from when it is read until it is applied; each kind of file uses some of the columns.

    `id` is that of what it makes, to which its ciphertexts belong, and `found` is whom or what it is about that is
    there already. `dated_at` is when a member joined, points or a code end, or a purchase happened. `verdict` is null
    for what is new.
    """

    import_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    line = fields.IntField()
    id = fields.UUIDField()
    external_source = fields.CharField(max_length=10, null=True)
    external_id = fields.CharField(max_length=100, null=True)
    email = fields.BinaryField(null=True)
    email_index = fields.BinaryField(null=True)
    mailbox_index = fields.BinaryField(null=True)
    email_verified = fields.BooleanField(null=True)
    display_name = fields.BinaryField(null=True)
    dated_at = fields.DatetimeField(null=True)
    amount = fields.BigIntField(null=True)
    source = fields.CharField(max_length=10, null=True)
    order_id = fields.CharField(max_length=100, null=True)
    pool = fields.UUIDField(null=True)
    ciphertext = fields.BinaryField(null=True)
    fingerprint = fields.BinaryField(null=True)
    folded = fields.BinaryField(null=True)
    suffix = fields.CharField(max_length=2, null=True)
    length = fields.SmallIntField(null=True)
    bearer = fields.BooleanField(null=True)
    found = fields.UUIDField(null=True)
    verdict = fields.CharField(max_length=10, null=True)
    problem = fields.CharField(max_length=500, null=True)

    class Meta:
        table = "import_row"
