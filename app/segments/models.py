"""Rows of segments that can't be read off a member's own row."""

from tortoise import fields
from tortoise.models import Model


class SegmentMember(Model):
    """That a member is in a segment, as of the last refresh."""

    member_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    segment = fields.CharField(max_length=20)

    class Meta:
        table = "segment_member"


class SegmentRefresh(Model):
    """When a merchant's rows of segments were last worked out."""

    merchant_id = fields.UUIDField(primary_key=True)
    refreshed_at = fields.DatetimeField()

    class Meta:
        table = "segment_refresh"
