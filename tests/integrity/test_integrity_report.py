"""integrityReport. Without this a broken promise could stay unnoticed, or a whole one be reported as broken."""

import asyncio
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from app import ids
from app.integrity import recompute as recomputing
from app.integrity.promises import PROMISES, Violations
from app.integrity.recompute import recompute
from app.integrity.references import REFERENCES, UNKEYED, Reference
from app.storage.database import database, dsn, transaction
from app.storage.statements import statement
from tests.factories import Shop
from tests.integrity.breaking import CLAIM_TOO_MANY, NAMES, one, undone, violations
from tests.operate.processes import flash
from tests.races.storm import ENROL, at_once
from tests.scratch import scratch_database

REPORT = "{ integrityReport { checkedAt ok checks { name ok violations } } }"

#: Leaves nothing that could hold a promise but the rows themselves.
UNGUARD = """
DO $$ DECLARE each record; BEGIN
    FOR each IN
        SELECT format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I CASCADE', conrelid::regclass, conname) AS drop
        FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND contype IN ('f', 'c', 'u') AND coninhcount = 0
    LOOP EXECUTE each.drop; END LOOP;
    FOR each IN SELECT format('DROP INDEX %s', indexrelid::regclass) AS drop
        FROM pg_index JOIN pg_class c ON c.oid = indexrelid
        WHERE c.relnamespace = 'public'::regnamespace AND indisunique AND NOT indisprimary
    LOOP EXECUTE each.drop; END LOOP;
    FOR each IN SELECT format('DROP TRIGGER %I ON %s', tgname, tgrelid::regclass) AS drop
        FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid
        WHERE c.relnamespace = 'public'::regnamespace AND NOT tgisinternal
    LOOP EXECUTE each.drop; END LOOP;
END $$
"""
FOREIGN_KEYS = """
SELECT conrelid::regclass::text AS table, confrelid::regclass::text AS target,
    array_agg(a.attname::text ORDER BY place) AS columns, array_agg(f.attname::text ORDER BY place) AS keys,
    conname AS name
FROM pg_constraint, unnest(conkey, confkey) WITH ORDINALITY AS pairs (column_, key, place)
JOIN pg_attribute a ON true JOIN pg_attribute f ON true
WHERE contype = 'f' AND connamespace = 'public'::regnamespace AND a.attrelid = conrelid AND a.attnum = column_
    AND f.attrelid = confrelid AND f.attnum = key
GROUP BY pg_constraint.oid, 1, 2
"""


