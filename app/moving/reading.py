"""Reading a file: its rows with their lines, in memory that doesn't grow with them.

UTF-8, with the byte order mark and the line ends that spreadsheets write; columns apart by commas, or by semicolons or
tabs where the header has no comma.
"""

import csv
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from app.errors import ConfigurationError

#: No value of any column is nearly as long; a field may hold this many characters, a line ten times as many bytes.
FIELD_LENGTH_MAX: Final = 10_000
LINE_BYTES_MAX: Final = 100_000
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_SEPARATORS: Final = ",;\t"


class UnreadableError(Exception):
    """The file can't be read beyond a line; says why."""

    def __init__(self, line: int, why: str) -> None:
        """Take the line and what is wrong with it."""
        super().__init__(why)
        self.line = line


@dataclass(frozen=True, slots=True)
class Read:
    """A row: the line that it begins on, its texts by the engine's columns, trimmed, and how far the file is read.

    Where it doesn't have a field for each column, `problem` says so.
    """

    line: int
    texts: Mapping[str, str]
    problem: str | None
    bytes_read: int


def digest_of(path: Path) -> bytes:
    """Return the SHA-256 of a file. Raises ConfigurationError when it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror}.") from None


def read(path: Path, columns: Sequence[str], required: Sequence[str], names: Mapping[str, str]) -> Iterator[Read]:
    """Read a file's rows; blank lines are none.

    `names` says which of the engine's `columns` a header stands for, an empty one that it is left out. Raises
    UnreadableError, at the header or later.
    """
    with path.open("rb") as file:
        lines = _Lines(file)
        rows = _Rows(lines)
        header = rows.header()
        places = _places(header, columns, required, names)
        for line, fields in rows.rest():
            problem = None
            if len(fields) != len(header):
                problem = f"has {len(fields)} fields, and the header {len(header)}"
            yield Read(
                line,
                {name: fields[place].strip() for place, name in places.items() if place < len(fields)},
                problem,
                lines.bytes_read,
            )


class _Lines:
    """The lines of a file as text, none of them longer than memory should be."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.number = 0
        self.bytes_read = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        read = self._file.readline(LINE_BYTES_MAX + 1)
        if not read:
            raise StopIteration
        self.number += 1
        if len(read) > LINE_BYTES_MAX:
            raise UnreadableError(self.number, f"is longer than {LINE_BYTES_MAX:,} bytes")
        self.bytes_read += len(read)
        if self.number == 1:
            read = read.removeprefix(_BYTE_ORDER_MARK)
        try:
            return read.decode()
        except UnicodeDecodeError as error:
            why = f"isn't UTF-8 (byte {read[error.start]:#04x}); save the file as UTF-8"
            raise UnreadableError(self.number, why) from None


class _Rows:
    """The records of lines, each with the line that it begins on."""

    def __init__(self, lines: _Lines) -> None:
        self._lines = lines
        self._first = ""

    def header(self) -> list[str]:
        """Return the fields of the first line."""
        # The module's own limit, of the whole process, which reads nothing else.
        csv.field_size_limit(FIELD_LENGTH_MAX)
        self._first = next(self._lines, "")
        for _, fields in self._records([self._first], 1):
            return [field.strip() for field in fields]
        raise UnreadableError(1, "is no header")

    def rest(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the records after it."""
        return self._records(self._lines, self._lines.number + 1)

    def _records(self, lines: Iterable[str], line: int) -> Iterator[tuple[int, list[str]]]:
        try:
            for fields in csv.reader(lines, delimiter=self._separator(), strict=True):
                if fields:
                    yield line, fields
                line = self._lines.number + 1
        except csv.Error as error:
            why = f"has a field of more than {FIELD_LENGTH_MAX:,} characters" if "limit" in str(error) else str(error)
            raise UnreadableError(line, f"{why}; is a quote missing?") from None

    def _separator(self) -> str:
        return next((each for each in _SEPARATORS if each in self._first), ",")


def _places(
    header: Sequence[str], columns: Sequence[str], required: Sequence[str], names: Mapping[str, str]
) -> dict[int, str]:
    """Return which column is where. Raises UnreadableError, which names all that is wrong with the header."""
    wrong = [f"{_shown(name)} is mapped, and isn't in the header" for name in names if name not in header]
    places: dict[int, str] = {}
    for place, name in enumerate(header):
        column = names.get(name, name)
        if not column:
            continue
        if column not in columns:
            wrong.append(f"{_shown(name)} is no column")
        elif column in places.values():
            wrong.append(f"{column} is there twice")
        else:
            places[place] = column
    wrong += [f"{column} is missing" for column in required if column not in places.values()]
    if wrong:
        known = ", ".join(columns)
        raise UnreadableError(1, f"{'; '.join(wrong)}. Columns are {known}; --map renames others or leaves them out")
    return places


def _shown(name: str) -> str:
    return repr(name[:60])
