"""claimCode: the claimant gets one available code, and the same one however often it asks."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

import strawberry

from app import ids
from app.context import Role, Viewer
from app.coupons.queries import pool_row
from app.coupons.rules import is_open
from app.coupons.types import CODE_COLUMNS, POOL_COLUMNS, Code, Pool, PoolStatus
from app.database import Row, Statements, database
from app.inputs import Problems, node_id
from app.members.types import MEMBER_COLUMNS
from app.operations import (
    IdempotencyKeyReused,
    Info,
    InvalidInput,
    NotFound,
    Refusal,
    Refused,
    mutation,
    not_found,
)

ATTEMPTS_MAX: Final = 1000


@strawberry.input(description="A member claims for itself. ADMIN and CHECKOUT keys name the member that claims.")
class ClaimCodeInput:
    """From which pool, for whom, and the caller's key for a retry."""

    pool_id: strawberry.ID = strawberry.field(description="The pool.")
    member_id: strawberry.ID | None = strawberry.field(
        default=None, description="The member that claims; a member may leave it out."
    )
    idempotency_key: str | None = strawberry.field(
        default=None,
        description="Where a member can have several codes: each key is a claim of its own, "
        "and the same key again is the same claim. At most 200 characters.",
    )


@strawberry.type(description="The code is the claimant's.")
class ClaimCodeSuccess:
    """The claimed code, with its text."""

    code: Code = strawberry.field(description="The code, with its text.")
    served_by: Pool = strawberry.field(description="The pool it came from.")
    replayed: bool = strawberry.field(description="Whether the claimant had it already.")


@strawberry.type(description="The pool doesn't issue codes now.")
class PoolNotActive(Refusal):
    """Paused, archived, still a draft, or outside its dates."""

    status: PoolStatus = strawberry.field(description="The pool's status; ACTIVE when only its dates are against it.")


@strawberry.type(description="The pool has no available code left.")
class PoolExhausted(Refusal):
    """Nothing left to claim."""

    pools_tried: list[strawberry.ID] = strawberry.field(description="The pools that were asked, in this order.")


ClaimCodeResult = Annotated[
    ClaimCodeSuccess | InvalidInput | NotFound | PoolNotActive | PoolExhausted | IdempotencyKeyReused,
    strawberry.union("ClaimCodeResult", description="The code, or why there is none."),
]

# One statement, one round trip, its own transaction. The order of locks is code, claim, wallet.
#
# `picked` takes the first code in stock that nobody else is taking (SKIP LOCKED), so claimants don't wait for each
# other. It starts after $6, where this process last found one: with an old snapshot open somewhere (a dump, an
# export) PostgreSQL has to step over every index entry of the codes claimed since, on each claim.
# `claimed` is what makes it once: two taps of one member both pick a code, but one of them finds its slot taken,
# inserts nothing, and so allocates nothing.
#
# Rows are named by subqueries, not joined: a plan that was made while the tables were small may join by reading the
# whole index of the merchant, and stays in use until the next ANALYZE (measured: 38 times slower at 60,000 codes).
CLAIM: Final = f"""
WITH asked AS (
    SELECT p.*, m.id AS claimant_id, p.status = 'ACTIVE'
        AND (p.starts_at IS NULL OR p.starts_at <= now()) AND (p.ends_at IS NULL OR now() < p.ends_at) AS is_open
    FROM pool p LEFT JOIN member m ON m.merchant_id = p.merchant_id AND m.id = $3
    WHERE p.merchant_id = $1 AND p.id = $2
), held AS (
    SELECT count(*) AS claims, coalesce(max(slot), 0) AS slot
    FROM claim WHERE merchant_id = $1 AND pool_id = $2 AND member_id = $3
), may AS (
    SELECT asked.*, held.slot + 1 AS slot FROM asked, held
    WHERE is_open AND claimant_id IS NOT NULL
        AND (claims = 0 OR ($4::text IS NOT NULL AND claims < claims_per_member))
        AND NOT EXISTS (SELECT FROM claim WHERE merchant_id = $1 AND idempotency_key = $4)
), picked AS (
    SELECT id FROM code
    WHERE merchant_id = $1 AND pool_id = $2 AND state = 'AVAILABLE' AND id > $6 AND EXISTS (SELECT FROM may)
    ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
), claimed AS (
    INSERT INTO claim (merchant_id, code_id, pool_id, member_id, slot, idempotency_key, claimed_at)
    SELECT $1, picked.id, $2, $3, may.slot, $4, now() FROM picked, may
    ON CONFLICT DO NOTHING RETURNING code_id
), c AS (
    UPDATE code SET state = 'ALLOCATED', member_id = $3, matched_by = 'MEMBER_ID', allocated_at = now(),
        expires_at = now() + make_interval(days => may.code_lifetime_days)
    FROM may WHERE code.merchant_id = $1 AND code.id = (SELECT code_id FROM claimed)
    RETURNING code.*
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT $1, $2, gen_random_uuid(), -1, 1, 0, 0, 0 FROM c
), w AS (
    UPDATE wallet SET version = version + 1 FROM c
    WHERE wallet.merchant_id = $1 AND wallet.member_id = $3 RETURNING version
), recorded AS (
    INSERT INTO event (merchant_id, id, type, subject_id, actor, occurred_at, member_id, wallet_version)
    SELECT $1, $7, 'code.claimed', c.id, $5, now(), $3, w.version FROM c, w
)
SELECT {CODE_COLUMNS}, {POOL_COLUMNS}, {MEMBER_COLUMNS}, p.is_open, p.claimant_id, now() AS asked_at
FROM asked p
LEFT JOIN c ON true
LEFT JOIN member m ON m.merchant_id = $1 AND m.id = c.member_id
LEFT JOIN w ON true
"""

