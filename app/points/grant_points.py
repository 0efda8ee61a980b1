"""grantPoints: a person gives or takes points, once per key."""

from typing import Annotated, Final
from uuid import UUID

import asyncpg
import strawberry

from app import ids
from app.api.context import Viewer
from app.api.inputs import Problems
from app.api.operations import IdempotencyKeyReused, Info, InvalidInput, NotFound, Refused, mutation, not_found
from app.members.member_keys import MemberKeyInput, named_member
from app.points.ledger import POINTS_MAX, InsufficientPoints, Obstacle, insufficient, obstacle, post, too_many
from app.points.rows import WholeEntryRow, entry_by_origin
from app.points.types import PointsEntry, PointsReason
from app.storage.database import database

REFERENCE_LENGTH_MAX: Final = 200


@strawberry.input(description="Points to give or take.")
class GrantPointsInput:
    """Whose, how many, and why."""

    member_id: strawberry.ID | None = strawberry.field(default=None, description="The member; this or `member`.")
    member: MemberKeyInput | None = strawberry.field(
        default=None, description="The member by a store's id or a proven address, in place of its id."
    )
    amount: int = strawberry.field(description="How many: over 0 gives, below 0 takes; not 0.")
    reference: str = strawberry.field(description="What it refers to, for the record; at most 200 characters.")
    idempotency_key: str = strawberry.field(description="The same key again is the same grant; at most 200 characters.")


@strawberry.type(description="The points were given or taken.")
class GrantPointsSuccess:
    entry: PointsEntry = strawberry.field(description="The entry.")
    replayed: bool = strawberry.field(description="Whether an earlier call with the same key wrote it.")


GrantPointsResult = Annotated[
    GrantPointsSuccess | InvalidInput | NotFound | InsufficientPoints | IdempotencyKeyReused,
    strawberry.union("GrantPointsResult", description="The entry, or why there is none."),
]


@mutation(description="Give points to a member, or take some. ADMIN and SUPPORT.")
async def grant_points(
    info: Info, input: Annotated[GrantPointsInput, strawberry.argument(description="The points.")]
) -> GrantPointsResult:
    """Look for the key, then write; whoever writes the key first wins, and the others answer with its entry."""
    viewer = info.context.viewer
    problems = Problems()
    if input.amount == 0:
        problems.add("amount", "must not be 0")
    problems.number("amount", input.amount, least=-POINTS_MAX, most=POINTS_MAX)
    reference = problems.text("reference", input.reference, length_max=REFERENCE_LENGTH_MAX)
    key = problems.idempotency_key(input.idempotency_key)
    named = named_member(problems, viewer, input.member_id, input.member)
    problems.refuse_if_any()
    member_id = await named.id(viewer)
    origin = f"grant/{key}"
    while (earlier := await _earlier(viewer, origin)) is None:
        try:
            entry = await post(
                database(), viewer.merchant_id, viewer.actor, member_id, input.amount, PointsReason.ADJUSTMENT,
                origin=origin, reference=reference,
            )  # fmt: skip
        except asyncpg.UniqueViolationError:
            continue
        if entry is not None:
            return GrantPointsSuccess(entry=PointsEntry.of(entry), replayed=False)
        # The points may be missing because a rival with the same key has just spent them.
        earlier = await _earlier(viewer, origin)
        if earlier is not None:
            break
        await _refuse(viewer, member_id, input.amount)
    if (earlier["member_id"], earlier["entry_amount"], earlier["entry_reference"]) != (
        member_id, input.amount, reference
    ):  # fmt: skip
        raise Refused(IdempotencyKeyReused(message="This idempotencyKey was used for another grant."))
    return GrantPointsSuccess(entry=PointsEntry.of(earlier), replayed=True)


async def _earlier(viewer: Viewer, origin: str) -> WholeEntryRow | None:
    return await entry_by_origin(viewer, PointsReason.ADJUSTMENT.value, origin)


async def _refuse(viewer: Viewer, member_id: UUID, amount: int) -> None:
    """Raise Refused with why nothing was written; return when a rival has taken the reason away since."""
    why, balance = await obstacle(database(), viewer.merchant_id, member_id, amount)
    if why is Obstacle.NO_MEMBER:
        raise not_found("member", ids.encode("member", member_id))
    if why is Obstacle.TOO_FEW:
        raise insufficient(balance, -amount)
    if why is Obstacle.TOO_MANY:
        raise too_many("amount")
