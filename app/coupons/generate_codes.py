"""generateCodes: a batch of encrypted codes, whole or not at all."""

import asyncio
from typing import Annotated, Final, TypedDict
from uuid import UUID

import asyncpg
import strawberry

from app import ids
from app.api.context import Viewer
from app.api.inputs import Problems, node_id, stored_key
from app.api.operations import IdempotencyKeyReused, Info, InvalidInput, NotFound, Refused, mutation, not_found
from app.coupons import code_text, stock_levels
from app.coupons.edit_pool import PoolNotEditable
from app.coupons.rows import batch_row, pool_row
from app.coupons.typed_codes import foreign_fingerprint
from app.coupons.types import CodeBatch, PoolStatus
from app.storage import events
from app.storage.crypto import MerchantKeys
from app.storage.database import Tx, database, transaction
from app.storage.statements import NoRow, statement

BATCH_SIZE_MAX: Final = 5000


@strawberry.input(description="A batch to generate.")
class GenerateCodesInput:
    pool_id: strawberry.ID = strawberry.field(description="The pool; it must be in DRAFT or PAUSED.")
    count: int = strawberry.field(description="How many codes: 1 to 5,000.")
    idempotency_key: str | None = strawberry.field(
        default=None, description="The same key again returns the same batch; at most 200 characters."
    )


@strawberry.type(description="The batch exists, whole.")
class GenerateCodesSuccess:
    batch: CodeBatch = strawberry.field(description="The batch.")
    replayed: bool = strawberry.field(description="Whether an earlier call with the same key made it.")


GenerateCodesResult = Annotated[
    GenerateCodesSuccess | InvalidInput | NotFound | PoolNotEditable | IdempotencyKeyReused,
    strawberry.union("GenerateCodesResult", description="The batch, or why there is none."),
]

COLUMNS: Final = [
    "merchant_id", "id", "pool_id", "batch_id", "state", "ciphertext", "fingerprint", "suffix", "folded", "is_foreign",
]  # fmt: skip


class PatternChangedError(Exception):
    """The pool has another pattern by now."""

    def __init__(self, pattern: str | None) -> None:
        super().__init__("the pool has another pattern by now")
        self.pattern = pattern


def encrypted_codes(
    keys: MerchantKeys, kind: str, count: int, pool_id: UUID, batch_id: UUID, pattern: str | None = None
) -> list[tuple[object, ...]]:
    """Return the rows (COLUMNS) of `count` new codes. Pure computation, about 15 µs a code of our own form."""
    rows: list[tuple[object, ...]] = []
    if pattern is None:
        for text in code_text.new_codes(kind, count):
            code_id = ids.new()
            ciphertext, fingerprint = keys.encrypt(code_id, "code", text), keys.code_fingerprint(text)
            rows.append((
                keys.merchant_id, code_id, pool_id, batch_id, "AVAILABLE", ciphertext, fingerprint, text[-2:], None,
                False,
            ))  # fmt: skip
        return rows
    for text, suffix in code_text.new_codes_of(pattern, count).items():
        code_id, spelling = ids.new(), code_text.foreign(text)
        if spelling is None:
            raise ValueError("a pattern makes texts that can't be read")
        folded = foreign_fingerprint(keys, code_text.folded(spelling))
        rows.append((
            keys.merchant_id, code_id, pool_id, batch_id, "AVAILABLE", keys.encrypt(code_id, "code", text),
            foreign_fingerprint(keys, spelling), suffix, folded, True,
        ))  # fmt: skip
    return rows


class _HeldPoolRow(TypedDict):
    status: str
    code_pattern: str | None


class _InsertedRow(TypedDict):
    id: UUID


class _EarlierRow(TypedDict):
    id: UUID
    pool_id: UUID
    kind: str
    size: int


#: Batches share this lock; a change of the pool's status or its pattern waits for it.
HOLD_POOL: Final = statement(
    _HeldPoolRow, "SELECT status, code_pattern FROM pool WHERE merchant_id = :merchant_id AND id = :pool_id FOR SHARE"
)
INSERT_BATCH: Final = statement(
    _InsertedRow,
    """
INSERT INTO code_batch (merchant_id, id, pool_id, size, idempotency_key, created_at)
VALUES (:merchant_id, :batch_id, :pool_id, :size, :key, now()) ON CONFLICT DO NOTHING RETURNING id
""",
)
FIND_BY_KEY: Final = statement(
    _EarlierRow,
    "SELECT id, pool_id, kind, size FROM code_batch WHERE merchant_id = :merchant_id AND idempotency_key = :key",
)


