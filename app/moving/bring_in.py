"""`flash import`: a file is staged, judged as a whole, and only then applied, in batches that only go forwards.

Killed anywhere, it goes on with the next run: what is staged stays staged, and a batch is deleted from the stage by the
transaction that applies it.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypedDict
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from app import ids
from app.api.context import Role, Tenant, Viewer
from app.config import settings
from app.errors import ConfigurationError
from app.merchants.tenants import tenant
from app.moving.balances import Balances
from app.moving.codes import Codes
from app.moving.fields import Fields
from app.moving.kind import Batch, Kind, until_alone
from app.moving.members import Members
from app.moving.purchases import Purchases
from app.moving.reading import Read, UnreadableError, digest_of, read
from app.moving.rows import (
    BEGIN,
    COUNT_APPLIED,
    COUNT_WORK,
    DROP_SETTLED,
    FIND_LATEST,
    FIND_OPEN,
    HOLD,
    JUDGE_ANEW,
    JUDGING_SECONDS_MAX,
    PROBLEMS,
    SET_APPLIED,
    SET_APPLYING,
    FileRow,
    Import,
    forget,
    rows_of,
    stage,
)
from app.storage.database import database, transaction
from app.storage.events import keep_quiet
from app.storage.statements import statement

KINDS: Final[dict[str, type[Kind]]] = {
    "members": Members,
    "balances": Balances,
    "codes": Codes,
    "purchases": Purchases,
}
#: Rows that are staged by one transaction.
STAGED_AT_ONCE: Final = 2000
#: One has the lock, and one does the work.
CONNECTIONS_MIN: Final = 2
#: The database needs a moment to notice that another run was killed.
ALONE_SECONDS_MAX: Final = 5.0
NOTHING_APPLIED: Final = 1
#: The rest is applied; some rows are not, because somebody else changed what they are about at that moment.
SOME_MISSED: Final = 3


class _ZoneRow(TypedDict):
    time_zone: str


FIND_ZONE: Final = statement(_ZoneRow, "SELECT time_zone FROM merchant WHERE merchant_id = :merchant_id")


class _AloneRow(TypedDict):
    alone: str


ALONE: Final = statement(
    _AloneRow,
    """
SELECT pg_advisory_xact_lock(hashtextextended('import/' || :merchant_id::uuid::text, 0))::text AS alone
FROM merchant WHERE merchant_id = :merchant_id
""",
)


@dataclass(frozen=True, slots=True)
class Options:
    """How a file is brought in. `names` says which column a header of the file stands for."""

    names: Mapping[str, str]
    corrects: bool = False
    is_dry: bool = False
    tells: bool = False
    in_circulation: bool = False


class Screen:
    """What an operator sees: lines that are wrong and a bar on stderr, and what was done on stdout."""

    def __init__(self) -> None:
        """Draw on stderr."""
        self._console = Console(stderr=True)
        columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(
            *columns, console=self._console, transient=True, redirect_stdout=False, redirect_stderr=False,
            disable=not self._console.is_terminal,
        )  # fmt: skip
        self._said: list[str] = []
        self._bar: TaskID | None = None

    def begin(self, what: str, total: int | None) -> None:
        """Begin with something that takes its time."""
        self.end()
        self._bar = self.progress.add_task(what, total=total)

    def move(self, *, by: float = 0, to: float | None = None) -> None:
        """Say how far it is."""
        if self._bar is not None:
            self.progress.update(self._bar, advance=None if to is not None else by, completed=to)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self.progress.remove_task(self._bar)
            self._bar = None

    def say(self, answer: str) -> None:
        """Print a part of the answer, once the bar is gone."""
        self._said.append(answer)

    def told(self) -> None:
        """Print the answer."""
        for line in self._said:
            print(line)

    def wrong(self, file: str, line: int, why: str) -> None:
        """Print what is wrong with a line of a file."""
        self._print(f"{file}:{line}: {why}")

    def note(self, said: str) -> None:
        """Print something that isn't an answer."""
        self._print(f"flash: {said}")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


