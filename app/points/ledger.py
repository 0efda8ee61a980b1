"""The ledger: every change of a balance is one entry, and each credit is a lot that debits take from.

A lot keeps what is left of its credit, from when it can be spent and when it ends. A debit takes the lot that ends
soonest, endless ones last, then the oldest, and records what it took from which. Its cost grows with the lots that it
empties, never with the history.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypedDict
from uuid import UUID

import strawberry

from app import ids
from app.api.inputs import Problems
from app.api.operations import InvalidInput, Refusal, Refused
from app.points.mature_points import mature
from app.points.overdue import end_overdue
from app.points.rows import TOLD, WholeEntryRow
from app.points.types import PointsReason
from app.storage.database import Statements, Tx, transaction
from app.storage.events import event
from app.storage.gone import MemberGoneError, forfeiting
from app.storage.statements import columns, statement
from app.storage.wallet_versions import NEXT_DATE, ChangeRow, ring_wallet

#: A balance is a GraphQL Int.
POINTS_MAX: Final = 2**31 - 1


@strawberry.type(description="The member has too few points to spend; nothing was changed.")
class InsufficientPoints(Refusal):
    """What can be spent and what it would take."""

    balance: int = strawberry.field(
        description="The points that the member can spend: without those that are held or pending."
    )
    required: int = strawberry.field(description="How many it would take.")


class PostedRow(WholeEntryRow, ChangeRow):
    """An entry that was just written, with its member's wallet as it left it, and the event."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a person said of an entry: sealed under the entry's id, what knows it again, and the key of the member."""

    entry_id: UUID
    reference: bytes
    reference_index: bytes
    told_of: bytes | None


#: What a person said of the entry `e`, where somebody did: beside the ledger, so that it can go.
_TOLD: Final = """told AS (
    INSERT INTO entry_reference (merchant_id, entry_id, reference)
    SELECT :merchant_id, id, :told_reference FROM e WHERE :told_reference::bytea IS NOT NULL
)"""
#: The record of an entry `e` and of the wallet `w` that it left.
RECORD_ENTRY: Final = event(
    [("points.credited", "e.amount > 0"), ("points.debited", "")],
    subject="e.id",
    source="e, w",
    points="abs(e.amount)",
    member_id="e.member_id",
    wallet="w",
)

#: What a statement returns of the entry that it has written: it doesn't see what it has written beside the ledger.
_POSTED: Final = columns(PostedRow).replace(TOLD, ":told_reference::bytea")

CREDIT: Final = statement(
    PostedRow,
    f"""
WITH w AS (
    -- The guard: a credit that the wallet can't hold changes no row. The wallet's lock orders the member's entries and
    -- dates them, so that entries by date are entries by balance.
    UPDATE wallet SET version = version + 1, changed_at = {NEXT_DATE}, points = points + :amount::int,
        pending_points = pending_points + CASE WHEN :spendable_at::timestamptz > now() THEN :amount ELSE 0 END
    WHERE merchant_id = :merchant_id AND member_id = :member_id AND points + :amount::bigint <= {POINTS_MAX}
    RETURNING *
), dated AS (
    -- A lifetime begins when the points can be spent, and never before they are there.
    SELECT w.*, CASE WHEN :spendable_at > now() THEN :spendable_at ELSE changed_at END AS spendable_at,
        (SELECT points_lifetime_days * interval '24 hours' FROM merchant WHERE merchant_id = :merchant_id) AS lifetime
    FROM w
), e AS (
    INSERT INTO points_entry (merchant_id, id, member_id, amount, balance_after, reason, origin, reference,
                              reference_index, told_of, spendable_at, expires_at, created_at)
    SELECT :merchant_id, :entry_id, member_id, :amount, points, :reason, :origin, :reference, :reference_index,
        :told_of, spendable_at, coalesce(:expires_at, greatest(spendable_at, changed_at) + lifetime), changed_at
    FROM dated RETURNING *
), {_TOLD}, lot AS (
    INSERT INTO points_lot (merchant_id, entry_id, member_id, amount, remaining, is_open, is_pending, is_warned,
                            spendable_at, expires_at, created_at, last_entry_id)
    SELECT :merchant_id, id, member_id, amount, amount, true, coalesce(:spendable_at > now(), false), false,
        spendable_at, coalesce(expires_at, 'infinity'), created_at, id
    FROM e
), ev AS (
    {RECORD_ENTRY} RETURNING *
)
SELECT {_POSTED} FROM e CROSS JOIN w CROSS JOIN ev
CROSS JOIN LATERAL (SELECT * FROM member WHERE merchant_id = :merchant_id AND id = :member_id OFFSET 0) m
""",
)


async def credit(
    where: Statements,
    merchant_id: UUID,
    actor: str,
    member_id: UUID,
    amount: int,
    reason: PointsReason,
    *,
    origin: str,
    reference: str | None,
    told: Told | None = None,
    spendable_at: datetime | None = None,
    expires_at: datetime | None = None,
) -> PostedRow | None:
    """Write a credit and its lot, in the caller's transaction or in one of its own.

    The points are pending until `spendable_at`, if that is to come; they end at `expires_at`, or after the merchant's
    lifetime. Locks the wallet, which comes last in every order of locks; of several, by member. Returns None when there
    is no such member or the balance would pass POINTS_MAX. Raises asyncpg.UniqueViolationError when `origin` has an
    entry for this reason already.
    """
    entry = await where.row(
        CREDIT,
        merchant_id=merchant_id,
        member_id=member_id,
        amount=amount,
        reason=reason.value,
        origin=origin,
        reference=reference,
        **_said(told),
        spendable_at=spendable_at,
        expires_at=expires_at,
        event_id=ids.new(),
        actor=actor,
    )
    if entry is not None:
        ring_wallet(where, merchant_id, entry)
    return entry


def _said(told: Told | None) -> dict[str, object]:
    """Return an entry's id and what a person said of it, as CREDIT and DEBIT take them."""
    if told is None:
        return {"entry_id": ids.new(), "told_reference": None, "reference_index": None, "told_of": None}
    return {
        "entry_id": told.entry_id,
        "told_reference": told.reference,
        "reference_index": told.reference_index,
        "told_of": told.told_of,
    }


