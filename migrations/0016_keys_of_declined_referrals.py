"""Checks and indexes of declined referrals; by hand, see README.md."""

from tortoise import migrations
from tortoise.migrations import operations as ops

PROMISES = """
-- A person releases a referral or declines it.
ALTER TABLE referral ADD CONSTRAINT referral_released_or_declined CHECK (released_at IS NULL OR declined_at IS NULL);
DROP INDEX referral_held;
CREATE INDEX referral_held ON referral (merchant_id, id)
    WHERE released_at IS NULL AND declined_at IS NULL AND reversed_at IS NULL;
CREATE INDEX referral_declined ON referral (merchant_id, id) WHERE declined_at IS NOT NULL;
"""


class Migration(migrations.Migration):
    """Add what models can't say."""

    dependencies = [("flash", "0015_declined_referrals")]
    operations = [ops.RunSQL(PROMISES)]
