"""importCodes: codes that exist already, in print or in another system, with their owners where they have one."""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Final, TypedDict
from uuid import UUID

import asyncpg
import strawberry
from strawberry.types import get_object_definition

from app import ids
from app.api.context import Viewer
from app.api.inputs import Problems, node_id, stored_key
from app.api.operations import IdempotencyKeyReused, Info, InvalidInput, NotFound, Refused, mutation, not_found
from app.coupons import code_text, stock_levels
from app.coupons.edit_pool import PoolNotEditable
from app.coupons.rows import batch_row
from app.coupons.send_codes import CLAIM_WHERE_FREE, FIND_CLAIMS, FIND_MEMBERS, HOLD_ADDRESSES
from app.coupons.typed_codes import foreign_fingerprint
from app.coupons.types import CodeBatch, PoolStatus
from app.storage import events
from app.storage.crypto import MerchantKeys
from app.storage.database import Tx, database, transaction
from app.storage.statements import NoRow, columns, statement
from app.storage.wallet_versions import ChangeRow, raise_wallets, ring_wallet

CODES_MAX: Final = 5000
TEXT_LENGTH_MAX: Final = 200
ATTEMPTS_MAX: Final = 20
NO_CODE: Final = "must be 4 to 64 letters from A to Z and digits, besides dashes and spaces"
COLUMNS: Final = [
    "merchant_id", "id", "pool_id", "batch_id", "state", "ciphertext", "fingerprint", "folded", "is_foreign", "suffix",
    "bearer", "allocated_at", "expires_at",
]  # fmt: skip
LISTED_COLUMNS: Final = ["merchant_id", "batch_id", "code_id", "pool_id"]


@strawberry.input(description="A code that exists already.")
class ImportedCodeInput:
    text: str = strawberry.field(
        description="The code as it is shown: 4 to 64 letters from A to Z and digits, besides dashes and spaces."
    )
    member_id: strawberry.ID | None = strawberry.field(default=None, description="Whose it is, if it is a member's.")
    email: str | None = strawberry.field(
        default=None, description="The address whose it is, in place of a member; it waits for who proves that."
    )
    expires_at: datetime | None = strawberry.field(
        default=None, description="Until when it can be spent at most, whatever its pool's lifetime; in the future."
    )


# The general way works out the types of each field of 5,000 codes.
get_object_definition(ImportedCodeInput, strict=True).from_input = lambda row, given, _context: row(
    text=given["text"], member_id=given.get("memberId"), email=given.get("email"), expires_at=given.get("expiresAt")
)


@strawberry.input(description="Codes to import. Larger lists are several calls.")
class ImportCodesInput:
    pool_id: strawberry.ID = strawberry.field(description="The pool; it must be in DRAFT or PAUSED.")
    codes: list[ImportedCodeInput] = strawberry.field(description="1 to 5,000 codes, each once however it is spelt.")
    in_circulation: bool = strawberry.field(
        default=False,
        description="Codes without an owner are in people's hands already: bearer codes, which are never claimed or "
        "sent. Otherwise they are stock.",
    )
    idempotency_key: str | None = strawberry.field(
        default=None, description="The same key again returns the same batch; at most 200 characters."
    )


@strawberry.type(description="All codes are imported.")
class ImportCodesSuccess:
    batch: CodeBatch = strawberry.field(description="The batch.")
    replayed: bool = strawberry.field(description="Whether an earlier call with the same key made it.")


ImportCodesResult = Annotated[
    ImportCodesSuccess | InvalidInput | NotFound | PoolNotEditable | IdempotencyKeyReused,
    strawberry.union("ImportCodesResult", description="The batch, or why there is none."),
]


@dataclass(slots=True)
class ImportedCode:
    """A checked code: its place in the input, its text as it was written, and whose it is.

    One that is sealed already, for its id, has its ciphertext in place of the text.
    """

    place: int
    text: str | bytes
    fingerprint: bytes
    folded: bytes
    suffix: str
    length: int
    expires_at: datetime | None
    member_id: UUID | None = None
    email_index: bytes | None = None
    id: UUID = field(default_factory=ids.new)

    @property
    def has_owner(self) -> bool:
        return self.member_id is not None or self.email_index is not None


