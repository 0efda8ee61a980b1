"""Claiming: a claimant gets one code of a pool, or of the pools it falls back to, and the same one ever after."""

import math
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final
from uuid import UUID

import asyncpg
import strawberry

from app import ids
from app.api.context import Viewer
from app.api.operations import IdempotencyKeyReused, Refusal, Refused
from app.api.scalars import described
from app.coupons import stock_levels
from app.coupons.overdue import end_overdue
from app.coupons.rows import AVAILABLE_OF, BACKS_REWARD, BUDGET_IS_SPENT, IS_OPEN, REWARD_OF_POOL, WholeCodeRow
from app.coupons.types import PoolStatus
from app.members.member_keys import BY_KEY, NO_KEY, MemberKey
from app.members.remembered import REMEMBERS
from app.members.rows import IS_HERE, RECORDS_OF
from app.segments.definitions import IN_ONE_OF
from app.storage.database import Statements, Tx
from app.storage.events import event
from app.storage.lasting import Lasting
from app.storage.statements import NoRow, columns, statement
from app.storage.wallet_versions import NEXT_DATE, ChangeRow, ring_wallet

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


@strawberry.enum(description="Why somebody can't have an offer.")
class IneligibleReason(Enum):
    """In the order in which they are told."""

    HAS_ALL = described("HAS_ALL", "It has as many codes of the pool as one member can have.")
    NOT_OPEN = described("NOT_OPEN", "The pool issues no codes now: it is paused, or hasn't begun.")
    AUDIENCE = described("AUDIENCE", "The pool is for members of other segments.")
    MAILBOX = described(
        "MAILBOX",
        "The mailbox has had a code: somebody else claimed with another spelling of it, or the claimant did before it "
        "was erased.",
    )
    BUDGET_SPENT = described("BUDGET_SPENT", "What the pool's codes may take off together is spent.")
    EXHAUSTED = described("EXHAUSTED", "No code is left, of the pool or of those it falls back to.")


@strawberry.type(description="The pool isn't for this claimant.")
class NotEligible(Refusal):
    """HAS_ALL where orders hold what it may have, AUDIENCE, MAILBOX or BUDGET_SPENT of the pool that was asked."""

    reason: IneligibleReason = strawberry.field(description="Why not.")


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who claims: a member, by its id or by a key, or whoever has an address, known as a member or not.

    The address goes by its index and that of its mailbox. `told_of` knows again who was named by an address or a key.
    """

    member_id: UUID | None = None
    email_index: bytes | None = None
    mailbox_index: bytes | None = None
    key: MemberKey | None = None
    told_of: bytes | None = None

    def parameters(self) -> dict[str, object]:
        """Return the claimant as WHO takes it."""
        key = self.key or NO_KEY
        return {
            "member_id": self.member_id,
            "email_index": self.email_index,
            "mailbox_index": self.mailbox_index,
        } | key.parameters()


@dataclass(frozen=True, slots=True)
class Claimed:
    """The outcome of a claim: the code, and the change if it is a new one."""

    row: WholeCodeRow
    replayed: bool
    change: ChangeRow | None = None


class ClaimRow(WholeCodeRow, ChangeRow):
    """A code that was just claimed, and the event."""


#: How many codes of the pool {0} holds have set aside for the member {1}: they count for its limit.
HELD_OF_POOL: Final = """
    (SELECT count(*)::int FROM hold h
    JOIN hold_reward y ON y.merchant_id = :merchant_id AND y.hold_id = h.id
    JOIN code c ON c.merchant_id = :merchant_id AND c.id = y.code_id
    WHERE h.merchant_id = :merchant_id AND h.member_id = {1} AND h.status = 'HELD' AND h.held_until > now()
        AND c.pool_id = {0} AND c.state = 'SET_ASIDE' AND c.hold_id = h.id)
"""
#: Whether the pool `p` keeps its codes from the claimant `m`, which has {0}.claims of it: a reward is offered that it
#: backs, or holds have as many for it as it may have. Only a pool that has backed a reward has such.
KEEPS: Final = f"""
    EXISTS (
        SELECT FROM reward a WHERE a.merchant_id = :merchant_id AND a.pool_id = p.id
            AND (a.active OR {{0}}.claims + {HELD_OF_POOL.format("p.id", "m.id")} >= p.claims_per_member)
    )
