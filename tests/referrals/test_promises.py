"""What the database itself refuses. Without these the promises would hold only as long as the code does."""

from typing import Any
from uuid import UUID

import asyncpg
import pytest

from app import ids
from app.storage.database import database
from tests.factories import Shop
from tests.points.documents import member_uuid
from tests.referrals.documents import accepted, invited, program
from tests.referrals.test_conversions import waiting

EDGE = """
INSERT INTO referral (merchant_id, id, invite_id, referrer_id, referee_id, referrer_points, referee_points, flags,
                      converted_at)
SELECT $1, gen_random_uuid(), id, referrer_id, referee_id, 1, 1, '{}', now() FROM invite
WHERE merchant_id = $1 AND id = $2
"""
SET_STATUS = "UPDATE invite SET status = $3, converted_at = NULL WHERE merchant_id = $1 AND id = $2"
#: An invite as a careless statement might write it: of one member, accepted by another, converted.
CONVERTED = """
INSERT INTO invite (merchant_id, id, referrer_id, status, email, email_index, mailbox_index, token, token_hash,
                    created_at, expires_at, accepted_at, referee_id, converts_on, converted_at)
VALUES ($1, $2, $3, 'CONVERTED', '', '', '', '', sha256($2::uuid::text::bytea), now(), now(), now(), $4, 'JOIN',
        now())
"""


def uuid(kind: ids.Kind, node: Any) -> UUID:
    """Return the row id of a node."""
    found = ids.decode(kind, node["id"])
    assert found is not None
    return found


async def refused(constraint: str, sql: str, *args: object) -> None:
    """Assert that the database refuses a statement by a constraint."""
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as error:
        await database().row(sql, *args)
    assert error.value.constraint_name == constraint


async def test_there_is_no_edge_of_an_invite_that_has_not_converted(shop: Shop) -> None:
    await waiting(shop)
    row = await database().row("SELECT id FROM invite WHERE merchant_id = $1", shop.merchant_id)
    assert row is not None

    await refused("referral_invite", EDGE, shop.merchant_id, row["id"])


async def test_a_converted_invite_stays_converted_and_has_one_edge(shop: Shop) -> None:
    await program(shop)
    invite = uuid("invite", (await accepted(shop, await shop.member()))["invite"])

    for status in ("PENDING", "EXPIRED", "CANCELLED"):
        await refused("invite_ends_once", SET_STATUS, shop.merchant_id, invite, status)
    with pytest.raises(asyncpg.UniqueViolationError):
        await database().row(EDGE, shop.merchant_id, invite)


async def test_nobody_refers_itself_or_who_is_above_it(shop: Shop) -> None:
    await program(shop)
    top = await shop.member()
    middle = (await accepted(shop, top))["member"]
    bottom = (await accepted(shop, middle))["member"]
    first, second = ids.new(), ids.new()

    await refused("invite_not_self", CONVERTED, shop.merchant_id, first, member_uuid(top), member_uuid(top))
    await database().row(CONVERTED, shop.merchant_id, second, member_uuid(bottom), member_uuid(top))
    await refused("referral_forest", EDGE, shop.merchant_id, second)


async def test_who_brought_whom_never_changes(shop: Shop) -> None:
    await program(shop)
    await accepted(shop, await shop.member())
    other = member_uuid(await shop.member())

    await refused(
        "referral_fixed", "UPDATE referral SET referrer_id = $2 WHERE merchant_id = $1", shop.merchant_id, other
    )


async def test_a_quota_is_never_negative_or_over_its_limit(shop: Shop) -> None:
    await program(shop, invitesPerDay=5, invitesLifetime=6)
    await invited(shop, await shop.member())

    for column, limit in (("sent_today", 5), ("sent_lifetime", 6)):
        constraint = {"sent_today": "invite_quota_day", "sent_lifetime": "invite_quota_lifetime"}[column]
        for wrong in (-1, limit + 1):
            sql = f"UPDATE invite_quota SET {column} = $2 WHERE merchant_id = $1"
            await refused(constraint, sql, shop.merchant_id, wrong)


async def test_an_address_has_one_pending_invite(shop: Shop) -> None:
    await program(shop)
    await invited(shop, await shop.member())
    again = """
    INSERT INTO invite (merchant_id, id, referrer_id, status, email, email_index, mailbox_index, token, token_hash,
                        created_at, expires_at)
    SELECT merchant_id, gen_random_uuid(), referrer_id, status, email, email_index, mailbox_index, token, 'other',
        created_at, expires_at
    FROM invite WHERE merchant_id = $1
    """

    await refused("invite_pending", again, shop.merchant_id)


async def test_nobody_is_credited_for_a_referral_that_is_held(shop: Shop) -> None:
    await program(shop)
    await accepted(shop, await shop.member())

    await refused(
        "referral_credited", "UPDATE referral SET released_at = NULL WHERE merchant_id = $1", shop.merchant_id
    )
