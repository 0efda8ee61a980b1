"""The keys, checks and triggers that hold the promises of the domain; written by hand, see README.md."""

from tortoise import migrations
from tortoise.migrations import operations as ops

# Every key starts with merchant_id, so no row can refer to another merchant's row. What holds which promise is in
# docs/promises.md.

# A unique key holds its promise for as long as the row is there and keeps its key: so some rows stay, and some columns
# stay as they were written. A statement that names none of those columns doesn't reach the trigger, and a condition
# (WHEN) is looked at without calling the function.
REFUSALS = """
CREATE FUNCTION refuse_delete() RETURNS trigger LANGUAGE plpgsql AS $guard$
BEGIN
    RAISE EXCEPTION 'rows of % are never deleted', TG_TABLE_NAME
        USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
END $guard$;
-- A draft can be discarded, with all that it has; nobody was promised anything of it. It is locked: it leaves DRAFT once
-- what is deleted of it is gone, and nobody refers to that meanwhile (claim_refers).
CREATE FUNCTION refuse_delete_after_draft() RETURNS trigger LANGUAGE plpgsql AS $guard$
BEGIN
    PERFORM FROM pool WHERE merchant_id = OLD.merchant_id AND id = OLD.pool_id AND status = 'DRAFT' FOR UPDATE;
    IF FOUND THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'rows of % are deleted with a draft only', TG_TABLE_NAME
        USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
END $guard$;
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $guard$
BEGIN
    RAISE EXCEPTION 'rows of % are never changed in this way', TG_TABLE_NAME
        USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
END $guard$;
-- A member that was merged or erased takes no change, whatever didn't see that coming. Who asked for the change is told
-- by this code (app/storage/gone.py), and asks for whoever stands for it by now.
-- What others take back may still change the wallet of a member that was erased: a transaction that says whose
-- (app/storage/gone.py) leaves nothing in it.
CREATE FUNCTION forfeits(member_id uuid) RETURNS boolean LANGUAGE sql STABLE
    RETURN position(member_id::text IN coalesce(current_setting('flash.erased', true), '')) > 0;
CREATE FUNCTION refuse_gone() RETURNS trigger LANGUAGE plpgsql AS $guard$
BEGIN
    RAISE EXCEPTION 'the member is gone'
        USING ERRCODE = 'FL001', DETAIL = to_jsonb(OLD) ->> TG_ARGV[0], TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
END $guard$;
-- What is one member's becomes another one's by merging only.
CREATE FUNCTION follow_merging() RETURNS trigger LANGUAGE plpgsql AS $guard$
BEGIN
    IF NOT EXISTS (
        SELECT FROM member
        WHERE merchant_id = NEW.merchant_id AND id = OLD.member_id AND merged_into_id = NEW.member_id
    ) THEN
        RAISE EXCEPTION 'rows of % change hands with a merging only', TG_TABLE_NAME
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
    END IF;
    RETURN NULL;
END $guard$;
"""

MERCHANTS = """
ALTER TABLE merchant
    ADD CONSTRAINT merchant_points CHECK (points_per_unit BETWEEN 0 AND 10000 AND point_value BETWEEN 0 AND 10000),
    ADD CONSTRAINT merchant_points_lifetime CHECK (points_lifetime_days BETWEEN 1 AND 3650),
    ADD CONSTRAINT merchant_points_warning CHECK (points_warning_days BETWEEN 0 AND 365),
    ADD CONSTRAINT merchant_points_pending CHECK (points_pending_days BETWEEN 0 AND 365),
    ADD CONSTRAINT merchant_erasure_memory CHECK (erasure_memory_days BETWEEN 0 AND 3650),
    ADD CONSTRAINT merchant_margin_rate CHECK (margin_rate BETWEEN 0 AND 1),
    ADD CONSTRAINT merchant_advised_percent CHECK (advised_percent_max > 0 AND advised_percent_max <= 100),
    ADD CONSTRAINT merchant_advised_amount CHECK (advised_amount_max > 0);
-- Merchants stay, and keep their ids.
CREATE TRIGGER merchant_kept BEFORE DELETE OR TRUNCATE ON merchant FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();
CREATE TRIGGER merchant_fixed BEFORE UPDATE OF merchant_id ON merchant
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A secret or a data key version exists once.
ALTER TABLE api_key
    DROP CONSTRAINT api_key_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT api_key_merchant FOREIGN KEY (merchant_id) REFERENCES merchant,
    ADD CONSTRAINT api_key_secret UNIQUE (merchant_id, secret_hash),
    ADD CONSTRAINT api_key_role CHECK (role IN ('ADMIN', 'CHECKOUT', 'SUPPORT', 'ANALYST'));
ALTER TABLE data_key
    DROP CONSTRAINT data_key_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT data_key_merchant FOREIGN KEY (merchant_id) REFERENCES merchant,
    ADD CONSTRAINT data_key_version UNIQUE (merchant_id, purpose, version),
    ADD CONSTRAINT data_key_purpose CHECK (purpose IN ('ENCRYPTION', 'LOOKUP', 'TOKEN'));
"""

MEMBERS = """
-- A person is one record, found by the store's id or by an address that it has proved. What was merely written down
-- blocks nobody.
ALTER TABLE member
    DROP CONSTRAINT member_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT member_merchant FOREIGN KEY (merchant_id) REFERENCES merchant,
    ADD CONSTRAINT member_email_whole CHECK ((email IS NULL) = (email_index IS NULL)),
    ADD CONSTRAINT member_mailbox_whole CHECK (
        (email IS NULL) = (mailbox_index IS NULL) AND (pending_email IS NULL) = (pending_mailbox_index IS NULL)
    ),
    ADD CONSTRAINT member_email_to_verify CHECK (email IS NOT NULL OR NOT email_verified),
    ADD CONSTRAINT member_pending_email_whole CHECK ((pending_email IS NULL) = (pending_email_index IS NULL)),
    -- A new address waits beside a proven one; else it takes its place.
    ADD CONSTRAINT member_pending_email_beside CHECK (
        pending_email_index IS NULL OR (email_verified AND pending_email_index <> email_index)
    ),
    ADD CONSTRAINT member_source CHECK (source IN ('STORE', 'SHOPIFY', 'RECEIPT', 'REFERRAL', 'IMPORT')),
    -- Who was merged into another one, and again with that.
    ADD CONSTRAINT member_merged FOREIGN KEY (merchant_id, merged_into_id) REFERENCES member,
    ADD CONSTRAINT member_merged_into_other CHECK (merged_into_id <> id);
-- A person's record stays, whatever becomes of the person.
CREATE TRIGGER member_kept BEFORE DELETE OR TRUNCATE ON member FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();
CREATE TRIGGER member_fixed BEFORE UPDATE OF merchant_id, id ON member
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE INDEX member_merged_into ON member (merchant_id, merged_into_id) WHERE merged_into_id IS NOT NULL;
-- Who is gone keeps what it was: its ciphertexts are encrypted anew, and it may still be erased.
CREATE TRIGGER member_gone
    BEFORE UPDATE OF external_id, email_index, email_verified, pending_email_index, email_edited, source, joined_at,
        token_generation, accepted_invite_id, last_bought_at
    ON member FOR EACH ROW
    WHEN ((OLD.merged_into_id IS NOT NULL OR OLD.erased_at IS NOT NULL) AND NEW.erased_at IS NOT DISTINCT FROM OLD.erased_at
        AND NOT forfeits(OLD.id))
    EXECUTE FUNCTION refuse_gone('id');

-- That a person was erased stays; only that it was logged outside is written later.
ALTER TABLE erasure
    DROP CONSTRAINT erasure_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT erasure_merchant FOREIGN KEY (merchant_id) REFERENCES merchant,
    ADD CONSTRAINT erasure_member FOREIGN KEY (merchant_id, member_id) REFERENCES member,
    ADD CONSTRAINT erasure_ground CHECK (ground IN ('REQUEST', 'RETENTION', 'SHOP'));
CREATE UNIQUE INDEX erasure_of_member ON erasure (merchant_id, member_id) WHERE member_id IS NOT NULL;
CREATE INDEX erasure_unlogged ON erasure (erased_at) WHERE logged_at IS NULL;
CREATE TRIGGER erasure_kept BEFORE DELETE OR TRUNCATE ON erasure FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();
CREATE TRIGGER erasure_fixed BEFORE UPDATE
    OF merchant_id, id, member_id, merged_ids, row_ids, invite_ids, ground, erased_at ON erasure FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What limits and imports know of who was erased, by an HMAC. Of a mailbox: of which pools it has claimed, whether it
-- has ordered, and whether an invite was paid for it.
CREATE TABLE erasure_memory (
    merchant_id uuid NOT NULL,
    hmac bytea NOT NULL,
    kind varchar(11) NOT NULL,
    pool_ids uuid[] NOT NULL,
    has_ordered boolean NOT NULL,
    is_rewarded boolean NOT NULL,
    erased_at timestamptz NOT NULL,
    PRIMARY KEY (merchant_id, hmac),
    CONSTRAINT erasure_memory_merchant FOREIGN KEY (merchant_id) REFERENCES merchant,
    CONSTRAINT erasure_memory_kind CHECK (
        kind = 'MAILBOX'
        OR (kind IN ('ADDRESS', 'EXTERNAL_ID') AND pool_ids = '{}' AND NOT has_ordered AND NOT is_rewarded)
    )
);

-- Each source knows a member by an id of its own; a record repeats the id of the source that it came from.
ALTER TABLE external_id
    DROP CONSTRAINT external_id_pkey,
    ADD PRIMARY KEY (merchant_id, source, external_id),
    ADD CONSTRAINT external_id_member FOREIGN KEY (merchant_id, member_id) REFERENCES member,
    -- What a member's record refers to.
    ADD CONSTRAINT external_id_repeated UNIQUE (merchant_id, source, external_id, member_id),
    ADD CONSTRAINT external_id_source CHECK (source IN ('STORE', 'SHOPIFY', 'RECEIPT', 'REFERRAL', 'IMPORT'));
CREATE INDEX external_id_of_member ON external_id (merchant_id, member_id);
ALTER TABLE member
    ADD CONSTRAINT member_external_id FOREIGN KEY (merchant_id, external_id, source, id)
        REFERENCES external_id (merchant_id, external_id, source, member_id);

CREATE UNIQUE INDEX member_email_proven ON member (merchant_id, email_index) WHERE email_verified AND merged_into_id IS NULL;
-- Who loses an address when somebody proves it.
CREATE INDEX member_email_unproven ON member (merchant_id, email_index)
    WHERE email_index IS NOT NULL AND NOT email_verified;
CREATE INDEX member_email_pending ON member (merchant_id, pending_email_index) WHERE pending_email_index IS NOT NULL;

-- A wallet begins empty and its version only grows. A balance is never negative, and what is held or pending is part
-- of it.
ALTER TABLE wallet
    DROP CONSTRAINT wallet_pkey,
    ADD PRIMARY KEY (merchant_id, member_id),
    ADD CONSTRAINT wallet_member FOREIGN KEY (merchant_id, member_id) REFERENCES member,
    ADD CONSTRAINT wallet_version CHECK (version >= 0),
    ADD CONSTRAINT wallet_points CHECK (points >= 0),
    ADD CONSTRAINT wallet_points_spendable CHECK (
        held_points >= 0 AND pending_points >= 0 AND held_points + pending_points <= points
    ),
    ADD CONSTRAINT wallet_shortfall CHECK (shortfall >= 0);
CREATE TRIGGER wallet_kept BEFORE DELETE OR TRUNCATE ON wallet FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();
CREATE TRIGGER wallet_begins_empty AFTER INSERT ON wallet FOR EACH ROW
    WHEN (NEW.version <> 0 OR NEW.points <> 0 OR NEW.shortfall <> 0) EXECUTE FUNCTION refuse_change();
CREATE TRIGGER wallet_version_grows AFTER UPDATE OF version ON wallet FOR EACH ROW
    WHEN (NEW.version <= OLD.version) EXECUTE FUNCTION refuse_change();
-- Whatever gives a member something, or takes it, changes its wallet: so nothing does once the member is gone.
CREATE TRIGGER wallet_closed BEFORE UPDATE ON wallet FOR EACH ROW
    WHEN (OLD.closed_at IS NOT NULL AND NOT forfeits(OLD.member_id)) EXECUTE FUNCTION refuse_gone('member_id');

-- An address that somebody wrote down or that codes wait for, and the member that has proved it, if there is one. Its
-- row is the lock under which those that claim by it, write it down and prove it see each other. No model: its key is
-- binary, which Tortoise can't say, and only raw statements touch it.
CREATE TABLE address (
    merchant_id uuid NOT NULL,
    email_index bytea NOT NULL,
    member_id uuid,
    PRIMARY KEY (merchant_id, email_index),
    CONSTRAINT address_member FOREIGN KEY (merchant_id, member_id) REFERENCES member
);
-- Thousands are written at once, all of one merchant, which is looked up once. Merchants stay, so it isn't locked.
CREATE FUNCTION address_refers() RETURNS trigger LANGUAGE plpgsql AS $refers$
BEGIN
    IF EXISTS (SELECT FROM (SELECT DISTINCT merchant_id FROM written) w WHERE NOT EXISTS (
        SELECT FROM merchant WHERE merchant_id = w.merchant_id
    )) THEN
        RAISE EXCEPTION 'an address names no merchant'
            USING ERRCODE = 'foreign_key_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
    END IF;
    RETURN NULL;
END $refers$;
CREATE TRIGGER address_refers AFTER INSERT ON address REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION address_refers();
CREATE TRIGGER address_fixed BEFORE UPDATE OF merchant_id ON address
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""

POOLS = """
-- The terms of a pool make sense, and each kind has exactly its own value.
ALTER TABLE pool
    DROP CONSTRAINT pool_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT pool_merchant FOREIGN KEY (merchant_id) REFERENCES merchant,
    ADD CONSTRAINT pool_fallback FOREIGN KEY (merchant_id, fallback_pool_id) REFERENCES pool,
    ADD CONSTRAINT pool_fallback_other CHECK (fallback_pool_id <> id),
    ADD CONSTRAINT pool_status CHECK (status IN ('DRAFT', 'ACTIVE', 'PAUSED', 'ARCHIVED')),
    -- A pause stops issuing, or honouring too.
    ADD CONSTRAINT pool_pause CHECK ((status = 'PAUSED') = (pause_scope IS NOT NULL)),
    ADD CONSTRAINT pool_pause_scope CHECK (pause_scope IN ('ALL', 'ISSUING')),
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
    ADD CONSTRAINT pool_stacking CHECK (stacking IN ('EXCLUSIVE', 'STACKABLE')),
    -- At least one discount's worth; what a gift is worth nobody says.
    ADD CONSTRAINT pool_maximum_total_discount CHECK (
        maximum_total_discount IS NULL
        OR (kind <> 'GIFT' AND maximum_total_discount >= coalesce(amount_off, maximum_discount, 1))
    ),
    ADD CONSTRAINT pool_audience CHECK (audience <@ '{NEW,ACTIVE,LAPSED,HIGH_SPEND,ADVOCATES}'),
    -- Twelve random characters: 50 bits besides the two that masks show.
    ADD CONSTRAINT pool_code_pattern CHECK (
        code_pattern ~ '^[0-9A-Za-z#-]{4,64}$' AND length(code_pattern) - length(replace(code_pattern, '#', '')) >= 12
    );

