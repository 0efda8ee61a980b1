"""The referral program, invites and referrals as the API shows them."""

from datetime import datetime
from enum import Enum

import strawberry

from app import ids
from app.api.access import is_another
from app.api.context import Viewer
from app.api.inputs import Money, money
from app.api.operations import Info, Node, field, guarded
from app.api.scalars import described
from app.members.rows import unnamed
from app.members.types import ERASED, Member, mask_email
from app.merchants.tenants import decrypted
from app.points.rows import WholeEntryRow
from app.points.types import PointsEntry
from app.referrals.rows import ProgramRow, QuotaRow, ReferralRow, WholeInviteRow
from app.storage.statements import part


@strawberry.enum(description="Which event makes an invite count.")
class ConversionTrigger(Enum):
    """When an invite converts."""

    JOIN = described("JOIN", "The invited person joins and has proved an address, whichever is later.")
    FIRST_PURCHASE = described(
        "FIRST_PURCHASE", "The invited person buys something and has proved an address, whichever is later."
    )


@strawberry.enum(description="Where an invite stands. It leaves PENDING once, and nothing else.")
class InviteStatus(Enum):
    """The life of an invite."""

    PENDING = described("PENDING", "It may still convert, accepted or not.")
    CONVERTED = described("CONVERTED", "It brought a member; what both earn follows from it.")
    EXPIRED = described("EXPIRED", "It didn't convert in its lifetime; the sender's lifetime quota has it back.")
    CANCELLED = described("CANCELLED", "It was taken back before anybody accepted it.")


@strawberry.enum(description="Why an accepted invite will not convert.")
class InviteObstacle(Enum):
    """What is in the way, in the order in which it is looked for."""

    SELF = described("SELF", "Who accepted it has the mailbox of who sent it, however it is spelt.")
    EXISTING_CUSTOMER = described(
        "EXISTING_CUSTOMER", "Who accepted it was a member, or had bought, before it was sent, by any spelling."
    )
    MAILBOX_REWARDED = described(
        "MAILBOX_REWARDED", "An invite was paid for this mailbox before, whoever sent it and however it was spelt."
    )


@strawberry.enum(description="Why an address of a batch got no invite.")
class InviteSkipReason(Enum):
    """Reasons in the order in which they are looked for: the first that applies is told."""

    INVALID_EMAIL = described("INVALID_EMAIL", "It is not an e-mail address.")
    DUPLICATE = described("DUPLICATE", "It is in the batch before.")
    SELF = described("SELF", "It is the sender's own mailbox, whichever way it is spelt.")
    DISPOSABLE_EMAIL = described("DISPOSABLE_EMAIL", "Its domain gives addresses to be thrown away.")
    ALREADY_MEMBER = described("ALREADY_MEMBER", "It is a member's; told where the program reports members.")
    ALREADY_INVITED = described("ALREADY_INVITED", "It has an invite that is pending, whoever sent it.")


@strawberry.enum(description="Which conversions wait for a person before any points are given.")
class ReviewPolicy(Enum):
    """What is held."""

    NONE = described("NONE", "None is held.")
    FLAGGED = described("FLAGGED", "Those with a review flag.")
    ALL = described("ALL", "Every one.")


@strawberry.enum(description="What a person might want to look at. Flags alone hold nothing back.")
class ReviewFlag(Enum):
    """Facts about what the referrer did; see app/referrals/flags.py for the counts."""

    VELOCITY = described("VELOCITY", "Several of the referrer's invites had converted within a day.")
    ONE_DOMAIN = described("ONE_DOMAIN", "The referrer invites many addresses of one domain that isn't a public one.")
    ONE_MAILBOX = described("ONE_MAILBOX", "Another invite of the referrer to the same mailbox was accepted.")
    REFUNDS = described("REFUNDS", "Earlier referrals of the referrer were reversed by returns.")
    BALANCE_FULL = described("BALANCE_FULL", "A balance couldn't hold the points, so they are held.")


@strawberry.type(description="What guards the program against abuse.")
class ReferralSafeguards:
    """The settings that invited people needn't know."""

    reports_members: bool = strawberry.field(
        description="Whether a sender is told that an address is a member's; else it gets an invite that can't convert."
    )
    review_policy: ReviewPolicy = strawberry.field(description="Which conversions are held for a person to release.")
    refund_window_days: int = strawberry.field(
        description="For how many days after a conversion the return of its purchase takes the points back."
    )


