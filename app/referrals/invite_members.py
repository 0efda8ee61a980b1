"""inviteMembers: invites to a list of addresses, all those that can be, or none of them beyond a quota."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Final, TypedDict
from uuid import UUID

import strawberry
from limits import RateLimitItemPerDay

from app import ids
from app.api.attempts import allowed
from app.api.context import Role, Viewer
from app.api.inputs import Problems, acting_member
from app.api.operations import Info, InvalidInput, NotFound, Refusal, Refused, mutation, not_found
from app.members.mailboxes import mailbox, mailbox_index, telling_domain
from app.members.rows import IS_HERE, member_exists
from app.merchants.tenants import decrypted
from app.referrals.configure_referral_program import BATCH_MAX
from app.referrals.disposable import is_disposable
from app.referrals.queries import quota_of
from app.referrals.rows import JOIN_QUOTA, JOIN_REFERRER, QuotaRow, WholeInviteRow
from app.referrals.tokens import new_token, token_hash
from app.referrals.types import Invite, InviteQuota, InviteSkipReason
from app.storage.database import Tx, database, transaction
from app.storage.events import event
from app.storage.statements import columns, row_of, statement

#: How many members and invited people one member may be told of in a day: who asks for more is not inviting friends.
TOLD_PER_DAY_MAX: Final = 200
_SHOWN_LENGTH_MAX: Final = 254


@strawberry.input(description="Invites to send. A member invites for itself; ADMIN and CHECKOUT name the referrer.")
class InviteMembersInput:
    """Whom, and in whose name."""

    emails: list[str] = strawberry.field(description="The addresses, 1 to 5,000.")
    member_id: strawberry.ID | None = strawberry.field(
        default=None, description="The member that invites; needed with API keys."
    )


@strawberry.type(description="An address that got no invite. It cost no quota.")
class SkippedInvite:
    """One address."""

    email: str = strawberry.field(description="The address as it was given, cut to 254 characters.")
    reason: InviteSkipReason = strawberry.field(description="Why.")


@strawberry.type(description="The invites were sent, where addresses could have one.")
class InviteMembersSuccess:
    """What was sent and what wasn't, each in the order given."""

    invites: list[Invite] = strawberry.field(description="The new invites.")
    skipped: list[SkippedInvite] = strawberry.field(description="The addresses without one.")
    quota: InviteQuota = strawberry.field(description="What the referrer may still send.")


@strawberry.type(description="The batch is more than a quota of the referrer has left. Nothing was sent.")
class InviteQuotaExceeded(Refusal):
    """What is left and what was asked."""

    quota: InviteQuota = strawberry.field(description="What the referrer may still send.")
    requested: int = strawberry.field(description="How many invites it would have been, skipped addresses left out.")


@strawberry.type(description="The member was told of too many members and invited people today; nothing was sent.")
class TooManyInviteAttempts(Refusal):
    """A list of strangers is being tried."""


InviteMembersResult = Annotated[
    InviteMembersSuccess | InvalidInput | NotFound | TooManyInviteAttempts | InviteQuotaExceeded,
    strawberry.union("InviteMembersResult", description="The invites, or why none was sent."),
]


@dataclass(slots=True)
class _Batch:
    """The addresses of a batch by their indexes, in the order given, and why some are out."""

    wanted: dict[bytes, str] = field(default_factory=dict)
    given: dict[bytes, str] = field(default_factory=dict)
    skipped: list[tuple[int, SkippedInvite]] = field(default_factory=list)
    places: dict[bytes, int] = field(default_factory=dict)
    told: set[bytes] = field(default_factory=set)

    def skip(self, place: int, given: str, reason: InviteSkipReason) -> None:
        """Leave an address out."""
        self.skipped.append((place, SkippedInvite(email=given[:_SHOWN_LENGTH_MAX], reason=reason)))

    def drop(self, index: bytes, reason: InviteSkipReason) -> None:
        """Leave out an address that was wanted."""
        self.wanted.pop(index)
        self.skip(self.places[index], self.given[index], reason)

    def in_order(self) -> list[SkippedInvite]:
        """Return those left out in the order given."""
        return [skipped for _, skipped in sorted(self.skipped, key=lambda each: each[0])]


class _NoRoomError(Exception):
    """A quota has no room for the invites that were inserted; the transaction that it passes rolls back."""

    def __init__(self, requested: int) -> None:
        super().__init__(f"no room for {requested} invites")
        self.requested = requested


