"""createCampaign: one code of a pool for each of up to 5,000 recipients, all or none, or for each of a segment."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypedDict
from uuid import UUID

import strawberry
from strawberry.types import get_object_definition

from app import ids
from app.api.context import Viewer
from app.api.inputs import Problems, node_id, stored_key
from app.api.operations import IdempotencyKeyReused, Info, InvalidInput, NotFound, Refused, mutation, not_found
from app.coupons import stock_levels
from app.coupons.campaign_job import write_down
from app.coupons.claims import (
    NotEligible,
    PoolBacksReward,
    PoolExhausted,
    PoolNotActive,
    budget_spent,
    exhausted,
    not_active,
    refuse_if_for_points,
)
from app.coupons.rows import BUDGET_IS_SPENT, FIND_CAMPAIGN, ISSUES_AHEAD, REWARD_OF_POOL, CampaignRow
from app.coupons.send_codes import ChangedMeanwhile, HeldPoolRow, Recipients, Sent, resolve, send_codes
from app.coupons.types import Campaign, PoolStatus
from app.jobs import turns
from app.segments.definitions import KEPT, SegmentName
from app.segments.refresh import refresh_if_stale
from app.storage import doorbell, events
from app.storage.database import Tx, database, transaction
from app.storage.statements import NoRow, statement

RECIPIENTS_MAX: Final = 5000
NAME_LENGTH_MAX: Final = 200
ATTEMPTS_MAX: Final = 20


@strawberry.input(description="Who a campaign goes to: a member or an address.")
class CampaignRecipientInput:
    """Exactly one of the two."""

    member_id: strawberry.ID | None = strawberry.field(default=None, description="A member.")
    email: str | None = strawberry.field(
        default=None, description="An address; its code waits for the member that turns out to own it."
    )


@strawberry.input(description="A campaign to send: to recipients, or to a segment.")
class CreateCampaignInput:
    name: str = strawberry.field(description="Its name, at most 200 characters.")
    pool_id: strawberry.ID = strawberry.field(description="The pool; it must be ACTIVE, but need not have begun.")
    recipients: list[CampaignRecipientInput] | None = strawberry.field(
        default=None, description="1 to 5,000 members or addresses; who is listed twice gets one code."
    )
    segment: SegmentName | None = strawberry.field(
        default=None,
        description="Instead of recipients: all members of a segment at the time of the call. A job sends the codes.",
    )
    idempotency_key: str | None = strawberry.field(
        default=None, description="The same key again returns the same campaign; at most 200 characters."
    )


def _from_input(_kind: type, given: Mapping[str, Any], _context: object) -> CreateCampaignInput:
    """Make the input of what is checked already. The general way works out each type for each of 5,000 recipients."""
    recipients = given.get("recipients")
    return CreateCampaignInput(
        name=given["name"],
        pool_id=given["poolId"],
        recipients=None
        if recipients is None
        else [CampaignRecipientInput(member_id=each.get("memberId"), email=each.get("email")) for each in recipients],
        segment=given.get("segment"),
        idempotency_key=given.get("idempotencyKey"),
    )


get_object_definition(CreateCampaignInput, strict=True).from_input = _from_input


@strawberry.type(description="Every recipient has its code, or a job sends them.")
class CreateCampaignSuccess:
    campaign: Campaign = strawberry.field(description="The campaign; its deliveries are what the mailer reads.")
    replayed: bool = strawberry.field(description="Whether an earlier call with the same key made it.")


CreateCampaignResult = Annotated[
    CreateCampaignSuccess
    | InvalidInput
    | NotFound
    | PoolNotActive
    | PoolBacksReward
    | NotEligible
    | PoolExhausted
    | IdempotencyKeyReused,
    strawberry.union("CreateCampaignResult", description="The campaign, or why there is none."),
]


def recipients(problems: Problems, viewer: Viewer, input: CreateCampaignInput) -> Recipients:
    """Check the recipients; about 10 µs each. Raises Refused with InvalidInput or NotFound."""
    if (input.recipients is None) == (input.segment is None):
        problems.add("recipients", "must be given, or a segment, and not both")
        problems.refuse_if_any()
    if input.segment is not None:
        problems.refuse_if_any()
        return Recipients([], {}, input.segment)
    asked = input.recipients or []
    if not 1 <= len(asked) <= RECIPIENTS_MAX:
        problems.add("recipients", f"must be 1 to {RECIPIENTS_MAX} members or addresses")
        problems.refuse_if_any()
    members: dict[UUID, None] = {}
    addresses: dict[bytes, str] = {}
    missing = None
    for position, recipient in enumerate(asked):
        if (recipient.member_id is None) == (recipient.email is None):
            problems.add(f"recipients.{position}", "must name a member or an address, and not both")
        elif recipient.email is not None:
            address = problems.email(f"recipients.{position}.email", recipient.email)
            addresses[viewer.tenant.keys.email_index(address)] = address
        elif recipient.member_id is not None:
            member_id = ids.decode("member", recipient.member_id)
            if member_id is None:
                missing = missing or recipient.member_id
            else:
                members[member_id] = None
    problems.refuse_if_any()
    if missing is not None:
        raise not_found("member", missing)
    return Recipients(list(members), addresses)


class _InsertedRow(TypedDict):
    reward_id: UUID | None


class _AskedPoolRow(HeldPoolRow):
    is_budget_spent: bool


# Campaigns of one pool go one after another; its status, and rewards that it is to back, wait for them. Claims don't.
HOLD_POOL: Final = statement(
    _AskedPoolRow,
    f"""
SELECT p.id, p.status, p.starts_at, p.code_lifetime_days, p.claims_per_member,
    p.one_claim_per_mailbox, {ISSUES_AHEAD} AS is_open, {BUDGET_IS_SPENT} AS is_budget_spent
