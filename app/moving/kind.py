"""What a kind of file has of its own: columns, how its rows are read, judged and applied."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TypeVar
from uuid import UUID

from app.api.context import Viewer
from app.api.operations import Refused
from app.errors import ConfigurationError
from app.moving.fields import Fields
from app.moving.rows import COUNT_APPLIED, DROP_LINES, Import, LineRow
from app.storage.database import Tx, transaction
from app.storage.events import keep_quiet
from app.storage.gone import MemberGoneError
from app.storage.restarts import ENDED, begun_anew

AnyLine = TypeVar("AnyLine", bound=LineRow)
T = TypeVar("T")

#: What a row is written down as: values in the order of its kind's `stored`, after its line and id.
Record = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """What a batch did: up to which line, how many rows, and lines that somebody else was faster with."""

    to: int
    rows: int
    missed: list[int] = field(default_factory=list)


async def correct_each(
    of: Import, page: Sequence[AnyLine], work: Callable[[Tx, AnyLine], Awaitable[bool]]
) -> Batch | None:
    """Correct rows, each in a transaction of its own, which deletes it; None when there are none.

    `work` says whether all of a row could be done.
    """
    return await settle_each(of, page, lambda row: _correct(of, row, work))


async def settle_each(
    of: Import, page: Sequence[AnyLine], settled: Callable[[AnyLine], Awaitable[bool]]
) -> Batch | None:
    """Correct rows by what opens a transaction for each and deletes it; None when there are none.

    What is refused, or is of a member that is gone, is missed.
    """
    if not page:
        return None
    missed = []
    for row in page:
        line = row["line"]
        try:
            is_done = await until_alone(partial(settled, row))
        except (Refused, MemberGoneError):
            is_done = False
            async with transaction(of.viewer.merchant_id) as tx:
                await settle(tx, of, [line], missed=True)
        if not is_done:
            missed.append(line)
    return Batch(page[-1]["line"], len(page) - len(missed), missed)


async def _correct(of: Import, row: AnyLine, work: Callable[[Tx, AnyLine], Awaitable[bool]]) -> bool:
    async with transaction(of.viewer.merchant_id) as tx:
        if not of.tells:
            await keep_quiet(tx, of.viewer.merchant_id)
        is_done = await work(tx, row)
        await settle(tx, of, [row["line"]], missed=not is_done)
        return is_done


async def until_alone(work: Callable[[], Awaitable[T]]) -> T:
    """Do a transaction's work; again when it was outpaced, or the victim of a deadlock. Raises ConfigurationError."""
    try:
        return await begun_anew(work)
    except ENDED:
        message = "Others kept being faster with the same rows; run this again, it goes on from there."
        raise ConfigurationError(message) from None


async def settle(tx: Tx, of: Import, lines: list[int], *, missed: bool) -> None:
    """Delete rows that are corrected, or that nothing can be done with any more."""
    await tx.row(DROP_LINES, **of.key, lines=lines)
    await tx.row(COUNT_APPLIED, **of.key, rows=0 if missed else len(lines), is_missed=missed)


class Kind(ABC):
    """A kind of file."""

    #: What the file's row calls it, and what its rows make, in the plural.
    name: str
    makes: str
    columns: Sequence[str]
    required: Sequence[str]
    #: Columns of `import_row` that its rows fill.
    stored: Sequence[str]
    #: The tables that its rows are compared with.
    compared: Sequence[str]

    def __init__(self, viewer: Viewer, now: datetime, *, in_circulation: bool = False) -> None:
        """Take whose file it is, what counts as now, and whether codes without an owner are in people's hands."""
        self.viewer = viewer
        self.now = now
        self.in_circulation = in_circulation

    async def prepare(self) -> None:
        """Read what the rows are read by."""
        return

    @abstractmethod
    def check(self, fields: Fields) -> object:
        """Read a row's fields; what is wrong is among their problems. Takes microseconds."""

    @abstractmethod
    def record(self, row_id: UUID, checked: object) -> Record:
        """Return a checked row as it is stored, sealed for `row_id`."""

    @abstractmethod
    async def judge(self, of: Import) -> None:
        """Find what is wrong with rows, what is so already, and what is to be corrected. Changes nothing else."""

    @abstractmethod
    async def apply(self, tx: Tx, of: Import, after: int) -> Batch | None:
        """Apply the next new rows after a line and delete them; None when there are no more."""

    @abstractmethod
    async def correct(self, of: Import, after: int) -> Batch | None:
        """Correct the next rows after a line, each in a transaction of its own; None when there are no more."""