"""
#: Whether the pool `p` issues codes to the claimant `m`, which has {0}.claims of it, unless that has paid with points.
_ISSUES: Final = f"({IS_OPEN} AND (:is_paid OR NOT {KEEPS}))"
#: Whether the pool `p` is for the claimant `m`.
IS_FOR: Final = f"(p.audience = '{{}}' OR {IN_ONE_OF.format('p.audience')})"
#: Whether the member whose claim {0} took a mailbox has left that: its address changed, or isn't proven any more.
_HAS_LEFT: Final = f"""
    ({{0}}.member_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM member x WHERE x.merchant_id = :merchant_id AND x.id = ANY({RECORDS_OF.format("{0}.member_id")})
            AND x.email_verified AND x.mailbox_index = {{0}}.mailbox_index
    ))
"""
#: Whether somebody who was erased has claimed of the pool `p` with the mailbox of the claimant `m`.
IS_REMEMBERED: Final = REMEMBERS.format("m.mailbox_index", "p.id = ANY(r.pool_ids)")
#: Whether another person, who is still of it, or was erased, has claimed of the pool `p` with the mailbox of the member
#: `m`. In an order that one index alone has.
MAILBOX_IS_TAKEN: Final = f"""
    (p.one_claim_per_mailbox AND ({IS_REMEMBERED} OR EXISTS (
        SELECT FROM (
            SELECT member_id, mailbox_index FROM claim
            WHERE merchant_id = :merchant_id AND pool_id = p.id AND mailbox_index = ANY(ARRAY[m.mailbox_index])
            ORDER BY mailbox_index LIMIT 1
        ) first
        WHERE first.member_id IS DISTINCT FROM m.id AND NOT {_HAS_LEFT.format("first")}
    )))
"""
#: Lets those mailboxes {0} of the pool go whose claimants have left them: the next person of one can claim.
FREES_MAILBOXES: Final = f"""
    UPDATE claim SET mailbox_index = NULL
    WHERE merchant_id = :merchant_id AND pool_id = :pool_id AND mailbox_index = ANY({{0}})
        AND {_HAS_LEFT.format("claim")}
"""
#: The member `:member_id` as a claimant. A mailbox counts once the member has proved its address.
CLAIMANT: Final = """
    SELECT id, joined_at, last_bought_at, CASE WHEN email_verified THEN mailbox_index END AS mailbox_index FROM member
    WHERE merchant_id = :merchant_id AND id = :member_id
"""
_COUNTED: Final = """
    count(*) AS claims, coalesce(max(slot), 0) AS slot,
    coalesce(array_agg(mailbox_index) FILTER (WHERE mailbox_index IS NOT NULL), ARRAY[]::bytea[]) AS mailboxes
"""
#: The mailbox that a claim of the pool `p` by `m` takes, unless one of those that it has ({0}) did.
_MAILBOX: Final = """
    CASE WHEN p.one_claim_per_mailbox AND m.mailbox_index <> ALL({0}.mailboxes) THEN m.mailbox_index END
"""
# Whether the claimant `m`, whose claims ({0}) of the pool `p` didn't take its mailbox, had one before it was erased.
_HAD_ONE: Final = f"""
    (p.one_claim_per_mailbox AND m.mailbox_index <> ALL({{0}}.mailboxes) AND {IS_REMEMBERED})
"""
_CLAIMED: Final = f"{columns(WholeCodeRow)}, {columns(ChangeRow)}"

#: The usual claim, of a member from the pool it asks: what S1 and S2 measure. One statement, one round trip, its own
#: transaction; no row when nothing was claimed. The order of locks is code, claim, wallet.
#:
#: Rows are named by subqueries, not joined: a plan that was made while the tables were small may join by reading the
#: merchant's whole index, and stays in use until the next ANALYZE (measured: 38 times slower at 60,000 codes).
CLAIM: Final = statement(
    ClaimRow,
    f"""
