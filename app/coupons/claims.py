"""Claiming: a claimant gets one code of a pool, or of the pools it falls back to, and the same one ever after."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg
import strawberry

from app import ids
from app.api.context import Viewer
from app.api.operations import IdempotencyKeyReused, Refusal, Refused
from app.coupons import stock_levels
from app.coupons.rows import BACKS_REWARD, CODE_COLUMNS, IS_OPEN, POOL_COLUMNS, REWARD_OF_POOL
from app.coupons.types import PoolStatus
from app.members.rows import MEMBER_COLUMNS
from app.storage.bounded import remember
from app.storage.database import Row, Statements, Tx
from app.storage.wallet_versions import CHANGE_COLUMNS, ring_wallet

ATTEMPTS_MAX: Final = 1000
#: How many pools a chain may have; editing refuses longer ones.
CHAIN_LENGTH_MAX: Final = 10


@strawberry.type(description="The pool doesn't issue codes now.")
class PoolNotActive(Refusal):
    """Paused, archived, still a draft, or outside its dates."""

    status: PoolStatus = strawberry.field(description="The pool's status; ACTIVE when only its dates are against it.")


@strawberry.type(description="Neither the pool nor those it falls back to have a code left.")
class PoolExhausted(Refusal):
    """Nothing left to claim."""

    pools_tried: list[strawberry.ID] = strawberry.field(
        description="The pools that were asked, in this order: the pool, and the open ones it falls back to."
    )


@strawberry.type(
    description="The pool backs a reward that is offered: its codes are had by redeeming the reward, and in no other "
    "way. A code that the claimant has already is still its own."
)
class PoolBacksReward(Refusal):
    """Its codes cost points."""

    reward_id: strawberry.ID = strawberry.field(description="The reward; the newest of several.")


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who claims: a member, or whoever has an address (its index), known as a member or not."""

    member_id: UUID | None = None
    email_index: bytes | None = None

    @property
    def key(self) -> UUID | bytes | None:
        """What the statements take as the claimant."""
        return self.member_id if self.email_index is None else self.email_index


@dataclass(frozen=True, slots=True)
class Claimed:
    """The outcome of a claim: a row of everything a Code and its Pool can show."""

    row: Row
    replayed: bool