#: References of rows that the merchant of conftest.py doesn't have.
UNMADE = {
    "graph_snapshot.id", "graph_snapshot.drawing_id", "graph_node.drawing_id", "graph_node.member_id",
    "graph_edge.drawing_id", "graph_edge.referrer_id", "graph_edge.referee_id", "graph_file.drawing_id",
    "referral.purchase_id", "archived_event.archive_id", "archived_wallet.archive_id",
}  # fmt: skip
#: What breaks a promise: its name, how, and in how many rows that is seen.
MERGED = one("points_entry", "lot_id IS NOT NULL")
BREAKS = [
    ("ONE_OWNER", f"UPDATE claim SET member_id = gen_random_uuid() WHERE {one('claim', 'member_id IS NOT NULL')}", 1),
    (
        "ONE_OWNER",
        f"UPDATE code SET member_id = NULL, email_index = NULL WHERE {one('code', 'state = $$REDEEMED$$')}",
        2,
    ),
    ("ONE_OWNER", f"UPDATE code SET email_index = 'x' WHERE {one('code', 'state = $$AVAILABLE$$')}", 1),
    ("ONE_OWNER", "UPDATE wallet SET closed_at = NULL WHERE merchant_id = $1", 2),
    (
        "EXACT_BALANCES",
        f"UPDATE points_part SET amount = amount - 1 WHERE entry_id = (SELECT id FROM points_entry WHERE {MERGED})",
        2,
    ),
    ("ONE_OWNER", f"UPDATE claim SET email_index = 'x' WHERE {one('claim', 'member_id IS NULL')}", 1),
    ("ONE_OWNER", f"UPDATE code SET email_index = 'x' WHERE {one('code', 'member_id IS NOT NULL')}", 1),
    ("ONE_OWNER", f"UPDATE address SET member_id = NULL WHERE {one('address', 'member_id IS NOT NULL')}", 1),
    (
        "ONE_OWNER",
        f"""UPDATE member SET email_index = (
            SELECT email_index FROM address WHERE merchant_id = $1 AND member_id IS NOT NULL LIMIT 1
        ) WHERE {one("member", "email_index IS NULL")}""",
        1,
    ),
    (
        "ONE_OWNER",
        f"""UPDATE address SET member_id = (SELECT id FROM member WHERE merchant_id = $1 LIMIT 1)
        WHERE {one("address", "email_index IN (SELECT email_index FROM code WHERE merchant_id = $1)")}""",
        2,
    ),
    ("CLAIM_LIMIT", CLAIM_TOO_MANY, 1),
    ("CLAIM_LIMIT", f"DELETE FROM claim WHERE {one('claim')}", 1),
    ("REDEEMED_ONCE", "UPDATE code SET state = 'ALLOCATED' WHERE merchant_id = $1 AND state = 'REDEEMED'", 2),
    (
        "REDEEMED_ONCE",
        """WITH o AS (
            INSERT INTO sales_order (merchant_id, id, source, order_id, order_amount, currency, version)
            SELECT merchant_id, gen_random_uuid(), source, 'another', order_amount, currency, 1 FROM redemption
            WHERE merchant_id = $1 AND reversed_at IS NULL AND order_id = 'A-1'
        )
        INSERT INTO redemption (merchant_id, id, pool_id, terms_version, code_id, source, order_id, position,
            order_amount, base, discount, currency, redeemed_at)
        SELECT merchant_id, gen_random_uuid(), pool_id, terms_version, code_id, source, 'another', position,
            order_amount, base, discount, currency, redeemed_at
        FROM redemption WHERE merchant_id = $1 AND reversed_at IS NULL AND order_id = 'A-1'""",
        # And more than its pool's budget says.
        2,
    ),
    ("REDEEMED_ONCE", f"UPDATE pool_budget SET remaining = remaining + 1 WHERE {one('pool_budget')}", 1),
    ("REDEEMED_ONCE", "UPDATE redemption SET base = base - 1 WHERE merchant_id = $1 AND reversed_at IS NULL", 2),
    ("REDEEMED_ONCE", "UPDATE redemption SET position = 2 WHERE merchant_id = $1 AND reversed_at IS NULL", 2),
    ("REDEEMED_ONCE", "UPDATE sales_order SET cancelled_at = now() WHERE merchant_id = $1", 2),
    ("REDEEMED_ONCE", "UPDATE sales_order SET order_amount = order_amount + 1 WHERE merchant_id = $1", 2),
    ("REDEEMED_ONCE", "DELETE FROM reversal WHERE merchant_id = $1", 1),
    (
        "REDEEMED_ONCE",
        """UPDATE redemption r SET pool_id = (
            SELECT id FROM pool WHERE merchant_id = $1 AND id <> r.pool_id LIMIT 1
        ) WHERE merchant_id = $1 AND reversed_at IS NULL""",
        3,
    ),
    ("WHOLE_BATCHES", f"DELETE FROM code WHERE {one('code', 'state = $$AVAILABLE$$')}", 1),
    ("WHOLE_BATCHES", f"UPDATE code_batch SET size = size + 1 WHERE {one('code_batch')}", 1),
    ("WHOLE_BATCHES", f"DELETE FROM delivery WHERE {one('delivery')}", 1),
    (
        "UNIQUE_CODES",
        """UPDATE code SET fingerprint = 'same'
        WHERE merchant_id = $1 AND id = ANY(ARRAY(SELECT id FROM code WHERE merchant_id = $1 LIMIT 2))""",
        1,
    ),
    (
        "CREDITED_ONCE",
        """INSERT INTO points_entry (merchant_id, id, member_id, amount, balance_after, reason, origin, created_at)
        SELECT merchant_id, gen_random_uuid(), member_id, amount, balance_after, reason, origin, created_at
        FROM points_entry WHERE merchant_id = $1 AND reason = 'ADJUSTMENT' LIMIT 1""",
        1,
    ),
    ("CREDITED_ONCE", f"UPDATE purchase SET points = points + 1 WHERE {one('purchase')}", 1),
    ("CREDITED_ONCE", "DELETE FROM points_entry WHERE merchant_id = $1 AND reason = 'PURCHASE'", 5),
    ("CREDITED_ONCE", f"UPDATE purchase SET refunded = refunded - 1 WHERE {one('purchase', 'refunded = 150')}", 1),
    ("CREDITED_ONCE", f"UPDATE purchase SET credits = 2 WHERE {one('purchase')}", 1),
    ("CREDITED_ONCE", f"UPDATE refund SET amount = amount + 1 WHERE {one('refund')}", 1),
    ("CREDITED_ONCE", f"UPDATE refund SET taken = taken + 1 WHERE {one('refund')}", 1),
    ("ON_RECORD", f"DELETE FROM refund WHERE {one('refund', 'amount = 150')}", 1),
    ("EXACT_BALANCES", f"UPDATE wallet SET points = points + 1 WHERE {one('wallet')}", 2),
    ("EXACT_BALANCES", f"UPDATE wallet SET points = -1 WHERE {one('wallet')}", 2),
    ("EXACT_BALANCES", f"UPDATE points_entry SET balance_after = balance_after + 1 WHERE {one('points_entry')}", 1),
    (
        "EXACT_BALANCES",
        f"UPDATE points_lot SET remaining = remaining + 1 WHERE {one('points_lot', 'remaining > 0')}",
        2,
    ),
    ("EXACT_BALANCES", f"UPDATE points_lot SET amount = amount + 1 WHERE {one('points_lot', 'remaining > 0')}", 1),
    ("EXACT_BALANCES", f"UPDATE points_lot SET is_pending = true WHERE {one('points_lot', 'remaining > 0')}", 1),
    ("EXACT_BALANCES", f"UPDATE points_lot SET held = held - 1 WHERE {one('points_lot', 'held > 0')}", 2),
    ("EXACT_BALANCES", f"UPDATE wallet SET held_points = 0 WHERE {one('wallet', 'held_points > 0')}", 1),
    ("EXACT_BALANCES", f"DELETE FROM hold_part WHERE {one('hold_part')}", 1),
    ("HELD_IS_THERE", f"DELETE FROM hold_part WHERE {one('hold_part')}", 1),
    (
        "HELD_IS_THERE",
        f"UPDATE hold SET held_points = held_points + 1 WHERE {one('hold', 'held_points > 0 AND ended_at IS NULL')}",
        2,
    ),
    ("EXACT_BALANCES", f"UPDATE hold_part SET amount = amount + 1 WHERE {one('hold_part')}", 1),
    ("EXACT_BALANCES", f"UPDATE points_lot SET returned = returned + 1 WHERE {one('points_lot', 'returned = 0')}", 1),
    ("EXACT_BALANCES", f"UPDATE points_return SET shortfall = 1 WHERE {one('points_return', 'shortfall = 0')}", 2),
    ("EXACT_BALANCES", f"UPDATE points_return SET expired = 1 WHERE {one('points_return', 'expired = 0')}", 1),
    ("EXACT_BALANCES", f"DELETE FROM points_return WHERE {one('points_return')}", 1),
    ("EXACT_BALANCES", f"UPDATE points_lot SET expired = expired + 1 WHERE {one('points_lot')}", 1),
    (
        "EXACT_BALANCES",
        """INSERT INTO points_cover (merchant_id, lot_id, return_id, amount)
        SELECT $1, l.entry_id, r.id, 1 FROM points_return r, points_lot l
        WHERE r.merchant_id = $1 AND l.merchant_id = $1 AND l.remaining > 0 LIMIT 1""",
        2,
    ),
    ("EXACT_BALANCES", f"DELETE FROM points_lot WHERE {one('points_lot', 'remaining = amount AND held = 0')}", 2),
    ("EXACT_BALANCES", f"DELETE FROM points_part WHERE {one('points_part', 'returned = 0')}", 3),
    ("EXACT_BALANCES", f"UPDATE points_part SET returned = returned + 1 WHERE {one('points_part')}", 2),
    (
        "EXACT_BALANCES",
        "UPDATE points_entry SET origin = 'hold/' || origin WHERE merchant_id = $1 AND reason = 'REFUND'",
        2,
    ),
    ("CREDITED_ONCE", "UPDATE reward_redemption SET reversed_at = NULL WHERE merchant_id = $1", 1),
    (
        "CREDITED_ONCE",
        f"UPDATE sales_order SET paid_points = paid_points - 1 WHERE {one('sales_order', 'payments > 0')}",
        1,
    ),
    ("CREDITED_ONCE", f"UPDATE sales_order SET payments = 2 WHERE {one('sales_order', 'payments > 0')}", 1),
    ("CREDITED_ONCE", "DELETE FROM points_entry WHERE merchant_id = $1 AND reason = 'PAYMENT'", 2),
    ("CREDITED_ONCE", f"UPDATE purchase SET returned_points = 1 WHERE {one('purchase', 'paid_points = 0')}", 1),
    ("CREDITED_ONCE", "DELETE FROM points_entry WHERE merchant_id = $1 AND reason = 'REFUND'", 1),
    ("INVITE_QUOTAS", "UPDATE invite_quota SET sent_lifetime = sent_lifetime - 1 WHERE merchant_id = $1", 1),
    ("INVITE_QUOTAS", "UPDATE invite_quota SET sent_today = day_max + 1 WHERE merchant_id = $1", 1),
    ("INVITE_QUOTAS", "DELETE FROM invite_quota WHERE merchant_id = $1", 1),
    ("CONVERTED_REFERRALS", "UPDATE invite SET status = 'EXPIRED' WHERE merchant_id = $1 AND status = 'CONVERTED'", 2),
    (
        "CONVERTED_REFERRALS",
        """INSERT INTO rewarded_mailbox (merchant_id, mailbox_index, invite_id)
        SELECT $1, 'x', id FROM invite WHERE merchant_id = $1 AND status = 'PENDING'""",
        1,
    ),
    ("CONVERTED_REFERRALS", "DELETE FROM referral WHERE merchant_id = $1", 3),
    ("CONVERTED_REFERRALS", "UPDATE referral SET referee_id = referrer_id WHERE merchant_id = $1", 4),
    (
        "CONVERTED_REFERRALS",
        """INSERT INTO referral (merchant_id, id, invite_id, referrer_id, referee_id, referrer_points, referee_points,
            flags, converted_at)
        SELECT $1, gen_random_uuid(), gen_random_uuid(), referee_id, referrer_id, 1, 1, '{}', now()
        FROM referral WHERE merchant_id = $1""",
        3,
    ),
    (
        "CONVERTED_REFERRALS",
        """UPDATE points_lot SET returned = 1
        WHERE merchant_id = $1 AND entry_id IN (SELECT referee_entry_id FROM referral WHERE merchant_id = $1)""",
        1,
    ),
    (
        "CONVERTED_REFERRALS",
        """INSERT INTO points_entry (merchant_id, id, member_id, amount, balance_after, reason, origin, created_at)
        SELECT merchant_id, gen_random_uuid(), member_id, amount, balance_after, reason, origin || '/again', created_at
        FROM points_entry WHERE merchant_id = $1 AND reason = 'REFERRAL_REFERRER'""",
        1,
    ),
    (
        "CONVERTED_REFERRALS",
        f"UPDATE referral SET purchase_id = (SELECT id FROM purchase WHERE {one('purchase')}) WHERE merchant_id = $1",
        1,
    ),
    ("POOL_LIFECYCLE", "UPDATE pool SET status = 'DRAFT' WHERE merchant_id = $1 AND status = 'PAUSED'", 2),
    ("POOL_LIFECYCLE", "UPDATE pool SET status = 'ACTIVE' WHERE merchant_id = $1 AND status = 'ARCHIVED'", 1),
    ("POOL_LIFECYCLE", f"UPDATE pool SET claims_per_member = 7 WHERE {one('pool')}", 1),
    ("POOL_LIFECYCLE", f"UPDATE pool SET ends_at = now() WHERE {one('pool', 'ends_at IS NULL')}", 1),
    (
        "POOL_LIFECYCLE",
        f"""UPDATE pool_terms SET version = 2
        WHERE {one("pool_terms", "pool_id NOT IN (SELECT pool_id FROM redemption)")}""",
        1,
    ),
    ("POOL_LIFECYCLE", "UPDATE redemption SET terms_version = 2 WHERE merchant_id = $1 AND reversed_at IS NULL", 2),
    ("ON_RECORD", "DELETE FROM event WHERE merchant_id = $1 AND type = 'member.enrolled'", 9),
    ("ON_RECORD", "DELETE FROM event WHERE merchant_id = $1 AND type = 'member.erased'", 1),
    ("ON_RECORD", "DELETE FROM event WHERE merchant_id = $1 AND type = 'purchase.recorded'", 5),
    ("ON_RECORD", "DELETE FROM event WHERE merchant_id = $1 AND type = 'order.amended'", 2),
    ("ON_RECORD", f"UPDATE wallet SET version = version + 1 WHERE {one('wallet')}", 1),
    ("ON_RECORD", f"DELETE FROM event WHERE {one('event', 'wallet_version = 1')}", 2),
    ("ON_RECORD", f"UPDATE code SET state = 'REVOKED' WHERE {one('code', 'state = $$AVAILABLE$$')}", 1),
    ("ON_RECORD", f"UPDATE api_key SET revoked_at = now() WHERE {one('api_key', 'revoked_at IS NULL')}", 1),
    ("HELD_IS_THERE", f"UPDATE code SET held_until = NULL WHERE {one('code', 'held_until IS NOT NULL')}", 1),
    ("HELD_IS_THERE", f"UPDATE code SET hold_id = gen_random_uuid() WHERE {one('code', 'hold_id IS NOT NULL')}", 1),
    ("HELD_IS_THERE", f"UPDATE code SET state = 'REVOKED' WHERE {one('code', 'hold_id IS NOT NULL')}", 2),
    ("HELD_IS_THERE", f"UPDATE hold SET total_discount = 1 WHERE {one('hold')}", 1),
    ("HELD_IS_THERE", f"UPDATE hold_code SET position = 2 WHERE {one('hold_code')}", 1),
    (
        "HELD_IS_THERE",
        f"UPDATE hold_code SET redemption_id = NULL WHERE {one('hold_code', 'redemption_id IS NOT NULL')}",
        1,
    ),
    (
        "HELD_IS_THERE",
        "UPDATE hold SET status = 'CAPTURED' WHERE merchant_id = $1 AND status = 'RELEASED'",
        2,
    ),
    (
        "HELD_IS_THERE",
        """UPDATE sales_order SET cancelled_at = now()
        WHERE merchant_id = $1 AND id IN (SELECT sales_order_id FROM hold WHERE status = 'HELD')""",
        3,
    ),
    ("HELD_IS_THERE", f"UPDATE hold_part SET amount = amount + 1 WHERE {one('hold_part')}", 1),
    ("HELD_IS_THERE", f"UPDATE hold_reward SET cost = cost + 1 WHERE {one('hold_reward')}", 1),
    ("HELD_IS_THERE", f"UPDATE hold SET held_until = held_at + interval '31 days' WHERE {one('hold')}", 1),
    (
        "ONE_MERCHANT",
        f"UPDATE event SET subject_id = gen_random_uuid() WHERE {one('event', 'type = $$member.enrolled$$')}",
        1,
    ),
]


