"""The engine with a bug planted in it: a process that tests start, to see that the judge finds it.

Each bug is one that an engine like this has had: FLASH_TEST_BROKEN names the one that a process has.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from app.api.operations import Refused
from app.coupons import pass_on
from app.jobs import cancel_job
from app.jobs.rows import OPEN, BulkJobRow
from app.members import rows
from app.moving import balances
from app.orders import capture_hold, redeem_codes, reverse_redemption
from app.people import erasing, merging
from app.points import grant_points, take_back
from app.points.pass_on import pass_points
from app.points.rows import grant_by_origin
from app.storage.database import database, transaction
from app.storage.statements import columns, statement
from tests.starts import BROKEN

BUGS: Final = (
    "lost update",
    "double spend",
    "stale read",
    "replay that differs",
    "effect of a refused call",
    "forgotten shortfall",
    "stale discount",
    "stolen hold",
    "forgotten hold",
    "two for one",
    "code of nobody",
    "balance twice",
    "overspent budget",
    "second first order",
    "job that goes on",
)
#: How long the first update waits for a rival to read what it has read.
RIVAL_SECONDS: Final = "FLASH_TEST_RIVAL_SECONDS"
#: Longer than a script takes.
_STALE_SECONDS: Final = 60.0
STEAL: Final = """
UPDATE code SET hold_id = NULL, held_until = NULL WHERE merchant_id = $1 AND id IN (
    SELECT code_id FROM hold_code WHERE merchant_id = $1 AND hold_id = $2
)
"""
GIVE_BACK: Final = """
SELECT spend_budget(merchant_id, pool_id, -discount) FROM redemption
WHERE merchant_id = $1 AND code_id = ANY($2) AND reversed_at IS NULL
"""
FORGET_WHOSE: Final = "UPDATE sales_order SET presenter_id = NULL, mailbox_index = NULL WHERE merchant_id = $1"
#: Tells what cancelling tells.
SAY_CANCELLED: Final = statement(
    BulkJobRow,
    f"""
SELECT {columns(BulkJobRow).replace("j.status", "'CANCELLED'::text")} FROM bulk_job j
WHERE j.merchant_id = :merchant_id AND j.id = :job_id AND j.status IN {OPEN} AND :actor::text <> ''
""",
)
_POINTS: Final = "SELECT points FROM wallet WHERE merchant_id = $1 AND member_id = $2"


def break_engine() -> None:
    """Plant the bug that the environment names into this process."""
    {
        "lost update": _lose_updates,
        "double spend": _spend_twice,
        "stale read": _read_what_was,
        "replay that differs": _replay_otherwise,
        "effect of a refused call": _debit_when_refused,
        "forgotten shortfall": _forget_shortfalls,
        "stale discount": _price_once,
        "stolen hold": _steal_when_late,
        "forgotten hold": _forget_holds,
        "two for one": _pass_all,
        "code of nobody": _leave_codes,
        # Of what files bring in: planted by the test, in whose process they are.
        "balance twice": _leave_it,
        "overspent budget": _spend_nothing,
        "second first order": _forget_whose,
        "job that goes on": _cancel_in_words,
    }[os.environ[BROKEN]]()


async def _unguarded(merchant_id: Any, *statements: tuple[str, tuple[object, ...]]) -> None:
    async with transaction(merchant_id) as tx:
        await tx.row("SET LOCAL session_replication_role = replica")
        for text, values in statements:
            await tx.row(text, *values)


def _lose_updates() -> None:
    """Read a balance, decide, and write it back."""
    post = grant_points._post
    met = asyncio.Event()
    readers = 0

    async def read_and_write_back(viewer: Any, member_id: Any, input: Any, origin: str, told: Any) -> Any:
        nonlocal readers
        row = await database().row(_POINTS, viewer.merchant_id, member_id)
        readers += 1
        if readers > 1:
            met.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(float(os.environ.get(RIVAL_SECONDS, "20"))):
                await met.wait()
        posted = await post(viewer, member_id, input, origin, told)
        if posted is not None and row is not None:
            changed = "UPDATE wallet SET points = $3 WHERE merchant_id = $1 AND member_id = $2"
            points = row["points"] + input.amount
            await _unguarded(viewer.merchant_id, (changed, (viewer.merchant_id, member_id, points)))
        return posted

    grant_points._post = read_and_write_back


def _spend_twice() -> None:
    """Forget that codes were redeemed."""
    redeem = redeem_codes.redeem

    async def redeem_and_forget(where: Any, viewer: Any, presented: Any, places: Any, **order: Any) -> Any:
        redeemed = await redeem(where, viewer, presented, places, **order)
        codes = [row["code_id"] for row, _ in places.values()]
        await _unguarded(
            viewer.merchant_id,
            ("DELETE FROM redemption WHERE merchant_id = $1 AND code_id = ANY($2)", (viewer.merchant_id, codes)),
            ("UPDATE code SET state = 'ALLOCATED', redeemed_at = NULL WHERE merchant_id = $1 AND id = ANY($2)",
             (viewer.merchant_id, codes)),
        )  # fmt: skip
        return redeemed

    redeem_codes.redeem = redeem_and_forget


def _read_what_was() -> None:
    """Answer who asks for a member from memory for a while."""
    read = rows.member_row
    kept: dict[UUID, tuple[float, Any]] = {}

    async def remembered(viewer: Any, member_id: UUID) -> Any:
        if member_id not in kept or time.monotonic() > kept[member_id][0] + _STALE_SECONDS:
            kept[member_id] = (time.monotonic(), await read(viewer, member_id))
        return kept[member_id][1]

    rows.member_row = remembered


def _replay_otherwise() -> None:
    """Tell a replay of the balance as if it came on top of the first."""
    earlier = grant_by_origin

    async def otherwise(viewer: Any, origin: str) -> Any:
        row = await earlier(viewer, origin)
        return row and {**row, "entry_balance_after": (row["entry_balance_after"] or 0) + row["entry_amount"]}

    vars(grant_points)["grant_by_origin"] = otherwise


def _debit_when_refused() -> None:
    """Take what is there before saying that it isn't enough."""
    post = grant_points._post

    async def take_and_refuse(viewer: Any, member_id: Any, input: Any, origin: str, told: Any) -> Any:
        try:
            return await post(viewer, member_id, input, origin, told)
        except Refused:
            changed = "UPDATE wallet SET points = points / 2 WHERE merchant_id = $1 AND member_id = $2"
            await _unguarded(viewer.merchant_id, (changed, (viewer.merchant_id, member_id)))
            raise

    grant_points._post = take_and_refuse