WITH who AS ({CLAIMANT}), held AS (
    -- What the claimant has of the pool. In the order of the index to read: to a planner that saw the table empty, the
    -- index of the pool's claims is as good as that of the claimant's (132 buffers instead of 3 after 6,000 claims).
    SELECT {_COUNTED} FROM (
        SELECT slot, mailbox_index FROM claim
        WHERE merchant_id = :merchant_id AND pool_id = :pool_id AND member_id = :member_id ORDER BY slot
    ) own
), may AS (
    -- The pool, if it issues codes, is for the claimant, and this is its first claim, or a new key within its limit.
    -- Locked as claims lock it anyway: pausing waits for those that found it open. The first claim of a person in a
    -- mailbox is the mailbox's.
    SELECT p.*, held.slot + 1 AS slot, {_MAILBOX.format("held")} AS mailbox_index FROM pool p, who m, held
    WHERE p.merchant_id = :merchant_id AND p.id = :pool_id AND {_ISSUES.format("held")} AND {IS_FOR}
        AND NOT {BUDGET_IS_SPENT} AND NOT {_HAD_ONE.format("held")}
        AND (claims = 0 OR (:key::bytea IS NOT NULL AND claims < p.claims_per_member))
        AND NOT EXISTS (SELECT FROM claim WHERE merchant_id = :merchant_id AND idempotency_key = :key)
    FOR KEY SHARE OF p
), picked AS (
    -- The first code in stock that nobody else is taking, so that claimants don't wait for each other. The search
    -- starts where this process last found one: under an old snapshot (a dump, an export) PostgreSQL steps over every
    -- index entry of the codes claimed since.
    SELECT id FROM code
    WHERE merchant_id = :merchant_id AND pool_id = :pool_id AND state = 'AVAILABLE' AND id > :after
        AND (expires_at IS NULL OR expires_at > now()) AND EXISTS (SELECT FROM may)
    ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
), claimed AS (
    -- What makes it once: of two taps of one claimant both pick a code, and one finds its slot taken. Of two people
    -- with one mailbox one finds that taken.
    INSERT INTO claim (merchant_id, code_id, pool_id, member_id, slot, idempotency_key, mailbox_index, claimed_at)
    SELECT :merchant_id, picked.id, :pool_id, who.id, may.slot, :key, may.mailbox_index, now()
    FROM picked, may, who
    ON CONFLICT DO NOTHING RETURNING code_id, member_id
), w AS (
    -- The wallet's next version, whose date is the allocation's.
    UPDATE wallet SET version = version + 1, changed_at = {NEXT_DATE}
    WHERE wallet.merchant_id = :merchant_id AND wallet.member_id = (SELECT member_id FROM claimed)
    RETURNING *
), c AS (
    -- The code becomes the claimant's.
    UPDATE code SET state = 'ALLOCATED', member_id = claimed.member_id, matched_by = 'MEMBER_ID',
        allocated_at = w.changed_at,
        expires_at = least(code.expires_at, w.changed_at + make_interval(days => may.code_lifetime_days))
    FROM may, claimed, w WHERE code.merchant_id = :merchant_id AND code.id = (SELECT code_id FROM claimed)
    RETURNING code.*
), stocked AS (
    -- One row per change: a counter row would make claimants wait for each other.
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT :merchant_id, :pool_id, gen_random_uuid(), -1, 1, 0, 0, 0 FROM c
), ev AS (
    -- The record of it.
    {
        event(
            "code.claimed",
            subject="c.id",
            source="c, w",
            member_id="c.member_id",
            wallet="w",
        )
    }
    RETURNING *
)
SELECT {_CLAIMED}
FROM c CROSS JOIN may p CROSS JOIN w CROSS JOIN ev
JOIN member m ON m.merchant_id = :merchant_id AND m.id = c.member_id
""",
)

# Who claims by `:member_id`, by a key or by `:email_index`, all but one of them null, and what that claimant has of the
# pool {0}. With an id no key is looked for. Whoever has proved the address is the claimant; nobody else has anything to
# do with what a member claimed. Who is no member has no id, and the mailbox of its address.
_WHO: Final = f"""
    SELECT claimant.id, joined_at, last_bought_at,
        CASE WHEN claimant.id IS NULL THEN :mailbox_index WHEN email_verified THEN mailbox_index END AS mailbox_index
    FROM (
        SELECT id FROM member WHERE merchant_id = :merchant_id AND id = coalesce(:member_id, ({BY_KEY}))
        UNION ALL
        SELECT (SELECT member_id FROM address WHERE merchant_id = :merchant_id AND email_index = :email_index)
        WHERE :email_index::bytea IS NOT NULL
    ) claimant
    LEFT JOIN LATERAL (
        SELECT joined_at, last_bought_at, email_verified, mailbox_index, {IS_HERE} AS is_here FROM member
        WHERE merchant_id = :merchant_id AND id = claimant.id OFFSET 0
    ) known ON true
    WHERE claimant.id IS NULL OR known.is_here
