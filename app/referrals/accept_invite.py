"""acceptInvite: an invited person becomes a member, by its token and its address, once."""

from datetime import datetime
from typing import Annotated, Final, TypedDict
from uuid import UUID

import strawberry
from limits import RateLimitItemPerMinute

from app import ids
from app.api.attempts import allowed
from app.api.context import Viewer
from app.api.inputs import Problems
from app.api.operations import Info, InputProblem, InvalidInput, Refusal, Refused, mutation
from app.config import settings
from app.members.rows import member_row
from app.members.types import Member, MemberSource
from app.people.enroll_member import Person, enrol
from app.people.existing import MemberAlreadyExists, already_exists
from app.referrals.conversion import convert
from app.referrals.rows import invite_row, referral_row
from app.referrals.tokens import token_hash
from app.referrals.types import ConversionTrigger, Invite, InviteStatus, Referral, released
from app.storage.database import Tx, database, transaction
from app.storage.events import event
from app.storage.statements import NoRow, statement


@strawberry.input(description="An invited person that joins.")
class AcceptInviteInput:
    """The token, the address that was invited, and what else is known."""

    token: str = strawberry.field(description="What the referrer passed on.")
    email: str = strawberry.field(
        description="The person's address; it must be the invited one, compared trimmed, in lower case and NFKC."
    )
    display_name: str | None = strawberry.field(
        default=None, description="The name to greet the member by, at most 200 characters."
    )
    external_id: str | None = strawberry.field(
        default=None, description="The store's own id for this member, at most 100 characters; unique."
    )
    email_verified: bool | None = strawberry.field(
        default=None,
        description="Whether the address is known to be the person's; only then does it count. The token proves "
        "nothing about it, because the referrer had it, too.",
    )


@strawberry.type(description="The person is a member now.")
class AcceptInviteSuccess:
    member: Member = strawberry.field(description="The new member.")
    invite: Invite = strawberry.field(description="The invite; PENDING until it converts.")
    referral: Referral | None = strawberry.field(
        description="The referral, where joining converts and its points aren't held for review."
    )


@strawberry.type(description="No invite that could be accepted has this token.")
class InviteNotUsable(Refusal):
    """A token that is unknown, used, or too late."""

    status: InviteStatus | None = strawberry.field(
        description="Where the invite stands: PENDING if it was accepted before. Null for tokens that aren't known, "
        "and, while too many of those were tried, for all but those that come with the invited address."
    )


AcceptInviteResult = Annotated[
    AcceptInviteSuccess | InvalidInput | InviteNotUsable | MemberAlreadyExists,
    strawberry.union("AcceptInviteResult", description="The new member, or why there is none."),
]

ACCEPT: Final = statement(
    NoRow,
    f"""
WITH i AS (
    UPDATE invite SET accepted_at = now(), referee_id = :member_id
    WHERE merchant_id = :merchant_id AND id = :invite_id AND status = 'PENDING' AND accepted_at IS NULL
        AND expires_at > now()
    RETURNING id
), recorded AS (
    {event("invite.accepted", subject="id", source="i")}
)
SELECT FROM i
""",
)


@mutation(
    description="Enrol an invited person, whose source is REFERRAL then. The invite converts with it, or waits for the "
    "first purchase, as the program says. ADMIN and CHECKOUT."
)
async def accept_invite(
    info: Info, input: Annotated[AcceptInviteInput, strawberry.argument(description="The person that joins.")]
) -> AcceptInviteResult:
    """Enrol the person, accept the invite and convert it, in one transaction. An existing member is never referred."""
    viewer = info.context.viewer
    problems = Problems()
    person = Person(
        source=MemberSource.REFERRAL,
        external_source=MemberSource.REFERRAL,
        external_id=problems.optional_text("externalId", input.external_id, length_max=100),
        address=problems.email("email", input.email),
        email_verified=bool(input.email_verified),
        display_name=problems.optional_text("displayName", input.display_name, length_max=200),
    )
    problems.refuse_if_any()
    found_by = await _known(viewer, input.token, person)
    async with transaction(viewer.merchant_id) as tx:
        invite = await _usable(tx, viewer, found_by, person)
        enrolled = await enrol(tx, viewer, person)
        if enrolled is not None:
            member_id = enrolled.row["member_id"]
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
            referral_id = None
            if invite["converts_on"] == ConversionTrigger.JOIN.value:
                referral_id = await convert(tx, viewer.merchant_id, viewer.actor, invite["id"], None)
    if enrolled is None:
        return await already_exists(viewer, person.external_source, person.external_id, person.address)
    joined = await member_row(viewer, member_id)
    accepted = await invite_row(viewer, invite["id"])
    if joined is None or accepted is None:
        raise RuntimeError("an accepted invite has no row")
    referral = None if referral_id is None else released(await referral_row(viewer, referral_id))
    return AcceptInviteSuccess(member=Member.of(joined), invite=Invite.of(accepted), referral=referral)


class FoundInviteRow(TypedDict):
    """The address that an invite was sent to."""

    email_index: bytes


FIND: Final = statement(
    FoundInviteRow,
    "SELECT email_index FROM invite WHERE merchant_id = :merchant_id AND token_hash = :token_hash",
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


class LockedInviteRow(TypedDict):
    """An invite that is locked, and when the program converts it."""

    id: UUID
    email_index: bytes
    status: str
    accepted_at: datetime | None
    is_late: bool
    converts_on: str


# Waits for whoever is accepting, cancelling or expiring it, and then looks at where it stands.
LOCK: Final = statement(
    LockedInviteRow,
    """
SELECT i.id, i.email_index, i.status, i.accepted_at, i.expires_at <= now() AS is_late, p.converts_on
FROM invite i, referral_program p
WHERE i.merchant_id = :merchant_id AND i.token_hash = :token_hash AND p.merchant_id = :merchant_id FOR UPDATE OF i
""",
)


async def _usable(tx: Tx, viewer: Viewer, found_by: bytes, person: Person) -> LockedInviteRow:
    """Lock the invite of a token and return it. Raises Refused unless it is this person's and can be accepted."""
    invite = await tx.row(LOCK, merchant_id=viewer.merchant_id, token_hash=found_by)
    if invite is None:
        raise RuntimeError("invites are never deleted")
    if invite["email_index"] != viewer.tenant.keys.email_index(person.address or ""):
        problem = InputProblem(path=["email"], message="must be the address that was invited")
        raise Refused(InvalidInput(message="email must be the address that was invited.", problems=[problem]))
    status = InviteStatus(invite["status"])
    if status is InviteStatus.PENDING and invite["is_late"]:
        status = InviteStatus.EXPIRED
    if status is not InviteStatus.PENDING or invite["accepted_at"] is not None:
        how = "accepted already" if status is InviteStatus.PENDING else status.value
        raise Refused(InviteNotUsable(message=f"The invite can't be accepted: it is {how}.", status=status))
    return invite
