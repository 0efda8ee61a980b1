"""Raising wallets in the statement that changes what they hold: one version and one event per change."""

from typing import Final

#: Continues a WITH that has `changed (event_id, subject_id, member_id, reason)`, one row per change, where `member_id`
#: is null for what is in nobody's wallet. `{event_type}` and `{actor}` are SQL expressions. Wallets are locked in the
#: order of their members, so that statements over several of them don't deadlock. Adds `raised (member_id, version)`.
RAISE_WALLETS: Final = """
holders AS (
    SELECT w.member_id, w.version FROM wallet w
    WHERE w.merchant_id = $1 AND w.member_id = ANY(ARRAY(SELECT member_id FROM changed))
    ORDER BY w.member_id FOR UPDATE
), numbered AS (
    SELECT changed.*,
        holders.version + row_number() OVER (PARTITION BY holders.member_id ORDER BY changed.event_id) AS version
    FROM changed LEFT JOIN holders ON holders.member_id = changed.member_id
), raised AS (
    UPDATE wallet SET version = newest.version
    FROM (SELECT member_id, max(version) AS version FROM numbered WHERE member_id IS NOT NULL GROUP BY 1) newest
    WHERE wallet.merchant_id = $1 AND wallet.member_id = ANY(ARRAY(SELECT member_id FROM holders))
        AND wallet.member_id = newest.member_id
    RETURNING wallet.member_id, wallet.version
), recorded AS (
    INSERT INTO event (merchant_id, id, type, subject_id, actor, occurred_at, reason, member_id, wallet_version)
    SELECT $1, event_id, {event_type}, subject_id, {actor}, now(), reason, member_id, version FROM numbered
)
"""


def raise_wallets(*, event_type: str, actor: str) -> str:
    """Return RAISE_WALLETS with its two expressions filled in."""
    return RAISE_WALLETS.format(event_type=event_type, actor=actor)
