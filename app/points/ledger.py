"""The ledger: every change of a balance is one entry, written here and nowhere else.

Points are spent and expire in the order in which they came, those with a lifetime before those without. So nothing
is kept about single credits: of a member's expiring points the wallet counts what was ever earned and what was ever
spent (or expired), and a credit is the stretch `(mark - amount, mark]` of that count. What is left of it is what
lies beyond `expiring_spent`, however many credits and debits there were: each costs the same.
"""

from enum import Enum, auto
from typing import Final
from uuid import UUID

import strawberry

from app import ids
from app.api.operations import Refusal, Refused
from app.members.rows import MEMBER_COLUMNS
from app.points.rows import ENTRY_COLUMNS
from app.points.types import PointsReason
from app.storage.database import Row, Statements, Tx
from app.storage.wallet_versions import CHANGE_COLUMNS, ring_wallet

#: A balance is a GraphQL Int.
POINTS_MAX: Final = 2**31 - 1


@strawberry.type(description="The member has too few points; nothing was changed.")
class InsufficientPoints(Refusal):
    """What is there and what it would take."""

    balance: int = strawberry.field(description="The member's points.")
    required: int = strawberry.field(description="How many it would take.")


# The wallet's row is the guard: a debit that it can't pay, or a credit that it can't hold, changes no row. Its lock
# orders the member's entries, and `created_at` is read under it, so that entries by time are entries by balance.
# A credit never expires before an older one of the member that has a lifetime, or the order would be broken.
POST: Final = f"""
WITH given AS (
    SELECT CASE WHEN $4::int > 0 THEN points_lifetime_days * interval '24 hours' END AS lifetime
    FROM merchant WHERE merchant_id = $1
), w AS (
    UPDATE wallet SET version = version + 1, points = points + $4,
        expiring_earned = expiring_earned + CASE WHEN lifetime IS NULL THEN 0 ELSE $4 END,
        expiring_spent = expiring_spent
            + CASE WHEN $4 < 0 THEN least(-($4::bigint), expiring_earned - expiring_spent) ELSE 0 END,
        expiring_until = CASE
            WHEN lifetime IS NULL THEN expiring_until
            WHEN expiring_earned > expiring_spent THEN greatest(expiring_until, clock_timestamp() + lifetime)
            ELSE clock_timestamp() + lifetime END
    FROM given
    WHERE wallet.merchant_id = $1 AND member_id = $2 AND points + $4::bigint BETWEEN 0 AND {POINTS_MAX}
    RETURNING wallet.*, lifetime IS NOT NULL AS expires, clock_timestamp() AS written_at
), e AS (
    INSERT INTO points_entry (merchant_id, id, member_id, amount, balance_after, reason, origin, reference, mark,
                              expires_at, created_at)
    SELECT $1, $3, $2, $4, points, $5::text, $6, $7,
        CASE WHEN expires THEN expiring_earned WHEN $5::text = 'EXPIRY' THEN expiring_spent END,
        CASE WHEN expires THEN expiring_until END, written_at
    FROM w RETURNING *
), due AS (
    INSERT INTO points_due (merchant_id, entry_id, member_id, mark, expires_at, warned)
    SELECT $1, id, $2, mark, expires_at, false FROM e WHERE expires_at IS NOT NULL
), recorded AS (
    INSERT INTO event (merchant_id, id, type, subject_id, actor, occurred_at, member_id, wallet_version, wallet_points)
    SELECT $1, $8, CASE WHEN $4 > 0 THEN 'points.credited' ELSE 'points.debited' END, $3, $9, now(), $2, w.version,
        w.points
    FROM e, w RETURNING *
)
SELECT {ENTRY_COLUMNS}, {MEMBER_COLUMNS}, {CHANGE_COLUMNS} FROM e CROSS JOIN w CROSS JOIN recorded ev
CROSS JOIN LATERAL (SELECT * FROM member WHERE merchant_id = $1 AND id = $2 OFFSET 0) m
"""
BALANCE: Final = "SELECT points FROM wallet WHERE merchant_id = $1 AND member_id = $2"
#: Locks the wallet until the end of the transaction; what is read after it stays.
LOCK_WALLET: Final = "SELECT points, expiring_spent FROM wallet WHERE merchant_id = $1 AND member_id = $2 FOR UPDATE"


class Obstacle(Enum):
    """Why an entry can't be written: nobody's, below 0, or beyond POINTS_MAX."""

    NO_MEMBER = auto()
    TOO_FEW = auto()
    TOO_MANY = auto()


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
) -> Row | None:
    """Write an entry with its balance, wallet version and event, in the caller's transaction or in one of its own.

    Locks the wallet, which comes last in every order of locks; of several, by member. Returns the row of a
    PointsEntry, or None when there is no such member or the balance would leave 0 to POINTS_MAX. Raises
    asyncpg.UniqueViolationError when `origin` has an entry for this reason already.
    """
    entry_id, event_id = ids.new(), ids.new()
    arguments = (merchant_id, member_id, entry_id, amount, reason.value, origin, reference, event_id, actor)
    entry = await where.row(POST, *arguments)
    if entry is not None:
        ring_wallet(where, merchant_id, entry)
    return entry


async def obstacle(where: Statements, merchant_id: UUID, member_id: UUID, amount: int) -> tuple[Obstacle, int]:
    """Return why `post` returned None, and the balance."""
    row = await where.row(BALANCE, merchant_id, member_id)
    if row is None:
        return Obstacle.NO_MEMBER, 0
    return (Obstacle.TOO_FEW if amount < 0 else Obstacle.TOO_MANY), row["points"]


async def lock_wallet(tx: Tx, merchant_id: UUID, member_id: UUID) -> Row:
    """Lock a member's wallet and return its points and what was ever spent of those that expire."""
    row = await tx.row(LOCK_WALLET, merchant_id, member_id)
    if row is None:
        raise RuntimeError("a member has no wallet")
    return row


def insufficient(balance: int, required: int) -> Refused:
    """Return the refusal of a debit."""
    message = f"The member has {balance:,} points; {required:,} are needed."
    return Refused(InsufficientPoints(message=message, balance=balance, required=required))