-- What is left of a pool's budget, in slices, so that redemptions don't queue behind one row: whoever spends takes a slice
-- that nobody has. The sum is the budget less what stands and what is held.
ALTER TABLE pool_budget
    DROP CONSTRAINT pool_budget_pkey,
    ADD PRIMARY KEY (merchant_id, pool_id, id),
    ADD CONSTRAINT pool_budget_pool FOREIGN KEY (merchant_id, pool_id) REFERENCES pool ON DELETE CASCADE,
    ADD CONSTRAINT pool_budget_remaining CHECK (remaining >= 0);

-- A budget begins whole, in slices of eight discounts each. Later it only grows, or goes: see pool_guard.
CREATE FUNCTION pool_budget_set() RETURNS trigger LANGUAGE plpgsql AS $set$
DECLARE
    more bigint := NEW.maximum_total_discount;
    slices bigint;
BEGIN
    IF NEW.maximum_total_discount IS NULL OR NEW.status = 'DRAFT' THEN
        DELETE FROM pool_budget WHERE merchant_id = NEW.merchant_id AND pool_id = NEW.id;
    ELSE
        more := more - OLD.maximum_total_discount;
    END IF;
    slices := least(64, greatest(1, more / (8 * coalesce(NEW.amount_off, NEW.maximum_discount, 1000))));
    -- In the order of their key, so that a sum of them reads each block once.
    INSERT INTO pool_budget (merchant_id, pool_id, id, remaining)
    SELECT NEW.merchant_id, NEW.id, gen_random_uuid(), more / slices + (each <= more % slices)::int
    FROM generate_series(1, slices) AS each WHERE more > 0 ORDER BY 3;
    RETURN NULL;
END $set$;
CREATE TRIGGER pool_budget_begun AFTER INSERT ON pool FOR EACH ROW
    WHEN (NEW.maximum_total_discount IS NOT NULL) EXECUTE FUNCTION pool_budget_set();
CREATE TRIGGER pool_budget_set AFTER UPDATE ON pool FOR EACH ROW
    WHEN (NEW.maximum_total_discount IS DISTINCT FROM OLD.maximum_total_discount) EXECUTE FUNCTION pool_budget_set();

-- Takes an amount from what is left of a pool's budget, or gives it back (below 0). Never waits: a slice that somebody
-- has is passed over. Only where no free one has enough are all free ones gathered; if they haven't either, the budget
-- is spent, or too much of it is being spent at this moment.
CREATE FUNCTION spend_budget(of_merchant uuid, of_pool uuid, amount bigint) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off AS $spend$
DECLARE
    slice record;
    wanted bigint := amount;
    start uuid := gen_random_uuid();
    chosen uuid;
BEGIN
    IF amount = 0 THEN
        RETURN;
    END IF;
    -- From a random one on, and around.
    SELECT id INTO chosen FROM pool_budget
    WHERE merchant_id = of_merchant AND pool_id = of_pool AND id >= start AND remaining >= amount
    ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF chosen IS NULL THEN
        -- The pool's row says whether it has a budget. Slices don't: what comes back while the budget goes leaves one.
        PERFORM FROM pool WHERE merchant_id = of_merchant AND id = of_pool AND maximum_total_discount IS NOT NULL;
        IF NOT FOUND THEN
            RETURN;
        END IF;
        SELECT id INTO chosen FROM pool_budget
        WHERE merchant_id = of_merchant AND pool_id = of_pool AND id < start AND remaining >= amount
        ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED;
    END IF;
    IF chosen IS NOT NULL THEN
        UPDATE pool_budget SET remaining = remaining - amount
        WHERE merchant_id = of_merchant AND pool_id = of_pool AND id = chosen;
        RETURN;
    END IF;
    IF amount < 0 THEN
        INSERT INTO pool_budget (merchant_id, pool_id, id, remaining) VALUES (of_merchant, of_pool, start, -amount);
        RETURN;
    END IF;
    FOR slice IN
        SELECT id, remaining FROM pool_budget
        WHERE merchant_id = of_merchant AND pool_id = of_pool AND remaining > 0 ORDER BY id FOR UPDATE SKIP LOCKED
    LOOP
        UPDATE pool_budget SET remaining = remaining - least(slice.remaining, wanted)
        WHERE merchant_id = of_merchant AND pool_id = of_pool AND id = slice.id;
        wanted := wanted - least(slice.remaining, wanted);
        IF wanted = 0 THEN
            RETURN;
        END IF;
    END LOOP;
    RAISE EXCEPTION 'the budget of a pool is spent' USING ERRCODE = 'check_violation', CONSTRAINT = 'pool_budget_spent';
END $spend$;

CREATE INDEX pool_listed ON pool (merchant_id, id) WHERE listed;

-- Each version of a pool's terms is a row, which redemptions name; the pool itself has the current ones.
ALTER TABLE pool_terms
    DROP CONSTRAINT pool_terms_pkey,
    ADD PRIMARY KEY (merchant_id, pool_id, version),
    ADD CONSTRAINT pool_terms_pool FOREIGN KEY (merchant_id, pool_id) REFERENCES pool;
CREATE TRIGGER pool_terms_kept BEFORE DELETE ON pool_terms
    FOR EACH ROW EXECUTE FUNCTION refuse_delete_after_draft();
CREATE TRIGGER pool_terms_fixed BEFORE UPDATE ON pool_terms FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A pool starts in DRAFT and moves only along its lifecycle. Once it has left DRAFT its terms only improve for who holds
-- a code, until it is closed for good. Other terms are its next version.
CREATE FUNCTION pool_guard() RETURNS trigger LANGUAGE plpgsql AS $guard$
DECLARE
    may_change CONSTANT text[] := ARRAY[
        'status', 'pause_scope', 'terms_version', 'name', 'recycle_expired', 'fallback_pool_id', 'percent_off', 'amount_off',
        'claims_per_member', 'maximum_discount', 'minimum_spend', 'code_lifetime_days', 'starts_at', 'ends_at', 'audience',
        'first_order_only', 'one_claim_per_mailbox', 'listed', 'maximum_total_discount'
    ];
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.status <> 'DRAFT' THEN
            RAISE EXCEPTION 'a pool starts in DRAFT' USING ERRCODE = 'check_violation', CONSTRAINT = 'pool_lifecycle';
        END IF;
        NEW.terms_version := 1;
        RETURN NEW;
    END IF;
    NEW.terms_version := OLD.terms_version + ((
        OLD.percent_off, OLD.amount_off, OLD.gift_sku, OLD.minimum_spend, OLD.maximum_discount, OLD.starts_at,
        OLD.ends_at, OLD.code_lifetime_days, OLD.claims_per_member, OLD.stacking, OLD.transferable
    ) IS DISTINCT FROM (
        NEW.percent_off, NEW.amount_off, NEW.gift_sku, NEW.minimum_spend, NEW.maximum_discount, NEW.starts_at,
        NEW.ends_at, NEW.code_lifetime_days, NEW.claims_per_member, NEW.stacking, NEW.transferable
    ))::int;
    IF NEW.status <> OLD.status AND (OLD.status, NEW.status) NOT IN (
        ('DRAFT', 'ACTIVE'), ('ACTIVE', 'PAUSED'), ('PAUSED', 'ACTIVE'), ('ACTIVE', 'ARCHIVED'), ('PAUSED', 'ARCHIVED')
    ) THEN
        RAISE EXCEPTION 'a pool may not go from % to %', OLD.status, NEW.status
            USING ERRCODE = 'check_violation', CONSTRAINT = 'pool_lifecycle';
    END IF;
    IF OLD.status <> 'DRAFT' AND (
        (OLD.status = 'ARCHIVED' AND (
            NEW.terms_version <> OLD.terms_version
            OR (NEW.audience, NEW.first_order_only, NEW.one_claim_per_mailbox)
                <> (OLD.audience, OLD.first_order_only, OLD.one_claim_per_mailbox)
            OR NEW.maximum_total_discount IS DISTINCT FROM OLD.maximum_total_discount
        ))
        OR NEW.maximum_total_discount < coalesce(OLD.maximum_total_discount, NEW.maximum_total_discount + 1)
        -- Nobody is excluded who wasn't; no segments are everybody.
        OR (NEW.audience <> '{}' AND (OLD.audience = '{}' OR NOT NEW.audience @> OLD.audience))
        OR NEW.first_order_only > OLD.first_order_only
        OR NEW.one_claim_per_mailbox > OLD.one_claim_per_mailbox
        OR NEW.percent_off < OLD.percent_off
        OR NEW.amount_off < OLD.amount_off
        OR NEW.claims_per_member < OLD.claims_per_member
        -- No limit is better than any.
        OR NEW.maximum_discount < coalesce(OLD.maximum_discount, NEW.maximum_discount + 1)
        OR NEW.minimum_spend > coalesce(OLD.minimum_spend, 0)
        OR NEW.code_lifetime_days < coalesce(OLD.code_lifetime_days, NEW.code_lifetime_days + 1)
        OR NEW.starts_at > coalesce(OLD.starts_at, '-infinity')
        OR NEW.ends_at < coalesce(OLD.ends_at, 'infinity')
        OR to_jsonb(NEW) - may_change <> to_jsonb(OLD) - may_change
    ) THEN
        RAISE EXCEPTION 'the terms of a pool only improve once it has left DRAFT'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'pool_terms_improve';
    END IF;
    RETURN NEW;
END $guard$;
CREATE TRIGGER pool_guard BEFORE INSERT OR UPDATE ON pool FOR EACH ROW EXECUTE FUNCTION pool_guard();

CREATE FUNCTION pool_terms_written() RETURNS trigger LANGUAGE plpgsql AS $written$
BEGIN
    INSERT INTO pool_terms (
        merchant_id, pool_id, version, percent_off, amount_off, gift_sku, minimum_spend, maximum_discount, starts_at,
        ends_at, code_lifetime_days, claims_per_member, stacking, transferable, written_at
    )
    VALUES (
        NEW.merchant_id, NEW.id, NEW.terms_version, NEW.percent_off, NEW.amount_off, NEW.gift_sku, NEW.minimum_spend,
        NEW.maximum_discount, NEW.starts_at, NEW.ends_at, NEW.code_lifetime_days, NEW.claims_per_member, NEW.stacking,
        NEW.transferable, now()
    );
    RETURN NULL;
END $written$;
CREATE TRIGGER pool_terms_begun AFTER INSERT ON pool FOR EACH ROW EXECUTE FUNCTION pool_terms_written();
CREATE TRIGGER pool_terms_written AFTER UPDATE ON pool FOR EACH ROW
    WHEN (NEW.terms_version <> OLD.terms_version) EXECUTE FUNCTION pool_terms_written();
CREATE TRIGGER pool_kept BEFORE DELETE ON pool FOR EACH ROW
    WHEN (OLD.status <> 'DRAFT') EXECUTE FUNCTION refuse_delete();

-- Waits for whoever found a pool as it was before it was changed: claims, redemptions and holds have its row locked (FOR
-- KEY SHARE) from when they look at it until they are done. Once nobody has it, none of them is left. Of a pool that is
-- never left alone a lock would wait for those that come, too, who find it as it is: there it waits for the transactions
-- that have a pool at this moment.
CREATE FUNCTION wait_for_pool(of_merchant uuid, of_pool uuid) RETURNS void LANGUAGE plpgsql AS $wait$
DECLARE
    here CONSTANT oid := (SELECT oid FROM pg_database WHERE datname = current_database());
    others CONSTANT text[] := ARRAY(
        SELECT virtualtransaction FROM pg_locks
        WHERE database = here AND relation = 'pool'::regclass AND mode = 'RowShareLock' AND pid <> pg_backend_pid()
    );
BEGIN
    LOOP
        PERFORM FROM pool WHERE merchant_id = of_merchant AND id = of_pool FOR UPDATE SKIP LOCKED;
        EXIT WHEN FOUND OR NOT EXISTS (
            SELECT FROM pg_locks
            WHERE database = here AND relation = 'pool'::regclass AND virtualtransaction = ANY(others)
        );
        PERFORM pg_sleep(0.005);
    END LOOP;
END $wait$;
"""

CODES = """
ALTER TABLE code_batch
    DROP CONSTRAINT code_batch_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT code_batch_pool FOREIGN KEY (merchant_id, pool_id) REFERENCES pool,
    ADD CONSTRAINT code_batch_key UNIQUE (merchant_id, idempotency_key),
    ADD CONSTRAINT code_batch_kind CHECK (kind IN ('GENERATED', 'IMPORTED', 'ISSUED')),
    ADD CONSTRAINT code_batch_size CHECK (size BETWEEN 1 AND 5000);
CREATE UNIQUE INDEX code_batch_of_pool ON code_batch (merchant_id, pool_id, id);
CREATE TRIGGER code_batch_kept BEFORE DELETE ON code_batch
    FOR EACH ROW EXECUTE FUNCTION refuse_delete_after_draft();
CREATE TRIGGER code_batch_fixed BEFORE UPDATE ON code_batch FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- No two codes of a merchant are the same text; a code's state agrees with its dates and its owner.
ALTER TABLE code
    DROP CONSTRAINT code_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT code_pool FOREIGN KEY (merchant_id, pool_id) REFERENCES pool,
    -- With the pool, by which a batch that goes finds its codes.
    ADD CONSTRAINT code_batch
        FOREIGN KEY (merchant_id, batch_id, pool_id) REFERENCES code_batch (merchant_id, id, pool_id),
    ADD CONSTRAINT code_member FOREIGN KEY (merchant_id, member_id) REFERENCES member,
    -- What took the place of one that died.
    ADD CONSTRAINT code_reissued_as FOREIGN KEY (merchant_id, reissued_as) REFERENCES code,
    ADD CONSTRAINT code_reissued CHECK (reissued_as IS NULL OR state IN ('EXPIRED', 'REVOKED')),
    ADD CONSTRAINT code_fingerprint UNIQUE (merchant_id, fingerprint),
    -- What a held reward will bring is SET_ASIDE: still nobody's, and back in stock when the hold ends.
    ADD CONSTRAINT code_state CHECK (
        state IN ('AVAILABLE', 'SET_ASIDE', 'ALLOCATED', 'REDEEMED', 'EXPIRED', 'REVOKED')
    ),
    ADD CONSTRAINT code_available CHECK (
        state NOT IN ('AVAILABLE', 'SET_ASIDE') OR (member_id IS NULL AND allocated_at IS NULL)
    ),
    ADD CONSTRAINT code_available_to_all CHECK (state NOT IN ('AVAILABLE', 'SET_ASIDE') OR email_index IS NULL),
    ADD CONSTRAINT code_allocated CHECK (state NOT IN ('ALLOCATED', 'REDEEMED') OR allocated_at IS NOT NULL),
    ADD CONSTRAINT code_owned CHECK (
        state NOT IN ('ALLOCATED', 'REDEEMED') OR member_id IS NOT NULL OR email_index IS NOT NULL OR bearer
    ),
    -- A bearer code is nobody's, and out of stock for good.
    ADD CONSTRAINT code_bearer CHECK (
        NOT bearer OR (state NOT IN ('AVAILABLE', 'SET_ASIDE') AND member_id IS NULL AND email_index IS NULL)
    ),
    -- A code is a member's, or it waits for an address; what a member has answers to no address any more.
    ADD CONSTRAINT code_one_owner CHECK (member_id IS NULL OR email_index IS NULL),
    -- What doesn't end with its pool has an end of its own.
    ADD CONSTRAINT code_outlives_pool CHECK (NOT outlives_pool OR expires_at IS NOT NULL),
    ADD CONSTRAINT code_redeemed CHECK ((state = 'REDEEMED') = (redeemed_at IS NOT NULL)),
    ADD CONSTRAINT code_matched_by CHECK (matched_by IN ('MEMBER_ID', 'CAMPAIGN_RECIPIENT', 'CLAIM_EMAIL'));
