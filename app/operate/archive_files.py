"""Rows of a table as a Parquet file: written a group at a time, and read back and compared with the rows."""

import errno
import json
import os
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import asyncpg

from app.config import ConfigurationError
from app.storage.files import sha256_of, sync_entries

if TYPE_CHECKING:
    import pyarrow as arrow

#: How many rows are in memory, and a row group of a file.
ROWS: Final = 20_000

COLUMNS: Final = """
SELECT attname::text AS name, format_type(atttypid, NULL) AS type FROM pg_attribute
WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""


@dataclass(frozen=True, slots=True)
class File:
    """A file of archived rows, as its manifest describes it.

    `digest` is the sum of PostgreSQL's hashes of the rows, so that whoever loads them back can compare it.
    """

    table: str
    month: str
    file: str
    rows: int
    digest: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Source:
    """Rows of a table `t`, and the order in which they are written."""

    table: str
    where: str
    order: str = "merchant_id, id"


async def digest_of(connection: asyncpg.Connection, source: Source) -> tuple[int, str]:
    """Return how many rows there are, and the digest of all that is in them."""
    listed = ", ".join(f"t.{row['name']}" for row in await connection.fetch(COLUMNS, source.table))
    (row,) = await connection.fetch(
        f"SELECT count(*) AS rows, coalesce(sum(hash_record_extended(ROW({listed}), 0)), 0)::text AS digest "
        f"FROM {source.table} t WHERE {source.where}"
    )
    return row["rows"], row["digest"]


async def store(connection: asyncpg.Connection, source: Source, path: Path, table: str, month: str) -> File:
    """Return the file at a path that has exactly these rows: the one that is there, or a new one.

    The rows are of one moment. Nothing appears at the path before its rows have been read back, each as it is in the
    table. Raises ConfigurationError when another file is there, or when it can't be written.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        rows, digest = await digest_of(connection, source)
        try:
            if _is_there(path):
                if not await _has(connection, source, path, rows):
                    raise ConfigurationError(
                        f"{path} has other rows than the database; nothing of this month was dropped. Move it away, "
                        "if it isn't needed, and run this again."
                    )
            else:
                await _write(connection, source, path, rows)
            file = _described(path, table, month, rows, digest)
        except OSError as error:
            raise ConfigurationError(
                f"{path} can't be written or read ({error.strerror or error}); nothing of this month was dropped."
            ) from None
    return file


async def _write(connection: asyncpg.Connection, source: Source, path: Path, rows: int) -> None:
    from pyarrow import parquet  # noqa: PLC0415  (half a second of imports)

    partial = path.with_name(f".{path.name}.partial")
    try:
        with _opened(partial) as output:
            schema = await _schema(connection, source)
            with parquet.ParquetWriter(output, schema, compression="zstd") as writer:
                async for batch in _batches(connection, source, schema):
                    writer.write_batch(batch, row_group_size=ROWS)
            output.flush()
            os.fsync(output.fileno())
        if not await _has(connection, source, partial, rows):
            raise RuntimeError(f"{partial} doesn't have the rows that were written to it")
        _publish(partial, path)
    finally:
        _remove(partial)


async def _has(connection: asyncpg.Connection, source: Source, path: Path, rows: int) -> bool:
    """Whether a file has these rows, in their order, and no others."""
    import pyarrow as arrow  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    schema = await _schema(connection, source)
    try:
        with parquet.ParquetFile(path) as file:
            if file.metadata.num_rows != rows or not file.schema_arrow.equals(schema):
                return False
            group = 0
            async for batch in _batches(connection, source, schema):
                if not file.read_row_group(group).equals(arrow.Table.from_batches([batch])):
                    return False
                group += 1
            return bool(group == file.metadata.num_row_groups)
    except arrow.ArrowInvalid:
        return False


async def _schema(connection: asyncpg.Connection, source: Source) -> "arrow.Schema":
    import pyarrow as arrow  # noqa: PLC0415

    types = {
        "smallint": arrow.int16(),
        "integer": arrow.int32(),
        "bigint": arrow.int64(),
        "timestamp with time zone": arrow.timestamp("us", tz="UTC"),
        "bytea": arrow.binary(),
    }
    columns = await connection.fetch(COLUMNS, source.table)
    return arrow.schema([(row["name"], types.get(row["type"], arrow.string())) for row in columns])


async def _batches(
    connection: asyncpg.Connection, source: Source, schema: "arrow.Schema"
) -> "AsyncIterator[arrow.RecordBatch]":
    """Yield the rows in order, ROWS at a time."""
    import pyarrow as arrow  # noqa: PLC0415

    listed = ", ".join(f"t.{field.name}{'::text' if field.type == arrow.string() else ''}" for field in schema)
    cursor = await connection.cursor(
        f"SELECT {listed} FROM {source.table} t WHERE {source.where} ORDER BY {source.order}"
    )
    while rows := await cursor.fetch(ROWS):
        columns: list[Any] = list(zip(*rows, strict=True))
        arrays = [arrow.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
        yield arrow.RecordBatch.from_arrays(arrays, schema=schema)


def _opened(path: Path) -> BinaryIO:
    return path.open("wb")


def _publish(partial: Path, path: Path) -> None:
    partial.rename(path)
    sync_entries(path.parent)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _is_there(path: Path) -> bool:
    return path.exists()


def _described(path: Path, table: str, month: str, rows: int, digest: str) -> File:
    """Return what a file is, and write that beside it."""
    file = File(table, month, path.name, rows, digest, path.stat().st_size, sha256_of(path))
    described = {"engine": version("flash-engine"), **asdict(file)}
    manifest = path.with_suffix(".json")
    partial = manifest.with_name(f".{manifest.name}.partial")
    with partial.open("w") as output:
        output.write(json.dumps(described, indent=2) + "\n")
        output.flush()
        os.fsync(output.fileno())
    partial.rename(manifest)
    sync_entries(path.parent)
    return file


def refuse_folder(folder: Path) -> None:
    """Make a folder unless it is there. Raises ConfigurationError when nothing can be written to it."""
    probe = folder / ".flash-archive"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        said = "it has no room" if error.errno in {errno.ENOSPC, errno.EDQUOT} else error.strerror
        raise ConfigurationError(f"{folder} can't be written ({said}); nothing was archived.") from None
