"""What the engine promises, as statements that find where a merchant's rows break it.

The constraints in `migrations/` hold the promises; these statements don't trust them. Each is one statement, so it
sees one state of the rows however busy the merchant is. They read everything the merchant has, and lock nothing.
"""

from typing import Final, NamedTuple


class Promise(NamedTuple):
    """A promise and its violations: selects of one row each, over the merchant $1."""

    name: str
    violations: tuple[str, ...]

    @property
    def statement(self) -> str:
        """Count the violations."""
        counts = " + ".join(f"(SELECT count(*) FROM ({violation}) violation)" for violation in self.violations)
        return f"SELECT {counts} AS violations"


class Reference(NamedTuple):
    """That a column of a table names a row of another one, of the same merchant."""

    table: str
    column: str
    target: str
    key: str = "id"


#: Every reference between rows of a merchant; tests/integrity compares them with the foreign keys.
REFERENCES: Final = (
    Reference("wallet", "member_id", "member"),
    Reference("address", "member_id", "member"),
    Reference("pool", "fallback_pool_id", "pool"),
    Reference("stock_alert", "pool_id", "pool"),
    Reference("code_batch", "pool_id", "pool"),
    Reference("code", "pool_id", "pool"),
    Reference("code", "batch_id", "code_batch"),
    Reference("code", "member_id", "member"),
    Reference("claim", "pool_id", "pool"),
    Reference("claim", "code_id", "code"),
    Reference("claim", "member_id", "member"),
    Reference("campaign", "pool_id", "pool"),
    Reference("delivery", "campaign_id", "campaign"),
    Reference("delivery", "code_id", "code"),
    Reference("redemption", "code_id", "code"),
    Reference("redemption", "pool_id", "pool"),
    Reference("reversal", "redemption_id", "redemption"),
    Reference("points_entry", "member_id", "wallet", "member_id"),
    Reference("points_due", "entry_id", "points_entry"),
    Reference("purchase", "member_id", "member"),
    Reference("purchase_reversal", "purchase_id", "purchase"),
    Reference("reward", "pool_id", "pool"),
    Reference("reward_redemption", "reward_id", "reward"),
    Reference("reward_redemption", "member_id", "member"),
    Reference("reward_redemption", "code_id", "code"),
    Reference("reward_redemption", "entry_id", "points_entry"),
    Reference("invite", "referrer_id", "member"),
    Reference("invite", "referee_id", "member"),
    Reference("invite_quota", "member_id", "member"),
    Reference("referral", "invite_id", "invite"),
    Reference("referral", "purchase_id", "purchase"),
    Reference("referral", "referrer_entry_id", "points_entry"),
    Reference("referral", "referee_entry_id", "points_entry"),
    Reference("graph_snapshot", "id", "graph_job"),
    Reference("graph_node", "snapshot_id", "graph_snapshot"),
    Reference("graph_node", "member_id", "member"),
    Reference("graph_edge", "snapshot_id", "graph_snapshot"),
    Reference("graph_edge", "referrer_id", "member"),
    Reference("graph_edge", "referee_id", "member"),
    Reference("graph_file", "snapshot_id", "graph_snapshot"),
    Reference("webhook_delivery", "webhook_id", "webhook"),
    Reference("webhook_delivery", "event_id", "event"),
)


def _repeated(table: str, *columns: str, where: str = "true") -> str:
    """Select the keys that more than one row of a table has."""
    key = ", ".join(columns)
    return f"SELECT FROM {table} WHERE merchant_id = $1 AND {where} GROUP BY {key} HAVING count(*) > 1"


def _dangling(reference: Reference) -> str:
    """Select the rows that name a row which the merchant doesn't have."""
    return f"""
        SELECT FROM {reference.table} t WHERE t.merchant_id = $1 AND t.{reference.column} IS NOT NULL AND NOT EXISTS (
            SELECT FROM {reference.target} x WHERE x.merchant_id = $1 AND x.{reference.key} = t.{reference.column}
        )"""


