"""Conversions: the only writer of edges, of what they earn, and of what a return takes back of it.

Locks go in the order purchase, invite, referral, wallets; the two wallets by member.
"""

from datetime import datetime
from typing import Final, TypedDict
from uuid import UUID

from app import ids
from app.points.ledger import POINTS_MAX
from app.points.ledger import credit as post
from app.points.take_back import take_back
from app.points.types import PointsReason
from app.referrals.flags import FLAGS
from app.referrals.types import ReviewFlag, ReviewPolicy
from app.storage.database import Tx
from app.storage.events import event
from app.storage.statements import NoRow, statement


class EarningRow(TypedDict):
    """A conversion's invite, and what its members earn by it."""

    invite_id: UUID
    referrer_id: UUID
    referee_id: UUID
    referrer_points: int
    referee_points: int


class ConvertedRow(EarningRow):
    """An invite that was just converted, and what the program's review policy needs to know."""

    review_policy: str
    flags: list[str]


# The invite's row is the guard: of any number of callers one finds it PENDING. A purchase counts when it is of the
# referee, of something, and not from before it joined.
CONVERT: Final = statement(
    ConvertedRow,
    f"""
WITH i AS (
    UPDATE invite SET status = 'CONVERTED', converted_at = now()
    WHERE merchant_id = :merchant_id AND id = :invite_id AND status = 'PENDING' AND accepted_at IS NOT NULL
        AND expires_at > now()
        AND (:purchase_id::uuid IS NULL OR EXISTS (
            SELECT FROM purchase b
            WHERE b.merchant_id = :merchant_id AND b.id = :purchase_id AND b.member_id = invite.referee_id
                AND b.amount > 0 AND b.occurred_at >= invite.accepted_at
        ))
    RETURNING *
)
SELECT i.id AS invite_id, i.referrer_id, i.referee_id, p.referrer_points, p.referee_points, p.review_policy,
    {FLAGS} AS flags
FROM i, referral_program p WHERE p.merchant_id = :merchant_id
""",
)
WRITE: Final = statement(
    NoRow,
    f"""
WITH r AS (
    INSERT INTO referral (merchant_id, id, invite_id, referrer_id, referee_id, purchase_id, referrer_points,
                          referee_points, flags, referrer_entry_id, referee_entry_id, converted_at, released_at)
    VALUES (:merchant_id, :referral_id, :invite_id, :referrer_id, :referee_id, :purchase_id, :referrer_points,
            :referee_points, :flags, :referrer_entry_id, :referee_entry_id, now(),
            CASE WHEN :referrer_entry_id::uuid IS NOT NULL THEN now() END)
    RETURNING merchant_id, id, released_at
)
{
        event(
            [("referral.held", "released_at IS NULL"), ("referral.converted", "")],
            subject="id",
            source="r WHERE r.merchant_id = :merchant_id",
        )
    }
""",
)


async def convert(
    tx: Tx,
    merchant_id: UUID,
    actor: str,
    invite_id: UUID,
    purchase_id: UUID | None,
    *,
    spendable_at: datetime | None = None,
) -> UUID | None:
    """Convert an accepted invite, by the referee's joining or by a purchase, once.

    What both earn is pending as long as the purchase's points are: until `spendable_at`. Writes its status, the edge,
    both entries with their wallets, and the events; where the program wants a person's look, the edge without entries.
    Returns the referral, or None when there is nothing to convert.
    """
    invite = await tx.row(CONVERT, merchant_id=merchant_id, invite_id=invite_id, purchase_id=purchase_id)
    if invite is None:
        return None
    flags = list(invite["flags"])
    policy = ReviewPolicy(invite["review_policy"])
    is_held = policy is ReviewPolicy.ALL or (policy is ReviewPolicy.FLAGGED and bool(flags))
    if not await lock_wallets(tx, merchant_id, invite):
        # A purchase must not fail because somebody else is too rich.
        flags.append(ReviewFlag.BALANCE_FULL.value)
        is_held = True
    referrer_entry_id, referee_entry_id = (
        (None, None) if is_held else await credit(tx, merchant_id, actor, invite, spendable_at=spendable_at)
    )
    referral_id = ids.new()
    await tx.row(
        WRITE,
        merchant_id=merchant_id,
        referral_id=referral_id,
        invite_id=invite_id,
        referrer_id=invite["referrer_id"],
        referee_id=invite["referee_id"],
        purchase_id=purchase_id,
        referrer_points=invite["referrer_points"],
        referee_points=invite["referee_points"],
        flags=flags,
        referrer_entry_id=referrer_entry_id,
        referee_entry_id=referee_entry_id,
        event_id=ids.new(),
        actor=actor,
    )
    return referral_id


