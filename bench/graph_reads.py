"""S7: buffers that reading a snapshot touches: the header, 50 nodes and the files, for small and large networks."""

import json
from typing import Any

from app.api.context import Viewer
from app.graph import jobs, pages
from app.graph.rows import LATEST
from app.graph.take_snapshots import take_waiting
from app.merchants.create_merchant import create_merchant
from app.storage.database import database
from app.storage.statements import Statement
from app.web.graph_files import READ
from bench.networks import grown, store

SIZES = (1000, 100_000)


async def measure(_viewer: Viewer) -> list[str]:
    """Return the table of S7. Each network has its own merchant; all are in one database."""
    counted = {size: await _counted(size) for size in SIZES}
    heads = " | ".join(f"{size:,} members" for size in SIZES)
    lines = [f"| read | {heads} |", "|---|" + "---|" * len(SIZES)]
    lines += [f"| {what} | " + " | ".join(counted[size][what] for size in SIZES) + " |" for what in counted[SIZES[0]]]
    lines += [
        "",
        "A process reads a file's own bytes once and keeps them. A repeat with its ETag (304) reads nothing.",
    ]
    return lines


async def _counted(size: int) -> dict[str, str]:
    made = await create_merchant(f"{size} members", "USD")
    await store(made.id, grown(size))
    await database().row("ANALYZE")
    await jobs.request(made.id, "system")
    for is_large in (False, True):
        await take_waiting(is_large=is_large, seconds_max=60)
    await database().row("ANALYZE")
    header = await database().row(LATEST, merchant_id=made.id)
    if header is None:
        raise RuntimeError("a measured snapshot wasn't taken")
    snapshot_id, drawing_id = header["snapshot_id"], header["snapshot_drawing_id"]
    counted = {
        "header": await _buffers(LATEST, merchant_id=made.id),
        "50 nodes, the highest degree first": await _buffers(pages.HUBS, merchant_id=made.id, drawing_ids=[drawing_id]),
        "50 edges, the latest first": await _buffers(
            pages.EDGES, merchant_id=made.id, drawing_ids=[drawing_id], after=-1, limit=51
        ),
        "finding the SVG": await _buffers(READ, merchant_id=made.id, snapshot_id=snapshot_id, form="svg"),
        "finding the JSON": await _buffers(READ, merchant_id=made.id, snapshot_id=snapshot_id, form="json"),
    }
    sizes = await database().rows(
        """
        SELECT format, octet_length(body) AS bytes FROM graph_file WHERE merchant_id = $1 AND format <> 'hubs'
        ORDER BY format DESC
        """,
        made.id,
    )
    shown = {what: f"{buffers} buffers" for what, buffers in counted.items()}
    return shown | {"size of the files": ", ".join(f"{row['format']} {row['bytes'] // 1024:,} KiB" for row in sizes)}


async def _buffers(statement: Statement[Any], **values: object) -> int:
    """Return the buffers that a statement touches, without the planner's look-ups and a file's own bytes."""
    explained, arguments = "", statement.arguments(values)
    for _ in range(2):
        row = await database().row(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON, TIMING OFF) {statement.text}", *arguments)
        explained = "" if row is None else row["QUERY PLAN"]
    plan = json.loads(explained)[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
