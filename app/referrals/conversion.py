"""Conversions: the only writer of edges, of what they earn, and of what a return takes back of it.

Locks go in the order purchase, invite, referral, wallets; the two wallets by member.
"""

from typing import Final
from uuid import UUID

from app import ids
from app.api.context import Viewer
from app.points.ledger import POINTS_MAX, post
from app.points.take_back import take_back
from app.points.types import PointsReason
from app.referrals.flags import FLAGS
from app.referrals.types import ReviewFlag, ReviewPolicy
from app.storage.database import Row, Tx

# The invite's row is the guard: of any number of callers one finds it PENDING. A purchase counts when it is of the
# referee, of something, and not from before it joined.
CONVERT: Final = f"""
WITH i AS (
    UPDATE invite SET status = 'CONVERTED', converted_at = now()
    WHERE merchant_id = $1 AND id = $2 AND status = 'PENDING' AND accepted_at IS NOT NULL AND expires_at > now()
        AND ($3::uuid IS NULL OR EXISTS (
            SELECT FROM purchase b WHERE b.merchant_id = $1 AND b.id = $3 AND b.member_id = invite.referee_id
                AND b.amount > 0 AND b.occurred_at >= invite.accepted_at
        ))
    RETURNING *
)
SELECT i.id AS invite_id, i.referrer_id, i.referee_id, p.referrer_points, p.referee_points, p.review_policy,
    {FLAGS} AS flags
FROM i, referral_program p WHERE p.merchant_id = $1
"""
LOCK_WALLETS: Final = """
SELECT member_id, points FROM wallet WHERE merchant_id = $1 AND member_id = ANY($2::uuid[])
ORDER BY member_id FOR UPDATE
"""
WRITE: Final = """
WITH r AS (
    INSERT INTO referral (merchant_id, id, invite_id, referrer_id, referee_id, purchase_id, referrer_points,
                          referee_points, flags, referrer_entry_id, referee_entry_id, converted_at, released_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, now(), CASE WHEN $10::uuid IS NOT NULL THEN now() END)
    RETURNING id, released_at
)
INSERT INTO event (merchant_id, id, type, subject_id, actor, occurred_at)
SELECT $1, $12, CASE WHEN released_at IS NULL THEN 'referral.held' ELSE 'referral.converted' END, id, $13, now() FROM r
"""
# Waits for whoever is releasing it.
LOCK_REVERSIBLE: Final = """
SELECT r.invite_id, r.referrer_id, r.referee_id, r.referrer_points, r.referee_points, r.released_at
FROM referral r, referral_program p
WHERE r.merchant_id = $1 AND r.id = $2 AND r.reversed_at IS NULL AND p.merchant_id = $1
    AND r.converted_at > now() - p.refund_window_days * interval '24 hours'
FOR UPDATE OF r
"""
REVERSE: Final = """
WITH r AS (
    UPDATE referral SET reversed_at = now(), shortfall = $3
    WHERE merchant_id = $1 AND id = $2 AND reversed_at IS NULL RETURNING id
)
INSERT INTO event (merchant_id, id, type, subject_id, actor, occurred_at)
SELECT $1, $4, 'referral.reversed', id, $5, now() FROM r
"""


async def convert(tx: Tx, merchant_id: UUID, actor: str, invite_id: UUID, purchase_id: UUID | None) -> UUID | None:
    """Convert an accepted invite, by the referee's joining or by a purchase, once.

    Writes its status, the edge, both entries with their wallets, and the events; where the program wants a person's
    look, the edge without entries. Returns the referral, or None when there is nothing to convert.
    """
    invite = await tx.row(CONVERT, merchant_id, invite_id, purchase_id)
    if invite is None:
        return None
    flags = list(invite["flags"])
    policy = ReviewPolicy(invite["review_policy"])
    is_held = policy is ReviewPolicy.ALL or (policy is ReviewPolicy.FLAGGED and bool(flags))
    if not await lock_wallets(tx, merchant_id, invite):
        # A purchase must not fail because somebody else is too rich.
        flags.append(ReviewFlag.BALANCE_FULL.value)
        is_held = True
    entries = (None, None) if is_held else await credit(tx, merchant_id, actor, invite)
    referral_id = ids.new()
    await tx.row(
        WRITE, merchant_id, referral_id, invite_id, invite["referrer_id"], invite["referee_id"], purchase_id,
        invite["referrer_points"], invite["referee_points"], flags, *entries, ids.new(), actor,
    )  # fmt: skip
    return referral_id


async def convert_by(tx: Tx, viewer: Viewer, purchase: Row) -> UUID | None:
    """Convert the invite by which the buyer of a new purchase joined, if the purchase counts. Returns the referral."""
    if purchase["invite_id"] is None:
        return None
    return await convert(tx, viewer.merchant_id, viewer.actor, purchase["invite_id"], purchase["purchase_id"])


async def lock_wallets(tx: Tx, merchant_id: UUID, referral: Row) -> bool:
    """Lock both wallets. Returns whether they can hold what both earn."""
    earned = {
        referral["referrer_id"]: referral["referrer_points"],
        referral["referee_id"]: referral["referee_points"],
    }
    wallets = await tx.rows(LOCK_WALLETS, merchant_id, list(earned))
    return all(wallet["points"] + earned[wallet["member_id"]] <= POINTS_MAX for wallet in wallets)


async def credit(tx: Tx, merchant_id: UUID, actor: str, referral: Row) -> tuple[UUID, UUID]:
    """Credit what both members earn, once for each invite, and return the two entries. Both wallets are locked."""
    origin = referral["invite_id"].hex
    reference = ids.encode("invite", referral["invite_id"])
    made = []
    for member_id, points, reason in (
        (referral["referrer_id"], referral["referrer_points"], PointsReason.REFERRAL_REFERRER),
        (referral["referee_id"], referral["referee_points"], PointsReason.REFERRAL_REFEREE),
    ):
        entry = await post(tx, merchant_id, actor, member_id, points, reason, origin=origin, reference=reference)
        if entry is None:
            raise RuntimeError("a locked wallet with room for a referral's points didn't take them")
        made.append(entry["entry_id"])
    return made[0], made[1]


async def reverse(tx: Tx, merchant_id: UUID, actor: str, referral_id: UUID) -> None:
    """Take back what a referral earned, once, if its conversion is in the program's window of returns.

    What both have spent already is the shortfall, as with purchases. A held referral can't be released any more.
    """
    referral = await tx.row(LOCK_REVERSIBLE, merchant_id, referral_id)
    if referral is None:
        return
    shortfall = 0
    if referral["released_at"] is not None:
        await lock_wallets(tx, merchant_id, referral)
        origin = referral["invite_id"].hex
        for who, reason in (("referrer", PointsReason.REFERRAL_REFERRER), ("referee", PointsReason.REFERRAL_REFEREE)):
            _, missing = await take_back(
                tx, merchant_id, actor, referral[f"{who}_id"], referral[f"{who}_points"], credit=(reason, origin),
                origin=f"{origin}/{who}", reference=ids.encode("invite", referral["invite_id"]),
            )  # fmt: skip
            shortfall += missing
    await tx.row(REVERSE, merchant_id, referral_id, shortfall, ids.new(), actor)
