"""Codes of another system, with or without owners: what importCodes does, for files of any size."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypedDict, cast
from uuid import UUID

import asyncpg

from app import ids
from app.api.operations import InvalidInput, NotFound, Refused
from app.coupons.import_codes import ATTEMPTS_MAX, NO_CODE, ChangedMeanwhile, ImportedCode, bring_in, read_code
from app.errors import ConfigurationError
from app.moving.fields import Fields
from app.moving.kind import Batch, Kind, Record, correct_each
from app.moving.rows import (
    DROP_LINES,
    FIND_MEMBERS,
    FIND_STRANGERS,
    Import,
    LineRow,
    compare,
    look_up,
    pass_over_erased,
    repeated,
    rows_of,
)
from app.storage.database import Tx, database
from app.storage.gone import MemberGoneError
from app.storage.statements import NoRow, columns, statement
from app.storage.wallet_versions import ChangeRow, raise_wallets, ring_wallet

#: Codes of one transaction: a batch for each of their pools.
BROUGHT_IN_AT_ONCE: Final = 1000
CORRECTED_AT_ONCE: Final = 200


@dataclass(frozen=True, slots=True)
class _Code:
    pool_id: UUID | None
    code: ImportedCode | None
    external_source: str
    external_id: str | None
    address: str | None
    bearer: bool


class _PoolRow(TypedDict):
    id: UUID
    name: str


POOLS: Final = statement(_PoolRow, "SELECT id, name FROM pool WHERE merchant_id = :merchant_id")
FIND_REPEATED: Final = repeated("text is the code of", "fingerprint")
# Whoever has proved an address is the owner.
FIND_OWNERS: Final = statement(
    NoRow,
    """
UPDATE import_row SET found = a.member_id FROM address a
WHERE import_row.merchant_id = :merchant_id AND import_id = :import_id AND problem IS NULL AND external_id IS NULL
    AND a.merchant_id = :merchant_id AND a.email_index = import_row.email_index AND a.member_id IS NOT NULL
""",
)
# A code without an owner in the file may have found one, and a lifetime may have brought its end nearer.
FIND_EXISTING: Final = statement(
    NoRow,
    """
UPDATE import_row SET verdict = CASE WHEN known.fixed || known.dated = '' THEN 'SAME' ELSE 'CORRECT' END,
    problem = CASE WHEN known.fixed <> '' THEN known.fixed || ' differs and can''t be corrected; revoke the code'
        WHEN known.dated = '' THEN NULL
        WHEN NOT :corrects THEN 'expiresAt differs from the code''s; see --correct'
        WHEN NOT known.is_live THEN 'expiresAt can''t be corrected: the code has ended'
        END
FROM (
    SELECT r.line, c.state IN ('AVAILABLE', 'ALLOCATED') AS is_live,
        concat_ws(
            ', ', CASE WHEN c.pool_id <> r.pool THEN 'pool' END,
            CASE WHEN CASE WHEN r.found IS NOT NULL THEN c.member_id IS DISTINCT FROM r.found
                ELSE r.email_index IS NOT NULL AND c.email_index IS DISTINCT FROM r.email_index END THEN 'owner' END
        ) AS fixed,
        CASE WHEN r.dated_at IS NOT NULL AND c.expires_at IS DISTINCT FROM r.dated_at
            AND NOT (c.allocated_at IS NOT NULL AND p.code_lifetime_days IS NOT NULL AND c.expires_at < r.dated_at)
            THEN 'expiresAt' ELSE '' END AS dated
    FROM import_row r JOIN code c ON c.merchant_id = :merchant_id AND c.fingerprint = r.fingerprint
    JOIN pool p ON p.merchant_id = :merchant_id AND p.id = c.pool_id
    WHERE r.merchant_id = :merchant_id AND r.import_id = :import_id AND r.problem IS NULL AND r.verdict IS NULL
) known
WHERE merchant_id = :merchant_id AND import_id = :import_id AND import_row.line = known.line
""",
)
FIND_CLOSED: Final = statement(
    NoRow,
    """
UPDATE import_row SET problem = CASE WHEN p.status NOT IN ('DRAFT', 'PAUSED')
    THEN 'pool is ' || p.status || '; DRAFT and PAUSED ones take codes'
    ELSE 'pool isn''t transferable, as codes in circulation need it' END
FROM pool p
WHERE import_row.merchant_id = :merchant_id AND import_id = :import_id AND problem IS NULL AND verdict IS NULL
    AND p.merchant_id = :merchant_id AND p.id = import_row.pool
    AND (p.status NOT IN ('DRAFT', 'PAUSED') OR (import_row.bearer AND NOT p.transferable))
""",
)
FIND_BEYOND: Final = statement(
    NoRow,
    """
