"""Credits of many members at once: what `ledger.credit` writes for one, by one statement for each wallet's turn."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple, TypedDict
from uuid import UUID

from app import ids
from app.members.rows import IS_HERE
from app.points.ledger import POINTS_MAX
from app.points.types import PointsReason
from app.storage.database import Tx
from app.storage.events import event
from app.storage.statements import NoRow, statement
from app.storage.wallet_versions import NEXT_DATE, ring_wallets


class Credit(NamedTuple):
    """Points of a member, and what they come from, once per reason. They end after the merchant's lifetime if not at
    `expires_at`.
    """

    member_id: UUID
    amount: int
    origin: str
    expires_at: datetime | None


class _CreditedRow(TypedDict):
    origin: str
    member_id: UUID


LOCK_ALL: Final = statement(
    NoRow,
    """
SELECT FROM wallet WHERE merchant_id = :merchant_id AND member_id = ANY(:member_ids::uuid[])
ORDER BY member_id FOR UPDATE
""",
)
CREDIT_ALL: Final = statement(
    _CreditedRow,
    f"""
WITH asked AS (
    SELECT * FROM unnest(:member_ids::uuid[], :amounts::int[], :origins::text[], :expires_at::timestamptz[],
        :entry_ids::uuid[], :event_ids::uuid[]) AS t (member_id, amount, origin, ends_at, entry_id, event_id)
), w AS (
    -- The guard: a credit that a wallet can't hold changes no row, nor does one of a member that is gone.
    UPDATE wallet SET version = version + 1, changed_at = {NEXT_DATE}, points = points + asked.amount
    FROM asked
    WHERE wallet.merchant_id = :merchant_id AND wallet.member_id = ANY(:member_ids)
        AND wallet.member_id = asked.member_id AND points + asked.amount::bigint <= {POINTS_MAX}
        AND EXISTS (SELECT FROM member WHERE merchant_id = :merchant_id AND id = asked.member_id AND {IS_HERE})
    RETURNING wallet.*, asked.amount, asked.origin, asked.ends_at, asked.entry_id, asked.event_id
), e AS (
    INSERT INTO points_entry (merchant_id, id, member_id, amount, balance_after, reason, origin, reference,
                              spendable_at, expires_at, created_at)
    SELECT :merchant_id, entry_id, member_id, amount, points, :reason, origin, :reference, changed_at,
        coalesce(ends_at, changed_at + (
            SELECT points_lifetime_days * interval '24 hours' FROM merchant WHERE merchant_id = :merchant_id
        )), changed_at
    FROM w ORDER BY entry_id RETURNING *
), lots AS (
    INSERT INTO points_lot (merchant_id, entry_id, member_id, amount, remaining, is_open, is_pending, is_warned,
                            spendable_at, expires_at, created_at, last_entry_id)
    SELECT :merchant_id, id, member_id, amount, amount, true, false, false, spendable_at,
        coalesce(expires_at, 'infinity'), created_at, id
    FROM e
), recorded AS (
    {
        event(
            "points.credited",
            id="event_id",
            subject="entry_id",
            source="w",
            points="amount",
            member_id="member_id",
            wallet="w",
        )
    }
)
SELECT origin, member_id FROM w
""",
)


async def credit_all(
    tx: Tx, merchant_id: UUID, actor: str, credits: Sequence[Credit], reason: PointsReason, *, reference: str
) -> set[str]:
    """Write credits with their lots, each a version of its wallet. Returns the origins of those that were written.

    Locks the wallets by member. Left out are those of members that are gone, and those that a balance can't hold.
    Raises asyncpg.UniqueViolationError when an origin has an entry for this reason already.
    """
    await tx.many(LOCK_ALL, merchant_id=merchant_id, member_ids=list({each.member_id for each in credits}))
    turns: defaultdict[int, list[Credit]] = defaultdict(list)
    given: defaultdict[UUID, int] = defaultdict(int)
    for each in credits:
        turns[given[each.member_id]].append(each)
        given[each.member_id] += 1
    written = set()
    for turn in turns.values():
        rows = await tx.many(
            CREDIT_ALL,
            merchant_id=merchant_id,
            member_ids=[each.member_id for each in turn],
            amounts=[each.amount for each in turn],
            origins=[each.origin for each in turn],
            expires_at=[each.expires_at for each in turn],
            entry_ids=[ids.new() for _ in turn],
            event_ids=[ids.new() for _ in turn],
            reason=reason.value,
            reference=reference,
            actor=actor,
        )
        ring_wallets(tx, merchant_id, (row["member_id"] for row in rows))
        written |= {row["origin"] for row in rows}
    return written
