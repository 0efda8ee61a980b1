"""Addresses: any number of members may write one down; one of them can prove it, and the others lose it then.

The row of an address is the lock: whoever writes it down, proves it or claims by it waits there. Addresses are locked
in order, and before members.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, TypedDict
from uuid import UUID

import asyncpg

from app import ids
from app.api.context import Viewer
from app.coupons.adopt_codes import adopt_codes
from app.members.rows import FIND, IS_HERE, JOIN_MEMBER, MemberRow
from app.referrals.conversion import convert
from app.storage.database import Tx, transaction
from app.storage.events import event
from app.storage.statements import columns, row_of, statement

_ATTEMPTS_MAX: Final = 20


class _NobodyError(Exception):
    """There is no such member: an address that was locked for it goes again."""


class _ChangedMeanwhileError(Exception):
    """The member has got another address since it was looked at."""


@row_of(m="member")
class HeldRow(TypedDict):
    """A member that is locked, and with it its addresses and one more: `held`.

    `owner_id` is who has proved that one.
    """

    member_id: Annotated[UUID, "m.id"]
    email: Annotated[bytes | None, "m.email"]
    email_index: Annotated[bytes | None, "m.email_index"]
    mailbox_index: Annotated[bytes | None, "m.mailbox_index"]
    email_verified: Annotated[bool, "m.email_verified"]
    pending_email: Annotated[bytes | None, "m.pending_email"]
    pending_email_index: Annotated[bytes | None, "m.pending_email_index"]
    pending_mailbox_index: Annotated[bytes | None, "m.pending_mailbox_index"]
    email_edited: Annotated[bool, "m.email_edited"]
    display_name: Annotated[bytes | None, "m.display_name"]
    held: Annotated[list[bytes], "ARRAY(SELECT email_index FROM held)"]
    owner_id: Annotated[UUID | None, "(SELECT member_id FROM held WHERE email_index = :email_index)"]


# What the addresses' rows return is as of now, whatever this statement waited for, and so is the member's.
HOLD: Final = statement(
    HeldRow,
    f"""
WITH found AS (
    SELECT email_index, pending_email_index FROM member
    WHERE merchant_id = :merchant_id AND id = :member_id AND {IS_HERE}
), held AS (
    INSERT INTO address (merchant_id, email_index)
    SELECT :merchant_id, email_index FROM (
        SELECT email_index FROM found UNION SELECT pending_email_index FROM found UNION SELECT :email_index::bytea
    ) wanted
    WHERE email_index IS NOT NULL AND EXISTS (SELECT FROM found) ORDER BY email_index
    ON CONFLICT (merchant_id, email_index) DO UPDATE SET email_index = excluded.email_index
    RETURNING email_index, member_id
), m AS (
    SELECT * FROM member
    WHERE merchant_id = :merchant_id AND id = :member_id AND {IS_HERE} AND (SELECT count(*) FROM held) >= 0
    FOR NO KEY UPDATE
)
SELECT {columns(HeldRow)} FROM m
""",
)


async def _hold(tx: Tx, viewer: Viewer, member_id: UUID, email_index: bytes | None) -> HeldRow:
    """Lock a member with its addresses and another one. Raises _NobodyError when there is no such member.

    Raises _ChangedMeanwhileError: the transaction is to be tried again.
    """
    held = await tx.row(HOLD, merchant_id=viewer.merchant_id, member_id=member_id, email_index=email_index)
    if held is None:
        raise _NobodyError
    if not {held["email_index"], held["pending_email_index"]} - {None} <= {*held["held"]}:
        raise _ChangedMeanwhileError
    return held


async def as_it_is(tx: Tx, viewer: Viewer, member: HeldRow) -> MemberRow:
    """Return a held member as it is now."""
    row = await tx.row(FIND, merchant_id=viewer.merchant_id, member_id=member["member_id"])
    if row is None:
        raise RuntimeError("a held member can't be read")
    return row


class _DisplacedRow(TypedDict):
    displaced: list[UUID]


class ProvedRow(MemberRow, _DisplacedRow):
    """A member that has proved an address, who lost it, and the invite that waited for the proof, if one did."""

    invite_id: UUID | None


#: Whether a record that was merged into a member has proved an `address`: it finds the member for good.
IS_MERGED: Final = """EXISTS (
    SELECT FROM member WHERE merchant_id = :merchant_id AND merged_into_id = :member_id
        AND member.email_index = address.email_index AND email_verified
)"""
_TAKE: Final = f"""
owned AS (
    -- The address is the member's, and the one that it had proved before is nobody's.
    UPDATE address SET member_id = CASE WHEN email_index = :email_index THEN :member_id::uuid END
    WHERE merchant_id = :merchant_id AND email_index = ANY(:held::bytea[])
        AND (email_index = :email_index OR (member_id = :member_id AND NOT {IS_MERGED}))
), rivals AS (
    -- Those that have written it down.
    SELECT id FROM member
    WHERE merchant_id = :merchant_id AND id <> :member_id AND id = ANY(ARRAY(
        SELECT id FROM member WHERE merchant_id = :merchant_id AND email_index = :email_index AND NOT email_verified
        UNION ALL
        SELECT id FROM member WHERE merchant_id = :merchant_id AND pending_email_index = :email_index
    ))
    ORDER BY id FOR NO KEY UPDATE
), displaced AS (
    UPDATE member SET
        email = CASE WHEN email_index <> :email_index THEN email END,
        email_index = nullif(email_index, :email_index),
        mailbox_index = CASE WHEN email_index <> :email_index THEN mailbox_index END,
        pending_email = CASE WHEN pending_email_index <> :email_index THEN pending_email END,
        pending_email_index = nullif(pending_email_index, :email_index),
        pending_mailbox_index = CASE WHEN pending_email_index <> :email_index THEN pending_mailbox_index END
    WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(SELECT id FROM rivals))
    RETURNING id
)
"""
_DISPLACED: Final = "ARRAY(SELECT id FROM displaced ORDER BY id) AS displaced"
#: Of a member that was enrolled with it.
TAKE: Final = statement(_DisplacedRow, f"WITH {_TAKE} SELECT {_DISPLACED}")
#: Of a member that has written it down.
PROVE: Final = statement(
    ProvedRow,
    f"""
