"""What the database itself refuses. Without these a promise would hold only as long as every statement is careful."""

import asyncio
import re
from uuid import uuid4

import asyncpg
import pytest

from app.config import Settings
from app.integrity.audit import missing_constraints
from app.integrity.held import HELD
from app.storage import events
from app.storage.database import database, dsn, transaction
from tests.factories import Shop
from tests.guides import ROOT, blocks
from tests.integrity.breaking import CLAIM_TOO_MANY, NAMES, one, undone, violations
from tests.races.storm import WAITING
from tests.scratch import scratch_database

ALLOCATED = one("code", "state = 'ALLOCATED' AND NOT bearer")
#: Of a member that is gone nothing changes, whatever else a change would break.
NAMELESS = one("member", "email IS NULL AND merged_into_id IS NULL AND erased_at IS NULL")
PROVEN = one("member", "email_verified AND merged_into_id IS NULL AND erased_at IS NULL")
_DELIVER = "INSERT INTO delivery (merchant_id, code_id, campaign_id, position, allocated)"
#: Tables whose rows stay.
KEPT = (
    "bearer_code", "bulk_job", "campaign", "code", "code_batch", "delivery", "erasure", "event", "hold", "hold_request",
    "invite", "invite_quota", "member", "merchant", "order_amendment", "points_entry", "points_lot", "points_part",
    "points_return", "pool", "pool_terms", "purchase", "redemption", "referral", "refund", "reversal",
    "reward_redemption", "rewarded_mailbox", "sales_order", "wallet",
)  # fmt: skip
#: A column of each table of which some stay as they were written.
FIXED = {
    "archived_event": "number", "archived_wallet": "number", "event_archive": "month",
    "address": "merchant_id", "bearer_code": "batch_id", "bulk_job": "kind", "campaign": "pool_id",
    "code": "fingerprint", "code_batch": "size", "entry_reference": "entry_id", "erasure": "ground",
    "event": "occurred_at",
    "hold": "held_at", "hold_request": "idempotency_key", "member": "id", "merchant": "merchant_id",
    "order_amendment": "shortfall",
    "points_entry": "reference", "points_lot": "expires_at", "points_part": "amount", "points_return": "since",
    "pool_terms": "ends_at", "purchase": "order_id", "redemption": "code_id", "refund": "amount",
    "reversal": "reinstated", "reward_redemption": "entry_id", "rewarded_mailbox": "invite_id",
    "sales_order": "order_id",
}  # fmt: skip
REFUSED = [
    *(f"{table}_kept | DELETE FROM {table} WHERE merchant_id = $1" for table in KEPT),
    *(f"{table}_fixed | UPDATE {table} SET {each} = {each} WHERE merchant_id = $1" for table, each in FIXED.items()),
    f"code_owned | UPDATE code SET member_id = NULL, email_index = NULL WHERE {ALLOCATED}",
    f"""code_one_owner | UPDATE code
        SET email_index = 'x' WHERE {one("code", "state = 'ALLOCATED' AND member_id IS NOT NULL")}""",
    f"code_bearer | UPDATE code SET member_id = NULL, bearer = true WHERE {one('code', 'state = $$AVAILABLE$$')}",
    f"code_outlives_pool | UPDATE code SET outlives_pool = true WHERE {one('code', 'expires_at IS NULL')}",
    f"claim_claimant | UPDATE claim SET email_index = 'x' WHERE {one('claim', 'member_id IS NOT NULL')}",
    f"member_email_to_verify | UPDATE member SET email_verified = true WHERE {NAMELESS}",
    f"""member_pending_email_beside | UPDATE member SET pending_email = 'x',
        pending_email_index = email_index, pending_mailbox_index = 'x' WHERE {PROVEN}""",
    f"""code_issued_once | UPDATE code
        SET state = 'AVAILABLE', member_id = NULL, email_index = NULL, allocated_at = NULL WHERE {ALLOCATED}""",
    f"wallet_points_posted | UPDATE wallet SET points = points + 1 WHERE {one('wallet')}",
    f"wallet_points_posted | UPDATE wallet SET points = points + 1, version = version + 1 WHERE {one('wallet')}",
    f"points_lot_moved | UPDATE points_lot SET remaining = remaining - 1 WHERE {one('points_lot', 'remaining > 1')}",
    f"""points_lot_moved | UPDATE points_lot SET remaining = remaining - 1, last_entry_id = gen_random_uuid()
        WHERE {one("points_lot", "remaining > 1")}""",
    f"points_lot_amounts | UPDATE points_lot SET remaining = -1 WHERE {one('points_lot')}",
    f"points_lot_amounts | UPDATE points_lot SET remaining = amount + 1, is_open = true WHERE {one('points_lot')}",
    f"points_lot_held | UPDATE points_lot SET held = remaining + 1 WHERE {one('points_lot')}",
    f"points_lot_held | UPDATE points_lot SET is_pending = true WHERE {one('points_lot', 'held > 0')}",
    f"hold_part_amount | UPDATE hold_part SET amount = 0 WHERE {one('hold_part')}",
    f"points_lot_open | UPDATE points_lot SET is_open = NOT is_open WHERE {one('points_lot')}",
    f"points_lot_amounts | UPDATE points_lot SET returned = amount + 1 WHERE {one('points_lot')}",
    "points_return_amounts | UPDATE points_return SET shortfall = amount + 1 WHERE merchant_id = $1",
    f"points_part_returned | UPDATE points_part SET returned = 1 - amount WHERE {one('points_part', 'amount < 0')}",
    """points_lot_begins_whole | WITH e AS (
            INSERT INTO points_entry (merchant_id, id, member_id, amount, balance_after, reason, origin, spendable_at,
                                      created_at)
            SELECT merchant_id, gen_random_uuid(), member_id, 5, 5, 'ADJUSTMENT', 'by hand', now(), now()
            FROM wallet WHERE merchant_id = $1 LIMIT 1 RETURNING *
        )
        INSERT INTO points_lot (merchant_id, entry_id, member_id, amount, remaining, is_open, is_pending, is_warned,
                                spendable_at, expires_at, created_at, last_entry_id)
        SELECT merchant_id, id, member_id, amount, 4, true, false, false, now(), 'infinity', now(), id FROM e""",
    f"""reward_redemption_reversed_once | UPDATE reward_redemption SET reversed_at = now()
        WHERE {one("reward_redemption", "reversed_at IS NOT NULL")}""",
    f"sales_order_guard | UPDATE sales_order SET order_amount = 5 WHERE {one('sales_order')}",
    f"""sales_order_paid | UPDATE sales_order SET paid_points = 5, version = version + 1
        WHERE {one("sales_order", "payments = 0")}""",
    f"purchase_paid | UPDATE purchase SET paid_points = 1, paid_value = amount + 1 WHERE {one('purchase')}",
    f"purchase_paid | UPDATE purchase SET returned_points = paid_points + 1 WHERE {one('purchase')}",
    f"code_held | UPDATE code SET held_until = NULL WHERE {one('code', 'hold_id IS NOT NULL')}",
    f"code_held | UPDATE code SET state = 'SET_ASIDE' WHERE {one('code', 'state = $$AVAILABLE$$')}",
    f"""hold_lifecycle | UPDATE hold SET version = version + 1, status = 'HELD'
        WHERE {one("hold", "status <> 'HELD'")}""",
    f"hold_lifecycle | UPDATE hold SET version = version WHERE {one('hold', 'status = $$HELD$$')}",
    """hold_lifecycle | INSERT INTO hold (
            merchant_id, id, sales_order_id, order_amount, currency, total_discount, points, points_value, point_value,
            held_points, status, version, held_at, held_until, ended_at, presented_by
        )
        SELECT merchant_id, gen_random_uuid(), id, 0, 'USD', 0, 0, 0, 1, 0, 'RELEASED', 1, now(),
            now() + interval '1 h', now(), '' FROM sales_order WHERE merchant_id = $1 LIMIT 1""",
    f"""hold_captured | UPDATE hold SET version = version + 1, status = 'CAPTURED', ended_at = now()
        WHERE {one("hold", "status = 'HELD'")}""",
    f"hold_ended | UPDATE hold SET version = version + 1, ended_at = now() WHERE {one('hold', 'status = $$HELD$$')}",
    f"""hold_lifetime | UPDATE hold SET version = version + 1, held_until = held_at
        WHERE {one("hold", "status = 'HELD'")}""",
    f"""hold_amounts | UPDATE hold SET version = version + 1, total_discount = order_amount + 1
        WHERE {one("hold", "status = 'HELD'")}""",
    f"""hold_points | UPDATE hold SET version = version + 1, member_id = NULL, held_points = points + 1
        WHERE {one("hold", "status = 'HELD'")}""",
    f"hold_code_amounts | UPDATE hold_code SET discount = base + 1 WHERE {one('hold_code')}",
    "bulk_job_guard | UPDATE bulk_job SET total = total WHERE merchant_id = $1 AND finished_at IS NOT NULL",
    *(
        f"""{table}_follows | UPDATE {table} t SET member_id = (
            SELECT id FROM member WHERE merchant_id = $1 AND id <> t.member_id AND merged_into_id IS NULL LIMIT 1
        ) WHERE {one(table)}"""
        for table in ("points_lot", "points_return", "purchase", "reward_redemption")
    ),
    f"""hold_follows | UPDATE hold SET member_id = NULL, version = version + 1
        WHERE {one("hold", "status = 'RELEASED'")}""",
    f"""points_entry_merged | INSERT INTO points_entry (merchant_id, id, member_id, amount, balance_after, reason,
            origin, spendable_at, created_at)
        SELECT merchant_id, gen_random_uuid(), member_id, 5, 5, 'MERGE', 'by hand', now(), now()
        FROM wallet WHERE {one("wallet")}""",
    f"member_merged_into_other | UPDATE member SET merged_into_id = id WHERE {one('member')}",
    f"wallet_version_grows | UPDATE wallet SET version = version - 1 WHERE {one('wallet', 'version > 0')}",
    """wallet_begins_empty | WITH m AS (
            INSERT INTO member (merchant_id, id, email_verified, source, joined_at)
            VALUES ($1, gen_random_uuid(), false, 'STORE', now()) RETURNING merchant_id, id
        )
        INSERT INTO wallet (merchant_id, member_id, version, points) SELECT merchant_id, id, 0, 5 FROM m""",
]
_OF_DRAFT = "pool_id IN (SELECT id FROM pool WHERE merchant_id = $1 AND status = 'DRAFT')"
_CLAIM = "INSERT INTO claim (merchant_id, code_id, pool_id, member_id, slot, claimed_at)"
_OWNED = one("claim", "member_id IS NOT NULL")
#: Claims of no pool, no code, no member, or of a draft with another pool's code; a code that goes without its claims;
#: an address of no merchant; deliveries of no campaign, of no code, of a draft's, and of one that is gone.
DANGLING = [
    f"claim_refers | {_CLAIM} SELECT $1, code_id, $1, member_id, 999, now() FROM claim WHERE {_OWNED}",
    f"claim_refers | {_CLAIM} SELECT $1, $1, pool_id, member_id, 999, now() FROM claim WHERE {_OWNED}",
    f"""claim_refers | {_CLAIM} SELECT $1, id, pool_id, $1, 999, now() FROM code
        WHERE {one("code", "state = 'AVAILABLE'")}""",
    f"""claim_refers | {_CLAIM} SELECT $1, id, pool_id, $1, 999, now() FROM code
        WHERE {one("code", f"{_OF_DRAFT} AND state = 'AVAILABLE'")}""",
    f"""claim_refers | {_CLAIM} SELECT $1, k.code_id, p.id, k.member_id, 999, now() FROM claim k, pool p
        WHERE k.{one("claim", f"member_id IS NOT NULL AND NOT {_OF_DRAFT}")}
        AND p.merchant_id = $1 AND p.status = 'DRAFT' LIMIT 1""",
    f"claim_still_refers | UPDATE claim SET member_id = $1 WHERE {_OWNED}",
    f"code_unclaimed | DELETE FROM code WHERE {one('code', f'{_OF_DRAFT} AND member_id IS NOT NULL')}",
    f"address_refers | INSERT INTO address (merchant_id, email_index) SELECT id, 'x' FROM member WHERE {one('member')}",
    f"delivery_refers | {_DELIVER} SELECT $1, code_id, $1, 999, true FROM delivery WHERE {one('delivery')}",
    f"delivery_refers | {_DELIVER} SELECT $1, $1, id, 999, true FROM campaign WHERE {one('campaign')}",
    f"""delivery_refers | {_DELIVER} SELECT $1, c.id, k.id, 999, true
        FROM campaign k, code c JOIN pool p ON p.merchant_id = $1 AND p.id = c.pool_id AND p.status = 'DRAFT'
        WHERE k.merchant_id = $1 AND c.merchant_id = $1 LIMIT 1""",
    f"delivery_still_refers | UPDATE delivery SET code_id = $1 WHERE {one('delivery')}",
]
#: What no constraint refuses, and which promise the report then finds broken.
ACCEPTED = [
    (
        "ONE_OWNER",
        1,
        f"""UPDATE claim k SET member_id = (
            SELECT id FROM member m WHERE merchant_id = $1 AND NOT EXISTS (
                SELECT FROM claim WHERE merchant_id = $1 AND member_id = m.id
            ) LIMIT 1
        )
        WHERE {one("claim", "member_id IS NOT NULL")}""",
    ),
    ("CLAIM_LIMIT", 1, CLAIM_TOO_MANY),
    (
        "WHOLE_BATCHES",
        1,
        """INSERT INTO code_batch (merchant_id, id, pool_id, size, created_at)
        SELECT merchant_id, gen_random_uuid(), id, 3, now() FROM pool WHERE merchant_id = $1 LIMIT 1""",
    ),
    (
        "EXACT_BALANCES",
        2,
        """INSERT INTO points_part (merchant_id, entry_id, lot_id, amount)
        SELECT merchant_id, entry_id, entry_id, -1 FROM points_lot WHERE merchant_id = $1 LIMIT 1""",
    ),
    ("EXACT_BALANCES", 1, f"UPDATE points_lot SET is_pending = true WHERE {one('points_lot', 'is_open AND held = 0')}"),
    (
        "EXACT_BALANCES",
        2,
        """INSERT INTO points_entry (merchant_id, id, member_id, amount, balance_after, reason, origin, created_at)
        SELECT merchant_id, gen_random_uuid(), member_id, 5, 5, 'ADJUSTMENT', 'by hand', now()
        FROM wallet WHERE merchant_id = $1 LIMIT 1""",
    ),
    ("INVITE_QUOTAS", 1, "UPDATE invite_quota SET sent_lifetime = sent_lifetime - 1 WHERE merchant_id = $1"),
    ("ON_RECORD", 1, f"UPDATE wallet SET version = version + 1 WHERE {one('wallet')}"),
    ("ON_RECORD", 1, f"UPDATE api_key SET revoked_at = now() WHERE {one('api_key', 'revoked_at IS NULL')}"),
]


