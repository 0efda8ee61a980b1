"""The rewards of a hold: stock and codes are set aside for them, and given back, or had for the points that are held.

What is held of a pool is a code that is SET_ASIDE: nobody's, not in stock, and back there when the hold ends.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Final, TypedDict
from uuid import UUID

from app import ids
from app.api.context import Viewer
from app.api.operations import not_found
from app.coupons.claims import CLAIMANT, FREES_MAILBOXES, HELD_OF_POOL, IS_FOR, MAILBOX_IS_TAKEN
from app.coupons.rows import BUDGET_IS_SPENT, IS_OPEN
from app.points.capturing import capture_points
from app.points.ledger import POINTS_MAX
from app.points.redeem_reward import INSERT, TAKE, out_of_stock
from app.points.rows import RewardRow
from app.points.types import PointsReason
from app.storage.database import Statements, Tx, database
from app.storage.events import event
from app.storage.statements import NoRow, columns, row_of, statement
from app.storage.wallet_versions import NEXT_DATE, ChangeRow, ring_wallet


@row_of(y="hold_reward", a="reward")
class HeldRewardRow(RewardRow):
    """A reward of a hold `y`, at the cost that it is held at."""

    held_hold_id: Annotated[UUID, "y.hold_id"]
    held_position: Annotated[int, "y.position"]
    held_cost: Annotated[int, "y.cost"]
    held_is_from_stock: Annotated[bool, "y.is_from_stock"]
    held_code_id: Annotated[UUID | None, "y.code_id"]
    held_redemption_id: Annotated[UUID | None, "y.redemption_id"]


REWARDS_OF_HOLDS: Final = statement(
    HeldRewardRow,
    f"""
SELECT {columns(HeldRewardRow)} FROM hold_reward y
CROSS JOIN LATERAL (SELECT * FROM reward WHERE merchant_id = :merchant_id AND id = y.reward_id OFFSET 0) a
WHERE y.merchant_id = :merchant_id AND y.hold_id = ANY(:hold_ids::uuid[])
ORDER BY y.hold_id, y.position
""",
)


async def rewards_by_hold(viewer: Viewer, hold_ids: list[UUID]) -> Mapping[UUID, list[HeldRewardRow]]:
    """Return the rewards of holds, in the order in which they were asked for."""
    grouped: defaultdict[UUID, list[HeldRewardRow]] = defaultdict(list)
    for row in await rewards_of(database(), viewer, hold_ids):
        grouped[row["held_hold_id"]].append(row)
    return grouped


async def rewards_of(where: Statements, viewer: Viewer, hold_ids: Sequence[UUID]) -> list[HeldRewardRow]:
    """Return the rewards of holds."""
    return await where.rows(REWARDS_OF_HOLDS, merchant_id=viewer.merchant_id, hold_ids=list(hold_ids))


class CapturedRewardRow(TypedDict):
    """A reward of a captured hold: its cost, and the redemption that it has become."""

    held_redemption_id: UUID
    held_cost: int


REWARDS_OF_ORDER: Final = statement(
    CapturedRewardRow,
    """
SELECT y.redemption_id AS held_redemption_id, y.cost AS held_cost FROM (
    SELECT id FROM hold WHERE merchant_id = :merchant_id AND sales_order_id = ANY(ARRAY[:order_row_id::uuid])
        AND status = 'CAPTURED' ORDER BY sales_order_id OFFSET 0
) h JOIN hold_reward y ON y.merchant_id = :merchant_id AND y.hold_id = h.id
WHERE y.redemption_id IS NOT NULL ORDER BY y.position
""",
)


async def rewards_of_order(where: Statements, viewer: Viewer, order_row_id: UUID) -> list[CapturedRewardRow]:
    """Return the rewards that the capture of an order's hold brought."""
    return await where.rows(REWARDS_OF_ORDER, merchant_id=viewer.merchant_id, order_row_id=order_row_id)


class Place(TypedDict):
    """A reward in its place of a hold: taken from stock or not, and with a code if its pool's is set aside already."""

    reward_id: UUID
    cost: int
    is_from_stock: bool
    pool_id: UUID | None
    code_id: UUID | None


