"""Lets the first nodes of a snapshot be stored, in the row itself; by hand, see README.md."""

from tortoise import migrations
from tortoise.migrations import operations as ops

FORMATS = """
ALTER TABLE graph_file
    DROP CONSTRAINT graph_file_format,
    ADD CONSTRAINT graph_file_format CHECK (format IN ('svg', 'json', 'hubs'));
-- What fits into a block is in the row; pictures don't, and aren't.
ALTER TABLE graph_file ALTER COLUMN body SET STORAGE MAIN;
"""


class Migration(migrations.Migration):
    """Add what models can't say."""

    dependencies = [("flash", "0017_graph_first_nodes")]
    operations = [ops.RunSQL(FORMATS)]
