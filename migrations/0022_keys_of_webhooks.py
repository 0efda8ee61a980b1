"""Keys and checks of webhooks, and the index that their feed reads events by; by hand, see README.md."""

from tortoise import migrations
from tortoise.migrations import operations as ops

KEYS = """
ALTER TABLE webhook DROP CONSTRAINT webhook_pkey, ADD PRIMARY KEY (merchant_id, id);
ALTER TABLE webhook_delivery DROP CONSTRAINT webhook_delivery_pkey, ADD PRIMARY KEY (merchant_id, id);
ALTER TABLE webhook ADD CONSTRAINT webhook_merchant FOREIGN KEY (merchant_id) REFERENCES merchant;
ALTER TABLE webhook_delivery
    ADD CONSTRAINT webhook_delivery_webhook FOREIGN KEY (merchant_id, webhook_id) REFERENCES webhook,
    ADD CONSTRAINT webhook_delivery_event FOREIGN KEY (merchant_id, event_id) REFERENCES event;
"""

# Events that are older than webhooks have no number, and need none: setting a default rewrites no row.
FEED = """
ALTER TABLE event ALTER COLUMN txid SET DEFAULT (pg_current_xact_id()::text::bigint);
CREATE INDEX event_feed ON event (merchant_id, txid) WHERE txid IS NOT NULL;
"""

PROMISES = """
ALTER TABLE webhook
    ADD CONSTRAINT webhook_disabled CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL)),
    ADD CONSTRAINT webhook_disabled_reason CHECK (disabled_reason IN ('REQUESTED', 'GONE', 'FAILING')),
    ADD CONSTRAINT webhook_previous_secret CHECK ((previous_secret IS NULL) = (previous_secret_until IS NULL)),
    ADD CONSTRAINT webhook_failing CHECK (failures = 0 OR failing_since IS NOT NULL),
    ADD CONSTRAINT webhook_feed CHECK ((feed_to IS NULL) = (feed_txid IS NULL)
        AND (feed_to IS NULL) = (feed_event_id IS NULL));
-- What workers look for, whatever the merchant.
CREATE INDEX webhook_enabled ON webhook (merchant_id, id) WHERE disabled_at IS NULL;

ALTER TABLE webhook_delivery
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


class Migration(migrations.Migration):
    """Swap the single-column keys and add what models can't say."""

    dependencies = [("flash", "0021_webhooks")]
    operations = [ops.RunSQL(KEYS), ops.RunSQL(FEED), ops.RunSQL(PROMISES)]