CREATE INDEX code_by_state ON code (merchant_id, pool_id, state, id);
CREATE INDEX code_by_owner ON code (merchant_id, member_id, allocated_at, id) INCLUDE (state, pool_id, expires_at, outlives_pool)
    WHERE member_id IS NOT NULL;
CREATE INDEX code_outliving ON code (merchant_id, pool_id, id) WHERE outlives_pool;
-- What lives again with a later end of its pool, what doesn't, and what had an end of its own that has passed since.
CREATE INDEX code_expired ON code (merchant_id, pool_id, died_with_pool, id) WHERE state = 'EXPIRED';
CREATE INDEX code_lapsed ON code (merchant_id, pool_id, expires_at, id)
    WHERE state = 'EXPIRED' AND died_with_pool AND expires_at IS NOT NULL;
-- What the expiry job looks for, and what waits for an address to become a member's.
CREATE INDEX code_by_expiry ON code (merchant_id, expires_at)
    WHERE state IN ('AVAILABLE', 'ALLOCATED') AND expires_at IS NOT NULL;
CREATE INDEX code_ending ON code (expires_at) WHERE state IN ('AVAILABLE', 'ALLOCATED') AND expires_at IS NOT NULL;
CREATE INDEX pool_ending ON pool (ends_at) WHERE ends_at IS NOT NULL;
-- Codes that aren't of our own form, as they are read when they are typed with an O for a 0.
CREATE INDEX code_folded ON code (merchant_id, folded) WHERE folded IS NOT NULL;
CREATE INDEX code_waiting ON code (merchant_id, email_index) WHERE email_index IS NOT NULL;
CREATE INDEX code_reissued_from ON code (merchant_id, reissued_as) WHERE reissued_as IS NOT NULL;
-- What the portfolio counts, without a look at the rows themselves.
CREATE INDEX code_taken_back ON code (merchant_id, pool_id) WHERE state = 'REVOKED' AND allocated_at IS NOT NULL;
CREATE INDEX code_in_no_hands ON code (merchant_id, pool_id)
    WHERE (bearer AND state <> 'REDEEMED') OR (state = 'EXPIRED' AND allocated_at IS NULL);
CREATE TRIGGER code_kept BEFORE DELETE ON code FOR EACH ROW EXECUTE FUNCTION refuse_delete_after_draft();
CREATE TRIGGER code_fixed BEFORE UPDATE OF merchant_id, id, pool_id, batch_id, fingerprint, folded, suffix ON code
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What somebody had is never given to somebody else.
CREATE TRIGGER code_issued_once AFTER UPDATE OF state ON code FOR EACH ROW
    WHEN (NEW.state IN ('AVAILABLE', 'SET_ASIDE') AND OLD.state NOT IN ('AVAILABLE', 'SET_ASIDE'))
    EXECUTE FUNCTION refuse_change();

ALTER TABLE code_length
    DROP CONSTRAINT code_length_pkey,
    ADD PRIMARY KEY (merchant_id, length),
    ADD CONSTRAINT code_length_merchant FOREIGN KEY (merchant_id) REFERENCES merchant,
    ADD CONSTRAINT code_length_range CHECK (length BETWEEN 4 AND 64);

-- What is printed of a pool, batch by batch; a code is in one list.
ALTER TABLE bearer_code
    DROP CONSTRAINT bearer_code_pkey,
    ADD PRIMARY KEY (merchant_id, batch_id, code_id),
    ADD CONSTRAINT bearer_code_batch FOREIGN KEY (merchant_id, batch_id) REFERENCES code_batch,
    ADD CONSTRAINT bearer_code_code FOREIGN KEY (merchant_id, code_id) REFERENCES code,
    ADD CONSTRAINT bearer_code_pool FOREIGN KEY (merchant_id, pool_id) REFERENCES pool,
    ADD CONSTRAINT bearer_code_once UNIQUE (merchant_id, code_id);
CREATE TRIGGER bearer_code_kept BEFORE DELETE ON bearer_code
    FOR EACH ROW EXECUTE FUNCTION refuse_delete_after_draft();
CREATE TRIGGER bearer_code_fixed BEFORE UPDATE ON bearer_code FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

ALTER TABLE code_revival
    DROP CONSTRAINT code_revival_pkey,
    ADD PRIMARY KEY (merchant_id, pool_id),
    ADD CONSTRAINT code_revival_pool FOREIGN KEY (merchant_id, pool_id) REFERENCES pool;

-- A claimant's n-th claim of a pool exists once, whether the claimant is a member or an address, and so does each
-- idempotency key. A code can have two: of the pool that was asked, and of the pool that served it. The code comes first
-- in the key, because a code that goes with its draft looks for its claims.
ALTER TABLE claim
    DROP CONSTRAINT claim_pkey,
    ADD PRIMARY KEY (merchant_id, code_id, pool_id),
    ADD CONSTRAINT claim_slot UNIQUE (merchant_id, pool_id, member_id, slot),
    ADD CONSTRAINT claim_slot_counts CHECK (slot >= 1),
    ADD CONSTRAINT claim_claimant CHECK (num_nonnulls(member_id, email_index) = 1);
