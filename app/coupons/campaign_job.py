"""The job of a campaign to a segment: it sends codes to the members that were in it at the call, batch by batch."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypedDict
from uuid import UUID

from app.api.context import Role, Viewer
from app.api.operations import Refused
from app.coupons import stock_levels
from app.coupons.claims import PoolExhausted
from app.coupons.rows import BUDGET_IS_SPENT, IS_OVER, ISSUES_AHEAD, REWARD_OF_POOL
from app.coupons.send_codes import COUNT_STOCK, ChangedMeanwhile, HeldPoolRow, known_members, send_codes
from app.jobs import turns
from app.jobs.rows import BulkJobRow
from app.jobs.turns import HeldRow, Progress, TurnRow
from app.members.rows import IS_HERE
from app.merchants.tenants import tenant
from app.segments.definitions import IN_ONE_OF, SegmentName
from app.storage.database import Tx, transaction
from app.storage.events import event
from app.storage.statements import NoRow, columns, statement

#: Members of one batch. Whoever of them claims at that moment waits for no more than these.
PAGE: Final = 500


class ListedRow(BulkJobRow):
    """A job whose list was written down, how many of it don't have all their codes of the pool yet, and its stock."""

    asking: int
    available: int


REQUEST: Final = statement(
    BulkJobRow,
    f"""
WITH j AS (
    INSERT INTO bulk_job (merchant_id, id, kind, status, actor, pool_id, campaign_id, requested_at)
    VALUES (:merchant_id, :job_id, 'CAMPAIGN', 'QUEUED', :actor, :pool_id, :campaign_id, now())
    RETURNING *
), recorded AS (
    {event("job.requested", subject="j.id", source="j")}
)
SELECT {columns(BulkJobRow)} FROM j WHERE j.merchant_id = :merchant_id
""",
)
# Who joins the segment after this is not meant, and who leaves it stays. The stock is that of the same moment: whoever
# claims now needs a code less, and takes one.
WRITE_DOWN: Final = statement(
    ListedRow,
    f"""
WITH listed AS (
    SELECT m.id, (row_number() OVER (ORDER BY m.id) - 1) / {PAGE} AS number,
        coalesce(own.claims, 0) < :claims_per_member AS is_asking
    FROM member m LEFT JOIN (
        SELECT member_id, count(*) AS claims FROM claim
        WHERE merchant_id = :merchant_id AND pool_id = :pool_id AND member_id IS NOT NULL GROUP BY member_id
    ) own ON own.member_id = m.id
    WHERE m.merchant_id = :merchant_id AND {IS_HERE} AND {IN_ONE_OF.format("ARRAY[:segment::text]")}
), pages AS (
    INSERT INTO bulk_job_page (merchant_id, job_id, number, ids)
    SELECT :merchant_id, :job_id, number, array_agg(id ORDER BY id) FROM listed GROUP BY number
    RETURNING cardinality(ids) AS members
)
UPDATE bulk_job j SET total = (SELECT coalesce(sum(members), 0) FROM pages)
WHERE j.merchant_id = :merchant_id AND j.id = :job_id
RETURNING {columns(BulkJobRow)}, (SELECT count(*) FROM listed WHERE is_asking) AS asking,
    ({COUNT_STOCK}) AS available
""",
)


async def write_down(
    tx: Tx, viewer: Viewer, pool: HeldPoolRow, campaign_id: UUID, job_id: UUID, event_id: UUID, segment: SegmentName
) -> ListedRow:
    """Ask for the job of a campaign, and write down who is in the segment at this moment."""
    await tx.row(
        REQUEST,
        merchant_id=viewer.merchant_id,
        job_id=job_id,
        pool_id=pool["id"],
        campaign_id=campaign_id,
        event_id=event_id,
        actor=viewer.actor,
    )
    (listed,) = await tx.many(
        WRITE_DOWN,
        merchant_id=viewer.merchant_id,
        job_id=job_id,
        pool_id=pool["id"],
        claims_per_member=pool["claims_per_member"],
        segment=segment.value,
    )
    return listed


class _PoolRow(HeldPoolRow):
    is_over: bool
    is_budget_spent: bool
    reward_id: UUID | None


class _CampaignRow(TypedDict):
    delivered: int


