"""Adoption: the codes that wait for an address become those of the member that has proved it."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypedDict
from uuid import UUID

from app import ids
from app.api.context import Viewer
from app.coupons.recycle import recycle_each
from app.coupons.revive_codes import revive_needed
from app.coupons.rows import IS_HELD, IS_OVER
from app.storage.database import Tx
from app.storage.statements import NoRow, columns, statement
from app.storage.wallet_versions import ChangeRow, raise_wallets, ring_wallet


class SurplusRow(TypedDict):
    """A code that may be beyond a limit, and the pool that served it."""

    code_id: UUID
    pool_id: UUID
    kind: str
    code_pattern: str | None
    is_over: bool


class WaitingRow(SurplusRow):
    """A claim of a code that waits for an address; a code of a fallback pool is a claim of two pools."""

    state: str
    is_held: bool
    # The pool that it is a claim of, that pool's limit, and what the member has of it.
    claimed_of: UUID
    idempotency_key: bytes | None
    told_of: bytes | None
    mailbox_index: bytes | None
    claimed_at: datetime
    claims_per_member: int
    claims: int
    slot: int


@dataclass(slots=True)
class _Adoption:
    """What becomes of the waiting codes: the claims of those that are kept, and the codes that are too many."""

    #: With the slot that each has from now on.
    claims: list[tuple[WaitingRow, int]] = field(default_factory=list)
    surplus: list[WaitingRow] = field(default_factory=list)
    #: Of surplus codes: mailboxes that their claims had, by the pools that these were of.
    mailboxes: dict[UUID, bytes] = field(default_factory=dict)


FIND_WAITING: Final = statement(
    WaitingRow,
    f"""
WITH waiting AS (
    -- Locked until they are the member's.
    SELECT id, state, pool_id, {IS_HELD} AS is_held FROM code c
    WHERE merchant_id = :merchant_id AND email_index = :email_index ORDER BY id FOR UPDATE
)
SELECT waiting.id AS code_id, waiting.state, waiting.is_held, waiting.pool_id, p.kind, p.code_pattern,
    {IS_OVER} AS is_over, held.pool_id AS claimed_of, held.idempotency_key, held.told_of, held.mailbox_index,
    held.claimed_at, asked.claims_per_member, own.claims, own.slot
FROM waiting
CROSS JOIN LATERAL (SELECT * FROM pool WHERE merchant_id = :merchant_id AND id = waiting.pool_id OFFSET 0) p
CROSS JOIN LATERAL (
    SELECT * FROM claim
    WHERE merchant_id = :merchant_id AND code_id = waiting.id AND email_index = :email_index OFFSET 0
) held
CROSS JOIN LATERAL (SELECT * FROM pool WHERE merchant_id = :merchant_id AND id = held.pool_id OFFSET 0) asked
CROSS JOIN LATERAL (
    SELECT count(*) AS claims, coalesce(max(slot), 0) AS slot FROM (
        SELECT slot FROM claim
        WHERE merchant_id = :merchant_id AND pool_id = held.pool_id AND member_id = :member_id ORDER BY slot
    ) claims
) own
ORDER BY held.claimed_at, waiting.id
""",
)
# The address's claims are the member's from now on, numbered after its own: two statements, because a row can't be
# deleted and written in one.
DROP_CLAIMS: Final = statement(
    NoRow,
    """
DELETE FROM claim
WHERE merchant_id = :merchant_id AND email_index = :email_index AND code_id = ANY(:code_ids::uuid[])
""",
)
WRITE_CLAIMS: Final = statement(
    NoRow,
    """
