"""Keys, checks and the triggers that hold the promises about referrals; by hand, see README.md."""

from tortoise import migrations
from tortoise.migrations import operations as ops

KEYS = """
ALTER TABLE invite DROP CONSTRAINT invite_pkey, ADD PRIMARY KEY (merchant_id, id);
ALTER TABLE invite_quota DROP CONSTRAINT invite_quota_pkey, ADD PRIMARY KEY (merchant_id, member_id);
ALTER TABLE referral DROP CONSTRAINT referral_pkey, ADD PRIMARY KEY (merchant_id, id);

ALTER TABLE referral_program
    ADD CONSTRAINT referral_program_merchant FOREIGN KEY (merchant_id) REFERENCES merchant;
ALTER TABLE invite
    ADD CONSTRAINT invite_referrer FOREIGN KEY (merchant_id, referrer_id) REFERENCES member,
    ADD CONSTRAINT invite_referee FOREIGN KEY (merchant_id, referee_id) REFERENCES member;
ALTER TABLE invite_quota ADD CONSTRAINT invite_quota_member FOREIGN KEY (merchant_id, member_id) REFERENCES member;

-- An edge is that of an invite which is CONVERTED and, because the key holds it, stays so.
ALTER TABLE invite ADD CONSTRAINT invite_edge UNIQUE (merchant_id, id, referrer_id, referee_id, status);
ALTER TABLE referral
    ADD CONSTRAINT referral_invite FOREIGN KEY (merchant_id, invite_id, referrer_id, referee_id, invite_status)
        REFERENCES invite (merchant_id, id, referrer_id, referee_id, status),
    ADD CONSTRAINT referral_converted CHECK (invite_status = 'CONVERTED'),
    ADD CONSTRAINT referral_purchase FOREIGN KEY (merchant_id, purchase_id) REFERENCES purchase,
    ADD CONSTRAINT referral_referrer_entry FOREIGN KEY (merchant_id, referrer_entry_id) REFERENCES points_entry,
    ADD CONSTRAINT referral_referee_entry FOREIGN KEY (merchant_id, referee_entry_id) REFERENCES points_entry;
"""

PROMISES = """
ALTER TABLE referral_program
    ADD CONSTRAINT referral_program_points CHECK (referrer_points > 0 AND referee_points > 0),
    ADD CONSTRAINT referral_program_quotas CHECK (
        invites_per_batch BETWEEN 0 AND 5000 AND invites_per_day BETWEEN 0 AND 100000
        AND invites_lifetime BETWEEN 0 AND 1000000
    ),
    ADD CONSTRAINT referral_program_days CHECK (
        invite_lifetime_days BETWEEN 1 AND 3650 AND refund_window_days BETWEEN 0 AND 3650
    ),
    ADD CONSTRAINT referral_program_converts_on CHECK (converts_on IN ('JOIN', 'FIRST_PURCHASE')),
    ADD CONSTRAINT referral_program_review CHECK (review_policy IN ('NONE', 'FLAGGED', 'ALL'));

-- What a member sent is never negative and never over the limits that its latest batch was let through by.
ALTER TABLE invite_quota
    ADD CONSTRAINT invite_quota_day CHECK (sent_today BETWEEN 0 AND day_max),
    ADD CONSTRAINT invite_quota_lifetime CHECK (sent_lifetime BETWEEN 0 AND lifetime_max);

ALTER TABLE invite
    ADD CONSTRAINT invite_token UNIQUE (merchant_id, token_hash),
    ADD CONSTRAINT invite_status CHECK (CASE status
        WHEN 'PENDING' THEN converted_at IS NULL
        WHEN 'CONVERTED' THEN converted_at IS NOT NULL AND accepted_at IS NOT NULL
        WHEN 'EXPIRED' THEN converted_at IS NULL
        WHEN 'CANCELLED' THEN converted_at IS NULL AND accepted_at IS NULL
        ELSE false END),
    ADD CONSTRAINT invite_accepted CHECK ((accepted_at IS NULL) = (referee_id IS NULL)),
    ADD CONSTRAINT invite_not_self CHECK (referrer_id <> referee_id);
-- An address has one invite at a time, whoever sends it; a member comes by one invite.
CREATE UNIQUE INDEX invite_pending ON invite (merchant_id, email_index) WHERE status = 'PENDING';
CREATE UNIQUE INDEX invite_of_referee ON invite (merchant_id, referee_id) WHERE referee_id IS NOT NULL;
-- What the expiry job looks for, and the lists.
CREATE INDEX invite_due ON invite (merchant_id, expires_at) WHERE status = 'PENDING';
CREATE INDEX invite_by_status ON invite (merchant_id, status, id);
CREATE INDEX invite_of_referrer ON invite (merchant_id, referrer_id, id);
-- What flags count.
CREATE INDEX invite_alike ON invite (merchant_id, referrer_id, domain_index, created_at) WHERE domain_index IS NOT NULL;
CREATE INDEX invite_of_mailbox ON invite (merchant_id, referrer_id, mailbox_index) WHERE accepted_at IS NOT NULL;

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

-- One referrer per referee, nobody refers itself, each invite and each purchase converts once; either both are
-- credited or neither is.
ALTER TABLE referral
    ADD CONSTRAINT referral_referee UNIQUE (merchant_id, referee_id),
    ADD CONSTRAINT referral_once UNIQUE (merchant_id, invite_id),
    ADD CONSTRAINT referral_purchase_once UNIQUE (merchant_id, purchase_id),
    ADD CONSTRAINT referral_not_self CHECK (referrer_id <> referee_id),
    ADD CONSTRAINT referral_points CHECK (referrer_points > 0 AND referee_points > 0),
    ADD CONSTRAINT referral_credited CHECK (
        (referrer_entry_id IS NULL) = (released_at IS NULL) AND (referee_entry_id IS NULL) = (released_at IS NULL)
    ),
    ADD CONSTRAINT referral_reversed CHECK ((reversed_at IS NULL) = (shortfall IS NULL) AND shortfall >= 0);
CREATE INDEX referral_of_referrer ON referral (merchant_id, referrer_id, id);
CREATE INDEX referral_latest ON referral (merchant_id, referrer_id, converted_at);
CREATE INDEX referral_returned ON referral (merchant_id, referrer_id) WHERE reversed_at IS NOT NULL;
CREATE INDEX referral_released ON referral (merchant_id, id) WHERE released_at IS NOT NULL;
CREATE INDEX referral_held ON referral (merchant_id, id) WHERE released_at IS NULL AND reversed_at IS NULL;

-- Who brought whom never changes, and is a forest: nobody is found above itself.
CREATE FUNCTION referral_guard() RETURNS trigger LANGUAGE plpgsql AS $guard$
DECLARE
    above uuid := NEW.referrer_id;
BEGIN
    IF TG_OP = 'UPDATE' AND (OLD.invite_id, OLD.referrer_id, OLD.referee_id)
            IS DISTINCT FROM (NEW.invite_id, NEW.referrer_id, NEW.referee_id) THEN
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
    RETURN NEW;
END $guard$;
CREATE TRIGGER referral_guard BEFORE INSERT OR UPDATE ON referral FOR EACH ROW EXECUTE FUNCTION referral_guard();

INSERT INTO referral_program (merchant_id) SELECT merchant_id FROM merchant;
"""


class Migration(migrations.Migration):
    """Swap the single-column keys and add what models can't say."""

    dependencies = [("flash", "0010_referrals")]
    operations = [ops.RunSQL(KEYS), ops.RunSQL(PROMISES)]
