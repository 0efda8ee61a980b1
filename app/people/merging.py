"""Two records of one person become one: what a merging does, in one transaction.

Locks go in the order of CONTRIBUTING.md: addresses, both members, orders, holds, purchases, rewards, invites,
referrals, codes, first orders, wallets, quotas.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, TypedDict
from uuid import UUID

from app.api.context import Viewer
from app.api.inputs import Problems, node_id
from app.api.operations import OutpacedError, not_found
from app.api.reasons import seal
from app.coupons.pass_on import lock_codes, pass_codes
from app.members.types import mask_email
from app.merchants.tenants import decrypted
from app.orders.pass_on import let_first_orders_meet, pass_orders
from app.points.pass_on import pass_points, points_fit
from app.referrals.conversion import drop
from app.referrals.pass_on import AcceptedRow, accepted, impossible, lock_invites, pass_invites
from app.storage.database import Tx, database
from app.storage.events import event
from app.storage.statements import NoRow, columns, statement
from app.storage.wallet_versions import NEXT_DATE, ChangeRow, ring_wallet


class Pair(NamedTuple):
    """Whose record is kept, and whose becomes a part of it."""

    kept_id: UUID
    merged_id: UUID


class NotMergeableError(Exception):
    """Referrals stand that one person can't have; the transaction is rolled back."""

    def __init__(self, referral_ids: list[UUID]) -> None:
        """Take which."""
        super().__init__("referrals that one person can't have")
        self.referral_ids = referral_ids


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merging did. Name and address, masked, are what the kept member shows since."""

    display_name: str | None
    masked_email: str | None
    codes: int = 0
    codes_revoked: int = 0
    points: int = 0
    purchases: int = 0
    referrals: int = 0
    holds: int = 0


class _NamedRow(TypedDict):
    """A member as it was named, and who stands for it: itself unless it was merged."""

    id: UUID
    standing_id: UUID
    erased_at: datetime | None


FIND_NAMED: Final = statement(
    _NamedRow,
    """
SELECT m.id, s.id AS standing_id, s.erased_at
FROM member m JOIN member s ON s.merchant_id = :merchant_id AND s.id = coalesce(m.merged_into_id, m.id)
WHERE m.merchant_id = :merchant_id AND m.id = ANY(:member_ids::uuid[])
""",
)


async def pair_of(viewer: Viewer, kept: str, merged: str) -> Pair:
    """Return the two members that stand for those that are named; one and the same when they were merged before.

    Raises Refused with InvalidInput, when it is named twice, or NotFound.
    """
    if kept == merged:
        problems = Problems()
        problems.add("mergedId", "must be another member than keptId")
        problems.refuse_if_any()
    named = {text: node_id("member", "member", text) for text in (kept, merged)}
    rows = await database().rows(FIND_NAMED, merchant_id=viewer.merchant_id, member_ids=list(named.values()))
    standing = {row["id"]: row["standing_id"] for row in rows if row["erased_at"] is None}
    for text, member_id in named.items():
        if member_id not in standing:
            raise not_found("member", text)
    return Pair(standing[named[kept]], standing[named[merged]])


class _RecordRow(TypedDict):
    """What a member's own row says of it."""

    id: UUID
    is_here: bool
    email: bytes | None
    email_index: bytes | None
    mailbox_index: bytes | None
    email_verified: bool
    pending_email: bytes | None
    pending_email_index: bytes | None
    pending_mailbox_index: bytes | None
    display_name: bytes | None


class _ProvenRow(TypedDict):
    """An address that a member has written down or proved."""

    email_index: bytes


#: What both have written down, and what they have proved, also by records that were merged into them before.
FIND_ADDRESSES: Final = statement(
    _ProvenRow,
    """
SELECT DISTINCT each AS email_index FROM member m
CROSS JOIN LATERAL unnest(ARRAY[m.email_index, m.pending_email_index]) AS each
WHERE m.merchant_id = :merchant_id AND each IS NOT NULL AND m.id = ANY(ARRAY(
    SELECT unnest(ARRAY[:kept_id::uuid, :merged_id::uuid])
    UNION ALL
    SELECT id FROM member WHERE merchant_id = :merchant_id AND merged_into_id = :merged_id
))
ORDER BY each
""",
)
LOCK_ADDRESSES: Final = statement(
    NoRow,
    """
SELECT FROM address WHERE merchant_id = :merchant_id AND email_index = ANY(:email_indexes::bytea[])
ORDER BY email_index FOR UPDATE
""",
)
LOCK_MEMBERS: Final = statement(
    _RecordRow,
    """
SELECT id, merged_into_id IS NULL AND erased_at IS NULL AS is_here, email, email_index, mailbox_index, email_verified,
    pending_email, pending_email_index, pending_mailbox_index, display_name
FROM member WHERE merchant_id = :merchant_id AND id = ANY(ARRAY[:kept_id::uuid, :merged_id::uuid])
ORDER BY id FOR NO KEY UPDATE
""",
)


