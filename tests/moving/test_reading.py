"""Reading files. Without these a spreadsheet's file could be refused, or a broken one read half."""

from pathlib import Path
from typing import Any

import pytest

from app.moving.reading import FIELD_LENGTH_MAX, LINE_BYTES_MAX, Read, UnreadableError, read

COLUMNS = ("externalId", "email", "points")


def _read(path: Path, content: bytes, **names: str) -> list[Read]:
    path.write_bytes(content)
    return list(read(path, COLUMNS, ("externalId",), names))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "export.csv"


@pytest.mark.parametrize(
    "content",
    [
        b"externalId,email\n1,a@example.com\n",
        b"\xef\xbb\xbfexternalId,email\r\n1,a@example.com\r\n",
        b"externalId;email\r\n1;a@example.com",
        b"externalId\temail\n1\ta@example.com\n",
        b'email,externalId\n" a@example.com ", 1\n',
    ],
    ids=["plain", "spreadsheet", "semicolons", "tabs", "quotes and spaces"],
)
def test_files_as_programs_write_them_read_alike(path: Path, content: bytes) -> None:
    (row,) = _read(path, content)

    assert (row.line, row.texts, row.problem) == (2, {"externalId": "1", "email": "a@example.com"}, None)


def test_a_row_has_the_line_that_it_begins_on(path: Path) -> None:
    rows = _read(path, b'externalId,email\n\n"two\nlines",b\nthree,c,d\n')

    assert [(row.line, row.texts["externalId"]) for row in rows] == [(3, "two\nlines"), (5, "three")]
    assert rows[1].problem == "has 3 fields, and the header 2"


def test_headers_are_renamed_and_left_out(path: Path) -> None:
    (row,) = _read(path, b"No,Mail,Birthday\n1,a,2000\n", No="externalId", Mail="email", Birthday="")

    assert row.texts == {"externalId": "1", "email": "a"}


@pytest.mark.parametrize(
    ("content", "line", "why"),
    [
        (b"", 1, "is no header"),
        (b"externalId,Birthday\n", 1, "'Birthday' is no column"),
        (b"email,email\n", 1, "email is there twice; externalId is missing"),
        (b"externalId,email\n1,a\n2,J\xf6rg\n", 3, "isn't UTF-8 (byte 0xf6); save the file as UTF-8"),
        ("externalId\n1\n".encode("utf-16"), 1, "isn't UTF-8 (byte 0xff); save the file as UTF-8"),
        (b'externalId\n"1\n2\n', 2, "unexpected end of data; is a quote missing?"),
        (b'externalId\n"1"2\n', 2, "',' expected after '\"'; is a quote missing?"),
        (b'externalId\n1\n"' + b"x\n" * FIELD_LENGTH_MAX, 3, "has a field of more than 10,000 characters"),
        (b"externalId\n" + b"x" * 10_000_000, 2, "is longer than 100,000 bytes"),
    ],
    ids=["empty", "unknown", "twice", "latin-1", "utf-16", "open quote", "stray quote", "long field", "long line"],
)
def test_what_cannot_be_read_says_where_and_why(path: Path, content: bytes, line: int, why: str) -> None:
    with pytest.raises(UnreadableError) as refused:
        _read(path, content)

    assert refused.value.line == line
    assert str(refused.value).startswith(why)


def test_a_header_that_is_mapped_must_be_there(path: Path) -> None:
    with pytest.raises(UnreadableError, match="'Nr' is mapped, and isn't in the header"):
        _read(path, b"externalId\n", Nr="externalId")


def test_a_huge_field_takes_no_memory(path: Path) -> None:
    import tracemalloc

    with path.open("wb") as file:
        file.write(b'externalId\n"')
        file.seek(500_000_000)
        file.write(b'"\n')
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableError):
            list(read(path, COLUMNS, ("externalId",), {}))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 10 * LINE_BYTES_MAX


def test_memory_does_not_grow_with_rows(path: Path) -> None:
    import tracemalloc

    def peak(rows: int) -> int:
        path.write_bytes(b"externalId,email\n" + b"1,a@example.com\n" * rows)
        tracemalloc.start()
        try:
            read_all: Any = sum(1 for _ in read(path, COLUMNS, ("externalId",), {}))
            assert read_all == rows
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(10_000) < peak(100) + 50_000
