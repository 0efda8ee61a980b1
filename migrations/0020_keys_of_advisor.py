"""Keys and checks of the advisor's runs, and the indexes that its facts are read from; by hand, see README.md."""

from tortoise import migrations
from tortoise.migrations import operations as ops

KEYS = """
ALTER TABLE advice_run DROP CONSTRAINT advice_run_pkey, ADD PRIMARY KEY (merchant_id, id);
ALTER TABLE advice_run ADD CONSTRAINT advice_run_merchant FOREIGN KEY (merchant_id) REFERENCES merchant;
ALTER TABLE redemption ADD CONSTRAINT redemption_pool FOREIGN KEY (merchant_id, pool_id) REFERENCES pool;
"""

PROMISES = """
-- One run of a merchant at a time.
CREATE UNIQUE INDEX advice_run_live ON advice_run (merchant_id) WHERE status IN ('QUEUED', 'RUNNING');
-- What workers look for, whatever the merchant.
CREATE INDEX advice_run_waiting ON advice_run (requested_at) WHERE status IN ('QUEUED', 'RUNNING');
ALTER TABLE advice_run
    ADD CONSTRAINT advice_run_status CHECK (status IN ('QUEUED', 'RUNNING', 'DONE', 'FAILED')),
    ADD CONSTRAINT advice_run_ended CHECK ((status IN ('DONE', 'FAILED')) = (finished_at IS NOT NULL)),
    ADD CONSTRAINT advice_run_leased CHECK (status = 'QUEUED' OR lease_until IS NOT NULL),
    ADD CONSTRAINT advice_run_source CHECK (source IN ('LLM', 'RULES')),
    -- An answer is whole, and rules say why they gave it.
    ADD CONSTRAINT advice_run_answered CHECK ((status = 'DONE') = (source IS NOT NULL)
        AND (source IS NULL) = (suggestions IS NULL) AND (source IS NULL) = (rejected IS NULL)
        AND (source IS NULL) = (facts IS NULL)),
    ADD CONSTRAINT advice_run_fallback CHECK ((source IS NOT DISTINCT FROM 'RULES') = (fallback_reason IS NOT NULL));

ALTER TABLE merchant
    ADD CONSTRAINT merchant_advised_percent CHECK (advised_percent_max > 0 AND advised_percent_max <= 100),
    ADD CONSTRAINT merchant_advised_amount CHECK (advised_amount_max > 0);

-- What the portfolio sums, without a look at the rows themselves.
CREATE INDEX redemption_of_pool ON redemption (merchant_id, pool_id) INCLUDE (redeemed_at, order_amount, discount)
    WHERE reversed_at IS NULL;
CREATE INDEX code_taken_back ON code (merchant_id, pool_id) WHERE state = 'REVOKED' AND allocated_at IS NOT NULL;
DROP INDEX code_by_owner;
CREATE INDEX code_by_owner ON code (merchant_id, member_id, allocated_at, id) INCLUDE (state, pool_id)
    WHERE member_id IS NOT NULL;
"""


class Migration(migrations.Migration):
    """Swap the single-column key and add what models can't say."""

    dependencies = [("flash", "0019_advisor")]
    operations = [ops.RunSQL(KEYS), ops.RunSQL(PROMISES)]
