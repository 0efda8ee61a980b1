"""Pages of a drawing's nodes and edges: ranks are their order, so a cursor is a rank and a page a range of keys.

The first page of nodes, the hubs, is stored as one value too, so that it costs exactly the same for any network.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Final, TypedDict, TypeVar
from uuid import UUID

import orjson

from app.api.connections import Connection, Page, connect, page
from app.api.context import Viewer
from app.api.operations import Info
from app.graph.binary_copy import FIRST_NODES
from app.graph.rows import EdgeRow, NodeRow, PlacedRow
from app.storage.database import database
from app.storage.statements import Statement, columns, statement

T = TypeVar("T")
Placed = TypeVar("Placed", bound=PlacedRow)


class _FirstNodesRow(TypedDict):
    drawing_id: UUID
    body: bytes


_PAGE: Final = """
SELECT {columns} FROM unnest(:drawing_ids::uuid[]) AS asked (id) CROSS JOIN LATERAL (
    SELECT * FROM {table}
    WHERE merchant_id = :merchant_id AND drawing_id = asked.id AND rank > :after {only}
    ORDER BY rank LIMIT :limit
) r
ORDER BY r.drawing_id, r.rank
"""
_NODES: Final = columns(NodeRow)
_EDGES: Final = columns(EdgeRow)
NODES: Final = statement(NodeRow, _PAGE.format(columns=_NODES, table="graph_node", only=""))
NEW_HUBS: Final = statement(NodeRow, _PAGE.format(columns=_NODES, table="graph_node", only="AND is_new_hub"))
EDGES: Final = statement(EdgeRow, _PAGE.format(columns=_EDGES, table="graph_edge", only=""))
NEW_EDGES: Final = statement(EdgeRow, _PAGE.format(columns=_EDGES, table="graph_edge", only="AND is_new"))
#: The first nodes as they are stored together; drawings from before they were have none, and are read row by row.
HUBS: Final = statement(
    _FirstNodesRow,
    """
SELECT drawing_id, body FROM graph_file
WHERE merchant_id = :merchant_id AND drawing_id = ANY(:drawing_ids::uuid[]) AND format = 'hubs'
""",
)
_RANK_MAX: Final = 2**31 - 1


async def first_nodes(
    info: Info, drawing_id: UUID, first: int | None, after: str | None, show: Callable[[NodeRow], T]
) -> Connection[T]:
    """Return a page of all nodes of one drawing, read together with those of its siblings."""
    asked = page(first, after)
    rows: list[NodeRow] | None = None
    if asked.is_first and asked.limit <= FIRST_NODES:
        rows = await info.context.load(_hubs, drawing_id, asked.limit)
    return await read(info, NODES, drawing_id, first, after, show) if rows is None else _connected(rows, asked, show)


async def read(
    info: Info,
    of: Statement[Placed],
    drawing_id: UUID,
    first: int | None,
    after: str | None,
    show: Callable[[Placed], T],
) -> Connection[T]:
    """Return a page of one drawing, read together with those of its siblings."""
    asked = page(first, after)
    start = -1 if asked.is_first else min(asked.id.int, _RANK_MAX)
    return _connected(await info.context.load(_rows, drawing_id, of, start, asked.limit), asked, show)


def _connected(rows: list[Placed], asked: Page, show: Callable[[Placed], T]) -> Connection[T]:
    return connect(rows, asked, show, key="place")


async def _hubs(viewer: Viewer, drawing_ids: list[UUID], limit: int) -> Mapping[UUID, list[NodeRow] | None]:
    found: dict[UUID, list[NodeRow] | None] = dict.fromkeys(drawing_ids)
    for row in await database().rows(HUBS, merchant_id=viewer.merchant_id, drawing_ids=drawing_ids):
        found[row["drawing_id"]] = [_stored(row["drawing_id"], each) for each in orjson.loads(row["body"])[:limit]]
    return found


def _stored(drawing_id: UUID, node: list[Any]) -> NodeRow:
    """Return a node of those that are stored as one value."""
    rank, member_id, label, degree, recruited, is_hub, is_new_hub, community, x, y = node
    return NodeRow(
        drawing_id=drawing_id,
        place=UUID(int=rank),
        node_member_id=UUID(member_id),
        node_label=label,
        node_degree=degree,
        node_recruited=recruited,
        node_is_hub=is_hub,
        node_is_new_hub=is_new_hub,
        node_community=community,
        node_x=x,
        node_y=y,
    )


async def _rows(
    viewer: Viewer, drawing_ids: list[UUID], of: Statement[Placed], start: int, limit: int
) -> Mapping[UUID, list[Placed]]:
    grouped: defaultdict[UUID, list[Placed]] = defaultdict(list)
    for row in await database().rows(
        of, merchant_id=viewer.merchant_id, drawing_ids=drawing_ids, after=start, limit=limit
    ):
        grouped[row["drawing_id"]].append(row)
    return grouped