async def _lock(tx: Tx, merchant_id: UUID, pair: Pair) -> tuple[_RecordRow, _RecordRow, list[bytes]]:
    """Lock both members with their addresses. Returns both, and the addresses. Raises OutpacedError."""
    both = {"merchant_id": merchant_id, "kept_id": pair.kept_id, "merged_id": pair.merged_id}
    before = [row["email_index"] for row in await tx.rows(FIND_ADDRESSES, **both)]
    await tx.rows(LOCK_ADDRESSES, merchant_id=merchant_id, email_indexes=before)
    records = {row["id"]: row for row in await tx.rows(LOCK_MEMBERS, **both)}
    since = [row["email_index"] for row in await tx.rows(FIND_ADDRESSES, **both)]
    if len(records) < 2 or not all(row["is_here"] for row in records.values()) or since != before:
        raise OutpacedError
    return records[pair.kept_id], records[pair.merged_id], before


@dataclass(frozen=True, slots=True)
class Address:
    """An address of one of two records: its ciphertext is of that record's row."""

    of: UUID
    email: bytes
    email_index: bytes
    mailbox_index: bytes


@dataclass(frozen=True, slots=True)
class Addresses:
    """What addresses the kept member has afterwards, and whether the merged record keeps the one that it has proved.

    What neither has any more is `dropped`.
    """

    present: Address | None
    is_proven: bool
    pending: Address | None
    merged_keeps: bool
    dropped: list[Address]


def _present(record: _RecordRow) -> Address | None:
    if record["email"] is None or record["email_index"] is None or record["mailbox_index"] is None:
        return None
    return Address(record["id"], record["email"], record["email_index"], record["mailbox_index"])


def _pending(record: _RecordRow) -> Address | None:
    ciphertext, index, mailbox = (
        record["pending_email"], record["pending_email_index"], record["pending_mailbox_index"]
    )  # fmt: skip
    return None if ciphertext is None or index is None or mailbox is None else Address(
        record["id"], ciphertext, index, mailbox
    )  # fmt: skip


def addresses_of(kept: _RecordRow, merged: _RecordRow) -> Addresses:
    """Return whose addresses the kept member has: a proven one first, its own before the other's.

    One that isn't proven waits beside that; the one that the merged record has proved still finds the member.
    """
    own, other = _present(kept), _present(merged)
    is_proven = kept["email_verified"] or merged["email_verified"]
    present = other if own is None or (merged["email_verified"] and not kept["email_verified"]) else own
    waiting = [_pending(kept), own, _pending(merged), None if merged["email_verified"] else other]
    pending = next((each for each in waiting if each and present and each.email_index != present.email_index), None)
    pending = pending if is_proven else None
    merged_keeps = merged["email_verified"] and present is not other
    stay = {each.email_index for each in (present, pending, other if merged_keeps else None) if each is not None}
    written = {each.email_index: each for each in (own, other, _pending(kept), _pending(merged)) if each is not None}
    dropped = [each for index, each in written.items() if index not in stay]
    return Addresses(present, is_proven, pending, merged_keeps, dropped)