class OutOfStockError(Exception):
    """A reward can't be had: other holds of the member may have to end for it."""

    def __init__(self, reward_id: UUID, why: str, pool_id: UUID | None = None) -> None:
        """Take the reward, why it can't be had, and its pool if that is because of a code."""
        super().__init__()
        self.reward_id = reward_id
        self.why = why
        self.pool_id = pool_id


async def place_rewards(
    tx: Tx, viewer: Viewer, member_id: UUID | None, reward_ids: Sequence[UUID], before: Sequence[HeldRewardRow]
) -> list[Place]:
    """Take rewards from stock that a hold hasn't had before, and give back what it is not to have any more.

    Locks the rewards by id, and codes that go back. Raises Refused(NotFound) and OutOfStockError.
    """
    had: defaultdict[UUID, list[HeldRewardRow]] = defaultdict(list)
    for row in before:
        had[row["reward_id"]].append(row)
    kept = [had[each].pop() if had[each] else None for each in reward_ids]
    await give_back(tx, viewer.merchant_id, [row for rows in had.values() for row in rows])
    places: dict[int, Place] = {}
    for number, reward_id in sorted(enumerate(reward_ids), key=lambda each: each[1]):
        own = kept[number]
        if own is not None:
            places[number] = Place(
                reward_id=reward_id, cost=own["held_cost"], is_from_stock=own["held_is_from_stock"],
                pool_id=own["reward_pool_id"], code_id=own["held_code_id"],
            )  # fmt: skip
            continue
        taken = await tx.row(TAKE, merchant_id=viewer.merchant_id, reward_id=reward_id, member_id=member_id)
        if taken is None:
            raise not_found("reward", ids.encode("reward", reward_id))
        if not taken["is_taken"]:
            raise OutOfStockError(reward_id, "none is left" if taken["reward_active"] else "it is retired")
        places[number] = Place(
            reward_id=reward_id, cost=taken["reward_cost"], is_from_stock=taken["reward_stock"] is not None,
            pool_id=taken["reward_pool_id"], code_id=None,
        )  # fmt: skip
    return [places[number] for number in range(len(reward_ids))]


#: Gives back what a hold has of rewards: `gone` are its rows. They continue a WITH.
GIVEN_BACK: Final = f"""
restocked AS (
    UPDATE reward SET stock = least(stock, {POINTS_MAX}::bigint - given.rewards) + given.rewards
    FROM (SELECT reward_id, count(*)::int AS rewards FROM gone WHERE is_from_stock GROUP BY reward_id) given
    WHERE reward.merchant_id = :merchant_id AND reward.id = given.reward_id
), unset AS (
    UPDATE code SET state = 'AVAILABLE', hold_id = NULL, held_until = NULL
    WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(SELECT code_id FROM gone)) AND state = 'SET_ASIDE'
    RETURNING pool_id
), unset_stock AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT :merchant_id, pool_id, gen_random_uuid(), count(*), -count(*), 0, 0, 0 FROM unset GROUP BY pool_id
)"""
GIVE_BACK: Final = statement(
    NoRow,
    f"""
WITH gone AS (
    SELECT reward_id, is_from_stock, code_id FROM hold_reward
    WHERE merchant_id = :merchant_id AND hold_id = :hold_id AND position = ANY(:positions::int[])
), {GIVEN_BACK}
SELECT WHERE false
""",
)


async def give_back(tx: Tx, merchant_id: UUID, rows: Sequence[HeldRewardRow]) -> None:
    """Give back to stock what rewards of one hold have of it. Their rows stay."""
    if rows:
        await tx.row(
            GIVE_BACK,
            merchant_id=merchant_id,
            hold_id=rows[0]["held_hold_id"],
            positions=[row["held_position"] for row in rows],
        )


class PickedRow(TypedDict):
    """A code that is set aside, or could be."""

    id: UUID


