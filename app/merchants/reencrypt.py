"""Re-encryption: every stored value of a merchant moves under a new data key, while the merchant is being served.

1. Each merchant gets a new version of its ENCRYPTION key, unless an earlier run left one that isn't adopted yet.
2. Nobody encrypts under a version before it has settled, so that every process knows it by then.
3. The values are encrypted again, a batch per transaction, in the order of their ids.
4. Once no request can still hold the older keys, a second pass takes what was written under them meanwhile, and the
   version is adopted: what tells a later run that there is nothing left to do for it.

What was done is in the rows themselves, so a run can be killed anywhere, and several can run at once. Older versions
are kept: no proof is free that no restored row, and no job that was asleep, needs one again.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypedDict
from uuid import UUID

from rich.progress import Progress

from app import ids
from app.config import ConfigurationError
from app.merchants.data_keys import SETTLING_SECONDS, DataKeyRow, next_key, unwrap
from app.storage.crypto import DecryptionError, MerchantKeys
from app.storage.database import database
from app.storage.fences import MerchantClosedError, stands
from app.storage.statements import NoRow, Statement, columns, statement


@dataclass(frozen=True, slots=True)
class Sealed:
    """A column of ciphertexts: encrypted as `keys.encrypt(<value of row_id>, identity, text)`."""

    table: str
    row_id: str
    column: str
    identity: str


#: Every column that holds ciphertexts under data keys. A new one is a line here. Where a value moves from one column to
#: another, the one that it comes from is first: it is found in one of both.
SEALED: Final = (
    Sealed("import_row", "id", "email", "email"),
    Sealed("import_row", "id", "display_name", "display_name"),
    Sealed("import_row", "id", "ciphertext", "code"),
    Sealed("code", "id", "ciphertext", "code"),
    Sealed("delivery", "code_id", "recipient", "recipient"),
    Sealed("member", "id", "pending_email", "email"),
    Sealed("member", "id", "email", "email"),
    Sealed("member", "id", "display_name", "display_name"),
    Sealed("event", "id", "reason", "reason"),
    Sealed("entry_reference", "entry_id", "reference", "reference"),
    Sealed("invite", "id", "email", "email"),
    Sealed("invite", "id", "token", "token"),
    Sealed("reversal", "redemption_id", "reason", "reason"),
    Sealed("bulk_job", "id", "reason", "reason"),
    Sealed("advice_run", "id", "raw_answer", "raw_answer"),
    Sealed("webhook", "id", "url", "url"),
    Sealed("webhook", "id", "secret", "secret"),
    Sealed("webhook", "id", "previous_secret", "secret"),
)

#: Rows looked at, and values written, by one statement. Writers of these rows wait for no more than a few values.
PAGE: Final = 2000
BATCH: Final = 200
#: After it has settled, for how long a version may still be missing from what a process encrypts with: a tenant is
#: kept for 5 s, the viewer that holds it for 5 s more, and the operation of that viewer may take 10 s.
DRAINING_SECONDS: Final = 20.0
_AGAIN_SECONDS: Final = 0.2
_FIRST: Final = UUID(int=0)


class _MerchantRow(TypedDict):
    merchant_id: UUID


class _AgeRow(TypedDict):
    seconds: float


class _CountRow(TypedDict):
    rows: int


class _ValueRow(TypedDict):
    """A row's id, and its value if that is under an older key."""

    id: UUID
    old: bytes | None


class _ReplacedRow(TypedDict):
    id: UUID


FIND_MERCHANTS: Final = statement(
    _MerchantRow,
    f"""
SELECT merchant_id FROM merchant m
WHERE {stands("m")} AND (:merchant_id::uuid IS NULL OR merchant_id = :merchant_id) ORDER BY 1
""",
)
FIND_KEYS: Final = statement(
    DataKeyRow, f"SELECT {columns(DataKeyRow)} FROM data_key k WHERE k.merchant_id = :merchant_id"
)
AGE: Final = statement(
    _AgeRow,
    """
SELECT extract(epoch FROM clock_timestamp() - created_at)::float8 AS seconds
FROM data_key WHERE merchant_id = :merchant_id AND purpose = 'ENCRYPTION' AND version = :version
""",
)
ADOPT: Final = statement(
    NoRow,
    """
UPDATE data_key SET adopted_at = clock_timestamp()
WHERE merchant_id = :merchant_id AND purpose = 'ENCRYPTION' AND version = :version AND adopted_at IS NULL
""",
)


