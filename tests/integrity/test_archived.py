"""The report of a merchant whose events were archived. Without these it could find faults that aren't, or none."""

from collections.abc import AsyncIterator
from datetime import date
from uuid import uuid4

import pytest_asyncio

from app.integrity import archived
from app.operate.archive import DROP
from app.storage.database import Tx, transaction
from tests.factories import Shop
from tests.integrity.breaking import one, undone, violations

MONTHS = [date(2021, month, 1) for month in (1, 2, 3)]
#: The first two thirds of the events, in the order of their ids, as if they had been made in these months.
MADE_EARLIER = """
UPDATE event SET id = (left(event_first_id(m.month)::text, 13) || substr(event.id::text, 14))::uuid
FROM (
    SELECT id, ntile(9) OVER (ORDER BY id) AS part FROM event WHERE merchant_id = $1
) e JOIN unnest($2::date[]) WITH ORDINALITY AS m (month, place) ON place = (e.part + 1) / 2
WHERE event.merchant_id = $1 AND event.id = e.id AND e.part <= 6
"""
#: What breaks a promise, by what its events said, and in how many rows that is seen.
BREAKS = [
    ("ON_RECORD", f"UPDATE wallet SET version = version + 1 WHERE {one('wallet')}", 1),
    ("ON_RECORD", f"UPDATE api_key SET revoked_at = now() WHERE {one('api_key', 'revoked_at IS NULL')}", 1),
    ("POOL_LIFECYCLE", f"UPDATE pool SET status = 'ACTIVE' WHERE {one('pool', 'status = $$ARCHIVED$$')}", 1),
    ("EXACT_BALANCES", f"UPDATE points_entry SET balance_after = balance_after + 1 WHERE {one('points_entry')}", 1),
]


@pytest_asyncio.fixture
async def archive(lively: Shop) -> AsyncIterator[Tx]:
    """A transaction, to be rolled back, in which three months of the merchant were archived."""
    async with undone(transaction(None)) as tx:
        await tx.rows("SET LOCAL session_replication_role = replica")
        for month in MONTHS:
            await tx.rows("SELECT make_event_partition($1)", month)
        await tx.rows(MADE_EARLIER, lively.merchant_id, MONTHS)
        for month in MONTHS:
            archive_id, partition = uuid4(), f"event_{month:%Y_%m}"
            await tx.rows(archived.BEGIN.format(month=partition), archive_id, month, "file")
            await tx.rows(archived.KEEP_SUBJECTS.format(month=partition), archive_id)
            await tx.rows(archived.KEEP_WALLETS.format(month=partition), archive_id)
            for statement in DROP.format(month=partition).split("; "):
                await tx.rows(statement)
            await tx.rows(archived.FINISH, archive_id)
        yield tx


async def test_archiving_changes_nothing_in_the_report(lively: Shop, archive: Tx) -> None:
    rows = await archive.rows("SELECT events FROM event_archive WHERE merchant_id = $1", lively.merchant_id)

    assert len(rows) == 3
    assert all(row["events"] > 10 for row in rows)
    assert await violations(archive, lively.merchant_id) == {}


async def test_the_same_faults_are_found_after_archiving(lively: Shop, archive: Tx) -> None:
    for promise, fault, rows in BREAKS:
        async with undone(archive.nested()) as tx:
            await tx.rows(fault, lively.merchant_id)
            assert (fault, (await violations(tx, lively.merchant_id)).get(promise)) == (fault, rows)