async def bring_in(kind: str, path: Path, merchant: str, options: Options, screen: Screen) -> int:
    """Bring a file in, and print what came of it. Returns the exit status.

    An import that was killed while it was applied is ended first, whatever the file. Raises ConfigurationError.
    """
    viewer, zone = await _viewer(merchant)
    with screen.progress:
        async with _alone(viewer):
            status = await _bring_in(viewer, zone, kind, path, options, screen)
    screen.told()
    return status


async def _bring_in(viewer: Viewer, zone: ZoneInfo, kind: str, path: Path, options: Options, screen: Screen) -> int:
    making = KINDS[kind](viewer, datetime.now(UTC), in_circulation=options.in_circulation)
    await making.prepare()
    digest = await asyncio.to_thread(_digest, viewer.tenant, making, path, options)
    begun = await _open(viewer)
    if begun is not None and begun["status"] == "APPLYING":
        screen.note(f"{begun['name']} was applied half-way by an earlier run; it is applied to its end first.")
        missed = await _apply(viewer, begun, screen)
        if bytes(begun["digest"]) == digest:
            return missed
        begun = None
    latest = await database().row(FIND_LATEST, merchant_id=viewer.merchant_id, kind=making.name)
    if latest is not None and bytes(latest["digest"]) == digest and not options.corrects:
        if begun is not None:
            await forget(_import(viewer, begun))
        screen.say(f"Nothing to do: this file was applied at {latest['applied_at']:%Y-%m-%d %H:%M:%S} UTC.")
        return 0
    bringing = _Bringing(making, path, zone, options, screen)
    row = await bringing.begin(begun, digest)
    return await bringing.end(row)


async def discard(merchant: str) -> bool:
    """Delete what an import that was killed has left of its file. What it has applied stays."""
    viewer, _ = await _viewer(merchant)
    async with _alone(viewer):
        begun = await _open(viewer)
        if begun is not None:
            await forget(_import(viewer, begun))
    return begun is not None


@asynccontextmanager
async def _alone(viewer: Viewer) -> AsyncIterator[None]:
    """Keep other imports of the merchant out for the length of the block; a kill ends it, too.

    Raises ConfigurationError while there is another one. The lock is a transaction's, so that it holds behind a pooler,
    and a task's, so that the statements of the block aren't of that transaction.
    """
    if settings().database_connections_max < CONNECTIONS_MIN:
        message = f"An import takes {CONNECTIONS_MIN} connections: raise FLASH_DATABASE_CONNECTIONS_MAX."
        raise ConfigurationError(message)
    is_held, is_over = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with transaction(viewer.merchant_id) as tx:
            await tx.many(ALONE, merchant_id=viewer.merchant_id, seconds_max=ALONE_SECONDS_MAX)
            is_held.set()
            await is_over.wait()

    holding, held = asyncio.create_task(hold()), asyncio.create_task(is_held.wait())
    await asyncio.wait([holding, held], return_when=asyncio.FIRST_COMPLETED)
    held.cancel()
    if not is_held.is_set():
        try:
            await holding
        except TimeoutError:
            raise ConfigurationError("Another import of this merchant is running; run one after the other.") from None
    try:
        yield
    finally:
        is_over.set()
        # Whatever became of its connection, what was to be done is done.
        await asyncio.gather(holding, return_exceptions=True)


async def _viewer(merchant: str) -> tuple[Viewer, ZoneInfo]:
    merchant_id = ids.decode("merchant", merchant)
    found = None if merchant_id is None else await tenant(merchant_id)
    if found is None:
        raise ConfigurationError(f"There is no merchant {merchant[:60]!r}.")
    row = await database().row(FIND_ZONE, merchant_id=found.id)
    zone = ZoneInfo("UTC" if row is None else row["time_zone"])
    return Viewer(role=Role.ADMIN, tenant=found, actor="system"), zone


async def _fresh(viewer: Viewer) -> Viewer:
    found = await tenant(viewer.merchant_id)
    return viewer if found is None else replace(viewer, tenant=found)


