"""editMember: a person's name, addresses and external ids change; what it has stays its own."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, TypedDict

import strawberry
from strawberry import UNSET

from app import ids
from app.api.context import Viewer
from app.api.inputs import Problems, member_id_of
from app.api.operations import Info, InvalidInput, NotFound, Refused, mutation, not_found
from app.members.mailboxes import mailbox_index
from app.members.member_keys import EXTERNAL_ID_LENGTH_MAX
from app.members.rows import MemberRow
from app.members.types import Member, MemberSource
from app.merchants.tenants import decrypted
from app.people.addresses import IS_MERGED, HeldRow, Proved, as_it_is, on_held, prove
from app.people.existing import MemberAlreadyExists, called, proved_by
from app.storage.database import Tx
from app.storage.events import event
from app.storage.statements import columns, statement

DISPLAY_NAME_LENGTH_MAX: Final = 200


@strawberry.input(
    description="What to change of a member: a field that is left out stays as it is, null removes it. A new address "
    "waits beside a proven one until it is proved, and takes the place of one that isn't proven."
)
class EditMemberInput:
    member_id: strawberry.ID = strawberry.field(description="The member.")
    external_id: str | None = strawberry.field(
        default=UNSET,
        description="The id that `externalSource` has for the member, in place of what it had, those of merged records "
        "included; at most 100 characters, unique for the source.",
    )
    external_source: MemberSource | None = strawberry.field(
        default=None, description="Whose id `externalId` is; STORE unless told."
    )
    email: str | None = strawberry.field(
        default=UNSET,
        description="The member's address; the present one again ends what is pending. Refused if another member has "
        "proved it.",
    )
    email_verified: bool | None = strawberry.field(
        default=UNSET,
        description="True: the address is known to be the member's; without `email`, the pending one, else the present "
        "one. False: a proof is withdrawn.",
    )
    display_name: str | None = strawberry.field(
        default=UNSET, description="The name to greet the member by, at most 200 characters."
    )


@strawberry.type(description="The member is as it was asked to be.")
class EditMemberSuccess:
    member: Member = strawberry.field(description="The member as it is now.")
    displaced: list[Member] = strawberry.field(
        description="Who else had the address written down, and lost it because it is proven now."
    )


EditMemberResult = Annotated[
    EditMemberSuccess | InvalidInput | NotFound | MemberAlreadyExists,
    strawberry.union("EditMemberResult", description="The member, or why it stays as it was."),
]


@dataclass(frozen=True, slots=True)
class Edit:
    """A checked edit; UNSET stands for what stays. `address` is normalised, and the indexes find it."""

    external_source: MemberSource
    external_id: Any
    address: Any
    email_index: bytes | None
    mailbox_index: bytes | None
    email_verified: Any
    display_name: Any


@dataclass(frozen=True, slots=True)
class Addresses:
    """A member's addresses: ciphertexts and indexes."""

    email: bytes | None = None
    email_index: bytes | None = None
    mailbox_index: bytes | None = None
    email_verified: bool = False
    pending_email: bytes | None = None
    pending_email_index: bytes | None = None
    pending_mailbox_index: bytes | None = None
    email_edited: bool = False


def withdrawn(held: Addresses) -> Addresses:
    """Return the addresses without a proof. What was pending takes the place of what isn't proven any more."""
    if held.pending_email_index is None:
        return replace(held, email_verified=False)
    return replace(
        held,
        email=held.pending_email,
        email_index=held.pending_email_index,
        mailbox_index=held.pending_mailbox_index,
        email_verified=False,
        pending_email=None,
        pending_email_index=None,
        pending_mailbox_index=None,
    )


def written(held: Addresses, email: bytes | None, email_index: bytes | None, mailbox_index: bytes | None) -> Addresses:
    """Return the addresses with a new one, or with none."""
    if email_index is None:
        is_edited = held.email_edited or held.email_index is not None
        return Addresses(email_edited=is_edited)
    if email_index == held.email_index:
        return replace(held, pending_email=None, pending_email_index=None, pending_mailbox_index=None)
    if email_index == held.pending_email_index:
        return held
    if held.email_verified:
        return replace(
            held,
            pending_email=email,
            pending_email_index=email_index,
            pending_mailbox_index=mailbox_index,
            email_edited=True,
        )
    return replace(held, email=email, email_index=email_index, mailbox_index=mailbox_index, email_edited=True)


