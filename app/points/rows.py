"""What statements select of entries and rewards, and what reads them."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, TypedDict
from uuid import UUID

from app import ids
from app.api.access import is_another
from app.api.context import Viewer
from app.coupons.rows import FIND_CODE, SHOWN_TO_MEMBER, WholeCodeRow, codes_by_id
from app.members.rows import JOIN_MEMBER, JOIN_STANDING, MemberRow, unnamed
from app.storage.database import Statements, database
from app.storage.statements import columns, row_of, statement

#: What a person said of the entry `e`, sealed.
TOLD: Final = """CASE WHEN e.reference_index IS NOT NULL THEN (
            SELECT reference FROM entry_reference WHERE merchant_id = :merchant_id AND entry_id = e.id
        ) END"""


@row_of(e="points_entry")
class EntryRow(TypedDict):
    """An entry `e` of the ledger."""

    entry_id: Annotated[UUID, "e.id"]
    entry_amount: Annotated[int, "e.amount"]
    entry_balance_after: Annotated[int, "e.balance_after"]
    entry_reason: Annotated[str, "e.reason"]
    entry_reference: Annotated[str | None, "e.reference"]
    # What a person said of it, unless that is gone.
    entry_told: Annotated[bytes | None, TOLD]
    entry_spendable_at: Annotated[datetime | None, "e.spendable_at"]
    entry_expires_at: Annotated[datetime | None, "e.expires_at"]
    entry_created_at: Annotated[datetime, "e.created_at"]


@row_of(a="reward")
class RewardRow(TypedDict):
    """A reward `a`."""

    reward_id: Annotated[UUID, "a.id"]
    reward_name: Annotated[str, "a.name"]
    reward_cost: Annotated[int, "a.cost"]
    reward_stock: Annotated[int | None, "a.stock"]
    reward_pool_id: Annotated[UUID | None, "a.pool_id"]
    reward_active: Annotated[bool, "a.active"]


@row_of(x="reward_redemption")
class ExchangeRow(TypedDict):
    """A redemption `x` of a reward."""

    exchange_id: Annotated[UUID, "x.id"]
    exchange_code_id: Annotated[UUID | None, "x.code_id"]
    exchange_created_at: Annotated[datetime, "x.created_at"]
    exchange_reversed_at: Annotated[datetime | None, "x.reversed_at"]


@row_of(e="points_entry", m="member", w="wallet")
class WholeEntryRow(EntryRow, MemberRow):
    """An entry with its member."""


@row_of(e="points_entry", m="member", w="wallet")
class GrantRow(WholeEntryRow):
    """What a person granted, who stands for whom it was given, and what knows its words again."""

    standing_id: Annotated[UUID, "coalesce(m.merged_into_id, m.id)"]
    reference_index: Annotated[bytes | None, "e.reference_index"]
    told_of: Annotated[bytes | None, "e.told_of"]


@row_of(x="reward_redemption", a="reward", e="points_entry", m="member", w="wallet")
class WholeExchangeRow(ExchangeRow, RewardRow, WholeEntryRow):
    """A redemption of a reward with all that it can show but its code."""


_ENTRY: Final = columns(WholeEntryRow)
_REWARD: Final = columns(RewardRow)

#: Of one member only, and what its referrals brought the other one, or anybody's where `member_id` is null.
FIND_ENTRY: Final = statement(
    WholeEntryRow,
    f"""
SELECT {_ENTRY} FROM points_entry e {JOIN_STANDING.format("e")}
WHERE e.merchant_id = :merchant_id AND e.id = :entry_id AND (
    :member_id::uuid IS NULL OR standing.member_id = :member_id OR EXISTS (
        SELECT FROM referral r
        WHERE r.merchant_id = :merchant_id AND r.referee_id IN (standing.member_id, :member_id)
            AND :member_id IN (r.referrer_id, r.referee_id) AND e.id IN (r.referrer_entry_id, r.referee_entry_id)
    )
)
""",
)
FIND_ENTRY_BY_ORIGIN: Final = statement(
    WholeEntryRow,
    f"""
SELECT {_ENTRY} FROM points_entry e {JOIN_STANDING.format("e")}
WHERE e.merchant_id = :merchant_id AND e.reason = :reason AND e.origin = :origin
""",
)
FIND_GRANT: Final = statement(
    GrantRow,
    f"""
SELECT {columns(GrantRow)} FROM points_entry e {JOIN_MEMBER.format("e")}
WHERE e.merchant_id = :merchant_id AND e.reason = 'ADJUSTMENT' AND e.origin = :origin
""",
)
ENTRIES_BY_ID: Final = statement(
    WholeEntryRow,
    f"""
SELECT {_ENTRY} FROM points_entry e {JOIN_STANDING.format("e")}
WHERE e.merchant_id = :merchant_id AND e.id = ANY(:entry_ids::uuid[])
ORDER BY e.created_at, e.id
""",
)
LIST_ENTRIES: Final = statement(
    WholeEntryRow,
    f"""
