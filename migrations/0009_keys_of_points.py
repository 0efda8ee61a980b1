"""Keys, checks and the trigger that hold the promises about points; by hand, see README.md."""

from tortoise import migrations
from tortoise.migrations import operations as ops

KEYS = """
ALTER TABLE points_entry DROP CONSTRAINT points_entry_pkey, ADD PRIMARY KEY (merchant_id, id);
ALTER TABLE points_due DROP CONSTRAINT points_due_pkey, ADD PRIMARY KEY (merchant_id, member_id, mark);
ALTER TABLE purchase DROP CONSTRAINT purchase_pkey, ADD PRIMARY KEY (merchant_id, id);
ALTER TABLE purchase_reversal DROP CONSTRAINT purchase_reversal_pkey, ADD PRIMARY KEY (merchant_id, purchase_id);
ALTER TABLE reward DROP CONSTRAINT reward_pkey, ADD PRIMARY KEY (merchant_id, id);
ALTER TABLE reward_redemption DROP CONSTRAINT reward_redemption_pkey, ADD PRIMARY KEY (merchant_id, id);

ALTER TABLE points_entry ADD CONSTRAINT points_entry_wallet
    FOREIGN KEY (merchant_id, member_id) REFERENCES wallet;
ALTER TABLE points_due ADD CONSTRAINT points_due_entry FOREIGN KEY (merchant_id, entry_id) REFERENCES points_entry;
ALTER TABLE purchase ADD CONSTRAINT purchase_member FOREIGN KEY (merchant_id, member_id) REFERENCES member;
-- A purchase is taken back once.
ALTER TABLE purchase_reversal ADD CONSTRAINT purchase_reversal_purchase
    FOREIGN KEY (merchant_id, purchase_id) REFERENCES purchase;
ALTER TABLE reward ADD CONSTRAINT reward_merchant FOREIGN KEY (merchant_id) REFERENCES merchant;
ALTER TABLE reward ADD CONSTRAINT reward_pool FOREIGN KEY (merchant_id, pool_id) REFERENCES pool;
ALTER TABLE reward_redemption
    ADD CONSTRAINT reward_redemption_reward FOREIGN KEY (merchant_id, reward_id) REFERENCES reward,
    ADD CONSTRAINT reward_redemption_member FOREIGN KEY (merchant_id, member_id) REFERENCES member,
    ADD CONSTRAINT reward_redemption_code FOREIGN KEY (merchant_id, code_id) REFERENCES code,
    ADD CONSTRAINT reward_redemption_entry FOREIGN KEY (merchant_id, entry_id) REFERENCES points_entry;
"""

PROMISES = """
ALTER TABLE merchant
    ADD CONSTRAINT merchant_points CHECK (points_per_unit BETWEEN 0 AND 10000 AND point_value BETWEEN 0 AND 10000),
    ADD CONSTRAINT merchant_points_lifetime CHECK (points_lifetime_days BETWEEN 1 AND 3650),
    ADD CONSTRAINT merchant_points_warning CHECK (points_warning_days BETWEEN 0 AND 365),
    ADD CONSTRAINT merchant_margin_rate CHECK (margin_rate BETWEEN 0 AND 1);

-- A balance is never negative, and what is left of the points that expire is part of it.
ALTER TABLE wallet
    ADD CONSTRAINT wallet_points CHECK (points >= 0),
    ADD CONSTRAINT wallet_points_expiring CHECK (
        expiring_spent >= 0 AND expiring_earned - expiring_spent BETWEEN 0 AND points
    );

-- A wallet's change tells what it left: its version and its points.
UPDATE event SET wallet_points = 0 WHERE wallet_version IS NOT NULL;
ALTER TABLE event ADD CONSTRAINT event_wallet_points CHECK ((wallet_version IS NULL) = (wallet_points IS NULL));

-- A points event is credited once.
ALTER TABLE points_entry
    ADD CONSTRAINT points_entry_origin UNIQUE (merchant_id, reason, origin),
    ADD CONSTRAINT points_entry_amount CHECK (amount <> 0),
    ADD CONSTRAINT points_entry_balance CHECK (balance_after >= 0),
    ADD CONSTRAINT points_entry_lifetime CHECK (expires_at IS NULL OR (amount > 0 AND mark >= amount)),
    ADD CONSTRAINT points_entry_reason CHECK (CASE reason
        WHEN 'PURCHASE' THEN amount > 0
        WHEN 'REFERRAL_REFERRER' THEN amount > 0
        WHEN 'REFERRAL_REFEREE' THEN amount > 0
        WHEN 'REWARD' THEN amount < 0
        WHEN 'REVERSAL' THEN amount < 0
        WHEN 'EXPIRY' THEN amount < 0
        ELSE reason = 'ADJUSTMENT' END);
-- The lists: all entries of the merchant (the liability sums their amounts), and those of a wallet.
CREATE INDEX points_entry_newest ON points_entry (merchant_id, created_at, id) INCLUDE (amount);
CREATE INDEX points_entry_of_member ON points_entry (merchant_id, member_id, created_at, id);
-- Which expiry passed a place among a member's expiring points.
CREATE INDEX points_entry_expiry ON points_entry (merchant_id, member_id, mark) WHERE reason = 'EXPIRY';

CREATE FUNCTION points_entry_guard() RETURNS trigger LANGUAGE plpgsql AS $guard$
BEGIN
    RAISE EXCEPTION 'entries are written once and never changed'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'points_entry_append_only';
END $guard$;
CREATE TRIGGER points_entry_guard BEFORE UPDATE OR DELETE ON points_entry
    FOR EACH ROW EXECUTE FUNCTION points_entry_guard();

-- What the expiry job looks for.
CREATE INDEX points_due_next ON points_due (merchant_id, expires_at);
CREATE INDEX points_due_unwarned ON points_due (merchant_id, expires_at) WHERE NOT warned;

ALTER TABLE purchase
    ADD CONSTRAINT purchase_order UNIQUE (merchant_id, source, order_id),
    ADD CONSTRAINT purchase_amounts CHECK (amount >= 0 AND points >= 0),
    ADD CONSTRAINT purchase_source CHECK (source IN ('STORE', 'SHOPIFY', 'RECEIPT', 'REFERRAL', 'IMPORT'));
ALTER TABLE purchase_reversal ADD CONSTRAINT purchase_reversal_points CHECK (taken >= 0 AND shortfall >= 0);

ALTER TABLE reward
    ADD CONSTRAINT reward_cost CHECK (cost > 0),
    ADD CONSTRAINT reward_stock CHECK (stock >= 0);
-- Each key is one redemption, each redemption is paid once and gives a code of its own.
ALTER TABLE reward_redemption
    ADD CONSTRAINT reward_redemption_key UNIQUE (merchant_id, idempotency_key),
    ADD CONSTRAINT reward_redemption_paid UNIQUE (merchant_id, entry_id),
    ADD CONSTRAINT reward_redemption_code_once UNIQUE (merchant_id, code_id);
"""


class Migration(migrations.Migration):
    """Swap the single-column keys and add what models can't say."""

    dependencies = [("flash", "0008_points")]
    operations = [ops.RunSQL(KEYS), ops.RunSQL(PROMISES)]
