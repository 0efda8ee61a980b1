"""Erasing a person: what it has ends, what identifies it goes, and every total stays.

The order of locks is the address, the member, its holds, invites, codes, and its wallet last. What others do to the
person at that moment either comes before the wallet's lock and is seen, or meets a closed wallet (app/storage/gone.py).
"""

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, TypedDict
from uuid import UUID

from app import ids
from app.api.operations import OutpacedError
from app.coupons.adopt_codes import revoke_each
from app.coupons.recycle import recycle_each
from app.coupons.revive_codes import revive_needed
from app.coupons.rows import DIED_WITH_POOL, IS_HELD, IS_OVER, LIVES_AGAIN
from app.orders.holds import end_locked_hold
from app.people.erasure_memory import remember
from app.people.known_by import KnownBy, known_by, rows_of
from app.people.personal import PERSONAL, Fate, Personal
from app.points.erase_points import erase_points
from app.points.ledger import lock_wallet
from app.referrals.cancel_invite import cancel_each
from app.storage.crypto import MerchantKeys
from app.storage.database import Tx, transaction
from app.storage.events import event
from app.storage.gone import forfeits
from app.storage.restarts import ENDED
from app.storage.statements import NoRow, Statement, statement

ATTEMPTS_MAX: Final = 100


class MembersAddressError(Exception):
    """An address is a member's, so it is the member that is to be erased."""


class _LockedRow(TypedDict):
    id: UUID
    is_held: bool


# Locked as for a change of its key, for which whoever invites in its name waits, too. A member that was merged while
# this waited isn't the one to be erased: whoever stands for it is.
LOCK: Final = statement(
    _LockedRow,
    """
WITH own AS (
    SELECT id, array_remove(ARRAY[email_index, pending_email_index], NULL) || dropped_email_indexes AS indexes
    FROM member WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(
        SELECT id FROM member WHERE merchant_id = :merchant_id AND id = :member_id
            AND merged_into_id IS NULL AND erased_at IS NULL
        UNION ALL SELECT id FROM member WHERE merchant_id = :merchant_id AND merged_into_id = :member_id
    ))
), held AS (
    INSERT INTO address (merchant_id, email_index)
    SELECT :merchant_id, each FROM (SELECT DISTINCT unnest(indexes) AS each FROM own) wanted ORDER BY each
    ON CONFLICT (merchant_id, email_index) DO UPDATE SET email_index = excluded.email_index
    RETURNING email_index
), m AS (
    SELECT id, array_remove(ARRAY[email_index, pending_email_index], NULL) || dropped_email_indexes AS indexes
    FROM member
    WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(SELECT id FROM own)) AND erased_at IS NULL
        AND (SELECT count(*) FROM held) >= 0
        AND (id <> :member_id OR merged_into_id IS NULL)
    ORDER BY id FOR UPDATE
)
SELECT id, indexes <@ ARRAY(SELECT email_index FROM held) AS is_held FROM m
""",
)
LOCK_ADDRESS: Final = statement(
    NoRow,
    """
INSERT INTO address (merchant_id, email_index) VALUES (:merchant_id, :email_index)
ON CONFLICT (merchant_id, email_index) DO UPDATE SET email_index = excluded.email_index
""",
)


class _WrittenRow(TypedDict):
    is_written: bool


# Whether a member has written an address down or proved it. Locked before, it stays so.
IS_MEMBERS: Final = statement(
    _WrittenRow,
    """
SELECT EXISTS (
    SELECT FROM address
    WHERE merchant_id = :merchant_id AND email_index = ANY(:email_indexes::bytea[]) AND member_id IS NOT NULL
    UNION ALL
    SELECT FROM member
    WHERE merchant_id = :merchant_id AND email_index = ANY(:email_indexes) AND NOT email_verified
    UNION ALL
    SELECT FROM member WHERE merchant_id = :merchant_id AND pending_email_index = ANY(:email_indexes)
) AS is_written
FROM merchant WHERE merchant_id = :merchant_id
""",
)


class _HoldIdRow(TypedDict):
    id: UUID