CREATE UNIQUE INDEX claim_email_slot ON claim (merchant_id, pool_id, email_index, slot) WHERE email_index IS NOT NULL;
-- One person of a mailbox claims of a pool: its first claim has the mailbox.
CREATE UNIQUE INDEX claim_mailbox ON claim (merchant_id, pool_id, mailbox_index) WHERE mailbox_index IS NOT NULL;
-- Partial, because most claims have no key and each index costs every claim some buffers.
CREATE UNIQUE INDEX claim_key ON claim (merchant_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
-- Thousands are written at once: they are looked at together, where three foreign keys would look up and lock a pool, a
-- code and a member for each. What they name stays, so it isn't locked: members do, and so do pools and codes that aren't
-- a draft's (refuse_delete_after_draft). Of a draft, claims name its own codes; it is locked, and whoever deletes a code
-- of it, who waits for that, finds the claim (code_unclaimed).
CREATE FUNCTION claim_refers() RETURNS trigger LANGUAGE plpgsql AS $refers$
BEGIN
    IF NOT EXISTS (
        SELECT FROM (
            SELECT merchant_id, array_agg(DISTINCT code_id) AS codes, array_agg(DISTINCT pool_id) AS pools,
                array_agg(DISTINCT member_id) FILTER (WHERE member_id IS NOT NULL) AS members
            FROM written GROUP BY merchant_id
        ) w WHERE cardinality(w.codes) > (
            SELECT coalesce(sum(found.codes), 0) FROM (
                SELECT pool_id, count(*) AS codes FROM code
                WHERE merchant_id = w.merchant_id AND id = ANY(w.codes) GROUP BY pool_id OFFSET 0
            ) found WHERE EXISTS (
                SELECT FROM pool p WHERE p.merchant_id = w.merchant_id AND p.id = found.pool_id AND p.status <> 'DRAFT'
            )
        ) OR cardinality(w.pools) > (
            SELECT count(*) FROM pool WHERE merchant_id = w.merchant_id AND id = ANY(w.pools) AND status <> 'DRAFT'
        ) OR cardinality(w.members) > (
            SELECT count(*) FROM member WHERE merchant_id = w.merchant_id AND id = ANY(w.members)
        )
    ) THEN
        RETURN NULL;
    END IF;
    -- One of a draft, or one that names what isn't there.
    PERFORM FROM pool p WHERE p.status = 'DRAFT' AND (p.merchant_id, p.id) IN (
        SELECT c.merchant_id, c.pool_id FROM written k CROSS JOIN LATERAL (
            SELECT merchant_id, pool_id FROM code WHERE merchant_id = k.merchant_id AND id = k.code_id OFFSET 0
        ) c
    ) ORDER BY p.id FOR KEY SHARE;
    IF EXISTS (
        SELECT FROM written k
        LEFT JOIN LATERAL (
            SELECT id, pool_id FROM code WHERE merchant_id = k.merchant_id AND id = k.code_id OFFSET 0
        ) c ON true
        LEFT JOIN LATERAL (
            SELECT id, status FROM pool WHERE merchant_id = k.merchant_id AND id = k.pool_id OFFSET 0
        ) p ON true
        LEFT JOIN LATERAL (
            SELECT id FROM member WHERE merchant_id = k.merchant_id AND id = k.member_id OFFSET 0
        ) m ON true
        WHERE c.id IS NULL OR p.id IS NULL OR (p.status = 'DRAFT' AND p.id <> c.pool_id)
            OR m.id IS DISTINCT FROM k.member_id
    ) THEN
        RAISE EXCEPTION 'a claim names no pool, no code or no member that stays'
            USING ERRCODE = 'foreign_key_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
    END IF;
    RETURN NULL;
END $refers$;
CREATE TRIGGER claim_refers AFTER INSERT ON claim REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION claim_refers();
CREATE TRIGGER claim_still_refers AFTER UPDATE ON claim REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION claim_refers();
CREATE FUNCTION refuse_delete_of_claimed() RETURNS trigger LANGUAGE plpgsql AS $guard$
BEGIN
    IF EXISTS (SELECT FROM gone WHERE EXISTS (
        SELECT FROM claim WHERE merchant_id = gone.merchant_id AND code_id = gone.id OFFSET 0
    )) THEN
        RAISE EXCEPTION 'a code that is claimed stays'
            USING ERRCODE = 'foreign_key_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
    END IF;
    RETURN NULL;
END $guard$;
CREATE TRIGGER code_unclaimed AFTER DELETE ON code REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete_of_claimed();

-- Appended without a look-up: whoever changes a pool's stock has read the pool.
ALTER TABLE stock_change DROP CONSTRAINT stock_change_pkey, ADD PRIMARY KEY (merchant_id, pool_id, id);
-- What changed since it was folded last: all that the jobs on stock look at.
CREATE INDEX stock_change_unfolded ON stock_change (merchant_id, pool_id) WHERE NOT is_folded;
ALTER TABLE stock_alert
    DROP CONSTRAINT stock_alert_pkey,
    ADD PRIMARY KEY (merchant_id, pool_id, level),
    ADD CONSTRAINT stock_alert_pool FOREIGN KEY (merchant_id, pool_id) REFERENCES pool,
    ADD CONSTRAINT stock_alert_level CHECK (level IN (50, 25, 10, 0));
"""

CAMPAIGNS = """
ALTER TABLE campaign
    DROP CONSTRAINT campaign_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT campaign_pool FOREIGN KEY (merchant_id, pool_id) REFERENCES pool,
    ADD CONSTRAINT campaign_key UNIQUE (merchant_id, idempotency_key),
    ADD CONSTRAINT campaign_segment CHECK (segment IN ('NEW', 'ACTIVE', 'LAPSED', 'HIGH_SPEND', 'ADVOCATES')),
    ADD CONSTRAINT campaign_counts CHECK (0 <= allocated_count AND allocated_count <= recipient_count);
CREATE TRIGGER campaign_kept BEFORE DELETE OR TRUNCATE ON campaign FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();
CREATE TRIGGER campaign_fixed BEFORE UPDATE OF merchant_id, id, pool_id ON campaign
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

ALTER TABLE delivery
    DROP CONSTRAINT delivery_pkey,
    -- In this order: it is what re-encryption pages by, too.
    ADD PRIMARY KEY (merchant_id, code_id, campaign_id),
    -- What mailers page by.
    ADD CONSTRAINT delivery_position UNIQUE (merchant_id, campaign_id, position);
-- Thousands are written at once: they are looked at together, where two foreign keys would look up and lock the campaign
-- and a code for each. What they name stays: campaigns do, and so do codes of a pool that isn't a draft any more.
CREATE FUNCTION delivery_refers() RETURNS trigger LANGUAGE plpgsql AS $refers$
BEGIN
    IF EXISTS (
        SELECT FROM (SELECT DISTINCT merchant_id, campaign_id FROM written) d LEFT JOIN LATERAL (
            SELECT id FROM campaign WHERE merchant_id = d.merchant_id AND id = d.campaign_id OFFSET 0
        ) k ON true WHERE k.id IS NULL
    ) OR EXISTS (
        SELECT FROM (
            SELECT merchant_id, array_agg(code_id) AS ids, count(DISTINCT code_id) AS codes FROM written GROUP BY 1
        ) d WHERE d.codes > (
            SELECT coalesce(sum(found.codes), 0) FROM (
                SELECT pool_id, count(*) AS codes FROM code
                WHERE merchant_id = d.merchant_id AND id = ANY(d.ids) GROUP BY pool_id OFFSET 0
            ) found WHERE EXISTS (
                SELECT FROM pool p WHERE p.merchant_id = d.merchant_id AND p.id = found.pool_id AND p.status <> 'DRAFT'
            )
        )
    ) THEN
        RAISE EXCEPTION 'a delivery names no campaign, or no code that stays'
            USING ERRCODE = 'foreign_key_violation', CONSTRAINT = TG_NAME;
    END IF;
    RETURN NULL;
END $refers$;
CREATE TRIGGER delivery_refers AFTER INSERT ON delivery REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION delivery_refers();
CREATE TRIGGER delivery_still_refers AFTER UPDATE ON delivery REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION delivery_refers();
CREATE TRIGGER delivery_kept BEFORE DELETE OR TRUNCATE ON delivery FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();
"""

JOBS = """
-- A job goes from QUEUED over RUNNING and WAITING to its end, and stays there; what it counts only grows.
ALTER TABLE bulk_job
    DROP CONSTRAINT bulk_job_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT bulk_job_merchant FOREIGN KEY (merchant_id) REFERENCES merchant,
    ADD CONSTRAINT bulk_job_pool FOREIGN KEY (merchant_id, pool_id) REFERENCES pool,
    ADD CONSTRAINT bulk_job_campaign FOREIGN KEY (merchant_id, campaign_id) REFERENCES campaign,
    ADD CONSTRAINT bulk_job_key UNIQUE (merchant_id, idempotency_key),
    ADD CONSTRAINT bulk_job_kind CHECK (CASE kind
        WHEN 'FILL' THEN num_nulls(wanted, campaign_id) = 1 AND wanted > 0
        WHEN 'REVOKE' THEN reason IS NOT NULL
        ELSE kind = 'CAMPAIGN' AND campaign_id IS NOT NULL END),
    ADD CONSTRAINT bulk_job_status CHECK (
        status IN ('QUEUED', 'RUNNING', 'WAITING', 'DONE', 'FAILED', 'CANCELLED')
    ),
    ADD CONSTRAINT bulk_job_state CHECK (state IN ('AVAILABLE', 'ALLOCATED')),
    ADD CONSTRAINT bulk_job_ended CHECK ((status IN ('DONE', 'FAILED', 'CANCELLED')) = (finished_at IS NOT NULL)),
    ADD CONSTRAINT bulk_job_counts CHECK (
        least(done, failed, skipped_erased, skipped_mailbox, skipped_has_all) >= 0
        AND done + failed + skipped_erased + skipped_mailbox + skipped_has_all <= total
    ),
    ADD CONSTRAINT bulk_job_whole CHECK (
        status <> 'DONE' OR total = done + failed + skipped_erased + skipped_mailbox + skipped_has_all
    ),
    ADD CONSTRAINT bulk_job_problem CHECK ((status IN ('WAITING', 'FAILED')) = (problem IS NOT NULL));
CREATE UNIQUE INDEX bulk_job_of_campaign ON bulk_job (merchant_id, campaign_id) WHERE campaign_id IS NOT NULL;
CREATE INDEX bulk_job_of_pool ON bulk_job (merchant_id, pool_id);
CREATE INDEX bulk_job_by_status ON bulk_job (merchant_id, status, id);
-- When a merchant had its last turn, and what workers look for, whatever the merchant.
CREATE INDEX bulk_job_turn ON bulk_job (merchant_id, turn_at);
CREATE INDEX bulk_job_open ON bulk_job (requested_at) WHERE status IN ('QUEUED', 'RUNNING', 'WAITING');
CREATE TRIGGER bulk_job_kept BEFORE DELETE OR TRUNCATE ON bulk_job
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();
CREATE TRIGGER bulk_job_fixed
    BEFORE UPDATE OF merchant_id, id, kind, wanted, state, recycle, idempotency_key, request_hash, requested_at
    ON bulk_job FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER bulk_job_guard AFTER UPDATE OF status, total, done, failed ON bulk_job FOR EACH ROW WHEN (
    OLD.finished_at IS NOT NULL OR (NEW.status = 'QUEUED' AND OLD.status <> 'QUEUED')
    OR NEW.done < OLD.done OR NEW.failed < OLD.failed
) EXECUTE FUNCTION refuse_change();

ALTER TABLE bulk_job_page
    DROP CONSTRAINT bulk_job_page_pkey,
    ADD PRIMARY KEY (merchant_id, job_id, number),
    ADD CONSTRAINT bulk_job_page_job FOREIGN KEY (merchant_id, job_id) REFERENCES bulk_job;
"""

REDEMPTIONS = """
-- An order is known by its channel's own id: one row, which is the guard of its redemptions.
ALTER TABLE sales_order
    DROP CONSTRAINT sales_order_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT sales_order_merchant FOREIGN KEY (merchant_id) REFERENCES merchant,
    ADD CONSTRAINT sales_order_key UNIQUE (merchant_id, order_id, source),
    ADD CONSTRAINT sales_order_source CHECK (source IN ('STORE', 'SHOPIFY', 'RECEIPT', 'REFERRAL', 'IMPORT')),
    ADD CONSTRAINT sales_order_presenter FOREIGN KEY (merchant_id, presenter_id) REFERENCES member,
    -- A guest is known by its mailbox.
    ADD CONSTRAINT sales_order_person CHECK (num_nonnulls(presenter_id, mailbox_index) <= 1),
    ADD CONSTRAINT sales_order_amount CHECK (order_amount >= 0),
    ADD CONSTRAINT sales_order_cancelled CHECK (
        num_nulls(cancelled_at, money_returned, points_returned, points_expired, shortfall) IN (0, 5)
    ),
    ADD CONSTRAINT sales_order_version CHECK (version > 0),
    ADD CONSTRAINT sales_order_payer FOREIGN KEY (merchant_id, payer_id) REFERENCES member,
    ADD CONSTRAINT sales_order_paid CHECK (
        paid_points >= 0 AND paid_value >= 0 AND (paid_value = 0 OR paid_points > 0)
        AND num_nulls(payer_id, point_value, nullif(payments, 0)) IN (0, 3) AND (payments > 0 OR paid_points = 0)
    );
CREATE INDEX sales_order_of_payer ON sales_order (merchant_id, payer_id) WHERE payer_id IS NOT NULL;
-- Whose other orders are looked for.
CREATE INDEX sales_order_of_presenter ON sales_order (merchant_id, presenter_id) WHERE presenter_id IS NOT NULL;
CREATE INDEX sales_order_of_mailbox ON sales_order (merchant_id, mailbox_index) WHERE mailbox_index IS NOT NULL;
CREATE TRIGGER sales_order_kept BEFORE DELETE OR TRUNCATE ON sales_order
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();
CREATE TRIGGER sales_order_fixed BEFORE UPDATE OF merchant_id, id, source, order_id, currency ON sales_order
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
-- An order is cancelled once, and its version grows with each change of it.
CREATE TRIGGER sales_order_guard AFTER UPDATE OF order_amount, version, payer_id, paid_points, paid_value, point_value,
        payments, cancelled_at, money_returned, points_returned, points_expired, shortfall, presenter_id
    ON sales_order FOR EACH ROW
    WHEN (OLD.cancelled_at IS NOT NULL OR NEW.version <= OLD.version) EXECUTE FUNCTION refuse_change();

-- An order that begins and a purchase that is recorded for it meet at the order's name, because neither has a row that
-- could be locked. An order begins with its name locked, so what is recorded before has been committed by then.
CREATE FUNCTION lock_order_name(of_merchant uuid, of_source text, of_order text) RETURNS void
LANGUAGE sql AS $lock$
    SELECT pg_advisory_xact_lock(hashtextextended(of_merchant || ' ' || of_source || ' ' || of_order, 0))
$lock$;
-- For whoever found no order of this name. It waits for one that begins, and looks again: unlike the statement that
-- calls it, it sees what was committed since that began.
CREATE FUNCTION lock_unknown_order(of_merchant uuid, of_source text, of_order text) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off AS $lock$
BEGIN
    PERFORM lock_order_name(of_merchant, of_source, of_order);
    PERFORM FROM sales_order WHERE merchant_id = of_merchant AND order_id = of_order AND source = of_source;
    IF FOUND THEN
        RAISE EXCEPTION 'an order began after it was looked for' USING ERRCODE = 'serialization_failure';
    END IF;
END $lock$;

-- By these rows two first orders of one person meet: each takes them at the version that it has seen. A person is a
-- member's id or a mailbox. No model, as for an address.
CREATE TABLE first_order (
    merchant_id uuid NOT NULL,
    person bytea NOT NULL,
    version integer NOT NULL,
    PRIMARY KEY (merchant_id, person),
    CONSTRAINT first_order_merchant FOREIGN KEY (merchant_id) REFERENCES merchant
);

ALTER TABLE redemption
    DROP CONSTRAINT redemption_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT redemption_terms FOREIGN KEY (merchant_id, pool_id, terms_version) REFERENCES pool_terms,
    ADD CONSTRAINT redemption_code FOREIGN KEY (merchant_id, code_id) REFERENCES code,
    ADD CONSTRAINT redemption_sales_order
        FOREIGN KEY (merchant_id, order_id, source) REFERENCES sales_order (merchant_id, order_id, source),
    ADD CONSTRAINT redemption_amounts CHECK (
        discount >= 0 AND discount <= base AND base <= order_amount AND (eligible >= base OR eligible IS NULL)
    );
-- A code is redeemed once, and each has its place on an order. A code that goes with its draft looks for redemptions,
-- reversed ones, too: so all are in the index, in which those that stand are alike. Its condition holds always, and keeps
-- the index from whatever asks for no code: a plan that is made for an empty table might read all of it.
CREATE UNIQUE INDEX redemption_live ON redemption (merchant_id, code_id, (CASE WHEN reversed_at IS NOT NULL THEN id END))
    NULLS NOT DISTINCT WHERE code_id IS NOT NULL;
CREATE UNIQUE INDEX redemption_order ON redemption (merchant_id, order_id, source, position) WHERE reversed_at IS NULL;
-- What the portfolio sums, without a look at the rows themselves.
CREATE INDEX redemption_of_pool ON redemption (merchant_id, pool_id) INCLUDE (redeemed_at, order_amount, discount)
    WHERE reversed_at IS NULL;
-- What stands is taken from the budget of its pool, and given back when it stands no more. It is given back at once and
-- taken when the transaction commits, so that nothing lacks what comes back beside it, whichever is written first.
CREATE FUNCTION budget_taken() RETURNS trigger LANGUAGE plpgsql AS $taken$
BEGIN
    PERFORM spend_budget(NEW.merchant_id, NEW.pool_id,
        CASE TG_OP WHEN 'INSERT' THEN NEW.discount ELSE NEW.discount - OLD.discount END);
    RETURN NULL;
END $taken$;
CREATE FUNCTION redemption_given_back() RETURNS trigger LANGUAGE plpgsql AS $back$
BEGIN
    PERFORM spend_budget(NEW.merchant_id, NEW.pool_id,
        CASE WHEN NEW.reversed_at IS NULL THEN NEW.discount ELSE 0 END - OLD.discount);
    RETURN NULL;
END $back$;
CREATE CONSTRAINT TRIGGER redemption_spent AFTER INSERT ON redemption DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (NEW.discount > 0) EXECUTE FUNCTION budget_taken();
CREATE CONSTRAINT TRIGGER redemption_respent AFTER UPDATE OF discount ON redemption DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.discount > OLD.discount AND NEW.reversed_at IS NULL) EXECUTE FUNCTION budget_taken();
CREATE TRIGGER redemption_given_back AFTER UPDATE OF discount, reversed_at ON redemption FOR EACH ROW
    WHEN (OLD.reversed_at IS NULL AND (NEW.discount < OLD.discount OR NEW.reversed_at IS NOT NULL))
    EXECUTE FUNCTION redemption_given_back();
CREATE TRIGGER redemption_kept BEFORE DELETE OR TRUNCATE ON redemption FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();
CREATE TRIGGER redemption_fixed
    BEFORE UPDATE OF merchant_id, id, pool_id, terms_version, code_id, source, order_id ON redemption
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A key is one amendment.
ALTER TABLE order_amendment
    DROP CONSTRAINT order_amendment_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT order_amendment_sales_order FOREIGN KEY (merchant_id, sales_order_id) REFERENCES sales_order,
    ADD CONSTRAINT order_amendment_key UNIQUE (merchant_id, idempotency_key),
    ADD CONSTRAINT order_amendment_totals CHECK (
        0 <= discount_before AND discount_before <= amount_before AND 0 <= discount_after
        AND discount_after <= amount_after AND shortfall >= 0 AND points_returned >= 0
    );
CREATE TRIGGER order_amendment_kept BEFORE DELETE OR TRUNCATE ON order_amendment
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();
CREATE TRIGGER order_amendment_fixed BEFORE UPDATE ON order_amendment
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A redemption is taken back once.
ALTER TABLE reversal
    DROP CONSTRAINT reversal_pkey,
    ADD PRIMARY KEY (merchant_id, redemption_id),
    ADD CONSTRAINT reversal_redemption FOREIGN KEY (merchant_id, redemption_id) REFERENCES redemption;
CREATE TRIGGER reversal_kept BEFORE DELETE OR TRUNCATE ON reversal FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();
CREATE TRIGGER reversal_fixed BEFORE UPDATE OF merchant_id, redemption_id, reinstated ON reversal
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""

