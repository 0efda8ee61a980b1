"""releaseHold: what was held is given up, for good."""

from typing import Annotated

import strawberry

from app.api.inputs import node_id
from app.api.operations import Info, NotFound, OutpacedError, Refused, mutation, not_found
from app.orders.hold_types import Hold, HoldNotOpen
from app.orders.holds import end_hold, hold_row
from app.storage.database import database


@strawberry.input(description="A hold to give up.")
class ReleaseHoldInput:
    hold_id: strawberry.ID = strawberry.field(description="The hold.")


@strawberry.type(description="The hold is RELEASED.")
class ReleaseHoldSuccess:
    hold: Hold = strawberry.field(description="The hold.")
    replayed: bool = strawberry.field(description="Whether it was RELEASED before.")


ReleaseHoldResult = Annotated[
    ReleaseHoldSuccess | NotFound | HoldNotOpen,
    strawberry.union("ReleaseHoldResult", description="The hold, or why it stands."),
]


@mutation(
    description="Give up what is held. A hold that is EXPIRED is RELEASED, too, and can't be captured any more: that "
    "is how a shop that voided a payment makes sure. ADMIN and CHECKOUT."
)
async def release_hold(
    info: Info, input: Annotated[ReleaseHoldInput, strawberry.argument(description="The hold.")]
) -> ReleaseHoldResult:
    viewer = info.context.viewer
    hold_id = node_id("hold", "hold", input.hold_id)
    row = await hold_row(database(), viewer, hold_id)
    if row is None:
        raise not_found("hold", input.hold_id)
    if row["hold_status"] == "CAPTURED":
        raise Refused(HoldNotOpen.of(row, "it was captured"))
    if row["hold_status"] == "RELEASED":
        return ReleaseHoldSuccess(hold=Hold.of(row), replayed=True)
    ended = await end_hold(viewer.merchant_id, viewer.actor, row, "RELEASED")
    if ended is None:
        raise OutpacedError
    return ReleaseHoldSuccess(hold=Hold.changed(ended), replayed=False)
