"""What a table must have, read from the catalog: keys that start with the merchant, a way to it, indexes."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from app.integrity.references import UNKEYED

Fetch = Callable[[str], Awaitable[Sequence[Any]]]

#: Tables that no foreign key binds to anything, because a look-up would cost each claim: their rows are written by
#: statements that have read what they name. A fence is there before its merchant is.
APPENDED = {"event", "fence", "stock_change"}
#: Tables whose rows are written by thousands, and looked at together by a trigger.
TRIGGERED = {"claim", "delivery"}
#: Columns that name rows of more than one kind, or one that may be forgotten.
OF_MANY_KINDS = {"event.subject_id", "webhook_delivery.subject_id", "webhook.feed_event_id"}
#: Foreign keys by which nobody looks for the rows that refer: an index would cost each change of them.
UNSEARCHED = {
    "address_member", "bearer_code_pool", "campaign_pool", "code_batch", "code_hold",
    "graph_edge_referee", "graph_edge_referrer", "graph_node_member",
    "hold_code_redemption", "hold_code_terms", "hold_part_lot", "hold_reward_redemption",
    "hold_reward_reward", "member_external_id", "order_amendment_sales_order", "points_entry_lot", "points_part_lot",
    "pool_fallback", "purchase_member", "referral_referee_entry", "referral_referrer_entry", "reward_redemption_reward",
}  # fmt: skip
#: Indexes by which workers look for what waits, whatever the merchant.
OF_ALL_MERCHANTS = {
    "advice_run_waiting", "bulk_job_open", "code_ending", "erasure_unlogged", "event_latest",
    "graph_job_waiting", "pool_ending", "report_run_waiting",
}  # fmt: skip
#: Tables that are vacuumed as PostgreSQL does by itself: what a merchant sets up, and what is the migrations' or nearly
#: empty. Every other one is in `LIVES` of the migration that made it, by what becomes of its rows.
SET_UP = {
    "api_key", "campaign", "code_length", "data_key", "erasure_memory", "fence", "merchant", "pool", "referral_program",
    "reward", "stock_alert", "suggestion",
}  # fmt: skip

TABLES = """
SELECT c.relname AS table,
    array_agg(a.attname::text ORDER BY a.attnum) FILTER (WHERE a.atttypid = 'uuid'::regtype) AS ids,
    bool_or(a.attname = 'merchant_id' AND a.attnotnull) AS is_of_a_merchant
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND c.relnamespace = 'public'::regnamespace AND c.relname NOT LIKE 'tortoise%'
GROUP BY c.oid ORDER BY c.relname
"""
CONSTRAINTS = """
SELECT conrelid::regclass::text AS table, conname AS name, contype::text AS kind, confrelid::regclass::text AS target,
    ARRAY(SELECT attname::text FROM unnest(conkey) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute ON attrelid = conrelid AND attnum = number ORDER BY place) AS columns,
    ARRAY(SELECT attname::text FROM unnest(confkey) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute ON attrelid = confrelid AND attnum = number ORDER BY place) AS keys
FROM pg_constraint WHERE contype IN ('p', 'u', 'f', 'x') AND connamespace = 'public'::regnamespace ORDER BY conname
"""
INDEXES = """
SELECT indrelid::regclass::text AS table, indexrelid::regclass::text AS name, indisunique AS is_unique,
    ARRAY(SELECT pg_get_indexdef(indexrelid, place, false) FROM generate_series(1, indnkeyatts) AS place) AS columns
FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE c.relnamespace = 'public'::regnamespace ORDER BY 2
"""


class Table(NamedTuple):
    """A table with its constraints and indexes, as rows of the catalog."""

    row: Any
    keys: dict[str, list[Any]]
    indexes: list[Any]


async def tables(fetch: Fetch) -> dict[str, Table]:
    """Read every table of the engine."""
    found = {row["table"]: Table(row, defaultdict(list), []) for row in await fetch(TABLES)}
    for row in await fetch(CONSTRAINTS):
        if row["table"] in found:
            found[row["table"]].keys[row["kind"]].append(row)
    for row in await fetch(INDEXES):
        if row["table"] in found:
            found[row["table"]].indexes.append(row)
    return found


async def lacking(fetch: Fetch) -> list[str]:
    """Return a sentence for each thing that a table lacks."""
    found = await tables(fetch)
    bound = _bound_to_the_merchant(found)
    said = []
    for name, table in found.items():
        if not table.row["is_of_a_merchant"]:
            said.append(f"{name} lacks a column merchant_id that is NOT NULL.")
            continue
        said += _keys_that_start_otherwise(name, table)
        if name not in bound | APPENDED | TRIGGERED:
            said.append(f"{name} lacks a foreign key that leads to merchant, at once or over another table.")
        said += _references_without_key(name, table)
        said += _references_without_index(name, table)
    return said


def _bound_to_the_merchant(found: dict[str, Table]) -> set[str]:
    """Return the tables from which foreign keys lead to the merchant, over others or at once."""
    bound, before = {"merchant"}, 0
    while len(bound) > before:
        before = len(bound)
        bound |= {name for name, table in found.items() if any(key["target"] in bound for key in table.keys["f"])}
    return bound


def _keys_that_start_otherwise(name: str, table: Table) -> list[str]:
    said = []
    if not table.keys["p"]:
        said.append(f"{name} lacks a primary key: (merchant_id, …).")
    for kind, called in (("p", "primary key"), ("u", "unique key"), ("x", "exclusion"), ("f", "foreign key")):
        for key in table.keys[kind]:
            if key["columns"][0] != "merchant_id":
                said.append(
                    f"{name}: the {called} {key['name']} is on ({', '.join(key['columns'])}); it must start with "
                    "merchant_id."
                )
            elif kind == "f" and key["keys"][0] != "merchant_id":
                said.append(f"{name}: the foreign key {key['name']} must refer to (merchant_id, …).")
    constraints = {key["name"] for keys in table.keys.values() for key in keys}
    said += [
        f"{name}: the index {index['name']} is on ({', '.join(index['columns'])}); it must start with merchant_id."
        for index in table.indexes
        if index["columns"][0] != "merchant_id" and index["name"] not in constraints | OF_ALL_MERCHANTS
    ]
    return said


def _references_without_key(name: str, table: Table) -> list[str]:
    """Every `…_id` names a row, and a foreign key says of which table."""
    keyed = {column for key in table.keys["f"] for column in key["columns"]}
    unkeyed = {reference.column for reference in UNKEYED if reference.table == name}
    return [
        f"{name}.{column} lacks a foreign key: (merchant_id, {column}) REFERENCES …"
        for column in table.row["ids"]
        if column.endswith("_id") and column not in keyed | unkeyed and f"{name}.{column}" not in OF_MANY_KINDS
        and column != "merchant_id"
    ]  # fmt: skip


def _references_without_index(name: str, table: Table) -> list[str]:
    """Whoever looks for the rows that refer to one needs an index that begins as the foreign key does."""
    beginnings = {tuple(index["columns"][:length]) for index in table.indexes for length in (1, 2)}
    return [
        f"{name} lacks an index that begins with ({', '.join(key['columns'][:2])}), by which {key['name']} refers."
        for key in table.keys["f"]
        if key["name"] not in UNSEARCHED and tuple(key["columns"][:2]) not in beginnings
    ]