#: Holds of orders that the person presents, and those that have its codes.
HOLDS_OF: Final = """
    SELECT h.id FROM sales_order o JOIN hold h ON h.merchant_id = :merchant_id AND h.sales_order_id = o.id
    WHERE o.merchant_id = :merchant_id AND h.status IN ('HELD', 'EXPIRED') AND o.id = ANY(ARRAY(
        SELECT id FROM sales_order WHERE merchant_id = :merchant_id AND presenter_id = ANY(:member_ids::uuid[])
        UNION ALL SELECT id FROM sales_order
        WHERE merchant_id = :merchant_id AND mailbox_index = ANY(:mailbox_indexes::bytea[]) AND presenter_id IS NULL
    ))
    UNION
    SELECT h.id FROM hold h
    WHERE h.merchant_id = :merchant_id AND h.member_id = ANY(:member_ids::uuid[]) AND h.status = 'HELD'
    UNION
    SELECT h.id FROM code c JOIN hold h ON h.merchant_id = :merchant_id AND h.id = c.hold_id
    WHERE c.merchant_id = :merchant_id AND h.status = 'HELD' AND c.state = 'ALLOCATED' AND c.id = ANY(ARRAY(
        SELECT id FROM code WHERE merchant_id = :merchant_id AND member_id = ANY(:member_ids::uuid[])
        UNION ALL SELECT id FROM code WHERE merchant_id = :merchant_id AND email_index = ANY(:email_indexes::bytea[])
    ))
"""
LIVE_HOLDS: Final = statement(_HoldIdRow, f"SELECT id FROM ({HOLDS_OF}) live ORDER BY id")
LOCK_LIVE_HOLDS: Final = statement(
    _HoldIdRow,
    f"""
SELECT id FROM hold WHERE merchant_id = :merchant_id AND id = ANY(ARRAY({HOLDS_OF})) ORDER BY id FOR UPDATE
""",
)


class _InviteIdRow(TypedDict):
    id: UUID


#: Those that nobody has accepted: that the person sent, and that were sent to it.
OPEN_INVITES_OF: Final = """
    SELECT id FROM invite WHERE merchant_id = :merchant_id AND accepted_at IS NULL AND status = 'PENDING'
        AND referrer_id = ANY(:member_ids::uuid[])
    UNION ALL SELECT id FROM invite WHERE merchant_id = :merchant_id AND accepted_at IS NULL AND status = 'PENDING'
        AND email_index = ANY(:email_indexes::bytea[])
"""
LOCK_INVITES: Final = statement(
    _InviteIdRow,
    f"""
SELECT id FROM invite WHERE merchant_id = :merchant_id AND id = ANY(ARRAY({OPEN_INVITES_OF})) ORDER BY id FOR UPDATE
""",
)


class _LiveRow(TypedDict):
    """A code of the person that it could spend: written down as such, or about to be."""

    id: UUID
    pool_id: UUID
    kind: str
    code_pattern: str | None
    is_replaced: bool
    lives_again: bool


CODES_OF: Final = """
    SELECT id FROM code WHERE merchant_id = :merchant_id AND member_id = ANY(:member_ids::uuid[])
    UNION ALL SELECT id FROM code WHERE merchant_id = :merchant_id AND email_index = ANY(:email_indexes::bytea[])
"""
LOCK_LIVE: Final = statement(
    _LiveRow,
    f"""
SELECT c.id, c.pool_id, p.kind, p.code_pattern, p.recycle_expired AND NOT {IS_OVER} AS is_replaced,
    {LIVES_AGAIN} AS lives_again
FROM code c JOIN pool p ON p.merchant_id = :merchant_id AND p.id = c.pool_id
WHERE c.merchant_id = :merchant_id AND c.id = ANY(ARRAY({CODES_OF}))
    AND ((c.state = 'ALLOCATED' AND NOT {IS_HELD}) OR {LIVES_AGAIN})
ORDER BY c.id FOR UPDATE OF c
""",
)
# What a pool's end has expired would live again with a later one.
END_FOR_GOOD: Final = statement(
    NoRow,
    f"""
UPDATE code c SET expires_at = now()
WHERE c.merchant_id = :merchant_id AND c.id = ANY(ARRAY({CODES_OF})) AND {DIED_WITH_POOL}
""",
)


class _LeftRow(TypedDict):
    is_left: bool


LOOK: Final = statement(
    _LeftRow,
    f"""
SELECT EXISTS (
    SELECT FROM code WHERE merchant_id = :merchant_id AND id = ANY(ARRAY({CODES_OF})) AND state = 'ALLOCATED'
) OR EXISTS (
    SELECT FROM hold WHERE merchant_id = :merchant_id AND member_id = ANY(:member_ids::uuid[]) AND status = 'HELD'
) AS is_left
FROM merchant WHERE merchant_id = :merchant_id
""",
)
# Sees what the wallets' locks waited for.
CLOSE: Final = statement(
    NoRow,
    """
UPDATE wallet SET closed_at = now()
WHERE merchant_id = :merchant_id AND member_id = ANY(:member_ids::uuid[]) AND closed_at IS NULL
""",
)
RECORD: Final = statement(
    NoRow,
    f"""
WITH e AS (
    INSERT INTO erasure (merchant_id, id, member_id, merged_ids, row_ids, invite_ids, ground, erased_at)
    VALUES (:merchant_id, :erasure_id, :member_id, :merged_ids, :row_ids, :invite_ids, :ground, now())
    RETURNING member_id
)
{event("member.erased", subject="member_id", source="e WHERE member_id IS NOT NULL")}
""",
)