SELECT {_ENTRY} FROM points_entry e {JOIN_STANDING.format("e")}
WHERE e.merchant_id = :merchant_id AND (e.created_at, e.id) < (:instant, :before)
ORDER BY e.created_at DESC, e.id DESC LIMIT :limit
""",
)
ENTRIES_OF_MEMBERS: Final = statement(
    WholeEntryRow,
    f"""
WITH page AS (
    SELECT newest.id FROM unnest(:member_ids::uuid[]) AS asked (member_id) CROSS JOIN LATERAL (
        SELECT id FROM points_entry
        WHERE merchant_id = :merchant_id AND member_id = asked.member_id AND (created_at, id) < (:instant, :before)
        ORDER BY created_at DESC, id DESC LIMIT :limit
    ) newest
)
SELECT {_ENTRY} FROM points_entry e {JOIN_MEMBER.format("e")}
WHERE e.merchant_id = :merchant_id AND e.id = ANY(ARRAY(SELECT id FROM page))
ORDER BY e.created_at DESC, e.id DESC
""",
)
#: Where `member_id` isn't null, only one that is offered or that the member had.
FIND_REWARD: Final = statement(
    RewardRow,
    f"""
SELECT {_REWARD} FROM reward a
WHERE a.merchant_id = :merchant_id AND a.id = :reward_id AND (:member_id::uuid IS NULL OR {SHOWN_TO_MEMBER})
""",
)
LIST_REWARDS: Final = statement(
    RewardRow,
    f"""
SELECT {_REWARD} FROM reward a
WHERE a.merchant_id = :merchant_id AND a.id < :before AND (a.active OR NOT :active_only)
ORDER BY a.id DESC LIMIT :limit
""",
)
#: Continues a FROM that has a redemption of a reward `x`: the rest of a WholeExchangeRow, each row looked up by its
#: whole key.
_JOIN_EXCHANGE: Final = f"""
    CROSS JOIN LATERAL (SELECT * FROM reward WHERE merchant_id = :merchant_id AND id = x.reward_id OFFSET 0) a
    CROSS JOIN LATERAL (SELECT * FROM points_entry WHERE merchant_id = :merchant_id AND id = x.entry_id OFFSET 0) e
    {JOIN_MEMBER.format("x")}
"""
FIND_EXCHANGE: Final = statement(
    WholeExchangeRow,
    f"""
SELECT {columns(WholeExchangeRow)} FROM reward_redemption x {_JOIN_EXCHANGE}
WHERE x.merchant_id = :merchant_id AND x.id = :exchange_id AND (:member_id::uuid IS NULL OR x.member_id = :member_id)
""",
)
FIND_EXCHANGE_BY_KEY: Final = statement(
    WholeExchangeRow,
    f"""
SELECT {columns(WholeExchangeRow)} FROM reward_redemption x {_JOIN_EXCHANGE}
WHERE x.merchant_id = :merchant_id AND x.idempotency_key = :key
""",
)


async def find_entry(viewer: Viewer, node_id: str) -> WholeEntryRow | None:
    """Return the entry behind an id; a member sees its own, and unnamed what its referrals brought others."""
    entry_id = ids.decode("entry", node_id)
    if entry_id is None:
        return None
    row = await database().row(
        FIND_ENTRY, merchant_id=viewer.merchant_id, entry_id=entry_id, member_id=viewer.member_id
    )
    return unnamed(row) if row is not None and is_another(viewer, row["member_id"]) else row


async def entry_by_origin(viewer: Viewer, reason: str, origin: str) -> WholeEntryRow | None:
    """Return the entry of this reason and origin, if there is one."""
    return await database().row(FIND_ENTRY_BY_ORIGIN, merchant_id=viewer.merchant_id, reason=reason, origin=origin)


async def grant_by_origin(viewer: Viewer, origin: str) -> GrantRow | None:
    """Return what was granted under this origin, if anything was."""
    return await database().row(FIND_GRANT, merchant_id=viewer.merchant_id, origin=origin)


async def entries_by_id(viewer: Viewer, entry_ids: list[UUID]) -> list[WholeEntryRow]:
    """Return entries, the oldest first."""
    return await database().rows(ENTRIES_BY_ID, merchant_id=viewer.merchant_id, entry_ids=entry_ids)


async def entries_by_member(
    viewer: Viewer, member_ids: list[UUID], instant: datetime, before: UUID, limit: int
) -> Mapping[UUID, list[WholeEntryRow]]:
    """Return the newest entries of each member, those before (`instant`, `before`), at most `limit` of each."""
    rows = await database().rows(
        ENTRIES_OF_MEMBERS,
        merchant_id=viewer.merchant_id,
        member_ids=member_ids,
        instant=instant,
        before=before,
        limit=limit,
    )
    grouped: defaultdict[UUID, list[WholeEntryRow]] = defaultdict(list)
    for row in rows:
        grouped[row["member_id"]].append(row)
    return grouped


async def find_reward(viewer: Viewer, node_id: str) -> RewardRow | None:
    """Return the reward behind an id; a member sees those that are offered, and those that it had."""
    reward_id = ids.decode("reward", node_id)
    if reward_id is None:
        return None
    return await database().row(
        FIND_REWARD, merchant_id=viewer.merchant_id, reward_id=reward_id, member_id=viewer.member_id
    )


async def code_of(where: Statements, viewer: Viewer, exchange: ExchangeRow) -> WholeCodeRow | None:
    """Return the code that a redemption of a reward brought, if any."""
    code_id = exchange["exchange_code_id"]
    if code_id is None:
        return None
    return await where.row(FIND_CODE, merchant_id=viewer.merchant_id, code_id=code_id, member_id=None)


EXCHANGES_BY_ID: Final = statement(
    WholeExchangeRow,
    f"""