# Its external ids and proven addresses find the kept member from now on, and so do records that were merged into it.
MERGE_RECORD: Final = statement(
    NoRow,
    """
WITH followers AS (
    UPDATE member SET merged_into_id = :kept_id WHERE merchant_id = :merchant_id AND merged_into_id = :merged_id
), named AS (
    UPDATE external_id SET member_id = :kept_id WHERE merchant_id = :merchant_id AND member_id = :merged_id
), owned AS (
    UPDATE address SET member_id = :kept_id
    WHERE merchant_id = :merchant_id AND email_index = ANY(:email_indexes::bytea[]) AND member_id = :merged_id
), inside AS (
    DELETE FROM segment_member WHERE merchant_id = :merchant_id AND member_id = :merged_id RETURNING segment
), added AS (
    INSERT INTO segment_member (merchant_id, member_id, segment) SELECT :merchant_id, :kept_id, segment FROM inside
    ON CONFLICT (merchant_id, member_id, segment) DO NOTHING
)
UPDATE member SET merged_into_id = :kept_id, external_id = NULL,
    last_bought_at = NULL, email = CASE WHEN :keeps THEN email END, email_index = CASE WHEN :keeps THEN email_index END,
    mailbox_index = CASE WHEN :keeps THEN mailbox_index END, email_verified = :keeps,
    pending_email = NULL, pending_email_index = NULL, pending_mailbox_index = NULL,
    -- By which an erasing finds what else is the person's.
    dropped_email_indexes = nullif(:dropped_emails::bytea[], '{}'),
    dropped_mailbox_indexes = nullif(:dropped_mailboxes::bytea[], '{}')
WHERE merchant_id = :merchant_id AND id = :merged_id
""",
)
# It was a member, and bought, since the earlier of both was and did.
KEEP_RECORD: Final = statement(
    NoRow,
    """
UPDATE member SET email = :email, email_index = :email_index, mailbox_index = :mailbox_index,
    email_verified = :email_verified, pending_email = :pending_email, pending_email_index = :pending_email_index,
    pending_mailbox_index = :pending_mailbox_index, email_edited = member.email_edited OR :is_edited,
    display_name = :display_name, joined_at = least(member.joined_at, merged.joined_at),
    last_bought_at = (
        SELECT max(occurred_at) FROM purchase
        WHERE merchant_id = :merchant_id AND member_id = :kept_id AND reversed_at IS NULL
    ),
    accepted_invite_id = coalesce(:accepted_invite_id, member.accepted_invite_id, merged.accepted_invite_id),
    external_id = coalesce(member.external_id, (
        SELECT min(external_id) FROM external_id
        WHERE merchant_id = :merchant_id AND member_id = :kept_id AND source = member.source
    ))
FROM (SELECT * FROM member WHERE merchant_id = :merchant_id AND id = :merged_id) merged
WHERE member.merchant_id = :merchant_id AND member.id = :kept_id
""",
)
LOCK_WALLETS: Final = statement(
    NoRow,
    """
SELECT FROM wallet WHERE merchant_id = :merchant_id AND member_id = ANY(:member_ids::uuid[])
ORDER BY member_id FOR UPDATE
""",
)
#: The last version of the merged wallet, which says so, and the end of it.
CLOSE: Final = statement(
    ChangeRow,
    f"""
WITH w AS (
    UPDATE wallet SET version = version + 1, changed_at = {NEXT_DATE}, shortfall = 0, closed_at = now()
    WHERE merchant_id = :merchant_id AND member_id = :merged_id RETURNING *
), ev AS (
    {
        event(
            "member.merged",
            subject="w.member_id",
            source="w",
            reason=":reason",
            member_id="w.member_id",
            wallet="w",
        )
    }
    RETURNING *
)
SELECT {columns(ChangeRow)} FROM ev
""",
)


async def merge(tx: Tx, viewer: Viewer, pair: Pair, reason: str, *, drop_referrals: bool) -> Merged:
    """Make one record of two that stand, and are apart.

    Raises Refused(InvalidInput) when one wallet can't hold what both have, NotMergeableError unless referrals are to be
    dropped, and OutpacedError.
    """
    merchant_id, actor, (kept_id, merged_id) = viewer.merchant_id, viewer.actor, pair
    kept, merged, email_indexes = await _lock(tx, merchant_id, pair)
    addresses = addresses_of(kept, merged)
    await tx.row(
        MERGE_RECORD,
        merchant_id=merchant_id,
        kept_id=kept_id,
        merged_id=merged_id,
        email_indexes=email_indexes,
        keeps=addresses.merged_keeps,
        dropped_emails=[each.email_index for each in addresses.dropped],
        dropped_mailboxes=[each.mailbox_index for each in addresses.dropped],
    )
    passed = await pass_orders(tx, merchant_id, kept_id, merged_id)
    await lock_invites(tx, merchant_id, kept_id, merged_id)
    invites = await accepted(tx, merchant_id, kept_id, merged_id)
    left = impossible(invites)
    _refuse_unless_dropped(left, drop_referrals=drop_referrals)
    await lock_codes(tx, merchant_id, kept_id, merged_id)
    await let_first_orders_meet(tx, merchant_id, kept_id, merged_id)
    wallets = {kept_id, merged_id} | {each for row in left for each in (row["referrer_id"], row["referee_id"])}
    await tx.rows(LOCK_WALLETS, merchant_id=merchant_id, member_ids=list(wallets))
    # From here on nothing is the merged member's that isn't there: what was held, paid or brought until now is, too.
    later = await pass_orders(tx, merchant_id, kept_id, merged_id)
    if impossible(await accepted(tx, merchant_id, kept_id, merged_id)) != left:
        raise OutpacedError
    for row in left:
        if row["referral_id"] is not None and row["stands"]:
            await drop(tx, merchant_id, actor, row["referral_id"])
    if not await points_fit(tx, merchant_id, kept_id, merged_id):
        problems = Problems()
        problems.add("mergedId", "has more points than fit into the kept member's balance")
        problems.refuse_if_any()
    codes = await pass_codes(tx, viewer, kept_id, merged_id)
    points = await pass_points(tx, merchant_id, actor, kept_id, merged_id)
    referrals = await pass_invites(
        tx, merchant_id, actor, kept_id, merged_id, left_behind=[row["invite_id"] for row in left],
        mailboxes=_mailboxes(kept, merged),
    )  # fmt: skip
    name, email = await _keep(tx, viewer, kept, merged, addresses, _stays(invites, left))
    event_id, sealed = seal(viewer, reason)
    closed = await tx.row(
        CLOSE, merchant_id=merchant_id, merged_id=merged_id, reason=sealed, event_id=event_id, actor=actor
    )
    if closed is None:
        raise RuntimeError("a locked wallet took no change")
    ring_wallet(tx, merchant_id, closed)
    return Merged(
        display_name=name,
        masked_email=email,
        codes=codes.codes,
        codes_revoked=codes.revoked,
        points=points,
        purchases=passed["purchases"] + later["purchases"],
        referrals=referrals,
        holds=passed["holds"] + later["holds"],
    )


