"""The ledger: every change of a balance is one entry, written here and nowhere else.

Points are spent and expire in the order in which they came, those with a lifetime before those without. So nothing
is kept about single credits: of a member's expiring points the wallet counts what was ever earned and what was ever
spent (or expired), and a credit is the stretch `(mark - amount, mark]` of that count. What is left of it is what
lies beyond `expiring_spent`, however many credits and debits there were: each costs the same.
"""

from enum import Enum, auto
from typing import Final, TypedDict
from uuid import UUID

import strawberry

from app import ids
from app.api.inputs import Problems
from app.api.operations import InvalidInput, Refusal, Refused
from app.points.rows import WholeEntryRow
from app.points.types import PointsReason
from app.storage.database import Statements, Tx
from app.storage.events import event
from app.storage.statements import columns, statement
from app.storage.wallet_versions import NEXT_DATE, ChangeRow, ring_wallet

#: A balance is a GraphQL Int.
POINTS_MAX: Final = 2**31 - 1


@strawberry.type(description="The member has too few points; nothing was changed.")
class InsufficientPoints(Refusal):
    """What is there and what it would take."""

    balance: int = strawberry.field(description="The member's points.")
    required: int = strawberry.field(description="How many it would take.")


class Obstacle(Enum):
    """Why an entry can't be written: nobody's, below 0, or beyond POINTS_MAX."""

    NO_MEMBER = auto()
    TOO_FEW = auto()
    TOO_MANY = auto()


class PostedRow(WholeEntryRow, ChangeRow):
    """An entry that was just written, with its member's wallet as it left it, and the event."""


POST: Final = statement(
    PostedRow,
    f"""
WITH given AS (
    -- How long these points live: null for debits, and where the merchant's points never expire.
    SELECT CASE WHEN :amount::int > 0 THEN points_lifetime_days * interval '24 hours' END AS lifetime
    FROM merchant WHERE merchant_id = :merchant_id
), w AS (
    -- The guard: a debit that the wallet can't pay, or a credit that it can't hold, changes no row. Its lock orders the
    -- member's entries and dates them, so that entries by date are entries by balance. A credit never expires before an
    -- older one of the member that has a lifetime, or the order would be broken.
    UPDATE wallet SET version = version + 1, changed_at = {NEXT_DATE}, points = points + :amount,
        expiring_earned = expiring_earned + CASE WHEN lifetime IS NULL THEN 0 ELSE :amount END,
        expiring_spent = expiring_spent
            + CASE WHEN :amount < 0 THEN least(-(:amount::bigint), expiring_earned - expiring_spent) ELSE 0 END,
        expiring_until = CASE
            WHEN lifetime IS NULL THEN expiring_until
            WHEN expiring_earned > expiring_spent THEN greatest(expiring_until, clock_timestamp() + lifetime)
            ELSE clock_timestamp() + lifetime END
    FROM given
    WHERE wallet.merchant_id = :merchant_id AND member_id = :member_id
        AND points + :amount::bigint BETWEEN 0 AND {POINTS_MAX}
    RETURNING wallet.*, lifetime IS NOT NULL AS expires
), e AS (
    -- The entry, at its mark among the points that expire if it is one of them or ends some.
    INSERT INTO points_entry (merchant_id, id, member_id, amount, balance_after, reason, origin, reference, mark,
                              expires_at, created_at)
    SELECT :merchant_id, :entry_id, :member_id, :amount, points, :reason::text, :origin, :reference,
        CASE WHEN expires THEN expiring_earned WHEN :reason::text = 'EXPIRY' THEN expiring_spent END,
        CASE WHEN expires THEN expiring_until END, changed_at
    FROM w RETURNING *
), due AS (
    -- What the expiry looks for.
    INSERT INTO points_due (merchant_id, entry_id, member_id, mark, expires_at, warned)
    SELECT :merchant_id, id, :member_id, mark, expires_at, false FROM e WHERE expires_at IS NOT NULL
), ev AS (
    -- The record of it.
    {
        event(
            [("points.credited", ":amount > 0"), ("points.debited", "")],
            subject=":entry_id",
            source="e, w",
            member_id=":member_id",
            wallet_version="w.version",
            wallet_points="w.points",
        )
    }
    RETURNING *
)
SELECT {columns(WholeEntryRow)}, {columns(ChangeRow)} FROM e CROSS JOIN w CROSS JOIN ev
CROSS JOIN LATERAL (SELECT * FROM member WHERE merchant_id = :merchant_id AND id = :member_id OFFSET 0) m
""",
)


async def post(
    where: Statements,
    merchant_id: UUID,
    actor: str,
    member_id: UUID,
    amount: int,
    reason: PointsReason,
    *,
    origin: str,
    reference: str | None,
) -> PostedRow | None:
    """Write an entry with its balance, wallet version and event, in the caller's transaction or in one of its own.

    Locks the wallet, which comes last in every order of locks; of several, by member. Returns None when there is no
    such member or the balance would leave 0 to POINTS_MAX. Raises asyncpg.UniqueViolationError when `origin` has an
    entry for this reason already.
    """
    entry = await where.row(
        POST,
        merchant_id=merchant_id,
        member_id=member_id,
        entry_id=ids.new(),
        amount=amount,
        reason=reason.value,
        origin=origin,
        reference=reference,
        event_id=ids.new(),
        actor=actor,
    )
    if entry is not None:
        ring_wallet(where, merchant_id, entry)
    return entry


class BalanceRow(TypedDict):
    """A wallet's points."""

    points: int


BALANCE: Final = statement(
    BalanceRow, "SELECT points FROM wallet WHERE merchant_id = :merchant_id AND member_id = :member_id"
)


async def obstacle(where: Statements, merchant_id: UUID, member_id: UUID, amount: int) -> tuple[Obstacle | None, int]:
    """Return why `post` returned None, and the balance; no reason when a rival has taken it away since."""
    row = await where.row(BALANCE, merchant_id=merchant_id, member_id=member_id)
    if row is None:
        return Obstacle.NO_MEMBER, 0
    if 0 <= row["points"] + amount <= POINTS_MAX:
        return None, row["points"]
    return (Obstacle.TOO_FEW if amount < 0 else Obstacle.TOO_MANY), row["points"]


class LockedWalletRow(BalanceRow):
    """A wallet that is locked, with what was ever spent of its points that expire."""

    expiring_spent: int


# What is read after it stays.
LOCK_WALLET: Final = statement(
    LockedWalletRow,
    """
SELECT points, expiring_spent FROM wallet WHERE merchant_id = :merchant_id AND member_id = :member_id FOR UPDATE
""",
)


async def lock_wallet(tx: Tx, merchant_id: UUID, member_id: UUID) -> LockedWalletRow:
    """Lock a member's wallet until the end of the transaction, and return it."""
    row = await tx.row(LOCK_WALLET, merchant_id=merchant_id, member_id=member_id)
    if row is None:
        raise RuntimeError("a member has no wallet")
    return row


def insufficient(balance: int, required: int) -> Refused:
    """Return the refusal of a debit."""
    message = f"The member has {balance:,} points; {required:,} are needed."
    return Refused(InsufficientPoints(message=message, balance=balance, required=required))


def too_many(path: str) -> Refused:
    """Return the refusal of a credit that the balance can't hold; `path` is the input that asked for it."""
    problems = Problems()
    problems.add(path, f"would take the member's balance over {POINTS_MAX}")
    return Refused(InvalidInput(message=f"{path} {problems.found[0].message}.", problems=problems.found))