def _wipe(personal: Personal) -> Statement[NoRow]:
    """Return what erases a table's columns, as the list of what is personal says."""
    rows = f"t.merchant_id = :merchant_id AND ({personal.erased or personal.found})"
    if Fate.DELETED in personal.fates.values():
        return statement(NoRow, f"DELETE FROM {personal.table} t WHERE {rows}")
    # Equal bytes become equal ones, which nobody can make again without the salt, and that is kept nowhere.
    anew = {Fate.CLEARED: "{0} = NULL", Fate.RANDOM: "{0} = sha256(:salt::bytea || t.{0})"}
    sets = ", ".join([*(anew[fate].format(column) for column, fate in personal.fates.items())])
    if personal.also is not None:
        return statement(NoRow, f"UPDATE {personal.table} t SET {sets}, {personal.also} WHERE {rows}")
    columns = ", ".join(f"t.{column}" for column in personal.fates)
    return statement(NoRow, f"UPDATE {personal.table} t SET {sets} WHERE {rows} AND num_nonnulls({columns}) > 0")


WIPE: Final = {personal.table: _wipe(personal) for personal in PERSONAL if personal.fates}
WIPE_INVITES: Final = next(
    _wipe(replace(personal, erased="t.id = ANY(:invite_ids::uuid[])"))
    for personal in PERSONAL
    if personal.table == "invite"
)
LOCK_EACH_INVITE: Final = statement(
    _InviteIdRow,
    """
SELECT id FROM invite
WHERE merchant_id = :merchant_id AND id = ANY(:invite_ids::uuid[]) AND accepted_at IS NULL AND status = 'PENDING'
ORDER BY id FOR UPDATE
""",
)


async def erase_member(
    keys: MerchantKeys, actor: str, member_id: UUID, ground: str, *, erased_at: datetime | None = None
) -> bool:
    """Erase a member, with those that were merged into it. Returns False when there is none, or it is gone.

    With a date it is remembered as of that one.
    """

    async def work(tx: Tx) -> None:
        locked = await tx.rows(LOCK, merchant_id=keys.merchant_id, member_id=member_id)
        if member_id not in {row["id"] for row in locked}:
            raise _NobodyError
        person = await known_by(tx, keys.merchant_id, member_id)
        records = {row["id"] for row in locked if row["is_held"]}
        if person is None or records != {*person.member_ids}:
            raise OutpacedError
        await _erase(tx, keys, actor, person, member_id, ground, erased_at)

    return await _until_done(keys.merchant_id, work)


async def erase_address(
    keys: MerchantKeys, actor: str, person: KnownBy, ground: str, *, erased_at: datetime | None = None
) -> bool:
    """Erase an address that is no member's. Returns False when nothing knows it. Raises MembersAddressError.

    With a date it is remembered as of that one.
    """

    async def work(tx: Tx) -> None:
        for index in sorted(person.email_indexes):
            await tx.row(LOCK_ADDRESS, merchant_id=keys.merchant_id, email_index=index)
        written = await tx.row(IS_MEMBERS, merchant_id=keys.merchant_id, email_indexes=list(person.email_indexes))
        if written is not None and written["is_written"]:
            raise MembersAddressError
        if not (await rows_of(tx, keys.merchant_id, person))["row_ids"]:
            raise _NobodyError
        await _erase(tx, keys, actor, person, None, ground, erased_at)

    return await _until_done(keys.merchant_id, work)


async def erase_invites(merchant_id: UUID, actor: str, invite_ids: Sequence[UUID]) -> None:
    """Cancel invites that nobody has accepted, and forget to whom all of these were sent."""
    async with transaction(merchant_id) as tx:
        named = {"merchant_id": merchant_id, "invite_ids": list(invite_ids)}
        invites = await tx.rows(LOCK_EACH_INVITE, **named)
        await cancel_each(tx, merchant_id, actor, [row["id"] for row in invites])
        await tx.row(WIPE_INVITES, **named, salt=os.urandom(32))