"""
_OWN_CLAIMS: Final = """
    (SELECT * FROM claim
     WHERE merchant_id = :merchant_id AND pool_id = {0} AND member_id = (SELECT id FROM who) ORDER BY slot)
    UNION ALL
    (SELECT * FROM claim
     WHERE merchant_id = :merchant_id AND pool_id = {0} AND email_index = :email_index
        AND (SELECT id FROM who) IS NULL ORDER BY slot)
"""
_HELD: Final = f"""
    SELECT {_COUNTED} FROM ({_OWN_CLAIMS}) own
"""

#: Every other claim: by a member's key, by e-mail, or of a code of `:serving_id`, a pool that the asked one falls back
#: to. As the usual one but for what its comments say; the address is locked after the code.
CLAIM_OTHERWISE: Final = statement(
    ClaimRow,
    f"""
WITH who AS ({_WHO}), held AS ({_HELD.format(":pool_id")}), may AS (
    SELECT held.slot + 1 AS slot, {_MAILBOX.format("held")} AS mailbox_index FROM pool p, who m, held
    WHERE p.merchant_id = :merchant_id AND p.id = :pool_id AND {_ISSUES.format("held")} AND {IS_FOR}
        AND NOT {_HAD_ONE.format("held")}
        AND (claims = 0 OR (:key::bytea IS NOT NULL AND claims < p.claims_per_member))
        AND NOT EXISTS (SELECT FROM claim WHERE merchant_id = :merchant_id AND idempotency_key = :key)
    FOR KEY SHARE OF p
), serving_held AS ({_HELD.format(":serving_id")}), serving AS (
    -- The pool that serves: the asked one, or a fallback that is for the claimant, who may have another code of it.
    SELECT p.*, serving_held.slot + 1 AS slot, {_MAILBOX.format("serving_held")} AS mailbox_index,
        p.id <> :pool_id AS is_fallback
    FROM pool p, who m, serving_held
    WHERE p.merchant_id = :merchant_id AND p.id = :serving_id AND EXISTS (SELECT FROM may) AND NOT {BUDGET_IS_SPENT}
        AND (p.id = :pool_id OR (
            {_ISSUES.format("serving_held")} AND {IS_FOR} AND serving_held.claims < p.claims_per_member
            AND NOT {_HAD_ONE.format("serving_held")}
        ))
    FOR KEY SHARE OF p
), picked AS (
    SELECT id FROM code
    WHERE merchant_id = :merchant_id AND pool_id = :serving_id AND state = 'AVAILABLE' AND id > :after
        AND (expires_at IS NULL OR expires_at > now()) AND EXISTS (SELECT FROM serving)
    ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
), addressed AS (
    -- A claim by e-mail and a proof of that address meet on the address's row: whoever comes second waits.
    INSERT INTO address (merchant_id, email_index) SELECT :merchant_id, :email_index FROM picked
    WHERE :email_index::bytea IS NOT NULL
    ON CONFLICT (merchant_id, email_index) DO UPDATE SET email_index = excluded.email_index
    RETURNING member_id
), owner AS (
    -- If the address has become a member's since this statement began, or nobody's, nothing is claimed, and it is asked
    -- again. A claim is the member's or the address's, never both.
    SELECT who.id AS member_id, CASE WHEN who.id IS NULL THEN :email_index::bytea END AS email_index FROM who
    WHERE :email_index::bytea IS NULL
        OR EXISTS (SELECT FROM addressed WHERE addressed.member_id IS NOT DISTINCT FROM who.id)
), claimed AS (
    INSERT INTO claim (merchant_id, code_id, pool_id, member_id, email_index, slot, idempotency_key, told_of,
                       mailbox_index, claimed_at)
    SELECT :merchant_id, picked.id, :pool_id, owner.member_id, owner.email_index, may.slot, :key, :told_of,
        may.mailbox_index, now()
    FROM picked, may, owner
    ON CONFLICT DO NOTHING RETURNING code_id, member_id, email_index
), claimed_too AS (
    -- A fallback's code is a claim of both pools. Without ON CONFLICT: when the claimant, or another person with its
    -- mailbox, gets a code of the fallback in another way at this moment, both rows go.
    INSERT INTO claim (merchant_id, code_id, pool_id, member_id, email_index, slot, mailbox_index, claimed_at)
    SELECT :merchant_id, claimed.code_id, :serving_id, claimed.member_id, claimed.email_index, serving.slot,
        serving.mailbox_index, now()
    FROM claimed, serving WHERE serving.is_fallback
    RETURNING code_id
), won AS (
    SELECT claimed.*, serving.code_lifetime_days FROM serving, claimed
    WHERE NOT serving.is_fallback OR EXISTS (SELECT FROM claimed_too)
), w AS (
    UPDATE wallet SET version = version + 1, changed_at = {NEXT_DATE}
    WHERE wallet.merchant_id = :merchant_id AND wallet.member_id = (SELECT member_id FROM won)
    RETURNING *
), c AS (
    -- A code that waits for its address is in nobody's wallet.
    UPDATE code SET state = 'ALLOCATED', member_id = won.member_id, email_index = won.email_index,
        matched_by = CASE WHEN :email_index::bytea IS NULL THEN 'MEMBER_ID' ELSE 'CLAIM_EMAIL' END,
        allocated_at = won.at,
        expires_at = least(code.expires_at, won.at + make_interval(days => won.code_lifetime_days))
    FROM (SELECT won.*, coalesce((SELECT changed_at FROM w), now()) AS at FROM won) won
    WHERE code.merchant_id = :merchant_id AND code.id = (SELECT code_id FROM won)
    RETURNING code.*
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT :merchant_id, :serving_id, gen_random_uuid(), -1, 1, 0, 0, 0 FROM c
), ev AS (
    {
        event(
            "code.claimed",
            subject="c.id",
            source="c LEFT JOIN w ON true",
            member_id="c.member_id",
            wallet="w",
        )
    }
    RETURNING *
)
SELECT {_CLAIMED}
FROM c CROSS JOIN serving p CROSS JOIN ev LEFT JOIN w ON true
LEFT JOIN member m ON m.merchant_id = :merchant_id AND m.id = c.member_id
""",
)


class StandingRow(WholeCodeRow):
    """What stands after a claim that got nothing; the code's fields are null where the claimant has none."""

    asked_status: str
    asked_claims_per_member: int
    asked_is_open: bool
    asked_reward_id: UUID | None
    asked_is_for: bool
    # Whether another person has the claimant's mailbox there, and whether that one is still of the mailbox.
    asked_mailbox_is_taken: bool
    asked_mailbox_was_left: bool
    # Whether the claimant had a code there before it was erased.
    asked_mailbox_is_remembered: bool
    asked_budget_is_spent: bool
    claimant_mailbox: bytes | None
    is_claimant: bool
    key_is_same: bool | None
    held_claims: int
    set_aside: int
    in_stock: int
    # Whether the merchant has holds of rewards whose time has passed, which may have codes aside.
    are_holds_late: bool
    fallbacks: list[UUID]


