"""The audit: the promises of every merchant, recomputed; what is broken is an event."""

import contextlib
from collections.abc import AsyncIterator
from typing import Final, TypedDict
from uuid import UUID

import asyncpg

from app.integrity.held import HELD
from app.integrity.integrity_report import IntegrityReport, recompute
from app.storage import events
from app.storage.database import database, transaction
from app.storage.fences import stands
from app.storage.statements import statement

#: A promise of a large merchant may take its time.
PROMISE_SECONDS_MAX: Final = 600.0


class Standing(TypedDict):
    """What the database refuses by."""

    name: str


class Audited(TypedDict):
    """Whose promises are recomputed."""

    merchant_id: UUID


# A constraint whose internal triggers are disabled is in the catalog and holds nothing.
STANDING: Final = statement(
    Standing,
    """
    SELECT conname AS name FROM pg_constraint k WHERE connamespace = current_schema()::regnamespace AND convalidated
        AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgconstraint = k.oid AND tgenabled NOT IN ('O', 'A'))
    UNION SELECT relname FROM pg_index JOIN pg_class c ON c.oid = indexrelid
    WHERE relnamespace = current_schema()::regnamespace AND indisunique AND indisvalid
    UNION SELECT tgname FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid
    WHERE relnamespace = current_schema()::regnamespace AND NOT tgisinternal AND tgenabled IN ('O', 'A')
    """,
)
MERCHANTS: Final = statement(Audited, f"SELECT merchant_id FROM merchant m WHERE {stands('m')} ORDER BY merchant_id")


async def missing_constraints() -> list[str]:
    """Return the names of the constraints, unique indexes and triggers that should hold promises and don't."""
    standing = {row["name"] for row in await database().rows(STANDING)}
    return sorted({name for held in HELD.values() for name in held.constraints} - standing)


async def audit() -> AsyncIterator[tuple[UUID, IntegrityReport | None]]:
    """Recompute the promises of one merchant after the other; records integrity.violated where one is broken.

    A merchant has no report where a promise took too long: those after it are audited all the same.
    """
    for row in await database().rows(MERCHANTS):
        merchant_id = row["merchant_id"]
        report: IntegrityReport | None = None
        with contextlib.suppress(TimeoutError, asyncpg.QueryCanceledError):
            report = await recompute(merchant_id, seconds_max=PROMISE_SECONDS_MAX)
        if report is not None and not report.ok:
            async with transaction(merchant_id) as tx:
                await events.record(tx, merchant_id, "integrity.violated", merchant_id, "system")
        yield merchant_id, report