def _forget_shortfalls() -> None:
    """Tell of what a return lacks, and don't write it down."""

    async def tell_only(*_: Any) -> None:
        return None

    take_back.fall_short = tell_only  # type: ignore[assignment, attr-defined]


def _price_once() -> None:
    """Leave what stays on an order at the discount that it had beside what went."""

    async def leave(*_: Any, **__: Any) -> None:
        return None

    reverse_redemption.place = leave  # type: ignore[attr-defined]


def _steal_when_late() -> None:
    """Capture a hold whose time has passed without asking who has its codes by now."""
    find = capture_hold._missing_codes

    async def steal(tx: Any, viewer: Any, hold: Any) -> Any:
        await tx.row(STEAL, viewer.merchant_id, hold["hold_id"])
        return await find(tx, viewer, hold)

    capture_hold._missing_codes = steal


def _forget_holds() -> None:
    """Merge two records without what holds have of their points."""

    async def forget(tx: Any, merchant_id: Any, actor: Any, kept_id: Any, merged_id: Any) -> int:
        points = await pass_points(tx, merchant_id, actor, kept_id, merged_id)
        await tx.row("SET LOCAL session_replication_role = replica")
        for table in ("wallet SET held_points = 0", "points_lot SET held = 0, is_open = remaining > 0"):
            await tx.row(f"UPDATE {table} WHERE merchant_id = $1 AND member_id = $2", merchant_id, kept_id)
        await tx.row("SET LOCAL session_replication_role = origin")
        return points

    vars(merging)["pass_points"] = forget


def _pass_all() -> None:
    """Merge two records with all the codes that both have claimed."""
    decide = pass_on._decide
    pass_on._decide = lambda rows: decide([{**row, "claims_per_member": 99} for row in rows])


def _leave_codes() -> None:
    """Forget a person, and leave its codes to whoever has them."""
    erase = erasing.erase_member

    async def leave(keys: Any, actor: str, member_id: UUID, ground: str, **when: Any) -> bool:
        is_erased = await erase(keys, actor, member_id, ground, **when)
        revived = "UPDATE code SET state = 'ALLOCATED' WHERE merchant_id = $1 AND member_id = $2 AND state = 'REVOKED'"
        await _unguarded(keys.merchant_id, (revived, (keys.merchant_id, member_id)))
        return is_erased

    erasing.erase_member = leave


def _leave_it() -> None:
    """Leave this process as it is."""


@contextlib.contextmanager
def credited_twice() -> Iterator[None]:
    """Bring a balance in without asking whether it was, for the length of the block."""
    asked, following = balances.FIND_POSTED, balances.NEXT
    anew = replace(following, text=following.text.replace("AS origin", "|| gen_random_uuid() AS origin"))
    # Of which nothing that is in a file is found.
    nothing = replace(asked, text=asked.text.replace("first.reason = 'ADJUSTMENT'", "first.reason = 'MERGE'"))
    vars(balances).update(FIND_POSTED=nothing, NEXT=anew)
    try:
        yield
    finally:
        vars(balances).update(FIND_POSTED=asked, NEXT=following)


def _spend_nothing() -> None:
    """Give back to a budget at once what a redemption takes from it."""
    redeem = redeem_codes.redeem

    async def redeem_and_give_back(where: Any, viewer: Any, presented: Any, places: Any, **order: Any) -> Any:
        redeemed = await redeem(where, viewer, presented, places, **order)
        codes = [row["code_id"] for row, _ in places.values()]
        if redeemed:
            await _unguarded(viewer.merchant_id, (GIVE_BACK, (viewer.merchant_id, codes)))
        return redeemed

    redeem_codes.redeem = redeem_and_give_back


def _forget_whose() -> None:
    """Forget whose the orders of before are when another one comes."""
    redeem = redeem_codes.redeem

    async def forget_and_redeem(where: Any, viewer: Any, presented: Any, places: Any, **order: Any) -> Any:
        redeemed = await redeem(where, viewer, presented, places, **order)
        await _unguarded(viewer.merchant_id, (FORGET_WHOSE, (viewer.merchant_id,)))
        return redeemed

    redeem_codes.redeem = forget_and_redeem


def _cancel_in_words() -> None:
    """Say that a job is called off, and let it go on."""
    vars(cancel_job)["CANCEL"] = SAY_CANCELLED


if __name__ == "__main__":
    from app.cli import main

    break_engine()
    main()