EVENTS = """
-- Events are kept by the months of their ids, which begin with when they were made (UUIDv7), so that a month can be
-- archived as a whole (docs/adr/0073). Tortoise knows no such table: this one takes the place of its own.
ALTER TABLE event DROP CONSTRAINT event_pkey;
ALTER TABLE event RENAME TO event_columns;
CREATE TABLE event (
    LIKE event_columns INCLUDING COMMENTS,
    PRIMARY KEY (merchant_id, id),
    -- A wallet's change tells what it left: its version and its points.
    CONSTRAINT event_wallet CHECK ((member_id IS NULL) = (wallet_version IS NULL)),
    CONSTRAINT event_wallet_points CHECK (
        num_nulls(wallet_version, wallet_points, wallet_held_points, wallet_pending_points, wallet_shortfall) IN (0, 5)
    )
) PARTITION BY RANGE (id);
DROP TABLE event_columns;
COMMENT ON TABLE event IS
    'A change to one subject, with a person''s reason (a ciphertext) where one was asked for.';
-- What the webhooks' feed reads events by.
-- Of an event that its transaction keeps quiet (`events.keep_quiet`) the feed never hears.
ALTER TABLE event ALTER COLUMN txid SET DEFAULT (
    CASE WHEN current_setting('flash.quiet', true) = 'on' THEN NULL ELSE pg_current_xact_id()::text::bigint END
);
CREATE INDEX event_feed ON event (merchant_id, txid) WHERE txid IS NOT NULL;
-- Which merchants have new events: the pages that were written last, whatever the merchant. Of a sum, so that nobody
-- takes event_feed for it, stepping from one merchant to the next.
CREATE INDEX event_latest ON event USING brin ((txid + 0)) WITH (pages_per_range = 16, autosummarize = on);
-- A reason is a ciphertext, and encrypted anew when keys rotate; everything else stays.
-- The few that have a person's words, which erasing looks for.
CREATE INDEX event_reason ON event (merchant_id, subject_id) WHERE reason IS NOT NULL;
CREATE TRIGGER event_kept BEFORE DELETE OR TRUNCATE ON event FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();
CREATE TRIGGER event_fixed
    BEFORE UPDATE OF merchant_id, id, type, subject_kind, subject_id, actor, occurred_at, points, member_id,
        wallet_version, wallet_points, wallet_held_points, wallet_pending_points, wallet_shortfall, txid
    ON event FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What ids that are made at or after an instant are at least.
CREATE FUNCTION event_first_id(instant timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (lpad(to_hex((extract(epoch FROM instant) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;
-- What a unique index over all months can't say, one of each month does: a version of a wallet has one event there. And
-- a statement that names a partition meets the triggers that one of the table does.
CREATE FUNCTION guard_event_partition(name text) RETURNS void LANGUAGE plpgsql AS $guard$
BEGIN
    EXECUTE format(
        'CREATE UNIQUE INDEX %I ON %I (merchant_id, member_id, wallet_version) WHERE wallet_version IS NOT NULL',
        name || '_wallet_version', name
    );
    EXECUTE format(
        'CREATE TRIGGER event_kept BEFORE DELETE OR TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete()',
        name
    );
    EXECUTE format(
        'CREATE TRIGGER event_fixed BEFORE UPDATE OF merchant_id, id, type, subject_kind, subject_id, actor,'
        ' occurred_at, points, member_id, wallet_version, wallet_points, wallet_held_points, wallet_pending_points,'
        ' wallet_shortfall, txid ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()',
        name
    );
    -- Written once, as GROWING says.
    EXECUTE format(
        'ALTER TABLE %I SET (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_vacuum_scale_factor = 0.05,'
        ' autovacuum_analyze_scale_factor = 0.05)',
        name
    );
END $guard$;
-- Ids of a month that has no partition: of clocks that are wrong, and of months that nobody made in time.
CREATE TABLE event_default PARTITION OF event DEFAULT;
SELECT guard_event_partition('event_default');
-- Make the partition of a month, unless it is there, with what DEFAULT has of it. Writers of other months wait for
-- nothing; whoever reads all of them waits for it. Whoever works with the tables may make one, not only their owner.
CREATE FUNCTION make_event_partition(month date) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $make$
DECLARE
    name text := to_char(month, '"event_"YYYY_MM');
    since uuid := event_first_id(date_trunc('month', month::timestamp) AT TIME ZONE 'UTC');
    until uuid := event_first_id((date_trunc('month', month::timestamp) + interval '1 month') AT TIME ZONE 'UTC');
BEGIN
    IF to_regclass(name) IS NOT NULL THEN
        RETURN false;
    END IF;
    LOCK TABLE event_default IN ACCESS EXCLUSIVE MODE;
    IF to_regclass(name) IS NOT NULL THEN
        RETURN false;
    END IF;
    -- The check spares the scan for which ATTACH would lock.
    EXECUTE format(
        'CREATE TABLE %I (LIKE event INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES,'
        ' CONSTRAINT event_month CHECK (id >= %L AND id < %L))',
        name, since, until
    );
    PERFORM guard_event_partition(name);
    IF EXISTS (SELECT FROM event_default WHERE id >= since AND id < until) THEN
        ALTER TABLE event_default DISABLE TRIGGER event_kept;
        EXECUTE format(
            'WITH moved AS (DELETE FROM event_default WHERE id >= %L AND id < %L RETURNING *)'
            ' INSERT INTO %I SELECT * FROM moved',
            since, until, name
        );
        ALTER TABLE event_default ENABLE TRIGGER event_kept;
    END IF;
    EXECUTE format('ALTER TABLE event ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, since, until);
    EXECUTE format('ALTER TABLE %I DROP CONSTRAINT event_month', name);
    RETURN true;
END $make$;

-- What is left of months that were archived (docs/adr/0074): which file has them, and what promises need of their
-- events (app/integrity/archived.py). It counts, and stays, once the month is dropped. No models, because only raw
-- statements touch them.
CREATE TABLE event_archive (
    merchant_id uuid NOT NULL,
    id uuid NOT NULL,
    month date NOT NULL,
    events bigint NOT NULL,
    file varchar(120) NOT NULL,
    dropped_at timestamptz,
    PRIMARY KEY (merchant_id, id),
    CONSTRAINT event_archive_merchant FOREIGN KEY (merchant_id) REFERENCES merchant
);
-- Thousands of subjects in a row: their own rows would be as large as the events.
CREATE TABLE archived_event (
    merchant_id uuid NOT NULL,
    archive_id uuid NOT NULL,
    type varchar(50) NOT NULL,
    number integer NOT NULL,
    subject_ids uuid[] NOT NULL,
    wallet_versions bigint[],
    wallet_points bigint[],
    PRIMARY KEY (merchant_id, archive_id, type, number),
    CONSTRAINT archived_event_archive FOREIGN KEY (merchant_id, archive_id) REFERENCES event_archive ON DELETE CASCADE
);
-- From which version to which each wallet's are archived.
CREATE TABLE archived_wallet (
    merchant_id uuid NOT NULL,
    archive_id uuid NOT NULL,
    number integer NOT NULL,
    member_ids uuid[] NOT NULL,
    first_versions bigint[] NOT NULL,
    last_versions bigint[] NOT NULL,
    PRIMARY KEY (merchant_id, archive_id, number),
    CONSTRAINT archived_wallet_archive FOREIGN KEY (merchant_id, archive_id) REFERENCES event_archive ON DELETE CASCADE
);
-- What an archive that came to nothing has left goes.
CREATE FUNCTION keep_archived() RETURNS trigger LANGUAGE plpgsql AS $guard$
BEGIN
    IF EXISTS (
        SELECT FROM event_archive WHERE merchant_id = OLD.merchant_id AND id = (to_jsonb(OLD) ->> TG_ARGV[0])::uuid
            AND dropped_at IS NOT NULL
    ) THEN
        RAISE EXCEPTION 'rows of % are never deleted', TG_TABLE_NAME
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
    END IF;
    RETURN OLD;
END $guard$;
CREATE TRIGGER event_archive_kept BEFORE DELETE ON event_archive FOR EACH ROW EXECUTE FUNCTION keep_archived('id');
CREATE TRIGGER archived_event_kept BEFORE DELETE ON archived_event FOR EACH ROW
    EXECUTE FUNCTION keep_archived('archive_id');
CREATE TRIGGER archived_wallet_kept BEFORE DELETE ON archived_wallet FOR EACH ROW
    EXECUTE FUNCTION keep_archived('archive_id');
CREATE TRIGGER event_archive_fixed BEFORE UPDATE OF merchant_id, id, month, events, file ON event_archive
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER archived_event_fixed BEFORE UPDATE ON archived_event
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER archived_wallet_fixed BEFORE UPDATE ON archived_wallet
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""

POINTS = """
-- A points event is credited once.
ALTER TABLE points_entry
    DROP CONSTRAINT points_entry_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT points_entry_wallet FOREIGN KEY (merchant_id, member_id) REFERENCES wallet,
    ADD CONSTRAINT points_entry_origin UNIQUE (merchant_id, reason, origin),
    ADD CONSTRAINT points_entry_amount CHECK (amount <> 0),
    ADD CONSTRAINT points_entry_balance CHECK (balance_after >= 0),
    ADD CONSTRAINT points_entry_lifetime CHECK (
        (spendable_at IS NULL OR amount > 0) AND (expires_at IS NULL OR spendable_at IS NOT NULL)
    ),
    ADD CONSTRAINT points_entry_reason CHECK (CASE reason
        WHEN 'PURCHASE' THEN amount > 0
        WHEN 'REFERRAL_REFERRER' THEN amount > 0
        WHEN 'REFERRAL_REFEREE' THEN amount > 0
        WHEN 'REWARD' THEN amount < 0
        WHEN 'PAYMENT' THEN amount < 0
        WHEN 'REFUND' THEN amount > 0
        WHEN 'REVERSAL' THEN amount < 0
        WHEN 'EXPIRY' THEN amount < 0
        WHEN 'ERASURE' THEN amount < 0
        ELSE reason IN ('ADJUSTMENT', 'MERGE') END),
    -- A merging credits the kept member with lots that there are; any other dated credit makes one.
    ADD CONSTRAINT points_entry_merged CHECK (
        (reason = 'MERGE' AND amount > 0) = (lot_id IS NOT NULL) AND (reason <> 'MERGE' OR amount < 0 OR spendable_at IS NOT NULL)
    );
-- The lists: all entries of the merchant (the liability sums their amounts), and those of a wallet.
CREATE INDEX points_entry_newest ON points_entry (merchant_id, created_at, id) INCLUDE (amount);
CREATE INDEX points_entry_of_member ON points_entry (merchant_id, member_id, created_at, id);
CREATE TRIGGER points_entry_kept BEFORE DELETE OR TRUNCATE ON points_entry FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();
CREATE TRIGGER points_entry_fixed BEFORE UPDATE ON points_entry FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What a person wrote is beside the ledger: an entry can't change, and a person can be erased.
ALTER TABLE entry_reference
    DROP CONSTRAINT entry_reference_pkey,
    ADD PRIMARY KEY (merchant_id, entry_id),
    ADD CONSTRAINT entry_reference_entry FOREIGN KEY (merchant_id, entry_id) REFERENCES points_entry;
CREATE TRIGGER entry_reference_fixed BEFORE UPDATE OF merchant_id, entry_id ON entry_reference
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A lot begins whole, is never below 0 or above its credit, and keeps what it is. `is_open` is what indexes look at, so
-- that a debit which leaves something changes none of them (HOT, for which pages leave room). What is held of a lot isn't
-- open: nobody spends it, and it doesn't expire. Pending points aren't held.
ALTER TABLE points_lot
    DROP CONSTRAINT points_lot_pkey,
    ADD PRIMARY KEY (merchant_id, entry_id),
    ADD CONSTRAINT points_lot_entry FOREIGN KEY (merchant_id, entry_id) REFERENCES points_entry,
    ADD CONSTRAINT points_lot_amounts CHECK (
        amount > 0 AND remaining BETWEEN 0 AND amount AND expired BETWEEN 0 AND amount AND returned BETWEEN 0 AND amount
    ),
    ADD CONSTRAINT points_lot_held CHECK (held BETWEEN 0 AND remaining AND (held = 0 OR NOT is_pending)),
    ADD CONSTRAINT points_lot_open CHECK (is_open = (remaining > held));
-- The order of spending; a member's lots that end next, pending ones too.
CREATE INDEX points_lot_next ON points_lot (merchant_id, member_id, is_pending, expires_at, created_at, entry_id)
    WHERE is_open;
-- What jobs look for, and what a debit looks for when a job is late.
CREATE INDEX points_lot_due ON points_lot (merchant_id, expires_at) WHERE is_open AND expires_at < 'infinity';
CREATE INDEX points_lot_unwarned ON points_lot (merchant_id, expires_at)
    WHERE is_open AND NOT is_warned AND expires_at < 'infinity';
CREATE INDEX points_lot_ripe ON points_lot (merchant_id, spendable_at) WHERE is_pending;
CREATE INDEX points_lot_pending ON points_lot (merchant_id, member_id, spendable_at) WHERE is_pending;
CREATE TRIGGER points_lot_kept BEFORE DELETE OR TRUNCATE ON points_lot FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();
CREATE TRIGGER points_lot_fixed
    BEFORE UPDATE OF merchant_id, entry_id, amount, spendable_at, expires_at, created_at ON points_lot
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER points_lot_follows AFTER UPDATE OF member_id ON points_lot FOR EACH ROW
    WHEN (NEW.member_id <> OLD.member_id) EXECUTE FUNCTION follow_merging();
ALTER TABLE points_entry ADD CONSTRAINT points_entry_lot FOREIGN KEY (merchant_id, lot_id) REFERENCES points_lot;
CREATE TRIGGER points_lot_begins_whole AFTER INSERT ON points_lot FOR EACH ROW
    WHEN (NEW.remaining <> NEW.amount OR NEW.last_entry_id <> NEW.entry_id) EXECUTE FUNCTION refuse_change();

-- What an entry took from a lot, once; no more comes back than was taken.
ALTER TABLE points_part
    DROP CONSTRAINT points_part_pkey,
    ADD PRIMARY KEY (merchant_id, entry_id, lot_id),
    ADD CONSTRAINT points_part_entry FOREIGN KEY (merchant_id, entry_id) REFERENCES points_entry,
    ADD CONSTRAINT points_part_lot FOREIGN KEY (merchant_id, lot_id) REFERENCES points_lot,
    ADD CONSTRAINT points_part_returned CHECK (amount <> 0 AND returned BETWEEN 0 AND greatest(-amount, 0));
CREATE TRIGGER points_part_kept BEFORE DELETE OR TRUNCATE ON points_part FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();
CREATE TRIGGER points_part_fixed BEFORE UPDATE OF merchant_id, entry_id, lot_id, amount, held_at ON points_part
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What a hold has set aside of a lot.
ALTER TABLE hold_part
    DROP CONSTRAINT hold_part_pkey,
    ADD PRIMARY KEY (merchant_id, hold_id, position, lot_id),
    ADD CONSTRAINT hold_part_lot FOREIGN KEY (merchant_id, lot_id) REFERENCES points_lot,
    ADD CONSTRAINT hold_part_amount CHECK (amount > 0 AND position >= 0);

-- A lot changes by what a part of another entry than before says.
CREATE FUNCTION points_lot_moved() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $guard$
BEGIN
    IF NEW.last_entry_id = OLD.last_entry_id OR (NEW.remaining - OLD.remaining) IS DISTINCT FROM (
        SELECT amount FROM points_part
        WHERE merchant_id = NEW.merchant_id AND entry_id = NEW.last_entry_id AND lot_id = NEW.entry_id
    ) THEN
        RAISE EXCEPTION 'a lot changes by a part of an entry'
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
    END IF;
    RETURN NULL;
END $guard$;
CREATE TRIGGER points_lot_moved AFTER UPDATE OF remaining ON points_lot FOR EACH ROW
    WHEN (NEW.remaining <> OLD.remaining) EXECUTE FUNCTION points_lot_moved();

-- A take-back of a lot, and what it lacks: no more than it took back. Rows stay.
ALTER TABLE points_return
    DROP CONSTRAINT points_return_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT points_return_lot FOREIGN KEY (merchant_id, lot_id) REFERENCES points_lot,
    ADD CONSTRAINT points_return_amounts CHECK (expired >= 0 AND shortfall >= 0 AND expired + shortfall <= amount);
CREATE INDEX points_return_of_lot ON points_return (merchant_id, lot_id);
-- What points that come back and later purchases make good.
CREATE INDEX points_return_short ON points_return (merchant_id, member_id, since) WHERE shortfall > 0;
CREATE TRIGGER points_return_kept BEFORE DELETE OR TRUNCATE ON points_return FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();
CREATE TRIGGER points_return_fixed BEFORE UPDATE OF merchant_id, id, lot_id, since ON points_return
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER points_return_follows AFTER UPDATE OF member_id ON points_return FOR EACH ROW
    WHEN (NEW.member_id <> OLD.member_id) EXECUTE FUNCTION follow_merging();

-- A lot pays for a take-back of another one: rows stay, and what came back is taken off.
ALTER TABLE points_cover
    DROP CONSTRAINT points_cover_pkey,
    ADD PRIMARY KEY (merchant_id, return_id, lot_id),
    ADD CONSTRAINT points_cover_lot FOREIGN KEY (merchant_id, lot_id) REFERENCES points_lot,
    ADD CONSTRAINT points_cover_return FOREIGN KEY (merchant_id, return_id) REFERENCES points_return,
    ADD CONSTRAINT points_cover_amount CHECK (amount >= 0);
CREATE INDEX points_cover_of_lot ON points_cover (merchant_id, lot_id);

-- Points change with an entry that says by how many, the one that the event of the wallet's new version names, and the
-- lots with it: by the lot that a credit makes, or by the parts of any other entry. So the balance is the sum of the
-- entries and the sum of the lots. Nothing is looked up where only the version changes, as with a claim. A process
-- keeps the plans that it made while the tables were small: without sequential scans, and with an order that one index
-- has, they are those for large ones. A plan for one month at a time would be made each time.
CREATE FUNCTION wallet_points_posted() RETURNS trigger
    LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $guard$
DECLARE
    -- Made just now, unless a clock is wrong.
    recent uuid := event_first_id(now() - interval '1 day');
    subject uuid := (
        SELECT subject_id FROM event WHERE merchant_id = NEW.merchant_id AND member_id = NEW.member_id
            AND wallet_version = NEW.version AND id >= recent
    );
    entry record;