async def test_each_promise_reads_its_tables_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """While statistics say that tables are empty, thousands of rows would be compared with each other."""
    loops = statement(
        Violations,
        "SELECT (:merchant_id::uuid IS NULL OR current_setting('enable_nestloop') = 'on')::int AS violations",
    )
    monkeypatch.setattr(recomputing, "PROMISES", [replace(PROMISES[0], count=loops)] * 2)

    assert not any((await recompute(shop.merchant_id)).values())


async def test_a_merchant_at_which_everything_happened_keeps_every_promise(lively: Shop) -> None:
    keys = [lively.admin, await lively.key("ANALYST")]

    as_admin, as_analyst = [(await lively.data(REPORT, key=key))["integrityReport"] for key in keys]

    assert as_admin["checks"] == as_analyst["checks"] == [{"name": n, "ok": True, "violations": 0} for n in NAMES]
    assert as_admin["ok"] is as_analyst["ok"] is True


@pytest.mark.parametrize(("name", "statement", "rows"), BREAKS)
async def test_a_promise_that_is_broken_by_hand_is_found(lively: Shop, name: str, statement: str, rows: int) -> None:
    async with undone(transaction(None)) as tx:
        await tx.rows(UNGUARD)
        await tx.rows(statement, lively.merchant_id)
        found = await violations(tx, lively.merchant_id)

    assert found[name] == rows


