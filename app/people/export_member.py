"""`flash export --member`: everything that the database holds of a person, readable, as of one moment."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypedDict
from uuid import UUID

from app import ids
from app.config import ConfigurationError
from app.merchants.reencrypt import SEALED
from app.merchants.tenants import decrypted, tenant
from app.people.known_by import KnownBy, known_by
from app.people.personal import PERSONAL
from app.storage.database import ONE_MOMENT, transaction
from app.storage.statements import statement

#: Columns of hashes, which tell a person nothing.
_HASHES: Final = {
    "email_index", "mailbox_index", "pending_email_index", "pending_mailbox_index", "dropped_email_indexes",
    "dropped_mailbox_indexes", "domain_index", "token_hash", "idempotency_key", "presented_by", "told_of",
    "reference_index", "request_hash", "fingerprint", "folded", "person", "merchant_id", "txid",
}  # fmt: skip
_SEALED: Final = {(sealed.table, sealed.column): sealed for sealed in SEALED}


class _RowAsJson(TypedDict):
    row: str


class _StandingRow(TypedDict):
    id: UUID


READ: Final = {
    personal.table: statement(
        _RowAsJson,
        f"""
SELECT to_jsonb(t) AS row FROM {personal.table} t
WHERE t.merchant_id = :merchant_id AND ({personal.found}) ORDER BY to_jsonb(t)
""",
    )
    for personal in PERSONAL
}
# Who was merged is a part of who was kept.
FIND_STANDING: Final = statement(
    _StandingRow,
    "SELECT coalesce(merged_into_id, id) AS id FROM member WHERE merchant_id = :merchant_id AND id = :member_id",
)


async def export_member(named_merchant: str, named_member: str) -> dict[str, Any]:
    """Return a member's rows by table, decrypted, without hashes and without what is other people's.

    Raises ConfigurationError when there is no such merchant or member.
    """
    merchant_id, member_id = ids.decode("merchant", named_merchant), ids.decode("member", named_member)
    owner = None if merchant_id is None else await tenant(merchant_id)
    if owner is None:
        raise ConfigurationError(f"There is no merchant {named_merchant}.")
    tables: dict[str, list[dict[str, Any]]] = {}
    async with transaction(owner.id) as tx:
        await tx.row(ONE_MOMENT)
        standing = await tx.row(FIND_STANDING, merchant_id=owner.id, member_id=member_id)
        person = None if standing is None else await known_by(tx, owner.id, standing["id"])
        if person is None:
            raise ConfigurationError(f"There is no member {named_member}.")
        for table, asked in READ.items():
            values = {"merchant_id": owner.id} | person.parameters()
            rows = await tx.rows(asked, **{name: values[name] for name in asked.names})
            tables[table] = [json.loads(row["row"]) for row in rows]
    readable = {
        table: [
            {
                name: await _readable(owner, table, name, value, row)
                for name, value in row.items()
                if name not in _HASHES and _is_own(table, name, row, person)
            }
            for row in rows
        ]
        for table, rows in tables.items()
    }
    return {"merchant": named_merchant, "member": named_member, "tables": readable}


async def _readable(owner: Any, table: str, column: str, value: Any, row: Mapping[str, Any]) -> Any:
    sealed = _SEALED.get((table, column))
    if sealed is None or value is None:
        return value
    return await decrypted(owner, UUID(row[sealed.row_id]), sealed.identity, bytes.fromhex(value[2:]))


def _is_own(table: str, column: str, row: Mapping[str, Any], person: KnownBy) -> bool:
    """Whether a value is the person's: addresses of others whom it invited aren't."""
    if table != "invite" or column not in {"email", "token"}:
        return True
    indexes: Sequence[str] = [f"\\x{index.hex()}" for index in person.email_indexes]
    return row["email_index"] in indexes or row["referee_id"] in {str(each) for each in person.member_ids}