# Claims don't wait for this, nor this for claims: it takes the first code that nobody is taking. What the member's
# holds have of the pool counts as claimed, and so do the `own` of the hold, which aren't listed. Who has left a mailbox
# leaves it to the claim that the capture makes.
_PICKED: Final = f"""
who AS ({CLAIMANT}), freed AS (
    {FREES_MAILBOXES.format("ARRAY(SELECT mailbox_index FROM who)")}
), may AS (
    SELECT p.id FROM pool p, who m
    WHERE p.merchant_id = :merchant_id AND p.id = :pool_id AND {IS_OPEN} AND {IS_FOR} AND NOT {MAILBOX_IS_TAKEN}
        AND NOT {BUDGET_IS_SPENT} AND p.claims_per_member > (
            SELECT count(*) FROM claim
            WHERE merchant_id = :merchant_id AND pool_id = :pool_id AND member_id = :member_id
        ) + {HELD_OF_POOL.format(":pool_id", ":member_id")} + :own::int
    FOR KEY SHARE OF p
), picked AS (
    SELECT id FROM code
    WHERE merchant_id = :merchant_id AND pool_id = :pool_id AND state = 'AVAILABLE'
        AND (expires_at IS NULL OR expires_at > now()) AND EXISTS (SELECT FROM may)
    ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
)"""
PICK: Final = statement(PickedRow, f"WITH {_PICKED} SELECT id FROM picked")
SET_ASIDE: Final = statement(
    PickedRow,
    f"""
WITH {_PICKED}, c AS (
    UPDATE code SET state = 'SET_ASIDE', hold_id = :hold_id, held_until = (
        SELECT held_until FROM hold WHERE merchant_id = :merchant_id AND id = :hold_id
    )
    WHERE merchant_id = :merchant_id AND id = (SELECT id FROM picked) RETURNING id
), stocked AS (
    INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
    SELECT :merchant_id, :pool_id, gen_random_uuid(), -1, 1, 0, 0, 0 FROM c
)
SELECT id FROM c
""",
)
# A hold's rewards are written anew when it changes; what its codes say of its time is the hold's.
UNLIST: Final = statement(NoRow, "DELETE FROM hold_reward WHERE merchant_id = :merchant_id AND hold_id = :hold_id")
LIST: Final = statement(
    NoRow,
    """
WITH listed AS (
    INSERT INTO hold_reward (merchant_id, hold_id, position, reward_id, cost, is_from_stock, code_id)
    SELECT :merchant_id, :hold_id, place, reward_id, cost, is_from_stock, code_id
    FROM unnest(:reward_ids::uuid[], :costs::int[], :are_from_stock::bool[], :code_ids::uuid[]) WITH ORDINALITY
        AS t (reward_id, cost, is_from_stock, code_id, place)
)
UPDATE code SET held_until = (SELECT held_until FROM hold WHERE merchant_id = :merchant_id AND id = :hold_id)
WHERE merchant_id = :merchant_id AND id = ANY(:code_ids) AND hold_id = :hold_id
""",
)


#: Why a reward can't be had whose pool has a limit, or is empty.
_NO_CODE: Final = "its pool gives the member no further code"


def _without_codes(places: Sequence[Place]) -> list[Place]:
    """Return the places that want a code and have none."""
    return [place for place in places if place["pool_id"] is not None and place["code_id"] is None]


def _of_pool(viewer: Viewer, member_id: UUID, place: Place, places: Sequence[Place]) -> dict[str, object]:
    """Return what a code is picked by."""
    return {
        "merchant_id": viewer.merchant_id,
        "member_id": member_id,
        "pool_id": place["pool_id"],
        "memory_pads": viewer.tenant.keys.memory_pads,
        "own": sum(each["pool_id"] == place["pool_id"] and each["code_id"] is not None for each in places),
    }


async def see_codes(tx: Tx, viewer: Viewer, member_id: UUID, places: Sequence[Place]) -> None:
    """Raise OutOfStockError where one of the codes that `set_aside` needs is lacking. The member is locked."""
    for place in _without_codes(places):
        if await tx.row(PICK, **_of_pool(viewer, member_id, place, places)) is None:
            raise OutOfStockError(place["reward_id"], _NO_CODE, place["pool_id"])


