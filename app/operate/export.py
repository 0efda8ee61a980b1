"""`flash export`: reports as files, all of one moment, which appear only when they are complete."""

import asyncio
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, TypedDict
from uuid import UUID

import asyncpg
from strawberry.utils.str_converters import to_camel_case

from app import ids
from app.api.scalars import serialize_date_time
from app.config import ConfigurationError
from app.operate.preflight import missing_migrations, reach
from app.reports.columns import columns_of
from app.reports.tables import REPORTS, money_of
from app.storage.files import sha256_of, sync_entries
from app.storage.statements import statement

Format = Literal["csv", "parquet"]

#: How long the database may send nothing before it counts as gone. Each report begins with an index, so soon.
SILENCE_SECONDS_MAX: Final = 120.0
_FAILURES: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
MANIFEST: Final = "manifest.json"
#: How much of a CSV file becomes a row group. It bounds the memory.
_BLOCK_BYTES: Final = 4 * 1024 * 1024
#: What the manifest calls each type of column: the scalars of the API.
_SCALARS: Final = {str: "String", float: "Float", bool: "Boolean", datetime: "DateTime"}

# A server may end long statements by itself; that is meant for statements that somebody waits for.
BEGIN: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0"


class _MerchantRow(TypedDict):
    currency: str
    is_replica: bool
    as_of: datetime