ONE_OWNER: Final = Promise(
    "ONE_OWNER",
    (
        _repeated("code", "id"),
        # Claims of one code, of the pool that was asked and of the one that served it, are its owner's.
        """
        SELECT FROM claim k JOIN code c ON c.merchant_id = $1 AND c.id = k.code_id
        WHERE k.merchant_id = $1 AND (k.member_id IS DISTINCT FROM c.member_id OR c.state = 'AVAILABLE')""",
        """
        SELECT FROM code WHERE merchant_id = $1 AND state IN ('ALLOCATED', 'REDEEMED')
            AND member_id IS NULL AND email_index IS NULL""",
        "SELECT FROM code WHERE merchant_id = $1 AND state = 'AVAILABLE' AND num_nonnulls(member_id, email_index) > 0",
    ),
)
# Where a member turns out to own an address, both may have spent what one of them could have: that can't be taken back,
# so adopted codes count while they are live only.
CLAIM_LIMIT: Final = Promise(
    "CLAIM_LIMIT",
    tuple(
        f"""
        SELECT FROM (
            SELECT k.pool_id, count(*) FILTER (WHERE a.subject_id IS NULL OR c.state = 'ALLOCATED') AS claims
            FROM claim k JOIN code c ON c.merchant_id = $1 AND c.id = k.code_id
            LEFT JOIN (
                SELECT DISTINCT subject_id FROM event
                WHERE merchant_id = $1 AND type IN ('code.adopted', 'code.adopted_after_end')
            ) a ON a.subject_id = k.code_id
            WHERE k.merchant_id = $1 AND k.{claimant} IS NOT NULL GROUP BY k.pool_id, k.{claimant}
        ) k JOIN pool p ON p.merchant_id = $1 AND p.id = k.pool_id WHERE k.claims > p.claims_per_member"""
        for claimant in ("member_id", "email_index")
    ),
)
REDEEMED_ONCE: Final = Promise(
    "REDEEMED_ONCE",
    (
        # A code is spent by the redemption that stands, or by one that was taken back for good.
        """
        SELECT FROM code c LEFT JOIN (
            SELECT r.code_id, count(*) AS spent FROM redemption r
            LEFT JOIN reversal x ON x.merchant_id = $1 AND x.redemption_id = r.id
            WHERE r.merchant_id = $1 AND (r.reversed_at IS NULL OR NOT x.reinstated) GROUP BY r.code_id
        ) r ON r.code_id = c.id
        WHERE c.merchant_id = $1 AND coalesce(r.spent, 0) <> CASE c.state WHEN 'REDEEMED' THEN 1 ELSE 0 END""",
        """
        SELECT FROM (SELECT * FROM redemption WHERE merchant_id = $1) r
        FULL JOIN (SELECT * FROM reversal WHERE merchant_id = $1) x ON x.redemption_id = r.id
        WHERE (r.reversed_at IS NULL) <> (x.redemption_id IS NULL)""",
        _repeated("redemption", "order_id", "position", where="reversed_at IS NULL"),
        # What a redemption counts for is the pool of its code.
        """
        SELECT FROM redemption r JOIN code c ON c.merchant_id = $1 AND c.id = r.code_id
        WHERE r.merchant_id = $1 AND r.pool_id <> c.pool_id""",
    ),
)
WHOLE_BATCHES: Final = Promise(
    "WHOLE_BATCHES",
    (
        """
        SELECT FROM code_batch b LEFT JOIN (
            SELECT batch_id, count(*) AS codes FROM code WHERE merchant_id = $1 GROUP BY batch_id
        ) c ON c.batch_id = b.id WHERE b.merchant_id = $1 AND coalesce(c.codes, 0) <> b.size""",
        "SELECT FROM code_batch WHERE merchant_id = $1 AND size NOT BETWEEN 1 AND 5000",
        """
        SELECT FROM campaign a LEFT JOIN (
            SELECT campaign_id, count(*) AS sent FROM delivery WHERE merchant_id = $1 GROUP BY campaign_id
        ) d ON d.campaign_id = a.id
        WHERE a.merchant_id = $1 AND coalesce(d.sent, 0) NOT BETWEEN a.allocated_count AND a.recipient_count""",
    ),
)
UNIQUE_CODES: Final = Promise("UNIQUE_CODES", (_repeated("code", "fingerprint"),))
CREDITED_ONCE: Final = Promise(
    "CREDITED_ONCE",
    (
        _repeated("points_entry", "reason", "origin"),
        # What a purchase says it earned is what its entry credited.
        """
        SELECT FROM (SELECT * FROM purchase WHERE merchant_id = $1 AND points > 0) b
        FULL JOIN (SELECT * FROM points_entry WHERE merchant_id = $1 AND reason = 'PURCHASE') e
            ON e.origin = replace(b.id::text, '-', '')
        WHERE (b.member_id, b.points) IS DISTINCT FROM (e.member_id, e.amount)""",
        _repeated("purchase", "source", "order_id"),
        """
        SELECT FROM reward_redemption x JOIN points_entry e ON e.merchant_id = $1 AND e.id = x.entry_id
        WHERE x.merchant_id = $1 AND (e.reason <> 'REWARD' OR e.member_id <> x.member_id)""",
    ),
)
EXACT_BALANCES: Final = Promise(
    "EXACT_BALANCES",
    (
        """
        SELECT FROM wallet w LEFT JOIN (
            SELECT member_id, sum(amount) AS points FROM points_entry WHERE merchant_id = $1 GROUP BY member_id
        ) e ON e.member_id = w.member_id
        WHERE w.merchant_id = $1 AND (w.points < 0 OR w.points <> coalesce(e.points, 0))""",
        # An entry's wallet version says where it stands in its member's history.
        """
        SELECT FROM (
            SELECT e.balance_after, v.wallet_points,
                sum(e.amount) OVER (PARTITION BY e.member_id ORDER BY v.wallet_version) AS points
            FROM points_entry e
            JOIN event v ON v.merchant_id = $1 AND v.subject_id = e.id
                AND v.type IN ('points.credited', 'points.debited')
            WHERE e.merchant_id = $1
        ) history WHERE balance_after <> points OR wallet_points <> points""",
    ),
)
INVITE_QUOTAS: Final = Promise(
    "INVITE_QUOTAS",
    (
        """
        SELECT FROM (SELECT * FROM invite_quota WHERE merchant_id = $1) q
        FULL JOIN (
            SELECT referrer_id, count(*) FILTER (WHERE status <> 'EXPIRED') AS sent
            FROM invite WHERE merchant_id = $1 GROUP BY referrer_id
        ) i ON i.referrer_id = q.member_id
        WHERE q.sent_lifetime IS DISTINCT FROM coalesce(i.sent, 0)""",
        """
        SELECT FROM invite_quota WHERE merchant_id = $1
            AND (sent_today NOT BETWEEN 0 AND day_max OR sent_lifetime NOT BETWEEN 0 AND lifetime_max)""",
    ),
)
CONVERTED_REFERRALS: Final = Promise(
    "CONVERTED_REFERRALS",
    (
        """
        SELECT FROM (SELECT * FROM referral WHERE merchant_id = $1) r
        FULL JOIN (SELECT * FROM invite WHERE merchant_id = $1 AND status = 'CONVERTED') i ON i.id = r.invite_id
        WHERE (i.referrer_id, i.referee_id) IS DISTINCT FROM (r.referrer_id, r.referee_id)""",
        _repeated("referral", "referee_id"),
        _repeated("referral", "invite_id"),
        "SELECT FROM referral WHERE merchant_id = $1 AND referrer_id = referee_id",
        # Whoever can't be reached from a member that nobody brought is part of a circle.
        """
        WITH RECURSIVE brought AS (
            SELECT r.referee_id FROM referral r WHERE r.merchant_id = $1 AND NOT EXISTS (
                SELECT FROM referral above WHERE above.merchant_id = $1 AND above.referee_id = r.referrer_id
            )
            UNION
            SELECT r.referee_id FROM brought JOIN referral r ON r.merchant_id = $1
                AND r.referrer_id = brought.referee_id
        )
        SELECT FROM referral r WHERE r.merchant_id = $1
            AND NOT EXISTS (SELECT FROM brought WHERE brought.referee_id = r.referee_id)""",
        # Both are credited for a conversion that stands released, and nobody is without one.
        """
        SELECT FROM referral r
        LEFT JOIN points_entry a ON a.merchant_id = $1 AND a.id = r.referrer_entry_id
        LEFT JOIN points_entry b ON b.merchant_id = $1 AND b.id = r.referee_entry_id
        WHERE r.merchant_id = $1 AND r.released_at IS NOT NULL
            AND (a.reason, a.member_id, a.amount, b.reason, b.member_id, b.amount) IS DISTINCT FROM (
                'REFERRAL_REFERRER', r.referrer_id, r.referrer_points,
                'REFERRAL_REFEREE', r.referee_id, r.referee_points
            )""",
        """
        SELECT FROM points_entry e WHERE e.merchant_id = $1 AND (
            (e.reason = 'REFERRAL_REFERRER'
                AND NOT EXISTS (SELECT FROM referral r WHERE r.merchant_id = $1 AND r.referrer_entry_id = e.id))
            OR (e.reason = 'REFERRAL_REFEREE'
                AND NOT EXISTS (SELECT FROM referral r WHERE r.merchant_id = $1 AND r.referee_entry_id = e.id))
        )""",
    ),
)
POOL_LIFECYCLE: Final = Promise(
    "POOL_LIFECYCLE",
    (
        # Of DRAFT → ACTIVE ⇄ PAUSED → ARCHIVED each step is on record, and only such steps lead to the status.
        """
        SELECT FROM pool p LEFT JOIN (
            SELECT subject_id, count(*) FILTER (WHERE type = 'pool.activated') AS activated,
                count(*) FILTER (WHERE type = 'pool.paused') AS paused,
                count(*) FILTER (WHERE type = 'pool.archived') AS archived
            FROM event
            WHERE merchant_id = $1 AND type IN ('pool.activated', 'pool.paused', 'pool.archived') GROUP BY subject_id
        ) e ON e.subject_id = p.id
        WHERE p.merchant_id = $1 AND NOT coalesce(CASE p.status
            WHEN 'DRAFT' THEN e.subject_id IS NULL
            WHEN 'ACTIVE' THEN archived = 0 AND activated = paused + 1
            WHEN 'PAUSED' THEN archived = 0 AND activated = paused AND paused > 0
            WHEN 'ARCHIVED' THEN archived = 1 AND activated - paused IN (0, 1) AND activated > 0
        END, false)""",
        """
        SELECT FROM pool p WHERE p.merchant_id = $1 AND p.status = 'DRAFT'
            AND EXISTS (SELECT FROM claim k WHERE k.merchant_id = $1 AND k.pool_id = p.id)""",
    ),
)
ONE_MERCHANT: Final = Promise("ONE_MERCHANT", tuple(_dangling(reference) for reference in REFERENCES))

