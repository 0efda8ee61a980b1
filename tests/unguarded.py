"""What a test writes that the database itself refuses."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.storage.database import Tx, transaction


@asynccontextmanager
async def unguarded(table: str) -> AsyncIterator[Tx]:
    """Open a transaction in which no trigger of a table refuses anything; committed after the block."""
    async with transaction(None) as tx:
        await tx.rows(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        yield tx
        await tx.rows(f"ALTER TABLE {table} ENABLE TRIGGER USER")


async def set_points(points: int, merchant_id: object) -> None:
    """Give all wallets of a merchant so many points that no entry explains."""
    async with unguarded("wallet") as tx:
        await tx.rows("UPDATE wallet SET points = $1 WHERE merchant_id = $2", points, merchant_id)