def _count(sealed: Sealed) -> Statement[_CountRow]:
    return statement(_CountRow, f"SELECT count(*) AS rows FROM {sealed.table} WHERE merchant_id = :merchant_id")


def _page(sealed: Sealed) -> Statement[_ValueRow]:
    """Return the statement of a page of rows, whatever is in them, with the values that are under an older key."""
    return statement(
        _ValueRow,
        f"""
    SELECT {sealed.row_id} AS id, CASE WHEN {sealed.column} < :below THEN {sealed.column} END AS old
    FROM {sealed.table} WHERE merchant_id = :merchant_id AND {sealed.row_id} > :after
    ORDER BY {sealed.row_id} FETCH FIRST {PAGE} ROWS WITH TIES
    """,
    )


def _replace(sealed: Sealed) -> Statement[_ReplacedRow]:
    """Return the statement that stores a batch, unless a value has changed since it was read.

    It skips rows that are locked and never waits; claims take the rows that it holds for sold out for these
    milliseconds, and look again.
    """
    return statement(
        _ReplacedRow,
        f"""
    WITH free AS (
        SELECT {sealed.row_id} AS id FROM {sealed.table}
        WHERE merchant_id = :merchant_id AND {sealed.row_id} = ANY(:ids::uuid[])
        ORDER BY {sealed.row_id} FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE {sealed.table} t SET {sealed.column} = r.new
    FROM unnest(:ids::uuid[], :old::bytea[], :new::bytea[]) AS r(id, old, new)
    WHERE t.merchant_id = :merchant_id AND t.{sealed.row_id} = ANY(ARRAY(SELECT id FROM free))
        AND t.{sealed.row_id} = r.id AND t.{sealed.column} = r.old
    RETURNING t.{sealed.row_id} AS id
    """,
    )


#: Of each column: how many rows there are, a page of them, and what stores a batch.
COUNT: Final = {sealed: _count(sealed) for sealed in SEALED}
READ: Final = {sealed: _page(sealed) for sealed in SEALED}
REPLACE: Final = {sealed: _replace(sealed) for sealed in SEALED}


@dataclass(slots=True)
class Reencryption:
    """What a run came to. `unreadable` names the values that don't decrypt; they were left as they are."""

    merchants: int = 0
    #: Those that began to move to another server meanwhile, and weren't ended.
    closed: set[UUID] = field(default_factory=set)
    values: int = 0
    unreadable: set[str] = field(default_factory=set)


async def find_merchants(node_id: str | None) -> list[UUID]:
    """Return the merchant of an id, or all. Raises ConfigurationError when there is no such merchant."""
    merchant_id = None if node_id is None else ids.decode("merchant", node_id)
    merchants = [row["merchant_id"] for row in await database().rows(FIND_MERCHANTS, merchant_id=merchant_id)]
    if node_id is not None and (merchant_id is None or not merchants):
        raise ConfigurationError(f"There is no merchant {node_id[:60]!r}.")
    return merchants


async def reencrypt(merchants: list[UUID], progress: Progress) -> Reencryption:
    """Re-encrypt the values of these merchants. Safe to run again, at once, and to kill.

    A merchant that is closed meanwhile, to move to another server, is left to a run there.
    Raises DecryptionError when a master key is missing.
    """
    done, versions = Reencryption(), dict[UUID, int]()

    async def each(step: Callable[[UUID], Awaitable[object]]) -> None:
        for merchant_id in merchants:
            if merchant_id not in done.closed:
                try:
                    await step(merchant_id)
                except MerchantClosedError:
                    done.closed.add(merchant_id)

    async def begin(merchant_id: UUID) -> None:
        versions[merchant_id] = await next_key(merchant_id, "ENCRYPTION")

    async def adopt(merchant_id: UUID) -> None:
        await drained.over(merchant_id, versions[merchant_id])
        await database().row(ADOPT, merchant_id=merchant_id, version=versions[merchant_id])

    await each(begin)
    settled = _Pass(SETTLING_SECONDS, done, progress, last=False)
    await each(lambda merchant_id: settled.over(merchant_id, versions[merchant_id]))
    drained = _Pass(SETTLING_SECONDS + DRAINING_SECONDS, done, progress, last=True)
    await each(adopt)
    done.merchants = len(merchants) - len(done.closed)
    return done