@pytest.mark.parametrize("refused", REFUSED, ids=lambda refused: refused.partition(" |")[0])
async def test_the_database_refuses_it(lively: Shop, refused: str) -> None:
    constraint, _, statement = refused.partition(" | ")

    with pytest.raises(asyncpg.CheckViolationError) as violation:
        await database().rows(statement, lively.merchant_id)

    assert violation.value.constraint_name == constraint


@pytest.mark.parametrize("dangling", DANGLING)
async def test_what_is_written_by_thousands_names_what_stays(lively: Shop, dangling: str) -> None:
    trigger, _, statement = dangling.partition(" | ")

    with pytest.raises(asyncpg.ForeignKeyViolationError) as violation:
        await database().rows(statement, lively.merchant_id)

    assert violation.value.constraint_name == trigger


DROPPED = """
DELETE FROM code WHERE merchant_id = $1 AND state = 'AVAILABLE'
    AND pool_id = (SELECT id FROM pool WHERE merchant_id = $1 AND status = 'DRAFT' ORDER BY id LIMIT 1)
"""
CLAIMED = f"""
{_CLAIM} SELECT $1, c.id, c.pool_id, m.id, 999, now() FROM code c, member m
WHERE m.{one("member")} AND c.merchant_id = $1 AND c.state = 'AVAILABLE'
    AND c.pool_id = (SELECT id FROM pool WHERE merchant_id = $1 AND status = 'DRAFT' ORDER BY id LIMIT 1) LIMIT 1
"""
ACTIVATED = """
UPDATE pool SET status = 'ACTIVE'
WHERE id = (SELECT id FROM pool WHERE merchant_id = $1 AND status = 'DRAFT' ORDER BY id LIMIT 1)
"""


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [(DROPPED, CLAIMED, "claim_refers"), (CLAIMED, DROPPED, "code_unclaimed"), (ACTIVATED, DROPPED, "code_kept")],
)
async def test_whoever_drops_a_code_and_whoever_claims_it_wait_for_each_other(
    shop: Shop, first: str, second: str, refused: str
) -> None:
    await shop.member()
    await shop.pool(active=False, codes=2)
    beside = database()
    async with transaction(None) as tx:
        await tx.rows(first, shop.merchant_id)
        waiting = asyncio.create_task(beside.rows(second, shop.merchant_id))
        while not await tx.rows(WAITING):
            assert not waiting.done(), waiting.exception()

    with pytest.raises((asyncpg.CheckViolationError, asyncpg.ForeignKeyViolationError)) as violation:
        await waiting

    assert violation.value.constraint_name == refused