# The first statement takes the database snapshot, so the primary's is as of now. A replica's is as of what it has
# replayed, or as of the latest event if it has replayed nothing since it started.
MERCHANT: Final = statement(
    _MerchantRow,
    """
SELECT currency, pg_is_in_recovery() AS is_replica,
    CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_xact_replay_timestamp(), latest.occurred_at, now()) ELSE now()
        END AS as_of
FROM merchant LEFT JOIN LATERAL (
    SELECT occurred_at FROM event WHERE merchant_id = :merchant_id ORDER BY id DESC LIMIT 1
) latest ON true
WHERE merchant_id = :merchant_id
""",
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a file. `type` is a scalar of the API."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class File:
    """A file of an export, as the manifest describes it."""

    table: str
    file: str
    rows: int
    bytes: int
    sha256: str
    columns: list[Column]


@dataclass(frozen=True, slots=True)
class Manifest:
    """An export: whose rows, as of when, and the files."""

    engine: str
    merchant_id: str
    currency: str
    as_of: str
    read_from: Literal["primary", "replica"]
    format: Format
    files: list[File]

    def to_json(self) -> str:
        return json.dumps({to_camel_case(name): value for name, value in asdict(self).items()}, indent=2) + "\n"


class _DiskError(Exception):
    """The files can't be written. An OSError of the network is another matter."""


async def export(
    url: str, setting: str, named: str, directory: Path, tables: Sequence[str], file_format: Format
) -> Manifest:
    """Write reports of a merchant to a directory, which appears when all of them are complete.

    All are read in one transaction, so they agree: a code that is redeemed in one file is redeemed in the others. COPY
    streams rows to the disk, so that memory doesn't grow with them and the transaction is short; other formats are
    made from the files afterwards.

    Raises ConfigurationError, and leaves nothing behind, when anything is wrong.
    """
    merchant_id = ids.decode("merchant", named)
    if merchant_id is None:
        raise ConfigurationError(f"There is no merchant {named}.")
    _refuse_tables(tables)
    if file_format == "parquet" and find_spec("pyarrow") is None:
        raise ConfigurationError("Parquet needs pyarrow: install the extra `export`, or use --format csv.")
    with _appearing(directory) as partial:
        try:
            manifest = await _copied(url, setting, merchant_id, tables, partial)
            if file_format == "parquet":
                manifest = await asyncio.to_thread(_as_parquet, manifest, partial)
            await asyncio.to_thread(_write_manifest, manifest, partial)
        except _DiskError as error:
            raise ConfigurationError(f"The files can't be written ({error}); nothing was exported.") from None
    return manifest


def _refuse_tables(tables: Sequence[str]) -> None:
    unknown = sorted(set(tables) - REPORTS.keys())
    if unknown:
        raise ConfigurationError(f"There is no table {unknown[0]!r}; choose from {', '.join(REPORTS)}.")


@contextmanager
def _appearing(directory: Path) -> Iterator[Path]:
    """Yield a private directory, which becomes this one when the block succeeds and is deleted when it doesn't."""
    target = directory.absolute()
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ConfigurationError(f"{directory} exists already; choose a directory that doesn't, or that is empty.")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    except OSError as error:
        raise ConfigurationError(f"{directory} can't be written: {error.strerror}.") from None
    try:
        yield partial
        try:
            partial.rename(target)
        except OSError as error:
            raise ConfigurationError(f"{directory} can't be written: {error.strerror}; nothing was exported.") from None
        sync_entries(target.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


async def _copied(url: str, setting: str, merchant_id: UUID, tables: Sequence[str], into: Path) -> Manifest:
    """Write CSV files from one database snapshot."""
    connection = await reach(url, setting)
    try:
        async with asyncio.timeout(SILENCE_SECONDS_MAX):
            missing = await missing_migrations(connection)
            if missing:
                raise ConfigurationError(f"The database lacks migrations ({', '.join(missing)}); run `flash migrate`.")
            await connection.execute(BEGIN)
            merchant = await connection.fetchrow(MERCHANT.text, merchant_id)
        if merchant is None:
            raise ConfigurationError(f"There is no merchant {ids.encode('merchant', merchant_id)}.")
        values = {"merchant_id": merchant_id, **money_of(merchant["currency"])}
        files = [await _copy(connection, name, values, into) for name in dict.fromkeys(tables)]
    except _FAILURES as error:
        raise ConfigurationError(
            f"The database failed half-way ({type(error).__name__}); nothing was exported. Run this again."
        ) from None
    finally:
        # There is nothing to commit, and a server that is gone or in the middle of a COPY wouldn't listen.
        connection.terminate()
    return Manifest(
        engine=version("flash-engine"),
        merchant_id=ids.encode("merchant", merchant_id),
        currency=merchant["currency"],
        as_of=serialize_date_time(merchant["as_of"]),
        read_from="replica" if merchant["is_replica"] else "primary",
        format="csv",
        files=files,
    )


async def _copy(connection: asyncpg.Connection, name: str, values: Mapping[str, object], into: Path) -> File:
    """Write a report as it arrives. Raises TimeoutError when nothing arrives for too long."""
    report = REPORTS[name]
    path = into / f"{name}.csv"
    digest = hashlib.sha256()
    text, arguments = report.export.text, report.export.arguments(values)
    loop = asyncio.get_running_loop()
    with _written(path) as file:
        async with asyncio.timeout(SILENCE_SECONDS_MAX) as patience:

            async def take(chunk: bytes) -> None:
                patience.reschedule(loop.time() + SILENCE_SECONDS_MAX)
                digest.update(chunk)
                try:
                    file.write(chunk)
                except OSError as error:
                    raise _DiskError(error.strerror) from None

            told = await connection.copy_from_query(text, *arguments, output=take, format="csv", header=True)
    columns = [
        Column(to_camel_case(column), _scalar(kind)) for column, (_, kind) in columns_of(report.row_type).items()
    ]
    return File(
        table=name,
        file=path.name,
        rows=int(told.removeprefix("COPY ")),
        bytes=path.stat().st_size,
        sha256=digest.hexdigest(),
        columns=columns,
    )


def _scalar(kind: Any) -> str:
    return _SCALARS.get(kind, "ID")


@contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file, which is synced when the block ends. Raises _DiskError."""
    try:
        with path.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS, errno.EACCES}:
            raise _DiskError(error.strerror) from None
        raise


def _as_parquet(manifest: Manifest, directory: Path) -> Manifest:
    """Replace the CSV files by Parquet files."""
    return replace(manifest, format="parquet", files=[_parquet_of(each, directory) for each in manifest.files])


def _parquet_of(file: File, directory: Path) -> File:
    # pyarrow is half a second of imports, and optional.
    import pyarrow as arrow  # noqa: PLC0415
    from pyarrow import csv, parquet  # noqa: PLC0415

    types = {
        "ID": arrow.string(),
        "String": arrow.string(),
        "Float": arrow.float64(),
        "Boolean": arrow.bool_(),
        "DateTime": arrow.timestamp("us", tz="UTC"),
    }
    source, target = directory / file.file, directory / f"{file.table}.parquet"
    # Threads would read ahead: 500 MiB instead of 300 for 900,000 rows.
    read = csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False)
    convert = csv.ConvertOptions(
        column_types={column.name: types[column.type] for column in file.columns},
        # A null is an empty field; an empty text has quotes.
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    rows = 0
    with (
        _written(target) as output,
        csv.open_csv(source, read_options=read, convert_options=convert) as blocks,
        parquet.ParquetWriter(output, blocks.schema, compression="zstd") as writer,
    ):
        for block in blocks:
            writer.write_batch(block)
            rows += block.num_rows
    if rows != file.rows:
        raise RuntimeError(f"{file.table} has {file.rows} rows as CSV and {rows} as Parquet")
    source.unlink()
    return File(file.table, target.name, rows, target.stat().st_size, sha256_of(target), file.columns)


def _write_manifest(manifest: Manifest, directory: Path) -> None:
    with _written(directory / MANIFEST) as file:
        file.write(manifest.to_json().encode())
    sync_entries(directory)
