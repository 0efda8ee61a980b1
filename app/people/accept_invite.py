"""acceptInvite: an invited person becomes a member by a token, or a member that came otherwise uses it, once."""

from datetime import datetime
from typing import Annotated, Final, NamedTuple, TypedDict
from uuid import UUID

import strawberry
from limits import RateLimitItemPerMinute

from app import ids
from app.api.attempts import allowed
from app.api.context import Viewer
from app.api.inputs import Problems, member_id_of
from app.api.operations import Info, InputProblem, InvalidInput, NotFound, Refusal, Refused, mutation, not_found
from app.config import settings
from app.members.rows import IS_HERE, member_row
from app.members.types import Member, MemberSource
from app.people.enroll_member import Person, enrol
from app.people.existing import MemberAlreadyExists, already_exists
from app.referrals.conversion import Conversion, convert
from app.referrals.expire_invites import expire_batch
from app.referrals.rows import invite_row, referral_row
from app.referrals.tokens import token_hash
from app.referrals.types import Invite, InviteObstacle, InviteStatus, Referral, released
from app.storage.database import Tx, database, transaction
from app.storage.events import event
from app.storage.statements import NoRow, statement


@strawberry.input(description="An invited person that joins, or a member that joined by another door since.")
class AcceptInviteInput:
    """The token, an address, and what else is known."""

    token: str = strawberry.field(description="What the referrer passed on.")
    email: str = strawberry.field(
        description="The person's address, compared trimmed, in lower case and NFKC: any that it joins with. Beside "
        "memberId the invited one, or the one that the member proved."
    )
    display_name: str | None = strawberry.field(
        default=None, description="The name to greet the member by, at most 200 characters. Ignored beside memberId."
    )
    external_id: str | None = strawberry.field(
        default=None,
        description="The store's own id for this member, at most 100 characters; unique. Ignored beside memberId.",
    )
    external_source: MemberSource | None = strawberry.field(
        default=None, description="Whose id `externalId` is; REFERRAL unless told. Ignored beside memberId."
    )
    email_verified: bool | None = strawberry.field(
        default=None,
        description="Whether the address is known to be the person's; only then does it count, and an invite convert. "
        "The token proves nothing about it, because the referrer had it, too. Ignored beside memberId.",
    )
    member_id: strawberry.ID | None = strawberry.field(
        default=None,
        description="A member that joined since the invite was sent; its record doesn't change. Without it a new "
        "member is enrolled.",
    )


@strawberry.type(description="The invite is accepted.")
class AcceptInviteSuccess:
    member: Member = strawberry.field(description="The member that accepted it, new unless memberId named it.")
    invite: Invite = strawberry.field(description="The invite; PENDING until it converts.")
    referral: Referral | None = strawberry.field(
        description="The referral, where it converts at once and its points aren't held for review."
    )
    obstacle: InviteObstacle | None = strawberry.field(
        description="Why it will not convert; null if it did or still may. While the address isn't proven it is what "
        "stands in the way of the one that was written down, and is looked for again with the proof."
    )


@strawberry.type(description="No invite that could be accepted has this token.")
class InviteNotUsable(Refusal):
    """A token that is unknown, used, or too late, or a member that came by another invite."""

    status: InviteStatus | None = strawberry.field(
        description="Where the invite stands: PENDING if it was accepted before, or if the member came by another one. "
        "Null for tokens that aren't known, and, while too many of those were tried, for all but those that come with "
        "the invited address."
    )


AcceptInviteResult = Annotated[
    AcceptInviteSuccess | InvalidInput | NotFound | InviteNotUsable | MemberAlreadyExists,
    strawberry.union("AcceptInviteResult", description="The member and the invite, or why it isn't accepted."),
]

ACCEPT: Final = statement(
    NoRow,
    f"""
WITH i AS (
    -- It is locked and was looked at: with its status here, too, a planner that saw the table empty might read all that
    -- are pending.
    UPDATE invite SET accepted_at = now(), referee_id = :member_id,
        converts_on = (SELECT converts_on FROM referral_program WHERE merchant_id = :merchant_id)
    WHERE merchant_id = :merchant_id AND id = :invite_id AND accepted_at IS NULL
    RETURNING id
), m AS (
    -- Where purchases and the proof of the address look for it.
    UPDATE member SET accepted_invite_id = i.id FROM i
    WHERE member.merchant_id = :merchant_id AND member.id = :member_id
), recorded AS (
    {event("invite.accepted", subject="id", source="i")}
)
SELECT FROM i
""",
)