async def test_a_table_whose_rows_stay_is_not_emptied_either(lively: Shop) -> None:
    with pytest.raises(asyncpg.CheckViolationError) as violation:
        await database().rows("TRUNCATE reversal")

    assert violation.value.constraint_name == "reversal_kept"


@pytest.mark.parametrize(("promise", "count", "statement"), ACCEPTED)
async def test_what_no_constraint_refuses_is_found(lively: Shop, promise: str, count: int, statement: str) -> None:
    async with undone(transaction(None)) as tx:
        await tx.rows(statement, lively.merchant_id)
        found = await violations(tx, lively.merchant_id)

    assert found[promise] == count


async def test_an_event_about_a_row_that_is_not_there_is_found(lively: Shop) -> None:
    async with undone(transaction(None)) as tx:
        await events.record(tx, lively.merchant_id, "member.enrolled", uuid4(), "system")
        found = await violations(tx, lively.merchant_id)

    assert found == {"ONE_MERCHANT": 1}


async def test_every_refusal_is_tried(database_pool: Settings) -> None:
    rows = await database().rows(
        "SELECT tgname FROM pg_trigger WHERE tgfoid = ANY($1::text[]::regproc[])", ["refuse_delete", "refuse_change"]
    )

    assert {row["tgname"] for row in rows} - {refused.partition(" |")[0] for refused in REFUSED} == set()


