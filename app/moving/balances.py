"""Balances of another system: what a member has that ends at one moment is one credit, an adjustment of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypedDict, cast
from uuid import UUID

from app.members.rows import RECORDS_OF
from app.moving.fields import Fields
from app.moving.kind import Batch, Kind, Record, correct_each
from app.moving.rows import (
    DROP_LINES,
    FIND_MEMBERS,
    FIND_STRANGERS,
    Import,
    LineRow,
    compare,
    look_up,
    pass_over_erased,
    repeated,
    rows_of,
)
from app.points.credit_all import Credit, credit_all
from app.points.grant_points import TEN_YEARS
from app.points.ledger import POINTS_MAX, credit, lock_wallet
from app.points.moves import Move, write
from app.points.types import PointsReason
from app.storage.database import Tx, database
from app.storage.statements import NoRow, statement

#: Credits of one transaction. Each keeps its wallet locked for so long.
CREDITED_AT_ONCE: Final = 1000
CORRECTED_AT_ONCE: Final = 200
REFERENCE: Final = "import"
#: What a balance's entries come from: the member and the moment, and then the number of a correction.
_ORIGIN: Final = """
    'import/' || replace({0}::text, '-', '') || '/'
        || coalesce((extract(epoch FROM {1}) * 1000000)::bigint::text, 'none')
"""


@dataclass(frozen=True, slots=True)
class _Balance:
    external_source: str
    external_id: str | None
    points: int
    expires_at: datetime | None


FIND_REPEATED: Final = repeated("externalId and expiresAt are those of", "found, dated_at", among="found IS NOT NULL")
# What an earlier file brought in, for the member or a record that was merged into it, as all its entries left it, and
# how much of it can be taken.
FIND_POSTED: Final = statement(
    NoRow,
    f"""
UPDATE import_row SET
    verdict = CASE WHEN posted.points = import_row.amount THEN 'SAME' ELSE 'CORRECT' END,
    problem = CASE WHEN posted.points = import_row.amount THEN NULL
        WHEN NOT :corrects THEN 'points differs from the ' || posted.points || ' that were brought in; see --correct'
        WHEN posted.points - import_row.amount > posted.free
            THEN 'points can be ' || posted.points - posted.free || ' at least: the others are spent or held'
        END
FROM (
    SELECT r.line, sum(its.points) AS points, sum(its.free) AS free
    FROM import_row r CROSS JOIN LATERAL unnest({RECORDS_OF.format("r.found")}) AS record (member_id)
    JOIN points_entry first ON first.merchant_id = :merchant_id AND first.reason = 'ADJUSTMENT'
        AND first.origin = {_ORIGIN.format("record.member_id", "r.dated_at")}
    CROSS JOIN LATERAL (
        SELECT sum(e.amount) AS points, coalesce(sum(l.remaining - l.held), 0) AS free
        FROM points_entry e LEFT JOIN points_lot l ON l.merchant_id = :merchant_id AND l.entry_id = e.id
            AND l.member_id = r.found
        WHERE e.merchant_id = :merchant_id AND e.member_id = first.member_id AND e.reason = 'ADJUSTMENT'
            AND (e.origin = first.origin OR starts_with(e.origin, first.origin || '/'))
    ) its
    WHERE r.merchant_id = :merchant_id AND r.import_id = :import_id AND r.problem IS NULL GROUP BY r.line
) posted
WHERE merchant_id = :merchant_id AND import_id = :import_id AND import_row.line = posted.line
""",
)
# No points at all are there already.
FIND_NOTHING: Final = statement(
    NoRow,
    """
UPDATE import_row SET verdict = 'SAME'
WHERE merchant_id = :merchant_id AND import_id = :import_id AND problem IS NULL AND verdict IS NULL AND amount = 0
""",
)
FIND_TOO_MANY: Final = statement(
    NoRow,
    f"""
UPDATE import_row SET problem = 'points would take the member''s balance over {POINTS_MAX}'
FROM (
    SELECT found, sum(amount) AS points FROM import_row
    WHERE merchant_id = :merchant_id AND import_id = :import_id AND problem IS NULL AND verdict IS NULL GROUP BY found
) given JOIN wallet w ON w.merchant_id = :merchant_id AND w.member_id = given.found
WHERE import_row.merchant_id = :merchant_id AND import_id = :import_id AND import_row.found = given.found
    AND w.points + given.points > {POINTS_MAX} AND problem IS NULL AND verdict IS NULL
""",
)


class _BalanceRow(LineRow):
    """A balance to bring in: whose, how many points, and what its entries come from."""

    member_id: UUID
    points: int
    expires_at: datetime | None
    origin: str


_ROWS: Final = f"""
SELECT r.line, r.found AS member_id, r.amount::int AS points, r.dated_at AS expires_at,
    {_ORIGIN.format("r.found", "r.dated_at")} AS origin
