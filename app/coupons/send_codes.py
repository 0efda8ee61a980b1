"""Sending: one code of a pool for each of many people at once, members and addresses."""

import asyncio
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypedDict
from uuid import UUID

import asyncpg

from app import ids
from app.api.context import Viewer
from app.api.operations import Refused, not_found
from app.coupons.claims import FREE_MAILBOXES, exhausted
from app.coupons.rows import SHOWN_STATE
from app.members.mailboxes import mailbox_index
from app.members.remembered import REMEMBERS
from app.segments.definitions import SegmentName
from app.storage.crypto import MerchantKeys
from app.storage.database import Tx
from app.storage.statements import NoRow, statement
from app.storage.wallet_versions import raise_wallets, ring_wallets

ATTEMPTS_MAX: Final = 20
DELIVERY_COLUMNS: Final = ["merchant_id", "campaign_id", "code_id", "position", "recipient", "allocated"]


@dataclass(frozen=True, slots=True)
class Recipients:
    """Checked recipients, each once: members, and addresses by their index; or whoever is in a segment."""

    members: list[UUID]
    addresses: dict[bytes, str]
    segment: SegmentName | None = None

    def hash(self, name: str, pool_id: UUID) -> bytes:
        """Return what tells this request from another one, whatever the order of the recipients."""
        digest = hashlib.sha256(pool_id.bytes + len(name.encode()).to_bytes(4) + name.encode())
        if self.segment is not None:
            digest.update(self.segment.value.encode())
        for part in (*sorted(member.bytes for member in self.members), *sorted(self.addresses)):
            digest.update(part)
        return digest.digest()


@dataclass(slots=True)
class Person:
    """A recipient: a member, an address, or an address that a member has proved; and what it has of the pool.

    `sent_to` is the address that was asked for. `mailbox` is what counts in a pool with one claim per mailbox: a new
    claim takes it, unless the person has it there (None), and whoever finds it taken is skipped.
    """

    member_id: UUID | None
    sent_to: bytes | None
    mailbox: bytes | None = None
    is_skipped: bool = False
    claims: int = 0
    slot: int = 0
    latest_code_id: UUID | None = None

    @property
    def waits_for(self) -> bytes | None:
        """The address that its codes wait for, where nobody has proved that."""
        return self.sent_to if self.member_id is None else None


class ChangedMeanwhile(Exception):  # noqa: N818  (a reason to begin again)
    """A recipient's address became a member's since it was looked at, or it claimed again and again."""


@dataclass(frozen=True, slots=True)
class Sent:
    """How many people there were, each once, how many codes they were allocated, and how many were delivered."""

    recipients: int
    allocated: int
    delivered: int


class HeldPoolRow(TypedDict):
    """A pool that is locked for sending its codes."""

    id: UUID
    status: str
    starts_at: datetime | None
    code_lifetime_days: int | None
    claims_per_member: int
    one_claim_per_mailbox: bool
    is_open: bool


# Raises wallets, so it comes after the claims: the other way round a recipient that claims at this moment would hold
# its claim and wait for its wallet, while the campaign holds the wallet and waits for the claim.
ALLOCATE: Final = statement(
    NoRow,
    f"""
WITH asked AS (
    SELECT * FROM unnest(:code_ids::uuid[], :member_ids::uuid[], :email_indexes::bytea[], :event_ids::uuid[])
        AS t (code_id, member_id, email_index, event_id)
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT :merchant_id, :pool_id, gen_random_uuid(), -count(*), count(*), 0, 0, 0 FROM asked
), changed AS (
    SELECT event_id, code_id AS subject_id, member_id, NULL::bytea AS reason FROM asked
), {raise_wallets("code.sent")}, c AS (
    -- Dated as its wallet's new version is, if it is in a wallet. A lifetime counts from when the pool begins.
    UPDATE code SET state = 'ALLOCATED', member_id = sent.member_id, email_index = sent.email_index,
        matched_by = 'CAMPAIGN_RECIPIENT', allocated_at = sent.at,
        expires_at = least(
            code.expires_at, greatest(sent.at, :starts_at) + make_interval(days => :lifetime_days)
        )
    FROM (
        SELECT asked.*, coalesce(raised.changed_at, now()) AS at
        FROM asked LEFT JOIN raised ON raised.member_id = asked.member_id
    ) sent
    WHERE code.merchant_id = :merchant_id AND code.id = ANY(:code_ids::uuid[]) AND code.id = sent.code_id
)
SELECT FROM pool WHERE merchant_id = :merchant_id AND id = :pool_id
""",
)