async def store_batch(
    tx: Tx, viewer: Viewer, pool_id: UUID, batch_id: UUID, rows: list[tuple[object, ...]], key: bytes | None,
    pattern: str | None = None,
) -> bool:  # fmt: skip
    """Write the batch, its codes, the stock and the event. Returns False when the key has a batch already.

    Raises Refused when the pool doesn't take codes, or is discarded by now, and PatternChangedError when the codes
    aren't of its pattern any more.
    """
    merchant_id = viewer.merchant_id
    held = await tx.row(HOLD_POOL, merchant_id=merchant_id, pool_id=pool_id)
    if held is None:
        raise not_found("pool", ids.encode("pool", pool_id))
    if held["status"] not in {"DRAFT", "PAUSED"}:
        if key is not None and await tx.row(FIND_BY_KEY, merchant_id=merchant_id, key=key) is not None:
            return False  # The same request has made the batch since, and then the pool was activated.
        raise _not_editable(PoolStatus(held["status"]))
    if held["code_pattern"] != pattern:
        raise PatternChangedError(held["code_pattern"])
    inserted = await tx.row(
        INSERT_BATCH, merchant_id=merchant_id, batch_id=batch_id, pool_id=pool_id, size=len(rows), key=key
    )
    if inserted is None:
        return False
    await write_codes(tx, merchant_id, pool_id, batch_id, rows, viewer.actor)
    await tx.row(stock_levels.FORGET, merchant_id=merchant_id, pool_id=pool_id)
    return True


ADD_STOCK: Final = statement(
    NoRow,
    """
INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
VALUES (:merchant_id, :pool_id, :id, :available, 0, 0, 0, 0)
""",
)


async def write_codes(
    tx: Tx, merchant_id: UUID, pool_id: UUID, batch_id: UUID, rows: list[tuple[object, ...]], actor: str
) -> None:
    """Write the codes of a batch that exists, the stock and the event."""
    await tx.copy("code", COLUMNS, rows)
    await tx.row(ADD_STOCK, merchant_id=merchant_id, pool_id=pool_id, id=ids.new(), available=len(rows))
    await events.record(tx, merchant_id, "codes.generated", batch_id, actor)


@mutation(description="Generate up to 5,000 codes in a pool that is in DRAFT or PAUSED, all or none. ADMIN only.")
async def generate_codes(
    info: Info,
    input: Annotated[GenerateCodesInput, strawberry.argument(description="The batch to generate.")],
) -> GenerateCodesResult:
    viewer = info.context.viewer
    problems = Problems()
    problems.number("count", input.count, least=1, most=BATCH_SIZE_MAX)
    told = problems.idempotency_key(input.idempotency_key)
    problems.refuse_if_any()
    key = None if told is None else stored_key(viewer, told)
    pool_id = node_id("pool", "pool", input.pool_id)
    pool = await pool_row(database(), viewer, pool_id)
    if pool is None:
        raise not_found("pool", input.pool_id)
    earlier = await _earlier(viewer, pool_id, input.count, key)
    if earlier is not None:
        return earlier
    status = PoolStatus(pool["pool_status"])
    if status not in {PoolStatus.DRAFT, PoolStatus.PAUSED}:
        raise _not_editable(status)

    batch_id, pattern, clashes = ids.new(), pool["pool_code_pattern"], 0
    while True:
        rows = await asyncio.to_thread(
            encrypted_codes, viewer.tenant.keys, pool["pool_kind"], input.count, pool_id, batch_id, pattern
        )
        try:
            async with transaction(viewer.merchant_id) as tx:
                stored = await store_batch(tx, viewer, pool_id, batch_id, rows, key, pattern)
            break
        except PatternChangedError as changed:
            pattern = changed.pattern
        except asyncpg.UniqueViolationError:
            # A text that the merchant has already. There are 2^60: once is chance, twice is a fault.
            clashes += 1
            if clashes == 2:
                raise
    if not stored:
        earlier = await _earlier(viewer, pool_id, input.count, key)
        if earlier is None:
            raise RuntimeError("a batch vanished while another one waited for it")
        return earlier
    return GenerateCodesSuccess(batch=CodeBatch.of(await batch_row(viewer, batch_id)), replayed=False)


async def _earlier(viewer: Viewer, pool_id: UUID, count: int, key: bytes | None) -> GenerateCodesSuccess | None:
    """Return the batch that this key made before. Raises Refused when it was another request."""
    if key is None:
        return None
    earlier = await database().row(FIND_BY_KEY, merchant_id=viewer.merchant_id, key=key)
    if earlier is None:
        return None
    if (earlier["pool_id"], earlier["kind"], earlier["size"]) != (pool_id, "GENERATED", count):
        raise Refused(IdempotencyKeyReused(message="This idempotencyKey was used for another batch."))
    return GenerateCodesSuccess(batch=CodeBatch.of(await batch_row(viewer, earlier["id"])), replayed=True)


def _not_editable(status: PoolStatus) -> Refused:
    message = f"Codes can't be generated in a pool that is {status.value}; DRAFT and PAUSED ones take them."
    return Refused(PoolNotEditable(message=message, status=status, fields=[]))
