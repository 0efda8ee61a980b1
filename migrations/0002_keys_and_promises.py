"""The keys, checks and triggers that hold the promises of the domain; written by hand, see README.md."""

from tortoise import migrations
from tortoise.migrations import operations as ops

# Every key starts with merchant_id: no row can refer to another merchant's row, and the schema runs on Citus.
KEYS = """
ALTER TABLE api_key DROP CONSTRAINT api_key_pkey, ADD PRIMARY KEY (merchant_id, id);
ALTER TABLE data_key DROP CONSTRAINT data_key_pkey, ADD PRIMARY KEY (merchant_id, id);
ALTER TABLE member DROP CONSTRAINT member_pkey, ADD PRIMARY KEY (merchant_id, id);
ALTER TABLE wallet DROP CONSTRAINT wallet_pkey, ADD PRIMARY KEY (merchant_id, member_id);
ALTER TABLE pool DROP CONSTRAINT pool_pkey, ADD PRIMARY KEY (merchant_id, id);
ALTER TABLE code_batch DROP CONSTRAINT code_batch_pkey, ADD PRIMARY KEY (merchant_id, id);
ALTER TABLE code DROP CONSTRAINT code_pkey, ADD PRIMARY KEY (merchant_id, id);
ALTER TABLE claim DROP CONSTRAINT claim_pkey, ADD PRIMARY KEY (merchant_id, code_id);
ALTER TABLE stock_change DROP CONSTRAINT stock_change_pkey, ADD PRIMARY KEY (merchant_id, pool_id, id);
ALTER TABLE redemption DROP CONSTRAINT redemption_pkey, ADD PRIMARY KEY (merchant_id, id);
ALTER TABLE event DROP CONSTRAINT event_pkey, ADD PRIMARY KEY (merchant_id, id);

ALTER TABLE api_key ADD CONSTRAINT api_key_merchant FOREIGN KEY (merchant_id) REFERENCES merchant;
ALTER TABLE data_key ADD CONSTRAINT data_key_merchant FOREIGN KEY (merchant_id) REFERENCES merchant;
ALTER TABLE member ADD CONSTRAINT member_merchant FOREIGN KEY (merchant_id) REFERENCES merchant;
ALTER TABLE wallet ADD CONSTRAINT wallet_member FOREIGN KEY (merchant_id, member_id) REFERENCES member;
ALTER TABLE pool ADD CONSTRAINT pool_merchant FOREIGN KEY (merchant_id) REFERENCES merchant;
ALTER TABLE code_batch ADD CONSTRAINT code_batch_pool FOREIGN KEY (merchant_id, pool_id) REFERENCES pool;
ALTER TABLE code
    ADD CONSTRAINT code_pool FOREIGN KEY (merchant_id, pool_id) REFERENCES pool,
    ADD CONSTRAINT code_batch FOREIGN KEY (merchant_id, batch_id) REFERENCES code_batch,
    ADD CONSTRAINT code_member FOREIGN KEY (merchant_id, member_id) REFERENCES member;
ALTER TABLE claim
    ADD CONSTRAINT claim_pool FOREIGN KEY (merchant_id, pool_id) REFERENCES pool,
    ADD CONSTRAINT claim_code FOREIGN KEY (merchant_id, code_id) REFERENCES code,
    ADD CONSTRAINT claim_member FOREIGN KEY (merchant_id, member_id) REFERENCES member;
ALTER TABLE redemption ADD CONSTRAINT redemption_code FOREIGN KEY (merchant_id, code_id) REFERENCES code;
"""

