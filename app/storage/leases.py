"""Jobs that are rows: a worker holds one until `lease_until`, and what it does after losing it changes nothing.

Such a table has merchant_id, id, status, attempts, requested_at, started_at and lease_until; each `attempts` is one
holder. A job that killed as many workers as it has attempts is abandoned, and has to be ended by who finds it.
"""

from typing import Final

ATTEMPTS_MAX: Final = 3


def listed(statuses: tuple[str, ...]) -> str:
    """Return statuses as SQL."""
    return f"({', '.join(repr(status) for status in statuses)})"


def take(table: str, running: tuple[str, ...], *, seconds: str, returning: str, where: str = "true") -> str:
    """Return the SQL that takes the job on that has waited longest, or whose holder is gone, and has attempts left.

    It becomes the first of the `running` statuses for `seconds` (an expression). A merchant's jobs run one by one.
    """
    states = listed(running)
    return f"""
UPDATE {table} SET status = '{running[0]}', attempts = attempts + 1, started_at = now(),
    lease_until = now() + make_interval(secs => {seconds})
WHERE (merchant_id, id) = (
    SELECT j.merchant_id, j.id FROM {table} j
    WHERE {where} AND j.attempts < {ATTEMPTS_MAX}
        AND (j.status = 'QUEUED' OR (j.status IN {states} AND j.lease_until < now()))
        AND NOT EXISTS (
            SELECT FROM {table} r WHERE r.merchant_id = j.merchant_id AND r.id <> j.id AND r.status IN {states}
        )
    ORDER BY j.requested_at, j.id LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING {returning}
"""


def held(running: tuple[str, ...]) -> str:
    """Return the condition that the job $1, $2 is still held by its attempt $3."""
    return f"merchant_id = $1 AND id = $2 AND attempts = $3 AND status IN {listed(running)}"


def release(table: str, running: tuple[str, ...]) -> str:
    """Return the SQL that gives a job back to whoever looks next."""
    return f"UPDATE {table} SET lease_until = now() WHERE {held(running)}"


def abandoned(table: str, running: tuple[str, ...]) -> str:
    """Return the SQL that finds jobs without a holder that had all their attempts."""
    return f"""
SELECT merchant_id, id, attempts FROM {table}
WHERE status IN {listed(running)} AND attempts >= {ATTEMPTS_MAX} AND lease_until < now()
"""
