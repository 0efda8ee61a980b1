"""enrollMember: one record per person, with a wallet, whatever the source."""

from dataclasses import dataclass
from typing import Annotated, Final

import strawberry

from app import ids
from app.api.context import Viewer
from app.api.inputs import Problems
from app.api.operations import Info, InvalidInput, Refusal, mutation
from app.coupons.adopt_codes import adopt_codes
from app.members.rows import FIND, FROM, MEMBER_COLUMNS
from app.members.types import Member, MemberSource
from app.storage.database import Row, Statements, Tx, database, transaction


@strawberry.input(description="A person to enrol.")
class EnrollMemberInput:
    """Everything but the source may be missing."""

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
    """The new member."""

    member: Member = strawberry.field(description="The new member.")


@strawberry.type(description="A member with this external id or address exists; nothing was changed.")
class MemberAlreadyExists(Refusal):
    """The same person again."""

    existing: Member | None = strawberry.field(description="Who it is; only for callers that may see it.")


EnrollMemberResult = Annotated[
    EnrollMemberSuccess | InvalidInput | MemberAlreadyExists,
    strawberry.union("EnrollMemberResult", description="The new member, or why there is none."),
]

ENROL: Final = f"""
WITH m AS (
    INSERT INTO member (merchant_id, id, external_id, email, email_index, email_verified, display_name, source,
                        joined_at)
    VALUES ($1, $2, $5, $6, $7, $8, $9, $10, now())
    ON CONFLICT DO NOTHING
    RETURNING *
), w AS (
    INSERT INTO wallet (merchant_id, member_id, version) SELECT merchant_id, id, 0 FROM m RETURNING version, points
), addressed AS (
    INSERT INTO address (merchant_id, email_index, member_id)
    SELECT merchant_id, email_index, id FROM m WHERE email_verified
    ON CONFLICT (merchant_id, email_index) DO UPDATE SET member_id = excluded.member_id
), recorded AS (
    INSERT INTO event (merchant_id, id, type, subject_id, actor, occurred_at)
    SELECT merchant_id, $3, 'member.enrolled', id, $4, now() FROM m
)
SELECT {MEMBER_COLUMNS} FROM m, w
"""

# By one key and by the other, in no order: with OR, or with UNION, a plan that was made while there were few members
# walks all of them by their ids.
FIND_EXISTING: Final = f"""
SELECT {MEMBER_COLUMNS} {FROM}
WHERE m.merchant_id = $1 AND m.id = ANY(ARRAY(
    SELECT id FROM member WHERE merchant_id = $1 AND external_id = $2
    UNION ALL
    SELECT id FROM member WHERE merchant_id = $1 AND email_index = $3
)) ORDER BY m.id LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody to enrol: what was given, checked, with the address normalised."""

    source: MemberSource
    external_id: str | None
    address: str | None
    email_verified: bool
    display_name: str | None


async def enrol(where: Statements, viewer: Viewer, person: Person) -> Row | None:
    """Make the member, its wallet and the event in one statement, in the caller's transaction or in one of its own.

    Two callers at once make one member. Returns its row, or None when there is one with this external id or address.
    With a verified address `where` is a transaction, in which the codes that wait for the address are adopted.
    """
    keys = viewer.tenant.keys
    member_id = ids.new()
    email_index = None if person.address is None else keys.email_index(person.address)
    values = (
        person.external_id,
        None if person.address is None else keys.encrypt(member_id, "email", person.address),
        email_index,
        person.email_verified,
        None if person.display_name is None else keys.encrypt(member_id, "display_name", person.display_name),
        person.source.value,
    )
    enrolled = await where.row(ENROL, viewer.merchant_id, member_id, ids.new(), viewer.actor, *values)
    if enrolled is None or email_index is None or not person.email_verified:
        return enrolled
    if not isinstance(where, Tx):
        raise TypeError("codes are adopted in a transaction")
    adopted = await adopt_codes(where, viewer, member_id, email_index)
    return await where.row(FIND, viewer.merchant_id, member_id) if adopted else enrolled


async def already_exists(viewer: Viewer, person: Person) -> MemberAlreadyExists:
    """Return the refusal for a person that is a member; who it is, because only those that may see members enrol."""
    email_index = None if person.address is None else viewer.tenant.keys.email_index(person.address)
    existing = await database().row(FIND_EXISTING, viewer.merchant_id, person.external_id, email_index)
    return MemberAlreadyExists(
        message="A member with this external id or address is enrolled already.",
        existing=None if existing is None else Member.of(existing),
    )


@mutation(description="Enrol a member. ADMIN and CHECKOUT.")
async def enroll_member(
    info: Info, input: Annotated[EnrollMemberInput, strawberry.argument(description="The person to enrol.")]
) -> EnrollMemberResult:
    """Check the person, then enrol it; with a verified address in a transaction, because that adopts codes."""
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
        async with transaction() as tx:
            enrolled = await enrol(tx, viewer, person)
    else:
        enrolled = await enrol(database(), viewer, person)
    return await already_exists(viewer, person) if enrolled is None else EnrollMemberSuccess(member=Member.of(enrolled))