class _CodeRow(TypedDict):
    id: UUID


FIND_LIVE: Final = statement(
    _CodeRow,
    f"""
SELECT c.id FROM code c JOIN pool p ON p.merchant_id = :merchant_id AND p.id = c.pool_id
WHERE c.merchant_id = :merchant_id AND c.id = ANY(:code_ids::uuid[]) AND {SHOWN_STATE} = 'ALLOCATED'
""",
)


async def send_codes(
    tx: Tx, viewer: Viewer, pool: HeldPoolRow, campaign_id: UUID, people: list[Person],
    addresses: Mapping[bytes, str], *, delivered: int = 0, again: bool = True,
) -> Sent:  # fmt: skip
    """Allocate a code to each recipient and write the deliveries. The order of locks is that of a claim.

    The caller holds the pool, and the campaign has `delivered` so many. A recipient that has had all its codes of the
    pool gets none; if its latest is live, that one is delivered `again`. Of two people with one mailbox the second gets
    none where only one may claim. Raises Refused with PoolExhausted, and ChangedMeanwhile: the transaction is to be
    tried again.
    """
    pool_id, limit = pool["id"], pool["claims_per_member"]
    await _count_claims(tx, viewer, pool_id, people)
    if pool["one_claim_per_mailbox"]:
        await _skip_mailboxes(tx, viewer, pool_id, limit, people)
    else:
        for person in people:
            person.mailbox = None
    codes = await pick(tx, viewer, pool_id, sum(_asks(person, limit) for person in people))
    await _hold_addresses(tx, viewer, people)
    served = await _claim(tx, viewer, pool_id, limit, people, codes)
    had = {
        person.latest_code_id: person for person in people
        if again and person.claims >= limit and person.latest_code_id is not None
    }  # fmt: skip
    live = await tx.many(FIND_LIVE, merchant_id=viewer.merchant_id, code_ids=list(had)) if had else []
    sent = [*served, *((had[row["id"]], row["id"]) for row in live)]
    # Addresses are sealed while the database allocates.
    sealing = asyncio.get_running_loop().run_in_executor(
        None, _deliveries, viewer, campaign_id, sent, addresses, delivered, len(served)
    )
    if served:
        await tx.many(
            ALLOCATE,
            merchant_id=viewer.merchant_id,
            pool_id=pool_id,
            starts_at=pool["starts_at"],
            lifetime_days=pool["code_lifetime_days"],
            code_ids=[code_id for _, code_id in served],
            member_ids=[person.member_id for person, _ in served],
            email_indexes=[person.waits_for for person, _ in served],
            event_ids=[ids.new() for _ in served],
            actor=viewer.actor,
        )
        owners = (person.member_id for person, _ in served if person.member_id is not None)
        ring_wallets(tx, viewer.merchant_id, owners)
    await tx.copy("delivery", DELIVERY_COLUMNS, await sealing)
    return Sent(recipients=len(people), allocated=len(served), delivered=len(sent))


def _asks(person: Person, limit: int) -> bool:
    return person.claims < limit and not person.is_skipped


class _MemberRow(TypedDict):
    asked_id: UUID
    member_id: UUID
    mailbox_index: bytes | None


class _AddressRow(TypedDict):
    email_index: bytes
    member_id: UUID | None


class _OwnerRow(_AddressRow):
    mailbox_index: bytes | None


FIND_MEMBERS: Final = statement(
    _MemberRow,
    """
SELECT a.id AS asked_id, m.id AS member_id, CASE WHEN m.email_verified THEN m.mailbox_index END AS mailbox_index
FROM member a JOIN member m ON m.merchant_id = :merchant_id AND m.id = coalesce(a.merged_into_id, a.id)
WHERE a.merchant_id = :merchant_id AND a.id = ANY(:member_ids::uuid[]) AND m.erased_at IS NULL
""",
)
FIND_OWNERS: Final = statement(
    _OwnerRow,
    """
SELECT a.email_index, a.member_id, m.mailbox_index
FROM address a JOIN member m ON m.merchant_id = :merchant_id AND m.id = a.member_id
WHERE a.merchant_id = :merchant_id AND a.email_index = ANY(:email_indexes::bytea[]) AND a.member_id IS NOT NULL
""",
)