# What must be on record, by the event that says it; events that say the same are told apart by nobody here.
_EXPECTED: Final = """
    SELECT 'member.enrolled' AS type, id AS subject_id FROM member WHERE merchant_id = $1
    UNION ALL SELECT 'pool.created', id FROM pool WHERE merchant_id = $1
    UNION ALL SELECT 'codes.generated', id FROM code_batch WHERE merchant_id = $1
    UNION ALL SELECT 'code.claimed', id FROM code WHERE merchant_id = $1 AND allocated_at IS NOT NULL
    UNION ALL SELECT 'code.redeemed', code_id FROM redemption WHERE merchant_id = $1
    UNION ALL SELECT 'code.expired', id FROM code WHERE merchant_id = $1 AND state = 'EXPIRED'
    UNION ALL SELECT 'redemption.reversed', redemption_id FROM reversal WHERE merchant_id = $1
    UNION ALL SELECT 'campaign.created', id FROM campaign WHERE merchant_id = $1
    UNION ALL SELECT 'points.credited', id FROM points_entry WHERE merchant_id = $1
    UNION ALL SELECT 'purchase.recorded', id FROM purchase WHERE merchant_id = $1
    UNION ALL SELECT 'purchase.reversed', purchase_id FROM purchase_reversal WHERE merchant_id = $1
    UNION ALL SELECT 'reward.created', id FROM reward WHERE merchant_id = $1
    UNION ALL SELECT 'reward.redeemed', id FROM reward_redemption WHERE merchant_id = $1
    UNION ALL SELECT 'invite.sent', id FROM invite WHERE merchant_id = $1
    UNION ALL SELECT 'invite.accepted', id FROM invite WHERE merchant_id = $1 AND accepted_at IS NOT NULL
    UNION ALL SELECT 'invite.expired', id FROM invite WHERE merchant_id = $1 AND status = 'EXPIRED'
    UNION ALL SELECT 'invite.cancelled', id FROM invite WHERE merchant_id = $1 AND status = 'CANCELLED'
    UNION ALL SELECT 'referral.converted', id FROM referral WHERE merchant_id = $1
    UNION ALL SELECT 'referral.declined', id FROM referral WHERE merchant_id = $1 AND declined_at IS NOT NULL
    UNION ALL SELECT 'advice_run.requested', id FROM advice_run WHERE merchant_id = $1
    UNION ALL SELECT 'webhook.created', id FROM webhook WHERE merchant_id = $1
    UNION ALL SELECT 'webhook.disabled', id FROM webhook WHERE merchant_id = $1 AND disabled_at IS NOT NULL
"""
_SAYS: Final = """
    CASE type WHEN 'code.sent' THEN 'code.claimed' WHEN 'points.debited' THEN 'points.credited'
        WHEN 'referral.held' THEN 'referral.converted' ELSE type END
"""
ON_RECORD: Final = Promise(
    "ON_RECORD",
    (
        f"""
        SELECT FROM ({_EXPECTED}) expected LEFT JOIN (
            SELECT {_SAYS} AS type, subject_id FROM event WHERE merchant_id = $1
        ) said ON said.type = expected.type AND said.subject_id = expected.subject_id
        WHERE said.type IS NULL""",
        # Every version of a wallet, from the first to the last, is one event's.
        """
        SELECT FROM wallet w LEFT JOIN (
            SELECT member_id, max(wallet_version) AS last, count(*) AS changes,
                count(DISTINCT wallet_version) AS versions
            FROM event WHERE merchant_id = $1 AND member_id IS NOT NULL GROUP BY member_id
        ) e ON e.member_id = w.member_id
        WHERE w.merchant_id = $1 AND (w.version, w.version, w.version)
            <> (coalesce(e.changes, 0), coalesce(e.versions, 0), coalesce(e.last, 0))""",
    ),
)

#: The promises, numbered as the domain numbers them: a code has one owner; claims per member and address; a code is
#: redeemed once; a batch is whole; no two codes are the same text; a points event is credited once; balances are
#: sums; invite quotas hold; referrals are conversions; pools keep to their lifecycle; no row names another merchant's;
#: what happened is on record.
PROMISES: Final = (
    ONE_OWNER, CLAIM_LIMIT, REDEEMED_ONCE, WHOLE_BATCHES, UNIQUE_CODES, CREDITED_ONCE,
    EXACT_BALANCES, INVITE_QUOTAS, CONVERTED_REFERRALS, POOL_LIFECYCLE, ONE_MERCHANT, ON_RECORD,
)  # fmt: skip