class _NobodyError(Exception):
    """Nobody is to be erased: what was locked for it goes again."""


async def _until_done(merchant_id: UUID, work: Callable[[Tx], Awaitable[None]]) -> bool:
    for _ in range(ATTEMPTS_MAX):
        try:
            async with transaction(merchant_id) as tx:
                await work(tx)
        except _NobodyError:
            return False
        except (OutpacedError, *ENDED):
            continue
        return True
    raise RuntimeError("a person kept getting something while it was erased")


async def _erase(
    tx: Tx,
    keys: MerchantKeys,
    actor: str,
    person: KnownBy,
    member_id: UUID | None,
    ground: str,
    erased_at: datetime | None,
) -> None:
    merchant_id = keys.merchant_id
    values = {"merchant_id": merchant_id, "salt": os.urandom(32)} | person.parameters()
    rows = await rows_of(tx, merchant_id, person)
    locked = await tx.rows(LOCK_LIVE_HOLDS, **_needed(LOCK_LIVE_HOLDS, values))
    # A cart may have become another person's while this waited for it.
    live = await tx.rows(LIVE_HOLDS, **_needed(LIVE_HOLDS, values))
    for hold_id in sorted({row["id"] for row in locked} & {row["id"] for row in live}):
        await end_locked_hold(tx, merchant_id, actor, hold_id, "RELEASED")
    invites = [row["id"] for row in await tx.rows(LOCK_INVITES, **_needed(LOCK_INVITES, values))]
    await cancel_each(tx, merchant_id, actor, invites)
    revoked = await _revoke(tx, merchant_id, actor, person)
    places = [(row["pool_id"], row["kind"], row["code_pattern"]) for row in revoked if row["is_replaced"]]
    await recycle_each(tx, keys, places, actor=actor)
    await tx.row(END_FOR_GOOD, **_needed(END_FOR_GOOD, values))
    await remember(tx, keys, person, erased_at)
    for wiped in WIPE.values():
        await tx.row(wiped, **_needed(wiped, values))
    for each in sorted(person.member_ids):
        await _close(tx, merchant_id, actor, each)
    left = await tx.row(LOOK, **_needed(LOOK, values))
    if left is None or left["is_left"]:
        raise OutpacedError
    await tx.row(CLOSE, merchant_id=merchant_id, member_ids=list(person.member_ids))
    await tx.row(
        RECORD,
        merchant_id=merchant_id,
        erasure_id=ids.new(),
        member_id=member_id,
        merged_ids=[each for each in person.member_ids if each != member_id],
        row_ids=rows["row_ids"],
        invite_ids=rows["invite_ids"],
        ground=ground,
        event_id=ids.new(),
        actor=actor,
    )


class _WalletRow(TypedDict):
    is_closed: bool


IS_CLOSED: Final = statement(
    _WalletRow,
    "SELECT closed_at IS NOT NULL AS is_closed FROM wallet WHERE merchant_id = :merchant_id AND member_id = :member_id",
)


async def _close(tx: Tx, merchant_id: UUID, actor: str, member_id: UUID) -> None:
    """Take a wallet's points. That of a merged record was emptied and closed before."""
    wallet = await tx.row(IS_CLOSED, merchant_id=merchant_id, member_id=member_id)
    if wallet is None or wallet["is_closed"]:
        return
    if (await lock_wallet(tx, merchant_id, member_id))["held_points"]:
        raise OutpacedError
    await erase_points(tx, merchant_id, actor, member_id)


async def _revoke(tx: Tx, merchant_id: UUID, actor: str, person: KnownBy) -> Sequence[_LiveRow]:
    """Revoke the codes that the person could spend, and return them."""
    live = await tx.rows(
        LOCK_LIVE,
        merchant_id=merchant_id,
        member_ids=list(person.member_ids),
        email_indexes=list(person.email_indexes),
    )
    if not live:
        return live
    await revive_needed(tx, merchant_id, [row["id"] for row in live if row["lives_again"]])
    await revoke_each(tx, merchant_id, actor, [row["id"] for row in live])
    return live


def _needed(asked: Statement[object], values: dict[str, object]) -> dict[str, object]:
    return {name: values[name] for name in asked.names}


@forfeits
async def _forfeit(tx: Tx, merchant_id: UUID, member_id: UUID) -> None:
    """Take what came back to an erased member."""
    await _revoke(tx, merchant_id, "system", KnownBy([member_id], [], []))
    await erase_points(tx, merchant_id, "system", member_id)
