"""The rows of an import, from when they are staged until they are applied."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, TypedDict, TypeVar
from uuid import UUID

from app.api.context import Viewer
from app.members.remembered import IS_CURRENT, OF_ADDRESS, OF_EXTERNAL_ID
from app.storage.database import database, transaction
from app.storage.long_reads import ENDS_WITH_CLIENT
from app.storage.statements import NoRow, Statement, columns, row_of, statement

T = TypeVar("T")

#: A statement over all rows of a file may take so long.
JUDGING_SECONDS_MAX: Final = 3600.0
#: Rows that are deleted, or looked at, by one statement.
PAGE: Final = 2000


@row_of(f="import_file")
class FileRow(TypedDict):
    """A file that is brought in."""

    id: Annotated[UUID, "f.id"]
    kind: Annotated[str, "f.kind"]
    name: Annotated[str, "f.name"]
    digest: Annotated[bytes, "f.digest"]
    status: Annotated[str, "f.status"]
    corrects: Annotated[bool, "f.corrects"]
    tells: Annotated[bool, "f.tells"]
    staged_line: Annotated[int, "f.staged_line"]
    applied: Annotated[int, "f.applied"]
    begun_at: Annotated[datetime, "f.begun_at"]
    applied_at: Annotated[datetime | None, "f.applied_at"]


class LineRow(TypedDict):
    """A row by its line."""

    line: int


class ProblemRow(LineRow):
    """What is wrong with a row."""

    problem: str


class DroppedRow(TypedDict):
    """How many rows say what is so already, and how many are of who was erased."""

    same: int
    erased: int


class WorkRow(TypedDict):
    """How many rows are to be made, and how many corrected."""

    fresh: int
    corrected: int


FIND_OPEN: Final = statement(
    FileRow,
    f"SELECT {columns(FileRow)} FROM import_file f WHERE f.merchant_id = :merchant_id AND f.status <> 'APPLIED'",
)
FIND_LATEST: Final = statement(
    FileRow,
    f"""
SELECT {columns(FileRow)} FROM import_file f
WHERE f.merchant_id = :merchant_id AND f.kind = :kind AND f.status = 'APPLIED' ORDER BY f.applied_at DESC LIMIT 1
""",
)
BEGIN: Final = statement(
    FileRow,
    f"""
INSERT INTO import_file AS f (merchant_id, id, kind, name, digest, status, corrects, tells, begun_at)
VALUES (:merchant_id, :import_id, :kind, :name, :digest, 'STAGING', :corrects, :tells, now())
ON CONFLICT DO NOTHING RETURNING {columns(FileRow)}
""",
)
ADVANCE: Final = statement(
    LineRow,
    """
UPDATE import_file SET staged_line = :to
WHERE merchant_id = :merchant_id AND id = :import_id AND status = 'STAGING' AND staged_line = :after
RETURNING staged_line AS line
""",
)
# Whoever applies a batch is alone with the file.
HOLD: Final = statement(
    FileRow,
    f"""
SELECT {columns(FileRow)} FROM import_file f
WHERE f.merchant_id = :merchant_id AND f.id = :import_id AND f.status = 'APPLYING' FOR UPDATE
""",
)
# A file of which something is missed is read anew when it comes again: its digest knows it no more.
COUNT_APPLIED: Final = statement(
    NoRow,
    """
UPDATE import_file SET applied = applied + :rows, digest = CASE WHEN :is_missed THEN ''::bytea ELSE digest END
WHERE merchant_id = :merchant_id AND id = :import_id
""",
)
SET_APPLYING: Final = statement(
    FileRow,
    f"""
UPDATE import_file f SET status = 'APPLYING'
WHERE f.merchant_id = :merchant_id AND f.id = :import_id AND f.status = 'STAGING' RETURNING {columns(FileRow)}
""",
)
SET_APPLIED: Final = statement(
    NoRow,
    """
UPDATE import_file SET status = 'APPLIED', applied_at = now()
WHERE merchant_id = :merchant_id AND id = :import_id AND status = 'APPLYING'
""",
)
FORGET: Final = statement(NoRow, "DELETE FROM import_file WHERE merchant_id = :merchant_id AND id = :import_id")
# What an earlier run that was killed had found.
JUDGE_ANEW: Final = statement(
    NoRow,
    """