INSERT INTO claim (merchant_id, code_id, pool_id, member_id, slot, idempotency_key, told_of, mailbox_index, claimed_at)
SELECT :merchant_id, code_id, pool_id, :member_id, slot, idempotency_key, told_of, mailbox_index, claimed_at
FROM unnest(
    :code_ids::uuid[], :pool_ids::uuid[], :slots::int[], :keys::bytea[], :told_of::bytea[], :mailbox_indexes::bytea[],
    :claimed_at::timestamptz[]
) AS t (code_id, pool_id, slot, idempotency_key, told_of, mailbox_index, claimed_at)
""",
)
# The mailbox of a claim that is dropped stays the member's, who has another one of the pool.
PASS_MAILBOXES: Final = statement(
    NoRow,
    """
UPDATE claim SET mailbox_index = dropped.mailbox_index
FROM unnest(:pool_ids::uuid[], :mailbox_indexes::bytea[]) AS dropped (pool_id, mailbox_index)
WHERE claim.merchant_id = :merchant_id AND claim.pool_id = ANY(:pool_ids) AND claim.pool_id = dropped.pool_id
    AND claim.member_id = :member_id AND claim.slot = (
        SELECT min(slot) FROM claim k WHERE k.merchant_id = :merchant_id AND k.pool_id = dropped.pool_id
            AND k.member_id = :member_id AND k.mailbox_index IS NULL
    )
""",
)
ADOPT: Final = statement(
    ChangeRow,
    f"""
WITH adopted AS (
    -- From now on the code answers to the member, and to no address as such.
    UPDATE code SET member_id = :member_id, email_index = NULL
    WHERE merchant_id = :merchant_id AND id = ANY(:code_ids::uuid[])
), changed AS (
    SELECT t.event_id, t.code_id AS subject_id, :member_id::uuid AS member_id, NULL::bytea AS reason, is_live
    FROM unnest(:code_ids::uuid[], :event_ids::uuid[], :are_live::bool[]) AS t (code_id, event_id, is_live)
), {raise_wallets([("code.adopted", "is_live"), ("code.adopted_after_end", "")])}
SELECT {columns(ChangeRow)} FROM recorded ev
""",
)


async def adopt_codes(tx: Tx, viewer: Viewer, member_id: UUID, email_index: bytes) -> int:
    """Bind the codes of an address to the member that has proved it. Returns how many there were.

    The caller has made the address the member's in this transaction, in an earlier statement: claims by e-mail wait
    for that, and the ones before it are seen here. Where address and member have claimed more of a pool together than
    one member can have, the address's latest live codes are revoked, and replaced in the pool; they don't count as
    claims any more, so that the member's latest is one that it can spend. Raises asyncpg.UniqueViolationError when
    the member claims at this very moment; the transaction is to be tried again.
    """
    rows = await tx.rows(FIND_WAITING, merchant_id=viewer.merchant_id, email_index=email_index, member_id=member_id)
    if not rows:
        return 0
    if await revive_needed(tx, viewer.merchant_id, (row["code_id"] for row in rows if row["state"] == "EXPIRED")):
        rows = await tx.rows(FIND_WAITING, merchant_id=viewer.merchant_id, email_index=email_index, member_id=member_id)
    adoption = _decide(rows)
    live = {row["code_id"]: row["state"] == "ALLOCATED" for row in rows}
    codes = list(live)
    await tx.row(DROP_CLAIMS, merchant_id=viewer.merchant_id, email_index=email_index, code_ids=codes)
    if adoption.claims:
        claims = [row for row, _ in adoption.claims]
        await tx.row(
            WRITE_CLAIMS,
            merchant_id=viewer.merchant_id,
            member_id=member_id,
            code_ids=[row["code_id"] for row in claims],
            pool_ids=[row["claimed_of"] for row in claims],
            slots=[slot for _, slot in adoption.claims],
            keys=[row["idempotency_key"] for row in claims],
            told_of=[row["told_of"] for row in claims],
            mailbox_indexes=[row["mailbox_index"] for row in claims],
            claimed_at=[row["claimed_at"] for row in claims],
        )
    await pass_mailboxes(tx, viewer.merchant_id, member_id, adoption.mailboxes)
    changes = await tx.rows(
        ADOPT,
        merchant_id=viewer.merchant_id,
        member_id=member_id,
        code_ids=codes,
        event_ids=[ids.new() for _ in codes],
        are_live=list(live.values()),
        actor=viewer.actor,
    )
    for change in changes:
        ring_wallet(tx, viewer.merchant_id, change)
    await revoke_surplus(tx, viewer, adoption.surplus)
    return len(codes)


async def pass_mailboxes(tx: Tx, merchant_id: UUID, member_id: UUID, mailboxes: Mapping[UUID, bytes]) -> None:
    """Let other claims of a member have the mailboxes that dropped ones had, by their pools."""
    if mailboxes:
        await tx.row(
            PASS_MAILBOXES,
            merchant_id=merchant_id,
            member_id=member_id,
            pool_ids=list(mailboxes),
            mailbox_indexes=list(mailboxes.values()),
        )


def _decide(rows: Sequence[WaitingRow]) -> _Adoption:
    """Number the claims after the member's own; a live code beyond a limit of its pools is surplus.

    What can't be taken back (spent, ended, held) counts first, then what is live, first come first.
    """
    adoption = _Adoption()
    claims_by_code: defaultdict[UUID, list[WaitingRow]] = defaultdict(list)
    for row in sorted(rows, key=_is_free):
        claims_by_code[row["code_id"]].append(row)
    taken: Counter[UUID] = Counter()
    for claims in claims_by_code.values():
        is_full = any(claim["claims"] + taken[claim["claimed_of"]] >= claim["claims_per_member"] for claim in claims)
        if is_full and _is_free(claims[0]):
            adoption.surplus.append(claims[0])
            adoption.mailboxes |= {
                claim["claimed_of"]: claim["mailbox_index"] for claim in claims if claim["mailbox_index"] is not None
            }
            continue
        for claim in claims:
            taken[claim["claimed_of"]] += 1
            adoption.claims.append((claim, claim["slot"] + taken[claim["claimed_of"]]))
    return adoption


def _is_free(row: WaitingRow) -> bool:
    """Whether a code can still be taken back."""
    return row["state"] == "ALLOCATED" and not row["is_held"]


REVOKE: Final = statement(
    ChangeRow,
    f"""
