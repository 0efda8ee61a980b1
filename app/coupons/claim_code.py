"""claimCode: the claimant gets one available code, and the same one however often it asks."""

from typing import Annotated, Final
from uuid import UUID

import strawberry

from app.api.context import Role, Viewer
from app.api.inputs import Problems, acting_member, node_id, stored_key
from app.api.operations import IdempotencyKeyReused, Info, InvalidInput, NotFound, Refused, mutation, not_found
from app.coupons.claims import Claimant, Claimed, NotEligible, PoolBacksReward, PoolExhausted, PoolNotActive, claim
from app.coupons.rows import JOIN_CODE, WholeCodeRow, pool_row
from app.coupons.types import Code, Pool
from app.members.mailboxes import mailbox_index
from app.members.member_keys import MemberKeyInput, NamedMember, optional_key
from app.storage.database import database
from app.storage.statements import columns, statement


@strawberry.input(
    description="A member claims for itself. ADMIN and CHECKOUT keys name the claimant: a member, or an address."
)
class ClaimCodeInput:
    """From which pool, for whom, and the caller's key for a retry."""

    pool_id: strawberry.ID = strawberry.field(description="The pool.")
    member_id: strawberry.ID | None = strawberry.field(
        default=None, description="The member that claims; a member may leave it out."
    )
    member: MemberKeyInput | None = strawberry.field(
        default=None, description="The member that claims, by a store's id or a proven address, in place of its id."
    )
    email: str | None = strawberry.field(
        default=None,
        description="The address that claims, in place of a member. Its codes wait for the member that turns out to "
        "own it; if one is known to already, that member has claimed.",
    )
    idempotency_key: str | None = strawberry.field(
        default=None,
        description="Where a claimant can have several codes: each key is a claim of its own, "
        "and the same key again is the same claim. At most 200 characters.",
    )


def _served_by(root: "ClaimCodeSuccess") -> Pool:
    return Pool.of(root.row)


@strawberry.type(description="The code is the claimant's.")
class ClaimCodeSuccess:
    """The claimed code, with its text."""

    code: Code = strawberry.field(description="The code, with its text.")
    row: strawberry.Private[WholeCodeRow]
    served_by: Pool = strawberry.field(
        resolver=_served_by, description="The pool it came from: the one asked, or one it falls back to."
    )
    replayed: bool = strawberry.field(description="Whether the claimant had it already.")


ClaimCodeResult = Annotated[
    ClaimCodeSuccess
    | InvalidInput
    | NotFound
    | PoolNotActive
    | PoolBacksReward
    | NotEligible
    | PoolExhausted
    | IdempotencyKeyReused,
    strawberry.union("ClaimCodeResult", description="The code, or why there is none."),
]


@mutation(
    description="Claim a code of a pool. The same claimant gets the same code however often it asks. "
    "MEMBER for itself; ADMIN and CHECKOUT for the member or the address they name."
)
async def claim_code(
    info: Info, input: Annotated[ClaimCodeInput, strawberry.argument(description="The claim.")]
) -> ClaimCodeResult:
    """Find out who claims, then claim."""
    viewer = info.context.viewer
    problems = Problems()
    key = problems.idempotency_key(input.idempotency_key)
    address = None if input.email is None else problems.email("email", input.email)
    if viewer.role is Role.MEMBER and input.email is not None:
        problems.add("email", "is for API keys; a member claims for itself")
    elif viewer.role is not Role.MEMBER and [input.member_id, input.member, input.email].count(None) != 2:
        problems.add("memberId", "or member or email must be given, and only one of them")
    named = NamedMember(input.member_id, optional_key(problems, viewer, input.member))
    problems.refuse_if_any()
    pool_id = node_id("pool", "pool", input.pool_id)
    stored, keys = None if key is None else stored_key(viewer, key), viewer.tenant.keys
    if address is not None:
        email_index = keys.email_index(address)
        told_of = _told_of(viewer, stored, email_index.hex())
        claimant = Claimant(email_index=email_index, mailbox_index=mailbox_index(keys, address), told_of=told_of)
    elif named.key is not None:
        claimant = Claimant(key=named.key, told_of=_told_of(viewer, stored, str(named.key.nobody())))
    else:
        claimant = Claimant(acting_member(viewer, input.member_id))
    reused: Refused | None = None
    claimed: Claimed | None = None
    try:
        claimed = await claim(database(), viewer, pool_id, claimant, stored)
    except Refused as refused:
        if not isinstance(refused.refusal, IdempotencyKeyReused):
            raise
        reused = refused
    if claimed is None:
        claimed = await _before(viewer, pool_id, claimant, stored)
    if claimed is None:
        raise reused or await _missing(viewer, input.pool_id, named)
    return ClaimCodeSuccess(code=Code.of(claimed.row, revealed=True), row=claimed.row, replayed=claimed.replayed)


# By its key first, whatever the planner knew.
FIND_BEFORE: Final = statement(
    WholeCodeRow,
    f"""
SELECT {columns(WholeCodeRow)} FROM (
    SELECT k.code_id FROM claim k LEFT JOIN member m ON m.merchant_id = :merchant_id AND m.id = k.member_id
    WHERE k.merchant_id = :merchant_id AND k.idempotency_key = :key AND k.pool_id = :pool_id
        AND (k.member_id = :member_id OR (k.told_of = :told_of AND (k.member_id IS NULL OR m.erased_at IS NOT NULL)))
) k CROSS JOIN LATERAL (SELECT * FROM code WHERE merchant_id = :merchant_id AND id = k.code_id OFFSET 0) c {JOIN_CODE}
""",
)


def _told_of(viewer: Viewer, key: bytes | None, named: str) -> bytes | None:
    """Return a hash of an idempotency key and who was named; with the key in it, it finds nobody's claims."""
    return None if key is None else viewer.tenant.keys.email_index(f"claimant\0{key.hex()}\0{named}")


async def _before(viewer: Viewer, pool_id: UUID, claimant: Claimant, key: bytes | None) -> Claimed | None:
    """Return what somebody who was erased claimed by this key before: a replay is answered all the same."""
    if key is None:
        return None
    row = await database().row(
        FIND_BEFORE,
        merchant_id=viewer.merchant_id,
        pool_id=pool_id,
        member_id=claimant.member_id,
        told_of=claimant.told_of,
        key=key,
    )
    return None if row is None else Claimed(row, replayed=True)


async def _missing(viewer: Viewer, pool_id: str, named: NamedMember) -> Refused:
    if await pool_row(database(), viewer, node_id("pool", "pool", pool_id)) is None:
        return not_found("pool", pool_id)
    return not_found("member", named.shown(viewer))