def _digest(owner: Tenant, kind: Kind, path: Path, options: Options) -> bytes:
    """Return what tells this file, as it is read, from another one; nobody can try files without the merchant's key."""
    said = f"import\0{kind.name}\0{kind.in_circulation}\0{sorted(options.names.items())}\0{digest_of(path).hex()}"
    return owner.keys.email_index(said)


async def _open(viewer: Viewer) -> FileRow | None:
    return await database().row(FIND_OPEN, merchant_id=viewer.merchant_id)


def _import(viewer: Viewer, row: FileRow) -> Import:
    return Import(row["id"], viewer, row["corrects"], row["tells"])


class _Bringing:
    """A run over one file."""

    def __init__(self, kind: Kind, path: Path, zone: ZoneInfo, options: Options, screen: Screen) -> None:
        self._kind = kind
        self._viewer = kind.viewer
        self._path = path
        self._zone = zone
        self._options = options
        self._screen = screen
        self._wrong = 0

    async def begin(self, begun: FileRow | None, digest: bytes) -> FileRow:
        """Return the file's row: that of an earlier run over the same file, which has staged a part of it, or its own.

        What an earlier run has left of another file goes.
        """
        if begun is not None:
            asked = (digest, self._options.corrects, self._options.tells)
            if (bytes(begun["digest"]), begun["corrects"], begun["tells"]) == asked:
                return begun
            await forget(_import(self._viewer, begun))
        row = await database().row(
            BEGIN,
            merchant_id=self._viewer.merchant_id,
            import_id=ids.new(),
            kind=self._kind.name,
            name=self._path.name[:200],
            digest=digest,
            corrects=self._options.corrects,
            tells=self._options.tells,
        )
        if row is None:
            raise ConfigurationError("Another import of this merchant has just begun; run one after the other.")
        return row

    async def end(self, row: FileRow) -> int:
        """Stage what isn't staged, judge all of it, and apply it if nothing is wrong."""
        of = _import(self._viewer, row)
        try:
            await self._stage(of, row["staged_line"])
        except UnreadableError as error:
            self._tell_wrong(error.line, str(error))
        else:
            await self._judge(of)
        if self._wrong:
            await forget(of)
            self._screen.end()
            rows = "row is" if self._wrong == 1 else "rows are"
            self._screen.say(f"{self._wrong:,} {rows} wrong; nothing was applied.")
            return NOTHING_APPLIED
        (settled,) = await rows_of(of, DROP_SETTLED)
        (work,) = await rows_of(of, COUNT_WORK)
        said = f"{work['fresh']:,} new, {work['corrected']:,} to correct, {settled['same']:,} there already"
        if settled["erased"]:
            said += f", {settled['erased']:,} skipped as erased"
        if self._options.is_dry:
            await forget(of)
            self._screen.say(f"{self._kind.makes}: {said}. Nothing was applied.")
            return 0
        applying = await database().row(SET_APPLYING, **of.key)
        if applying is None:
            raise ConfigurationError("Another run has taken this file over; wait for its end.")
        self._screen.say(f"{self._kind.makes}: {said}.")
        return await _apply(self._viewer, applying, self._screen)

    async def _stage(self, of: Import, staged: int) -> None:
        """Read the file, and write down its rows, sealed. Rows that are wrong are told and left out."""
        self._screen.begin("reading", self._path.stat().st_size)
        rows = read(self._path, self._kind.columns, self._kind.required, self._options.names)
        writing: asyncio.Task[bool] | None = None
        after = staged
        while True:
            # Data keys may change meanwhile.
            self._kind.viewer = self._viewer = await _fresh(self._viewer)
            page, records, error = await asyncio.to_thread(self._page, rows, staged)
            # The next page is read and sealed while this one is written.
            if writing is not None and not await writing:
                raise ConfigurationError("Another run has taken this file over; wait for its end.")
            writing = None
            if page and page[-1].line > staged:
                writing = asyncio.create_task(
                    stage(of, ["line", "id", *self._kind.stored], records, after, page[-1].line)
                )
                after = page[-1].line
            if page:
                self._screen.move(to=page[-1].bytes_read)
            if error is not None or not page:
                break
        if writing is not None and not await writing:
            raise ConfigurationError("Another run has taken this file over; wait for its end.")
        if error is not None:
            raise error

    def _page(
        self, rows: Iterator[Read], staged: int
    ) -> tuple[list[Read], list[tuple[object, ...]], UnreadableError | None]:
        """Read and seal the next rows. Of those that are staged, only what is wrong is told again."""
        page: list[Read] = []
        records: list[tuple[object, ...]] = []
        error: UnreadableError | None = None
        try:
            page.extend(itertools.islice(rows, STAGED_AT_ONCE))
        except UnreadableError as unreadable:
            error = unreadable
        for row in page:
            fields = Fields(row.texts, self._zone)
            checked = self._kind.check(fields)
            wrong = row.problem or fields.wrong()
            if wrong is not None:
                self._tell_wrong(row.line, wrong)
            elif row.line > staged:
                row_id = ids.new()
                records.append((row.line, row_id, *self._kind.record(row_id, checked)))
        return page, records, error

    async def _judge(self, of: Import) -> None:
        self._screen.begin("judging", None)
        # Nobody has counted the rows that this file, or one that was cut short, has just written: plans for as few as
        # there were before compare each with each.
        counted = f"ANALYZE import_row, {', '.join(self._kind.compared)}"
        await database().many(counted, seconds_max=JUDGING_SECONDS_MAX)
        await rows_of(of, JUDGE_ANEW)
        await self._kind.judge(of)
        after = 0
        while page := await rows_of(of, PROBLEMS, after=after):
            for row in page:
                self._tell_wrong(row["line"], row["problem"])
            after = page[-1]["line"]

    def _tell_wrong(self, line: int, why: str) -> None:
        self._wrong += 1
        self._screen.wrong(str(self._path), line, why)


