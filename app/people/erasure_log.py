"""The log of erasures outside the database: what is to be erased again when an older copy of it is restored.

A line names ids, which name nobody. One that is written twice does no harm.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, TypedDict
from uuid import UUID

from graphql import GraphQLError

from app import ids
from app.api.scalars import parse_date_time, serialize_date_time
from app.config import ConfigurationError
from app.merchants.tenants import tenant
from app.people.erasing import MembersAddressError, erase_address, erase_invites, erase_member
from app.people.known_by import KnownBy
from app.storage.database import database
from app.storage.fences import stands
from app.storage.statements import NoRow, statement

BATCH: Final = 500


class _ErasureRow(TypedDict):
    merchant_id: UUID
    id: UUID
    member_id: UUID | None
    merged_ids: list[UUID]
    row_ids: list[UUID]
    invite_ids: list[UUID]
    ground: str
    erased_at: datetime


FIND_UNLOGGED: Final = statement(
    _ErasureRow,
    f"""
SELECT merchant_id, id, member_id, merged_ids, row_ids, invite_ids, ground, erased_at FROM erasure e
WHERE logged_at IS NULL AND {stands("e")} ORDER BY erased_at LIMIT {BATCH}
""",
)
LOGGED: Final = statement(
    NoRow, "UPDATE erasure SET logged_at = now() WHERE merchant_id = :merchant_id AND id = :id AND logged_at IS NULL"
)


@dataclass(frozen=True, slots=True)
class Erased:
    """A line of the log."""

    merchant_id: UUID
    id: UUID
    member_ids: list[UUID]
    row_ids: list[UUID]
    invite_ids: list[UUID]
    ground: str
    erased_at: datetime


async def write_log(log: Path) -> int:
    """Append the erasures that aren't logged yet, on the disk before they count as logged. Returns how many.

    A folder gets a file for each day. Raises OSError when it can't be written; then nothing counts as logged.
    """
    written = 0
    while rows := await database().rows(FIND_UNLOGGED):
        await asyncio.to_thread(_append, log, [_line(row) for row in rows])
        for row in rows:
            await database().row(LOGGED, merchant_id=row["merchant_id"], id=row["id"])
        written += len(rows)
    return written


def _line(row: _ErasureRow) -> tuple[str, str]:
    """Return the day of an erasure, and its line."""
    members = [each for each in (row["member_id"], *row["merged_ids"]) if each is not None]
    told = {
        "merchant": ids.encode("merchant", row["merchant_id"]),
        "erasure": row["id"].hex,
        "members": [ids.encode("member", each) for each in members],
        "rows": [each.hex for each in row["row_ids"]],
        "invites": [each.hex for each in row["invite_ids"]],
        "ground": row["ground"],
        "erasedAt": serialize_date_time(row["erased_at"]),
    }
    return f"{row['erased_at']:%Y-%m-%d}", json.dumps(told)


def _append(log: Path, lines: list[tuple[str, str]]) -> None:
    for day, line in lines:
        path = log / f"erasures-{day}.jsonl" if log.is_dir() else log
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())


def read_log(log: Path) -> Iterator[Erased]:
    """Yield what a log says. Raises ConfigurationError at a line that says nothing; a last one may be cut off."""
    paths = sorted(log.glob("*.jsonl")) if log.is_dir() else [log]
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except OSError as error:
            raise ConfigurationError(f"{path} can't be read: {error.strerror}.") from None
        for number, line in enumerate(lines, start=1):
            if line and (number < len(lines) or _is_whole(line)):
                yield _parsed(path, number, line)


def _is_whole(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _parsed(path: Path, number: int, line: str) -> Erased:
    try:
        told = json.loads(line)
        merchant_id = ids.decode("merchant", told["merchant"])
        members = [ids.decode("member", each) for each in told["members"]]
        rows, invites = ([UUID(hex=each) for each in told[kind]] for kind in ("rows", "invites"))
        erasure_id, ground = UUID(hex=told["erasure"]), str(told["ground"])
        erased_at = parse_date_time(told["erasedAt"])
    except (ValueError, KeyError, TypeError, GraphQLError):
        raise ConfigurationError(f"{path}:{number}: is no line of the log of erasures.") from None
    if merchant_id is None or None in members:
        raise ConfigurationError(f"{path}:{number}: is no line of the log of erasures.")
    known = [each for each in members if each is not None]
    return Erased(merchant_id, erasure_id, known, rows, invites, ground, erased_at)


class _AddressRow(TypedDict):
    email_index: bytes | None
    mailbox_indexes: list[bytes] | None


# What rows of an older copy still know addresses by, each with its mailbox where a row says it.
ADDRESSES_OF: Final = statement(
    _AddressRow,
    """