def test_the_page_says_what_holds_each_promise() -> None:
    page = (ROOT / "docs" / "promises.md").read_text()
    told = re.findall(r"^\| (\d+) \| [^|]+ \| `(\w+)` \| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE)
    (one_by_one,) = re.findall(r"^## One by one$(.*?)^## ", page, re.MULTILINE | re.DOTALL)
    explained = re.split(r"^\d+\. ", one_by_one, flags=re.MULTILINE)[1:]

    assert [(int(number), name) for number, name, *_ in told] == list(enumerate(NAMES, start=1))
    assert [held_by for _, _, held_by, _ in told] == [", ".join(each.value for each in HELD[name].by) for name in NAMES]
    for _, name, _, first in told:
        assert set(re.findall(r"`(\w+)`", first)) <= set(HELD[name].constraints)
    unlike = [
        f"{name}: {constraint} is on the page or in held.py alone"
        for name, text in zip(NAMES, explained, strict=True)
        for constraint in {*re.findall(r"`(\w+_\w+)`", text)} - {"merchant_id"} ^ {*HELD[name].constraints}
    ]
    assert not unlike, "\n".join(unlike)


async def test_what_the_page_names_is_in_the_catalog_and_holds(database_pool: Settings) -> None:
    assert await missing_constraints() == []


async def test_rows_that_stay_can_be_deleted_as_the_page_says(database_pool: Settings) -> None:
    (block,) = blocks("docs/promises.md", "Rows that stay", "sql")
    async with scratch_database() as url:
        connection = await asyncpg.connect(dsn(url))
        try:
            said = await connection.execute(block.text)
            with pytest.raises(asyncpg.CheckViolationError) as violation:
                await connection.execute("DELETE FROM reversal")
        finally:
            await connection.close()

    assert said == "COMMIT"
    assert violation.value.constraint_name == "reversal_kept"
