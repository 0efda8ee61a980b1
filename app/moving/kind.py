"""What a kind of file has of its own: columns, how its rows are read, judged and applied."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from app.api.context import Viewer
from app.moving.fields import Fields
from app.moving.rows import Import
from app.storage.database import Tx

#: What a row is written down as: values in the order of its kind's `stored`, after its line and id.
Record = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """What a batch did: up to which line, how many rows, and lines that somebody else was faster with."""

    to: int
    rows: int
    missed: list[int] = field(default_factory=list)


class Kind(ABC):
    """A kind of file."""

    #: What the file's row calls it, and what its rows make, in the plural.
    name: str
    makes: str
    columns: Sequence[str]
    required: Sequence[str]
    #: Columns of `import_row` that its rows fill.
    stored: Sequence[str]

    def __init__(self, viewer: Viewer, now: datetime) -> None:
        """Take whose file it is, and what counts as now."""
        self.viewer = viewer
        self.now = now

    async def prepare(self) -> None:
        """Read what the rows are read by."""
        return

    def options(self) -> str:
        """Return what else says how the file is read."""
        return ""

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
