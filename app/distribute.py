"""`flash distribute`: the statements that spread a migrated database over a Citus cluster by merchant.

They are read from the database itself, so that they are those of its tables; its operator runs them: docs/scaling.md.
Every key starts with the merchant, and every statement names one: each runs on one node as it is.
"""

from graphlib import TopologicalSorter
from typing import Final

from app.storage.database import database

#: Tables with a merchant, and which others of these their foreign keys name.
TABLES: Final = """
SELECT c.oid::regclass::text AS name,
    EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'merchant_id' AND NOT attisdropped
    ) AS is_merchants,
    ARRAY(
        SELECT DISTINCT confrelid::regclass::text FROM pg_constraint
        WHERE conrelid = c.oid AND contype = 'f' AND confrelid <> c.oid
    ) AS refers_to
FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace ORDER BY 1
"""
ROOT: Final = "merchant"


async def statements() -> list[str]:
    """Return the statements, what others refer to before those that refer to it."""
    tables = {row["name"]: row for row in await database().rows(TABLES)}
    distributed = {name: set(row["refers_to"]) for name, row in tables.items() if row["is_merchants"]}
    ordered = TopologicalSorter({name: sorted(distributed[name]) for name in sorted(distributed)}).static_order()
    lines = [
        f"SELECT create_distributed_table('{ROOT}', 'merchant_id');",
        *(
            f"SELECT create_distributed_table('{name}', 'merchant_id', colocate_with => '{ROOT}');"
            for name in ordered
            if name != ROOT
        ),
    ]
    staying = [
        f"-- {name} names no merchant and stays on the coordinator." for name in tables if name not in distributed
    ]
    # The guards look at rows of their own merchant only, which is what Citus can't know.
    return ["SET citus.enable_unsafe_triggers TO on;", *lines, *staying]