class DebitedRow(PostedRow):
    """A debit as PostedRow where it was written, and what could be spent before it."""

    is_written: bool
    has_ripe: bool
    spendable: int
    held: int


# The lots are read as they were when the statement began, so it writes nothing when the wallet has changed since: then
# it is asked again under the wallet's lock.
DEBIT: Final = statement(
    DebitedRow,
    f"""
WITH RECURSIVE seen AS MATERIALIZED (
    -- The wallet as this statement finds it, and whether the end of some points' pending wasn't written yet.
    SELECT version, points - held_points - pending_points AS spendable, held_points AS held,
        pending_points > 0 AND EXISTS (
            SELECT FROM points_lot
            WHERE merchant_id = :merchant_id AND member_id = :member_id AND is_pending AND is_open
                AND spendable_at <= now()
        ) AS has_ripe
    FROM wallet WHERE merchant_id = :merchant_id AND member_id = :member_id
), w AS (
    -- The guard: what can't be spent, and what was seen too early, changes no row.
    UPDATE wallet SET version = wallet.version + 1, changed_at = {NEXT_DATE}, points = points - :amount::int
    FROM seen
    WHERE wallet.merchant_id = :merchant_id AND wallet.member_id = :member_id AND wallet.version = seen.version
        AND seen.spendable >= :amount AND NOT seen.has_ripe
    RETURNING wallet.*
), e AS (
    INSERT INTO points_entry (merchant_id, id, member_id, amount, balance_after, reason, origin, reference,
                              reference_index, told_of, created_at)
    SELECT :merchant_id, :entry_id, member_id, -:amount, points, :reason, :origin, :reference, :reference_index,
        :told_of, changed_at
    FROM w RETURNING *
), {_TOLD}, taken AS (
    -- What isn't held of one lot after the other in the order of spending, until it is enough.
    SELECT lot.*, :amount - lot.free AS lacking FROM w CROSS JOIN LATERAL (
        SELECT expires_at, created_at, entry_id, remaining - held AS free FROM points_lot
        WHERE merchant_id = :merchant_id AND member_id = :member_id AND is_open AND NOT is_pending
        ORDER BY expires_at, created_at, entry_id LIMIT 1
    ) lot
    UNION ALL
    SELECT lot.*, taken.lacking - lot.free FROM taken CROSS JOIN LATERAL (
        SELECT expires_at, created_at, entry_id, remaining - held AS free FROM points_lot
        WHERE merchant_id = :merchant_id AND member_id = :member_id AND is_open AND NOT is_pending
            AND (expires_at, created_at, entry_id) > (taken.expires_at, taken.created_at, taken.entry_id)
        ORDER BY expires_at, created_at, entry_id LIMIT 1
    ) lot
    WHERE taken.lacking > 0
), moved AS (
    -- All of them have then only what is held, but for what the last one has too many. Not joined: of thousands each
    -- would be compared with each.
    UPDATE points_lot SET last_entry_id = :entry_id,
        remaining = held + CASE entry_id WHEN (SELECT entry_id FROM taken WHERE lacking < 0)
            THEN (SELECT -lacking FROM taken WHERE lacking < 0) ELSE 0 END,
        is_open = coalesce(entry_id = (SELECT entry_id FROM taken WHERE lacking < 0), false)
    WHERE merchant_id = :merchant_id AND entry_id = ANY(ARRAY(SELECT entry_id FROM taken))
), parts AS (
    INSERT INTO points_part (merchant_id, entry_id, lot_id, amount)
    SELECT :merchant_id, :entry_id, entry_id, greatest(-lacking, 0) - free FROM taken
), ev AS (
    {RECORD_ENTRY} RETURNING *
)
SELECT e.id IS NOT NULL AS is_written, seen.has_ripe, seen.spendable, seen.held,
    {_POSTED}
FROM seen LEFT JOIN (e CROSS JOIN w CROSS JOIN ev CROSS JOIN LATERAL (
    SELECT * FROM member WHERE merchant_id = :merchant_id AND id = :member_id OFFSET 0
) m) ON true
""",
)


