"""What a merchant has in the database: without this a refusal could change a row and no test would see it.

The tables are those of the catalog, so a new one is looked at without anyone thinking of it.
"""

from typing import Final
from uuid import UUID

from app.storage.database import database

#: Tables of no merchant, and why nobody needs to look at them.
OF_NO_MERCHANT: Final = {"tortoise_migrations": "which migrations have run"}
TABLES = """
SELECT relname AS name, EXISTS (
    SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'merchant_id' AND NOT a.attisdropped
) AS is_merchants
FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY 1
"""
_statements: list[str] = []


class State(dict[str, tuple[int, int]]):
    """How many rows a merchant has in each table, and a digest of all that is in them."""

    def since(self, before: "State") -> dict[str, int]:
        """Return by how many rows each table has grown in which anything is different."""
        return {name: self[name][0] - before[name][0] for name in self if self[name] != before[name]}

    def counts(self) -> dict[str, int]:
        """Return how many rows there are in each table that has any."""
        return {name: rows for name, (rows, _) in self.items() if rows}


async def state(merchant_id: UUID) -> State:
    """Look at every row of a merchant, in one statement."""
    if not _statements:
        tables = [row["name"] for row in await database().rows(TABLES) if row["is_merchants"]]
        looks = (
            f"SELECT '{table}' AS name, count(*) AS rows, coalesce(sum(hash_record_extended(t, 0)), 0) AS digest "
            f"FROM {table} t WHERE merchant_id = $1"
            for table in tables
        )
        _statements.append(" UNION ALL ".join(looks))
    rows = await database().rows(_statements[0], merchant_id)
    return State({row["name"]: (row["rows"], int(row["digest"])) for row in rows})
