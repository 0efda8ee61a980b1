"""Everything that the database holds of a merchant, as text: what a person must not be found in."""

from uuid import UUID

from app.storage.database import database

TABLES = """
SELECT DISTINCT table_name AS name FROM information_schema.columns
WHERE table_schema = 'public' AND column_name = 'merchant_id'
"""


async def dump(merchant_id: UUID) -> str:
    """Return every row of a merchant's, bytes as hex digits."""
    rows = []
    for table in await database().rows(TABLES):
        name = table["name"]
        found = await database().rows(f"SELECT t::text AS row FROM {name} t WHERE merchant_id = $1", merchant_id)
        rows += [f"{name}: {row['row']}" for row in found]
    return "\n".join(rows)


def traces(dumped: str, *told: str | bytes) -> list[str]:
    """Return the lines of a dump in which any of these texts or bytes is."""
    spelled = set()
    for each in told:
        raw = each if isinstance(each, bytes) else each.encode()
        spelled |= {raw.hex(), *([] if isinstance(each, bytes) else [each])}
    return [line for line in dumped.splitlines() if any(each in line for each in spelled)]