FROM import_row r
WHERE r.merchant_id = :merchant_id AND r.import_id = :import_id AND r.line > :after
"""
NEXT: Final = statement(_BalanceRow, f"{_ROWS} AND r.verdict IS NULL ORDER BY r.line LIMIT {CREDITED_AT_ONCE}")
TO_CORRECT: Final = statement(
    _BalanceRow, f"{_ROWS} AND r.verdict = 'CORRECT' ORDER BY r.line LIMIT {CORRECTED_AT_ONCE}"
)


class _EntryRow(TypedDict):
    """An entry of a balance, and what can be taken of its lot, if it made one."""

    entry_id: UUID
    member_id: UUID
    amount: int
    free: int


POSTED: Final = statement(
    _EntryRow,
    f"""
SELECT e.id AS entry_id, e.member_id, e.amount, coalesce(l.remaining - l.held, 0) AS free
FROM unnest({RECORDS_OF.format(":member_id::uuid")}) AS record (member_id)
CROSS JOIN LATERAL (
    SELECT {_ORIGIN.format("record.member_id", ":expires_at::timestamptz")} AS origin
) first
JOIN points_entry e ON e.merchant_id = :merchant_id AND e.member_id = record.member_id AND e.reason = 'ADJUSTMENT'
    AND (e.origin = first.origin OR starts_with(e.origin, first.origin || '/'))
LEFT JOIN points_lot l ON l.merchant_id = :merchant_id AND l.entry_id = e.id AND l.member_id = :member_id
ORDER BY e.created_at DESC, e.id DESC
""",
)


class Balances(Kind):
    """Files of balances."""

    name = "BALANCES"
    makes = "balances"
    columns = ("externalId", "externalSource", "points", "expiresAt")
    required = ("externalId", "points")
    stored = ("external_source", "external_id", "amount", "dated_at")
    compared = ("member", "points_entry", "points_lot")

    def check(self, fields: Fields) -> _Balance:
        """Read a balance."""
        external_id, external_source = fields.external_id(), fields.external_source()
        points = fields.whole("points", most=POINTS_MAX)
        expires_at = fields.end("expiresAt", self.now)
        if expires_at is not None and expires_at > self.now + TEN_YEARS:
            fields.problems.add(
                "expiresAt", "must be at most ten years from now; leave it empty for the merchant's lifetime"
            )
        return _Balance(external_source, external_id, points, expires_at)

    def record(self, row_id: UUID, checked: object) -> Record:
        """Return a balance as it is stored."""
        del row_id  # nothing of it is sealed
        balance = cast("_Balance", checked)
        return (balance.external_source, balance.external_id, balance.points, balance.expires_at)

    async def judge(self, of: Import) -> None:
        """Find whose they are, which are there twice or already, and which no balance can hold."""
        await look_up(of, FIND_MEMBERS)
        await pass_over_erased(of)
        await look_up(of, FIND_STRANGERS)
        await compare(of, FIND_REPEATED)
        await rows_of(of, FIND_POSTED, corrects=of.corrects)
        await look_up(of, FIND_NOTHING)
        await compare(of, FIND_TOO_MANY)

    async def apply(self, tx: Tx, of: Import, after: int) -> Batch | None:
        """Credit the next balances."""
        rows = await tx.many(NEXT, **of.key, after=after)
        if not rows:
            return None
        given = [Credit(row["member_id"], row["points"], row["origin"], row["expires_at"]) for row in rows]
        written = await credit_all(
            tx, of.viewer.merchant_id, of.viewer.actor, given, PointsReason.ADJUSTMENT, reference=REFERENCE
        )
        lines = [row["line"] for row in rows]
        await tx.row(DROP_LINES, **of.key, lines=lines)
        return Batch(lines[-1], len(written), [row["line"] for row in rows if row["origin"] not in written])

    async def correct(self, of: Import, after: int) -> Batch | None:
        """Credit what balances lack, and take from their own lots what they have too many of."""
        page = await database().many(TO_CORRECT, **of.key, after=after)
        return await correct_each(of, page, lambda tx, row: self._correct(tx, of, row))

    async def _correct(self, tx: Tx, of: Import, row: _BalanceRow) -> bool:
        """Post the difference. Returns False where points were spent meanwhile, or don't fit: then what can be is."""
        merchant_id, actor, member_id = of.viewer.merchant_id, of.viewer.actor, row["member_id"]
        await lock_wallet(tx, merchant_id, member_id)
        posted = await tx.rows(POSTED, merchant_id=merchant_id, member_id=member_id, expires_at=row["expires_at"])
        lacking = row["points"] - sum(entry["amount"] for entry in posted)
        own = sum(entry["member_id"] == member_id for entry in posted)
        origin = f"{row['origin']}/{own + 1}" if own else row["origin"]
        reason = PointsReason.ADJUSTMENT
        if lacking > 0:
            credited = await credit(
                tx, merchant_id, actor, member_id, lacking, reason,
                origin=origin, reference=REFERENCE, expires_at=row["expires_at"],
            )  # fmt: skip
            return credited is not None
        parts = _taken(posted, -lacking)
        if parts:
            await write(
                tx, merchant_id, actor, member_id, Move(parts=parts), reason, origin=origin, reference=REFERENCE
            )
        return -sum(parts.values()) == -lacking


def _taken(posted: Sequence[_EntryRow], points: int) -> dict[UUID, int]:
    """Return what to take from which lot, the latest first."""
    parts = {}
    for entry in posted:
        part = min(entry["free"], points)
        if part > 0:
            parts[entry["entry_id"]] = -part
            points -= part
    return parts