WITH m AS (
    -- A pending address takes the place of the one that was proved before.
    UPDATE member SET
        email = CASE WHEN email_index = :email_index THEN email ELSE pending_email END, email_index = :email_index,
        mailbox_index = CASE WHEN email_index = :email_index THEN mailbox_index ELSE pending_mailbox_index END,
        email_verified = true, pending_email = NULL, pending_email_index = NULL, pending_mailbox_index = NULL
    WHERE merchant_id = :merchant_id AND id = :member_id
    RETURNING *
), recorded AS (
    {event("member.email_verified", subject="id", source="m")}
), {_TAKE}
SELECT {columns(MemberRow)}, {_DISPLACED}, (
    -- By its key first, whatever the planner knew.
    SELECT id FROM (
        SELECT id, status FROM invite WHERE merchant_id = :merchant_id AND id = m.accepted_invite_id OFFSET 0
    ) accepted WHERE status = 'PENDING'
) AS invite_id
FROM m CROSS JOIN LATERAL (SELECT * FROM wallet WHERE merchant_id = :merchant_id AND member_id = m.id OFFSET 0) w
""",
)
#: Of many members that were enrolled with theirs.
TAKE_ALL: Final = statement(
    _DisplacedRow,
    """
WITH owned AS (
    UPDATE address SET member_id = proving.member_id
    FROM unnest(:member_ids::uuid[], :email_indexes::bytea[]) AS proving (member_id, email_index)
    WHERE merchant_id = :merchant_id AND address.email_index = ANY(:email_indexes)
        AND address.email_index = proving.email_index
), rivals AS (
    SELECT id FROM member
    WHERE merchant_id = :merchant_id AND id <> ALL(:member_ids) AND id = ANY(ARRAY(
        SELECT id FROM member
        WHERE merchant_id = :merchant_id AND email_index = ANY(:email_indexes) AND NOT email_verified
        UNION ALL
        SELECT id FROM member WHERE merchant_id = :merchant_id AND pending_email_index = ANY(:email_indexes)
    ))
    ORDER BY id FOR NO KEY UPDATE
), displaced AS (
    UPDATE member SET
        email = CASE WHEN email_index <> ALL(:email_indexes) THEN email END,
        email_index = CASE WHEN email_index <> ALL(:email_indexes) THEN email_index END,
        mailbox_index = CASE WHEN email_index <> ALL(:email_indexes) THEN mailbox_index END,
        pending_email = CASE WHEN pending_email_index <> ALL(:email_indexes) THEN pending_email END,
        pending_email_index = CASE WHEN pending_email_index <> ALL(:email_indexes) THEN pending_email_index END,
        pending_mailbox_index = CASE WHEN pending_email_index <> ALL(:email_indexes) THEN pending_mailbox_index END
    WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(SELECT id FROM rivals))
    RETURNING id
)
SELECT ARRAY(SELECT id FROM displaced ORDER BY id) AS displaced
""",
)
TELL_DISPLACED: Final = statement(
    MemberRow,
    f"""
