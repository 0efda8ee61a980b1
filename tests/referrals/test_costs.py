"""What looking for invites costs. Without these a shop's first month could slow down with each invite that was sent."""

import hashlib
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.orders.record_purchase import RECORD
from app.people.accept_invite import ACCEPT, FIND, LOCK
from app.people.addresses import PROVE
from app.storage.statements import Statement
from tests.scratch import buffers_planned_on_nothing

#: Members, each with an address, and an invite that it accepted; two invites are still to be accepted.
INVITES = """
WITH program AS (
    INSERT INTO referral_program (merchant_id) VALUES ($1)
), m AS (
    INSERT INTO member (merchant_id, id, email, email_index, mailbox_index, email_verified, source, joined_at)
    SELECT $1, md5('m' || n)::uuid, '\\x00', sha256(('e' || n)::bytea), sha256(('b' || n)::bytea), false, 'STORE', now()
    FROM generate_series(1, 3000) AS n RETURNING id, email_index
), w AS (
    INSERT INTO wallet (merchant_id, member_id, version) SELECT $1, id, 0 FROM m
), a AS (
    INSERT INTO address (merchant_id, email_index) SELECT $1, email_index FROM m
)
INSERT INTO invite (merchant_id, id, referrer_id, status, email, email_index, mailbox_index, token, token_hash,
                    created_at, expires_at, accepted_at, referee_id, converts_on)
SELECT $1, md5('i' || n)::uuid, md5('m1')::uuid, 'PENDING', '\\x00', sha256(('e' || n)::bytea),
    sha256(('b' || n)::bytea), '\\x00', sha256(('t' || n)::bytea), now(), now() + interval '30 days',
    CASE WHEN n > 3 THEN now() END, CASE WHEN n > 3 THEN md5('m' || n)::uuid END,
    CASE WHEN n > 3 THEN 'FIRST_PURCHASE' END
FROM generate_series(2, 3000) AS n
"""


def row_id(name: str) -> UUID:
    """Return the id of a row of INVITES."""
    return UUID(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest())


def index(name: str) -> bytes:
    """Return an index or a hash of INVITES."""
    return hashlib.sha256(name.encode()).digest()


EVENT = {"event_id": uuid4(), "actor": "till"}
ASKED: dict[str, tuple[Statement[Any], dict[str, Any]]] = {
    "record": (RECORD, {
        "amount": 100, "minor_units": 100, "occurred_at": None, "member_id": row_id("m12"), "purchase_id": uuid4(),
        "source": "STORE", "order_id": "new", "currency": "USD", "told_of": None,
    } | EVENT),
    "prove": (PROVE, {"member_id": row_id("m7"), "email_index": index("e7"), "held": [index("e7")]} | EVENT),
    "find": (FIND, {"token_hash": index("t2")}),
    "lock": (LOCK, {"token_hash": index("t2"), "member_id": row_id("m2")}),
    "accept": (ACCEPT, {"member_id": row_id("m2"), "invite_id": row_id("i2")} | EVENT),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
async def test_an_invite_is_found_by_its_keys_whatever_the_planner_knew(name: str) -> None:
    asked, values = ASKED[name]
    rows, buffers = await buffers_planned_on_nothing(asked, INVITES, **values)

    assert rows == 1
    # The first call of a function over a connection reads some fifty of the catalog.
    assert buffers < 150
