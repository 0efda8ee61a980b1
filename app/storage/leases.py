"""Jobs that are rows: a worker holds one until `lease_until`, and what it does after losing it changes nothing.

Such a table has merchant_id, id, status, attempts, requested_at, started_at and lease_until; each `attempts` is one
holder. A job that killed as many workers as it has attempts is abandoned, and has to be ended by who finds it.
"""

from typing import Final, TypedDict, TypeVar, get_type_hints
from uuid import UUID

from app.storage.fences import stands
from app.storage.statements import NoRow, Statement, statement

ATTEMPTS_MAX: Final = 3


class HeldRow(TypedDict):
    """A job as its holder knows it."""

    merchant_id: UUID
    id: UUID
    attempts: int


Held = TypeVar("Held", bound=HeldRow)


def listed(statuses: tuple[str, ...]) -> str:
    """Return statuses as SQL."""
    return f"({', '.join(repr(status) for status in statuses)})"


def take(
    table: str, running: tuple[str, ...], row: type[Held], *, seconds: str, where: str = "true"
) -> Statement[Held]:
    """Return the statement that takes the job on that has waited longest, or whose holder is gone, and has attempts.

    It becomes the first of the `running` statuses for `seconds` (an expression), and is returned as `row`, whose
    fields are columns. A merchant's jobs run one by one.
    """
    states = listed(running)
    # The first condition is that of the index by which they wait: a planner doesn't see that the others imply it. And
    # what a merchant has running is counted for one job after the other, in that order, not found for all that wait.
    return statement(
        row,
        f"""
UPDATE {table} SET status = '{running[0]}', attempts = attempts + 1, started_at = now(),
    lease_until = now() + make_interval(secs => {seconds})
WHERE (merchant_id, id) = (
    SELECT j.merchant_id, j.id FROM {table} j
    WHERE j.status IN {listed(("QUEUED", *running))} AND {where} AND j.attempts < {ATTEMPTS_MAX}
        AND (j.status = 'QUEUED' OR (j.status IN {states} AND j.lease_until < now()))
        AND (
            SELECT count(*) FROM {table} r
            WHERE r.merchant_id = j.merchant_id AND r.id <> j.id AND r.status IN {states}
        ) = 0
        AND {stands("j")}
    ORDER BY j.requested_at, j.id LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING {", ".join(get_type_hints(row))}
""",
    )


def held(running: tuple[str, ...]) -> str:
    """Return the condition that the job `:id` is still held by its attempt `:attempts`."""
    return f"merchant_id = :merchant_id AND id = :id AND attempts = :attempts AND status IN {listed(running)}"


def holder(job: HeldRow) -> HeldRow:
    """Return the parameters of `held`."""
    return {"merchant_id": job["merchant_id"], "id": job["id"], "attempts": job["attempts"]}


def release(table: str, running: tuple[str, ...]) -> Statement[NoRow]:
    """Return the statement that gives a job back to whoever looks next."""
    return statement(NoRow, f"UPDATE {table} SET lease_until = now() WHERE {held(running)}")


def abandoned(table: str, running: tuple[str, ...]) -> Statement[HeldRow]:
    """Return the statement that finds jobs without a holder that had all their attempts, of all merchants."""
    return statement(
        HeldRow,
        f"""
SELECT merchant_id, id, attempts FROM {table} j
WHERE status IN {listed(running)} AND attempts >= {ATTEMPTS_MAX} AND lease_until < now() AND {stands("j")}
""",
    )