@mutation(
    description="Enrol an invited person, whose source is REFERRAL then, or let a member accept that joined by another "
    "door. The invite converts with it, or waits for the proof of the address or a purchase. ADMIN and CHECKOUT."
)
async def accept_invite(
    info: Info, input: Annotated[AcceptInviteInput, strawberry.argument(description="The person that joins.")]
) -> AcceptInviteResult:
    """Enrol the person or lock the member, accept the invite, and convert it if all is there, in one transaction."""
    viewer = info.context.viewer
    problems = Problems()
    person = Person(
        source=MemberSource.REFERRAL,
        external_source=input.external_source or MemberSource.REFERRAL,
        external_id=problems.optional_text("externalId", input.external_id, length_max=100),
        address=problems.email("email", input.email),
        email_verified=bool(input.email_verified),
        display_name=problems.optional_text("displayName", input.display_name, length_max=200),
    )
    if input.external_source is not None and input.external_id is None:
        problems.add("externalSource", "needs an externalId")
    problems.refuse_if_any()
    named = None if input.member_id is None else member_id_of(viewer, input.member_id)
    found_by = await _known(viewer, input.token, person)
    try:
        done = await _accept(viewer, person, found_by, named)
    except _NotEndedYetError:
        while await expire_batch(viewer.merchant_id):
            pass
        done = await _accept(viewer, person, found_by, named)
    if done is None:
        return await already_exists(viewer, person.external_source, person.external_id, person.address)
    joined = await member_row(viewer, done.member_id)
    accepted = await invite_row(viewer, done.invite_id)
    if joined is None or accepted is None:
        raise RuntimeError("an accepted invite has no row")
    referral_id, obstacle = done.conversion
    return AcceptInviteSuccess(
        member=Member.of(joined),
        invite=Invite.of(accepted),
        referral=None if referral_id is None else released(await referral_row(viewer, referral_id)),
        obstacle=None if obstacle is None else InviteObstacle(obstacle),
    )


class _NotEndedYetError(Exception):
    """The member's invite of before is past its lifetime, and the job that ends it hasn't come to it."""


class _Accepted(NamedTuple):
    """Who accepted which invite, and what came of it."""

    member_id: UUID
    invite_id: UUID
    conversion: Conversion


async def _accept(viewer: Viewer, person: Person, found_by: bytes, named: UUID | None) -> _Accepted | None:
    """Let a member accept an invite, or a person that is enrolled: None if it is a member already."""
    async with transaction(viewer.merchant_id) as tx:
        # Members are locked before invites, those too that lose the address.
        if named is None:
            enrolled = await enrol(tx, viewer, person)
            invite = await _usable(tx, viewer, found_by, None)
            if enrolled is None:
                return None
            member_id = enrolled.row["member_id"]
        else:
            member = await tx.row(LOCK_MEMBER, merchant_id=viewer.merchant_id, member_id=named)
            if member is None:
                raise not_found("member", ids.encode("member", named))
            invite = await _usable(tx, viewer, found_by, named)
            _refuse_a_strangers(viewer, person, invite, member)
            member_id = named
        taken = await tx.row(
            ACCEPT,
            merchant_id=viewer.merchant_id,
            invite_id=invite["id"],
            member_id=member_id,
            event_id=ids.new(),
            actor=viewer.actor,
        )
        if taken is None:
            raise RuntimeError("a locked invite that could be accepted wasn't")
        conversion = await convert(tx, viewer.tenant.keys, viewer.actor, invite["id"])
    return _Accepted(member_id, invite["id"], conversion)


class FoundInviteRow(TypedDict):
    """The address that an invite was sent to."""

    email_index: bytes


# In the order of the index to read: to a planner that saw the table empty, any index of the merchant's invites is as
# good (100,000 buffers instead of 4 after as many invites).
_BY_HASH: Final = """
    SELECT id FROM (
        SELECT id, token_hash FROM invite WHERE merchant_id = :merchant_id AND token_hash >= :token_hash
        ORDER BY token_hash LIMIT 1
    ) next WHERE token_hash = :token_hash
"""
FIND: Final = statement(
    FoundInviteRow,
    f"SELECT email_index FROM invite WHERE merchant_id = :merchant_id AND id = ({_BY_HASH})",
)


