"""Conversions: the only writer of edges, of what they earn, and of what a fall takes back and a comeback returns.

Locks go in the order member, purchase, invite, referral, wallets; the two wallets by member.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Final, NamedTuple, TypedDict
from uuid import UUID

from app import ids
from app.members.remembered import REMEMBERS
from app.points.ledger import POINTS_MAX
from app.points.ledger import credit as post
from app.points.put_back import put_back
from app.points.take_back import take_back
from app.points.types import PointsReason
from app.referrals.flags import FLAGS
from app.referrals.types import ReviewFlag, ReviewPolicy
from app.storage.crypto import MerchantKeys
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


class DecidedRow(EarningRow):
    """An accepted invite that was looked at: whether that converted it, by which purchase, or what keeps it from it.

    Of one that was converted, what the program's review policy needs to know, and the terms that a return ends it by.
    """

    converts: bool
    obstacle: str | None
    purchase_id: UUID | None
    spendable_at: datetime | None
    minimum_purchase: int | None
    refund_window_days: int
    review_policy: str
    flags: list[str]


# How much stands of the purchase `b` that was not paid with points.
_MONEY_PART: Final = "(b.amount - b.refunded - b.paid_value + b.returned_value)"
# The earliest purchase of the referee `r` that converts by the program `p`: it stands, is worth enough, and isn't from
# more than a day before the referee joined. Shops hear of an order before the sign-up that it came with.
_BOUGHT: Final = f"""
    SELECT b.id, b.spendable_at FROM purchase b, r, p
    WHERE b.merchant_id = :merchant_id AND b.member_id = r.id AND b.reversed_at IS NULL
        AND {_MONEY_PART} >= coalesce(p.minimum_purchase, 1)
        AND b.occurred_at >= r.joined_at - interval '24 hours' AND r.converts_on = 'FIRST_PURCHASE'
    ORDER BY b.occurred_at, b.id LIMIT 1 FOR SHARE OF b
"""
# Whether the referee `r` was a customer before the invite `i` was sent: its own record, or one that proved another
# spelling of the same mailbox, was there or bought by then.
_WAS_CUSTOMER: Final = """
    EXISTS (
        SELECT FROM member o
        WHERE o.merchant_id = :merchant_id AND o.id = ANY(ARRAY(
            SELECT r.id UNION ALL
            SELECT id FROM member
            WHERE merchant_id = :merchant_id AND mailbox_index = r.mailbox_index AND email_verified
        )) AND (
            o.joined_at < i.created_at OR EXISTS (
                SELECT FROM purchase b
                WHERE b.merchant_id = :merchant_id AND b.member_id = o.id AND b.occurred_at < i.created_at
                    AND b.amount > b.refunded
            )
        )
    )
"""
# The caller holds a lock of the referee's row since a statement before, and so does whoever else proves its address,
# records a purchase of it or lets it accept: whoever comes last sees what the others did. The invite's row is the
# guard: of any number of callers one finds it PENDING. An obstacle that was found once stays.
CONVERT: Final = statement(
    DecidedRow,
    f"""