async def known_members(tx: Tx, merchant_id: UUID, member_ids: list[UUID]) -> dict[UUID, Person]:
    """Return those of the members that there are, in order, each by the id that it is asked by.

    Of merged ones it is who stands for them.
    """
    rows = await tx.many(FIND_MEMBERS, merchant_id=merchant_id, member_ids=member_ids)
    found = {row["asked_id"]: Person(row["member_id"], None, row["mailbox_index"]) for row in rows}
    return {each: found[each] for each in member_ids if each in found}


async def resolve(tx: Tx, viewer: Viewer, asked: Recipients) -> list[Person]:
    """Return each person once, member or address. Raises Refused(NotFound) for a member that doesn't exist."""
    found = await known_members(tx, viewer.merchant_id, asked.members)
    if len(found) < len(asked.members):
        raise not_found("member", ids.encode("member", next(each for each in asked.members if each not in found)))
    owned = await tx.many(FIND_OWNERS, merchant_id=viewer.merchant_id, email_indexes=list(asked.addresses))
    owners = {row["email_index"]: row for row in owned}
    people: dict[UUID | bytes | None, Person] = {person.member_id: person for person in found.values()}
    strangers = {index: address for index, address in asked.addresses.items() if index not in owners}
    mailboxes = await asyncio.to_thread(_mailboxes, viewer.tenant.keys, strangers)
    for index in asked.addresses:
        owner = owners.get(index)
        if owner is None:
            people[index] = Person(None, index, mailboxes[index])
        elif owner["member_id"] is not None:
            # Asked for by id and by address, a member is sent to at that address.
            people[owner["member_id"]] = Person(owner["member_id"], index, owner["mailbox_index"])
    return list(people.values())


def _mailboxes(keys: MerchantKeys, addresses: Mapping[bytes, str]) -> dict[bytes, bytes]:
    return {index: mailbox_index(keys, address) for index, address in addresses.items()}


class _TakenRow(TypedDict):
    """Whose a mailbox is in a pool: a member's, an address's, or that of somebody who was erased."""

    mailbox_index: bytes
    member_id: UUID | None
    email_index: bytes | None


FIND_MAILBOXES: Final = statement(
    _TakenRow,
    f"""
SELECT index AS mailbox_index, NULL::uuid AS member_id, NULL::bytea AS email_index
FROM unnest(:mailbox_indexes::bytea[]) AS index WHERE {REMEMBERS.format("index", ":pool_id = ANY(r.pool_ids)")}
UNION ALL
SELECT mailbox_index, member_id, email_index FROM claim
WHERE merchant_id = :merchant_id AND pool_id = :pool_id AND mailbox_index = ANY(:mailbox_indexes::bytea[])
""",
)


async def _skip_mailboxes(tx: Tx, viewer: Viewer, pool_id: UUID, limit: int, people: Sequence[Person]) -> None:
    """Note who finds its mailbox taken, in the pool or by somebody before it, and who has it there already."""
    asking = [person for person in people if person.mailbox is not None and _asks(person, limit)]
    mailboxes = [person.mailbox for person in asking]
    asked: dict[str, Any] = {"merchant_id": viewer.merchant_id, "pool_id": pool_id, "mailbox_indexes": mailboxes}
    pads = viewer.tenant.keys.memory_pads
    rows = await tx.many(FIND_MAILBOXES, **asked, memory_pads=pads)
    if rows:
        await tx.many(FREE_MAILBOXES, **asked)
        rows = await tx.many(FIND_MAILBOXES, **asked, memory_pads=pads)
    first: dict[bytes, UUID | bytes | None] = {
        row["mailbox_index"]: row["member_id"] or row["email_index"] for row in rows
    }
    held = set(first)
    for person in asking:
        if person.mailbox is None:
            continue
        own = person.member_id or person.sent_to
        person.is_skipped = first.setdefault(person.mailbox, own) != own
        if person.mailbox in held:
            person.mailbox = None


class _ClaimsRow(TypedDict):
    """The claims of a member or of an address."""

    member_id: UUID | None
    email_index: bytes | None
    claims: int
    slot: int
    code_id: UUID | None


