"""Keys and checks of who owns a code, of campaigns and of fallback pools; by hand, see README.md."""

from tortoise import migrations
from tortoise.migrations import operations as ops

KEYS = """
-- An address that codes are bound to, and the member that is known to own it, if there is one. Its row is the lock
-- under which claims by e-mail and the verification of the address see each other. No model: its key is binary, which
-- Tortoise can't say, and only raw statements touch it.
CREATE TABLE address (
    merchant_id uuid NOT NULL,
    email_index bytea NOT NULL,
    member_id uuid,
    PRIMARY KEY (merchant_id, email_index),
    CONSTRAINT address_merchant FOREIGN KEY (merchant_id) REFERENCES merchant,
    CONSTRAINT address_member FOREIGN KEY (merchant_id, member_id) REFERENCES member
);
INSERT INTO address (merchant_id, email_index, member_id)
    SELECT merchant_id, email_index, id FROM member WHERE email_verified;

-- Two claims of one code: of the pool that was asked, and of the pool that served it.
ALTER TABLE claim DROP CONSTRAINT claim_pkey, ADD PRIMARY KEY (merchant_id, pool_id, code_id);
ALTER TABLE claim ADD CONSTRAINT claim_claimant CHECK (member_id IS NOT NULL OR email_index IS NOT NULL);
-- An address's n-th claim of a pool exists once too, whether it was made as a member or by e-mail.
CREATE UNIQUE INDEX claim_email_slot ON claim (merchant_id, pool_id, email_index, slot) WHERE email_index IS NOT NULL;
CREATE INDEX claim_by_code ON claim (merchant_id, code_id) WHERE email_index IS NOT NULL;
ALTER TABLE code ADD CONSTRAINT code_available_to_all CHECK (state <> 'AVAILABLE' OR email_index IS NULL);
-- What waits for an address to become a member's.
CREATE INDEX code_waiting ON code (merchant_id, email_index) WHERE email_index IS NOT NULL AND member_id IS NULL;

ALTER TABLE pool
    ADD CONSTRAINT pool_fallback FOREIGN KEY (merchant_id, fallback_pool_id) REFERENCES pool,
    ADD CONSTRAINT pool_fallback_other CHECK (fallback_pool_id <> id);

ALTER TABLE stock_alert DROP CONSTRAINT stock_alert_pkey, ADD PRIMARY KEY (merchant_id, pool_id, level);
ALTER TABLE stock_alert
    ADD CONSTRAINT stock_alert_pool FOREIGN KEY (merchant_id, pool_id) REFERENCES pool,
    ADD CONSTRAINT stock_alert_level CHECK (level IN (50, 25, 10, 0));

ALTER TABLE campaign DROP CONSTRAINT campaign_pkey, ADD PRIMARY KEY (merchant_id, id);
ALTER TABLE campaign
    ADD CONSTRAINT campaign_pool FOREIGN KEY (merchant_id, pool_id) REFERENCES pool,
    ADD CONSTRAINT campaign_key UNIQUE (merchant_id, idempotency_key),
    ADD CONSTRAINT campaign_counts CHECK (0 <= allocated_count AND allocated_count <= recipient_count);
ALTER TABLE delivery DROP CONSTRAINT delivery_pkey, ADD PRIMARY KEY (merchant_id, campaign_id, code_id);
ALTER TABLE delivery
    ADD CONSTRAINT delivery_campaign FOREIGN KEY (merchant_id, campaign_id) REFERENCES campaign,
    ADD CONSTRAINT delivery_code FOREIGN KEY (merchant_id, code_id) REFERENCES code;
-- What re-encryption pages by.
CREATE INDEX delivery_by_code ON delivery (merchant_id, code_id);
"""


class Migration(migrations.Migration):
    """Swap the single-column keys and add what models can't say."""

    dependencies = [("flash", "0005_ownership")]
    operations = [ops.RunSQL(KEYS)]
