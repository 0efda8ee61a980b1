"""What a person is known by: the ids of its records, and the blind indexes of its addresses and mailboxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypedDict
from uuid import UUID

from app.people.personal import CODES
from app.storage.database import Statements, Tx
from app.storage.statements import statement


@dataclass(frozen=True, slots=True)
class KnownBy:
    """A person: a member, with the ids that were merged into it, or an address that is no member's."""

    member_ids: Sequence[UUID]
    email_indexes: Sequence[bytes]
    mailbox_indexes: Sequence[bytes]

    def parameters(self) -> dict[str, object]:
        """Return the person as the list of what is personal takes it."""
        return {
            "member_ids": list(self.member_ids),
            "email_indexes": list(self.email_indexes),
            "mailbox_indexes": list(self.mailbox_indexes),
        }


class _KnownRow(TypedDict):
    member_ids: list[UUID]
    email_indexes: list[bytes]
    mailbox_indexes: list[bytes]


# An address that another member has written down or proved may be that one's, and so may a mailbox: they stay.
KNOWN_BY: Final = statement(
    _KnownRow,
    """
WITH own AS (
    SELECT * FROM member WHERE merchant_id = :merchant_id AND id = ANY(ARRAY(
        SELECT :member_id::uuid
        UNION ALL SELECT id FROM member WHERE merchant_id = :merchant_id AND merged_into_id = :member_id
    ))
), address_of AS (
    SELECT email_index AS index, email_verified AS is_proven FROM own WHERE email_index IS NOT NULL
    UNION SELECT pending_email_index, false FROM own WHERE pending_email_index IS NOT NULL
    UNION SELECT unnest(dropped_email_indexes), false FROM own
), mailbox_of AS (
    SELECT mailbox_index AS index FROM own WHERE mailbox_index IS NOT NULL
    UNION SELECT pending_mailbox_index FROM own WHERE pending_mailbox_index IS NOT NULL
    UNION SELECT unnest(dropped_mailbox_indexes) FROM own
)
SELECT ARRAY(SELECT id FROM own ORDER BY id) AS member_ids, ARRAY(
    SELECT index FROM address_of a WHERE is_proven OR NOT EXISTS (
        SELECT FROM member m WHERE m.merchant_id = :merchant_id AND m.email_index = a.index AND m.email_verified
            AND m.id NOT IN (SELECT id FROM own)
        UNION ALL
        SELECT FROM member m WHERE m.merchant_id = :merchant_id AND m.email_index = a.index AND NOT m.email_verified
            AND m.id NOT IN (SELECT id FROM own)
        UNION ALL
        SELECT FROM member m WHERE m.merchant_id = :merchant_id AND m.pending_email_index = a.index
            AND m.id NOT IN (SELECT id FROM own)
    )
) AS email_indexes, ARRAY(
    SELECT index FROM mailbox_of b WHERE NOT EXISTS (
        SELECT FROM member m WHERE m.merchant_id = :merchant_id AND m.mailbox_index = b.index
            AND m.id NOT IN (SELECT id FROM own)
    )
) AS mailbox_indexes
FROM own LIMIT 1
""",
)


class RowsRow(TypedDict):
    """Rows that know a person by its addresses, or did before it was a member, and invites that it accepted."""

    row_ids: list[UUID]
    invite_ids: list[UUID]


# By these the person is found again in an older copy of the database, where it may be no member yet: codes that were
# adopted or reissued wait for its address there. An invite that it accepted may have been sent to somebody else.
ROWS_OF: Final = statement(
    RowsRow,
    f"""
SELECT ARRAY(
    SELECT id FROM code
    WHERE merchant_id = :merchant_id AND id = ANY(ARRAY({CODES})) AND matched_by <> 'MEMBER_ID'
    UNION SELECT id FROM invite
    WHERE merchant_id = :merchant_id AND email_index = ANY(:email_indexes::bytea[]) AND status = 'PENDING'
    UNION SELECT id FROM invite
    WHERE merchant_id = :merchant_id AND email_index = ANY(:email_indexes::bytea[]) AND status <> 'PENDING'
    UNION SELECT id FROM sales_order
    WHERE merchant_id = :merchant_id AND mailbox_index = ANY(:mailbox_indexes::bytea[]) AND presenter_id IS NULL
    UNION SELECT o.id FROM sales_order o JOIN hold h ON h.merchant_id = :merchant_id AND h.sales_order_id = o.id
    WHERE o.merchant_id = :merchant_id AND o.presenter_id = ANY(:member_ids)
        AND h.email_index = ANY(:email_indexes::bytea[])
) AS row_ids, ARRAY(
    SELECT id FROM invite
    WHERE merchant_id = :merchant_id AND referee_id = ANY(:member_ids) AND status <> 'EXPIRED'
        AND email_index <> ALL(:email_indexes::bytea[])
    UNION ALL SELECT id FROM invite
    WHERE merchant_id = :merchant_id AND referee_id = ANY(:member_ids) AND status = 'EXPIRED'
        AND email_index <> ALL(:email_indexes)
) AS invite_ids
FROM merchant WHERE merchant_id = :merchant_id
""",
)


async def rows_of(tx: Tx, merchant_id: UUID, person: KnownBy) -> RowsRow:
    """Return the rows by which a person is found again where it is no member yet."""
    row = await tx.row(
        ROWS_OF,
        merchant_id=merchant_id,
        member_ids=list(person.member_ids),
        email_indexes=list(person.email_indexes),
        mailbox_indexes=list(person.mailbox_indexes),
    )
    if row is None:
        raise RuntimeError("the viewer's merchant has no row")
    return row


async def known_by(tx: Statements, merchant_id: UUID, member_id: UUID) -> KnownBy | None:
    """Return what a member is known by, or None when there is no such member."""
    row = await tx.row(KNOWN_BY, merchant_id=merchant_id, member_id=member_id)
    return None if row is None else KnownBy(row["member_ids"], row["email_indexes"], row["mailbox_indexes"])
