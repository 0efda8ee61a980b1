"""Recycling: a code that died unspent leaves its place in the pool to a fresh one; a text is never used again."""

from collections import Counter
from collections.abc import Iterable
from uuid import UUID

from app import ids
from app.coupons.generate_codes import INSERT_BATCH, encrypted_codes, write_codes
from app.storage.crypto import MerchantKeys
from app.storage.database import Tx


async def recycle(
    tx: Tx, keys: MerchantKeys, pool_id: UUID, kind: str, pattern: str | None, *, count: int, actor: str
) -> list[UUID]:
    """Mint `count` codes into a pool's stock, in any status: they replace codes that were in it before.

    Returns the ids of the new codes.
    """
    batch_id = ids.new()
    rows = encrypted_codes(keys, kind, count, pool_id, batch_id, pattern)
    await tx.row(INSERT_BATCH, merchant_id=keys.merchant_id, batch_id=batch_id, pool_id=pool_id, size=count, key=None)
    await write_codes(tx, keys.merchant_id, pool_id, batch_id, rows, actor)
    return [row[1] for row in rows if isinstance(row[1], UUID)]


async def recycle_each(
    tx: Tx, keys: MerchantKeys, places: Iterable[tuple[UUID, str, str | None]], *, actor: str
) -> None:
    """Mint a code for each place that became free, a batch for each pool: (pool, its kind, its pattern)."""
    for (pool_id, kind, pattern), count in sorted(Counter(places).items()):
        await recycle(tx, keys, pool_id, kind, pattern, count=count, actor=actor)