# The claim of this key, the claimant's latest, the stock, the reward that the pool backs, and the pools that it falls
# back to and that issue codes, nearest first.
LOOK: Final = statement(
    StandingRow,
    f"""
WITH RECURSIVE who AS ({_WHO}), held AS ({_OWN_CLAIMS.format(":pool_id")}), mine AS (
    SELECT code_id FROM held ORDER BY idempotency_key IS NOT DISTINCT FROM :key DESC, slot DESC LIMIT 1
), keyed AS (
    SELECT EXISTS (SELECT FROM held WHERE idempotency_key = :key) AS is_same FROM claim
    WHERE merchant_id = :merchant_id AND idempotency_key = :key
), other AS (
    -- Who else has the claimant's mailbox, unless it has left that. In an order that one index alone has.
    SELECT {_HAS_LEFT.format("first")} AS was_left
    FROM who CROSS JOIN (
        SELECT member_id, email_index, mailbox_index FROM claim
        WHERE merchant_id = :merchant_id AND pool_id = :pool_id
            AND mailbox_index = ANY(ARRAY[(SELECT mailbox_index FROM who)])
        ORDER BY mailbox_index LIMIT 1
    ) first
    WHERE (first.member_id, first.email_index)
        IS DISTINCT FROM (who.id, CASE WHEN who.id IS NULL THEN :email_index::bytea END)
), chain AS (
    SELECT fallback_pool_id AS id, 1 AS position FROM pool
    WHERE merchant_id = :merchant_id AND id = :pool_id AND fallback_pool_id IS NOT NULL
    UNION ALL
    SELECT p.fallback_pool_id, position + 1 FROM chain JOIN pool p ON p.merchant_id = :merchant_id AND p.id = chain.id
    WHERE p.fallback_pool_id IS NOT NULL AND position < {CHAIN_LENGTH_MAX}
)
SELECT {columns(WholeCodeRow)}, asked.status AS asked_status, asked.claims_per_member AS asked_claims_per_member,
    asked.is_open AS asked_is_open, EXISTS (SELECT FROM who) AS is_claimant,
    (SELECT is_same FROM keyed) AS key_is_same, (SELECT count(*) FROM held) AS held_claims,
    {HELD_OF_POOL.format(":pool_id", "(SELECT id FROM who)")} AS set_aside,
    {AVAILABLE_OF.format(":pool_id")} AS in_stock,
    EXISTS (
        -- In the order of the index to read: to a planner that saw the table empty, any is as good.
        SELECT FROM (
            SELECT held_points FROM hold
            WHERE merchant_id = :merchant_id AND status = 'HELD' AND held_until <= now() ORDER BY held_until
        ) late WHERE held_points > 0
    ) AS are_holds_late,
    {REWARD_OF_POOL.format(":pool_id")} AS asked_reward_id,
    coalesce((SELECT {IS_FOR.replace("p.audience", "asked.audience")} FROM who m), false) AS asked_is_for,
    asked.one_claim_per_mailbox AND EXISTS (SELECT FROM other) AS asked_mailbox_is_taken,
    EXISTS (SELECT FROM other WHERE was_left) AS asked_mailbox_was_left,
    asked.one_claim_per_mailbox AND EXISTS (
        SELECT FROM who m WHERE m.mailbox_index NOT IN (SELECT mailbox_index FROM held WHERE mailbox_index IS NOT NULL)
            AND {REMEMBERS.format("m.mailbox_index", ":pool_id = ANY(r.pool_ids)")}
    ) AS asked_mailbox_is_remembered, asked.budget_is_spent AS asked_budget_is_spent,
    (SELECT mailbox_index FROM who) AS claimant_mailbox,
    ARRAY(
        SELECT p.id FROM chain JOIN pool p ON p.merchant_id = :merchant_id AND p.id = chain.id
        WHERE {IS_OPEN} AND NOT {BACKS_REWARD} ORDER BY position
    ) AS fallbacks
FROM (
    SELECT p.*, {IS_OPEN} AS is_open, {BUDGET_IS_SPENT} AS budget_is_spent FROM pool p
    WHERE p.merchant_id = :merchant_id AND p.id = :pool_id
) asked
LEFT JOIN mine ON true
LEFT JOIN code c ON c.merchant_id = :merchant_id AND c.id = mine.code_id
LEFT JOIN pool p ON p.merchant_id = :merchant_id AND p.id = c.pool_id
LEFT JOIN member m ON m.merchant_id = :merchant_id AND m.id = c.member_id
LEFT JOIN wallet w ON w.merchant_id = :merchant_id AND w.member_id = m.id
""",
)