# One statement, one round trip, its own transaction. The order of locks is code, address, claim, wallet.
#
# `picked` takes the first code in stock that nobody else is taking (SKIP LOCKED), so claimants don't wait for each
# other. It starts after $6, where this process last found one: with an old snapshot open somewhere (a dump, an
# export) PostgreSQL has to step over every index entry of the codes claimed since, on each claim.
# `claimed` is what makes it once: two taps of one claimant both pick a code, but one of them finds its slot taken,
# inserts nothing, and so allocates nothing.
#
# Rows are named by subqueries, not joined: a plan that was made while the tables were small may join by reading the
# whole index of the merchant, and stays in use until the next ANALYZE (measured: 38 times slower at 60,000 codes).
_CLAIM: Final = """
WITH who AS ({who}), asked AS (
    SELECT p.*, {issues} AS issues FROM pool p WHERE p.merchant_id = $1 AND p.id = $2
), held AS ({held}), may AS (
    SELECT asked.*, held.slot + 1 AS slot FROM asked, who, held
    WHERE issues AND (claims = 0 OR ($4::text IS NOT NULL AND claims < claims_per_member))
        AND NOT EXISTS (SELECT FROM claim WHERE merchant_id = $1 AND idempotency_key = $4)
){serving}, picked AS (
    SELECT id FROM code
    WHERE merchant_id = $1 AND pool_id = {pool} AND state = 'AVAILABLE' AND id > $6 AND EXISTS (SELECT FROM {may})
    ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
){owner}, claimed AS (
    INSERT INTO claim (merchant_id, code_id, pool_id, member_id, email_index, slot, idempotency_key, claimed_at)
    SELECT $1, picked.id, $2, {owner_name}.member_id, {owner_name}.email_index, may.slot, $4, now()
    FROM picked, may, {owner_name}
    ON CONFLICT DO NOTHING RETURNING code_id, member_id, email_index
){claimed_too}, c AS (
    UPDATE code SET state = 'ALLOCATED', member_id = claimed.member_id, email_index = {code_email},
        matched_by = '{matched_by}', allocated_at = now(),
        expires_at = now() + make_interval(days => p.code_lifetime_days)
    FROM {may} p, claimed WHERE code.merchant_id = $1 AND code.id = (SELECT code_id FROM {claimed_name})
    RETURNING code.*
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT $1, {pool}, gen_random_uuid(), -1, 1, 0, 0, 0 FROM c
), w AS (
    UPDATE wallet SET version = version + 1
    WHERE wallet.merchant_id = $1 AND wallet.member_id = (SELECT member_id FROM c) RETURNING version, points
), recorded AS (
    INSERT INTO event (merchant_id, id, type, subject_id, actor, occurred_at, member_id, wallet_version, wallet_points)
    SELECT $1, $7, 'code.claimed', c.id, $5, now(), c.member_id, w.version, w.points FROM c LEFT JOIN w ON true
    RETURNING *
)
SELECT {columns}
FROM {shown} p
LEFT JOIN c ON true
LEFT JOIN member m ON m.merchant_id = $1 AND m.id = c.member_id
LEFT JOIN w ON true
LEFT JOIN recorded ev ON true
"""
_WHO_BY_MEMBER: Final = """
    SELECT id AS member_id, CASE WHEN email_verified THEN email_index END AS email_index
    FROM member WHERE merchant_id = $1 AND id = $3
"""
_WHO_BY_EMAIL: Final = """
    SELECT (SELECT member_id FROM address WHERE merchant_id = $1 AND email_index = $3) AS member_id,
        $3::bytea AS email_index
"""
# In the order of the index to read: to a planner that has seen the table empty, the index of the pool's claims is as
# good as that of the claimant's (measured: 132 buffers instead of 3 after 6,000 claims).
_CLAIMS_BY_MEMBER: Final = """
    SELECT * FROM claim WHERE merchant_id = $1 AND pool_id = {pool} AND member_id = $3 ORDER BY slot
"""
_CLAIMS_BY_EMAIL: Final = """
    (SELECT * FROM claim WHERE merchant_id = $1 AND pool_id = {pool} AND email_index = $3
        AND (SELECT member_id FROM who) IS NULL ORDER BY slot)
    UNION ALL
    (SELECT * FROM claim WHERE merchant_id = $1 AND pool_id = {pool} AND member_id = (SELECT member_id FROM who)
        ORDER BY slot)
"""
# The address's row is where a claim by e-mail and the verification of that address meet. Whoever comes second waits,
# and if the address has become a member's since this statement began, nothing is claimed: it is asked again.
_OWNER_BY_EMAIL: Final = """, addressed AS (
    INSERT INTO address (merchant_id, email_index) SELECT $1, $3 FROM picked
    ON CONFLICT (merchant_id, email_index) DO UPDATE SET email_index = excluded.email_index
    RETURNING member_id
), owner AS (
    SELECT who.* FROM who, addressed WHERE who.member_id IS NOT DISTINCT FROM addressed.member_id
)"""
# A code that comes from a fallback pool counts as a claim of both pools. The second row is inserted without
# ON CONFLICT: when the claimant gets a code of the fallback pool at this very moment in another way, both rows go.
_SERVING: Final = """, serving_held AS ({held}), serving AS (
    SELECT p.*, serving_held.slot + 1 AS slot FROM pool p, serving_held, may
    WHERE p.merchant_id = $1 AND p.id = $8 AND {issues}
        AND serving_held.claims < p.claims_per_member
)"""
_CLAIMED_TOO: Final = """, claimed_too AS (
    INSERT INTO claim (merchant_id, code_id, pool_id, member_id, email_index, slot, claimed_at)
    SELECT $1, claimed.code_id, $8, claimed.member_id, claimed.email_index, serving.slot, now() FROM claimed, serving
    RETURNING code_id
)"""