@strawberry.type(description="What inviting brings, and how much of it there may be. Quotas of 0 close the program.")
class ReferralProgram:
    """A merchant's program."""

    row: strawberry.Private[ProgramRow]
    referrer_points: int = strawberry.field(description="What the sender of an invite earns by its conversion.")
    referee_points: int = strawberry.field(description="What the invited member earns by it.")
    invites_per_batch: int = strawberry.field(description="How many invites one call may send.")
    invites_per_day: int = strawberry.field(
        description="How many a member may send on a day, which begins at midnight of the merchant's time zone."
    )
    invites_lifetime: int = strawberry.field(
        description="How many a member may send ever, not counting those that expired."
    )
    invite_lifetime_days: int = strawberry.field(
        description="After how many days of 24 hours an invite that has not converted expires."
    )
    converts_on: ConversionTrigger = strawberry.field(description="When an invite converts.")
    one_reward_per_mailbox: bool = strawberry.field(
        description="Whether one mailbox, all its spellings, is paid for once, whoever invites it."
    )

    @classmethod
    def of(cls, row: ProgramRow) -> "ReferralProgram":
        """Return the program of a row."""
        return cls(
            row=row,
            referrer_points=row["program_referrer_points"],
            referee_points=row["program_referee_points"],
            invites_per_batch=row["program_invites_per_batch"],
            invites_per_day=row["program_invites_per_day"],
            invites_lifetime=row["program_invites_lifetime"],
            invite_lifetime_days=row["program_invite_lifetime_days"],
            converts_on=ConversionTrigger(row["program_converts_on"]),
            one_reward_per_mailbox=row["program_one_reward_per_mailbox"],
        )

    @field(description="What a purchase must be worth to convert an invite; null: more than nothing.")
    def minimum_purchase(self, info: Info) -> Money | None:
        """Return the amount in the merchant's currency."""
        return money(self.row["program_minimum_purchase"], info.context.viewer.tenant.currency)

    @guarded(
        "ReferralProgram.safeguards",
        description="What guards it against abuse; for ADMIN and ANALYST, null to others.",
    )
    def safeguards(self, info: Info) -> ReferralSafeguards | None:  # noqa: ARG002  (guarded reads it)
        """Show them to those who answer for them."""
        return ReferralSafeguards(
            reports_members=self.row["program_reports_members"],
            review_policy=ReviewPolicy(self.row["program_review_policy"]),
            refund_window_days=self.row["program_refund_window_days"],
        )


@strawberry.type(description="How many invites a member may still send; addresses that are skipped cost none.")
class InviteQuota:
    """What is left now."""

    per_batch: int = strawberry.field(description="With one call.")
    remaining_today: int = strawberry.field(description="Until the next midnight of the merchant's time zone.")
    remaining_lifetime: int = strawberry.field(description="Ever, until invites expire and give theirs back.")

    @classmethod
    def of(cls, row: QuotaRow) -> "InviteQuota":
        """Return the quota of a row."""
        return cls(
            per_batch=row["quota_batch"],
            remaining_today=row["quota_today"],
            remaining_lifetime=row["quota_lifetime"],
        )


@strawberry.type(description="An invite of a member to an address. Only its conversion is paid for.")
class Invite(Node):
    """An invite; its address and token are decrypted when they are asked for."""

    row: strawberry.Private[WholeInviteRow]
    referrer: Member = strawberry.field(description="Who sent it.")
    status: InviteStatus = strawberry.field(description="Where it stands.")
    created_at: datetime = strawberry.field(description="When it was sent.")
    expires_at: datetime = strawberry.field(description="From when on it can't be accepted or convert.")
    accepted_at: datetime | None = strawberry.field(description="When a member accepted it; null before.")
    converted_at: datetime | None = strawberry.field(description="When it converted; null before.")

    @classmethod
    def of(cls, row: WholeInviteRow) -> "Invite":
        """Return the invite of a row."""
        return cls(
            id=strawberry.ID(ids.encode("invite", row["invite_id"])),
            row=row,
            referrer=Member.of(row),
            status=InviteStatus(row["invite_status"]),
            created_at=row["invite_created_at"],
            expires_at=row["invite_expires_at"],
            accepted_at=row["invite_accepted_at"],
            converted_at=row["invite_converted_at"],
        )

    @guarded(
        "Invite.obstacle",
        description="Why it will not convert, although it was accepted; for ADMIN, CHECKOUT, SUPPORT and ANALYST, null "
        "to others. What was found while the address isn't proven is looked for again with the proof.",
    )
    def obstacle(self, info: Info) -> InviteObstacle | None:  # noqa: ARG002  (guarded reads it)
        found = self.row["invite_obstacle"]
        return None if found is None else InviteObstacle(found)

    @field(description="The invited address with only its first letter and its domain readable.")
    async def masked_email(self, info: Info) -> str:
        """Decrypt the address and mask it; who was erased has none."""
        address = await self._decrypted(info.context.viewer, "email", self.row["invite_email"])
        return ERASED if address is None else mask_email(address)

    @field(description="For the referrer only: what the invited person presents to join. Null to others.")
    async def token(self, info: Info) -> str | None:
        """Decrypt the token."""
        viewer = info.context.viewer
        if viewer.member_id != self.row["invite_referrer_id"]:
            return None
        return await self._decrypted(viewer, "token", self.row["invite_token"])

    async def _decrypted(self, viewer: Viewer, column: str, ciphertext: bytes | None) -> str | None:
        if ciphertext is None:
            return None
        return await decrypted(viewer.tenant, self.row["invite_id"], column, ciphertext)