async def set_aside(
    tx: Tx, viewer: Viewer, hold_id: UUID, member_id: UUID, places: Sequence[Place], *, had_some: bool
) -> None:
    """Set codes aside for rewards that want one, and write the rewards of a hold down, which is written already.

    The member is locked. Waits for no code. Raises OutOfStockError.
    """
    if had_some:
        await tx.row(UNLIST, merchant_id=viewer.merchant_id, hold_id=hold_id)
    for place in _without_codes(places):
        code = await tx.row(SET_ASIDE, **_of_pool(viewer, member_id, place, places), hold_id=hold_id)
        if code is None:
            raise OutOfStockError(place["reward_id"], _NO_CODE, place["pool_id"])
        place["code_id"] = code["id"]
    if places:
        await tx.row(
            LIST,
            merchant_id=viewer.merchant_id,
            hold_id=hold_id,
            reward_ids=[place["reward_id"] for place in places],
            costs=[place["cost"] for place in places],
            are_from_stock=[place["is_from_stock"] for place in places],
            code_ids=[place["code_id"] for place in places],
        )


# A code that is set aside becomes the member's, whatever became of its pool since. The limit has counted it.
CLAIM: Final = statement(
    ChangeRow,
    f"""
WITH who AS ({CLAIMANT}), aside AS (
    SELECT c.id, c.pool_id, p.code_lifetime_days, p.starts_at, CASE WHEN p.one_claim_per_mailbox AND NOT EXISTS (
        SELECT FROM claim
        WHERE merchant_id = :merchant_id AND pool_id = c.pool_id AND mailbox_index = who.mailbox_index
    ) THEN who.mailbox_index END AS mailbox_index
    FROM who CROSS JOIN code c JOIN pool p ON p.merchant_id = :merchant_id AND p.id = c.pool_id
    WHERE c.merchant_id = :merchant_id AND c.id = :code_id AND c.state = 'SET_ASIDE' AND c.hold_id = :hold_id
    FOR UPDATE OF c FOR KEY SHARE OF p
), claimed AS (
    INSERT INTO claim (merchant_id, code_id, pool_id, member_id, slot, idempotency_key, mailbox_index, claimed_at)
    SELECT :merchant_id, aside.id, aside.pool_id, :member_id, (
        SELECT coalesce(max(slot), 0) + 1 FROM claim
        WHERE merchant_id = :merchant_id AND pool_id = aside.pool_id AND member_id = :member_id
    ), :key, aside.mailbox_index, now() FROM aside
    RETURNING code_id, member_id
), w AS (
    UPDATE wallet SET version = version + 1, changed_at = {NEXT_DATE}
    WHERE merchant_id = :merchant_id AND member_id = (SELECT member_id FROM claimed) RETURNING *
), c AS (
    UPDATE code SET state = 'ALLOCATED', member_id = w.member_id, matched_by = 'MEMBER_ID', allocated_at = w.changed_at,
        hold_id = NULL, held_until = NULL, expires_at = least(
            code.expires_at, greatest(w.changed_at, aside.starts_at) + make_interval(days => aside.code_lifetime_days)
        )
    FROM w, aside WHERE code.merchant_id = :merchant_id AND code.id = aside.id
    RETURNING code.id
), ev AS (
    {event("code.claimed", subject="c.id", source="c, w", member_id="w.member_id", wallet="w")} RETURNING *
)
SELECT {columns(ChangeRow)} FROM ev
""",
)
NAME_REDEMPTION: Final = statement(
    NoRow,
    """
UPDATE hold_reward SET redemption_id = :redemption_id, code_id = :code_id
WHERE merchant_id = :merchant_id AND hold_id = :hold_id AND position = :position
""",
)


