"""The audit: the promises of every merchant, recomputed; what is broken is an event."""

from collections.abc import AsyncIterator
from typing import Final, TypedDict
from uuid import UUID

from app.config import settings
from app.integrity.held import HELD
from app.integrity.recompute import recompute
from app.storage import events
from app.storage.database import database, took_too_long, transaction
from app.storage.fences import stands
from app.storage.statements import statement


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
    -- What each partition of a table has is as good as the table's.
    UNION SELECT replace(c.relname, p.relname, t.relname) FROM pg_inherits h
    JOIN pg_class p ON p.oid = h.inhrelid AND p.relnamespace = current_schema()::regnamespace
    JOIN pg_class t ON t.oid = h.inhparent AND t.relkind = 'p'
    JOIN pg_index i ON i.indrelid = p.oid AND i.indisunique AND i.indisvalid JOIN pg_class c ON c.oid = i.indexrelid
    GROUP BY 1, t.oid HAVING count(*) = (SELECT count(*) FROM pg_inherits WHERE inhparent = t.oid)
    UNION SELECT tgname FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid
    WHERE relnamespace = current_schema()::regnamespace AND NOT tgisinternal AND tgenabled IN ('O', 'A')
    """,
)
MERCHANTS: Final = statement(Audited, f"SELECT merchant_id FROM merchant m WHERE {stands('m')} ORDER BY merchant_id")


async def missing_constraints() -> list[str]:
    """Return the names of the constraints, unique indexes and triggers that should hold promises and don't."""
    standing = {row["name"] for row in await database().rows(STANDING)}
    return sorted({name for held in HELD.values() for name in held.constraints} - standing)


async def audit() -> AsyncIterator[tuple[UUID, dict[str, int] | None]]:
    """Recompute the promises of one merchant after the other; records integrity.violated where one is broken.

    Yields how many rows break each promise, and None where one took too long: those after it are audited all the same.
    """
    for row in await database().rows(MERCHANTS):
        merchant_id = row["merchant_id"]
        try:
            found = await recompute(merchant_id, seconds_max=settings().report_seconds_max)
        except Exception as error:
            if not took_too_long(error):
                raise
            yield merchant_id, None
            continue
        if any(found.values()):
            async with transaction(merchant_id) as tx:
                await events.record(tx, merchant_id, "integrity.violated", merchant_id, "system")
        yield merchant_id, found