# What stands after a claim that got nothing: the claim of this key, the claimant's latest, and the stock.
LOOK: Final = f"""
WITH mine AS (
    SELECT code_id FROM claim
    WHERE merchant_id = $1 AND pool_id = $2 AND member_id = $3
    ORDER BY idempotency_key IS NOT DISTINCT FROM $4 DESC, slot DESC LIMIT 1
), keyed AS (
    SELECT pool_id = $2 AND member_id = $3 AS is_same FROM claim
    WHERE merchant_id = $1 AND idempotency_key = $4
), held AS (
    SELECT count(*) AS claims FROM claim WHERE merchant_id = $1 AND pool_id = $2 AND member_id = $3
)
SELECT {CODE_COLUMNS}, {POOL_COLUMNS}, {MEMBER_COLUMNS},
    (SELECT is_same FROM keyed) AS key_is_same, held.claims AS held_claims,
    (SELECT coalesce(sum(available), 0) FROM stock_change WHERE merchant_id = $1 AND pool_id = $2) AS in_stock
FROM held
JOIN pool p ON p.merchant_id = $1 AND p.id = $2
LEFT JOIN mine ON true
LEFT JOIN code c ON c.merchant_id = $1 AND c.id = mine.code_id
LEFT JOIN member m ON m.merchant_id = $1 AND m.id = c.member_id
LEFT JOIN wallet w ON w.merchant_id = $1 AND w.member_id = m.id
"""

# Waits for whoever is taking the first code in stock; what it returns is free again.
WAIT: Final = """
SELECT id FROM code WHERE merchant_id = $1 AND pool_id = $2 AND state = 'AVAILABLE' ORDER BY id LIMIT 1 FOR UPDATE
"""

_FIRST: Final = UUID(int=0)
#: Where this process last found a code of a pool. A hint only: a search that finds nothing starts over.
_last_found: dict[UUID, UUID] = {}


@dataclass(frozen=True, slots=True)
class Claimed:
    """The outcome of a claim: a row of everything a Code and its Pool can show."""

    row: Row
    replayed: bool


