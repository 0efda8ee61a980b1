"""First orders: whether a presenter has another order that stands, and which of two at once is the first."""

from typing import Final

#: A CTE: who presents, as a member or as a guest, who is known by a mailbox. Nobody is both null. An id that is no
#: member's presents as whoever has the address.
PERSON: Final = """
person AS (
    SELECT m.id, coalesce(CASE WHEN m.email_verified THEN m.mailbox_index END, :mailbox_index::bytea) AS mailbox_index
    FROM (VALUES (1)) once LEFT JOIN LATERAL (
        SELECT id, email_verified, mailbox_index FROM member
        WHERE merchant_id = :merchant_id AND id = coalesce(:presenter, (
            SELECT member_id FROM address WHERE merchant_id = :merchant_id AND email_index = :email_index
        )) OFFSET 0
    ) m ON true
)"""
# Whether the order `x` stands: by a redemption.
_STANDS: Final = """
    EXISTS (
        SELECT FROM redemption r
        WHERE r.merchant_id = :merchant_id AND r.order_id = x.order_id AND r.source = x.source AND r.reversed_at IS NULL
    )
"""
# A guest's orders are also those of the members whose mailbox it is.
_MEMBERS: Final = """
    ARRAY(
        SELECT person.id
        UNION ALL
        SELECT id FROM member
        WHERE merchant_id = :merchant_id AND mailbox_index = person.mailbox_index AND email_verified
            AND person.id IS NULL
    )
"""
#: Whether the `person` has another order than (`:source`, `:order_id`) that stands: a purchase that didn't go back
#: whole, or a redemption. So is an order of nobody: it can't be told from others.
HAS_ANOTHER: Final = f"""
    (num_nonnulls(person.id, person.mailbox_index) = 0 OR EXISTS (
        SELECT FROM purchase x WHERE x.merchant_id = :merchant_id AND x.member_id = ANY({_MEMBERS})
            AND x.reversed_at IS NULL AND (x.source, x.order_id) <> (:source, :order_id)
    ) OR EXISTS (
        SELECT FROM sales_order x WHERE x.merchant_id = :merchant_id AND x.presenter_id = ANY({_MEMBERS})
            AND (x.source, x.order_id) <> (:source, :order_id) AND {_STANDS}
    ) OR EXISTS (
        SELECT FROM sales_order x WHERE x.merchant_id = :merchant_id AND x.mailbox_index = person.mailbox_index
            AND (x.source, x.order_id) <> (:source, :order_id) AND {_STANDS}
    ))
"""
#: The keys by which two first orders of the `person` meet, in their order, and the versions of these rows (0: none).
KEYS: Final = """
    ARRAY(
        SELECT key FROM (VALUES (uuid_send(person.id)), (person.mailbox_index)) k (key)
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