class _Pass:
    """A pass over all values, with its bar. The last one doesn't leave a merchant before nothing is left to do."""

    def __init__(self, age_seconds: float, done: Reencryption, progress: Progress, *, last: bool) -> None:
        """Take how old a version must be before the pass goes over its merchant."""
        self._age_seconds = age_seconds
        self._done = done
        self._progress = progress
        self._name = "looking once more" if last else "encrypting again"
        self._bar = progress.add_task(self._name, total=0)
        self._rows = 0
        self._last = last

    async def over(self, merchant_id: UUID, version: int) -> None:
        """Re-encrypt a merchant's values under a version of its key."""
        await self._wait(merchant_id, version)
        rows = await database().rows(FIND_KEYS, merchant_id=merchant_id)
        keys = unwrap(merchant_id, rows, current=version)
        await self._lengthen_bar(merchant_id)
        for sealed in SEALED:
            while await self._column(sealed, keys) and self._last:  # noqa: ASYNC110  (others' locks end unseen)
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _lengthen_bar(self, merchant_id: UUID) -> None:
        """Count the merchant's rows for the bar, unless that takes longer than a statement may."""
        with contextlib.suppress(TimeoutError):
            for sealed in SEALED:
                counted = await database().row(COUNT[sealed], merchant_id=merchant_id)
                self._rows += counted["rows"] if counted is not None else 0
        self._progress.update(self._bar, total=self._rows)

    async def _wait(self, merchant_id: UUID, version: int) -> None:
        """Wait until a data key is old enough by the database's clock, which decides when it settles, too."""
        while True:
            age = await database().row(AGE, merchant_id=merchant_id, version=version)
            missing = self._age_seconds - (age["seconds"] if age is not None else self._age_seconds)
            if missing <= 0:
                break
            self._progress.update(self._bar, description=f"all processes learn the keys ({missing:.0f} s)")
            await asyncio.sleep(missing)
        self._progress.update(self._bar, description=self._name)

    async def _column(self, sealed: Sealed, keys: MerchantKeys) -> int:
        """Re-encrypt a column. Returns how many values were locked or have changed meanwhile."""
        after, left = _FIRST, 0
        while page := await database().rows(
            READ[sealed], merchant_id=keys.merchant_id, after=after, below=keys.below_current()
        ):
            older = [(row["id"], row["old"]) for row in page if row["old"] is not None]
            for first in range(0, len(older), BATCH):
                left += await self._batch(sealed, keys, older[first : first + BATCH])
            after = page[-1]["id"]
            self._progress.update(self._bar, advance=len(page))
        return left

    async def _batch(self, sealed: Sealed, keys: MerchantKeys, values: list[tuple[UUID, bytes]]) -> int:
        """Re-encrypt some values in one statement. Returns how many were left alone."""
        row_ids, old, new = [], [], []
        for row_id, value in values:
            try:
                text = keys.decrypt(row_id, sealed.identity, value)
            except DecryptionError:
                if self._last:
                    self._done.unreadable.add(f"{sealed.table}.{sealed.column} of {row_id}")
                continue
            row_ids.append(row_id)
            old.append(value)
            new.append(keys.encrypt(row_id, sealed.identity, text))
        if not row_ids:
            return 0
        changed = len(
            await database().rows(REPLACE[sealed], merchant_id=keys.merchant_id, ids=row_ids, old=old, new=new)
        )
        self._done.values += changed
        return len(row_ids) - changed
