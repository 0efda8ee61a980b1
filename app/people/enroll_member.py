"""enrollMember: one record per person, with a wallet, whatever the source."""

from dataclasses import dataclass
from typing import Annotated, Final

import strawberry

from app import ids
from app.api.context import Viewer
from app.api.inputs import Problems
from app.api.operations import Info, InvalidInput, mutation
from app.coupons.adopt_codes import adopt_codes
from app.members.mailboxes import mailbox_index
from app.members.member_keys import EXTERNAL_ID_LENGTH_MAX
from app.members.rows import BY_EXTERNAL_ID, FIND, MemberRow
from app.members.types import Member, MemberSource
from app.people.addresses import take
from app.people.existing import MemberAlreadyExists, already_exists
from app.storage.database import Statements, Tx, database, transaction
from app.storage.events import event
from app.storage.statements import columns, statement


@strawberry.input(description="A person to enrol.")
class EnrollMemberInput:
    external_id: str | None = strawberry.field(
        default=None, description="A source's own id for this member, at most 100 characters; unique for the source."
    )
    external_source: MemberSource | None = strawberry.field(
        default=None, description="Whose id `externalId` is; the member's source unless told."
    )
    email: str | None = strawberry.field(
        default=None,
        description="The member's address; compared trimmed, in lower case and NFKC. Refused if another member has "
        "proved it; any number may have it written down.",
    )
    email_verified: bool = strawberry.field(
        default=False,
        description="Whether the address is known to be the member's; only then does it count, and others lose it.",
    )
    display_name: str | None = strawberry.field(
        default=None, description="The name to greet the member by, at most 200 characters."
    )
    source: MemberSource = strawberry.field(description="Where the record comes from.")


@strawberry.type(description="The member was enrolled.")
class EnrollMemberSuccess:
    member: Member = strawberry.field(description="The new member.")
    displaced: list[Member] = strawberry.field(
        description="Who had the address written down, and lost it because the new member has proved it."
    )


EnrollMemberResult = Annotated[
    EnrollMemberSuccess | InvalidInput | MemberAlreadyExists,
    strawberry.union("EnrollMemberResult", description="The new member, or why there is none."),
]


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody to enrol: what was given, checked, with the address normalised."""

    source: MemberSource
    external_source: MemberSource
    external_id: str | None
    address: str | None
    email_verified: bool
    display_name: str | None


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A new member, and who had its address written down and lost it."""

    row: MemberRow
    displaced: list[MemberRow]


class EnrolledRow(MemberRow):
    """A member that was just made; `is_known` says that somebody has written its address down, or claimed by it."""

    is_known: bool


# Two callers at once make one member of an external id: whoever comes second gets no row.
ENROL: Final = statement(
    EnrolledRow,
    f"""
WITH taken AS (
    {BY_EXTERNAL_ID}
), addressed AS (
    -- Waits for who is proving the address, and returns who has proved it by now. A row that was there already is
    -- updated, which its xmax says.
    INSERT INTO address (merchant_id, email_index)
    SELECT :merchant_id, :email_index WHERE :email_index::bytea IS NOT NULL AND NOT EXISTS (SELECT FROM taken)
    ON CONFLICT (merchant_id, email_index) DO UPDATE SET email_index = excluded.email_index
    RETURNING member_id, xmax <> 0 AS is_known
), named AS (
    INSERT INTO external_id (merchant_id, member_id, source, external_id)
    SELECT :merchant_id, :member_id, :external_source, :external_id
    WHERE :external_id IS NOT NULL AND NOT EXISTS (SELECT FROM addressed WHERE member_id IS NOT NULL)
    ON CONFLICT (merchant_id, source, external_id) DO NOTHING RETURNING external_id
), m AS (
    -- Repeats the id of its own source.
    INSERT INTO member (merchant_id, id, external_id, email, email_index, mailbox_index, email_verified, display_name,
                        source, joined_at)
    SELECT :merchant_id, :member_id, (SELECT external_id FROM named WHERE :external_source = :source), :email,
        :email_index, :mailbox_index, :email_verified, :display_name, :source, now()
    WHERE NOT EXISTS (SELECT FROM addressed WHERE member_id IS NOT NULL)
        AND (:external_id IS NULL OR EXISTS (SELECT FROM named))
    RETURNING *
), w AS (
    -- Everybody has a wallet from the beginning.
    INSERT INTO wallet (merchant_id, member_id, version) SELECT :merchant_id, id, 0 FROM m RETURNING *
), recorded AS (
    {event("member.enrolled", subject="id", source="m")}
)
SELECT {columns(MemberRow)}, coalesce((SELECT is_known FROM addressed), false) AS is_known
FROM m CROSS JOIN w WHERE m.merchant_id = :merchant_id
""",
)


