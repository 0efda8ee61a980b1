"""The audit: the promises of every merchant, recomputed; what is broken is an event."""

import contextlib
from collections.abc import AsyncIterator
from typing import Final
from uuid import UUID

import asyncpg

from app.integrity.integrity_report import IntegrityReport, recompute
from app.storage import events
from app.storage.database import database, transaction

#: A promise of a large merchant may take its time.
PROMISE_SECONDS_MAX: Final = 600.0

MERCHANTS: Final = "SELECT merchant_id FROM merchant ORDER BY merchant_id"


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