WITH p AS (
    SELECT * FROM referral_program WHERE merchant_id = :merchant_id
), r AS (
    SELECT m.id, m.email_verified, m.mailbox_index, m.joined_at, v.converts_on
    FROM invite v, member m
    WHERE v.merchant_id = :merchant_id AND v.id = :invite_id AND m.merchant_id = :merchant_id AND m.id = v.referee_id
), bought AS MATERIALIZED (
    -- Locked before the invite: a return waits, and then sees what its purchase converted.
    {_BOUGHT}
), i AS (
    SELECT i.*, bought.id AS purchase_id, bought.spendable_at, r.mailbox_index AS own_mailbox,
        p.referrer_points, p.referee_points, p.review_policy, p.one_reward_per_mailbox, p.minimum_purchase,
        p.refund_window_days,
        r.email_verified AND (i.converts_on = 'JOIN' OR bought.id IS NOT NULL) AS is_due,
        CASE
            WHEN r.mailbox_index IN (s.mailbox_index, s.pending_mailbox_index) OR EXISTS (
                -- Or of a record that was merged into the referrer.
                SELECT FROM member o WHERE o.merchant_id = :merchant_id AND o.merged_into_id = i.referrer_id
                    AND r.mailbox_index = ANY(o.mailbox_index || o.dropped_mailbox_indexes)
            ) THEN 'SELF'
            WHEN {_WAS_CUSTOMER}
                OR {REMEMBERS.format("r.mailbox_index", "r.has_ordered AND r.erased_at < i.created_at")}
            THEN 'EXISTING_CUSTOMER'
            WHEN p.one_reward_per_mailbox AND EXISTS (
                SELECT FROM rewarded_mailbox x
                WHERE x.merchant_id = :merchant_id AND x.mailbox_index = r.mailbox_index
            ) THEN 'MAILBOX_REWARDED'
            WHEN p.one_reward_per_mailbox AND {REMEMBERS.format("r.mailbox_index", "r.is_rewarded")}
            THEN 'MAILBOX_REWARDED'
        END AS found
    FROM invite i
    CROSS JOIN p
    CROSS JOIN r
    CROSS JOIN LATERAL (
        SELECT mailbox_index, pending_mailbox_index FROM member
        WHERE merchant_id = :merchant_id AND id = i.referrer_id OFFSET 0
    ) s
    LEFT JOIN bought ON true
    WHERE i.merchant_id = :merchant_id AND i.id = :invite_id AND i.status = 'PENDING' AND i.accepted_at IS NOT NULL
        AND i.obstacle IS NULL AND i.expires_at > now()
    FOR UPDATE OF i
), taken AS (
    -- What pays a mailbox once: of two invites that convert at once for two spellings of it, one inserts nothing.
    INSERT INTO rewarded_mailbox (merchant_id, mailbox_index, invite_id)
    SELECT :merchant_id, own_mailbox, id FROM i WHERE is_due AND found IS NULL
    ON CONFLICT DO NOTHING RETURNING invite_id
), decided AS (
    SELECT i.*, is_due AND found IS NULL AND (taken.invite_id IS NOT NULL OR NOT one_reward_per_mailbox) AS converts,
        CASE WHEN is_due AND found IS NULL AND taken.invite_id IS NULL AND one_reward_per_mailbox
            THEN 'MAILBOX_REWARDED' ELSE found END AS met
    FROM i LEFT JOIN taken ON true
), changed AS (
    UPDATE invite SET status = CASE WHEN decided.converts THEN 'CONVERTED' ELSE 'PENDING' END,
        converted_at = CASE WHEN decided.converts THEN now() END, obstacle = decided.met
    FROM decided
    WHERE invite.merchant_id = :merchant_id AND invite.id = :invite_id
        AND (decided.converts OR decided.met IS NOT NULL)
    RETURNING invite.id, invite.obstacle
), recorded AS (
    {event("invite.obstructed", subject="id", source="changed WHERE obstacle IS NOT NULL")}
)
SELECT i.id AS invite_id, i.referrer_id, i.referee_id, i.referrer_points, i.referee_points, i.converts,
    i.met AS obstacle, i.purchase_id, i.spendable_at, i.review_policy, i.minimum_purchase, i.refund_window_days,
    CASE WHEN i.converts THEN {FLAGS} ELSE '{{}}' END AS flags
FROM decided i
""",
)
WRITE: Final = statement(
    NoRow,
    f"""