FREE_MAILBOXES: Final = statement(NoRow, FREES_MAILBOXES.format(":mailbox_indexes::bytea[]"))

# Waits for whoever is taking the first code in stock; what it returns is free again.
WAIT: Final = statement(
    NoRow,
    """
SELECT FROM code WHERE merchant_id = :merchant_id AND pool_id = :pool_id AND state = 'AVAILABLE'
    AND (expires_at IS NULL OR expires_at > now())
ORDER BY id LIMIT 1 FOR UPDATE
""",
)

_FIRST: Final = UUID(int=0)
#: Where this process last found a code of a pool, of those that were claimed from lately. A hint only: a search that
#: finds nothing starts over.
_last_found: Lasting[UUID, UUID] = Lasting(stock_levels.POOLS_KEPT_MAX)


async def claim(
    where: Statements, viewer: Viewer, pool_id: UUID, claimant: Claimant, key: bytes | None, *, is_paid: bool = False
) -> Claimed | None:
    """Claim a code for a claimant, in the caller's transaction or in one of its own.

    Usually one round trip, two for a replay, more where a fallback pool serves. Returns None when there is no such
    pool or member. Raises Refused with PoolNotActive, PoolBacksReward (unless the claimant, a member, has paid for it
    with points), NotEligible, PoolExhausted or IdempotencyKeyReused. A code that the claimant has is returned whatever
    the pool's status: asking again issues nothing. Fallback pools that back a reward of their own, or aren't for the
    claimant, are passed over. Outside a transaction holds whose time has passed end for their codes, if none is left.
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
    if claimed.are_holds_late and not isinstance(where, Tx) and await end_overdue(viewer.merchant_id, pool_ids=tried):
        return await claim(where, viewer, pool_id, claimant, key, is_paid=is_paid)
    raise Refused(budget_spent() if claimed.is_budget_spent else exhausted(tried))


def budget_spent() -> NotEligible:
    """Return the refusal of a pool whose budget doesn't suffice for another code."""
    message = "What the pool's codes may take off together is spent."
    return NotEligible(message=message, reason=IneligibleReason.BUDGET_SPENT)


