"""Who is meant: a member named by its id, by a store's id for it, or by an address that it has proved."""

import hashlib
from dataclasses import dataclass
from typing import Final, TypedDict
from uuid import UUID

import strawberry

from app.api.context import Role, Viewer
from app.api.inputs import Problems, acting_member
from app.api.operations import not_found
from app.members.rows import BY_EXTERNAL_ID
from app.members.types import MemberSource, mask_email
from app.storage.database import database
from app.storage.statements import statement

EXTERNAL_ID_LENGTH_MAX: Final = 100


@strawberry.input(
    description="Names a member as the caller knows it: by a store's id, or by a proven address; exactly one of them."
)
class MemberKeyInput:
    external_id: str | None = strawberry.field(
        default=None, description="A store's id of the member, at most 100 characters."
    )
    external_source: MemberSource | None = strawberry.field(
        default=None, description="Whose id `externalId` is; STORE unless told."
    )
    email: str | None = strawberry.field(
        default=None, description="An address; it names the member that has proved it, and nobody else."
    )


@dataclass(frozen=True, slots=True)
class MemberKey:
    """A checked key. `shown` is what NotFound names: the external id, or the address, masked."""

    shown: str
    external_source: MemberSource | None = None
    external_id: str | None = None
    proven_index: bytes | None = None

    def parameters(self) -> dict[str, object]:
        """Return the key as BY_KEY takes it."""
        source = None if self.external_source is None else self.external_source.value
        return {"external_source": source, "external_id": self.external_id, "proven_index": self.proven_index}

    def nobody(self) -> UUID:
        """Return an id that is no member's, the same for the same key: who presents codes by it has limits, too."""
        source = self.external_source.value if self.external_source else ""
        named = f"{source}/{self.external_id or ''}/".encode() + (self.proven_index or b"")
        return UUID(bytes=hashlib.sha256(named).digest()[:16])


#: What BY_KEY takes where no key is given; it fits nobody, and nothing is read.
NO_KEY: Final = MemberKey(shown="")


@dataclass(frozen=True, slots=True)
class NamedMember:
    """The member that an operation is for, as the caller named it: by id or by key, or a member itself."""

    node_id: str | None
    key: MemberKey | None

    async def id(self, viewer: Viewer) -> UUID:
        """Return the member's id: with a key by one indexed read, else by none. Raises Refused(NotFound)."""
        if self.key is None:
            return acting_member(viewer, self.node_id)
        found = await member_of_key(viewer, self.key)
        if found is None:
            raise not_found("member", self.key.shown)
        return viewer.standing(found)

    def shown(self, viewer: Viewer) -> str:
        """Return what NotFound names."""
        return self.node_id or (viewer.actor if self.key is None else self.key.shown)


def checked_key(problems: Problems, viewer: Viewer, key: MemberKeyInput, path: str = "member.") -> MemberKey:
    """Check a key, whose fields are at `path`."""
    if (key.external_id is None) == (key.email is None):
        problems.add(f"{path}externalId", "or email must be given, and not both")
    if key.external_source is not None and key.external_id is None:
        problems.add(f"{path}externalSource", "needs an externalId")
    if key.external_id is not None:
        text = problems.text(f"{path}externalId", key.external_id, length_max=EXTERNAL_ID_LENGTH_MAX)
        return MemberKey(shown=text, external_source=key.external_source or MemberSource.STORE, external_id=text)
    address = "" if key.email is None else problems.email(f"{path}email", key.email)
    return MemberKey(shown=mask_email(address), proven_index=viewer.tenant.keys.email_index(address))


def named_member(problems: Problems, viewer: Viewer, member_id: str | None, key: MemberKeyInput | None) -> NamedMember:
    """Check that a caller names one member. A member may leave out its own id, and names nobody by a key."""
    if viewer.role is not Role.MEMBER and (member_id is None) == (key is None):
        problems.add("memberId", "or member must be given, and not both")
    return NamedMember(member_id, optional_key(problems, viewer, key))


def optional_key(problems: Problems, viewer: Viewer, key: MemberKeyInput | None) -> MemberKey | None:
    """Check a key where there is one; only API keys know others."""
    if key is None:
        return None
    if viewer.role is Role.MEMBER:
        problems.add("member", "is for API keys; a member acts for itself")
    return checked_key(problems, viewer, key)


class _KeyedRow(TypedDict):
    member_id: UUID


#: The member that a key fits, whose parts are `MemberKey.parameters`.
BY_KEY: Final = f"""
    {BY_EXTERNAL_ID}
    UNION ALL
    SELECT member_id FROM address
    WHERE merchant_id = :merchant_id AND email_index = :proven_index AND member_id IS NOT NULL
"""
FIND_BY_KEY: Final = statement(_KeyedRow, BY_KEY)


async def member_of_key(viewer: Viewer, key: MemberKey) -> UUID | None:
    """Return the member that a key fits."""
    found = await database().row(FIND_BY_KEY, merchant_id=viewer.merchant_id, **key.parameters())
    return None if found is None else found["member_id"]