async def test_a_row_that_names_a_row_which_its_merchant_lacks_is_found(lively: Shop) -> None:
    found, untried = {}, set()
    async with undone(transaction(None)) as tx:
        await tx.rows(UNGUARD)
        for table, column, *_ in (*REFERENCES, *UNKEYED):
            row = one(table, f"{column} IS NOT NULL")
            async with undone(tx.nested()) as inner:
                statement = f"UPDATE {table} SET {column} = gen_random_uuid() WHERE {row} RETURNING 1"
                if await inner.rows(statement, lively.merchant_id):
                    found[table, column] = (await violations(inner, lively.merchant_id)).get("ONE_MERCHANT")
                else:
                    untried.add(f"{table}.{column}")

    # Rows that referred to the changed one are found too.
    assert [pair for pair, violations in found.items() if not violations] == []
    unmade = [f"{each}: the merchant of conftest.py has no such row" for each in sorted(untried ^ UNMADE)]
    assert not unmade, "\n".join(unmade)


async def test_every_foreign_key_is_looked_at() -> None:
    keys = {
        Reference(row["table"], row["columns"][1], row["target"], row["keys"][1], row["name"])
        for row in await database().rows(FOREIGN_KEYS)
        if row["target"] != "merchant"
    }

    unlike = [f"{each} is in the catalog or in references.py alone" for each in sorted(keys ^ set(REFERENCES), key=str)]
    assert not unlike, "\n".join(unlike)