# What holds have set aside for a member counts. Only a pool that has backed a reward has such.
FIND_CLAIMS: Final = statement(
    _ClaimsRow,
    """
SELECT member_id, email_index, count(*) AS claims, max(slot) AS slot,
    (array_agg(code_id ORDER BY slot DESC))[1] AS code_id
FROM (
    SELECT member_id, NULL::bytea AS email_index, slot, code_id FROM claim
    WHERE merchant_id = :merchant_id AND pool_id = :pool_id AND member_id = ANY(:member_ids::uuid[])
    UNION ALL
    SELECT NULL::uuid, email_index, slot, code_id FROM claim
    WHERE merchant_id = :merchant_id AND pool_id = :pool_id AND email_index = ANY(:email_indexes::bytea[])
    UNION ALL
    SELECT h.member_id, NULL::bytea, 0, NULL::uuid FROM hold h
    JOIN hold_reward y ON y.merchant_id = :merchant_id AND y.hold_id = h.id
    JOIN code c ON c.merchant_id = :merchant_id AND c.id = y.code_id
    WHERE h.merchant_id = :merchant_id AND h.member_id = ANY(:member_ids) AND h.status = 'HELD'
        AND h.held_until > now() AND c.pool_id = :pool_id AND c.state = 'SET_ASIDE' AND c.hold_id = h.id
        AND EXISTS (SELECT FROM reward WHERE merchant_id = :merchant_id AND pool_id = :pool_id)
) claims GROUP BY member_id, email_index
""",
)


async def _count_claims(tx: Tx, viewer: Viewer, pool_id: UUID, people: Sequence[Person]) -> None:
    """Note what each person has of the pool now."""
    members = {person.member_id: person for person in people if person.member_id is not None}
    strangers = {person.sent_to: person for person in people if person.member_id is None}
    rows = await tx.many(
        FIND_CLAIMS,
        merchant_id=viewer.merchant_id,
        pool_id=pool_id,
        member_ids=list(members),
        email_indexes=list(strangers),
    )
    for row in rows:
        person = strangers[row["email_index"]] if row["member_id"] is None else members[row["member_id"]]
        person.claims, person.slot, person.latest_code_id = row["claims"], row["slot"], row["code_id"]


class _StockRow(TypedDict):
    available: int


# The first codes in stock. Waits for claims that are taking one of them; nothing that they wait for is held yet. In an
# order that the index of the stock alone has: the primary key has all codes that were given out before them, too.
PICK: Final = statement(
    _CodeRow,
    """
SELECT id FROM code
WHERE merchant_id = :merchant_id AND pool_id = ANY(ARRAY[(SELECT :pool_id::uuid)]) AND state = 'AVAILABLE'
    AND (expires_at IS NULL OR expires_at > now())
ORDER BY pool_id, id LIMIT :count FOR UPDATE
""",
)
#: How many codes of a pool can be sent.
COUNT_STOCK: Final = """
SELECT coalesce(sum(available), 0) - (
    SELECT count(*) FROM code
    WHERE merchant_id = :merchant_id AND pool_id = :pool_id AND state = 'AVAILABLE' AND expires_at <= now()
) AS available
FROM stock_change WHERE merchant_id = :merchant_id AND pool_id = :pool_id
"""
IN_STOCK: Final = statement(_StockRow, COUNT_STOCK)


async def pick(tx: Tx, viewer: Viewer, pool_id: UUID, count: int) -> list[UUID]:
    """Lock the codes to send. Raises Refused(PoolExhausted) when there are too few."""
    codes: list[UUID] = []
    while count:
        picked = await tx.rows(PICK, merchant_id=viewer.merchant_id, pool_id=pool_id, count=count)
        codes = [row["id"] for row in picked]
        if len(codes) == count:
            break
        # Claims that it waited for took some; as long as the stock has enough, others are left.
        stock = await tx.row(IN_STOCK, merchant_id=viewer.merchant_id, pool_id=pool_id)
        if stock is None or stock["available"] < count:
            raise Refused(exhausted([pool_id], "The pool has too few codes left."))
    return codes


# In order, so that two campaigns to the same people don't wait for each other in a circle. Returns those that are a
# member's.
HOLD_ADDRESSES: Final = statement(
    _AddressRow,
    """
WITH held AS (
    INSERT INTO address (merchant_id, email_index)
    SELECT :merchant_id, each FROM unnest(:email_indexes::bytea[]) AS each ORDER BY each
    ON CONFLICT (merchant_id, email_index) DO UPDATE SET email_index = excluded.email_index
    RETURNING merchant_id, email_index, member_id
)
SELECT email_index, member_id FROM held WHERE merchant_id = :merchant_id AND member_id IS NOT NULL
""",
)


