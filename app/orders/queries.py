"""Reading orders."""

from typing import Annotated

import strawberry

from app.api.inputs import Problems
from app.api.operations import Id, Info, bad_user_input, query
from app.members.types import MemberSource
from app.orders.hold_types import Hold
from app.orders.holds import find_hold
from app.orders.record_purchase import ORDER_ID_LENGTH_MAX
from app.orders.rows import find_order
from app.orders.types import Order


@query(
    description="One order of one channel, for which codes were held or redeemed, or a purchase was recorded. "
    "ADMIN, CHECKOUT and SUPPORT."
)
async def order(
    info: Info,
    order_id: Annotated[str, strawberry.argument(description="The source's own id of the order.")],
    source: Annotated[
        MemberSource, strawberry.argument(description="Where the order comes from.")
    ] = MemberSource.STORE,
) -> Order | None:
    problems = Problems()
    checked = problems.text("orderId", order_id, length_max=ORDER_ID_LENGTH_MAX)
    if problems.found:
        raise bad_user_input(f"`orderId` {problems.found[0].message}.")
    row = await find_order(info.context.viewer, source.value, checked)
    return None if row is None else Order.of(row)


@query(description="A hold. ADMIN, CHECKOUT and SUPPORT, and MEMBER for its own.")
async def hold(info: Info, id: Id) -> Hold | None:
    found = await find_hold(info.context.viewer, id)
    return None if found is None else Hold.of(*found)
