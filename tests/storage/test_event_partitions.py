"""The months of events. Without these an event could find no place, or be lost when its month is made late."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from app.config import Settings
from app.storage.database import dsn
from app.storage.event_partitions import make_partitions, months_ahead, months_of
from tests.scratch import scratch_database
from workers.make_partitions import make_partitions as make_partitions_by_worker

RECORD = """
INSERT INTO event (merchant_id, id, type, subject_kind, subject_id, actor, occurred_at, member_id, wallet_version,
                   wallet_points, wallet_held_points, wallet_pending_points, wallet_shortfall)
VALUES ($1, $2, 'code.claimed', 'code', $1, 'system', now(), $1, $3, 0, 0, 0, 0)
"""
PLACES = "SELECT tableoid::regclass::text FROM event WHERE merchant_id = $1 ORDER BY id"
JUNE = datetime(2019, 6, 1, tzinfo=UTC)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def connections() -> AsyncIterator[tuple[asyncpg.Connection, asyncpg.Connection]]:
    """Two connections to a database that was migrated and has no events."""
    async with scratch_database() as url:
        two = await asyncpg.connect(dsn(url)), await asyncpg.connect(dsn(url))
        yield two
        for each in two:
            await each.close()


@pytest.fixture
def connection(connections: tuple[asyncpg.Connection, asyncpg.Connection]) -> asyncpg.Connection:
    return connections[0]


def _at(instant: datetime, number: int = 0) -> UUID:
    """Return an id that is made then."""
    return UUID(int=(int(instant.timestamp() * 1000) << 80) + number)


async def test_migrating_makes_the_months_to_come(connection: asyncpg.Connection) -> None:
    assert await months_of(connection) == months_ahead()


async def test_a_worker_makes_them_too_and_finds_them_made(database_pool: Settings) -> None:
    assert await make_partitions_by_worker({}) == 0


def test_a_year_ends_between_two_months() -> None:
    assert months_ahead(datetime(2026, 11, 30, 23, 59, tzinfo=UTC)) == [
        date(2026, 11, 1),
        date(2026, 12, 1),
        date(2027, 1, 1),
    ]


async def test_a_month_that_is_made_late_takes_over_its_events_and_no_others(connection: asyncpg.Connection) -> None:
    merchant_id = uuid4()
    ids = [_at(JUNE, -1), _at(JUNE), _at(datetime(2019, 7, 1, tzinfo=UTC), -1), _at(datetime(2019, 7, 1, tzinfo=UTC))]
    for version, event_id in enumerate(ids):
        await connection.execute(RECORD, merchant_id, event_id, version)
    rows = await connection.fetch("SELECT * FROM event WHERE merchant_id = $1 ORDER BY id", merchant_id)

    made = await make_partitions(connection, [JUNE.date(), JUNE.date()])

    assert made == ([JUNE.date()], [])
    assert await connection.fetch("SELECT * FROM event WHERE merchant_id = $1 ORDER BY id", merchant_id) == rows
    places = [row["tableoid"] for row in await connection.fetch(PLACES, merchant_id)]
    assert places == ["event_default", "event_2019_06", "event_2019_06", "event_default"]


async def test_a_month_waits_while_all_are_read(
    connections: tuple[asyncpg.Connection, asyncpg.Connection],
) -> None:
    connection, reader = connections
    december = date(2018, 12, 1)
    async with reader.transaction():
        await reader.fetch("SELECT FROM event")
        waited = await make_partitions(connection, [december])
        still_written = await connection.execute(RECORD, uuid4(), _at(datetime.now(UTC)), 1)

    assert waited == ([], [december])
    assert still_written == "INSERT 0 1"
    assert await make_partitions(connection, [december]) == ([december], [])


@pytest.mark.parametrize("month", ["event_2019_05", "event_default"])
async def test_a_partition_keeps_its_rows_whoever_names_it(connection: asyncpg.Connection, month: str) -> None:
    merchant_id = uuid4()
    await make_partitions(connection, [date(2019, 5, 1)])
    at = datetime(2019, 5, 9, tzinfo=UTC) if month != "event_default" else datetime(2018, 5, 9, tzinfo=UTC)
    await connection.execute(RECORD, merchant_id, _at(at), 7)

    for statement, refusal in (
        (f"DELETE FROM {month}", "event_kept"),
        (f"TRUNCATE {month}", "event_kept"),
        (f"UPDATE {month} SET actor = actor", "event_fixed"),
    ):
        with pytest.raises(asyncpg.CheckViolationError) as violation:
            await connection.execute(statement)
        assert violation.value.constraint_name == refusal
    with pytest.raises(asyncpg.UniqueViolationError) as twice:
        await connection.execute(RECORD, merchant_id, _at(at, 1), 7)
    assert twice.value.constraint_name == f"{month}_wallet_version"
