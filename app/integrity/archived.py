"""What promises need of events that were archived: how it is kept, and how it is read beside the events that are left.

Of each event its type and its subject are kept, and of changes of points the wallet's version and points: promises
recompute from both what they did from the events. Of wallets it is kept which versions were archived. It counts once
the month is dropped, in the transaction that drops it.
"""

from typing import Final

#: How many subjects or wallets are one row.
_ROWS: Final = 5_000
_ORDERED: Final = "'points.credited', 'points.debited'"

BEGIN: Final = """
INSERT INTO event_archive (merchant_id, id, month, events, file)
SELECT merchant_id, $1, $2, count(*), $3 FROM {month} GROUP BY merchant_id
"""
KEEP_SUBJECTS: Final = f"""
INSERT INTO archived_event (merchant_id, archive_id, type, number, subject_ids, wallet_versions, wallet_points)
SELECT merchant_id, $1, type, (place - 1) / {_ROWS}, array_agg(subject_id ORDER BY place),
    CASE WHEN type IN ({_ORDERED}) THEN array_agg(wallet_version ORDER BY place) END,
    CASE WHEN type IN ({_ORDERED}) THEN array_agg(wallet_points::bigint ORDER BY place) END
FROM (
    SELECT merchant_id, type, subject_id, wallet_version, wallet_points,
        row_number() OVER (PARTITION BY merchant_id, type ORDER BY subject_id, id) AS place
    FROM {{month}}
) e
GROUP BY merchant_id, type, (place - 1) / {_ROWS}
"""


def _stretches(events: str) -> str:
    """Return the SELECT of the wallet versions that follow each other, of events `v`."""
    return f"""
        SELECT merchant_id, member_id, min(wallet_version) AS first, max(wallet_version) AS last FROM (
            SELECT merchant_id, member_id, wallet_version, wallet_version - row_number() OVER (
                PARTITION BY merchant_id, member_id ORDER BY wallet_version
            ) AS stretch
            FROM {events}
        ) v GROUP BY merchant_id, member_id, stretch"""


KEEP_WALLETS: Final = f"""
INSERT INTO archived_wallet (merchant_id, archive_id, number, member_ids, first_versions, last_versions)
SELECT merchant_id, $1, (place - 1) / {_ROWS}, array_agg(member_id ORDER BY place), array_agg(first ORDER BY place),
    array_agg(last ORDER BY place)
FROM (
    SELECT r.*, row_number() OVER (PARTITION BY merchant_id ORDER BY member_id, first) AS place
    FROM ({_stretches("{month} WHERE member_id IS NOT NULL")}) r
) e
GROUP BY merchant_id, (place - 1) / {_ROWS}
"""
FORGET_UNFINISHED: Final = "DELETE FROM event_archive WHERE dropped_at IS NULL"
FINISH: Final = "UPDATE event_archive SET dropped_at = now() WHERE id = $1"

_DROPPED: Final = "x.merchant_id = :merchant_id AND x.dropped_at IS NOT NULL"


def told(*types: str) -> str:
    """Return the SELECT of what a merchant's events of these types, or of all, say: `type` and `subject_id`.

    Of changes of points it says `wallet_version` and `wallet_points`, too.
    """
    listed = ", ".join(f"'{each}'" for each in types)
    kept, archived = (f" AND type IN ({listed})", f" AND a.type IN ({listed})") if types else ("", "")
    return f"""
        SELECT type, subject_id, wallet_version, wallet_points::bigint FROM event WHERE merchant_id = :merchant_id{kept}
        UNION ALL
        SELECT a.type, s.subject_id, s.wallet_version, s.wallet_points FROM event_archive x
        JOIN archived_event a ON a.merchant_id = :merchant_id AND a.archive_id = x.id{archived}
        CROSS JOIN LATERAL unnest(a.subject_ids, a.wallet_versions, a.wallet_points)
            AS s (subject_id, wallet_version, wallet_points)
        WHERE {_DROPPED}"""


#: The wallet versions that follow each other in events, in months that were archived and in what is left.
VERSIONS: Final = f"""{_stretches("event WHERE merchant_id = :merchant_id AND member_id IS NOT NULL")}
        UNION ALL
        SELECT :merchant_id, s.member_id, s.first, s.last FROM event_archive x
        JOIN archived_wallet a ON a.merchant_id = :merchant_id AND a.archive_id = x.id
        CROSS JOIN LATERAL unnest(a.member_ids, a.first_versions, a.last_versions) AS s (member_id, first, last)
        WHERE {_DROPPED}"""