# What stands after a claim that got nothing: the claim of this key, the claimant's latest, the stock, the reward that
# the pool backs, and the pools that it falls back to and that issue codes, nearest first.
_LOOK: Final = """
WITH RECURSIVE who AS ({who}), held AS ({claims}), mine AS (
    SELECT code_id FROM held ORDER BY idempotency_key IS NOT DISTINCT FROM $4 DESC, slot DESC LIMIT 1
), keyed AS (
    SELECT EXISTS (SELECT FROM held WHERE idempotency_key = $4) AS is_same FROM claim
    WHERE merchant_id = $1 AND idempotency_key = $4
), chain AS (
    SELECT fallback_pool_id AS id, 1 AS position FROM pool
    WHERE merchant_id = $1 AND id = $2 AND fallback_pool_id IS NOT NULL
    UNION ALL
    SELECT p.fallback_pool_id, position + 1 FROM chain JOIN pool p ON p.merchant_id = $1 AND p.id = chain.id
    WHERE p.fallback_pool_id IS NOT NULL AND position < {chain_length_max}
)
SELECT {columns}, asked.status AS asked_status, asked.claims_per_member AS asked_claims_per_member,
    asked.is_open AS asked_is_open, EXISTS (SELECT FROM who) AS is_claimant,
    (SELECT is_same FROM keyed) AS key_is_same, (SELECT count(*) FROM held) AS held_claims,
    (SELECT coalesce(sum(available), 0) FROM stock_change WHERE merchant_id = $1 AND pool_id = $2) AS in_stock,
    {reward_id} AS asked_reward_id,
    ARRAY(
        SELECT p.id FROM chain JOIN pool p ON p.merchant_id = $1 AND p.id = chain.id WHERE {issues} ORDER BY position
    ) AS fallbacks
FROM (SELECT p.*, {is_open} AS is_open FROM pool p WHERE p.merchant_id = $1 AND p.id = $2) asked
LEFT JOIN mine ON true
LEFT JOIN code c ON c.merchant_id = $1 AND c.id = mine.code_id
LEFT JOIN pool p ON p.merchant_id = $1 AND p.id = c.pool_id
LEFT JOIN member m ON m.merchant_id = $1 AND m.id = c.member_id
LEFT JOIN wallet w ON w.merchant_id = $1 AND w.member_id = m.id
"""


_ISSUES: Final = f"({IS_OPEN} AND NOT {BACKS_REWARD})"


def _claim_statement(*, by_email: bool, falls_back: bool, is_paid: bool = False) -> str:
    claims = _CLAIMS_BY_EMAIL if by_email else _CLAIMS_BY_MEMBER
    held = "SELECT count(*) AS claims, coalesce(max(slot), 0) AS slot FROM ({}) claims"
    serving = _SERVING.format(held=held.format(claims.format(pool="$8")), issues=_ISSUES)
    return _CLAIM.format(
        who=_WHO_BY_EMAIL if by_email else _WHO_BY_MEMBER,
        issues=IS_OPEN if is_paid else _ISSUES,
        held=held.format(claims.format(pool="$2")),
        serving=serving if falls_back else "",
        pool="$8" if falls_back else "$2",
        may="serving" if falls_back else "may",
        owner=_OWNER_BY_EMAIL if by_email else "",
        owner_name="owner" if by_email else "who",
        claimed_too=_CLAIMED_TOO if falls_back else "",
        claimed_name="claimed_too" if falls_back else "claimed",
        code_email="claimed.email_index" if by_email else "NULL",
        matched_by="CLAIM_EMAIL" if by_email else "MEMBER_ID",
        shown="serving" if falls_back else "asked",
        columns=f"{CODE_COLUMNS}, {POOL_COLUMNS}, {MEMBER_COLUMNS}, {CHANGE_COLUMNS}",
    )