FROM pool p WHERE p.merchant_id = :merchant_id AND p.id = :pool_id FOR NO KEY UPDATE
""",
)
# Sees what the pool's lock waited for: a reward that the pool backs now.
INSERT: Final = statement(
    _InsertedRow,
    f"""
INSERT INTO campaign (merchant_id, id, pool_id, name, segment, recipient_count, allocated_count, idempotency_key,
                      request_hash, created_at)
VALUES (:merchant_id, :campaign_id, :pool_id, :name, :segment, 0, 0, :key, :request_hash, now()) ON CONFLICT DO NOTHING
RETURNING {REWARD_OF_POOL.format(":pool_id")} AS reward_id
""",
)
COUNT: Final = statement(
    NoRow,
    """
UPDATE campaign SET recipient_count = :recipient_count, allocated_count = :allocated_count
WHERE merchant_id = :merchant_id AND id = :campaign_id
""",
)


@mutation(
    description="Send one code of a pool to each of up to 5,000 members or addresses, all or none; or, as a job, to "
    "all members of a segment. ADMIN only."
)
async def create_campaign(
    info: Info, input: Annotated[CreateCampaignInput, strawberry.argument(description="The campaign to send.")]
) -> CreateCampaignResult:
    viewer = info.context.viewer
    merchant_id = viewer.merchant_id
    problems = Problems()
    name = problems.text("name", input.name, length_max=NAME_LENGTH_MAX)
    told = problems.idempotency_key(input.idempotency_key)
    asked = await asyncio.to_thread(recipients, problems, viewer, input)
    key = None if told is None else stored_key(viewer, told)
    pool_id = node_id("pool", "pool", input.pool_id)
    request_hash = asked.hash(name, pool_id)
    if asked.segment in KEPT:
        await refresh_if_stale(merchant_id)
    for _ in range(ATTEMPTS_MAX):
        earlier = await _earlier(viewer, key, request_hash)
        if earlier is not None:
            return earlier
        campaign_id = ids.new()
        try:
            async with transaction(merchant_id) as tx:
                pool = await tx.row(HOLD_POOL, merchant_id=merchant_id, pool_id=pool_id)
                if pool is None:
                    raise not_found("pool", input.pool_id)
                inserted = await tx.row(
                    INSERT,
                    merchant_id=merchant_id,
                    campaign_id=campaign_id,
                    pool_id=pool_id,
                    name=name,
                    segment=None if asked.segment is None else asked.segment.value,
                    key=key,
                    request_hash=request_hash,
                )
                if inserted is None:
                    continue
                if not pool["is_open"]:
                    raise Refused(not_active(PoolStatus(pool["status"])))
                refuse_if_for_points(inserted["reward_id"])
                if pool["is_budget_spent"]:
                    raise Refused(budget_spent())
                if asked.segment is None:
                    people = await resolve(tx, viewer, asked)
                    sent = await send_codes(tx, viewer, pool, campaign_id, people, asked.addresses)
                else:
                    sent = await _write_down(tx, viewer, pool, campaign_id, asked.segment)
                await tx.row(
                    COUNT,
                    merchant_id=merchant_id,
                    campaign_id=campaign_id,
                    recipient_count=sent.recipients,
                    allocated_count=sent.allocated,
                )
                await events.record(tx, merchant_id, "campaign.created", campaign_id, viewer.actor)
                await stock_levels.check(tx, merchant_id, pool_id, viewer.actor)
        except ChangedMeanwhile:
            continue
        if asked.segment is not None:
            await doorbell.wake_workers(turns.WORKER_JOB)
        return CreateCampaignSuccess(campaign=Campaign.of(await _campaign(viewer, campaign_id)), replayed=False)
    raise RuntimeError("recipients kept changing while they were sent a campaign")


async def _write_down(tx: Tx, viewer: Viewer, pool: HeldPoolRow, campaign_id: UUID, segment: SegmentName) -> Sent:
    """Let a job send to a segment. Raises Refused when nobody is in it, or the stock wouldn't do."""
    listed = await write_down(tx, viewer, pool, campaign_id, ids.new(), ids.new(), segment)
    problems = Problems()
    if not listed["job_total"]:
        problems.add("segment", "has no members")
    problems.refuse_if_any()
    if listed["available"] < listed["asking"]:
        raise Refused(exhausted([pool["id"]], "The pool has too few codes left."))
    return Sent(recipients=listed["job_total"], allocated=0, delivered=0)


class _EarlierRow(TypedDict):
    id: UUID
    request_hash: bytes


FIND_BY_KEY: Final = statement(
    _EarlierRow,
    "SELECT id, request_hash FROM campaign WHERE merchant_id = :merchant_id AND idempotency_key = :key",
)


async def _earlier(viewer: Viewer, key: bytes | None, request_hash: bytes) -> CreateCampaignSuccess | None:
    """Return the campaign that this key made before. Raises Refused when it was another request."""
    if key is None:
        return None
    earlier = await database().row(FIND_BY_KEY, merchant_id=viewer.merchant_id, key=key)
    if earlier is None:
        return None
    if earlier["request_hash"] != request_hash:
        raise Refused(IdempotencyKeyReused(message="This idempotencyKey was used for another campaign."))
    return CreateCampaignSuccess(campaign=Campaign.of(await _campaign(viewer, earlier["id"])), replayed=True)


async def _campaign(viewer: Viewer, campaign_id: UUID) -> CampaignRow:
    row = await database().row(FIND_CAMPAIGN, merchant_id=viewer.merchant_id, campaign_id=campaign_id)
    if row is None:
        raise RuntimeError("a committed campaign can't be read")
    return row
