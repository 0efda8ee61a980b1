"""Pages of a snapshot's nodes and edges: ranks are their order, so a cursor is a rank and a page a range of keys.

The first page of nodes, the hubs, is stored as one value too, so that it costs exactly the same for any network.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Final, TypeVar
from uuid import UUID

import orjson

from app.api.connections import Connection, connect, page
from app.api.context import Viewer
from app.api.operations import Info
from app.graph.rows import FIRST_NODE, FIRST_NODES
from app.storage.database import Row, database

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
#: What `FIRST_NODES` are stored as; snapshots from before they were have none, and are read row by row.
HUBS: Final = """
SELECT snapshot_id, body FROM graph_file WHERE merchant_id = $1 AND snapshot_id = ANY($2::uuid[]) AND format = 'hubs'
"""
_RANK_MAX: Final = 2**31 - 1


async def read(
    info: Info, statement: str, snapshot_id: UUID, first: int | None, after: str | None, show: Callable[[Row], T]
) -> Connection[T]:
    """Return a page of one snapshot, read together with those of its siblings."""
    asked = page(first, after)
    start = -1 if asked.is_first else min(asked.id.int, _RANK_MAX)
    rows: list[Row] | None = None
    if statement == NODES and asked.is_first and asked.limit <= FIRST_NODES:
        rows = await info.context.load(_hubs, snapshot_id, asked.limit)
    if rows is None:
        rows = await info.context.load(_rows, snapshot_id, statement, start, asked.limit)
    # A cursor is as wide as an id.
    ranked = [dict(row) | {"place": UUID(int=row["rank"])} for row in rows]
    return connect(ranked, asked, show, key="place")


async def _hubs(viewer: Viewer, snapshot_ids: list[UUID], limit: int) -> Mapping[UUID, list[Row] | None]:
    found: dict[UUID, list[Row] | None] = dict.fromkeys(snapshot_ids)
    for row in await database().rows(HUBS, viewer.merchant_id, snapshot_ids):
        nodes = [dict(zip(FIRST_NODE, each, strict=True)) for each in orjson.loads(row["body"])[:limit]]
        found[row["snapshot_id"]] = [node | {"member_id": UUID(node["member_id"])} for node in nodes]
    return found


async def _rows(
    viewer: Viewer, snapshot_ids: list[UUID], statement: str, start: int, limit: int
) -> Mapping[UUID, list[Row]]:
    grouped: defaultdict[UUID, list[Row]] = defaultdict(list)
    for row in await database().rows(statement, viewer.merchant_id, snapshot_ids, start, limit):
        grouped[row["snapshot_id"]].append(row)
    return grouped