@mutation(
    description="Invite people by their addresses. Those that can't be invited are skipped with a reason, looked for "
    "in the order of InviteSkipReason. MEMBER for itself; ADMIN and CHECKOUT for the member they name."
)
async def invite_members(
    info: Info, input: Annotated[InviteMembersInput, strawberry.argument(description="The invites.")]
) -> InviteMembersResult:
    """Look the addresses up, leave out what can't be invited, and send the rest as a whole."""
    viewer = info.context.viewer
    problems = Problems()
    if not 1 <= len(input.emails) <= BATCH_MAX:
        problems.add("emails", f"must hold 1 to {BATCH_MAX:,} addresses")
    if viewer.role is not Role.MEMBER and input.member_id is None:
        problems.add("memberId", "must name the member that invites")
    problems.refuse_if_any()
    member_id = acting_member(viewer, input.member_id)
    sent = await send_invites(viewer, member_id, input.emails)
    if sent is None:
        raise not_found("member", input.member_id or viewer.actor)
    return sent


class SenderRow(QuotaRow):
    """Who sends a batch, what the program leaves it, and which of the batch's addresses are known, by their indexes.

    `invited_before` are those of `invited` that the sender invited itself.
    """

    member_id: UUID
    member_email: bytes | None
    member_pending_email: bytes | None
    reports_members: bool
    members: list[bytes]
    invited: list[bytes]
    invited_before: list[bytes]


# Everything that decides about addresses, in one look.
READ_SENDER: Final = statement(
    SenderRow,
    f"""
SELECT m.id AS member_id, m.email AS member_email, m.pending_email AS member_pending_email,
    p.reports_members, {columns(QuotaRow)},
    ARRAY(
        SELECT email_index FROM address
        WHERE merchant_id = :merchant_id AND email_index = ANY(:email_indexes::bytea[]) AND member_id IS NOT NULL
    ) AS members,
    ARRAY(
        SELECT email_index FROM invite
        WHERE merchant_id = :merchant_id AND email_index = ANY(:email_indexes::bytea[]) AND status = 'PENDING'
    ) AS invited,
    ARRAY(
        SELECT email_index FROM invite
        WHERE merchant_id = :merchant_id AND email_index = ANY(:email_indexes::bytea[]) AND status = 'PENDING'
            AND referrer_id = :member_id
    ) AS invited_before
FROM member m CROSS JOIN referral_program p {JOIN_QUOTA}
WHERE m.merchant_id = :merchant_id AND m.id = :member_id AND {IS_HERE} AND p.merchant_id = :merchant_id
""",
)


async def send_invites(
    viewer: Viewer, member_id: UUID, emails: list[str], at: datetime | None = None
) -> InviteMembersSuccess | None:
    """Send a member's invites, as of now or of an instant, or return None when there is no such member.

    Raises Refused with TooManyInviteAttempts or InviteQuotaExceeded.
    """
    # Thousands of addresses take tenths of a second: off the event loop, and not in the transaction.
    batch = await asyncio.to_thread(_read, viewer, emails)
    sender = await database().row(
        READ_SENDER,
        merchant_id=viewer.merchant_id,
        at=at,
        member_id=member_id,
        email_indexes=list(batch.wanted),
    )
    if sender is None:
        return None
    await asyncio.to_thread(_choose, batch, sender, await _own_mailboxes(viewer, sender))
    await _refuse_if_told_too_much(viewer, batch, own=frozenset(sender["invited_before"]))
    quota = InviteQuota.of(sender)
    if not batch.wanted:
        return InviteMembersSuccess(invites=[], skipped=batch.in_order(), quota=quota)
    # Most batches that are too large are found here, before anything is written; SEND finds the others.
    if len(batch.wanted) > min(quota.per_batch, quota.remaining_today, quota.remaining_lifetime):
        raise _exceeded(quota, len(batch.wanted))
    invites = await asyncio.to_thread(_new_invites, viewer, batch.wanted)
    try:
        async with transaction(viewer.merchant_id) as tx:
            rows = await send(tx, viewer, member_id, invites, at)
    except _NoRoomError as error:
        raise _exceeded(await quota_of(viewer.merchant_id, member_id, at), error.requested) from None
    if not rows and not await member_exists(viewer, member_id):
        return None
    found = {row["invite_email_index"]: row for row in rows}
    if late := [index for index in batch.wanted if index not in found]:
        joined = await _members(viewer, late) if sender["reports_members"] else frozenset()
        for index in late:
            is_member = index in joined
            batch.drop(index, InviteSkipReason.ALREADY_MEMBER if is_member else InviteSkipReason.ALREADY_INVITED)
    # A rival that invited all of them since they were looked up may have used the same quota.
    left = InviteQuota.of(rows[0]) if rows else await quota_of(viewer.merchant_id, member_id, at)
    return InviteMembersSuccess(
        invites=[Invite.of(found[index]) for index in batch.wanted], skipped=batch.in_order(), quota=left
    )