BEGIN
    IF subject IS NULL THEN
        SELECT subject_id INTO subject FROM event
        WHERE merchant_id = NEW.merchant_id AND member_id = NEW.member_id AND wallet_version = NEW.version;
    END IF;
    SELECT named.id AS named, e.*, CASE
        WHEN e.spendable_at IS NULL OR e.lot_id IS NOT NULL THEN (
            SELECT sum(p.amount) FROM (
                SELECT lot_id, amount FROM points_part
                WHERE merchant_id = NEW.merchant_id AND entry_id = named.id ORDER BY lot_id
            ) p CROSS JOIN LATERAL (
                SELECT FROM points_lot WHERE merchant_id = NEW.merchant_id AND entry_id = p.lot_id
                    AND member_id = NEW.member_id AND last_entry_id = named.id OFFSET 0
            ) l
        )
        ELSE (SELECT amount FROM points_lot
              WHERE merchant_id = NEW.merchant_id AND entry_id = named.id AND last_entry_id = named.id)
        END AS moved
    INTO entry FROM (
        SELECT subject AS id
    ) named CROSS JOIN LATERAL (
        SELECT merchant_id, id, member_id, amount, balance_after, spendable_at, lot_id FROM points_entry
        WHERE (merchant_id, id) >= (NEW.merchant_id, named.id) ORDER BY merchant_id, id LIMIT 1
    ) e;
    IF (entry.merchant_id, entry.id, entry.member_id, entry.amount, entry.balance_after, entry.moved) IS DISTINCT FROM
            (NEW.merchant_id, entry.named, NEW.member_id, NEW.points - OLD.points, NEW.points, entry.amount) THEN
        RAISE EXCEPTION 'points change with an entry that says by how many, and lots by as many'
            USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
    END IF;
    RETURN NULL;
END $guard$;
CREATE TRIGGER wallet_points_posted AFTER UPDATE OF points ON wallet FOR EACH ROW
    WHEN (NEW.points <> OLD.points) EXECUTE FUNCTION wallet_points_posted();
"""

ORDERS = """
-- An order earns once.
ALTER TABLE purchase
    DROP CONSTRAINT purchase_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT purchase_member FOREIGN KEY (merchant_id, member_id) REFERENCES member,
    ADD CONSTRAINT purchase_order UNIQUE (merchant_id, source, order_id),
    ADD CONSTRAINT purchase_amounts CHECK (
        amount >= 0 AND points >= 0 AND credits >= 0 AND recorded_amount >= 0 AND points_per_unit >= 0
        AND minor_units > 0
    ),
    ADD CONSTRAINT purchase_refunded CHECK (
        refunded BETWEEN 0 AND amount AND (reversed_at IS NULL OR refunded = amount)
    ),
    -- No more is paid with points than stands, and they come back with it.
    ADD CONSTRAINT purchase_paid CHECK (
        shares_from BETWEEN 0 AND refunded AND shares_points BETWEEN 0 AND returned_points
        AND shares_value BETWEEN 0 AND returned_value AND returned_points <= paid_points
        AND paid_value - returned_value BETWEEN 0 AND amount - refunded
        AND (reversed_at IS NULL OR returned_points = paid_points)
    ),
    ADD CONSTRAINT purchase_source CHECK (source IN ('STORE', 'SHOPIFY', 'RECEIPT', 'REFERRAL', 'IMPORT'));
CREATE TRIGGER purchase_kept BEFORE DELETE OR TRUNCATE ON purchase FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();
CREATE TRIGGER purchase_fixed
    BEFORE UPDATE OF merchant_id, id, source, order_id, recorded_amount, points_per_unit, minor_units
    ON purchase FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER purchase_follows AFTER UPDATE OF member_id ON purchase FOR EACH ROW
    WHEN (NEW.member_id <> OLD.member_id) EXECUTE FUNCTION follow_merging();

-- A part of a purchase goes back once.
ALTER TABLE refund
    DROP CONSTRAINT refund_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT refund_purchase FOREIGN KEY (merchant_id, purchase_id) REFERENCES purchase,
    ADD CONSTRAINT refund_once UNIQUE (merchant_id, purchase_id, refund_id),
    ADD CONSTRAINT refund_amounts CHECK (
        amount >= 0 AND money_returned BETWEEN 0 AND amount AND points >= 0 AND taken >= 0 AND shortfall >= 0
        AND points_returned >= 0 AND points_expired >= 0 AND points_forfeited >= 0
        AND points_expired + points_forfeited <= points_returned
    );
CREATE TRIGGER refund_kept BEFORE DELETE OR TRUNCATE ON refund FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();
CREATE TRIGGER refund_fixed BEFORE UPDATE ON refund FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""

REWARDS = """
ALTER TABLE reward
    DROP CONSTRAINT reward_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT reward_merchant FOREIGN KEY (merchant_id) REFERENCES merchant,
    ADD CONSTRAINT reward_pool FOREIGN KEY (merchant_id, pool_id) REFERENCES pool,
    ADD CONSTRAINT reward_cost CHECK (cost > 0),
    ADD CONSTRAINT reward_stock CHECK (stock >= 0);
-- Each claim looks here. The newest of several rewards is the one that a refusal names.
CREATE INDEX reward_of_pool ON reward (merchant_id, pool_id, id) WHERE pool_id IS NOT NULL;

-- Each key is one redemption, each redemption is paid once and gives a code of its own.
ALTER TABLE reward_redemption
    DROP CONSTRAINT reward_redemption_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT reward_redemption_reward FOREIGN KEY (merchant_id, reward_id) REFERENCES reward,
    ADD CONSTRAINT reward_redemption_member FOREIGN KEY (merchant_id, member_id) REFERENCES member,
    ADD CONSTRAINT reward_redemption_code FOREIGN KEY (merchant_id, code_id) REFERENCES code,
    ADD CONSTRAINT reward_redemption_entry FOREIGN KEY (merchant_id, entry_id) REFERENCES points_entry,
    ADD CONSTRAINT reward_redemption_key UNIQUE (merchant_id, idempotency_key),
    ADD CONSTRAINT reward_redemption_paid UNIQUE (merchant_id, entry_id),
    ADD CONSTRAINT reward_redemption_code_once UNIQUE (merchant_id, code_id);
CREATE INDEX reward_redemption_of_member ON reward_redemption (merchant_id, member_id, reward_id);
CREATE TRIGGER reward_redemption_kept BEFORE DELETE OR TRUNCATE ON reward_redemption
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();
CREATE TRIGGER reward_redemption_fixed
    BEFORE UPDATE OF merchant_id, id, entry_id, idempotency_key ON reward_redemption
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER reward_redemption_follows AFTER UPDATE OF member_id ON reward_redemption FOR EACH ROW
    WHEN (NEW.member_id <> OLD.member_id) EXECUTE FUNCTION follow_merging();
-- A reward goes back once.
CREATE TRIGGER reward_redemption_reversed_once AFTER UPDATE OF reversed_at ON reward_redemption FOR EACH ROW
    WHEN (OLD.reversed_at IS NOT NULL) EXECUTE FUNCTION refuse_change();
"""

HOLDS = """
-- A hold is of an order that isn't paid: one at a time, and one of an order is captured. It ends once, but for one that
-- expired: that may still be captured, or released for good.
ALTER TABLE hold
    DROP CONSTRAINT hold_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT hold_sales_order FOREIGN KEY (merchant_id, sales_order_id) REFERENCES sales_order,
    ADD CONSTRAINT hold_member FOREIGN KEY (merchant_id, member_id) REFERENCES member,
    ADD CONSTRAINT hold_status CHECK (status IN ('HELD', 'CAPTURED', 'RELEASED', 'EXPIRED')),
    ADD CONSTRAINT hold_amounts CHECK (
        0 <= total_discount AND total_discount <= order_amount AND points_value <= order_amount - total_discount
        AND 0 <= points AND points <= held_points AND 0 <= points_value AND point_value >= 0
    ),
    -- Points are held of a member that is named by its id.
    ADD CONSTRAINT hold_points CHECK (held_points = 0 OR member_id IS NOT NULL),
    ADD CONSTRAINT hold_lifetime CHECK (held_at < held_until AND held_until <= held_at + interval '720 hours'),
    ADD CONSTRAINT hold_ended CHECK ((status = 'HELD') = (ended_at IS NULL)),
    ADD CONSTRAINT hold_captured CHECK (
        num_nonnulls(captured_points, captured_value) = CASE status WHEN 'CAPTURED' THEN 2 ELSE 0 END
        AND captured_points BETWEEN 0 AND points AND captured_value BETWEEN 0 AND points_value
    );
-- Its points are set aside before the hold is written, or in the same statement.
ALTER TABLE hold_part ADD CONSTRAINT hold_part_hold
    FOREIGN KEY (merchant_id, hold_id) REFERENCES hold DEFERRABLE INITIALLY DEFERRED;
CREATE UNIQUE INDEX hold_live ON hold (merchant_id, sales_order_id) WHERE status = 'HELD';
CREATE UNIQUE INDEX hold_captured_once ON hold (merchant_id, sales_order_id) WHERE status = 'CAPTURED';
-- Partial, so that no look-up by id takes it for as good as the key while there are no statistics.
CREATE INDEX hold_of_order ON hold (merchant_id, sales_order_id) WHERE sales_order_id IS NOT NULL;
-- What a member's debits and further holds look for, and what the job does.
CREATE INDEX hold_of_member ON hold (merchant_id, member_id, held_until) WHERE status = 'HELD' AND member_id IS NOT NULL;
-- What else becomes the kept member's when two are merged.
CREATE INDEX hold_ended_of_member ON hold (merchant_id, member_id) WHERE status <> 'HELD' AND member_id IS NOT NULL;
CREATE INDEX hold_of_address ON hold (merchant_id, email_index) WHERE status = 'HELD' AND email_index IS NOT NULL;
CREATE INDEX hold_due ON hold (merchant_id, held_until) WHERE status = 'HELD';
CREATE TRIGGER hold_kept BEFORE DELETE OR TRUNCATE ON hold FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();
CREATE TRIGGER hold_fixed BEFORE UPDATE OF merchant_id, id, sales_order_id, currency, held_at ON hold
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE FUNCTION hold_guard() RETURNS trigger LANGUAGE plpgsql AS $guard$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.status <> 'HELD' THEN
            RAISE EXCEPTION 'a hold begins as HELD' USING ERRCODE = 'check_violation', CONSTRAINT = 'hold_lifecycle';
        END IF;
        RETURN NEW;
    END IF;
    -- One that has ended may still become another member's, with whatever it was.
    IF NEW.version <= OLD.version OR (OLD.status <> 'HELD' AND (OLD.status, NEW.status) NOT IN (
        ('EXPIRED', 'CAPTURED'), ('EXPIRED', 'RELEASED')
    ) AND (OLD.status <> NEW.status OR OLD.member_id IS NOT DISTINCT FROM NEW.member_id)) THEN
        RAISE EXCEPTION 'a hold may not go from % to %', OLD.status, NEW.status
            USING ERRCODE = 'check_violation', CONSTRAINT = 'hold_lifecycle';
    END IF;
    RETURN NEW;
END $guard$;
CREATE TRIGGER hold_guard BEFORE INSERT OR UPDATE ON hold FOR EACH ROW EXECUTE FUNCTION hold_guard();
CREATE TRIGGER hold_follows AFTER UPDATE OF member_id ON hold FOR EACH ROW
    WHEN (OLD.status <> 'HELD' AND NEW.member_id IS DISTINCT FROM OLD.member_id) EXECUTE FUNCTION follow_merging();

ALTER TABLE hold_code
    DROP CONSTRAINT hold_code_pkey,
    ADD PRIMARY KEY (merchant_id, hold_id, code_id),
    ADD CONSTRAINT hold_code_hold FOREIGN KEY (merchant_id, hold_id) REFERENCES hold,
    ADD CONSTRAINT hold_code_code FOREIGN KEY (merchant_id, code_id) REFERENCES code,
    ADD CONSTRAINT hold_code_terms FOREIGN KEY (merchant_id, pool_id, terms_version) REFERENCES pool_terms,
    ADD CONSTRAINT hold_code_redemption FOREIGN KEY (merchant_id, redemption_id) REFERENCES redemption,
    ADD CONSTRAINT hold_code_amounts CHECK (
        0 <= discount AND discount <= base AND position > 0 AND (eligible >= base OR eligible IS NULL)
    );
-- What a code that goes with its draft looks for.
CREATE INDEX hold_code_of_code ON hold_code (merchant_id, code_id);

-- What is held is taken from the budget of its pool, and given back when the hold ends: captured, it stands instead.
CREATE FUNCTION hold_code_given_back() RETURNS trigger LANGUAGE plpgsql AS $back$
BEGIN
    PERFORM spend_budget(OLD.merchant_id, OLD.pool_id,
        CASE TG_OP WHEN 'DELETE' THEN -OLD.discount ELSE NEW.discount - OLD.discount END);
    RETURN NULL;
END $back$;
CREATE CONSTRAINT TRIGGER hold_code_spent AFTER INSERT ON hold_code DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (NEW.discount > 0) EXECUTE FUNCTION budget_taken();
CREATE CONSTRAINT TRIGGER hold_code_respent AFTER UPDATE OF discount ON hold_code DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.discount > OLD.discount) EXECUTE FUNCTION budget_taken();
CREATE TRIGGER hold_code_relieved AFTER UPDATE OF discount ON hold_code FOR EACH ROW
    WHEN (NEW.discount < OLD.discount) EXECUTE FUNCTION hold_code_given_back();
CREATE TRIGGER hold_code_given_back AFTER DELETE ON hold_code
    FOR EACH ROW EXECUTE FUNCTION hold_code_given_back();
CREATE FUNCTION hold_given_back() RETURNS trigger LANGUAGE plpgsql AS $back$
BEGIN
    PERFORM spend_budget(NEW.merchant_id, pool_id, -sum(discount)::bigint) FROM hold_code
    WHERE merchant_id = NEW.merchant_id AND hold_id = NEW.id GROUP BY pool_id;
    RETURN NULL;
END $back$;
CREATE TRIGGER hold_given_back AFTER UPDATE OF status ON hold FOR EACH ROW
    WHEN (OLD.status = 'HELD' AND NEW.status <> 'HELD') EXECUTE FUNCTION hold_given_back();

ALTER TABLE hold_reward
    DROP CONSTRAINT hold_reward_pkey,
    ADD PRIMARY KEY (merchant_id, hold_id, position),
    ADD CONSTRAINT hold_reward_hold FOREIGN KEY (merchant_id, hold_id) REFERENCES hold,
    ADD CONSTRAINT hold_reward_reward FOREIGN KEY (merchant_id, reward_id) REFERENCES reward,
    ADD CONSTRAINT hold_reward_code FOREIGN KEY (merchant_id, code_id) REFERENCES code,
    ADD CONSTRAINT hold_reward_redemption FOREIGN KEY (merchant_id, redemption_id) REFERENCES reward_redemption,
    ADD CONSTRAINT hold_reward_cost CHECK (cost > 0 AND position > 0);
CREATE INDEX hold_reward_of_code ON hold_reward (merchant_id, code_id) WHERE code_id IS NOT NULL;

-- A key is one request of an order.
ALTER TABLE hold_request
    DROP CONSTRAINT hold_request_pkey,
    ADD PRIMARY KEY (merchant_id, sales_order_id, idempotency_key),
    ADD CONSTRAINT hold_request_sales_order FOREIGN KEY (merchant_id, sales_order_id) REFERENCES sales_order;
CREATE TRIGGER hold_request_kept BEFORE DELETE OR TRUNCATE ON hold_request
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();
CREATE TRIGGER hold_request_fixed BEFORE UPDATE ON hold_request FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A code is in one hold at a time; past its time the hold doesn't count, and another one may have the code. The index is
-- for lists of pools that are over.
CREATE INDEX code_of_hold ON code (merchant_id, pool_id, id) WHERE hold_id IS NOT NULL;
ALTER TABLE code
    ADD CONSTRAINT code_hold FOREIGN KEY (merchant_id, hold_id) REFERENCES hold,
    ADD CONSTRAINT code_held CHECK (
        (hold_id IS NULL) = (held_until IS NULL) AND (hold_id IS NOT NULL OR state <> 'SET_ASIDE')
    );
"""

