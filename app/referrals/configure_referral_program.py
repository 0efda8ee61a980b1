"""configureReferralProgram: what inviting brings, how much of it there may be, and what guards it against abuse."""

from typing import Annotated, Final

import strawberry
from strawberry import UNSET

from app import ids
from app.api.inputs import MoneyInput, Problems
from app.api.operations import Info, InvalidInput, mutation
from app.points.ledger import POINTS_MAX
from app.referrals.rows import ProgramRow
from app.referrals.types import ConversionTrigger, ReferralProgram, ReviewPolicy
from app.storage.database import database
from app.storage.events import event
from app.storage.statements import columns, statement

BATCH_MAX: Final = 5000
DAY_MAX: Final = 100_000
LIFETIME_MAX: Final = 1_000_000
DAYS_MAX: Final = 3650
_NO_MINIMUM: Final = "must be null where joining converts"


@strawberry.input(description="The program as it is to be. Safeguards that are left out, or null, stay as they are.")
class ConfigureReferralProgramInput:
    """Everything that a client knows of the program, and what guards it."""

    referrer_points: int = strawberry.field(
        description="What the sender of an invite earns by its conversion; over 0. Conversions from now on earn by it."
    )
    referee_points: int = strawberry.field(description="What the invited member earns by it; over 0.")
    invites_per_batch: int = strawberry.field(
        description="How many invites one call may send: 0 to 5,000. Any quota of 0 closes the program."
    )
    invites_per_day: int = strawberry.field(
        description="How many a member may send on a day of the merchant's time zone: 0 to 100,000."
    )
    invites_lifetime: int = strawberry.field(
        description="How many a member may send ever, not counting those that expired: 0 to 1,000,000."
    )
    invite_lifetime_days: int = strawberry.field(
        description="After how many days of 24 hours an invite that has not converted expires: 1 to 3,650. It counts "
        "for invites from now on."
    )
    converts_on: ConversionTrigger = strawberry.field(
        description="When an invite converts; it counts for those that are accepted from now on. JOIN goes with no "
        "minimum purchase."
    )
    reports_members: bool | None = strawberry.field(
        default=None,
        description="Whether a sender is told that an address is a member's; else it gets an invite that can't "
        "convert. True unless changed.",
    )
    review_policy: ReviewPolicy | None = strawberry.field(
        default=None, description="Which conversions are held for a person to release. NONE unless changed."
    )
    refund_window_days: int | None = strawberry.field(
        default=None,
        description="For how many days of 24 hours after a conversion the return of its purchase takes the points "
        "back: 0 to 3,650; 30 unless changed.",
    )
    minimum_purchase: MoneyInput | None = strawberry.field(
        default=UNSET,
        description="What a purchase must be worth to convert an invite, over 0, for conversions from now on. "
        "Left out it stays as it is; null takes it away.",
    )
    one_reward_per_mailbox: bool | None = strawberry.field(
        default=None,
        description="Whether one mailbox, all its spellings, is paid for once, whoever invites it. True unless "
        "changed.",
    )


@strawberry.type(description="The program is as asked.")
class ConfigureReferralProgramSuccess:
    program: ReferralProgram = strawberry.field(description="The program as it is now.")


ConfigureReferralProgramResult = Annotated[
    ConfigureReferralProgramSuccess | InvalidInput,
    strawberry.union("ConfigureReferralProgramResult", description="The program, or why it stays as it was."),
]

CONFIGURE: Final = statement(
    ProgramRow,
    f"""
WITH p AS (
    UPDATE referral_program SET referrer_points = :referrer_points, referee_points = :referee_points,
        invites_per_batch = :invites_per_batch, invites_per_day = :invites_per_day,
        invites_lifetime = :invites_lifetime, invite_lifetime_days = :invite_lifetime_days, converts_on = :converts_on,
        reports_members = coalesce(:reports_members, reports_members),
        review_policy = coalesce(:review_policy, review_policy),
        refund_window_days = coalesce(:refund_window_days, refund_window_days),
        minimum_purchase = CASE WHEN :changes_minimum THEN :minimum_purchase ELSE minimum_purchase END,
        one_reward_per_mailbox = coalesce(:one_reward_per_mailbox, one_reward_per_mailbox)
    WHERE merchant_id = :merchant_id
        -- A join is worth nothing, so no minimum goes with it, nor does one that stays as it is.
        AND (:converts_on <> 'JOIN' OR :changes_minimum OR minimum_purchase IS NULL)
    RETURNING *
), recorded AS (
    {event("referral_program.configured", subject=":merchant_id", source="p")}
)
SELECT {columns(ProgramRow)} FROM p
""",
)


@mutation(description="Set the referral program. It is closed until this is called. ADMIN only.")
async def configure_referral_program(
    info: Info,
    input: Annotated[ConfigureReferralProgramInput, strawberry.argument(description="The program as it is to be.")],
) -> ConfigureReferralProgramResult:
    viewer = info.context.viewer
    problems = Problems()
    problems.number("referrerPoints", input.referrer_points, least=1, most=POINTS_MAX)
    problems.number("refereePoints", input.referee_points, least=1, most=POINTS_MAX)
    problems.number("invitesPerBatch", input.invites_per_batch, least=0, most=BATCH_MAX)
    problems.number("invitesPerDay", input.invites_per_day, least=0, most=DAY_MAX)
    problems.number("invitesLifetime", input.invites_lifetime, least=0, most=LIFETIME_MAX)
    problems.number("inviteLifetimeDays", input.invite_lifetime_days, least=1, most=DAYS_MAX)
    problems.number("refundWindowDays", input.refund_window_days, least=0, most=DAYS_MAX)
    changes_minimum = input.minimum_purchase is not UNSET
    minimum = problems.money("minimumPurchase", input.minimum_purchase or None, currency=viewer.tenant.currency)
    if minimum is not None and input.converts_on is ConversionTrigger.JOIN:
        problems.add("minimumPurchase", _NO_MINIMUM)
    problems.refuse_if_any()
    row = await database().row(
        CONFIGURE,
        merchant_id=viewer.merchant_id,
        referrer_points=input.referrer_points,
        referee_points=input.referee_points,
        invites_per_batch=input.invites_per_batch,
        invites_per_day=input.invites_per_day,
        invites_lifetime=input.invites_lifetime,
        invite_lifetime_days=input.invite_lifetime_days,
        converts_on=input.converts_on.value,
        reports_members=input.reports_members,
        review_policy=None if input.review_policy is None else input.review_policy.value,
        refund_window_days=input.refund_window_days,
        changes_minimum=changes_minimum,
        minimum_purchase=minimum,
        one_reward_per_mailbox=input.one_reward_per_mailbox,
        event_id=ids.new(),
        actor=viewer.actor,
    )
    if row is None:
        problems.add("minimumPurchase", _NO_MINIMUM)
        problems.refuse_if_any()
        raise RuntimeError("a problem refused nothing")
    return ConfigureReferralProgramSuccess(program=ReferralProgram.of(row))