class ChangedMeanwhile(Exception):  # noqa: N818  (a reason to begin again)
    """An owner claimed or was adopted for, or one of the texts came into being, since it was looked at."""


def _checked(viewer: Viewer, problems: Problems, asked: Sequence[ImportedCodeInput]) -> list[ImportedCode]:
    """Check the rows; about 30 µs each. Raises Refused with InvalidInput or NotFound."""
    keys, now = viewer.tenant.keys, datetime.now(UTC)
    codes: list[ImportedCode] = []
    places: dict[bytes, int] = {}
    missing = None
    for place, row in enumerate(asked):
        path = f"codes.{place}"
        code = read_code(keys, place, row.text, row.expires_at)
        if code is None:
            problems.add(f"{path}.text", NO_CODE)
            continue
        if places.setdefault(code.fingerprint, place) != place:
            problems.add(f"{path}.text", f"is the same code as codes.{places[code.fingerprint]}")
        if row.member_id is not None and row.email is not None:
            problems.add(path, "may name a member or an address, and not both")
        elif row.email is not None:
            code.email_index = keys.email_index(problems.email(f"{path}.email", row.email))
        elif row.member_id is not None:
            named = ids.decode("member", row.member_id)
            code.member_id = None if named is None else viewer.standing(named)
            missing = missing or (row.member_id if named is None else None)
        if row.expires_at is not None and row.expires_at <= now:
            problems.add(f"{path}.expiresAt", "must be in the future")
        codes.append(code)
    problems.refuse_if_any()
    if missing is not None:
        raise not_found("member", missing)
    return codes


def read_code(keys: MerchantKeys, place: int, written: str, expires_at: datetime | None) -> ImportedCode | None:
    """Return the code that somebody wrote, or None where it can't be one."""
    text = written.strip()
    if len(text) > TEXT_LENGTH_MAX:
        return None
    own, spelling = code_text.parse(text), code_text.foreign(text)
    if spelling is None:
        return None
    # One of our own form with a right check character is read as ours, so it is that one.
    fingerprint = foreign_fingerprint(keys, spelling) if own is None else keys.code_fingerprint(own)
    folded = foreign_fingerprint(keys, code_text.folded(spelling))
    suffix = code_text.foreign_suffix(spelling)
    return ImportedCode(place, text, fingerprint, folded, suffix, len(spelling), expires_at)


class _HeldRow(TypedDict):
    status: str
    transferable: bool
    claims_per_member: int
    code_lifetime_days: int | None
    starts_at: datetime | None


class _InsertedRow(TypedDict):
    id: UUID


class _EarlierRow(TypedDict):
    id: UUID
    request_hash: bytes | None


class _FingerprintRow(TypedDict):
    fingerprint: bytes