REFERRALS = """
ALTER TABLE referral_program
    ADD CONSTRAINT referral_program_merchant FOREIGN KEY (merchant_id) REFERENCES merchant,
    ADD CONSTRAINT referral_program_points CHECK (referrer_points > 0 AND referee_points > 0),
    ADD CONSTRAINT referral_program_quotas CHECK (
        invites_per_batch BETWEEN 0 AND 5000 AND invites_per_day BETWEEN 0 AND 100000
        AND invites_lifetime BETWEEN 0 AND 1000000
    ),
    ADD CONSTRAINT referral_program_days CHECK (
        invite_lifetime_days BETWEEN 1 AND 3650 AND refund_window_days BETWEEN 0 AND 3650
    ),
    ADD CONSTRAINT referral_program_converts_on CHECK (converts_on IN ('JOIN', 'FIRST_PURCHASE')),
    ADD CONSTRAINT referral_program_minimum CHECK (
        minimum_purchase > 0 AND (converts_on = 'FIRST_PURCHASE' OR minimum_purchase IS NULL)
    ),
    ADD CONSTRAINT referral_program_review CHECK (review_policy IN ('NONE', 'FLAGGED', 'ALL'));

-- What a member sent is never negative and never over the limits that its latest batch was let through by.
ALTER TABLE invite_quota
    DROP CONSTRAINT invite_quota_pkey,
    ADD PRIMARY KEY (merchant_id, member_id),
    ADD CONSTRAINT invite_quota_member FOREIGN KEY (merchant_id, member_id) REFERENCES member,
    ADD CONSTRAINT invite_quota_day CHECK (sent_today BETWEEN 0 AND day_max),
    ADD CONSTRAINT invite_quota_lifetime CHECK (sent_lifetime BETWEEN 0 AND lifetime_max);
CREATE TRIGGER invite_quota_kept BEFORE DELETE OR TRUNCATE ON invite_quota
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();

ALTER TABLE invite
    DROP CONSTRAINT invite_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT invite_referrer FOREIGN KEY (merchant_id, referrer_id) REFERENCES member,
    ADD CONSTRAINT invite_referee FOREIGN KEY (merchant_id, referee_id) REFERENCES member,
    -- What an edge refers to.
    ADD CONSTRAINT invite_edge UNIQUE (merchant_id, id, referrer_id, referee_id, status),
    ADD CONSTRAINT invite_token UNIQUE (merchant_id, token_hash),
    ADD CONSTRAINT invite_status CHECK (CASE status
        WHEN 'PENDING' THEN converted_at IS NULL
        WHEN 'CONVERTED' THEN converted_at IS NOT NULL AND accepted_at IS NOT NULL
        WHEN 'EXPIRED' THEN converted_at IS NULL
        WHEN 'CANCELLED' THEN converted_at IS NULL AND accepted_at IS NULL
        ELSE false END),
    ADD CONSTRAINT invite_accepted CHECK (
        (accepted_at IS NULL) = (referee_id IS NULL) AND (accepted_at IS NULL) = (converts_on IS NULL)
    ),
    ADD CONSTRAINT invite_converts_on CHECK (converts_on IN ('JOIN', 'FIRST_PURCHASE')),
    ADD CONSTRAINT invite_obstacle CHECK (
        obstacle IN ('SELF', 'EXISTING_CUSTOMER', 'MAILBOX_REWARDED')
        AND (obstacle IS NULL OR (accepted_at IS NOT NULL AND status <> 'CONVERTED'))
    ),
    ADD CONSTRAINT invite_not_self CHECK (referrer_id <> referee_id);
-- An address has one invite at a time, whoever sends it; a member comes by one invite, unless that expires first.
CREATE UNIQUE INDEX invite_pending ON invite (merchant_id, email_index) WHERE status = 'PENDING';
-- Looked at when a statement ends: a merging swaps what two records accepted.
ALTER TABLE invite ADD CONSTRAINT invite_of_referee EXCLUDE USING btree (merchant_id WITH =, referee_id WITH =)
    WHERE (referee_id IS NOT NULL AND status <> 'EXPIRED') DEFERRABLE;
-- What the expiry job looks for, and the lists.
CREATE INDEX invite_due ON invite (merchant_id, expires_at) WHERE status = 'PENDING';
CREATE INDEX invite_by_status ON invite (merchant_id, status, id);
-- What else was sent to an address, and what a member accepted that expired: erasing looks for it.
CREATE INDEX invite_of_address ON invite (merchant_id, email_index) WHERE status <> 'PENDING';
CREATE INDEX invite_expired_of_referee ON invite (merchant_id, referee_id)
    WHERE status = 'EXPIRED' AND referee_id IS NOT NULL;
CREATE INDEX invite_of_referrer ON invite (merchant_id, referrer_id, id);
-- What flags count.
CREATE INDEX invite_alike ON invite (merchant_id, referrer_id, domain_index, created_at) WHERE domain_index IS NOT NULL;
CREATE INDEX invite_of_mailbox ON invite (merchant_id, referrer_id, mailbox_index) WHERE accepted_at IS NOT NULL;
CREATE TRIGGER invite_kept BEFORE DELETE OR TRUNCATE ON invite FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();

-- An invite ends once.
CREATE FUNCTION invite_guard() RETURNS trigger LANGUAGE plpgsql AS $guard$
BEGIN
    IF OLD.status <> 'PENDING' AND NEW.status <> OLD.status THEN
        RAISE EXCEPTION 'an invite that is % can''t become %', OLD.status, NEW.status
            USING ERRCODE = 'check_violation', CONSTRAINT = 'invite_ends_once';
    END IF;
    RETURN NEW;
END $guard$;
CREATE TRIGGER invite_guard BEFORE UPDATE OF status ON invite FOR EACH ROW EXECUTE FUNCTION invite_guard();

ALTER TABLE member
    ADD CONSTRAINT member_accepted_invite FOREIGN KEY (merchant_id, accepted_invite_id) REFERENCES invite;
CREATE INDEX member_by_invite ON member (merchant_id, accepted_invite_id) WHERE accepted_invite_id IS NOT NULL;
CREATE INDEX member_of_mailbox ON member (merchant_id, mailbox_index) WHERE mailbox_index IS NOT NULL;
-- What may convert an invite, the earliest first.
CREATE INDEX purchase_of_member ON purchase (merchant_id, member_id, occurred_at);

-- A mailbox, all its spellings, that an invite was paid for: once. No model, as for an address.
CREATE TABLE rewarded_mailbox (
    merchant_id uuid NOT NULL,
    mailbox_index bytea NOT NULL,
    invite_id uuid NOT NULL,
    PRIMARY KEY (merchant_id, mailbox_index),
    CONSTRAINT rewarded_mailbox_once UNIQUE (merchant_id, invite_id),
    CONSTRAINT rewarded_mailbox_invite FOREIGN KEY (merchant_id, invite_id) REFERENCES invite
);
CREATE TRIGGER rewarded_mailbox_kept BEFORE DELETE OR TRUNCATE ON rewarded_mailbox
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();
CREATE TRIGGER rewarded_mailbox_fixed BEFORE UPDATE OF merchant_id, invite_id ON rewarded_mailbox
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- An edge is that of an invite which is CONVERTED and, because the key holds it, stays so. One referrer per referee,
-- nobody refers itself, each invite and each purchase converts once; either both are credited or neither is.
ALTER TABLE referral
    DROP CONSTRAINT referral_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT referral_invite FOREIGN KEY (merchant_id, invite_id, referrer_id, referee_id, invite_status)
        REFERENCES invite (merchant_id, id, referrer_id, referee_id, status),
    ADD CONSTRAINT referral_converted CHECK (invite_status = 'CONVERTED'),
    ADD CONSTRAINT referral_purchase FOREIGN KEY (merchant_id, purchase_id) REFERENCES purchase,
    ADD CONSTRAINT referral_referrer_entry FOREIGN KEY (merchant_id, referrer_entry_id) REFERENCES points_entry,
    ADD CONSTRAINT referral_referee_entry FOREIGN KEY (merchant_id, referee_entry_id) REFERENCES points_entry,
    ADD CONSTRAINT referral_referee UNIQUE (merchant_id, referee_id) DEFERRABLE,
    ADD CONSTRAINT referral_once UNIQUE (merchant_id, invite_id),
    ADD CONSTRAINT referral_purchase_once UNIQUE (merchant_id, purchase_id),
    ADD CONSTRAINT referral_not_self CHECK (referrer_id <> referee_id),
    ADD CONSTRAINT referral_points CHECK (referrer_points > 0 AND referee_points > 0),
    ADD CONSTRAINT referral_terms CHECK (minimum_purchase > 0 AND refund_window_days >= 0),
    -- Who was erased before is not credited.
    ADD CONSTRAINT referral_credited CHECK (
        released_at IS NOT NULL OR num_nonnulls(referrer_entry_id, referee_entry_id) = 0
    ),
    -- A person releases a referral or declines it.
    ADD CONSTRAINT referral_released_or_declined CHECK (released_at IS NULL OR declined_at IS NULL),
    ADD CONSTRAINT referral_reversed CHECK (
        (reversed_at IS NULL) = (shortfall IS NULL) AND shortfall >= 0
        AND falls >= CASE WHEN reversed_at IS NULL THEN 0 ELSE 1 END
    );
CREATE INDEX referral_of_referrer ON referral (merchant_id, referrer_id, id);
CREATE INDEX referral_latest ON referral (merchant_id, referrer_id, converted_at);
CREATE INDEX referral_returned ON referral (merchant_id, referrer_id) WHERE reversed_at IS NOT NULL;
CREATE INDEX referral_released ON referral (merchant_id, id) WHERE released_at IS NOT NULL;
CREATE INDEX referral_held ON referral (merchant_id, id)
    WHERE released_at IS NULL AND declined_at IS NULL AND reversed_at IS NULL;
-- Whether the network is as it was.
CREATE INDEX referral_changed ON referral (merchant_id, changed_at);
CREATE INDEX referral_declined ON referral (merchant_id, id) WHERE declined_at IS NOT NULL;
CREATE TRIGGER referral_kept BEFORE DELETE OR TRUNCATE ON referral FOR EACH STATEMENT EXECUTE FUNCTION refuse_delete();

-- Who brought whom never changes but with a merging, and is a forest: nobody is found above itself.
CREATE FUNCTION referral_guard() RETURNS trigger LANGUAGE plpgsql AS $guard$
DECLARE
    above uuid := NEW.referrer_id;
BEGIN
    IF TG_OP = 'UPDATE' AND (OLD.invite_id <> NEW.invite_id OR EXISTS (
        -- Two records of one person are one once they are merged.
        SELECT FROM (VALUES (OLD.referrer_id, NEW.referrer_id), (OLD.referee_id, NEW.referee_id)) AS pair (before, since)
        WHERE before <> since AND NOT EXISTS (
            SELECT FROM member WHERE merchant_id = NEW.merchant_id
                AND (id, merged_into_id) IN ((before, since), (since, before))
        )
    )) THEN
        RAISE EXCEPTION 'who brought whom never changes'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'referral_fixed';
    END IF;
    WHILE TG_OP = 'INSERT' AND above IS NOT NULL LOOP
        IF above = NEW.referee_id THEN
            RAISE EXCEPTION 'a member can''t be brought by somebody that it brought'
                USING ERRCODE = 'check_violation', CONSTRAINT = 'referral_forest';
        END IF;
        SELECT referrer_id INTO above FROM referral
        WHERE merchant_id = NEW.merchant_id AND referee_id = above;
    END LOOP;
    IF TG_OP = 'UPDATE' AND (OLD.referrer_id, OLD.referee_id, OLD.released_at, OLD.reversed_at)
        IS DISTINCT FROM (NEW.referrer_id, NEW.referee_id, NEW.released_at, NEW.reversed_at) THEN
        NEW.changed_at := now();
    END IF;
    RETURN NEW;
END $guard$;
CREATE TRIGGER referral_guard BEFORE INSERT OR UPDATE ON referral FOR EACH ROW EXECUTE FUNCTION referral_guard();
"""

GRAPH = """
-- At most one job of a merchant waits, and at most one is being worked at.
ALTER TABLE graph_job
    DROP CONSTRAINT graph_job_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT graph_job_merchant FOREIGN KEY (merchant_id) REFERENCES merchant,
    ADD CONSTRAINT graph_job_status CHECK (status IN ('QUEUED', 'READING', 'DRAWING', 'STORING', 'DONE', 'FAILED')),
    ADD CONSTRAINT graph_job_failure CHECK (
        (status = 'FAILED') = (failure IS NOT NULL) AND failure IN ('TOO_LARGE', 'TOO_SLOW', 'ABANDONED', 'FAULT')
    ),
    ADD CONSTRAINT graph_job_ended CHECK ((status IN ('DONE', 'FAILED')) = (finished_at IS NOT NULL)),
    ADD CONSTRAINT graph_job_leased CHECK (status = 'QUEUED' OR lease_until IS NOT NULL);
CREATE UNIQUE INDEX graph_job_queued ON graph_job (merchant_id) WHERE status = 'QUEUED';
CREATE UNIQUE INDEX graph_job_running ON graph_job (merchant_id) WHERE status IN ('READING', 'DRAWING', 'STORING');
CREATE INDEX graph_job_waiting ON graph_job (is_large, requested_at, id)
    WHERE status IN ('QUEUED', 'READING', 'DRAWING', 'STORING');

-- A snapshot is a job's, once; and one per merchant and day.
ALTER TABLE graph_snapshot
    DROP CONSTRAINT graph_snapshot_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT graph_snapshot_job FOREIGN KEY (merchant_id, id) REFERENCES graph_job,
    ADD CONSTRAINT graph_snapshot_day UNIQUE (merchant_id, taken_on);
-- What days show that are alike is stored once, and goes with the last of them.
ALTER TABLE graph_drawing
    DROP CONSTRAINT graph_drawing_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT graph_drawing_merchant FOREIGN KEY (merchant_id) REFERENCES merchant;
ALTER TABLE graph_snapshot
    ADD CONSTRAINT graph_snapshot_drawing FOREIGN KEY (merchant_id, drawing_id) REFERENCES graph_drawing,
    ADD CONSTRAINT graph_snapshot_drawn CHECK (
        drawn_on <= taken_on AND (drawing_id = id OR new_referral_count + lost_referral_count + new_hub_count = 0)
    );
CREATE INDEX graph_snapshot_of_drawing ON graph_snapshot (merchant_id, drawing_id);
ALTER TABLE graph_node
    DROP CONSTRAINT graph_node_pkey,
    ADD PRIMARY KEY (merchant_id, drawing_id, rank),
    ADD CONSTRAINT graph_node_drawing FOREIGN KEY (merchant_id, drawing_id) REFERENCES graph_drawing
        ON DELETE CASCADE,
    ADD CONSTRAINT graph_node_member FOREIGN KEY (merchant_id, member_id) REFERENCES member,
    ADD CONSTRAINT graph_node_framed CHECK (x BETWEEN 0 AND 1000 AND y BETWEEN 0 AND 1000),
    ADD CONSTRAINT graph_node_degree CHECK (degree > 0 AND recruited BETWEEN 0 AND degree),
    ADD CONSTRAINT graph_node_new_hub CHECK (is_hub OR NOT is_new_hub);
CREATE INDEX graph_node_new ON graph_node (merchant_id, drawing_id, rank) WHERE is_new_hub;
-- Advocates, and how many there are.
CREATE INDEX graph_node_advocate ON graph_node (merchant_id, drawing_id, recruited, member_id) WHERE recruited > 0;
ALTER TABLE graph_edge
    DROP CONSTRAINT graph_edge_pkey,
    ADD PRIMARY KEY (merchant_id, drawing_id, rank),
    ADD CONSTRAINT graph_edge_drawing FOREIGN KEY (merchant_id, drawing_id) REFERENCES graph_drawing
        ON DELETE CASCADE,
    ADD CONSTRAINT graph_edge_referrer FOREIGN KEY (merchant_id, referrer_id) REFERENCES member,
    ADD CONSTRAINT graph_edge_referee FOREIGN KEY (merchant_id, referee_id) REFERENCES member,
    ADD CONSTRAINT graph_edge_not_self CHECK (referrer_id <> referee_id);
CREATE INDEX graph_edge_new ON graph_edge (merchant_id, drawing_id, rank) WHERE is_new;
ALTER TABLE graph_file
    DROP CONSTRAINT graph_file_pkey,
    ADD PRIMARY KEY (merchant_id, drawing_id, format),
    ADD CONSTRAINT graph_file_drawing FOREIGN KEY (merchant_id, drawing_id) REFERENCES graph_drawing
        ON DELETE CASCADE,
    ADD CONSTRAINT graph_file_format CHECK (format IN ('svg', 'json', 'hubs')),
    -- Files are compressed already. What fits into a block is in the row; pictures don't, and aren't.
    ALTER COLUMN body SET STORAGE MAIN;
"""