async def test_those_who_ask_at_once_share_one_report(lively: Shop) -> None:
    reports = await at_once(lively.data(REPORT) for _ in range(20))

    assert len({report["integrityReport"]["checkedAt"] for report in reports}) < 20
    assert all(report["integrityReport"]["ok"] for report in reports)


async def test_checkouts_and_members_get_no_report(lively: Shop) -> None:
    member = await lively.member()

    for key in (await lively.key("CHECKOUT"), await lively.token(member["id"])):
        assert await lively.error_code(REPORT, key=key) == "FORBIDDEN"


async def test_the_audit_names_what_is_broken_and_puts_it_on_record(tmp_path: Path) -> None:
    async with scratch_database() as url:
        keys = os.environ["FLASH_MASTER_KEYS"]

        async def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
            return await asyncio.to_thread(
                flash, *arguments, "--data", tmp_path, DATABASE_URL=url, FLASH_MASTER_KEYS=keys
            )

        for name in ("Whole", "Wrong"):
            await run("merchant", "create", "--name", name, "--currency", "USD")
        connection = await asyncpg.connect(dsn(url))
        try:
            rows = await connection.fetch("SELECT merchant_id FROM merchant ORDER BY name")
            whole, wrong = [row["merchant_id"] for row in rows]
            await connection.execute(ENROL, wrong, [ids.new()])
            await connection.execute("ALTER TABLE wallet DISABLE TRIGGER wallet_points_posted")
            await connection.execute("UPDATE wallet SET points = 5, version = 1")
            said = await run("audit")
            recorded = await connection.fetch("SELECT merchant_id, type FROM event WHERE type LIKE 'integrity.%'")
            await connection.execute("ALTER TABLE wallet DISABLE TRIGGER wallet_version_grows")
            await connection.execute("UPDATE wallet SET points = 0, version = 0")
            await connection.execute("ALTER TABLE code DROP CONSTRAINT code_owned")
            after = await run("audit")
        finally:
            await connection.close()

    names = [ids.encode("merchant", each) for each in (whole, wrong)]
    gone = "holds nothing: it was dropped or disabled, or isn't valid"
    assert said.returncode == 1
    assert said.stdout.splitlines() == [
        f"wallet_points_posted {gone}",
        f"{names[0]}: every promise holds",
        f"{names[1]}: EXACT_BALANCES is broken by 2 rows; ON_RECORD is broken by 1 rows",
    ]
    assert said.stderr == "flash: 2 promises are broken; stop all writes, and look at those rows.\n"
    assert [tuple(row) for row in recorded] == [(wrong, "integrity.violated")]
    assert after.returncode == 1
    assert after.stdout.splitlines() == [
        *(f"{name} {gone}" for name in ("code_owned", "wallet_points_posted", "wallet_version_grows")),
        *(f"{name}: every promise holds" for name in names),
    ]
    assert after.stderr == "flash: Every promise holds, but 3 constraints that hold them don't.\n"