class WalletRow(TypedDict):
    """A wallet and its points."""

    member_id: UUID
    points: int


LOCK_WALLETS: Final = statement(
    WalletRow,
    """
SELECT member_id, points FROM wallet WHERE merchant_id = :merchant_id AND member_id = ANY(:member_ids::uuid[])
ORDER BY member_id FOR UPDATE
""",
)


async def lock_wallets(tx: Tx, merchant_id: UUID, earning: EarningRow) -> bool:
    """Lock both wallets. Returns whether they can hold what both earn."""
    earned = {earning["referrer_id"]: earning["referrer_points"], earning["referee_id"]: earning["referee_points"]}
    wallets = await tx.rows(LOCK_WALLETS, merchant_id=merchant_id, member_ids=list(earned))
    return all(wallet["points"] + earned[wallet["member_id"]] <= POINTS_MAX for wallet in wallets)


async def credit(
    tx: Tx, merchant_id: UUID, actor: str, earning: EarningRow, *, spendable_at: datetime | None
) -> tuple[UUID, UUID]:
    """Credit what both members earn, once for each invite, and return the two entries. Both wallets are locked."""
    origin = earning["invite_id"].hex
    reference = ids.encode("invite", earning["invite_id"])
    made = []
    for member_id, points, reason in (
        (earning["referrer_id"], earning["referrer_points"], PointsReason.REFERRAL_REFERRER),
        (earning["referee_id"], earning["referee_points"], PointsReason.REFERRAL_REFEREE),
    ):
        entry = await post(
            tx, merchant_id, actor, member_id, points, reason, origin=origin, reference=reference,
            spendable_at=spendable_at,
        )  # fmt: skip
        if entry is None:
            raise RuntimeError("a locked wallet with room for a referral's points didn't take them")
        made.append(entry["entry_id"])
    return made[0], made[1]


class ReversibleRow(EarningRow):
    """A referral that a return may still take back; `released_at` is null where it is held."""

    released_at: datetime | None


# Waits for whoever is releasing it.
LOCK_REVERSIBLE: Final = statement(
    ReversibleRow,
    """
SELECT r.invite_id, r.referrer_id, r.referee_id, r.referrer_points, r.referee_points, r.released_at
FROM referral r, referral_program p
WHERE r.merchant_id = :merchant_id AND r.id = :referral_id AND r.reversed_at IS NULL AND p.merchant_id = :merchant_id
    AND r.converted_at > now() - p.refund_window_days * interval '24 hours'
FOR UPDATE OF r
""",
)
REVERSE: Final = statement(
    NoRow,
    f"""
WITH r AS (
    UPDATE referral SET reversed_at = now(), shortfall = :shortfall
    WHERE merchant_id = :merchant_id AND id = :referral_id AND reversed_at IS NULL RETURNING id
)
{event("referral.reversed", subject="id", source="r")}
""",
)


async def reverse(tx: Tx, merchant_id: UUID, actor: str, referral_id: UUID) -> None:
    """Take back what a referral earned, once, if its conversion is in the program's window of returns.

    What both have spent already is the shortfall, as with purchases. A held referral can't be released any more.
    """
    referral = await tx.row(LOCK_REVERSIBLE, merchant_id=merchant_id, referral_id=referral_id)
    if referral is None:
        return
    shortfall = 0
    if referral["released_at"] is not None:
        await lock_wallets(tx, merchant_id, referral)
        origin = referral["invite_id"].hex
        reference = ids.encode("invite", referral["invite_id"])
        for who, member_id, reason in (
            ("referrer", referral["referrer_id"], PointsReason.REFERRAL_REFERRER),
            ("referee", referral["referee_id"], PointsReason.REFERRAL_REFEREE),
        ):
            taken = await take_back(
                tx, merchant_id, actor, member_id, credit=(reason, origin), origin=f"{origin}/{who}",
                reference=reference,
            )  # fmt: skip
            shortfall += taken.shortfall
    await tx.row(
        REVERSE,
        merchant_id=merchant_id,
        referral_id=referral_id,
        shortfall=shortfall,
        event_id=ids.new(),
        actor=actor,
    )