def _checked(viewer: Viewer, input: EditMemberInput) -> Edit:
    problems = Problems()
    external_id, address, display_name = input.external_id, input.email, input.display_name
    if external_id not in {UNSET, None}:
        external_id = problems.text("externalId", external_id, length_max=EXTERNAL_ID_LENGTH_MAX)
    if input.external_source is not None and external_id is UNSET:
        problems.add("externalSource", "needs an externalId")
    if address not in {UNSET, None}:
        address = problems.email("email", address)
    if input.email_verified is None:
        problems.add("emailVerified", "must be true or false")
    elif input.email_verified is True and address is None:
        problems.add("emailVerified", "needs an address")
    if display_name not in {UNSET, None}:
        display_name = problems.text("displayName", display_name, length_max=DISPLAY_NAME_LENGTH_MAX)
    problems.refuse_if_any()
    keys = viewer.tenant.keys
    return Edit(
        external_source=input.external_source or MemberSource.STORE,
        external_id=external_id,
        address=address,
        email_index=keys.email_index(address) if address else None,
        mailbox_index=mailbox_index(keys, address) if address else None,
        email_verified=input.email_verified,
        display_name=display_name,
    )


@mutation(
    description="Change a member's name, address or external id, prove its address, or withdraw a proof. Codes and "
    "points stay the member's, whatever becomes of its address. ADMIN and SUPPORT."
)
async def edit_member(
    info: Info, input: Annotated[EditMemberInput, strawberry.argument(description="What to change.")]
) -> EditMemberResult:
    viewer = info.context.viewer
    edit = _checked(viewer, input)
    member_id = member_id_of(viewer, input.member_id)

    async def work(tx: Tx, held: HeldRow) -> Proved:
        return await change(tx, viewer, held, edit)

    edited = await on_held(viewer, member_id, edit.email_index, work)
    if edited is None:
        raise not_found("member", input.member_id)
    return EditMemberSuccess(member=Member.of(edited.row), displaced=[Member.of(lost) for lost in edited.displaced])


async def change(tx: Tx, viewer: Viewer, member: HeldRow, edit: Edit) -> Proved:
    """Edit a held member. Raises Refused with InvalidInput or MemberAlreadyExists."""
    if member["owner_id"] not in {None, member["member_id"]}:
        raise Refused(await proved_by(tx, viewer, member["owner_id"]))
    before = Addresses(
        member["email"],
        member["email_index"],
        member["mailbox_index"],
        member["email_verified"],
        member["pending_email"],
        member["pending_email_index"],
        member["pending_mailbox_index"],
        member["email_edited"],
    )
    is_withdrawn = edit.email_verified is False and before.email_verified
    after = kept = withdrawn(before) if is_withdrawn else before
    if edit.address is not UNSET:
        email = viewer.tenant.keys.encrypt(member["member_id"], "email", edit.address) if edit.address else None
        after = written(after, email, edit.email_index, edit.mailbox_index)
    to_prove = edit.email_index or after.pending_email_index or after.email_index
    if edit.email_verified is True and to_prove is None:
        problems = Problems()
        problems.add("emailVerified", "needs an address")
        problems.refuse_if_any()
    is_renamed = await _rename(tx, viewer, member, edit)
    name = await _name(viewer, member, edit)
    row: MemberRow | None = None
    is_edited = is_renamed or name != member["display_name"] or after != kept
    if is_edited or is_withdrawn:
        row = await _write(tx, viewer, member, after, name, is_edited=is_edited, is_withdrawn=is_withdrawn)
    if edit.email_verified is True and to_prove is not None:
        is_proven = to_prove == after.email_index and after.email_verified
        if not is_proven:
            return await prove(tx, viewer, member, to_prove)
    return Proved(row or await as_it_is(tx, viewer, member), [], None)


async def _name(viewer: Viewer, member: HeldRow, edit: Edit) -> bytes | None:
    """Return the name's ciphertext: the one that it has unless the name is another."""
    held = member["display_name"]
    if edit.display_name is UNSET:
        return held
    if edit.display_name is None:
        return None
    member_id = member["member_id"]
    if held is not None and await decrypted(viewer.tenant, member_id, "display_name", held) == edit.display_name:
        return held
    return viewer.tenant.keys.encrypt(member_id, "display_name", edit.display_name)