WITH revoked AS (
    UPDATE code SET state = 'REVOKED'
    WHERE merchant_id = :merchant_id AND id = ANY(:code_ids::uuid[]) AND state = 'ALLOCATED'
    RETURNING id, pool_id, member_id
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT :merchant_id, pool_id, gen_random_uuid(), 0, -count(*), 0, 0, count(*) FROM revoked GROUP BY pool_id
), changed AS (
    SELECT t.event_id, revoked.id AS subject_id, revoked.member_id, NULL::bytea AS reason
    FROM revoked JOIN unnest(:code_ids::uuid[], :event_ids::uuid[]) AS t (code_id, event_id) ON t.code_id = revoked.id
), {raise_wallets("code.revoked")}
SELECT {columns(ChangeRow)} FROM recorded ev
""",
)


async def revoke_each(tx: Tx, merchant_id: UUID, actor: str, code_ids: Sequence[UUID]) -> None:
    """Revoke codes that are locked and live."""
    event_ids = [ids.new() for _ in code_ids]
    changes = await tx.rows(REVOKE, merchant_id=merchant_id, code_ids=list(code_ids), event_ids=event_ids, actor=actor)
    for change in changes:
        ring_wallet(tx, merchant_id, change)


async def revoke_surplus(tx: Tx, viewer: Viewer, surplus: Sequence[SurplusRow]) -> None:
    """Revoke codes that are locked and live, and replace them in their pools."""
    if not surplus:
        return
    await revoke_each(tx, viewer.merchant_id, viewer.actor, [row["code_id"] for row in surplus])
    places = [(row["pool_id"], row["kind"], row["code_pattern"]) for row in surplus if not row["is_over"]]
    await recycle_each(tx, viewer.tenant.keys, places, actor=viewer.actor)
