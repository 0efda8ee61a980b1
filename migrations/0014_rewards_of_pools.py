"""What tells whether a pool backs a reward; by hand, see README.md."""

from tortoise import migrations
from tortoise.migrations import operations as ops

INDEX = """
-- Each claim looks here. The newest of several rewards is the one that a refusal names.
CREATE INDEX reward_of_pool ON reward (merchant_id, pool_id, id) WHERE active;
"""


class Migration(migrations.Migration):
    """Add the index that models can't say."""

    dependencies = [("flash", "0013_keys_of_graph")]
    operations = [ops.RunSQL(INDEX)]
