"""Rows of the network's snapshots, of the drawings that they show, and of the jobs that take them."""

from tortoise import fields
from tortoise.models import Model


class GraphJob(Model):
    """A snapshot to be taken. A merchant has at most one that waits and one that is being worked at.

    A worker holds a job until `lease_until`; then another may take it. Its snapshot has the same id.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    status = fields.CharField(max_length=10)
    failure = fields.CharField(max_length=10, null=True)
    is_large = fields.BooleanField()
    taken_on = fields.DateField()
    actor = fields.CharField(max_length=60)
    attempts = fields.SmallIntField()
    requested_at = fields.DatetimeField()
    started_at = fields.DatetimeField(null=True)
    lease_until = fields.DatetimeField(null=True)
    finished_at = fields.DatetimeField(null=True)

    class Meta:
        table = "graph_job"


class GraphSnapshot(Model):
    """A network as it was on a day of the merchant's; never changed, and replaced whole by a later one of the day.

    It shows a drawing: its own, which has its id, or that of an earlier day since which nothing has changed.
    """

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    taken_on = fields.DateField()
    taken_at = fields.DatetimeField()
    drawing_id = fields.UUIDField()
    drawn_on = fields.DateField()
    compared_with = fields.DateField(null=True)
    member_count = fields.IntField()
    referral_count = fields.IntField()
    component_count = fields.IntField()
    community_count = fields.IntField()
    hub_count = fields.IntField()
    hub_degree = fields.IntField()
    new_referral_count = fields.IntField()
    lost_referral_count = fields.IntField()
    new_hub_count = fields.IntField()
    side = fields.FloatField()

    class Meta:
        table = "graph_snapshot"


class GraphDrawing(Model):
    """The nodes, edges and files that one snapshot or more show, and when its edges were read, at the earliest."""

    id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    read_at = fields.DatetimeField()

    class Meta:
        table = "graph_drawing"


class GraphNode(Model):
    """A member in a drawing. Ranks count from 0, the highest degree first; the label tells no name."""

    drawing_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    rank = fields.IntField()
    member_id = fields.UUIDField()
    label = fields.CharField(max_length=40)
    degree = fields.IntField()
    recruited = fields.IntField()
    is_hub = fields.BooleanField()
    is_new_hub = fields.BooleanField()
    community = fields.IntField()
    x = fields.FloatField()
    y = fields.FloatField()

    class Meta:
        table = "graph_node"


class GraphEdge(Model):
    """A converted referral in a drawing. Ranks count from 0, the latest conversion first."""

    drawing_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    rank = fields.IntField()
    referrer_id = fields.UUIDField()
    referee_id = fields.UUIDField()
    converted_at = fields.DatetimeField()
    is_new = fields.BooleanField()

    class Meta:
        table = "graph_edge"


class GraphFile(Model):
    """A drawing as SVG or JSON, as it is sent (compressed with gzip); or its first nodes, read as they are."""

    drawing_id = fields.UUIDField(primary_key=True)
    merchant_id = fields.UUIDField()
    format = fields.CharField(max_length=4)
    body = fields.BinaryField()

    class Meta:
        table = "graph_file"