async def claim(where: Statements, viewer: Viewer, pool_id: UUID, member_id: UUID, key: str | None) -> Claimed | None:
    """Claim a code for a member, in the caller's transaction or in one of its own.

    Usually one round trip, two for a replay. Returns None when there is no such pool or member. Raises Refused with
    PoolNotActive, PoolExhausted or IdempotencyKeyReused. A code that the claimant has is returned whatever the
    pool's status: asking again issues nothing.
    """
    for _ in range(ATTEMPTS_MAX):
        after = _last_found.get(pool_id, _FIRST)
        tried = await where.row(CLAIM, viewer.merchant_id, pool_id, member_id, key, viewer.actor, after, ids.new())
        if tried is None or tried["claimant_id"] is None:
            return None
        if tried["code_id"] is not None:
            _last_found[pool_id] = tried["code_id"]
            return Claimed(tried, replayed=False)
        stands = await where.row(LOOK, viewer.merchant_id, pool_id, member_id, key)
        if stands is None:
            return None
        if _is_replay(stands, key):
            return Claimed(stands, replayed=True)
        _refuse_if_closed(stands, tried["asked_at"])
        if stands["in_stock"] <= 0:
            raise Refused(
                PoolExhausted(
                    message="The pool has no code left.",
                    pools_tried=[strawberry.ID(ids.encode("pool", pool_id))],
                )
            )
        if _last_found.pop(pool_id, None) is None:
            await where.row(WAIT, viewer.merchant_id, pool_id)
    raise RuntimeError("a claim found neither a code nor a reason against it")


def _is_replay(stands: Row, key: str | None) -> bool:
    """Whether the claimant has what it asks for. Raises Refused when the key was used for something else."""
    if stands["key_is_same"] is False:
        raise Refused(IdempotencyKeyReused(message="This idempotencyKey was used for another claim."))
    if stands["held_claims"] == 0:
        return False
    return key is None or stands["key_is_same"] is True or stands["held_claims"] >= stands["pool_claims_per_member"]


def _refuse_if_closed(pool: Row, now: datetime) -> None:
    status = PoolStatus(pool["pool_status"])
    if is_open(status.value, pool["pool_starts_at"], pool["pool_ends_at"], now):
        return
    dates = "outside its dates" if status is PoolStatus.ACTIVE else status.value
    raise Refused(PoolNotActive(message=f"The pool issues no codes: it is {dates}.", status=status))


@mutation(
    description="Claim a code of a pool. The same claimant gets the same code however often it asks. "
    "A member for itself; ADMIN and CHECKOUT for the member they name."
)
async def claim_code(
    info: Info, input: Annotated[ClaimCodeInput, strawberry.argument(description="The claim.")]
) -> ClaimCodeResult:
    """Find out who claims, then claim."""
    viewer = info.context.viewer
    problems = Problems()
    key = problems.idempotency_key(input.idempotency_key)
    if viewer.role is not Role.MEMBER and input.member_id is None:
        problems.add("memberId", "must name the member that claims")
    problems.refuse_if_any()
    pool_id = node_id("pool", "pool", input.pool_id)
    member_id = _claimant(viewer, input.member_id)
    claimed = await claim(database(), viewer, pool_id, member_id, _scoped(viewer, key))
    if claimed is None:
        raise await _missing(viewer, pool_id, input)
    return ClaimCodeSuccess(
        code=Code.of(claimed.row, revealed=True), served_by=Pool.of(claimed.row), replayed=claimed.replayed
    )


def _claimant(viewer: Viewer, named: str | None) -> UUID:
    """Return the member that claims. For a member any other one is missing, as if it didn't exist."""
    if viewer.member_id is None:
        return node_id("member", "member", named or "")
    if named is not None and ids.decode("member", named) != viewer.member_id:
        raise not_found("member", named)
    return viewer.member_id


def _scoped(viewer: Viewer, key: str | None) -> str | None:
    """Return the key as it is stored: a member's keys are its own, those of API keys are the merchant's."""
    if key is None:
        return None
    return f"{viewer.member_id.hex if viewer.member_id else ''}/{key}"


async def _missing(viewer: Viewer, pool_id: UUID, input: ClaimCodeInput) -> Refused:
    if await pool_row(database(), viewer, pool_id) is None:
        return not_found("pool", input.pool_id)
    return not_found("member", input.member_id or viewer.actor)