class _MemberRow(TypedDict):
    email_index: bytes


FIND_MEMBERS: Final = statement(
    _MemberRow,
    """
SELECT email_index FROM address
WHERE merchant_id = :merchant_id AND email_index = ANY(:email_indexes::bytea[]) AND member_id IS NOT NULL
""",
)


async def _members(viewer: Viewer, indexes: list[bytes]) -> frozenset[bytes]:
    """Return which addresses members have proved by now."""
    rows = await database().rows(FIND_MEMBERS, merchant_id=viewer.merchant_id, email_indexes=indexes)
    return frozenset(row["email_index"] for row in rows)


def _read(viewer: Viewer, emails: list[str]) -> _Batch:
    """Return the addresses of a batch that are addresses, each once."""
    batch = _Batch()
    for place, given in enumerate(emails):
        problems = Problems()
        address = problems.email("emails", given)
        if problems.found:
            batch.skip(place, given, InviteSkipReason.INVALID_EMAIL)
            continue
        index = viewer.tenant.keys.email_index(address)
        if index in batch.wanted:
            batch.skip(place, given, InviteSkipReason.DUPLICATE)
        else:
            batch.wanted[index], batch.given[index], batch.places[index] = address, given, place
    return batch


async def _own_mailboxes(viewer: Viewer, sender: SenderRow) -> frozenset[str]:
    ciphertexts = [each for each in (sender["member_email"], sender["member_pending_email"]) if each is not None]
    return frozenset(
        [
            mailbox(await decrypted(viewer.tenant, sender["member_id"], "email", ciphertext))
            for ciphertext in ciphertexts
        ]
    )


def _choose(batch: _Batch, sender: SenderRow, own: frozenset[str]) -> None:
    """Leave out the sender's own mailboxes, throw-away addresses, members (where they are reported) and the invited."""
    members = frozenset(sender["members"]) if sender["reports_members"] else frozenset()
    invited = frozenset(sender["invited"])
    for index, address in list(batch.wanted.items()):
        if mailbox(address) in own:
            batch.drop(index, InviteSkipReason.SELF)
        elif is_disposable(address):
            batch.drop(index, InviteSkipReason.DISPOSABLE_EMAIL)
        elif index in members or index in invited:
            batch.told.add(index)
            reason = InviteSkipReason.ALREADY_MEMBER if index in members else InviteSkipReason.ALREADY_INVITED
            batch.drop(index, reason)


async def _refuse_if_told_too_much(viewer: Viewer, batch: _Batch, own: frozenset[bytes]) -> None:
    """Raise Refused when a member tries out who is one: what is skipped costs no quota, so it is counted here.

    Its own invites (`own`) tell it nothing, so a batch that is sent again isn't counted.
    """
    told = len(batch.told - own)
    if viewer.member_id is None or told == 0:
        return
    scope = f"{viewer.merchant_id.hex}/told/{viewer.member_id.hex}"
    if not await allowed(RateLimitItemPerDay(TOLD_PER_DAY_MAX), scope, told):
        message = "Too many of these addresses are known already. Try again tomorrow."
        raise Refused(TooManyInviteAttempts(message=message))


def _new_invites(viewer: Viewer, addresses: Mapping[bytes, str]) -> Mapping[str, list[object]]:
    """Return the lists that SEND takes, for invites to addresses by their indexes."""
    keys = viewer.tenant.keys
    lists: defaultdict[str, list[object]] = defaultdict(list)
    for index, address in addresses.items():
        invite_id, token, domain = ids.new(), new_token(), telling_domain(address)
        lists["invite_ids"].append(invite_id)
        lists["emails"].append(keys.encrypt(invite_id, "email", address))
        lists["email_indexes"].append(index)
        lists["mailbox_indexes"].append(mailbox_index(keys, address))
        # The blind index of what is no address, as a mailbox' is: nobody can spell these as one.
        lists["domain_indexes"].append(None if domain is None else keys.email_index(f"domain\0{domain}"))
        lists["tokens"].append(keys.encrypt(invite_id, "token", token))
        lists["token_hashes"].append(token_hash(token))
        lists["event_ids"].append(ids.new())
    return lists


@row_of(i="invite", m="member", w="wallet", p="referral_program", q="invite_quota?")
class SentRow(WholeInviteRow, QuotaRow):
    """A new invite, and what the batch left. Where `granted_to` is null the quota had no room for it."""

    granted_to: Annotated[UUID | None, "q.member_id"]