SELECT {columns(WholeExchangeRow)} FROM reward_redemption x {_JOIN_EXCHANGE}
WHERE x.merchant_id = :merchant_id AND x.id = ANY(:exchange_ids::uuid[])
""",
)


async def exchanges_by_id(
    viewer: Viewer, exchange_ids: list[UUID]
) -> Mapping[UUID, tuple[WholeExchangeRow, WholeCodeRow | None]]:
    """Return redemptions of rewards that exist, each with the code that it brought."""
    rows = await database().rows(EXCHANGES_BY_ID, merchant_id=viewer.merchant_id, exchange_ids=exchange_ids)
    code_ids = [row["exchange_code_id"] for row in rows if row["exchange_code_id"] is not None]
    codes = await codes_by_id(viewer, code_ids) if code_ids else {}

    def code(row: WholeExchangeRow) -> WholeCodeRow | None:
        return None if row["exchange_code_id"] is None else codes[row["exchange_code_id"]]

    return {row["exchange_id"]: (row, code(row)) for row in rows}


class RemainingRow(TypedDict):
    """What is left of a credit."""

    entry_id: UUID
    remaining: int


# Of a lot that has become another member's nothing is left here: it is of the credit that brought it there.
REMAINING: Final = statement(
    RemainingRow,
    """
SELECT e.id AS entry_id, CASE WHEN l.member_id = e.member_id THEN l.remaining ELSE 0 END AS remaining
FROM points_entry e CROSS JOIN LATERAL (
    SELECT member_id, remaining FROM points_lot
    WHERE merchant_id = :merchant_id AND entry_id = coalesce(e.lot_id, e.id) OFFSET 0
) l
WHERE e.merchant_id = :merchant_id AND e.id = ANY(:entry_ids::uuid[])
""",
)


async def remaining_by_entry(viewer: Viewer, entry_ids: list[UUID]) -> Mapping[UUID, int]:
    """Return what is left of credits."""
    rows = await database().rows(REMAINING, merchant_id=viewer.merchant_id, entry_ids=entry_ids)
    return {row["entry_id"]: row["remaining"] for row in rows}


class PurseRow(TypedDict):
    """What can't be seen in a wallet's row: what isn't pending any more by the clock, and what ends next."""

    member_id: UUID
    ripe: int
    expires_at: datetime | None
    expiring: int


# Pending points whose time has come count as spendable, though the job may not have written it. What ends next is
# looked for among spendable and among pending lots, because their index keeps them apart.
PURSES: Final = statement(
    PurseRow,
    """
SELECT asked.member_id, ripe.points AS ripe, next.expires_at, expiring.points AS expiring
FROM unnest(:member_ids::uuid[]) AS asked (member_id)
CROSS JOIN LATERAL (
    SELECT coalesce(sum(remaining), 0)::int AS points FROM points_lot
    WHERE merchant_id = :merchant_id AND member_id = asked.member_id AND is_pending AND spendable_at <= now()
) ripe
CROSS JOIN LATERAL (
    SELECT min(expires_at) AS expires_at FROM unnest(ARRAY[false, true]) AS kind (is_pending) CROSS JOIN LATERAL (
        SELECT expires_at FROM points_lot
        WHERE merchant_id = :merchant_id AND member_id = asked.member_id AND is_open AND is_pending = kind.is_pending
            AND expires_at < 'infinity'
        ORDER BY expires_at LIMIT 1
    ) soonest
) next
CROSS JOIN LATERAL (
    SELECT coalesce(sum(remaining - held), 0)::int AS points FROM points_lot
    WHERE merchant_id = :merchant_id AND member_id = asked.member_id AND is_open AND is_pending IN (false, true)
        AND expires_at = next.expires_at
) expiring
""",
)


async def purse_by_member(viewer: Viewer, member_ids: list[UUID]) -> Mapping[UUID, PurseRow]:
    """Return what isn't pending any more of wallets, and what ends next."""
    rows = await database().rows(PURSES, merchant_id=viewer.merchant_id, member_ids=member_ids)
    return {row["member_id"]: row for row in rows}