WITH r AS (
    INSERT INTO referral (merchant_id, id, invite_id, referrer_id, referee_id, purchase_id, referrer_points,
                          referee_points, flags, minimum_purchase, refund_window_days, referrer_entry_id,
                          referee_entry_id, converted_at, released_at)
    VALUES (:merchant_id, :referral_id, :invite_id, :referrer_id, :referee_id, :purchase_id, :referrer_points,
            :referee_points, :flags, :minimum_purchase, :refund_window_days, :referrer_entry_id,
            :referee_entry_id, now(),
            CASE WHEN :is_released THEN now() END)
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


class Conversion(NamedTuple):
    """What came of looking at an accepted invite: a referral, something that keeps it from converting, or neither.

    The referral is new, or had fallen and stands again.
    """

    referral_id: UUID | None
    obstacle: str | None


async def convert(tx: Tx, keys: MerchantKeys, actor: str, invite_id: UUID) -> Conversion:
    """Convert an accepted invite, once, if its referee has proved its address and what triggers it has happened.

    What both earn is pending as long as the points of the purchase are that converts it. The caller holds a lock of the
    referee's row since a statement before. Writes the invite's status, the mailbox that is paid for, the edge, both
    entries with their wallets, and the events; where the program wants a person's look, the edge without entries. Of an
    invite that converted before, the referral comes back if it has fallen and a purchase stands that it can stand by.
    """
    merchant_id = keys.merchant_id
    invite = await tx.row(
        CONVERT,
        merchant_id=merchant_id,
        invite_id=invite_id,
        memory_pads=keys.memory_pads,
        event_id=ids.new(),
        actor=actor,
    )
    if invite is None:
        return Conversion(await bring_back(tx, merchant_id, actor, invite_id), None)
    if not invite["converts"]:
        return Conversion(None, invite["obstacle"])
    flags = list(invite["flags"])
    policy = ReviewPolicy(invite["review_policy"])
    is_held = policy is ReviewPolicy.ALL or (policy is ReviewPolicy.FLAGGED and bool(flags))
    here = await lock_wallets(tx, merchant_id, invite)
    if here is None:
        # A purchase must not fail because somebody else is too rich.
        flags.append(ReviewFlag.BALANCE_FULL.value)
        is_held = True
    referrer_entry_id, referee_entry_id = (
        (None, None)
        if is_held or here is None
        else await credit(tx, merchant_id, actor, invite, here, spendable_at=invite["spendable_at"])
    )
    referral_id = ids.new()
    await tx.row(
        WRITE,
        merchant_id=merchant_id,
        referral_id=referral_id,
        invite_id=invite_id,
        referrer_id=invite["referrer_id"],
        referee_id=invite["referee_id"],
        purchase_id=invite["purchase_id"],
        referrer_points=invite["referrer_points"],
        referee_points=invite["referee_points"],
        flags=flags,
        minimum_purchase=invite["minimum_purchase"],
        refund_window_days=invite["refund_window_days"],
        referrer_entry_id=referrer_entry_id,
        referee_entry_id=referee_entry_id,
        is_released=not is_held,
        event_id=ids.new(),
        actor=actor,
    )
    return Conversion(referral_id, None)


class WalletRow(TypedDict):
    """A wallet and its points; that of an erased member is closed."""

    member_id: UUID
    points: int
    is_closed: bool


LOCK_WALLETS: Final = statement(
    WalletRow,
    """
SELECT member_id, points, closed_at IS NOT NULL AS is_closed FROM wallet
WHERE merchant_id = :merchant_id AND member_id = ANY(:member_ids::uuid[])
ORDER BY member_id FOR UPDATE
""",
)


async def lock_wallets(tx: Tx, merchant_id: UUID, earning: EarningRow) -> Collection[UUID] | None:
    """Lock both wallets. Returns who of both can be credited, or None when a balance can't hold what it earns."""
    earned = {earning["referrer_id"]: earning["referrer_points"], earning["referee_id"]: earning["referee_points"]}
    wallets = await tx.rows(LOCK_WALLETS, merchant_id=merchant_id, member_ids=list(earned))
    here = [wallet for wallet in wallets if not wallet["is_closed"]]
    if any(wallet["points"] + earned[wallet["member_id"]] > POINTS_MAX for wallet in here):
        return None
    return {wallet["member_id"] for wallet in here}


async def credit(
    tx: Tx, merchant_id: UUID, actor: str, earning: EarningRow, here: Collection[UUID], *, spendable_at: datetime | None
) -> tuple[UUID | None, UUID | None]:
    """Credit what both members earn, once for each invite, and return the two entries. Both wallets are locked.

    Who was erased isn't `here` any more, and is never credited: the other one is paid alone.
    """
    origin = earning["invite_id"].hex
    reference = ids.encode("invite", earning["invite_id"])
    made: list[UUID | None] = []
    for side in _sides(earning):
        if side.member_id not in here:
            made.append(None)
            continue
        entry = await post(
            tx, merchant_id, actor, side.member_id, side.points, side.reason, origin=origin, reference=reference,
            spendable_at=spendable_at,
        )  # fmt: skip
        if entry is None:
            raise RuntimeError("a locked wallet with room for a referral's points didn't take them")
        made.append(entry["entry_id"])
    return made[0], made[1]


class _Side(NamedTuple):
    """What a referral is to one of its members."""

    name: str
    member_id: UUID
    points: int
    reason: PointsReason


def _sides(earning: EarningRow) -> tuple[_Side, _Side]:
    return (
        _Side("referrer", earning["referrer_id"], earning["referrer_points"], PointsReason.REFERRAL_REFERRER),
        _Side("referee", earning["referee_id"], earning["referee_points"], PointsReason.REFERRAL_REFEREE),
    )


# The earliest purchase of the referee that the referral `r` can stand by: worth enough by the terms of its conversion,
# from the invite's lifetime, and not from more than a day before the referee joined. The caller holds a lock of the
# referee's row since a statement before, for which all wait that lower a purchase of it.
_STANDS_BY: Final = f"""
    SELECT b.id FROM purchase b, invite i, member m
    WHERE b.merchant_id = :merchant_id AND b.member_id = r.referee_id AND b.reversed_at IS NULL
        AND {_MONEY_PART} >= coalesce(r.minimum_purchase, 1)
        AND b.occurred_at >= m.joined_at - interval '24 hours' AND b.occurred_at < i.expires_at
        AND i.merchant_id = :merchant_id AND i.id = r.invite_id AND i.converts_on = 'FIRST_PURCHASE'
        AND m.merchant_id = :merchant_id AND m.id = r.referee_id
    ORDER BY b.occurred_at, b.id LIMIT 1
"""


class StandingRow(EarningRow):
    """A referral that stands. `released_at` is null where it is held. `falls` counts how often it has fallen before."""

    released_at: datetime | None
    falls: int


class FallingRow(StandingRow):
    """A referral for which too little of its purchase stands, and another one that can take its place."""

    other_id: UUID | None


# It stands by the terms of its conversion. Waits for whoever is releasing or declining it.
LOCK_FALLING: Final = statement(
    FallingRow,
    f"""
SELECT r.invite_id, r.referrer_id, r.referee_id, r.referrer_points, r.referee_points, r.released_at, r.falls,
    ({_STANDS_BY}) AS other_id
FROM referral r, purchase b
WHERE r.merchant_id = :merchant_id AND r.id = :referral_id AND r.reversed_at IS NULL
    AND r.converted_at > now() - r.refund_window_days * interval '24 hours'
    AND b.merchant_id = :merchant_id AND b.id = r.purchase_id
    AND {_MONEY_PART} < coalesce(r.minimum_purchase, 1)
FOR UPDATE OF r
""",
)
REPLACE: Final = statement(
    NoRow,
    f"""
WITH r AS (
    UPDATE referral SET purchase_id = :purchase_id
    WHERE merchant_id = :merchant_id AND id = :referral_id AND reversed_at IS NULL RETURNING id
)
{event("referral.purchase_replaced", subject="id", source="r")}
""",
)
REVERSE: Final = statement(
    NoRow,
    f"""
WITH r AS (
    UPDATE referral SET reversed_at = now(), shortfall = :shortfall, falls = falls + 1
    WHERE merchant_id = :merchant_id AND id = :referral_id AND reversed_at IS NULL RETURNING id
)
{event("referral.reversed", subject="id", source="r")}
""",
)


async def reconsider(tx: Tx, merchant_id: UUID, actor: str, referral_id: UUID) -> bool:
    """Look at a referral again whose purchase was lowered. Returns whether it fell.

    Whatever lowers a purchase calls it, before it locks a wallet, with a lock of the buyer's row. Where too little
    stands, the referee's earliest other purchase takes its place, and no entry moves. Without one the referral falls:
    what it earned is taken back, and what both have spent already is the shortfall, as with purchases; a held one
    can't be released any more. After the window of returns nothing falls.
    """
    referral = await tx.row(LOCK_FALLING, merchant_id=merchant_id, referral_id=referral_id)
    if referral is None:
        return False
    if referral["other_id"] is not None:
        await tx.row(
            REPLACE,
            merchant_id=merchant_id,
            referral_id=referral_id,
            purchase_id=referral["other_id"],
            event_id=ids.new(),
            actor=actor,
        )
        return False
    await _fall(tx, merchant_id, actor, referral_id, referral)
    return True


async def _fall(tx: Tx, merchant_id: UUID, actor: str, referral_id: UUID, referral: StandingRow) -> None:
    """Let a referral fall that is locked and stands: what it earned is taken back."""
    shortfall = 0
    if referral["released_at"] is not None:
        await lock_wallets(tx, merchant_id, referral)
        credited = referral["invite_id"].hex
        for side in _sides(referral):
            taken = await take_back(
                tx, merchant_id, actor, side.member_id, reason=side.reason, credited=[credited],
                origin=f"{credited}/{side.name}/{referral['falls'] + 1}",
                reference=ids.encode("invite", referral["invite_id"]),
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


FIND_STANDING: Final = statement(
    StandingRow,
    """
SELECT invite_id, referrer_id, referee_id, referrer_points, referee_points, released_at, falls FROM referral
WHERE merchant_id = :merchant_id AND id = :referral_id AND reversed_at IS NULL FOR UPDATE
""",
)


async def drop(tx: Tx, merchant_id: UUID, actor: str, referral_id: UUID) -> None:
    """Let a referral fall that stands, whatever its purchase is worth and whenever it converted."""
    referral = await tx.row(FIND_STANDING, merchant_id=merchant_id, referral_id=referral_id)
    if referral is not None:
        await _fall(tx, merchant_id, actor, referral_id, referral)


class FallenRow(EarningRow):
    """A referral that has fallen, so often, and the purchase that it can stand by again.

    `released_at` is null where it was held.
    """

    referral_id: UUID
    released_at: datetime | None
    falls: int
    purchase_id: UUID | None


LOCK_FALLEN: Final = statement(
    FallenRow,
    f"""
SELECT r.id AS referral_id, r.invite_id, r.referrer_id, r.referee_id, r.referrer_points, r.referee_points,
    r.released_at, r.falls, ({_STANDS_BY}) AS purchase_id
FROM referral r
WHERE r.merchant_id = :merchant_id AND r.invite_id = :invite_id AND r.reversed_at IS NOT NULL AND r.declined_at IS NULL
FOR UPDATE OF r
""",
)
REINSTATE: Final = statement(
    NoRow,
    f"""
WITH r AS (
    UPDATE referral SET purchase_id = :purchase_id, reversed_at = NULL, shortfall = NULL
    WHERE merchant_id = :merchant_id AND id = :referral_id AND reversed_at IS NOT NULL RETURNING id
)
{event("referral.reinstated", subject="id", source="r")}
""",
)


async def bring_back(tx: Tx, merchant_id: UUID, actor: str, invite_id: UUID) -> UUID | None:
    """Let the referral of an invite stand again that has fallen, if a purchase stands that it can stand by.

    What was really taken of both credits comes back to its lots, with their dates, and the shortfall of the fall ends,
    so that both are paid once. One that was held is held again, and a declined one stays as it is. The caller holds a
    lock of the referee's row since a statement before. Returns the referral, or None where nothing came back: also
    where a balance can't hold it, since a purchase must not fail by that; the next one tries again.
    """
    fallen = await tx.row(LOCK_FALLEN, merchant_id=merchant_id, invite_id=invite_id)
    if fallen is None or fallen["purchase_id"] is None:
        return None
    if fallen["released_at"] is not None:
        if await lock_wallets(tx, merchant_id, fallen) is None:
            return None
        credited = invite_id.hex
        for side in _sides(fallen):
            await put_back(
                tx, merchant_id, actor, side.member_id, credit=(side.reason, credited),
                origin=f"{credited}/{fallen['purchase_id'].hex}/{fallen['falls']}",
                reference=ids.encode("invite", invite_id),
            )  # fmt: skip
    await tx.row(
        REINSTATE,
        merchant_id=merchant_id,
        referral_id=fallen["referral_id"],
        purchase_id=fallen["purchase_id"],
        event_id=ids.new(),
        actor=actor,
    )
    return fallen["referral_id"]