def exhausted(tried: list[UUID], message: str | None = None) -> PoolExhausted:
    """Return the refusal that names the pools that were asked."""
    message = message or (
        "The pool has no code left." if len(tried) == 1 else "Neither the pool nor its fallbacks have a code left."
    )
    return PoolExhausted(message=message, pools_tried=[strawberry.ID(ids.encode("pool", each)) for each in tried])


@dataclass(frozen=True, slots=True)
class _NothingLeft:
    """That a pool has no code or no budget left, and to which pools that issue codes it falls back."""

    fallbacks: list[UUID]
    is_budget_spent: bool = False
    are_holds_late: bool = False


async def _claim_from(
    where: Statements, viewer: Viewer, asked: UUID, serving: UUID, claimant: Claimant, key: bytes | None, is_paid: bool
) -> Claimed | _NothingLeft | None:
    """Claim a code that is asked of one pool, from itself or from one that it falls back to."""
    misses = 0
    for _ in range(ATTEMPTS_MAX):
        taken = await _taking(where, viewer, asked, serving, claimant, key, is_paid)
        if taken is not None:
            _last_found.keep(serving, taken["code_id"], math.inf)
            ring_wallet(where, viewer.merchant_id, taken)
            if stock_levels.is_due(serving):
                await stock_levels.check(where, viewer.merchant_id, serving, viewer.actor)
            return Claimed(taken, replayed=False, change=taken)
        stands = await _look(where, viewer, asked, claimant, key)
        if stands is None or not stands["is_claimant"]:
            return None
        if claimant.member_id is not None:
            viewer.found(claimant.member_id)
        if _is_replay(stands, key):
            return Claimed(stands, replayed=True)
        _refuse(stands, is_paid=is_paid)
        if serving != asked:
            stands = await _look(where, viewer, serving, claimant, key)
            if stands is None or not _serves(stands):
                return _NothingLeft([])
            if stands["held_claims"] >= stands["asked_claims_per_member"]:
                return Claimed(stands, replayed=True)
        if stands["asked_mailbox_was_left"]:
            left = [stands["claimant_mailbox"]]
            await where.row(FREE_MAILBOXES, merchant_id=viewer.merchant_id, pool_id=serving, mailbox_indexes=left)
            continue
        is_spent = stands["asked_budget_is_spent"]
        misses += stands["in_stock"] > 0 and not await _is_left(where, viewer, serving)
        # Whoever was waited for may have put fresh codes in the place of all, which only the next statement sees.
        if is_spent or stands["in_stock"] <= 0 or misses > 1:
            return _NothingLeft(stands["fallbacks"], is_spent, stands["are_holds_late"])
    raise RuntimeError("a claim found neither a code nor a reason against it")


async def _is_left(where: Statements, viewer: Viewer, serving: UUID) -> bool:
    """Whether another look may find a code. What the stock counts may be past ends of its own, or taken meanwhile."""
    if serving in _last_found:
        _last_found.drop(serving)
        return True
    return await where.row(WAIT, merchant_id=viewer.merchant_id, pool_id=serving) is not None


