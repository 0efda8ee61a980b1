"""What becomes of a merged member's codes and claims: the kept one's, but for those beyond what one member can have."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypedDict
from uuid import UUID

from app import ids
from app.api.context import Viewer
from app.coupons.adopt_codes import SurplusRow, pass_mailboxes, revoke_surplus
from app.coupons.revive_codes import revive_needed
from app.coupons.rows import IS_HELD, IS_OVER, SHOWN_STATE
from app.storage.database import Tx
from app.storage.statements import NoRow, columns, statement
from app.storage.wallet_versions import ChangeRow, raise_wallets, ring_wallet


class ClaimedRow(SurplusRow):
    """A claim of a code that one of both has; a code of a fallback pool is a claim of two pools."""

    # ALLOCATED: it can be spent.
    state: str
    stored_state: str
    is_merged: bool
    # Whether it can be taken back: nobody holds it, and it wasn't paid for with points.
    is_free: bool
    claimed_of: UUID
    slot: int
    mailbox_index: bytes | None
    claimed_at: datetime
    claims_per_member: int


LOCK: Final = statement(
    NoRow,
    """
SELECT FROM code WHERE merchant_id = :merchant_id AND member_id = ANY(ARRAY[:kept_id::uuid, :merged_id::uuid])
ORDER BY id FOR UPDATE
""",
)
# Of the merged member all, of the kept one those of the same pools.
FIND: Final = statement(
    ClaimedRow,
    f"""
WITH merged AS (
    SELECT k.pool_id, k.code_id FROM code c CROSS JOIN LATERAL (
        SELECT pool_id, code_id FROM claim WHERE merchant_id = :merchant_id AND code_id = c.id OFFSET 0
    ) k
    WHERE c.merchant_id = :merchant_id AND c.member_id = :merged_id
), claimed AS (
    SELECT pool_id, code_id FROM merged
    UNION ALL
    SELECT k.pool_id, k.code_id FROM (SELECT DISTINCT pool_id FROM merged) asked CROSS JOIN LATERAL (
        SELECT pool_id, code_id FROM claim
        WHERE merchant_id = :merchant_id AND pool_id = asked.pool_id AND member_id = :kept_id ORDER BY slot
    ) k
)
SELECT c.id AS code_id, c.pool_id, p.kind, p.code_pattern, {IS_OVER} AS is_over, {SHOWN_STATE} AS state,
    c.state AS stored_state, c.member_id = :merged_id AS is_merged, NOT {IS_HELD} AND NOT EXISTS (
        SELECT FROM reward_redemption WHERE merchant_id = :merchant_id AND code_id = c.id
    ) AS is_free, k.pool_id AS claimed_of, k.slot, k.mailbox_index, k.claimed_at, asked.claims_per_member
FROM claimed
CROSS JOIN LATERAL (
    SELECT * FROM claim WHERE merchant_id = :merchant_id AND code_id = claimed.code_id AND pool_id = claimed.pool_id
    OFFSET 0
) k
CROSS JOIN LATERAL (SELECT * FROM code WHERE merchant_id = :merchant_id AND id = k.code_id OFFSET 0) c
CROSS JOIN LATERAL (SELECT * FROM pool WHERE merchant_id = :merchant_id AND id = c.pool_id OFFSET 0) p
CROSS JOIN LATERAL (SELECT * FROM pool WHERE merchant_id = :merchant_id AND id = k.pool_id OFFSET 0) asked
ORDER BY k.claimed_at, c.id, k.pool_id
""",
)
DROP_CLAIMS: Final = statement(
    NoRow, "DELETE FROM claim WHERE merchant_id = :merchant_id AND code_id = ANY(:code_ids::uuid[])"
)
PASS_CLAIMS: Final = statement(
    NoRow,
    """
UPDATE claim SET member_id = :kept_id, slot = t.slot
FROM unnest(:code_ids::uuid[], :pool_ids::uuid[], :slots::int[]) AS t (code_id, pool_id, slot)
WHERE claim.merchant_id = :merchant_id AND claim.code_id = ANY(:code_ids) AND claim.code_id = t.code_id
    AND claim.pool_id = t.pool_id
""",
)


PASS: Final = statement(
    ChangeRow,
    f"""