async def _known(viewer: Viewer, token: str, person: Person) -> bytes:
    """Return the hash of a token that an invite has. Raises Refused for others; for all, when too many were tried.

    What can't be a token isn't counted, and an invite's token with the invited address passes whatever was tried.
    """
    unknown = Refused(InviteNotUsable(message="No invite that could be accepted has this token.", status=None))
    found_by = token_hash(token)
    if found_by is None:
        raise unknown
    found = await database().row(FIND, merchant_id=viewer.merchant_id, token_hash=found_by)
    if found is not None and found["email_index"] == viewer.tenant.keys.email_index(person.address or ""):
        return found_by
    scope = f"{viewer.merchant_id.hex}/invite/{viewer.actor}"
    within = await allowed(RateLimitItemPerMinute(settings().attempts_per_key_max), scope, 0 if found else 1)
    if found is None or not within:
        raise unknown
    return found_by


class LockedMemberRow(TypedDict):
    """A member that is locked, and its address."""

    email_index: bytes | None
    email_verified: bool


# Waits for its purchases and proofs that are under way; those that come later wait for this.
LOCK_MEMBER: Final = statement(
    LockedMemberRow,
    f"""
SELECT email_index, email_verified FROM member
WHERE merchant_id = :merchant_id AND id = :member_id AND {IS_HERE} FOR NO KEY UPDATE
""",
)


class LockedInviteRow(TypedDict):
    """An invite that is locked, and where another one stands that the member accepted: EXPIRED from its end on."""

    id: UUID
    referrer_id: UUID
    email_index: bytes
    status: str
    accepted_at: datetime | None
    is_late: bool
    came_by: str | None


# Waits for whoever is accepting, cancelling or expiring it, and then looks at where it stands.
LOCK: Final = statement(
    LockedInviteRow,
    f"""
SELECT i.id, i.referrer_id, i.email_index, i.status, i.accepted_at, i.expires_at <= now() AS is_late, (
    SELECT CASE WHEN other.status = 'PENDING' AND other.expires_at <= now() THEN 'EXPIRED' ELSE other.status END
    FROM invite other
    WHERE other.merchant_id = :merchant_id AND other.referee_id = :member_id AND other.status <> 'EXPIRED'
        AND other.id <> i.id
) AS came_by
FROM invite i WHERE i.merchant_id = :merchant_id AND i.id = ({_BY_HASH}) FOR UPDATE OF i
""",
)


async def _usable(tx: Tx, viewer: Viewer, found_by: bytes, member_id: UUID | None) -> LockedInviteRow:
    """Lock the invite of a token and return it. Raises Refused unless it can be accepted, and by this member."""
    invite = await tx.row(LOCK, merchant_id=viewer.merchant_id, token_hash=found_by, member_id=member_id)
    if invite is None:
        raise RuntimeError("invites are never deleted")
    status = InviteStatus(invite["status"])
    if status is InviteStatus.PENDING and invite["is_late"]:
        status = InviteStatus.EXPIRED
    if status is not InviteStatus.PENDING or invite["accepted_at"] is not None:
        how = "accepted already" if status is InviteStatus.PENDING else status.value
        raise Refused(InviteNotUsable(message=f"The invite can't be accepted: it is {how}.", status=status))
    if invite["came_by"] == InviteStatus.EXPIRED.value:
        raise _NotEndedYetError
    if invite["came_by"] is not None:
        message = "The invite can't be accepted by this member, who came by another one."
        raise Refused(InviteNotUsable(message=message, status=status))
    if invite["referrer_id"] == member_id:
        problem = InputProblem(path=["memberId"], message="is who sent the invite")
        raise Refused(InvalidInput(message="memberId is who sent the invite.", problems=[problem]))
    return invite


def _refuse_a_strangers(viewer: Viewer, person: Person, invite: LockedInviteRow, member: LockedMemberRow) -> None:
    """Raise Refused unless the address is the invited one, or one that the member has proved."""
    given = viewer.tenant.keys.email_index(person.address or "")
    if given == invite["email_index"] or (member["email_verified"] and given == member["email_index"]):
        return
    what = "must be the address that was invited, or one that the member proved"
    raise Refused(InvalidInput(message=f"email {what}.", problems=[InputProblem(path=["email"], message=what)]))