async def debit(
    where: Statements,
    merchant_id: UUID,
    actor: str,
    member_id: UUID,
    amount: int,
    reason: PointsReason,
    *,
    origin: str,
    reference: str | None,
    told: Told | None = None,
) -> PostedRow | None:
    """Take `amount` points from a member's lots, in the caller's transaction or in one of its own.

    Locks the wallet, which comes last in every order of locks. Returns None when there is no such member. Raises
    Refused(InsufficientPoints), and asyncpg.UniqueViolationError when `origin` has an entry for this reason already.
    """

    async def ask(where: Statements) -> DebitedRow | None:
        return await where.row(
            DEBIT,
            merchant_id=merchant_id,
            member_id=member_id,
            amount=amount,
            reason=reason.value,
            origin=origin,
            reference=reference,
            **_said(told),
            event_id=ids.new(),
            actor=actor,
        )

    async def ask_locked(tx: Tx) -> DebitedRow | None:
        await lock_wallet(tx, merchant_id, member_id)
        await mature(tx, merchant_id, [member_id])
        row = await ask(tx)
        if row is None or row["is_written"] or not row["held"]:
            return row
        return await ask(tx) if await end_overdue(tx, merchant_id, member_id) else row

    row = await ask(where)
    if row is not None and not row["is_written"] and (row["has_ripe"] or row["held"] or row["spendable"] >= amount):
        # Somebody was faster, or points have just become spendable, or some are held, perhaps longer than they may be.
        if isinstance(where, Tx):
            row = await ask_locked(where)
        else:
            async with transaction(merchant_id) as tx:
                row = await ask_locked(tx)
    if row is None:
        return None
    if not row["is_written"]:
        raise insufficient(row["spendable"], amount)
    ring_wallet(where, merchant_id, row)
    return row


class LockedWalletRow(TypedDict):
    """A wallet that is locked."""

    points: int
    held_points: int
    pending_points: int
    is_closed: bool


# What is read after it stays.
LOCK_WALLET: Final = statement(
    LockedWalletRow,
    """
SELECT points, held_points, pending_points, closed_at IS NOT NULL AS is_closed FROM wallet
WHERE merchant_id = :merchant_id AND member_id = :member_id FOR UPDATE
""",
)


async def lock_wallet(tx: Tx, merchant_id: UUID, member_id: UUID) -> LockedWalletRow:
    """Lock a member's wallet until the end of the transaction, and return it. Raises MemberGoneError."""
    row = await tx.row(LOCK_WALLET, merchant_id=merchant_id, member_id=member_id)
    if row is None:
        raise RuntimeError("a member has no wallet")
    if row["is_closed"] and member_id not in forfeiting.get():
        raise MemberGoneError.of(member_id)
    return row


def insufficient(spendable: int, required: int) -> Refused:
    """Return the refusal of a debit."""
    message = f"The member can spend {spendable:,} points; {required:,} are needed."
    return Refused(InsufficientPoints(message=message, balance=spendable, required=required))


def too_many(path: str) -> Refused:
    """Return the refusal of a credit that the balance can't hold; `path` is the input that asked for it."""
    problems = Problems()
    problems.add(path, f"would take the member's balance over {POINTS_MAX}")
    return Refused(InvalidInput(message=f"{path} {problems.found[0].message}.", problems=problems.found))