# Imports and batches of one pool go one after another; a change of the pool's status waits for them.
HOLD_POOL: Final = statement(
    _HeldRow,
    """
SELECT status, transferable, claims_per_member, code_lifetime_days, starts_at
FROM pool WHERE merchant_id = :merchant_id AND id = :pool_id FOR NO KEY UPDATE
""",
)
INSERT_BATCH: Final = statement(
    _InsertedRow,
    """
INSERT INTO code_batch (merchant_id, id, pool_id, kind, size, idempotency_key, request_hash, created_at)
VALUES (:merchant_id, :batch_id, :pool_id, 'IMPORTED', :size, :key, :request_hash, now())
ON CONFLICT DO NOTHING RETURNING id
""",
)
FIND_BY_KEY: Final = statement(
    _EarlierRow,
    "SELECT id, request_hash FROM code_batch WHERE merchant_id = :merchant_id AND idempotency_key = :key",
)
FIND_TEXTS: Final = statement(
    _FingerprintRow,
    """
SELECT fingerprint FROM code WHERE merchant_id = :merchant_id AND fingerprint = ANY(:fingerprints::bytea[])
""",
)
ADD_LENGTHS: Final = statement(
    NoRow,
    """
INSERT INTO code_length (merchant_id, length) SELECT :merchant_id, each FROM unnest(:lengths::smallint[]) AS each
ORDER BY each ON CONFLICT DO NOTHING
""",
)
ADD_STOCK: Final = statement(
    NoRow,
    """
INSERT INTO stock_change (merchant_id, pool_id, id, available, allocated, redeemed, expired, revoked)
VALUES (:merchant_id, :pool_id, :id, :available, :allocated, 0, 0, 0)
""",
)
# Raises wallets, so it comes after the claims, as in a campaign.
ALLOCATE: Final = statement(
    ChangeRow,
    f"""
WITH asked AS (
    SELECT * FROM unnest(:code_ids::uuid[], :member_ids::uuid[], :email_indexes::bytea[], :by_address::bool[],
        :event_ids::uuid[]) AS t (code_id, member_id, email_index, is_by_address, event_id)
), changed AS (
    SELECT event_id, code_id AS subject_id, member_id, NULL::bytea AS reason FROM asked
), {raise_wallets("code.imported")}, c AS (
    UPDATE code SET state = 'ALLOCATED', member_id = had.member_id, email_index = had.email_index,
        matched_by = CASE WHEN had.is_by_address THEN 'CLAIM_EMAIL' ELSE 'MEMBER_ID' END, allocated_at = had.at,
        expires_at = least(
            code.expires_at, greatest(had.at, :starts_at) + make_interval(days => :lifetime_days)
        )
    FROM (
        SELECT asked.*, coalesce(raised.changed_at, now()) AS at
        FROM asked LEFT JOIN raised ON raised.member_id = asked.member_id
    ) had
    WHERE code.merchant_id = :merchant_id AND code.id = ANY(:code_ids::uuid[]) AND code.id = had.code_id
)
SELECT {columns(ChangeRow)} FROM recorded ev WHERE ev.member_id IS NOT NULL
""",
)


@mutation(
    description="Import up to 5,000 codes that exist already into a pool that is in DRAFT or PAUSED, all or none. An "
    "owner's codes count as claims. ADMIN only."
)
async def import_codes(
    info: Info, input: Annotated[ImportCodesInput, strawberry.argument(description="The codes to import.")]
) -> ImportCodesResult:
    viewer = info.context.viewer
    problems = Problems()
    told = problems.idempotency_key(input.idempotency_key)
    if not 1 <= len(input.codes) <= CODES_MAX:
        problems.add("codes", f"must be 1 to {CODES_MAX} codes")
        problems.refuse_if_any()
    key = None if told is None else stored_key(viewer, told)
    pool_id = node_id("pool", "pool", input.pool_id)
    # A replay is one whatever time it is by now.
    request_hash = _hash(viewer, pool_id, input)
    for _ in range(ATTEMPTS_MAX):
        earlier = await _earlier(viewer, key, request_hash)
        if earlier is not None:
            return earlier
        codes = await asyncio.to_thread(_checked, viewer, problems, input.codes)
        batch_id = ids.new()
        try:
            async with transaction(viewer.merchant_id) as tx:
                is_new = await bring_in(
                    tx, viewer, pool_id, batch_id, codes, in_circulation=input.in_circulation, key=key,
                    request_hash=request_hash,
                )  # fmt: skip
        except (ChangedMeanwhile, asyncpg.UniqueViolationError):
            continue
        if is_new:
            return ImportCodesSuccess(batch=CodeBatch.of(await batch_row(viewer, batch_id)), replayed=False)
    raise RuntimeError("owners kept changing while codes were imported")


def _hash(viewer: Viewer, pool_id: UUID, input: ImportCodesInput) -> bytes:
    """Return what tells this request from another one. Without the keys nobody can try texts by it."""
    digest = hashlib.sha256(pool_id.bytes + bytes([input.in_circulation]))
    for row in input.codes:
        digest.update(repr((row.text, row.member_id, row.email, row.expires_at)).encode("utf-8", "surrogatepass"))
    return viewer.tenant.keys.request_index(f"import\0{digest.hexdigest()}")