def _taking(
    where: Statements, viewer: Viewer, asked: UUID, serving: UUID, claimant: Claimant, key: bytes | None, is_paid: bool
) -> Awaitable[ClaimRow | None]:
    """Return what takes a code, to be awaited.

    It may meet a deadlock, with which the verb begins anew: `picked` also locks codes that were allocated since the
    statement began, and finds that out once it has the lock. A campaign or an adoption that refers to one of them, and
    is what this claim waits for, closes a circle.
    """
    arguments: dict[str, object] = {
        "merchant_id": viewer.merchant_id,
        "pool_id": asked,
        "member_id": claimant.member_id,
        "key": key,
        "is_paid": is_paid,
        "after": _last_found.get(serving) or _FIRST,
        "event_id": ids.new(),
        "actor": viewer.actor,
        "memory_pads": viewer.tenant.keys.memory_pads,
    }
    if serving == asked and claimant.member_id is not None:
        return where.row(CLAIM, **arguments)
    arguments |= claimant.parameters() | {"serving_id": serving, "told_of": claimant.told_of}
    return _take_otherwise(where, arguments, is_from_fallback=serving != asked)


async def _take_otherwise(
    where: Statements, arguments: Mapping[str, object], *, is_from_fallback: bool
) -> ClaimRow | None:
    try:
        if not is_from_fallback or not isinstance(where, Tx):
            return await where.row(CLAIM_OTHERWISE, **arguments)
        async with where.nested() as tx:
            return await tx.row(CLAIM_OTHERWISE, **arguments)
    except asyncpg.UniqueViolationError:
        # The claimant got a code of the fallback pool in another way, at this very moment.
        return None


async def _look(
    where: Statements, viewer: Viewer, pool_id: UUID, claimant: Claimant, key: bytes | None
) -> StandingRow | None:
    return await where.row(
        LOOK,
        merchant_id=viewer.merchant_id,
        pool_id=pool_id,
        key=key,
        memory_pads=viewer.tenant.keys.memory_pads,
        **claimant.parameters(),
    )


def _is_replay(stands: StandingRow, key: bytes | None) -> bool:
    """Whether the claimant has what it asks for. Raises Refused when the key was used for something else."""
    if stands["key_is_same"] is False:
        raise Refused(IdempotencyKeyReused(message="This idempotencyKey was used for another claim."))
    if stands["held_claims"] == 0:
        return False
    return key is None or stands["key_is_same"] is True or stands["held_claims"] >= stands["asked_claims_per_member"]


def _refuse(stands: StandingRow, *, is_paid: bool) -> None:
    """Raise Refused if the pool that was asked has nothing for the claimant."""
    if not stands["asked_is_open"]:
        raise Refused(not_active(PoolStatus(stands["asked_status"])))
    if not is_paid:
        refuse_if_for_points(stands["asked_reward_id"])
    ineligible = _ineligible(stands)
    if ineligible is not None:
        raise Refused(ineligible)


def _ineligible(stands: StandingRow) -> NotEligible | None:
    """Return why the pool isn't for the claimant, or None."""
    claims, limit = stands["held_claims"], stands["asked_claims_per_member"]
    if claims < limit <= claims + stands["set_aside"]:
        message = "Orders that aren't paid yet hold as many of its codes as one member can have."
        return NotEligible(message=message, reason=IneligibleReason.HAS_ALL)
    if not stands["asked_is_for"]:
        return NotEligible(message="The pool is for members of other segments.", reason=IneligibleReason.AUDIENCE)
    if stands["asked_mailbox_is_taken"] and not stands["asked_mailbox_was_left"]:
        message = "Somebody else has claimed with another spelling of the same mailbox."
        return NotEligible(message=message, reason=IneligibleReason.MAILBOX)
    if stands["asked_mailbox_is_remembered"]:
        message = "The mailbox has had a code of the pool, before its person was erased."
        return NotEligible(message=message, reason=IneligibleReason.MAILBOX)
    return None


def _serves(stands: StandingRow) -> bool:
    """Whether a fallback is for the claimant, who hasn't paid for it."""
    return stands["asked_is_open"] and stands["asked_reward_id"] is None and _ineligible(stands) is None


def refuse_if_for_points(reward_id: UUID | None) -> None:
    """Raise Refused(PoolBacksReward) when a pool backs this reward."""
    if reward_id is not None:
        message = "The pool's codes are had for points: redeem its reward."
        raise Refused(PoolBacksReward(message=message, reward_id=strawberry.ID(ids.encode("reward", reward_id))))


def not_active(status: PoolStatus) -> PoolNotActive:
    """Return the refusal of a pool that isn't open."""
    why = "outside its dates" if status is PoolStatus.ACTIVE else status.value
    return PoolNotActive(message=f"The pool issues no codes: it is {why}.", status=status)
