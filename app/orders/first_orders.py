"""First orders: whether a presenter has another order that stands, and which of two at once is the first."""

from collections.abc import Sequence
from typing import Final, TypedDict
from uuid import UUID

from app.members.remembered import REMEMBERS

#: Who presents, in a FROM: a member, or a guest, who is known by a mailbox. An id that is no member's presents as
#: whoever has the address.
PERSON: Final = """
    (
        SELECT m.id,
            coalesce(CASE WHEN m.email_verified THEN m.mailbox_index END, :mailbox_index::bytea) AS mailbox_index
        FROM (VALUES (1)) once LEFT JOIN LATERAL (
            SELECT id, email_verified, mailbox_index FROM member
            WHERE merchant_id = :merchant_id AND id = (
                SELECT coalesce(merged_into_id, id) FROM member
                WHERE merchant_id = :merchant_id AND id = coalesce(:presenter, (
                    SELECT member_id FROM address WHERE merchant_id = :merchant_id AND email_index = :email_index
                ))
            ) OFFSET 0
        ) m ON true
    ) person
"""
# Whether the order `x` stands: by a redemption, or by a hold that has none of the presented codes (that one is in the
# way of them, or ends for them).
_STANDS: Final = """
    (EXISTS (
        SELECT FROM redemption r
        WHERE r.merchant_id = :merchant_id AND r.order_id = x.order_id AND r.source = x.source AND r.reversed_at IS NULL
    ) OR EXISTS (
        SELECT FROM hold h
        WHERE h.merchant_id = :merchant_id AND h.sales_order_id = x.id AND h.status = 'HELD' AND h.held_until > now()
            AND NOT EXISTS (
                SELECT FROM hold_code k JOIN code c ON c.merchant_id = :merchant_id AND c.id = k.code_id
                WHERE k.merchant_id = :merchant_id AND k.hold_id = h.id AND c.fingerprint = ANY(:fingerprints::bytea[])
            )
    ))
"""
# A member's orders are also those of the records that were merged into it, a guest's those of the members whose mailbox
# it is.
_MEMBERS: Final = """
    ARRAY(
        SELECT person.id
        UNION ALL
        SELECT id FROM member WHERE merchant_id = :merchant_id AND merged_into_id = person.id
        UNION ALL
        SELECT each FROM member m CROSS JOIN LATERAL unnest(ARRAY[m.id, m.merged_into_id]) AS each
        WHERE m.merchant_id = :merchant_id AND m.mailbox_index = person.mailbox_index AND m.email_verified
            AND person.id IS NULL
    )
"""
# And those of a guest that had a mailbox which a record that was merged into the member has proved.
_MAILBOXES: Final = """
    ARRAY(
        SELECT person.mailbox_index
        UNION ALL
        SELECT mailbox_index FROM member
        WHERE merchant_id = :merchant_id AND merged_into_id = person.id AND email_verified
    )
"""
#: Whether the `person` has another order than (`:source`, `:order_id`) that stands: a purchase that didn't go back
#: whole, a redemption or a hold, or what it had before it was erased. So is an order of nobody: it can't be told from
#: others.
HAS_ANOTHER: Final = f"""
    (num_nonnulls(person.id, person.mailbox_index) = 0 OR EXISTS (
        SELECT FROM purchase x WHERE x.merchant_id = :merchant_id AND x.member_id = ANY({_MEMBERS})
            AND x.reversed_at IS NULL AND (x.source, x.order_id) <> (:source, :order_id)
    ) OR EXISTS (
        SELECT FROM sales_order x WHERE x.merchant_id = :merchant_id AND x.presenter_id = ANY({_MEMBERS})
            AND (x.source, x.order_id) <> (:source, :order_id) AND {_STANDS}
    ) OR EXISTS (
        SELECT FROM sales_order x WHERE x.merchant_id = :merchant_id AND x.mailbox_index = ANY({_MAILBOXES})
            AND (x.source, x.order_id) <> (:source, :order_id) AND {_STANDS}
    ) OR {REMEMBERS.format("person.mailbox_index", "r.has_ordered")})
"""
#: The keys by which two first orders of the `person` meet, in their order, and the versions of these rows (0: none).
KEYS: Final = f"""
    ARRAY(
        SELECT key FROM (SELECT uuid_send(person.id) UNION SELECT unnest({_MAILBOXES})) k (key)
        WHERE key IS NOT NULL ORDER BY key
    )
"""
VERSIONS: Final = f"""
    ARRAY(
        SELECT coalesce((
            SELECT f.version FROM first_order f WHERE f.merchant_id = :merchant_id AND f.person = each
        ), 0)
        FROM unnest({KEYS}) AS each
    )
"""
#: A CTE, `firsts`: takes the rows of `:first_keys` if they still have `:first_versions`, and if {0}. Whoever redeems
#: another first order of the person at this moment leaves another version.
TAKE: Final = """
firsts AS (
    INSERT INTO first_order (merchant_id, person, version)
    SELECT :merchant_id, t.person, t.version + 1
    FROM unnest(:first_keys::bytea[], :first_versions::int[]) AS t (person, version) WHERE {0} ORDER BY t.person
    ON CONFLICT (merchant_id, person) DO UPDATE SET version = excluded.version
    WHERE first_order.version = excluded.version - 1
    RETURNING person
)"""

#: What an UPDATE of an order sets: whoever was named last is who it is known for.
NAMED_LAST: Final = """
    presenter_id = CASE WHEN num_nonnulls(:person_id::uuid, :person_mailbox::bytea) = 0 THEN presenter_id
        ELSE :person_id END,
    mailbox_index = CASE WHEN num_nonnulls(:person_id, :person_mailbox) = 0 THEN mailbox_index ELSE :person_mailbox END
"""


class PersonRow(TypedDict):
    """Who presents codes: a member, or a guest by its mailbox; of a code for first orders where two of them meet."""

    person_id: UUID | None
    person_mailbox: bytes | None
    first_keys: list[bytes] | None
    first_versions: list[int] | None


class NamedPerson(TypedDict):
    """Who an order is known for from now on, and the rows that it takes for its codes that are for first orders."""

    person_id: UUID | None
    person_mailbox: bytes | None
    first_keys: list[bytes]
    first_versions: list[int]


def named_person(person: PersonRow, coming: Sequence[PersonRow]) -> NamedPerson:
    """Return what NAMED_LAST and TAKE take, by who presents and the codes that weren't on the order before."""
    person_id = person["person_id"]
    first = next((row for row in coming if row["first_keys"] is not None), None)
    return NamedPerson(
        person_id=person_id,
        person_mailbox=person["person_mailbox"] if person_id is None else None,
        first_keys=(None if first is None else first["first_keys"]) or [],
        first_versions=(None if first is None else first["first_versions"]) or [],
    )
