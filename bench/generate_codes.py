"""S4: 5,000 codes generated, encrypted, fingerprinted and stored, against a plain COPY of the same rows."""

import time
from statistics import median

from app import ids
from app.api.context import Viewer
from app.coupons.generate_codes import COLUMNS, encrypted_codes, store_batch
from app.storage.database import Tx, transaction
from bench.world import add_pool

BATCH = 5000
ROUNDS = 15

BARE_BATCH = """
INSERT INTO code_batch (merchant_id, id, pool_id, size, created_at) VALUES ($1, $2, $3, $4, now())
"""


async def measure(viewer: Viewer) -> list[str]:
    """Return the table of S4. Both alternate; making the rows for the plain COPY isn't timed."""
    whole: list[float] = []
    making: list[float] = []
    bare: list[float] = []
    pool_id = await add_pool(viewer)
    for _ in range(ROUNDS):
        batch_id = ids.new()
        begun = time.perf_counter()
        rows = encrypted_codes(viewer.tenant.keys, "PERCENT", BATCH, pool_id, batch_id)
        made = time.perf_counter()
        async with transaction(None) as tx:
            await store_batch(tx, viewer, pool_id, batch_id, rows, None)
        whole.append(time.perf_counter() - begun)
        making.append(made - begun)

        batch_id = ids.new()
        rows = encrypted_codes(viewer.tenant.keys, "PERCENT", BATCH, pool_id, batch_id)
        async with transaction(None) as tx:
            await tx.row(BARE_BATCH, viewer.merchant_id, batch_id, pool_id, BATCH)
            begun = time.perf_counter()
            await _copy(tx, rows)
        bare.append(time.perf_counter() - begun)
    ratio = median(a / b for a, b in zip(whole, bare, strict=True))
    return [
        "| what | median ms | against COPY | goal |",
        "|---|---|---|---|",
        f"| plain COPY of the same rows into the same table, committed | {median(bare) * 1000:.0f} | 1.00 | |",
        f"| generate, encrypt, fingerprint, store, record | {median(whole) * 1000:.0f} | {ratio:.2f} | ≤ 2.00 |",
        f"| the computation alone | {median(making) * 1000:.0f} | | |",
    ]


async def _copy(tx: Tx, rows: list[tuple[object, ...]]) -> None:
    await tx.copy("code", COLUMNS, rows)