def _refuse_unless_dropped(left: Collection[AcceptedRow], *, drop_referrals: bool) -> None:
    """Raise NotMergeableError for referrals that stand and were paid for. One that is held for review just ends."""
    standing = [row["referral_id"] for row in left if row["stands"] and row["is_released"]]
    if standing and not drop_referrals:
        raise NotMergeableError([each for each in standing if each is not None])


def _mailboxes(*records: _RecordRow) -> list[bytes]:
    found = {each for row in records for each in (row["mailbox_index"], row["pending_mailbox_index"])}
    return [each for each in found if each is not None]


def _stays(invites: Collection[AcceptedRow], left: Collection[AcceptedRow]) -> UUID | None:
    """Return the invite that the person came by."""
    return next((row["invite_id"] for row in invites if row not in left), None)


async def _keep(
    tx: Tx,
    viewer: Viewer,
    kept: _RecordRow,
    merged: _RecordRow,
    addresses: Addresses,
    accepted_invite_id: UUID | None,
) -> tuple[str | None, str | None]:
    """Write down what the kept member has of both records. Returns its name and its address, masked."""
    kept_id, keys = kept["id"], viewer.tenant.keys
    present, pending = addresses.present, addresses.pending
    address = None if present is None else await decrypted(viewer.tenant, present.of, "email", present.email)
    waiting = None if pending is None else await decrypted(viewer.tenant, pending.of, "email", pending.email)
    named = kept if kept["display_name"] is not None else merged
    name = None
    if named["display_name"] is not None:
        name = await decrypted(viewer.tenant, named["id"], "display_name", named["display_name"])
    before = (kept["email_index"], kept["pending_email_index"])
    since = (present and present.email_index, pending and pending.email_index)
    await tx.row(
        KEEP_RECORD,
        merchant_id=viewer.merchant_id,
        kept_id=kept_id,
        merged_id=merged["id"],
        email=None if address is None else keys.encrypt(kept_id, "email", address),
        email_index=present and present.email_index,
        mailbox_index=present and present.mailbox_index,
        email_verified=addresses.is_proven,
        pending_email=None if waiting is None else keys.encrypt(kept_id, "email", waiting),
        pending_email_index=pending and pending.email_index,
        pending_mailbox_index=pending and pending.mailbox_index,
        is_edited=before != since,
        display_name=None if name is None else keys.encrypt(kept_id, "display_name", name),
        accepted_invite_id=accepted_invite_id,
    )
    return name, None if address is None else mask_email(address)


class _ShownRow(TypedDict):
    display_name: bytes | None
    email: bytes | None


FIND_SHOWN: Final = statement(
    _ShownRow, "SELECT display_name, email FROM member WHERE merchant_id = :merchant_id AND id = :member_id"
)


async def shown(viewer: Viewer, kept: UUID) -> Merged:
    """Return what a merging that was made before would do: nothing."""
    row = await database().row(FIND_SHOWN, merchant_id=viewer.merchant_id, member_id=kept)
    if row is None:
        raise RuntimeError("a member that stands has no row")
    name, email = row["display_name"], row["email"]
    return Merged(
        display_name=None if name is None else await decrypted(viewer.tenant, kept, "display_name", name),
        masked_email=None if email is None else mask_email(await decrypted(viewer.tenant, kept, "email", email)),
    )