async def _apply(viewer: Viewer, row: FileRow, screen: Screen) -> int:
    """Apply what is staged, to its end. Returns the exit status."""
    of = _import(viewer, row)
    kind = KINDS[row["kind"].lower()](viewer, datetime.now(UTC))
    await kind.prepare()
    (work,) = await rows_of(of, COUNT_WORK)
    applied = corrected = after = 0
    is_missed = False
    screen.begin("applying", work["fresh"] + work["corrected"])
    while (step := await _batch(kind, of, after)) is not None:
        applied, after = applied + step.rows, step.to
        _tell_missed(screen, row, step.missed)
        is_missed = is_missed or bool(step.missed)
        screen.move(by=step.rows)
    after = 0
    while (step := await kind.correct(of, after)) is not None:
        corrected, after = corrected + step.rows, step.to
        _tell_missed(screen, row, step.missed)
        is_missed = is_missed or bool(step.missed)
        screen.move(by=step.rows)
    await database().row(SET_APPLIED, **of.key)
    screen.end()
    screen.say(f"{kind.makes}: {applied:,} made, {corrected:,} corrected.")
    return SOME_MISSED if is_missed else 0


def _tell_missed(screen: Screen, row: FileRow, lines: list[int]) -> None:
    for line in lines:
        screen.wrong(row["name"], line, "was changed by somebody else meanwhile, and isn't applied; run it again")


async def _batch(kind: Kind, of: Import, after: int) -> Batch | None:
    """Apply a batch in a transaction of its own."""

    async def work() -> Batch | None:
        async with transaction(of.viewer.merchant_id) as tx:
            if await tx.row(HOLD, **of.key) is None:
                # Another run has applied the rest.
                return None
            if not of.tells:
                await keep_quiet(tx, of.viewer.merchant_id)
            step = await kind.apply(tx, of, after)
            if step is not None:
                await tx.row(COUNT_APPLIED, **of.key, rows=step.rows, is_missed=bool(step.missed))
            return step

    return await until_alone(work)
