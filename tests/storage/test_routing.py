"""Behind a router each statement of a request must name one merchant; without this a new one crosses all servers."""

import pytest

from app.web import metrics_page
from tests.storage.routing import is_one, merchants_of
from tests.storage.test_rows import statements_by_name

#: Statements over all merchants: of workers and commands, each of which works on one server, and of the wallets' sweep.
SWEEPS = {
    "app.advisor.runs": {"WAITING", "TAKE", "ABANDONED"},
    "app.coupons.expire_codes": {"FIND", "FIND_SINCE"},
    "app.coupons.revive_codes": {"FIND"},
    "app.coupons.stock": {"FIND"},
    "app.people.erasure_log": {"FIND_UNLOGGED"},
    "app.people.erasure_memory": {"FORGET"},
    "app.coupons.stock_levels": {"MISSED"},
    "app.graph.forget_snapshots": {"FORGET", "HOLD", "DROP"},
    "app.graph.jobs": {"DUE", "PLAN", "LANES", "TAKE", "ABANDONED"},
    "app.graph.take_snapshots": {"REPEAT"},
    "app.integrity.audit": {"MERCHANTS", "STANDING"},
    "app.jobs.turns": {"LOOK", "TAKE", "ABANDONED"},
    "app.merchants.data_keys": {"HOLD_MASTER_KEYS"},
    "app.merchants.list_merchants": {"LIST"},
    "app.merchants.reencrypt": {"FIND_MERCHANTS"},
    "app.merchants.rotate_master_key": {"TRY_LOCK", "WAIT_FOR_WRAPPERS", "COUNT", "FIND_MERCHANTS"},
    "app.merchants.rotate_token_keys": {"ADOPT"},
    "app.operate.clocks": {"NOW"},
    "app.orders.expire_holds": {"FIND"},
    "app.points.expire_points": {"FIND_DUE", "FIND_UNWARNED"},
    "app.points.mature_points": {"FIND_RIPE"},
    "app.referrals.expire_invites": {"FIND"},
    "app.reports.runs": {"ABANDONED", "PASS", "PLAN", "TAKE"},
    "app.segments.refresh": {"DUE", "PASS"},
    "app.storage.news": {"SINCE"},
    "app.wallets.wallet_feed": {"SWEEP"},
    "app.webhooks.deliveries": {"TAKE"},
    "app.webhooks.feed": {"FIND", "FIND_SINCE"},
    "app.webhooks.forget_deliveries": {"FORGET", "FORGET_SECRETS"},
}

#: Statements that name one merchant, but not where a router looks: they add and compare what queries return, or insert
#: several rows. Only transactions send them, and a transaction says its merchant first.
WITHIN_TRANSACTIONS = {
    "app.graph.take_snapshots": {"STORE_FILES"},
    "app.integrity.promises": {
        "CLAIM_LIMIT", "CONVERTED_REFERRALS", "CREDITED_ONCE", "EXACT_BALANCES", "HELD_IS_THERE", "INVITE_QUOTAS",
        "ONE_MERCHANT", "ONE_OWNER", "ON_RECORD", "POOL_LIFECYCLE", "REDEEMED_ONCE", "WHOLE_BATCHES",
    },
}  # fmt: skip
LISTED = {
    f"{module}.{name}" for each in (SWEEPS, WITHIN_TRANSACTIONS) for module, names in each.items() for name in names
}


def sweeps() -> set[str]:
    """Return the texts of the statements in which a router needs to find no merchant."""
    found = statements_by_name()
    listed = {found[name].text for name in LISTED}
    return listed | {metrics_page.POOLS, metrics_page.JOBS}


@pytest.mark.parametrize(
    ("sql", "merchants"),
    [
        ("SELECT * FROM pool WHERE merchant_id = $1 AND id = $2", {"$1"}),
        ("SELECT * FROM pool WHERE $3::uuid = pool.merchant_id", {"$3"}),
        ("INSERT INTO pool (id, merchant_id) VALUES ($1, $2)", {"$2"}),
        ("INSERT INTO pool (id, merchant_id) SELECT id, $2 FROM unnest($1::uuid[]) AS id", {"$2"}),
        ("WITH p AS (INSERT INTO pool (merchant_id) VALUES ($1) RETURNING *) SELECT * FROM p", set()),
        ("WITH p AS (INSERT INTO pool (merchant_id) VALUES ($1)) SELECT FROM code WHERE merchant_id = $1", {"$1"}),
        ("SELECT * FROM pool p JOIN code c ON c.merchant_id = p.merchant_id", set()),
        ("INSERT INTO pool (id, merchant_id) VALUES ($1, $2), ($3, $2)", {"several"}),
        ("SELECT FROM pool WHERE merchant_id = $1 OR id = $2", set()),
        ("SELECT FROM pool WHERE NOT merchant_id = $1", set()),
        ("SELECT FROM pool WHERE merchant_id = ANY($1)", {"several"}),
        ("SELECT FROM pool WHERE merchant_id IN ($1, $2)", {"several"}),
        ("SELECT FROM pool WHERE (SELECT count(*) FROM code WHERE merchant_id = $1) > 5", set()),
        ("SELECT FROM pool WHERE id = (SELECT pool_id FROM code WHERE merchant_id = $1)", {"$1"}),
        ("SELECT CASE WHEN a THEN (SELECT b FROM code WHERE merchant_id = $1) END FROM pool", {"$1"}),
        ("SELECT FROM pool WHERE merchant_id = $1 AND EXISTS (SELECT FROM code WHERE merchant_id = $2)", {"$1", "$2"}),
        ("SELECT 1", None),
        ("BEGIN", None),
    ],
)  # fmt: skip
def test_a_merchant_is_found_where_a_router_finds_it(sql: str, merchants: set[str] | None) -> None:
    assert merchants_of(sql) == merchants


def test_every_statement_but_a_sweep_names_one_merchant() -> None:
    found = {name: merchants_of(statement.text) for name, statement in statements_by_name().items()}

    placed = {name for name, merchants in found.items() if is_one(merchants)}
    assert found.keys() - placed == LISTED