WITH known AS (
    SELECT c.email_index, k.mailbox_index
    FROM code c LEFT JOIN claim k ON k.merchant_id = :merchant_id AND k.code_id = c.id
    WHERE c.merchant_id = :merchant_id AND c.id = ANY(:row_ids::uuid[]) AND c.email_index IS NOT NULL
    UNION SELECT email_index, mailbox_index FROM invite
    WHERE merchant_id = :merchant_id AND id = ANY(:row_ids::uuid[]) AND email IS NOT NULL
    UNION SELECT h.email_index, o.mailbox_index
    FROM sales_order o LEFT JOIN hold h ON h.merchant_id = :merchant_id AND h.sales_order_id = o.id
    WHERE o.merchant_id = :merchant_id AND o.id = ANY(:row_ids::uuid[]) AND o.mailbox_index IS NOT NULL
)
SELECT email_index, array_agg(DISTINCT mailbox_index) FILTER (WHERE mailbox_index IS NOT NULL) AS mailbox_indexes
FROM known GROUP BY email_index ORDER BY email_index
""",
)
# What is staged of an import that had not yet made the member.
DROP_STAGED: Final = statement(
    NoRow, "DELETE FROM import_row WHERE merchant_id = :merchant_id AND id = ANY(:member_ids::uuid[])"
)


class _FoundRow(TypedDict):
    id: UUID


FIND_ERASURE: Final = statement(
    _FoundRow, "SELECT id FROM erasure WHERE merchant_id = :merchant_id AND id = :erasure_id"
)
#: That a line of the log was repeated to its end in this copy of the database.
REPEATED: Final = statement(
    NoRow,
    """
INSERT INTO erasure (merchant_id, id, merged_ids, row_ids, invite_ids, ground, erased_at, logged_at)
VALUES (:merchant_id, :erasure_id, '{}', :row_ids, :invite_ids, :ground, now(), now()) ON CONFLICT DO NOTHING
""",
)


async def erase_again(log: Path) -> int:
    """Erase again whom a log names and the database still knows. Returns how many were. Safe to run twice."""
    again = 0
    for erased in read_log(log):
        owner = await tenant(erased.merchant_id)
        if owner is None:
            continue
        name = {"merchant_id": owner.id, "erasure_id": erased.id}
        if await database().row(FIND_ERASURE, **name) is not None:
            continue
        for member_id in erased.member_ids:
            again += await erase_member(owner.keys, "system", member_id, erased.ground, erased_at=erased.erased_at)
        for row in await database().rows(ADDRESSES_OF, merchant_id=owner.id, row_ids=erased.row_ids):
            indexes = [] if row["email_index"] is None else [row["email_index"]]
            person = KnownBy([], indexes, row["mailbox_indexes"] or [])
            # Of a member that the log doesn't name it is that one's.
            with contextlib.suppress(MembersAddressError):
                again += await erase_address(owner.keys, "system", person, erased.ground, erased_at=erased.erased_at)
        await erase_invites(owner.id, "system", erased.invite_ids)
        await database().row(DROP_STAGED, merchant_id=owner.id, member_ids=erased.member_ids)
        await database().row(
            REPEATED, **name, row_ids=erased.row_ids, invite_ids=erased.invite_ids, ground=erased.ground
        )
    return again