def _look_statement(*, by_email: bool) -> str:
    claims = _CLAIMS_BY_EMAIL if by_email else _CLAIMS_BY_MEMBER
    return _LOOK.format(
        who=_WHO_BY_EMAIL if by_email else _WHO_BY_MEMBER,
        claims=claims.format(pool="$2"),
        is_open=IS_OPEN,
        issues=_ISSUES,
        reward_id=REWARD_OF_POOL.format("$2"),
        chain_length_max=CHAIN_LENGTH_MAX,
        columns=f"{CODE_COLUMNS}, {POOL_COLUMNS}, {MEMBER_COLUMNS}",
    )


#: The usual claim, of a member from the pool it asks: what S1 and S2 measure.
CLAIM: Final = _claim_statement(by_email=False, falls_back=False)
#: By whether it is by e-mail, whether a fallback pool serves it, and whether points pay for it.
_CLAIMS: Final = {
    (by_email, falls_back, is_paid): _claim_statement(by_email=by_email, falls_back=falls_back, is_paid=is_paid)
    for by_email, is_paid in ((False, False), (True, False), (False, True))
    for falls_back in (False, True)
}
_LOOKS: Final = {by_email: _look_statement(by_email=by_email) for by_email in (False, True)}

# Waits for whoever is taking the first code in stock; what it returns is free again.
WAIT: Final = """
SELECT id FROM code WHERE merchant_id = $1 AND pool_id = $2 AND state = 'AVAILABLE' ORDER BY id LIMIT 1 FOR UPDATE
"""

_FIRST: Final = UUID(int=0)
#: Where this process last found a code of a pool, of those that were claimed from lately. A hint only: a search that
#: finds nothing starts over.
_last_found: OrderedDict[UUID, UUID] = OrderedDict()


async def claim(
    where: Statements, viewer: Viewer, pool_id: UUID, claimant: Claimant, key: str | None, *, is_paid: bool = False
) -> Claimed | None:
    """Claim a code for a claimant, in the caller's transaction or in one of its own.

    Usually one round trip, two for a replay, more where a fallback pool serves. Returns None when there is no such
    pool or member. Raises Refused with PoolNotActive, PoolBacksReward (unless the claimant, a member, has paid for it
    with points), PoolExhausted or IdempotencyKeyReused. A code that the claimant has is returned whatever the pool's
    status: asking again issues nothing. Fallback pools that back a reward of their own are passed over.
    """
    claimed = await _claim_from(where, viewer, pool_id, pool_id, claimant, key, is_paid)
    if not isinstance(claimed, _NothingLeft):
        return claimed
    tried = [pool_id]
    for fallback_id in claimed.fallbacks:
        served = await _claim_from(where, viewer, pool_id, fallback_id, claimant, key, is_paid)
        if not isinstance(served, _NothingLeft):
            return served
        tried.append(fallback_id)
    raise Refused(exhausted(tried))


def exhausted(tried: list[UUID], message: str | None = None) -> PoolExhausted:
    """Return the refusal that names the pools that were asked."""
    message = message or (
        "The pool has no code left." if len(tried) == 1 else "Neither the pool nor its fallbacks have a code left."
    )
    return PoolExhausted(message=message, pools_tried=[strawberry.ID(ids.encode("pool", each)) for each in tried])


@dataclass(frozen=True, slots=True)
class _NothingLeft:
    """That a pool has no code left, and to which pools that issue codes it falls back."""

    fallbacks: list[UUID]