WITH passed AS (
    UPDATE code SET member_id = :kept_id WHERE merchant_id = :merchant_id AND member_id = :merged_id
    RETURNING id, state, allocated_at
), changed AS (
    SELECT (:event_ids::uuid[])[row_number() OVER (ORDER BY allocated_at, id)] AS event_id, id AS subject_id,
        :kept_id::uuid AS member_id, NULL::bytea AS reason, state
    FROM passed
), {raise_wallets([("code.moved", "state = 'ALLOCATED'"), ("code.moved_after_end", "")])}
SELECT {columns(ChangeRow)} FROM recorded ev ORDER BY ev.wallet_version
""",
)


class _CodesRow(TypedDict):
    codes: int


COUNT: Final = statement(
    _CodesRow,
    "SELECT count(*)::int AS codes FROM code WHERE merchant_id = :merchant_id AND member_id = :merged_id",
)


@dataclass(slots=True)
class _Passing:
    """What becomes of claims: those of the merged member by their new slots, and the codes that are too many."""

    claims: list[tuple[UUID, UUID, int]] = field(default_factory=list)
    surplus: list[ClaimedRow] = field(default_factory=list)
    #: Of surplus codes: mailboxes that their claims had, by the pools that these were of.
    mailboxes: dict[UUID, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PassedCodes:
    """How many codes of the merged member became the kept one's, and how many of both were revoked."""

    codes: int
    revoked: int


async def lock_codes(tx: Tx, merchant_id: UUID, kept_id: UUID, merged_id: UUID) -> None:
    """Lock the codes of both members, by id."""
    # All rows, because a statement that is asked for its first row locks that one alone.
    await tx.rows(LOCK, merchant_id=merchant_id, kept_id=kept_id, merged_id=merged_id)


async def pass_codes(tx: Tx, viewer: Viewer, kept_id: UUID, merged_id: UUID) -> PassedCodes:
    """Make a merged member's codes and claims the kept one's; the codes of both are locked, and so are the wallets.

    Of what both had claimed of a pool beyond its limit, what is free and can be spent is revoked, the latest first, and
    replaced in the pool. What was paid for with points stays.
    """
    pair = {"merchant_id": viewer.merchant_id, "kept_id": kept_id, "merged_id": merged_id}
    rows = await tx.rows(FIND, **pair)
    expired = {row["code_id"] for row in rows if row["stored_state"] == "EXPIRED" and row["state"] == "ALLOCATED"}
    await revive_needed(tx, viewer.merchant_id, expired)
    passing = _decide(rows)
    if passing.surplus:
        dropped = [row["code_id"] for row in passing.surplus]
        await tx.row(DROP_CLAIMS, merchant_id=viewer.merchant_id, code_ids=dropped)
    if passing.claims:
        code_ids, pool_ids, slots = zip(*passing.claims, strict=True)
        await tx.row(
            PASS_CLAIMS,
            merchant_id=viewer.merchant_id,
            kept_id=kept_id,
            code_ids=code_ids,
            pool_ids=pool_ids,
            slots=slots,
        )
    await pass_mailboxes(tx, viewer.merchant_id, kept_id, passing.mailboxes)
    counted = await tx.row(COUNT, merchant_id=viewer.merchant_id, merged_id=merged_id)
    count = 0 if counted is None else counted["codes"]
    if count:
        changes = await tx.rows(PASS, **pair, event_ids=[ids.new() for _ in range(count)], actor=viewer.actor)
        for change in changes:
            ring_wallet(tx, viewer.merchant_id, change)
    await revoke_surplus(tx, viewer, passing.surplus)
    return PassedCodes(codes=count, revoked=len(passing.surplus))


def _decide(rows: Sequence[ClaimedRow]) -> _Passing:
    """Number the claims of the merged member after the kept one's; a live code beyond a limit of its pools is surplus.

    What can't be taken back (spent, ended, held, paid for) counts first, then what is live, first come first.
    """
    passing = _Passing()
    last_slots: Counter[UUID] = Counter()
    by_code: defaultdict[UUID, list[ClaimedRow]] = defaultdict(list)
    for row in sorted(rows, key=_can_go):
        by_code[row["code_id"]].append(row)
        if not row["is_merged"]:
            last_slots[row["claimed_of"]] = max(last_slots[row["claimed_of"]], row["slot"])
    taken: Counter[UUID] = Counter()
    for claims in by_code.values():
        is_full = any(taken[claim["claimed_of"]] >= claim["claims_per_member"] for claim in claims)
        if is_full and _can_go(claims[0]):
            passing.surplus.append(claims[0])
            passing.mailboxes |= {
                claim["claimed_of"]: claim["mailbox_index"] for claim in claims if claim["mailbox_index"] is not None
            }
            continue
        for claim in claims:
            taken[claim["claimed_of"]] += 1
            if claim["is_merged"]:
                last_slots[claim["claimed_of"]] += 1
                passing.claims.append((claim["code_id"], claim["claimed_of"], last_slots[claim["claimed_of"]]))
    return passing


def _can_go(row: ClaimedRow) -> bool:
    return row["state"] == "ALLOCATED" and row["is_free"]