SEGMENTS = """
-- Who is in a segment that a member's own row doesn't tell, as of the last refresh, whose row is its lock.
ALTER TABLE segment_member
    DROP CONSTRAINT segment_member_pkey,
    ADD PRIMARY KEY (merchant_id, member_id, segment),
    ADD CONSTRAINT segment_member_member FOREIGN KEY (merchant_id, member_id) REFERENCES member,
    ADD CONSTRAINT segment_member_segment CHECK (segment IN ('HIGH_SPEND', 'ADVOCATES'));
CREATE INDEX segment_member_of_segment ON segment_member (merchant_id, segment, member_id);
ALTER TABLE segment_refresh
    ADD CONSTRAINT segment_refresh_merchant FOREIGN KEY (merchant_id) REFERENCES merchant;
"""

REPORTS = """
-- One run of a report of each kind at a time; what the last one found stays until the next one has ended.
ALTER TABLE report_run
    DROP CONSTRAINT report_run_pkey,
    ADD PRIMARY KEY (merchant_id, kind),
    ADD CONSTRAINT report_run_merchant FOREIGN KEY (merchant_id) REFERENCES merchant,
    ADD CONSTRAINT report_run_kind CHECK (kind IN ('INTEGRITY', 'PORTFOLIO')),
    ADD CONSTRAINT report_run_status CHECK (status IN ('QUEUED', 'RUNNING', 'DONE', 'FAILED')),
    ADD CONSTRAINT report_run_ended CHECK ((status IN ('DONE', 'FAILED')) = (finished_at IS NOT NULL)),
    ADD CONSTRAINT report_run_leased CHECK (status <> 'RUNNING' OR lease_until IS NOT NULL),
    ADD CONSTRAINT report_run_problem CHECK ((status = 'FAILED') = (problem IS NOT NULL)),
    ADD CONSTRAINT report_run_kept CHECK ((status <> 'DONE' OR content IS NOT NULL)
        AND (content IS NULL) = (generated_at IS NULL) AND (content IS NULL) = (seconds IS NULL));
CREATE INDEX report_run_waiting ON report_run (requested_at, id) WHERE status IN ('QUEUED', 'RUNNING');
"""

ADVISOR = """
ALTER TABLE advice_run
    DROP CONSTRAINT advice_run_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT advice_run_merchant FOREIGN KEY (merchant_id) REFERENCES merchant,
    ADD CONSTRAINT advice_run_status CHECK (status IN ('QUEUED', 'RUNNING', 'DONE', 'FAILED')),
    ADD CONSTRAINT advice_run_ended CHECK ((status IN ('DONE', 'FAILED')) = (finished_at IS NOT NULL)),
    ADD CONSTRAINT advice_run_leased CHECK (status = 'QUEUED' OR lease_until IS NOT NULL),
    ADD CONSTRAINT advice_run_source CHECK (source IN ('LLM', 'RULES')),
    -- An answer is whole, and rules say why they gave it.
    ADD CONSTRAINT advice_run_answered CHECK ((status = 'DONE') = (source IS NOT NULL)
        AND (source IS NULL) = (rejected IS NULL) AND (source IS NULL) = (facts IS NULL)),
    ADD CONSTRAINT advice_run_fallback CHECK ((source IS NOT DISTINCT FROM 'RULES') = (fallback_reason IS NOT NULL)),
    ADD CONSTRAINT advice_run_problem CHECK ((status = 'FAILED') = (problem IS NOT NULL));
-- One run of a merchant at a time.
CREATE UNIQUE INDEX advice_run_live ON advice_run (merchant_id) WHERE status IN ('QUEUED', 'RUNNING');
-- What workers look for, whatever the merchant.
CREATE INDEX advice_run_waiting ON advice_run (requested_at, id) WHERE status IN ('QUEUED', 'RUNNING');

ALTER TABLE suggestion
    DROP CONSTRAINT suggestion_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT suggestion_run FOREIGN KEY (merchant_id, run_id) REFERENCES advice_run,
    ADD CONSTRAINT suggestion_position UNIQUE (merchant_id, run_id, position);
-- A suggestion is adopted once.
ALTER TABLE pool ADD CONSTRAINT pool_suggestion FOREIGN KEY (merchant_id, suggestion_id) REFERENCES suggestion;
CREATE UNIQUE INDEX pool_suggestion_once ON pool (merchant_id, suggestion_id) WHERE suggestion_id IS NOT NULL;
"""

WEBHOOKS = """
ALTER TABLE webhook
    DROP CONSTRAINT webhook_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT webhook_merchant FOREIGN KEY (merchant_id) REFERENCES merchant,
    ADD CONSTRAINT webhook_disabled CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL)),
    ADD CONSTRAINT webhook_disabled_reason CHECK (disabled_reason IN ('REQUESTED', 'GONE', 'FAILING')),
    ADD CONSTRAINT webhook_previous_secret CHECK ((previous_secret IS NULL) = (previous_secret_until IS NULL)),
    ADD CONSTRAINT webhook_failing CHECK (failures = 0 OR failing_since IS NOT NULL),
    ADD CONSTRAINT webhook_feed CHECK ((feed_to IS NULL) = (feed_txid IS NULL)
        AND (feed_to IS NULL) = (feed_event_id IS NULL));
-- What workers look for, whatever the merchant.
CREATE INDEX webhook_enabled ON webhook (merchant_id, id) WHERE disabled_at IS NULL;
CREATE INDEX webhook_behind ON webhook (merchant_id, id) WHERE disabled_at IS NULL AND feed_to IS NOT NULL;

ALTER TABLE webhook_delivery
    DROP CONSTRAINT webhook_delivery_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT webhook_delivery_webhook FOREIGN KEY (merchant_id, webhook_id) REFERENCES webhook,
    ADD CONSTRAINT webhook_delivery_state CHECK (state IN ('PENDING', 'DELIVERED', 'DEAD')),
    ADD CONSTRAINT webhook_delivery_settled CHECK ((state = 'PENDING') = (settled_at IS NULL)),
    ADD CONSTRAINT webhook_delivery_due CHECK (next_attempt_at IS NULL OR state = 'PENDING'),
    -- An event is told to a webhook by one delivery.
    ADD CONSTRAINT webhook_delivery_once UNIQUE (merchant_id, webhook_id, event_id);
-- Of a subject one delivery at a time has its turn, whoever sends it.
CREATE UNIQUE INDEX webhook_delivery_turn ON webhook_delivery (merchant_id, webhook_id, subject_id)
    WHERE next_attempt_at IS NOT NULL;
-- They wait in the order in which they came, however often some were sent again.
CREATE UNIQUE INDEX webhook_delivery_order ON webhook_delivery (merchant_id, webhook_id, subject_id, position)
    WHERE state = 'PENDING';
CREATE INDEX webhook_delivery_due_at ON webhook_delivery (merchant_id, webhook_id, next_attempt_at)
    WHERE next_attempt_at IS NOT NULL;
CREATE INDEX webhook_delivery_by_state ON webhook_delivery (merchant_id, webhook_id, state, id);
"""

MOVING = """
-- A merchant brings in one file at a time. What it says is kept row by row until it is applied, and no longer.
ALTER TABLE import_file
    DROP CONSTRAINT import_file_pkey,
    ADD PRIMARY KEY (merchant_id, id),
    ADD CONSTRAINT import_file_merchant FOREIGN KEY (merchant_id) REFERENCES merchant,
    ADD CONSTRAINT import_file_kind CHECK (kind IN ('MEMBERS', 'BALANCES', 'CODES', 'PURCHASES')),
    ADD CONSTRAINT import_file_status CHECK (status IN ('STAGING', 'APPLYING', 'APPLIED')),
    ADD CONSTRAINT import_file_applied CHECK ((status = 'APPLIED') = (applied_at IS NOT NULL));
CREATE UNIQUE INDEX import_file_open ON import_file (merchant_id) WHERE status <> 'APPLIED';
CREATE INDEX import_file_latest ON import_file (merchant_id, kind, applied_at);
ALTER TABLE import_row
    DROP CONSTRAINT import_row_pkey,
    ADD PRIMARY KEY (merchant_id, import_id, line),
    ADD CONSTRAINT import_row_file FOREIGN KEY (merchant_id, import_id) REFERENCES import_file;
-- By which ciphertexts are found when data keys change.
CREATE UNIQUE INDEX import_row_by_id ON import_row (merchant_id, id);

-- Of a merchant that moves between servers, or has moved (app/storage/fences.py). It refers to no merchant: where one
-- arrives the fence is there before its rows. No model, because only raw statements touch it.
CREATE TABLE fence (
    merchant_id uuid NOT NULL,
    move uuid NOT NULL,
    state varchar(8) NOT NULL,
    -- The database at the other end: its server's own number, and its name.
    peer text NOT NULL,
    since timestamptz NOT NULL,
    copied_at timestamptz,
    PRIMARY KEY (merchant_id),
    CONSTRAINT fence_state CHECK (state IN ('LEAVING', 'CLOSED', 'ARRIVING'))
);
-- Called by triggers that a move puts on every table for one merchant's rows, so that others pay nothing. Who writes
-- shares a lock until it commits; who closes takes it alone once the fence says so, and so waits for who saw it open.
CREATE FUNCTION refuse_closed() RETURNS trigger LANGUAGE plpgsql AS $guard$
BEGIN
    IF current_setting('flash.mover', true) IS DISTINCT FROM TG_ARGV[0] AND (
        NOT pg_try_advisory_xact_lock_shared(hashtextextended(TG_ARGV[0], 0))
        OR EXISTS (SELECT FROM fence WHERE merchant_id = TG_ARGV[0]::uuid AND state <> 'LEAVING')
    ) THEN
        RAISE EXCEPTION 'the merchant is moving to another server, or has moved'
            USING ERRCODE = 'FL002', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
    END IF;
    RETURN coalesce(NEW, OLD);
END $guard$;
"""

# By this a database is told from one that was made while these two files still changed (app/operate/preflight.py).
MADE_BY = "COMMENT ON TABLE tortoise_migrations IS 'made by Flash 0.2.0 or newer'"


# How a table's rows live decides how it is vacuumed. What a merchant sets up, a few rows that rarely change, is left to
# PostgreSQL's defaults.
#: Written once. Vacuumed for what was inserted: so index-only scans read no rows, and freezing comes in small parts.
GROWING = (
    "autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_vacuum_scale_factor = 0.05, "
    "autovacuum_analyze_scale_factor = 0.05"
)
#: Changed again and again: vacuumed after a twentieth, and a large one after a hundred thousand rows, at five times the
#: usual pace.
CHANGING = (
    "autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_max_threshold = 100000, "
    "autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05, "
    "autovacuum_vacuum_cost_limit = 1000"
)
#: Rows come and go: vacuumed after a few hundred, without a pause.
QUEUE = (
    "autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0.01, "
    "autovacuum_vacuum_max_threshold = 50000, autovacuum_vacuum_cost_delay = 0"
)
LIVES = {
    GROWING: (
        "address", "archived_event", "archived_wallet", "bearer_code", "claim", "code_batch", "delivery",
        "entry_reference", "erasure", "event_archive", "external_id", "hold_request", "order_amendment", "points_cover",
        "points_entry", "points_part", "points_return", "pool_terms", "purchase", "redemption", "referral", "refund",
        "reversal", "reward_redemption", "rewarded_mailbox", "sales_order",
    ),
    CHANGING: (
        "code", "first_order", "graph_drawing", "graph_edge", "graph_file", "graph_node", "graph_snapshot", "hold",
        "hold_code", "hold_reward", "invite", "invite_quota", "member", "points_lot", "pool_budget", "segment_member",
        "wallet",
    ),
    QUEUE: (
        "advice_run", "bulk_job", "bulk_job_page", "code_revival", "graph_job", "hold_part", "import_file",
        "import_row", "report_run", "segment_refresh", "stock_change", "webhook", "webhook_delivery",
    ),
}  # fmt: skip
#: Room on a page for the next version of a row, where no index has a column that changes (HOT).
ROOM = {"invite_quota": 80, "member": 90, "points_lot": 80, "pool_budget": 50, "wallet": 80, "webhook": 50}
STORAGE = "".join(
    f"ALTER TABLE {table} SET ({settings}{f', fillfactor = {ROOM[table]}' if table in ROOM else ''});\n"
    for settings, tables in LIVES.items()
    for table in tables
)


class Migration(migrations.Migration):
    """Swap Tortoise's single-column keys for composite ones and add what its models can't say."""

    dependencies = [("flash", "0001_initial")]
    # A noun after those that it refers to.
    operations = [
        ops.RunSQL(
            [
                REFUSALS, MERCHANTS, MEMBERS, POOLS, CODES, CAMPAIGNS, JOBS, REDEMPTIONS, EVENTS, POINTS, ORDERS,
                REWARDS, HOLDS, REFERRALS, GRAPH, SEGMENTS, REPORTS, ADVISOR, WEBHOOKS, MOVING, STORAGE, MADE_BY,
            ]
        )
    ]  # fmt: skip