PROMISES = """
-- A secret or a data key version exists once.
ALTER TABLE api_key
    ADD CONSTRAINT api_key_secret UNIQUE (merchant_id, secret_hash),
    ADD CONSTRAINT api_key_role CHECK (role IN ('ADMIN', 'CHECKOUT', 'ANALYST'));
ALTER TABLE data_key
    ADD CONSTRAINT data_key_version UNIQUE (merchant_id, purpose, version),
    ADD CONSTRAINT data_key_purpose CHECK (purpose IN ('ENCRYPTION', 'LOOKUP', 'TOKEN'));

-- A person is one record, found by the store's id or by address.
ALTER TABLE member
    ADD CONSTRAINT member_external_id UNIQUE (merchant_id, external_id),
    ADD CONSTRAINT member_email UNIQUE (merchant_id, email_index),
    ADD CONSTRAINT member_email_whole CHECK ((email IS NULL) = (email_index IS NULL)),
    ADD CONSTRAINT member_email_to_verify CHECK (email IS NOT NULL OR NOT email_verified),
    ADD CONSTRAINT member_source CHECK (source IN ('STORE', 'SHOPIFY', 'RECEIPT', 'REFERRAL', 'IMPORT'));
ALTER TABLE wallet ADD CONSTRAINT wallet_version CHECK (version >= 0);

-- The terms of a pool make sense, and each kind has exactly its own value.
ALTER TABLE pool
    ADD CONSTRAINT pool_status CHECK (status IN ('DRAFT', 'ACTIVE', 'PAUSED', 'ARCHIVED')),
    ADD CONSTRAINT pool_value CHECK (CASE kind
        WHEN 'PERCENT' THEN percent_off > 0 AND percent_off <= 100 AND amount_off IS NULL AND gift_sku IS NULL
        WHEN 'AMOUNT' THEN amount_off > 0 AND percent_off IS NULL AND gift_sku IS NULL
            AND maximum_discount IS NULL
        WHEN 'GIFT' THEN gift_sku <> '' AND percent_off IS NULL AND amount_off IS NULL
            AND maximum_discount IS NULL
        ELSE false END),
    ADD CONSTRAINT pool_minimum_spend CHECK (minimum_spend > 0),
    ADD CONSTRAINT pool_maximum_discount CHECK (maximum_discount > 0),
    ADD CONSTRAINT pool_window CHECK (ends_at > starts_at),
    ADD CONSTRAINT pool_code_lifetime CHECK (code_lifetime_days BETWEEN 1 AND 3650),
    ADD CONSTRAINT pool_claims_per_member CHECK (claims_per_member BETWEEN 1 AND 1000),
    ADD CONSTRAINT pool_stacking CHECK (stacking IN ('EXCLUSIVE', 'STACKABLE'));

-- A pool starts in DRAFT, moves only along its lifecycle, and keeps its terms once it has left DRAFT.
CREATE FUNCTION pool_guard() RETURNS trigger LANGUAGE plpgsql AS $guard$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.status <> 'DRAFT' THEN
            RAISE EXCEPTION 'a pool starts in DRAFT' USING ERRCODE = 'check_violation', CONSTRAINT = 'pool_lifecycle';
        END IF;
        RETURN NEW;
    END IF;
    IF NEW.status <> OLD.status AND (OLD.status, NEW.status) NOT IN (
        ('DRAFT', 'ACTIVE'), ('ACTIVE', 'PAUSED'), ('PAUSED', 'ACTIVE'), ('ACTIVE', 'ARCHIVED'), ('PAUSED', 'ARCHIVED')
    ) THEN
        RAISE EXCEPTION 'a pool may not go from % to %', OLD.status, NEW.status
            USING ERRCODE = 'check_violation', CONSTRAINT = 'pool_lifecycle';
    END IF;
    IF OLD.status <> 'DRAFT' AND to_jsonb(NEW) - 'status' <> to_jsonb(OLD) - 'status' THEN
        RAISE EXCEPTION 'the terms of a pool are fixed once it has left DRAFT'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'pool_terms_fixed';
    END IF;
    RETURN NEW;
END $guard$;
CREATE TRIGGER pool_guard BEFORE INSERT OR UPDATE ON pool FOR EACH ROW EXECUTE FUNCTION pool_guard();

ALTER TABLE code_batch
    ADD CONSTRAINT code_batch_key UNIQUE (merchant_id, idempotency_key),
    ADD CONSTRAINT code_batch_size CHECK (size BETWEEN 1 AND 5000);

-- No two codes of a merchant are the same text; a code's state agrees with its dates and its owner.
ALTER TABLE code
    ADD CONSTRAINT code_fingerprint UNIQUE (merchant_id, fingerprint),
    ADD CONSTRAINT code_state CHECK (state IN ('AVAILABLE', 'ALLOCATED', 'REDEEMED', 'EXPIRED', 'REVOKED')),
    ADD CONSTRAINT code_available CHECK (state <> 'AVAILABLE' OR (member_id IS NULL AND allocated_at IS NULL)),
    ADD CONSTRAINT code_allocated CHECK (state NOT IN ('ALLOCATED', 'REDEEMED') OR allocated_at IS NOT NULL),
    ADD CONSTRAINT code_redeemed CHECK ((state = 'REDEEMED') = (redeemed_at IS NOT NULL)),
    ADD CONSTRAINT code_matched_by CHECK (matched_by IN ('MEMBER_ID', 'CAMPAIGN_RECIPIENT', 'CLAIM_EMAIL'));
CREATE INDEX code_by_state ON code (merchant_id, pool_id, state, id);
CREATE INDEX code_by_owner ON code (merchant_id, member_id, allocated_at, id) WHERE member_id IS NOT NULL;

-- A member's n-th claim of a pool exists once, and so does each idempotency key.
ALTER TABLE claim
    ADD CONSTRAINT claim_slot UNIQUE (merchant_id, pool_id, member_id, slot),
    ADD CONSTRAINT claim_slot_counts CHECK (slot >= 1);
-- Partial, because most claims have no key and each index costs every claim some buffers.
CREATE UNIQUE INDEX claim_key ON claim (merchant_id, idempotency_key) WHERE idempotency_key IS NOT NULL;

-- A code is redeemed once, and an order's codes are redeemed in one call.
CREATE UNIQUE INDEX redemption_live ON redemption (merchant_id, code_id) WHERE reversed_at IS NULL;
CREATE UNIQUE INDEX redemption_order ON redemption (merchant_id, order_id, position) WHERE reversed_at IS NULL;
ALTER TABLE redemption ADD CONSTRAINT redemption_amounts
    CHECK (discount >= 0 AND discount <= base AND base <= order_amount);

-- Each version of a wallet has one event.
CREATE UNIQUE INDEX event_wallet_version ON event (merchant_id, member_id, wallet_version)
    WHERE wallet_version IS NOT NULL;
ALTER TABLE event ADD CONSTRAINT event_wallet CHECK ((member_id IS NULL) = (wallet_version IS NULL));
"""


class Migration(migrations.Migration):
    """Swap Tortoise's single-column keys for composite ones and add what its models can't say."""

    dependencies = [("flash", "0001_initial")]
    operations = [ops.RunSQL(KEYS), ops.RunSQL(PROMISES)]
