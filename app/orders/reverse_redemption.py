"""reverseRedemption: a redemption is taken back, once, at any age, and its code is live again or not.

What is left of its order is priced anew, and a recorded purchase follows.
"""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import strawberry

from app.api.context import Viewer
from app.api.inputs import Problems, node_id
from app.api.operations import Info, InvalidInput, NotFound, Refusal, Refused, mutation, not_found
from app.api.reasons import REASON_LENGTH_MAX
from app.coupons.end_returned import end_returned, has_ended
from app.coupons.types import Code, Redemption
from app.members.types import MemberSource
from app.orders.locks import lock_wallets
from app.orders.order_changes import (
    READ_STACK,
    StackRow,
    give_back,
    let_follow,
    lock_order,
    place,
    placed_anew,
)
from app.storage.database import Statements, Tx, database, transaction
from app.storage.wallet_versions import ChangeRow


@strawberry.input(description="A redemption to take back.")
class ReverseRedemptionInput:
    redemption_id: strawberry.ID = strawberry.field(description="The redemption.")
    reason: str = strawberry.field(description="Why, for the record; at most 500 characters, stored encrypted.")
    reinstate: bool = strawberry.field(default=True, description="Whether its owner can spend the code again.")
    expires_at: datetime | None = strawberry.field(
        default=None,
        description="A new end for a code that is reinstated, in place of the one it has and of its pool's: it is "
        "honoured until then, unless the pool is archived. Without one a code whose end has passed is EXPIRED.",
    )


@strawberry.type(description="The redemption doesn't stand any more.")
class ReverseRedemptionSuccess:
    redemption: Redemption = strawberry.field(description="The redemption, with its `reversedAt`.")
    code: Code = strawberry.field(
        description="The code: ALLOCATED again, EXPIRED if its end has passed, or still REDEEMED."
    )


@strawberry.type(description="The redemption was taken back before.")
class AlreadyReversed(Refusal):
    redemption: Redemption = strawberry.field(description="The redemption, with its `reversedAt`.")


ReverseRedemptionResult = Annotated[
    ReverseRedemptionSuccess | InvalidInput | NotFound | AlreadyReversed,
    strawberry.union("ReverseRedemptionResult", description="The reversed redemption, or why it stands."),
]


@mutation(
    description="Take a redemption back, once, at any age. Other codes of its order are priced anew, and a recorded "
    "purchase follows. ADMIN, CHECKOUT and SUPPORT."
)
async def reverse_redemption(
    info: Info, input: Annotated[ReverseRedemptionInput, strawberry.argument(description="What to take back.")]
) -> ReverseRedemptionResult:
    viewer = info.context.viewer
    problems = Problems()
    reason = problems.text("reason", input.reason, length_max=REASON_LENGTH_MAX)
    if input.expires_at is not None and not input.reinstate:
        problems.add("expiresAt", "is for a code that is reinstated")
    problems.refuse_if_any()
    redemption_id = node_id("redemption", "redemption", input.redemption_id)
    row, others = await _read(database(), viewer, redemption_id, input.redemption_id)
    # One that was taken back before is told so, however late it is asked again.
    if input.expires_at is not None and input.expires_at <= row["asked_at"]:
        problems.add("expiresAt", "must be in the future")
        problems.refuse_if_any()
    is_at_an_end = input.reinstate and (input.expires_at is not None or has_ended(row, row["asked_at"]))
    async with transaction(viewer.merchant_id) as tx:
        if others or row["buyer_id"] is not None or is_at_an_end:
            return await _reverse_with_order(tx, viewer, input, redemption_id, row, reason)
        # Recording a purchase doesn't raise the order's version: only its lock says that there is none.
        await lock_order(tx, viewer, MemberSource(row["redemption_source"]), row["redemption_order_id"], None)
        change = await _reverse(tx, viewer, row, reason, reinstate=input.reinstate, alive=input.reinstate)
    return _success(row, change if input.reinstate else None, change)


async def _read(where: Statements, viewer: Viewer, redemption_id: UUID, shown: str) -> tuple[StackRow, list[StackRow]]:
    """Return the redemption and the others of its order. Raises Refused when it doesn't stand."""
    rows = await where.rows(READ_STACK, merchant_id=viewer.merchant_id, redemption_id=redemption_id)
    own = [row for row in rows if row["redemption_id"] == redemption_id]
    if not own:
        raise not_found("redemption", shown)
    if own[0]["redemption_reversed_at"] is not None:
        message = "The redemption was taken back before."
        raise Refused(AlreadyReversed(message=message, redemption=Redemption.of(own[0])))
    return own[0], [row for row in rows if row["redemption_id"] != redemption_id]


async def _reverse(
    where: Statements,
    viewer: Viewer,
    row: StackRow,
    reason: str,
    *,
    reinstate: bool,
    alive: bool = False,
    expires_at: datetime | None = None,
) -> ChangeRow:
    _, changes = await give_back(
        where, viewer, MemberSource(row["redemption_source"]), row["redemption_order_id"], [row],
        version=row["order_version"], amount=row["redemption_order_amount"], reason=reason, reinstate=reinstate,
        alive=alive, expires_at=expires_at,
    )  # fmt: skip
    return changes[row["redemption_id"]]


async def _reverse_with_order(
    tx: Tx, viewer: Viewer, input: ReverseRedemptionInput, redemption_id: UUID, seen: StackRow, reason: str
) -> ReverseRedemptionSuccess:
    """Reverse a redemption and what depends on it, under its order's lock. Raises OutpacedError."""
    source, order_id = MemberSource(seen["redemption_source"]), seen["redemption_order_id"]
    purchase = await lock_order(tx, viewer, source, order_id, seen["buyer_id"])
    row, others = await _read(tx, viewer, redemption_id, input.redemption_id)
    amount = row["redemption_order_amount"]
    left = placed_anew(others, amount)
    if purchase is not None:
        await lock_wallets(tx, viewer, purchase, [row["code_id"]])
        before = row["redemption_discount"] + sum(each["redemption_discount"] for each in others)
        after = sum(share.discount for _, share in left.values())
        await let_follow(tx, viewer, purchase, before - after, origin=redemption_id.hex, path="redemptionId")
    change = await _reverse(tx, viewer, row, reason, reinstate=input.reinstate, expires_at=input.expires_at)
    await place(tx, viewer, left, amount=amount)
    if not input.reinstate:
        return _success(row, None, change)
    if input.expires_at is not None:
        row = {**row, "code_expires_at": input.expires_at, "code_outlives_pool": True}
    ended = await end_returned(tx, viewer, [row["code_id"]])
    return _success(row, ended[0] if ended else change, change)


def _success(row: StackRow, as_of: ChangeRow | None, reversed: ChangeRow) -> ReverseRedemptionSuccess:
    """Return the redemption as it is from now on, its code as of a change, where it changed."""
    code = Code.of(row, as_of=as_of)
    redemption = Redemption.of_code(code, row)
    redemption.reversed_at = reversed["event_occurred_at"]
    return ReverseRedemptionSuccess(redemption=redemption, code=code)