UPDATE import_row
SET problem = 'is beyond the ' || beyond.claims_per_member || ' codes that an owner can have of the pool'
FROM (
    SELECT owned.line, p.claims_per_member FROM (
        SELECT line, pool, found, CASE WHEN found IS NULL THEN email_index END AS waits_for,
            row_number() OVER (
                PARTITION BY pool, found, CASE WHEN found IS NULL THEN email_index END ORDER BY line
            ) AS place
        FROM import_row
        WHERE merchant_id = :merchant_id AND import_id = :import_id AND problem IS NULL AND verdict IS NULL
            AND num_nonnulls(found, email_index) > 0
    ) owned
    JOIN pool p ON p.merchant_id = :merchant_id AND p.id = owned.pool
    LEFT JOIN (
        SELECT pool_id, member_id, email_index, count(*) AS claims FROM claim WHERE merchant_id = :merchant_id
        GROUP BY pool_id, member_id, email_index
    ) k ON k.pool_id = owned.pool
        AND coalesce(k.member_id::text, encode(k.email_index, 'hex'))
            = coalesce(owned.found::text, encode(owned.waits_for, 'hex'))
    WHERE owned.place + coalesce(k.claims, 0) > p.claims_per_member
) beyond
WHERE merchant_id = :merchant_id AND import_id = :import_id AND import_row.line = beyond.line
""",
)


class _StagedRow(TypedDict):
    """A code to bring in."""

    line: int
    id: UUID
    pool: UUID
    ciphertext: bytes
    fingerprint: bytes
    folded: bytes
    suffix: str
    length: int
    bearer: bool
    member_id: UUID | None
    email_index: bytes | None
    expires_at: datetime | None


NEXT: Final = statement(
    _StagedRow,
    f"""
SELECT line, id, pool, ciphertext, fingerprint, folded, suffix, length, bearer,
    CASE WHEN external_id IS NOT NULL THEN found END AS member_id, email_index, dated_at AS expires_at
FROM import_row
WHERE merchant_id = :merchant_id AND import_id = :import_id AND line > :after AND verdict IS NULL
ORDER BY line LIMIT {BROUGHT_IN_AT_ONCE}
""",
)


class _CorrectionRow(LineRow):
    """A row about a code that is there, and the end that it is to have."""

    fingerprint: bytes
    expires_at: datetime


TO_CORRECT: Final = statement(
    _CorrectionRow,
    f"""
SELECT line, fingerprint, dated_at AS expires_at FROM import_row
WHERE merchant_id = :merchant_id AND import_id = :import_id AND line > :after AND verdict = 'CORRECT'
ORDER BY line LIMIT {CORRECTED_AT_ONCE}
""",
)
CORRECT: Final = statement(
    ChangeRow,
    f"""
