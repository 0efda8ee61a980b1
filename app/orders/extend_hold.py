"""extendHold: what is held stays so for longer."""

from collections.abc import Sequence
from typing import Annotated, Final, cast
from uuid import UUID

import strawberry

from app.api.context import Viewer
from app.api.inputs import Problems, node_id
from app.api.operations import Info, InvalidInput, NotFound, OutpacedError, Refused, mutation, not_found
from app.orders.held_rewards import HeldRewardRow
from app.orders.hold_checkout import LIFETIME_SECONDS_MAX, LIFETIME_SECONDS_MIN, WHOLE_LIFETIME
from app.orders.hold_types import Hold, HoldNotOpen
from app.orders.holds import (
    JOIN_HOLD,
    Changed,
    ChangedHoldRow,
    Content,
    HeldCodeRow,
    WholeHoldRow,
    changed_hold,
    event_ids,
    hold_with_codes,
)
from app.storage.database import Statements, database
from app.storage.statements import columns, statement
from app.storage.wallet_versions import ChangeRow, raise_wallets


@strawberry.input(description="A hold that is to go on.")
class ExtendHoldInput:
    hold_id: strawberry.ID = strawberry.field(description="The hold.")
    lifetime_seconds: int = strawberry.field(
        description="How long it goes on from now at least: 60 to 604,800 seconds, and 30 days in all."
    )


@strawberry.type(description="The hold goes on.")
class ExtendHoldSuccess:
    hold: Hold = strawberry.field(description="The hold, with its `heldUntil`; never an earlier one.")


ExtendHoldResult = Annotated[
    ExtendHoldSuccess | InvalidInput | NotFound | HoldNotOpen,
    strawberry.union("ExtendHoldResult", description="The hold, or why it can't go on."),
]

# The order of locks is hold, codes by id, wallets by member. What isn't longer than before changes nothing.
EXTEND: Final = statement(
    ChangedHoldRow,
    f"""
WITH open AS MATERIALIZED (
    SELECT id FROM hold
    WHERE merchant_id = :merchant_id AND id = :hold_id AND version = :version AND status = 'HELD' AND held_until > now()
    FOR UPDATE
), locked AS (
    SELECT c.id, c.member_id FROM code c
    WHERE c.merchant_id = :merchant_id AND c.hold_id = :hold_id AND c.id = ANY(ARRAY(
        SELECT code_id FROM hold_code WHERE merchant_id = :merchant_id AND hold_id = (SELECT id FROM open)
        UNION ALL
        SELECT code_id FROM hold_reward WHERE merchant_id = :merchant_id AND hold_id = (SELECT id FROM open)
    ))
    ORDER BY c.id FOR UPDATE
), h AS (
    UPDATE hold SET version = version + 1,
        held_until = least(now() + :lifetime_seconds * interval '1 second', held_at + {WHOLE_LIFETIME})
    WHERE merchant_id = :merchant_id AND id = (SELECT id FROM open) AND (SELECT count(*) FROM locked) >= 0
        AND held_until < least(now() + :lifetime_seconds * interval '1 second', held_at + {WHOLE_LIFETIME})
    RETURNING *
), held AS (
    UPDATE code SET held_until = h.held_until FROM h
    WHERE code.merchant_id = :merchant_id AND code.id = ANY(ARRAY(SELECT id FROM locked))
), owners AS (
    -- Those whose codes are held, and the one whose points are.
    SELECT member_id FROM locked WHERE member_id IS NOT NULL UNION SELECT member_id FROM h WHERE held_points > 0
), changed AS (
    SELECT (:event_ids::uuid[])[row_number() OVER (ORDER BY owners.member_id)] AS event_id, h.id AS subject_id,
        owners.member_id, NULL::bytea AS reason
    FROM h LEFT JOIN owners ON true
), {raise_wallets("hold.extended")}
SELECT {columns(WholeHoldRow)}, {columns(ChangeRow)} FROM h {JOIN_HOLD} CROSS JOIN recorded ev
ORDER BY ev.wallet_version
""",
)


@mutation(
    description="Let a hold that is HELD go on for longer; it never ends earlier than it did before, and 30 days after "
    "it began at the latest. ADMIN and CHECKOUT."
)
async def extend_hold(
    info: Info, input: Annotated[ExtendHoldInput, strawberry.argument(description="The hold, and for how long.")]
) -> ExtendHoldResult:
    viewer = info.context.viewer
    problems = Problems()
    problems.number("lifetimeSeconds", input.lifetime_seconds, least=LIFETIME_SECONDS_MIN, most=LIFETIME_SECONDS_MAX)
    problems.refuse_if_any()
    hold_id = node_id("hold", "hold", input.hold_id)
    found = await hold_with_codes(viewer, hold_id)
    if found is None:
        raise not_found("hold", input.hold_id)
    row, content = found
    if row["hold_status"] != "HELD":
        raise Refused(HoldNotOpen.of(row, f"it is {row['hold_status']}"))
    rewards = content.rewards or []
    extended = await _extend(database(), viewer, hold_id, row["hold_version"], input.lifetime_seconds)
    if extended is not None:
        return ExtendHoldSuccess(hold=Hold.changed(extended._replace(content=_after(extended, content, rewards))))
    after = await hold_with_codes(viewer, hold_id)
    if after is None or (after[0]["hold_status"], after[0]["hold_version"]) != ("HELD", row["hold_version"]):
        raise OutpacedError
    return ExtendHoldSuccess(hold=Hold.of(after[0], content._replace(rewards=rewards)))


def _after(extended: Changed, before: Content, rewards: Sequence[HeldRewardRow]) -> Content:
    """Return what a hold has that was extended at the version at which this was read: later it may have others."""
    now = {"code_held_until": extended.row["hold_held_until"]}
    codes = [cast("HeldCodeRow", {**row, **now}) for row in before.codes]
    return Content(codes, rewards, extended.changes)


async def _extend(
    where: Statements, viewer: Viewer, hold_id: UUID, version: int, lifetime_seconds: int
) -> Changed | None:
    """Extend a hold of this version, and tell who watches the wallets that this changes; None if nothing changes."""
    rows = await where.rows(
        EXTEND,
        merchant_id=viewer.merchant_id,
        hold_id=hold_id,
        version=version,
        lifetime_seconds=lifetime_seconds,
        event_ids=event_ids(),
        actor=viewer.actor,
    )
    return changed_hold(where, viewer.merchant_id, rows)