async def _claim_from(
    where: Statements, viewer: Viewer, asked: UUID, serving: UUID, claimant: Claimant, key: str | None, is_paid: bool
) -> Claimed | _NothingLeft | None:
    """Claim a code that is asked of one pool, from itself or from one that it falls back to."""
    for _ in range(ATTEMPTS_MAX):
        taken = await _take(where, viewer, asked, serving, claimant, key, is_paid)
        if taken is not None and taken["code_id"] is not None:
            remember(_last_found, serving, taken["code_id"], most=stock_levels.POOLS_KEPT_MAX)
            ring_wallet(where, viewer.merchant_id, taken)
            await stock_levels.watch(where, viewer, serving)
            return Claimed(taken, replayed=False)
        stands = await _look(where, viewer, asked, claimant, key)
        if stands is None or not stands["is_claimant"]:
            return None
        if _is_replay(stands, key):
            return Claimed(stands, replayed=True)
        _refuse_if_closed(stands)
        if not is_paid:
            refuse_if_for_points(stands["asked_reward_id"])
        if serving != asked:
            stands = await _look(where, viewer, serving, claimant, key)
            if stands is None or not stands["asked_is_open"] or stands["asked_reward_id"] is not None:
                return _NothingLeft([])
            if stands["held_claims"] >= stands["asked_claims_per_member"]:
                return Claimed(stands, replayed=True)
        if stands["in_stock"] <= 0:
            return _NothingLeft(stands["fallbacks"])
        if _last_found.pop(serving, None) is None:
            await where.row(WAIT, viewer.merchant_id, serving)
    raise RuntimeError("a claim found neither a code nor a reason against it")


async def _take(
    where: Statements, viewer: Viewer, asked: UUID, serving: UUID, claimant: Claimant, key: str | None, is_paid: bool
) -> Row | None:
    statement = _CLAIMS[claimant.email_index is not None, serving != asked, is_paid]
    after = _last_found.get(serving, _FIRST)
    served = () if serving == asked else (serving,)
    arguments = (viewer.merchant_id, asked, claimant.key, key, viewer.actor, after, ids.new(), *served)
    try:
        if not isinstance(where, Tx):
            return await where.row(statement, *arguments)
        if serving == asked:
            return await where.row(statement, *arguments)
        async with where.nested() as tx:
            return await tx.row(statement, *arguments)
    except asyncpg.UniqueViolationError:
        # The claimant got a code of the fallback pool in another way, at this very moment.
        return None
    except asyncpg.DeadlockDetectedError:
        # `picked` also locks codes that were allocated since the statement began: it finds that out once it has the
        # lock. A campaign or an adoption that refers to one of them, and is what this claim waits for, closes a circle.
        if isinstance(where, Tx):
            raise
        return None


async def _look(where: Statements, viewer: Viewer, pool_id: UUID, claimant: Claimant, key: str | None) -> Row | None:
    return await where.row(_LOOKS[claimant.email_index is not None], viewer.merchant_id, pool_id, claimant.key, key)


def _is_replay(stands: Row, key: str | None) -> bool:
    """Whether the claimant has what it asks for. Raises Refused when the key was used for something else."""
    if stands["key_is_same"] is False:
        raise Refused(IdempotencyKeyReused(message="This idempotencyKey was used for another claim."))
    if stands["held_claims"] == 0:
        return False
    return key is None or stands["key_is_same"] is True or stands["held_claims"] >= stands["asked_claims_per_member"]


def _refuse_if_closed(stands: Row) -> None:
    if not stands["asked_is_open"]:
        raise Refused(not_active(PoolStatus(stands["asked_status"])))


def refuse_if_for_points(reward_id: UUID | None) -> None:
    """Raise Refused(PoolBacksReward) when a pool backs this reward."""
    if reward_id is not None:
        message = "The pool's codes are had for points: redeem its reward."
        raise Refused(PoolBacksReward(message=message, reward_id=strawberry.ID(ids.encode("reward", reward_id))))


def not_active(status: PoolStatus) -> PoolNotActive:
    """Return the refusal of a pool that isn't open."""
    why = "outside its dates" if status is PoolStatus.ACTIVE else status.value
    return PoolNotActive(message=f"The pool issues no codes: it is {why}.", status=status)
