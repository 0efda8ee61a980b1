"""grantPoints: a person gives or takes points, once per key."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from uuid import UUID

import asyncpg
import strawberry

from app import ids
from app.api.context import Viewer
from app.api.inputs import Problems, stored_key
from app.api.operations import IdempotencyKeyReused, Info, InvalidInput, NotFound, Refused, mutation, not_found
from app.members.member_keys import MemberKey, MemberKeyInput, named_member
from app.members.rows import member_exists
from app.points.ledger import POINTS_MAX, InsufficientPoints, PostedRow, Told, credit, debit, too_many
from app.points.rows import grant_by_origin
from app.points.types import PointsEntry, PointsReason
from app.storage.database import database

REFERENCE_LENGTH_MAX: Final = 200
#: With as many leap days as they can have.
TEN_YEARS: Final = timedelta(days=3653)


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
    expires_at: datetime | None = strawberry.field(
        default=None,
        description="When these points end, in the future, at most ten years from now; as the merchant's points do "
        "unless told. Only for points that are given.",
    )


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
    problems.idempotency_key(input.idempotency_key)
    if input.expires_at is not None:
        _check_end(problems, input.expires_at, input.amount)
    named = named_member(problems, viewer, input.member_id, input.member)
    problems.refuse_if_any()
    origin = f"grant/{stored_key(viewer, input.idempotency_key).hex()}"
    told = _told(viewer, origin, reference, named.key)
    earlier = await grant_by_origin(viewer, origin)
    # Who was named by a key may have another one since, or none.
    is_told_of = earlier is not None and told.told_of is not None and earlier["told_of"] == told.told_of
    member_id = earlier["member_id"] if earlier is not None and is_told_of else await named.id(viewer)
    if earlier is None:
        # A retry may come when the points that it gave have ended.
        if input.expires_at is not None and input.expires_at <= datetime.now(UTC):
            problems.add("expiresAt", "must be in the future")
            problems.refuse_if_any()
        lacking: Refused | None = None
        entry: PostedRow | None = None
        try:
            entry = await _post(viewer, member_id, input, origin, told)
        except asyncpg.UniqueViolationError:
            pass
        except Refused as refused:
            lacking = refused
        if entry is not None:
            return GrantPointsSuccess(entry=PointsEntry.of(entry), replayed=False)
        # The points may be missing because a rival with the same key has just spent them.
        earlier = await grant_by_origin(viewer, origin)
        if earlier is None:
            raise lacking or await _refusal(viewer, member_id)
    is_same = (earlier["entry_amount"], earlier["reference_index"]) == (input.amount, told.reference_index)
    is_same = is_same and input.expires_at in {None, earlier["entry_expires_at"]}
    if not is_same or member_id not in {earlier["member_id"], earlier["standing_id"]}:
        raise Refused(IdempotencyKeyReused(message="This idempotencyKey was used for another grant."))
    return GrantPointsSuccess(entry=PointsEntry.of(earlier), replayed=True)


def _check_end(problems: Problems, expires_at: datetime, amount: int) -> None:
    now = datetime.now(UTC)
    if amount < 0:
        problems.add("expiresAt", "has no meaning where points are taken")
    elif expires_at > now + TEN_YEARS:
        problems.add("expiresAt", "must be at most ten years from now")


def _told(viewer: Viewer, origin: str, reference: str, key: MemberKey | None) -> Told:
    """Return what is kept of the words of a grant. With its origin in the hashes, no others can be found by them."""
    keys, entry_id = viewer.tenant.keys, ids.new()
    return Told(
        entry_id,
        keys.encrypt(entry_id, "reference", reference),
        keys.request_index(f"reference\0{origin}\0{reference}"),
        None if key is None else keys.request_index(f"granted\0{origin}\0{key.nobody()}"),
    )


async def _post(viewer: Viewer, member_id: UUID, input: GrantPointsInput, origin: str, told: Told) -> PostedRow | None:
    if input.amount < 0:
        return await debit(
            database(), viewer.merchant_id, viewer.actor, member_id, -input.amount, PointsReason.ADJUSTMENT,
            origin=origin, reference=None, told=told,
        )  # fmt: skip
    return await credit(
        database(), viewer.merchant_id, viewer.actor, member_id, input.amount, PointsReason.ADJUSTMENT, origin=origin,
        reference=None, told=told, expires_at=input.expires_at,
    )  # fmt: skip


async def _refusal(viewer: Viewer, member_id: UUID) -> Refused:
    if not await member_exists(viewer, member_id):
        return not_found("member", ids.encode("member", member_id))
    return too_many("amount")
