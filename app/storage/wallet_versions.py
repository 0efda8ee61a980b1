"""Raising wallets in the statement that changes what they hold: one version and one event per change, and its ring."""

import re
from typing import Any, Final
from uuid import UUID

from app.storage.database import Row, Statements
from app.storage.events import WALLET_EVENTS
from app.storage.rings import ring

#: What a statement returns of each change to a wallet, for `ring_wallet`; `ev` is the event.
CHANGE_COLUMNS: Final = """
    ev.id AS event_id, ev.type AS event_type, ev.subject_id AS event_subject_id, ev.actor AS event_actor,
    ev.occurred_at AS event_occurred_at, ev.member_id AS event_member_id, ev.wallet_version AS event_wallet_version,
    ev.wallet_points AS event_wallet_points
"""
#: What rings carry of a row: the change, and everything that a Code and its Pool or a PointsEntry, and the Member show.
_CARRIED: Final = ("event_", "code_", "pool_", "entry_", "member_", "wallet_")

#: Continues a WITH that has `changed (event_id, subject_id, member_id, reason)`, one row per change, where `member_id`
#: is null for what is in nobody's wallet. `{event_type}` and `{actor}` are SQL expressions. Wallets are locked in the
#: order of their members, so that statements over several of them don't deadlock. Adds `raised (member_id, version)`
#: and `recorded`, the events: return their CHANGE_COLUMNS and hand the rows to `ring_wallet`.
RAISE_WALLETS: Final = """
holders AS (
    SELECT w.member_id, w.version, w.points FROM wallet w
    WHERE w.merchant_id = $1 AND w.member_id = ANY(ARRAY(SELECT member_id FROM changed))
    ORDER BY w.member_id FOR UPDATE
), numbered AS (
    SELECT changed.*,
        holders.version + row_number() OVER (PARTITION BY holders.member_id ORDER BY changed.event_id) AS version,
        holders.points
    FROM changed LEFT JOIN holders ON holders.member_id = changed.member_id
), raised AS (
    UPDATE wallet SET version = newest.version
    FROM (SELECT member_id, max(version) AS version FROM numbered WHERE member_id IS NOT NULL GROUP BY 1) newest
    WHERE wallet.merchant_id = $1 AND wallet.member_id = ANY(ARRAY(SELECT member_id FROM holders))
        AND wallet.member_id = newest.member_id
    RETURNING wallet.member_id, wallet.version
), recorded AS (
    INSERT INTO event (merchant_id, id, type, subject_id, actor, occurred_at, reason, member_id, wallet_version,
                       wallet_points)
    SELECT $1, event_id, {event_type}, subject_id, {actor}, now(), reason, member_id, version, points FROM numbered
    RETURNING *
)
"""


def raise_wallets(*, event_type: str, actor: str) -> str:
    """Return RAISE_WALLETS with its two expressions filled in. Raises KeyError for a type that WALLET_EVENTS lacks."""
    for literal in re.findall(r"'([^']+)'", event_type):
        WALLET_EVENTS[literal]
    return RAISE_WALLETS.format(event_type=event_type, actor=actor)


def wallet_channel(merchant_id: UUID, member_id: UUID) -> str:
    """Return where the changes of a wallet ring."""
    return f"flash:wallet:{merchant_id.hex}:{member_id.hex}"


def ring_wallet(where: Statements, merchant_id: UUID, change: Row) -> None:
    """Tell who watches a wallet of a change to it, once what was written on `where` is committed.

    The row has CHANGE_COLUMNS; one of something in nobody's wallet rings nothing. With all columns of a Code watchers
    read nothing; without they read the change from the table.
    """
    if change["event_wallet_version"] is not None:
        carried: dict[str, Any] = {name: value for name, value in change.items() if name.startswith(_CARRIED)}
        ring(where, wallet_channel(merchant_id, change["event_member_id"]), carried)
