"""Raising wallets in the statement that changes what they hold: one version and one event per change, and its ring."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Annotated, Final, TypedDict
from uuid import UUID

from app.storage.database import Statements
from app.storage.events import WALLET_EVENTS, EventType, event
from app.storage.rings import ring
from app.storage.statements import row_of


@row_of(ev="event")
class ChangeRow(TypedDict):
    """An event, with what it left of a wallet: null where the change was of something in nobody's wallet."""

    event_id: Annotated[UUID, "ev.id"]
    event_type: Annotated[str, "ev.type"]
    event_subject_kind: Annotated[str, "ev.subject_kind"]
    event_subject_id: Annotated[UUID, "ev.subject_id"]
    event_actor: Annotated[str, "ev.actor"]
    event_occurred_at: Annotated[datetime, "ev.occurred_at"]
    event_points: Annotated[int | None, "ev.points"]
    event_member_id: Annotated[UUID | None, "ev.member_id"]
    event_wallet_version: Annotated[int | None, "ev.wallet_version"]
    event_wallet_points: Annotated[int | None, "ev.wallet_points"]
    event_wallet_held_points: Annotated[int | None, "ev.wallet_held_points"]
    event_wallet_pending_points: Annotated[int | None, "ev.wallet_pending_points"]
    event_wallet_shortfall: Annotated[int | None, "ev.wallet_shortfall"]


#: The next date of a wallet, made under its lock: later than the one before it, even if the clock was set back. What a
#: wallet lists is dated by this, and ordered by its dates.
NEXT_DATE: Final = "greatest(clock_timestamp(), changed_at + interval '1 microsecond')"
#: What rings carry of a row: the change, and what a Code and its Pool or a PointsEntry, and the Member show.
_CARRIED: Final = ("event_", "code_", "pool_", "entry_", "member_", "wallet_")


def raise_wallets(event_type: EventType, *, actor: str = ":actor") -> str:
    """Return CTEs that raise the wallets that a statement changes, and record the events.

    They continue a WITH that has `changed (event_id, subject_id, member_id, reason)`, one row per change, where
    `member_id` is null for what is in nobody's wallet. They add `raised (member_id, changed_at)` and `recorded`, the
    events: return their ChangeRow and hand it to `ring_wallet`. Wallets are locked in the order of their members, so
    that statements over several of them don't deadlock. Raises KeyError for a type that raises no wallet.
    """
    for name in [event_type] if isinstance(event_type, str) else [name for name, _ in event_type]:
        WALLET_EVENTS[name]
    recorded = event(
        event_type,
        id="event_id",
        subject="subject_id",
        source="numbered",
        actor=actor,
        reason="reason",
        member_id="member_id",
        wallet="numbered",
    )
    return f"""
holders AS (
    SELECT w.member_id, w.version, w.points, w.held_points, w.pending_points, w.shortfall FROM wallet w
    WHERE w.merchant_id = :merchant_id AND w.member_id = ANY(ARRAY(SELECT member_id FROM changed))
    ORDER BY w.member_id FOR UPDATE
), numbered AS (
    SELECT changed.*,
        holders.version + row_number() OVER (PARTITION BY holders.member_id ORDER BY changed.event_id) AS version,
        holders.points, holders.held_points, holders.pending_points, holders.shortfall
    FROM changed LEFT JOIN holders ON holders.member_id = changed.member_id
), raised AS (
    UPDATE wallet SET version = newest.version, changed_at = {NEXT_DATE}
    FROM (SELECT member_id, max(version) AS version FROM numbered WHERE member_id IS NOT NULL GROUP BY 1) newest
    WHERE wallet.merchant_id = :merchant_id AND wallet.member_id = ANY(ARRAY(SELECT member_id FROM holders))
        AND wallet.member_id = newest.member_id
    RETURNING wallet.member_id, wallet.changed_at
), recorded AS (
    {recorded} RETURNING *
)"""


def wallet_channel(merchant_id: UUID, member_id: UUID) -> str:
    """Return where the changes of a wallet ring."""
    return f"flash:wallet:{merchant_id.hex}:{member_id.hex}"


def ring_wallet(
    where: Statements, merchant_id: UUID, change: ChangeRow, about: Mapping[str, object] | None = None
) -> None:
    """Tell who watches a wallet of a change to it, once what was written on `where` is committed.

    `about` is the whole row of the code or entry that changed; left out, it is `change` that holds it. Watchers of a
    change that comes without read it from the table. A change of something in nobody's wallet rings nothing.
    """
    if change["event_member_id"] is not None:
        ring(where, wallet_channel(merchant_id, change["event_member_id"]), partial(_carried, change, about))


def _carried(change: ChangeRow, about: Mapping[str, object] | None) -> dict[str, object]:
    """Return what the ring of a change carries."""
    row = change if about is None else about
    carried = {name: value for name, value in row.items() if name.startswith(_CARRIED)}
    if about is not None:
        carried |= {name: value for name, value in change.items() if name.startswith("event_")}
    return carried


def ring_wallets(where: Statements, merchant_id: UUID, member_ids: Iterable[UUID]) -> None:
    """Tell who watches these wallets of a change to them, as `ring_wallet` does, for thousands at once.

    The rings carry nothing: of so many few are watched, and who watches one reads the table.
    """
    for member_id in member_ids:
        ring(where, wallet_channel(merchant_id, member_id))
