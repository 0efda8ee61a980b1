"""enrollMember: one record per person, with a wallet, whatever the source."""

from dataclasses import dataclass
from typing import Annotated, Final

import strawberry

from app import ids
from app.api.context import Viewer
from app.api.inputs import Problems
from app.api.operations import Info, InvalidInput, Refusal, mutation
from app.coupons.adopt_codes import adopt_codes
from app.members.rows import FIND, MemberRow, find_existing
from app.members.types import Member, MemberSource
from app.storage.database import Statements, Tx, database, transaction
from app.storage.events import event
from app.storage.statements import columns, statement


@strawberry.input(description="A person to enrol.")
class EnrollMemberInput:
    external_id: str | None = strawberry.field(
        default=None, description="The store's own id for this member, at most 100 characters; unique."
    )
    email: str | None = strawberry.field(
        default=None, description="The member's address; compared trimmed, in lower case and NFKC; unique."
    )
    email_verified: bool = strawberry.field(
        default=False, description="Whether the address is known to be the member's; only then does it count."
    )
    display_name: str | None = strawberry.field(
        default=None, description="The name to greet the member by, at most 200 characters."
    )
    source: MemberSource = strawberry.field(description="Where the record comes from.")


@strawberry.type(description="The member was enrolled.")
class EnrollMemberSuccess:
    member: Member = strawberry.field(description="The new member.")


@strawberry.type(description="A member with this external id or address exists; nothing was changed.")
class MemberAlreadyExists(Refusal):
    existing: Member | None = strawberry.field(description="Who it is; only for callers that may see it.")


EnrollMemberResult = Annotated[
    EnrollMemberSuccess | InvalidInput | MemberAlreadyExists,
    strawberry.union("EnrollMemberResult", description="The new member, or why there is none."),
]


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody to enrol: what was given, checked, with the address normalised."""

    source: MemberSource
    external_id: str | None
    address: str | None
    email_verified: bool
    display_name: str | None


# Two callers at once make one member: whoever comes second gets no row.
ENROL: Final = statement(
    MemberRow,
    f"""
WITH m AS (
    INSERT INTO member (merchant_id, id, external_id, email, email_index, email_verified, display_name, source,
                        joined_at)
    VALUES (:merchant_id, :member_id, :external_id, :email, :email_index, :email_verified, :display_name, :source,
            now())
    ON CONFLICT DO NOTHING
    RETURNING *
), w AS (
    -- Everybody has a wallet from the beginning.
    INSERT INTO wallet (merchant_id, member_id, version) SELECT :merchant_id, id, 0 FROM m RETURNING *
), addressed AS (
    -- A proven address is the member's, also where codes wait for it.
    INSERT INTO address (merchant_id, email_index, member_id)
    SELECT :merchant_id, email_index, id FROM m WHERE email_verified
    ON CONFLICT (merchant_id, email_index) DO UPDATE SET member_id = excluded.member_id
), recorded AS (
    {event("member.enrolled", subject="id", source="m")}
)
SELECT {columns(MemberRow)} FROM m CROSS JOIN w WHERE m.merchant_id = :merchant_id
""",
)


async def enrol(where: Statements, viewer: Viewer, person: Person) -> MemberRow | None:
    """Make the member, its wallet and the event in one statement, in the caller's transaction or in one of its own.

    Returns None when there is a member with this external id or address. With a verified address `where` is a
    transaction, in which the codes that wait for the address are adopted.
    """
    keys = viewer.tenant.keys
    member_id = ids.new()
    email_index = None if person.address is None else keys.email_index(person.address)
    name = person.display_name
    enrolled = await where.row(
        ENROL,
        merchant_id=viewer.merchant_id,
        member_id=member_id,
        external_id=person.external_id,
        email=None if person.address is None else keys.encrypt(member_id, "email", person.address),
        email_index=email_index,
        email_verified=person.email_verified,
        display_name=None if name is None else keys.encrypt(member_id, "display_name", name),
        source=person.source.value,
        event_id=ids.new(),
        actor=viewer.actor,
    )
    if enrolled is None or email_index is None or not person.email_verified:
        return enrolled
    if not isinstance(where, Tx):
        raise TypeError("codes are adopted in a transaction")
    if not await adopt_codes(where, viewer, member_id, email_index):
        return enrolled
    return await where.row(FIND, merchant_id=viewer.merchant_id, member_id=member_id)


async def already_exists(viewer: Viewer, person: Person) -> MemberAlreadyExists:
    """Return the refusal for a person that is a member; who it is, because only those that may see members enrol."""
    email_index = None if person.address is None else viewer.tenant.keys.email_index(person.address)
    existing = await find_existing(viewer, person.external_id, email_index)
    return MemberAlreadyExists(
        message="A member with this external id or address is enrolled already.",
        existing=None if existing is None else Member.of(existing),
    )


@mutation(description="Enrol a member. ADMIN and CHECKOUT.")
async def enroll_member(
    info: Info, input: Annotated[EnrollMemberInput, strawberry.argument(description="The person to enrol.")]
) -> EnrollMemberResult:
    viewer = info.context.viewer
    problems = Problems()
    external_id = problems.optional_text("externalId", input.external_id, length_max=100)
    display_name = problems.optional_text("displayName", input.display_name, length_max=200)
    address = None if input.email is None else problems.email("email", input.email)
    if input.email_verified and address is None:
        problems.add("emailVerified", "needs an address")
    problems.refuse_if_any()
    person = Person(input.source, external_id, address, input.email_verified, display_name)
    if person.email_verified:
        # In a transaction, because the codes that wait for the address are adopted.
        async with transaction(viewer.merchant_id) as tx:
            enrolled = await enrol(tx, viewer, person)
    else:
        enrolled = await enrol(database(), viewer, person)
    return await already_exists(viewer, person) if enrolled is None else EnrollMemberSuccess(member=Member.of(enrolled))