async def enrol(where: Statements, viewer: Viewer, person: Person) -> Enrolled | None:
    """Make the member, its wallet and the event in one statement, in the caller's transaction or in one of its own.

    Returns None when another member has this external id or has proved the address. With a verified address `where`
    is a transaction, in which the address becomes the member's, and the codes that wait for it are adopted.
    """
    keys = viewer.tenant.keys
    member_id = ids.new()
    email_index = None if person.address is None else keys.email_index(person.address)
    name = person.display_name
    enrolled = await where.row(
        ENROL,
        merchant_id=viewer.merchant_id,
        member_id=member_id,
        external_source=person.external_source.value,
        external_id=person.external_id,
        email=None if person.address is None else keys.encrypt(member_id, "email", person.address),
        email_index=email_index,
        mailbox_index=None if person.address is None else mailbox_index(keys, person.address),
        email_verified=person.email_verified,
        display_name=None if name is None else keys.encrypt(member_id, "display_name", name),
        source=person.source.value,
        event_id=ids.new(),
        actor=viewer.actor,
    )
    if enrolled is None:
        return None
    if email_index is None or not person.email_verified:
        return Enrolled(enrolled, [])
    if not isinstance(where, Tx):
        raise TypeError("an address is taken in a transaction")
    displaced = await take(where, viewer, member_id, email_index)
    if not enrolled["is_known"] or not await adopt_codes(where, viewer, member_id, email_index):
        return Enrolled(enrolled, displaced)
    row = await where.row(FIND, merchant_id=viewer.merchant_id, member_id=member_id)
    if row is None:
        raise RuntimeError("a new member can't be read")
    return Enrolled(row, displaced)


@mutation(description="Enrol a member. ADMIN and CHECKOUT.")
async def enroll_member(
    info: Info, input: Annotated[EnrollMemberInput, strawberry.argument(description="The person to enrol.")]
) -> EnrollMemberResult:
    viewer = info.context.viewer
    problems = Problems()
    external_id = problems.optional_text("externalId", input.external_id, length_max=EXTERNAL_ID_LENGTH_MAX)
    if input.external_source is not None and input.external_id is None:
        problems.add("externalSource", "needs an externalId")
    display_name = problems.optional_text("displayName", input.display_name, length_max=200)
    address = None if input.email is None else problems.email("email", input.email)
    if input.email_verified and address is None:
        problems.add("emailVerified", "needs an address")
    problems.refuse_if_any()
    source = input.external_source or input.source
    person = Person(input.source, source, external_id, address, input.email_verified, display_name)
    if person.email_verified:
        # In a transaction, because the address is taken from others, and the codes that wait for it are adopted.
        async with transaction(viewer.merchant_id) as tx:
            enrolled = await enrol(tx, viewer, person)
    else:
        enrolled = await enrol(database(), viewer, person)
    if enrolled is None:
        return await already_exists(viewer, source, external_id, address)
    return EnrollMemberSuccess(
        member=Member.of(enrolled.row), displaced=[Member.of(lost) for lost in enrolled.displaced]
    )