HOLD_POOL: Final = statement(
    _PoolRow,
    f"""
SELECT p.id, p.status, p.starts_at, p.code_lifetime_days, p.claims_per_member,
    p.one_claim_per_mailbox, {ISSUES_AHEAD} AS is_open, {IS_OVER} AS is_over,
    {BUDGET_IS_SPENT} AS is_budget_spent, {REWARD_OF_POOL.format("p.id")} AS reward_id
FROM pool p WHERE p.merchant_id = :merchant_id AND p.id = :pool_id FOR NO KEY UPDATE
""",
)
LOOK: Final = statement(
    _CampaignRow,
    """
SELECT coalesce((
    SELECT position FROM delivery WHERE merchant_id = :merchant_id AND campaign_id = :campaign_id
    ORDER BY position DESC LIMIT 1
), 0) AS delivered
FROM campaign WHERE merchant_id = :merchant_id AND id = :campaign_id
""",
)
COUNT: Final = statement(
    NoRow,
    """
UPDATE campaign SET allocated_count = allocated_count + :allocated
WHERE merchant_id = :merchant_id AND id = :campaign_id
""",
)


async def campaign_batch(job: TurnRow) -> bool:
    """Send codes to the next members of a job's list. Returns whether it can go on at once."""
    owner = await tenant(job["merchant_id"])
    if owner is None:
        return False
    try:
        async with _held(job) as (tx, pool, held):
            if held is None:
                return False
            return await _send(tx, Viewer(Role.ADMIN, owner, held["actor"]), pool, held)
    except ChangedMeanwhile:
        return True
    except Refused as refused:
        if not isinstance(refused.refusal, PoolExhausted):
            raise
    async with _held(job) as (tx, _, held):
        if held is not None:
            await turns.wait(tx, held, "The pool has too few codes left for the next members.")
    return False


@asynccontextmanager
async def _held(job: TurnRow) -> AsyncIterator[tuple[Tx, _PoolRow, HeldRow | None]]:
    """Open a transaction that holds the pool, and then the job; None stands for a job that has ended."""
    async with transaction(job["merchant_id"]) as tx:
        pool = await tx.row(HOLD_POOL, merchant_id=job["merchant_id"], pool_id=job["pool_id"])
        if pool is None:
            raise RuntimeError("the pool of a campaign is missing")
        yield tx, pool, await turns.hold(tx, job)


def _obstacle(pool: _PoolRow) -> str | None:
    """Return why the pool sends nothing now."""
    if not pool["is_open"]:
        return f"The pool is {pool['status']}; it sends codes while it is ACTIVE."
    if pool["reward_id"] is not None:
        return "The pool's codes are had for points; retire its reward."
    if pool["is_budget_spent"]:
        return "The pool's budget is spent; raise it."
    return None


async def _send(tx: Tx, viewer: Viewer, pool: _PoolRow, job: HeldRow) -> bool:
    """Send codes to a page of members, and write down how far the job is. The caller holds pool and job."""
    if pool["is_over"]:
        await turns.fail(tx, job, "The pool has ended.")
        return False
    if problem := _obstacle(pool):
        await turns.wait(tx, job, problem)
        return False
    merchant_id, campaign_id = viewer.merchant_id, job["campaign_id"]
    campaign = await tx.row(LOOK, merchant_id=merchant_id, campaign_id=campaign_id)
    if campaign is None or campaign_id is None:
        raise RuntimeError("a job's campaign is missing")
    listed = await turns.take_page(tx, job)
    known = await known_members(tx, merchant_id, listed)
    people = list({person.member_id: person for person in known.values()}.values())
    sent = await send_codes(tx, viewer, pool, campaign_id, people, {}, delivered=campaign["delivered"], again=False)
    await tx.row(COUNT, merchant_id=merchant_id, campaign_id=campaign_id, allocated=sent.allocated)
    await stock_levels.check(tx, merchant_id, pool["id"], viewer.actor)
    same_mailbox = sum(person.is_skipped for person in people)
    progress = Progress(
        done=sent.allocated,
        skipped_erased=len(listed) - len(known),
        skipped_mailbox=same_mailbox,
        # Whoever is listed twice, because its records were merged since, has its codes after the first time.
        skipped_has_all=len(known) - sent.allocated - same_mailbox,
    )
    if len(listed) == job["remaining"]:
        await turns.finish(tx, job, progress)
        return False
    await turns.go_on(tx, job, progress)
    return True