SEND: Final = statement(
    SentRow,
    f"""
WITH sender AS MATERIALIZED (
    -- Who is being merged or erased sends nothing.
    SELECT FROM member WHERE merchant_id = :merchant_id AND id = :member_id AND {IS_HERE} FOR SHARE
), program AS (
    SELECT p.*, coalesce(:at::timestamptz, now()) AS sent_at, today FROM referral_program p {JOIN_QUOTA}
    WHERE p.merchant_id = :merchant_id AND EXISTS (SELECT FROM sender)
), i AS (
    -- In one order for all, so that two batches of the same addresses don't deadlock.
    INSERT INTO invite (merchant_id, id, referrer_id, status, email, email_index, mailbox_index, domain_index, token,
                        token_hash, created_at, expires_at)
    SELECT :merchant_id, t.id, :member_id, 'PENDING', t.email, t.email_index, t.mailbox_index, t.domain_index, t.token,
        t.token_hash, sent_at, sent_at + invite_lifetime_days * interval '24 hours'
    FROM program, unnest(
            :invite_ids::uuid[], :emails::bytea[], :email_indexes::bytea[], :mailbox_indexes::bytea[],
            :domain_indexes::bytea[], :tokens::bytea[], :token_hashes::bytea[]
        ) AS t (id, email, email_index, mailbox_index, domain_index, token, token_hash)
    -- Who has joined since the addresses were looked up isn't invited again. Not by EXISTS, which may be planned as one
    -- look at all addresses of the merchant.
    WHERE NOT reports_members OR (
        SELECT member_id FROM address WHERE merchant_id = :merchant_id AND email_index = t.email_index
    ) IS NULL
    ORDER BY t.email_index
    ON CONFLICT (merchant_id, email_index) WHERE status = 'PENDING' DO NOTHING RETURNING *
), batch AS (
    SELECT count(*)::int AS size FROM i
), q AS (
    -- The guard, and last, because all batches of a member change it: without room for what was inserted it doesn't
    -- change, and the caller rolls back. A day that is behind the latest one (a late transaction, a new time zone)
    -- counts to that, so it never gives anything back.
    INSERT INTO invite_quota AS stands (merchant_id, member_id, day, sent_today, sent_lifetime, day_max, lifetime_max)
    SELECT :merchant_id, :member_id, today, size, size, invites_per_day, invites_lifetime FROM program, batch
    WHERE size BETWEEN 1 AND least(invites_per_batch, invites_per_day, invites_lifetime)
    ON CONFLICT (merchant_id, member_id) DO UPDATE SET
        day = greatest(stands.day, excluded.day),
        sent_today = CASE WHEN stands.day >= excluded.day THEN stands.sent_today ELSE 0 END + excluded.sent_today,
        sent_lifetime = stands.sent_lifetime + excluded.sent_lifetime,
        day_max = excluded.day_max, lifetime_max = excluded.lifetime_max
    WHERE CASE WHEN stands.day >= excluded.day THEN stands.sent_today ELSE 0 END + excluded.sent_today
            <= excluded.day_max
        AND stands.sent_lifetime + excluded.sent_lifetime <= excluded.lifetime_max
    RETURNING *
), recorded AS (
    {event("invite.sent", id="(:event_ids::uuid[])[row_number() OVER (ORDER BY id)]", subject="id", source="i")}
)
SELECT {columns(SentRow)} FROM i CROSS JOIN program p {JOIN_REFERRER} LEFT JOIN q ON true
""",
)


async def send(
    tx: Tx, viewer: Viewer, member_id: UUID, invites: Mapping[str, list[object]], at: datetime | None
) -> list[SentRow]:
    """Insert invites and take them from the quota. Returns those that are new.

    Raises _NoRoomError, with which the transaction is to end, when the quota has no room for them.
    """
    rows = await tx.rows(
        SEND, merchant_id=viewer.merchant_id, at=at, member_id=member_id, actor=viewer.actor, **invites
    )
    if rows and rows[0]["granted_to"] is None:
        raise _NoRoomError(len(rows))
    return rows


def _exceeded(quota: InviteQuota, requested: int) -> Refused:
    message = (
        f"These are {requested:,} invites; the quotas leave {quota.per_batch:,} for a batch, "
        f"{quota.remaining_today:,} for today and {quota.remaining_lifetime:,} ever."
    )
    return Refused(InviteQuotaExceeded(message=message, quota=quota, requested=requested))