async def _hold_addresses(tx: Tx, viewer: Viewer, people: Sequence[Person]) -> None:
    """Lock the addresses among the recipients, so that who owns them stays as it was resolved."""
    resolved = {person.sent_to: person.member_id for person in people if person.sent_to is not None}
    if not resolved:
        return
    rows = await tx.many(HOLD_ADDRESSES, merchant_id=viewer.merchant_id, email_indexes=list(resolved))
    owners = {row["email_index"]: row["member_id"] for row in rows}
    if any(owners.get(index) != member_id for index, member_id in resolved.items()):
        raise ChangedMeanwhile


class _ClaimedRow(TypedDict):
    code_id: UUID


# Waits for recipients that claim at this moment. If such a claim was first, it fails.
_CLAIM: Final = """
INSERT INTO claim (merchant_id, code_id, pool_id, member_id, email_index, slot, mailbox_index, claimed_at)
SELECT :merchant_id, code_id, :pool_id, member_id, email_index, slot, mailbox_index, now()
FROM unnest(
    :code_ids::uuid[], :member_ids::uuid[], :email_indexes::bytea[], :slots::int[], :mailbox_indexes::bytea[]
) AS t (code_id, member_id, email_index, slot, mailbox_index)
"""
CLAIM: Final = statement(NoRow, _CLAIM)
# Where such a claim was first, none is made here; it is counted again. A quarter dearer: each row is looked for first.
CLAIM_WHERE_FREE: Final = statement(_ClaimedRow, f"{_CLAIM} ON CONFLICT DO NOTHING RETURNING code_id")


async def _claim(
    tx: Tx, viewer: Viewer, pool_id: UUID, limit: int, people: Sequence[Person], codes: Sequence[UUID]
) -> list[tuple[Person, UUID]]:
    """Claim one of the locked codes for each person below the limit. Returns who got which; the rest stay in stock."""
    asking = _asking(people, limit, codes)
    if not asking:
        return []
    try:
        async with tx.nested() as usually:
            await usually.many(CLAIM, **_claims(viewer, pool_id, asking))
    except asyncpg.UniqueViolationError:
        pass  # Somebody has claimed since it was counted.
    else:
        return asking
    served: list[tuple[Person, UUID]] = []
    for _ in range(ATTEMPTS_MAX):
        people, codes = [person for person, _ in asking], [code_id for _, code_id in asking]
        await _count_claims(tx, viewer, pool_id, people)
        await _skip_mailboxes(tx, viewer, pool_id, limit, people)
        # Nobody gets below the limit again, so there are codes enough.
        asking = _asking(people, limit, codes)
        if not asking:
            return served
        rows = await tx.many(CLAIM_WHERE_FREE, **_claims(viewer, pool_id, asking))
        claimed = {row["code_id"] for row in rows}
        served += [each for each in asking if each[1] in claimed]
        asking = [each for each in asking if each[1] not in claimed]
    raise ChangedMeanwhile


def _asking(people: Iterable[Person], limit: int, codes: Iterable[UUID]) -> list[tuple[Person, UUID]]:
    """Return who is to get which code."""
    return list(zip((person for person in people if _asks(person, limit)), codes, strict=False))


def _claims(viewer: Viewer, pool_id: UUID, asking: Sequence[tuple[Person, UUID]]) -> dict[str, Any]:
    """Return the claims as the statements take them."""
    return {
        "merchant_id": viewer.merchant_id,
        "pool_id": pool_id,
        "code_ids": [code_id for _, code_id in asking],
        "member_ids": [person.member_id for person, _ in asking],
        "email_indexes": [person.waits_for for person, _ in asking],
        "slots": [person.slot + 1 for person, _ in asking],
        "mailbox_indexes": [person.mailbox for person, _ in asking],
    }


def _deliveries(
    viewer: Viewer, campaign_id: UUID, sent: Sequence[tuple[Person, UUID]], addresses: Mapping[bytes, str],
    before: int, allocated: int,
) -> list[tuple[object, ...]]:  # fmt: skip
    """Return the rows (DELIVERY_COLUMNS) of what is sent after so many before, of which the first were allocated.

    A member's address is read when the mailer asks.
    """
    rows: list[tuple[object, ...]] = []
    for number, (person, code_id) in enumerate(sent, start=1):
        recipient = None
        if person.waits_for is not None:
            recipient = viewer.tenant.keys.encrypt(code_id, "recipient", addresses[person.waits_for])
        rows.append((viewer.merchant_id, campaign_id, code_id, before + number, recipient, number <= allocated))
    return rows