WITH c AS (
    UPDATE code SET expires_at = :expires_at
    WHERE merchant_id = :merchant_id AND fingerprint = :fingerprint AND state IN ('AVAILABLE', 'ALLOCATED')
    RETURNING id, member_id
), changed AS (
    SELECT :event_id::uuid AS event_id, id AS subject_id, member_id, NULL::bytea AS reason FROM c
), {raise_wallets("code.imported")}
SELECT {columns(ChangeRow)} FROM recorded ev
""",
)


class Codes(Kind):
    """Files of codes."""

    name = "CODES"
    makes = "codes"
    columns = ("pool", "text", "externalId", "externalSource", "email", "expiresAt")
    required = ("pool", "text")
    stored = (
        "pool", "ciphertext", "fingerprint", "folded", "suffix", "length", "external_source", "external_id",
        "email_index", "dated_at", "bearer",
    )  # fmt: skip
    compared = ("member", "code")
    _pools: dict[str, list[UUID]]

    async def prepare(self) -> None:
        """Read the pools, which the file names by id or by name."""
        self._pools = defaultdict(list)
        for row in await database().rows(POOLS, merchant_id=self.viewer.merchant_id):
            self._pools[ids.encode("pool", row["id"])].append(row["id"])
            self._pools[row["name"]].append(row["id"])

    def check(self, fields: Fields) -> _Code:
        """Read a code, its pool and its owner."""
        pool_id = self._pool(fields)
        text = fields.given("text", required=True)
        external_id, external_source = fields.external_id(required=False), fields.external_source()
        address = fields.email()
        if external_id is not None and address is not None:
            fields.problems.add("email", "and externalId can't both be given")
        expires_at = fields.end("expiresAt", self.now)
        code = None if text is None else read_code(self.viewer.tenant.keys, 0, text, expires_at)
        if text is not None and code is None:
            fields.problems.add("text", NO_CODE)
        bearer = self.in_circulation and external_id is None and address is None
        return _Code(pool_id, code, external_source, external_id, address, bearer)

    def _pool(self, fields: Fields) -> UUID | None:
        named = fields.given("pool", required=True)
        if named is None:
            return None
        found = self._pools.get(named, [])
        if len(found) != 1:
            fields.problems.add("pool", "names several pools; give its id" if found else "is no pool's id or name")
            return None
        return found[0]

    def record(self, row_id: UUID, checked: object) -> Record:
        """Return a code with its text sealed as that of the code that it becomes."""
        row = cast("_Code", checked)
        code, keys = row.code, self.viewer.tenant.keys
        if code is None or isinstance(code.text, bytes):
            raise TypeError("a code that isn't one was to be stored")
        sealed = keys.encrypt(row_id, "code", code.text)
        email_index = None if row.address is None else keys.email_index(row.address)
        return (
            row.pool_id, sealed, code.fingerprint, code.folded, code.suffix, code.length, row.external_source,
            row.external_id, email_index, code.expires_at, row.bearer,
        )  # fmt: skip

    async def judge(self, of: Import) -> None:
        """Find whose they are, which are there twice or already, and which their pools can't take."""
        await compare(of, FIND_REPEATED)
        await look_up(of, FIND_MEMBERS)
        await pass_over_erased(of)
        await look_up(of, FIND_STRANGERS, FIND_OWNERS)
        await rows_of(of, FIND_EXISTING, corrects=of.corrects)
        await look_up(of, FIND_CLOSED)
        await compare(of, FIND_BEYOND)

    async def apply(self, tx: Tx, of: Import, after: int) -> Batch | None:
        """Bring the next codes in, a batch for each of their pools. The order of locks is that of importCodes."""
        rows = await tx.many(NEXT, **of.key, after=after)
        if not rows:
            return None
        by_pool: defaultdict[UUID, list[_StagedRow]] = defaultdict(list)
        for row in rows:
            by_pool[row["pool"]].append(row)
        missed = [
            line for pool_id in sorted(by_pool) for line in await self._bring_in(tx, of, pool_id, by_pool[pool_id])
        ]
        lines = [row["line"] for row in rows]
        await tx.row(DROP_LINES, **of.key, lines=lines)
        return Batch(lines[-1], len(lines) - len(missed), sorted(missed))

    async def _bring_in(self, tx: Tx, of: Import, pool_id: UUID, rows: Sequence[_StagedRow]) -> list[int]:
        """Bring in codes of one pool. Returns the lines of those that it can't take any more.

        Raises ConfigurationError when the pool takes none, until it is paused.
        """
        left = list(rows)
        for _ in range(ATTEMPTS_MAX):
            if not left:
                break
            try:
                async with tx.nested() as inner:
                    await bring_in(
                        inner, of.viewer, pool_id, ids.new(), [_imported(row) for row in left],
                        in_circulation=any(row["bearer"] for row in left), key=None,
                        request_hash=None,
                    )  # fmt: skip
                break
            except (ChangedMeanwhile, asyncpg.UniqueViolationError):
                continue
            except MemberGoneError as gone:
                # Merged or erased since it was judged.
                left = [row for row in left if row["member_id"] != gone.member_id]
            except Refused as refused:
                refusal = refused.refusal
                if isinstance(refusal, NotFound):
                    # A member, or the pool.
                    gone_id = ids.decode("member", refusal.id)
                    left = [row for row in left if gone_id is not None and row["member_id"] != gone_id]
                elif isinstance(refusal, InvalidInput):
                    wrong = {int(each.path[1]) for each in refusal.problems if each.path[1:]}
                    left = [row for row in left if wrong and row["line"] not in wrong]
                else:
                    raise ConfigurationError(f"{refusal.message} Pause it, and run this again.") from None
        else:
            raise RuntimeError("owners kept changing while codes were brought in")
        return sorted({row["line"] for row in rows} - {row["line"] for row in left})

    async def correct(self, of: Import, after: int) -> Batch | None:
        """Give codes that are live another end."""
        page = await database().many(TO_CORRECT, **of.key, after=after)
        return await correct_each(of, page, lambda tx, row: self._correct(tx, of, row))

    async def _correct(self, tx: Tx, of: Import, row: _CorrectionRow) -> bool:
        change = await tx.row(
            CORRECT,
            merchant_id=of.viewer.merchant_id,
            fingerprint=row["fingerprint"],
            expires_at=row["expires_at"],
            event_id=ids.new(),
            actor=of.viewer.actor,
        )
        if change is not None:
            ring_wallet(tx, of.viewer.merchant_id, change)
        return change is not None


def _imported(row: _StagedRow) -> ImportedCode:
    return ImportedCode(
        place=row["line"],
        text=row["ciphertext"],
        fingerprint=row["fingerprint"],
        folded=row["folded"],
        suffix=row["suffix"],
        length=row["length"],
        expires_at=row["expires_at"],
        member_id=row["member_id"],
        email_index=row["email_index"],
        id=row["id"],
    )
