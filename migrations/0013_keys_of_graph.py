"""Keys and checks of the network's snapshots and their jobs; by hand, see README.md."""

from tortoise import migrations
from tortoise.migrations import operations as ops

KEYS = """
ALTER TABLE graph_job DROP CONSTRAINT graph_job_pkey, ADD PRIMARY KEY (merchant_id, id);
ALTER TABLE graph_snapshot DROP CONSTRAINT graph_snapshot_pkey, ADD PRIMARY KEY (merchant_id, id);
ALTER TABLE graph_node DROP CONSTRAINT graph_node_pkey, ADD PRIMARY KEY (merchant_id, snapshot_id, rank);
ALTER TABLE graph_edge DROP CONSTRAINT graph_edge_pkey, ADD PRIMARY KEY (merchant_id, snapshot_id, rank);
ALTER TABLE graph_file DROP CONSTRAINT graph_file_pkey, ADD PRIMARY KEY (merchant_id, snapshot_id, format);

ALTER TABLE graph_job ADD CONSTRAINT graph_job_merchant FOREIGN KEY (merchant_id) REFERENCES merchant;
-- A snapshot is a job's, once.
ALTER TABLE graph_snapshot ADD CONSTRAINT graph_snapshot_job FOREIGN KEY (merchant_id, id) REFERENCES graph_job;
ALTER TABLE graph_node
    ADD CONSTRAINT graph_node_snapshot FOREIGN KEY (merchant_id, snapshot_id) REFERENCES graph_snapshot
        ON DELETE CASCADE,
    ADD CONSTRAINT graph_node_member FOREIGN KEY (merchant_id, member_id) REFERENCES member;
ALTER TABLE graph_edge
    ADD CONSTRAINT graph_edge_snapshot FOREIGN KEY (merchant_id, snapshot_id) REFERENCES graph_snapshot
        ON DELETE CASCADE,
    ADD CONSTRAINT graph_edge_referrer FOREIGN KEY (merchant_id, referrer_id) REFERENCES member,
    ADD CONSTRAINT graph_edge_referee FOREIGN KEY (merchant_id, referee_id) REFERENCES member;
ALTER TABLE graph_file
    ADD CONSTRAINT graph_file_snapshot FOREIGN KEY (merchant_id, snapshot_id) REFERENCES graph_snapshot
        ON DELETE CASCADE;
"""

PROMISES = """
-- One snapshot per merchant and day.
ALTER TABLE graph_snapshot ADD CONSTRAINT graph_snapshot_day UNIQUE (merchant_id, taken_on);
-- At most one job of a merchant waits, and at most one is being worked at.
CREATE UNIQUE INDEX graph_job_queued ON graph_job (merchant_id) WHERE status = 'QUEUED';
CREATE UNIQUE INDEX graph_job_running ON graph_job (merchant_id) WHERE status IN ('READING', 'DRAWING', 'STORING');
ALTER TABLE graph_job
    ADD CONSTRAINT graph_job_status CHECK (status IN ('QUEUED', 'READING', 'DRAWING', 'STORING', 'DONE', 'FAILED')),
    ADD CONSTRAINT graph_job_ended CHECK ((status IN ('DONE', 'FAILED')) = (finished_at IS NOT NULL)),
    ADD CONSTRAINT graph_job_leased CHECK (status = 'QUEUED' OR lease_until IS NOT NULL);
ALTER TABLE graph_node
    ADD CONSTRAINT graph_node_framed CHECK (x BETWEEN 0 AND 1000 AND y BETWEEN 0 AND 1000),
    ADD CONSTRAINT graph_node_degree CHECK (degree > 0 AND recruited BETWEEN 0 AND degree),
    ADD CONSTRAINT graph_node_new_hub CHECK (is_hub OR NOT is_new_hub);
ALTER TABLE graph_edge ADD CONSTRAINT graph_edge_not_self CHECK (referrer_id <> referee_id);
ALTER TABLE graph_file ADD CONSTRAINT graph_file_format CHECK (format IN ('svg', 'json'));

CREATE INDEX graph_node_new ON graph_node (merchant_id, snapshot_id, rank) WHERE is_new_hub;
CREATE INDEX graph_edge_new ON graph_edge (merchant_id, snapshot_id, rank) WHERE is_new;
-- Advocates, and how many there are.
CREATE INDEX graph_node_advocate ON graph_node (merchant_id, snapshot_id, recruited, member_id) WHERE recruited > 0;
-- Files are compressed already.
ALTER TABLE graph_file ALTER COLUMN body SET STORAGE EXTERNAL;
"""


class Migration(migrations.Migration):
    """Swap the single-column keys and add what models can't say."""

    dependencies = [("flash", "0012_graph")]
    operations = [ops.RunSQL(KEYS), ops.RunSQL(PROMISES)]
