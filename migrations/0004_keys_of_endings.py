"""Keys and checks of what ends a code; by hand, see README.md."""

from tortoise import migrations
from tortoise.migrations import operations as ops

KEYS = """
ALTER TABLE reversal DROP CONSTRAINT reversal_pkey, ADD PRIMARY KEY (merchant_id, redemption_id);
-- A redemption is taken back once.
ALTER TABLE reversal ADD CONSTRAINT reversal_redemption
    FOREIGN KEY (merchant_id, redemption_id) REFERENCES redemption;
-- What the expiry job looks for.
CREATE INDEX code_by_expiry ON code (merchant_id, expires_at) WHERE state = 'ALLOCATED' AND expires_at IS NOT NULL;
"""


class Migration(migrations.Migration):
    """Swap the single-column key and add what models can't say."""

    dependencies = [("flash", "0003_endings")]
    operations = [ops.RunSQL(KEYS)]