async def bring_in(
    tx: Tx, viewer: Viewer, pool_id: UUID, batch_id: UUID, codes: Sequence[ImportedCode], *, in_circulation: bool,
    key: bytes | None, request_hash: bytes | None,
) -> bool:  # fmt: skip
    """Write the codes as a batch. The order of locks is that of a claim. Returns False when the key has one already.

    Raises Refused, and ChangedMeanwhile or asyncpg.UniqueViolationError: the transaction is to be tried again.
    """
    merchant_id = viewer.merchant_id
    pool = await tx.row(HOLD_POOL, merchant_id=merchant_id, pool_id=pool_id)
    if pool is None:
        raise not_found("pool", ids.encode("pool", pool_id))
    inserted = await tx.row(
        INSERT_BATCH,
        merchant_id=merchant_id,
        batch_id=batch_id,
        pool_id=pool_id,
        size=len(codes),
        key=key,
        request_hash=request_hash,
    )
    if inserted is None:
        return False
    await _refuse_unfit(tx, viewer, pool, codes, in_circulation=in_circulation)
    rows = await asyncio.to_thread(_rows, viewer.tenant.keys, pool_id, batch_id, codes, in_circulation)
    await tx.copy("code", COLUMNS, rows)
    owned = [code for code in codes if code.has_owner]
    bearers = [code for code in codes if in_circulation and not code.has_owner]
    await tx.copy("bearer_code", LISTED_COLUMNS, [(merchant_id, batch_id, code.id, pool_id) for code in bearers])
    changes = await _claim(tx, viewer, pool_id, pool, owned) if owned else []
    taken = len(owned) + len(bearers)
    await tx.row(
        ADD_STOCK,
        merchant_id=merchant_id,
        pool_id=pool_id,
        id=ids.new(),
        available=len(codes) - taken,
        allocated=taken,
    )
    await tx.row(ADD_LENGTHS, merchant_id=merchant_id, lengths=sorted({code.length for code in codes}))
    await events.record(tx, merchant_id, "codes.imported", batch_id, viewer.actor)
    await tx.row(stock_levels.FORGET, merchant_id=merchant_id, pool_id=pool_id)
    for change in changes:
        ring_wallet(tx, merchant_id, change)
    return True


async def _refuse_unfit(
    tx: Tx, viewer: Viewer, pool: _HeldRow, codes: Sequence[ImportedCode], *, in_circulation: bool
) -> None:
    """Raise Refused for a pool that takes no such codes, for a text that exists, and for a member that doesn't."""
    status = PoolStatus(pool["status"])
    if status not in {PoolStatus.DRAFT, PoolStatus.PAUSED}:
        message = f"Codes can't be imported into a pool that is {status.value}; DRAFT and PAUSED ones take them."
        raise Refused(PoolNotEditable(message=message, status=status, fields=[]))
    problems = Problems()
    if in_circulation and not pool["transferable"]:
        problems.add("inCirculation", "needs a pool that is transferable")
    known = await tx.many(FIND_TEXTS, merchant_id=viewer.merchant_id, fingerprints=[code.fingerprint for code in codes])
    existing = {row["fingerprint"] for row in known}
    for code in codes:
        if code.fingerprint in existing:
            problems.add(f"codes.{code.place}.text", "exists already")
    problems.refuse_if_any()
    members = {code.member_id for code in codes if code.member_id is not None}
    found = await tx.many(FIND_MEMBERS, merchant_id=viewer.merchant_id, member_ids=list(members))
    missing = members - {row["member_id"] for row in found}
    if missing:
        first = next(code.member_id for code in codes if code.member_id in missing)
        raise not_found("member", ids.encode("member", first))


def _rows(
    keys: MerchantKeys, pool_id: UUID, batch_id: UUID, codes: Sequence[ImportedCode], in_circulation: bool
) -> list[tuple[object, ...]]:
    """Return the rows (COLUMNS) of imported codes: stock, bearer codes, and what gets its owner right after."""
    now = datetime.now(UTC)
    rows: list[tuple[object, ...]] = []
    for code in codes:
        is_bearer = in_circulation and not code.has_owner
        ciphertext = code.text if isinstance(code.text, bytes) else keys.encrypt(code.id, "code", code.text)
        rows.append((
            keys.merchant_id, code.id, pool_id, batch_id, "ALLOCATED" if is_bearer else "AVAILABLE", ciphertext,
            code.fingerprint, code.folded, True, code.suffix, is_bearer, now if is_bearer else None, code.expires_at,
        ))  # fmt: skip
    return rows