UPDATE import_row SET problem = NULL, verdict = NULL, found = NULL
WHERE merchant_id = :merchant_id AND import_id = :import_id
    AND (problem IS NOT NULL OR verdict IS NOT NULL OR found IS NOT NULL)
""",
)
PROBLEMS: Final = statement(
    ProblemRow,
    f"""
SELECT line, problem FROM import_row
WHERE merchant_id = :merchant_id AND import_id = :import_id AND line > :after AND problem IS NOT NULL
ORDER BY line LIMIT {PAGE}
""",
)
COUNT_WORK: Final = statement(
    WorkRow,
    """
SELECT count(*) FILTER (WHERE verdict IS NULL)::int AS fresh,
    count(*) FILTER (WHERE verdict = 'CORRECT')::int AS corrected
FROM import_row WHERE merchant_id = :merchant_id AND import_id = :import_id
""",
)
# What says what is so already, and who was erased.
DROP_SETTLED: Final = statement(
    DroppedRow,
    """
WITH gone AS (
    DELETE FROM import_row
    WHERE merchant_id = :merchant_id AND import_id = :import_id AND verdict IN ('SAME', 'ERASED') RETURNING verdict
)
SELECT count(*) FILTER (WHERE verdict = 'SAME')::int AS same,
    count(*) FILTER (WHERE verdict = 'ERASED')::int AS erased
FROM gone
""",
)
DROP: Final = statement(
    LineRow,
    f"""
DELETE FROM import_row
WHERE merchant_id = :merchant_id AND import_id = :import_id AND line > :after AND line <= (
    SELECT max(line) FROM (
        SELECT line FROM import_row WHERE merchant_id = :merchant_id AND import_id = :import_id AND line > :after
        ORDER BY line LIMIT {PAGE}
    ) page
) RETURNING line
""",
)
DROP_LINES: Final = statement(
    NoRow,
    """
DELETE FROM import_row WHERE merchant_id = :merchant_id AND import_id = :import_id AND line = ANY(:lines::int[])
""",
)
SET_VERDICTS: Final = statement(
    NoRow,
    """
UPDATE import_row SET verdict = told.verdict, problem = told.problem
FROM unnest(:lines::int[], :verdicts::text[], :problems::text[]) AS told (line, verdict, problem)
WHERE merchant_id = :merchant_id AND import_id = :import_id AND import_row.line = ANY(:lines)
    AND import_row.line = told.line
""",
)


# Whom the rows name by an external id, and which of them nobody has.
FIND_MEMBERS: Final = statement(
    NoRow,
    """
UPDATE import_row SET found = x.member_id FROM external_id x
WHERE import_row.merchant_id = :merchant_id AND import_id = :import_id AND problem IS NULL
    AND x.merchant_id = :merchant_id AND x.source = external_source AND x.external_id = import_row.external_id
""",
)
FIND_STRANGERS: Final = statement(
    NoRow,
    """
UPDATE import_row SET problem = 'externalId is no member''s; bring members in first'
WHERE merchant_id = :merchant_id AND import_id = :import_id AND problem IS NULL AND external_id IS NOT NULL
    AND found IS NULL AND verdict IS NULL
""",
)
# Rows about nobody who is there, of somebody who was erased. Who has proved the address since has come back itself.
FIND_ERASED: Final = statement(
    NoRow,
    f"""
UPDATE import_row i SET verdict = 'ERASED'
WHERE i.merchant_id = :merchant_id AND i.import_id = :import_id AND i.problem IS NULL AND i.verdict IS NULL
    AND i.found IS NULL AND EXISTS (
        SELECT FROM erasure_memory r
        WHERE r.merchant_id = :merchant_id AND {IS_CURRENT.format("r")} AND r.hmac = ANY(ARRAY[
            {OF_EXTERNAL_ID.format("i.external_source", "i.external_id")},
            CASE WHEN NOT EXISTS (
                SELECT FROM address a
                WHERE a.merchant_id = :merchant_id AND a.email_index = i.email_index AND a.member_id IS NOT NULL
            ) THEN {OF_ADDRESS.format("i.email_index")} END
        ])
    )