async def capture_rewards(
    tx: Tx, viewer: Viewer, hold_id: UUID, member_id: UUID, rewards: Sequence[HeldRewardRow]
) -> ChangeRow | None:
    """Let a member have the rewards that are held for it, for the points that are. Returns the last change."""
    change: ChangeRow | None = None
    for row in rewards:
        exchange_id = ids.new()
        if row["held_code_id"] is not None:
            claimed = await tx.row(
                CLAIM,
                merchant_id=viewer.merchant_id,
                member_id=member_id,
                hold_id=hold_id,
                code_id=row["held_code_id"],
                key=viewer.tenant.keys.request_index(f"reward/{exchange_id.hex}"),
                event_id=ids.new(),
                actor=viewer.actor,
            )
            if claimed is None:
                raise RuntimeError("a code that was set aside is gone")
            ring_wallet(tx, viewer.merchant_id, claimed)
        captured = await capture_points(
            tx, viewer.merchant_id, viewer.actor, member_id, hold_id, position=row["held_position"],
            points=row["held_cost"], reason=PointsReason.REWARD, origin=exchange_id.hex, reference=row["reward_name"],
        )  # fmt: skip
        change = captured.latest
        await tx.row(
            INSERT,
            merchant_id=viewer.merchant_id,
            exchange_id=exchange_id,
            reward_id=row["reward_id"],
            member_id=member_id,
            code_id=row["held_code_id"],
            entry_id=captured.entry["entry_id"],
            key=key_of(viewer, hold_id, row),
            is_from_stock=row["held_is_from_stock"],
            event_id=ids.new(),
            actor=viewer.actor,
        )
        await name_redemption(tx, viewer, hold_id, row, exchange_id, row["held_code_id"])
    return change


def key_of(viewer: Viewer, hold_id: UUID, row: HeldRewardRow) -> bytes:
    """Return the key of the redemption that capturing a hold makes of a reward; no caller's key is stored like it."""
    return viewer.tenant.keys.request_index(f"hold/{hold_id.hex}/{row['held_position']}")


async def name_redemption(
    tx: Tx, viewer: Viewer, hold_id: UUID, row: HeldRewardRow, redemption_id: UUID, code_id: UUID | None
) -> None:
    """Write down which redemption a reward of a hold has become."""
    await tx.row(
        NAME_REDEMPTION,
        merchant_id=viewer.merchant_id,
        hold_id=hold_id,
        position=row["held_position"],
        redemption_id=redemption_id,
        code_id=code_id,
    )


class OtherHoldRow(TypedDict):
    """Another hold of the member."""

    hold_id: UUID


HOLDS_OF_REWARDS: Final = statement(
    OtherHoldRow,
    """
SELECT h.id AS hold_id FROM hold h
WHERE h.merchant_id = :merchant_id AND h.member_id = :member_id AND h.status = 'HELD' AND EXISTS (
    SELECT FROM hold_reward y JOIN reward a ON a.merchant_id = :merchant_id AND a.id = y.reward_id
    WHERE y.merchant_id = :merchant_id AND y.hold_id = h.id
        AND (a.id = ANY(:reward_ids::uuid[]) OR a.pool_id = ANY(:pool_ids::uuid[]))
)
ORDER BY h.held_at, h.id
""",
)


async def holds_with(
    where: Statements, viewer: Viewer, member_id: UUID, lacking: Collection[OutOfStockError]
) -> list[UUID]:
    """Return the member's holds that have something of what is lacking, a reward or a code, the earliest first."""
    rows = await where.rows(
        HOLDS_OF_REWARDS,
        merchant_id=viewer.merchant_id,
        member_id=member_id,
        reward_ids=[each.reward_id for each in lacking if each.pool_id is None],
        pool_ids=[each.pool_id for each in lacking if each.pool_id is not None],
    )
    return [row["hold_id"] for row in rows]


async def hold_with(viewer: Viewer, member_id: UUID, lacking: OutOfStockError, *, but: Collection[UUID]) -> UUID:
    """Return the member's earliest hold but some that has what is lacking. Raises Refused(RewardOutOfStock)."""
    for hold_id in await holds_with(database(), viewer, member_id, [lacking]):
        if hold_id not in but:
            return hold_id
    raise out_of_stock(lacking.why)