WITH lost AS (
    SELECT * FROM unnest(:member_ids::uuid[], :event_ids::uuid[]) AS t (member_id, event_id)
), recorded AS (
    {event("member.email_displaced", id="event_id", subject="member_id", source="lost")}
)
SELECT {columns(MemberRow)} FROM lost {JOIN_MEMBER.format("lost")} ORDER BY m.id
""",
)


@dataclass(frozen=True, slots=True)
class Proved:
    """A member that has proved an address, as it is now; who had it written down and lost it; what it converted."""

    row: MemberRow
    displaced: list[MemberRow]
    referral_id: UUID | None


async def on_held(
    viewer: Viewer, member_id: UUID, email_index: bytes | None, work: Callable[[Tx, HeldRow], Awaitable[Proved]]
) -> Proved | None:
    """Do `work` in a transaction that holds a member with its addresses and another one.

    Again in another one when the member claimed in between or got another address. Returns None when there is no such
    member.
    """
    for _ in range(_ATTEMPTS_MAX):
        try:
            async with transaction(viewer.merchant_id) as tx:
                return await work(tx, await _hold(tx, viewer, member_id, email_index))
        except _NobodyError:
            return None
        except (asyncpg.UniqueViolationError, _ChangedMeanwhileError):
            continue
    raise RuntimeError("a member kept claiming while its addresses were held")


async def prove(tx: Tx, viewer: Viewer, member: HeldRow, email_index: bytes) -> Proved:
    """Make a held address, which the member has written down and nobody has proved, the member's own.

    Converts an invite that waited for it, and adopts the codes that did. Raises asyncpg.UniqueViolationError when the
    member claims at this very moment; the transaction is to be tried again.
    """
    proved = await tx.row(
        PROVE,
        merchant_id=viewer.merchant_id,
        member_id=member["member_id"],
        email_index=email_index,
        held=member["held"],
        event_id=ids.new(),
        actor=viewer.actor,
    )
    if proved is None:
        raise RuntimeError("a held member can't be read")
    lost = await _tell(tx, viewer, proved["displaced"])
    referral_id: UUID | None = None
    if proved["invite_id"] is not None:
        # First, because it locks two wallets, and several are locked by member.
        referral_id = (await convert(tx, viewer.tenant.keys, viewer.actor, proved["invite_id"])).referral_id
    adopted = await adopt_codes(tx, viewer, member["member_id"], email_index)
    row = await as_it_is(tx, viewer, member) if adopted or referral_id is not None else proved
    return Proved(row, lost, referral_id)


async def take(tx: Tx, viewer: Viewer, member_id: UUID, email_index: bytes) -> list[MemberRow]:
    """Make an address that is locked that of a member that was just enrolled with it, proved.

    Returns who had it and lost it.
    """
    taken = await tx.row(
        TAKE, merchant_id=viewer.merchant_id, member_id=member_id, email_index=email_index, held=[email_index]
    )
    return [] if taken is None else await _tell(tx, viewer, taken["displaced"])


async def take_all(tx: Tx, viewer: Viewer, proving: Mapping[UUID, bytes]) -> list[MemberRow]:
    """Make addresses that are locked those of members that were just enrolled with them, proved.

    Returns who had them and lost them.
    """
    taken = await tx.many(
        TAKE_ALL, merchant_id=viewer.merchant_id, member_ids=list(proving), email_indexes=list(proving.values())
    )
    return await _tell(tx, viewer, taken[0]["displaced"])


async def _tell(tx: Tx, viewer: Viewer, displaced: Sequence[UUID]) -> list[MemberRow]:
    if not displaced:
        return []
    return await tx.rows(
        TELL_DISPLACED,
        merchant_id=viewer.merchant_id,
        member_ids=displaced,
        event_ids=[ids.new() for _ in displaced],
        actor=viewer.actor,
    )