""",
)


def repeated(what: str, by: str, *, among: str = "true") -> Statement[NoRow]:
    """Return what finds rows that have the columns `by` of an earlier row, and says `what` of that one's line."""
    return statement(
        NoRow,
        f"""
UPDATE import_row SET problem = '{what} line ' || repeated.first || ' already'
FROM (
    SELECT line, min(line) OVER (PARTITION BY {by}) AS first FROM import_row
    WHERE merchant_id = :merchant_id AND import_id = :import_id AND {among}
) repeated
WHERE merchant_id = :merchant_id AND import_id = :import_id AND import_row.line = repeated.line
    AND repeated.first < repeated.line
""",
    )


class _SetRow(TypedDict):
    look_every: str
    loops: str


# For statements over all rows of a file, which end with the command that waits for them. Where they compare these rows
# with each other, loops are off: nobody has counted rows that were just written, and what is planned for a few compares
# each with each.
SET: Final = statement(
    _SetRow,
    f"""
SELECT {ENDS_WITH_CLIENT} AS look_every, set_config('enable_nestloop', :loops, true) AS loops
FROM merchant WHERE merchant_id = :merchant_id
""",
)


class Key(TypedDict):
    """What every statement about an import takes."""

    merchant_id: UUID
    import_id: UUID


@dataclass(frozen=True, slots=True)
class Import:
    """A file that is being brought in, and for whom. It `corrects` what is there, and `tells` webhooks and watchers."""

    id: UUID
    viewer: Viewer
    corrects: bool
    tells: bool

    @property
    def key(self) -> Key:
        """Return what every statement about it takes."""
        return Key(merchant_id=self.viewer.merchant_id, import_id=self.id)


async def stage(of: Import, names: list[str], records: list[tuple[object, ...]], after: int, to: int) -> bool:
    """Write down the rows of the lines up to `to`. Returns False when another run did, or gave the file up."""
    merchant_id = of.viewer.merchant_id
    async with transaction(merchant_id) as tx:
        if await tx.row(ADVANCE, **of.key, after=after, to=to) is None:
            return False
        given = [(merchant_id, of.id, *record) for record in records]
        await tx.copy("import_row", ["merchant_id", "import_id", *names], given)
    return True


async def compare(of: Import, *statements: Statement[NoRow]) -> None:
    """Compare the rows of a file with each other, by statements that write down what is wrong."""
    for each in statements:
        await _rows(of, each, loops="off")


async def look_up(of: Import, *statements: Statement[NoRow]) -> None:
    """Compare the rows of a file with what is there, by statements that write down what they find."""
    for each in statements:
        await rows_of(of, each)


async def rows_of(of: Import, query: Statement[T], **values: object) -> list[T]:
    """Return the rows of one statement over all rows of a file."""
    return await _rows(of, query, loops="on", **values)


async def _rows(of: Import, query: Statement[T], *, loops: str, **values: object) -> list[T]:
    async with transaction(of.viewer.merchant_id) as tx:
        await tx.row(SET, merchant_id=of.viewer.merchant_id, loops=loops)
        return await tx.many(query, **of.key, **values, seconds_max=JUDGING_SECONDS_MAX)


async def pass_over_erased(of: Import) -> None:
    """Note which rows are of persons who were erased, and don't know them again."""
    pads = of.viewer.tenant.keys.memory_pads
    await rows_of(of, FIND_ERASED, memory_pads=pads)


async def drop(of: Import) -> None:
    """Delete the rows of a file, page by page."""
    after = 0
    while gone := await database().many(DROP, **of.key, after=after):
        after = max(row["line"] for row in gone)


async def forget(of: Import) -> None:
    """Delete a file that wasn't applied, with its rows."""
    await drop(of)
    await database().row(FORGET, **of.key)


async def set_verdicts(of: Import, verdicts: list[tuple[int, str | None, str | None]]) -> None:
    """Write down what was found out about rows: (line, verdict, problem)."""
    if not verdicts:
        return
    lines, told, problems = zip(*verdicts, strict=True)
    await database().many(SET_VERDICTS, **of.key, lines=list(lines), verdicts=list(told), problems=list(problems))
