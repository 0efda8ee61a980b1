"""Pages of a snapshot's nodes and edges: ranks are their order, so a cursor is a rank and a page a range of keys."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Final, TypeVar
from uuid import UUID

from app.connections import Connection, connect, page
from app.context import Viewer
from app.database import Row, database
from app.operations import Info

T = TypeVar("T")

_PAGE: Final = """
SELECT each.* FROM unnest($2::uuid[]) AS asked (id) CROSS JOIN LATERAL (
    SELECT * FROM {0} WHERE merchant_id = $1 AND snapshot_id = asked.id AND rank > $3 {1} ORDER BY rank LIMIT $4
) each
ORDER BY each.snapshot_id, each.rank
"""
NODES: Final = _PAGE.format("graph_node", "")
EDGES: Final = _PAGE.format("graph_edge", "")
NEW_HUBS: Final = _PAGE.format("graph_node", "AND is_new_hub")
NEW_EDGES: Final = _PAGE.format("graph_edge", "AND is_new")
_RANK_MAX: Final = 2**31 - 1


async def read(
    info: Info, statement: str, snapshot_id: UUID, first: int | None, after: str | None, show: Callable[[Row], T]
) -> Connection[T]:
    """Return a page of one snapshot, read together with those of its siblings."""
    asked = page(first, after)
    start = -1 if asked.is_first else min(asked.id.int, _RANK_MAX)
    rows = await info.context.load(_rows, snapshot_id, statement, start, asked.limit)
    # A cursor is as wide as an id.
    ranked = [dict(row) | {"place": UUID(int=row["rank"])} for row in rows]
    return connect(ranked, asked, show, key="place")


async def _rows(
    viewer: Viewer, snapshot_ids: list[UUID], statement: str, start: int, limit: int
) -> Mapping[UUID, list[Row]]:
    grouped: defaultdict[UUID, list[Row]] = defaultdict(list)
    for row in await database().rows(statement, viewer.merchant_id, snapshot_ids, start, limit):
        grouped[row["snapshot_id"]].append(row)
    return grouped