class _RenamedRow(TypedDict):
    is_taken: bool
    is_changed: bool


# A source has one id for a member by this verb. A row that was there already is updated, which its xmax says.
RENAME: Final = statement(
    _RenamedRow,
    """
WITH named AS (
    INSERT INTO external_id (merchant_id, member_id, source, external_id)
    SELECT :merchant_id, :member_id, :external_source, :external_id::varchar WHERE :external_id IS NOT NULL
    ON CONFLICT (merchant_id, source, external_id) DO UPDATE SET external_id = excluded.external_id
        WHERE external_id.member_id = excluded.member_id
    RETURNING xmax = 0 AS is_new
), dropped AS (
    DELETE FROM external_id
    WHERE merchant_id = :merchant_id AND member_id = :member_id AND source = :external_source
        AND external_id IS DISTINCT FROM :external_id
        AND (:external_id IS NULL OR EXISTS (SELECT FROM named))
    RETURNING external_id
), repeated AS (
    UPDATE member SET external_id = :external_id
    WHERE merchant_id = :merchant_id AND id = :member_id AND source = :external_source
        AND (:external_id IS NULL OR EXISTS (SELECT FROM named))
)
SELECT :external_id IS NOT NULL AND NOT EXISTS (SELECT FROM named) AS is_taken,
    EXISTS (SELECT FROM named WHERE is_new) OR EXISTS (SELECT FROM dropped) AS is_changed
""",
)


async def _rename(tx: Tx, viewer: Viewer, member: HeldRow, edit: Edit) -> bool:
    """Give a source another id for the member. Returns whether it had another one. Raises Refused when it is taken."""
    if edit.external_id is UNSET:
        return False
    renamed = await tx.row(
        RENAME,
        merchant_id=viewer.merchant_id,
        member_id=member["member_id"],
        external_source=edit.external_source.value,
        external_id=edit.external_id,
    )
    if renamed is None:
        raise RuntimeError("RENAME returned no row")
    if renamed["is_taken"]:
        raise Refused(await called(tx, viewer, edit.external_source, edit.external_id))
    return renamed["is_changed"]


EDIT: Final = statement(
    MemberRow,
    f"""
WITH left_behind AS (
    -- An address that the member has proved no longer is nobody's.
    UPDATE address SET member_id = NULL
    WHERE merchant_id = :merchant_id AND email_index = ANY(:held::bytea[]) AND member_id = :member_id
        AND (:email_verified AND email_index = :email_index) IS NOT TRUE AND NOT {IS_MERGED}
), m AS (
    UPDATE member SET email = :email, email_index = :email_index, mailbox_index = :mailbox_index,
        email_verified = :email_verified, pending_email = :pending_email, pending_email_index = :pending_email_index,
        pending_mailbox_index = :pending_mailbox_index, email_edited = :email_edited, display_name = :display_name
    WHERE merchant_id = :merchant_id AND id = :member_id
    RETURNING *
), recorded AS (
    {event("member.edited", subject="id", source="m WHERE :is_edited")}
), unverified AS (
    {event("member.email_unverified", id=":withdrawal_id", subject="id", source="m WHERE :is_withdrawn")}
)
SELECT {columns(MemberRow)}
FROM m CROSS JOIN LATERAL (SELECT * FROM wallet WHERE merchant_id = :merchant_id AND member_id = m.id OFFSET 0) w
""",
)


async def _write(
    tx: Tx,
    viewer: Viewer,
    member: HeldRow,
    addresses: Addresses,
    name: bytes | None,
    *,
    is_edited: bool,
    is_withdrawn: bool,
) -> MemberRow | None:
    return await tx.row(
        EDIT,
        merchant_id=viewer.merchant_id,
        member_id=member["member_id"],
        held=member["held"],
        email=addresses.email,
        email_index=addresses.email_index,
        mailbox_index=addresses.mailbox_index,
        email_verified=addresses.email_verified,
        pending_email=addresses.pending_email,
        pending_email_index=addresses.pending_email_index,
        pending_mailbox_index=addresses.pending_mailbox_index,
        email_edited=addresses.email_edited,
        display_name=name,
        is_edited=is_edited,
        is_withdrawn=is_withdrawn,
        event_id=ids.new(),
        withdrawal_id=ids.new(),
        actor=viewer.actor,
    )