async def _claim(
    tx: Tx, viewer: Viewer, pool_id: UUID, pool: _HeldRow, owned: Sequence[ImportedCode]
) -> Sequence[ChangeRow]:
    """Give codes to their owners, each a claim. Raises Refused(InvalidInput) beyond a limit, and ChangedMeanwhile."""
    merchant_id = viewer.merchant_id
    by_address = {code.id for code in owned if code.email_index is not None}
    addresses = {code.email_index for code in owned if code.email_index is not None}
    if addresses:
        # Whoever has proved the address is the owner.
        held = await tx.many(HOLD_ADDRESSES, merchant_id=merchant_id, email_indexes=list(addresses))
        proved = {row["email_index"]: row["member_id"] for row in held}
        for code in owned:
            if code.email_index in proved:
                code.member_id, code.email_index = proved[code.email_index], None
    slots = await _slots(tx, viewer, pool_id, pool["claims_per_member"], owned)
    claimed = await tx.many(
        CLAIM_WHERE_FREE,
        merchant_id=merchant_id,
        pool_id=pool_id,
        code_ids=[code.id for code in owned],
        member_ids=[code.member_id for code in owned],
        email_indexes=[code.email_index for code in owned],
        slots=slots,
        # What was imported has its owners, whoever else reads their mailboxes.
        mailbox_indexes=[None for _ in owned],
    )
    if len(claimed) < len(owned):
        raise ChangedMeanwhile
    return await tx.many(
        ALLOCATE,
        merchant_id=merchant_id,
        starts_at=pool["starts_at"],
        lifetime_days=pool["code_lifetime_days"],
        code_ids=[code.id for code in owned],
        member_ids=[code.member_id for code in owned],
        email_indexes=[code.email_index for code in owned],
        by_address=[code.id in by_address for code in owned],
        event_ids=[ids.new() for _ in owned],
        actor=viewer.actor,
    )


async def _slots(tx: Tx, viewer: Viewer, pool_id: UUID, limit: int, owned: Sequence[ImportedCode]) -> list[int]:
    """Return the slot of each code, after what its owner has. Raises Refused(InvalidInput), naming the rows."""
    rows = await tx.many(
        FIND_CLAIMS,
        merchant_id=viewer.merchant_id,
        pool_id=pool_id,
        member_ids=list({code.member_id for code in owned if code.member_id is not None}),
        email_indexes=list({code.email_index for code in owned if code.email_index is not None}),
    )
    has: defaultdict[UUID | bytes | None, list[int]] = defaultdict(lambda: [0, 0])
    has |= {row["member_id"] or row["email_index"]: [row["claims"], row["slot"]] for row in rows}
    problems = Problems()
    slots = []
    for code in owned:
        owner = has[code.member_id or code.email_index]
        owner[0] += 1
        owner[1] += 1
        slots.append(owner[1])
        if owner[0] > limit:
            problems.add(f"codes.{code.place}", f"is beyond the {limit} that an owner can have of the pool")
    problems.refuse_if_any()
    return slots


async def _earlier(viewer: Viewer, key: bytes | None, request_hash: bytes) -> ImportCodesSuccess | None:
    """Return the batch that this key made before. Raises Refused when it was another request."""
    if key is None:
        return None
    earlier = await database().row(FIND_BY_KEY, merchant_id=viewer.merchant_id, key=key)
    if earlier is None:
        return None
    if earlier["request_hash"] != request_hash:
        raise Refused(IdempotencyKeyReused(message="This idempotencyKey was used for another batch."))
    return ImportCodesSuccess(batch=CodeBatch.of(await batch_row(viewer, earlier["id"])), replayed=True)