@strawberry.type(description="That a member brought another one, and what both earned by it.")
class Referral(Node):
    """A referral whose points were given; a reversed one stays in the list with its `reversedAt`."""

    row: strawberry.Private[ReferralRow]
    converted_at: datetime = strawberry.field(description="When the invite converted.")
    released_at: datetime = strawberry.field(description="When the points were given; later only after a review.")
    reversed_at: datetime | None = strawberry.field(
        description="When a return took the points back, because no purchase stood that it could stand by; null while "
        "they stand, also when a later purchase has brought them back."
    )
    shortfall: int | None = strawberry.field(
        description="How many points both had spent by then, together; null when they stand."
    )
    review_flags: list[ReviewFlag] = strawberry.field(description="What a person might want to look at.")

    @classmethod
    def of(cls, row: ReferralRow) -> "Referral":
        """Return the referral of a row. Raises ValueError for a held one."""
        released_at = row["referral_released_at"]
        if released_at is None:
            raise ValueError("a held referral is shown as HeldReferral")
        return cls(
            id=strawberry.ID(ids.encode("referral", row["referral_id"])),
            row=row,
            converted_at=row["referral_converted_at"],
            released_at=released_at,
            reversed_at=row["referral_reversed_at"],
            shortfall=row["referral_shortfall"],
            review_flags=[ReviewFlag(flag) for flag in row["referral_flags"]],
        )

    @field(description="Who sent the invite. To the member that it brought, without name and address.")
    def referrer(self, info: Info) -> Member:
        return Member.of(_side(info, self.row, "referrer_"))

    @field(description="Whom the invite brought. To the member that sent it, without name and address.")
    def referee(self, info: Info) -> Member:
        return Member.of(_side(info, self.row, "referee_"))

    @field(description="What the referrer earned; null if nothing was credited.")
    def referrer_entry(self, info: Info) -> PointsEntry | None:
        return _entry(info, self.row, "referrer_")

    @field(description="What the referee earned; null if nothing was credited.")
    def referee_entry(self, info: Info) -> PointsEntry | None:
        return _entry(info, self.row, "referee_")


@strawberry.type(
    description="A conversion whose points wait for a person, or that one declined. Until released it is no referral."
)
class HeldReferral(Node):
    """A referral without entries."""

    row: strawberry.Private[ReferralRow]
    converted_at: datetime = strawberry.field(description="When the invite converted.")
    reversed_at: datetime | None = strawberry.field(
        description="When too little of its purchase stood, after which it can't be released; null before, and when a "
        "later purchase lets it wait again."
    )
    declined_at: datetime | None = strawberry.field(
        description="When a person decided that nobody gets its points; null before."
    )
    referrer_points: int = strawberry.field(description="What the referrer is to earn, unless it is declined.")
    referee_points: int = strawberry.field(description="What the referee is to earn, unless it is declined.")
    review_flags: list[ReviewFlag] = strawberry.field(description="What a person might want to look at.")

    @classmethod
    def of(cls, row: ReferralRow) -> "HeldReferral":
        """Return the held referral of a row."""
        return cls(
            id=strawberry.ID(ids.encode("referral", row["referral_id"])),
            row=row,
            converted_at=row["referral_converted_at"],
            reversed_at=row["referral_reversed_at"],
            declined_at=row["referral_declined_at"],
            referrer_points=row["referral_referrer_points"],
            referee_points=row["referral_referee_points"],
            review_flags=[ReviewFlag(flag) for flag in row["referral_flags"]],
        )

    @field(description="Who sent the invite.")
    def referrer(self, info: Info) -> Member:
        return Member.of(_side(info, self.row, "referrer_"))

    @field(description="Whom the invite brought.")
    def referee(self, info: Info) -> Member:
        return Member.of(_side(info, self.row, "referee_"))


def shown(row: ReferralRow) -> Referral | HeldReferral:
    """Return the referral of a row, held or not."""
    return HeldReferral.of(row) if row["referral_released_at"] is None else Referral.of(row)


def released(row: ReferralRow | None) -> Referral | None:
    """Return the referral of a row, or None while there is none or it is held."""
    return None if row is None or row["referral_released_at"] is None else Referral.of(row)


def _entry(info: Info, row: ReferralRow, prefix: str) -> PointsEntry | None:
    side = _side(info, row, prefix)
    # Who was erased before the conversion has none.
    return None if side["entry_id"] is None else PointsEntry.of(side)


def _side(info: Info, row: ReferralRow, prefix: str) -> WholeEntryRow:
    """Return what a referral's row says of one of its members and that member's entry.

    A member sees of another one that it is there and since when, and not who it is.
    """
    side = part(row, prefix, WholeEntryRow)
    return unnamed(side) if is_another(info.context.viewer, side["member_id"]) else side
