"""Members as the API shows them."""

from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Final

import strawberry

from app import ids
from app.api.access import is_another, may
from app.api.operations import Info, Node, field
from app.api.scalars import described
from app.members.rows import MemberRow, external_ids_by_member, merged_by_member
from app.merchants.tenants import decrypted
from app.storage.wallet_versions import ChangeRow

if TYPE_CHECKING:
    from app.referrals.types import Referral
    from app.wallets.types import Wallet


@strawberry.enum(description="Where a member's record came from.")
class MemberSource(Enum):
    """The doors a member can come through."""

    STORE = described("STORE", "A shop counter.")
    SHOPIFY = described("SHOPIFY", "A Shopify store.")
    RECEIPT = described("RECEIPT", "A scanned receipt.")
    REFERRAL = described("REFERRAL", "Another member's invite.")
    IMPORT = described("IMPORT", "An import of existing records.")


#: What is shown of an erased person where something must be.
ERASED: Final = "•••"


def mask_email(address: str) -> str:
    """Return an address with only its first letter and its domain readable."""
    local, _, domain = address.rpartition("@")
    return f"{local[:1]}•••@{domain}"


@strawberry.type(description="What a source calls a member.")
class ExternalId:
    source: MemberSource = strawberry.field(description="Whose id it is.")
    id: str = strawberry.field(description="The source's own id for the member; unique among those of the source.")


@strawberry.type(description="A member: one record, whatever the source.")
class Member(Node):
    """A member; name and address are decrypted when they are asked for."""

    row: strawberry.Private[MemberRow]
    as_of: strawberry.Private[ChangeRow | None]
    external_id: str | None = strawberry.field(
        description="The id for this member of the source that its record came from."
    )
    email_verified: bool = strawberry.field(
        description="Whether the address is known to be the member's. Others may have written down one that isn't."
    )
    source: MemberSource = strawberry.field(description="Where the record came from.")
    joined_at: datetime = strawberry.field(description="When the member was enrolled.")
    erased_at: datetime | None = strawberry.field(
        description="When the person was forgotten: name, addresses and numbers are gone. Null of everybody else."
    )

    @classmethod
    def of(cls, row: MemberRow, *, as_of: ChangeRow | None = None) -> "Member":
        """Return the member of a row, its wallet as a change left it if one is given."""
        return cls(
            id=strawberry.ID(ids.encode("member", row["member_id"])),
            row=row,
            as_of=as_of,
            external_id=row["member_external_id"],
            email_verified=row["member_email_verified"],
            source=MemberSource(row["member_source"]),
            joined_at=row["member_joined_at"],
            erased_at=row["member_erased_at"],
        )

    @field(description="The name to greet the member by; an ANALYST sees its first letter.")
    async def display_name(self, info: Info) -> str | None:
        """Decrypt the name."""
        name = await self._decrypt(info, "display_name", self.row["member_display_name"])
        return (
            f"{name[:1]}•••" if name is not None and not may(info.context.viewer.role, "Member.displayName") else name
        )

    @field(description="The address with only its first letter and its domain readable.")
    async def masked_email(self, info: Info) -> str | None:
        """Decrypt the address and mask it."""
        address = await self._decrypt(info, "email", self.row["member_email"])
        return None if address is None else mask_email(address)

    @field(description="A new address, masked, that waits beside the proven one until it is proved, too.")
    async def pending_masked_email(self, info: Info) -> str | None:
        """Decrypt the address and mask it."""
        address = await self._decrypt(info, "email", self.row["member_pending_email"])
        return None if address is None else mask_email(address)

    @field(description="What each source calls the member, in the order of the sources; empty to another member.")
    async def external_ids(self, info: Info) -> list[ExternalId]:
        """Read the ids of all members of this page together."""
        member_id = self.row["member_id"]
        if is_another(info.context.viewer, member_id):
            return []
        rows = await info.context.load(external_ids_by_member, member_id)
        return [ExternalId(source=MemberSource(row["source"]), id=row["external_id"]) for row in rows]

    @field(
        description="The records that became this one, as they were, the oldest first; empty to another member. Their "
        "ids name this member."
    )
    async def merged_from(self, info: Info) -> list["Member"]:
        """Read the records of all members of this page together."""
        member_id = self.row["member_id"]
        if is_another(info.context.viewer, member_id):
            return []
        rows = await info.context.load(merged_by_member, member_id)
        return [Member.of(row) for row in rows]

    @field(description="The member's wallet; null to another member.")
    def wallet(self, info: Info) -> Annotated["Wallet", strawberry.lazy("app.wallets.types")] | None:
        """Every member has one."""
        from app.wallets.types import Wallet  # noqa: PLC0415  (a member shows its wallet, and a wallet its member)

        if is_another(info.context.viewer, self.row["member_id"]):
            return None
        return Wallet.of(self.row, as_of=self.as_of)

    @field(
        description="The referral that brought the member; null for others, while it is held, and to another member."
    )
    async def referred_by(self, info: Info) -> Annotated["Referral", strawberry.lazy("app.referrals.types")] | None:
        """Read the referrals of all members of this page together."""
        from app.referrals.queries import referral_of_member  # noqa: PLC0415  (a member shows its referral, and a referral its members)

        return await referral_of_member(info, self.row["member_id"])

    async def _decrypt(self, info: Info, column: str, ciphertext: bytes | None) -> str | None:
        if ciphertext is None:
            return None
        return await decrypted(info.context.viewer.tenant, self.row["member_id"], column, ciphertext)
