"""What reading costs. Without these a page could ask once per row, or read a whole network for fifty of its hubs."""

import json
from datetime import date
from typing import Any

from app.graph import jobs, pages
from app.graph.rows import LATEST
from app.graph.take_snapshots import STANDING
from app.storage.database import database
from app.storage.statements import Statement
from app.web.graph_files import READ
from bench.networks import grown, store
from tests.api.test_round_trips import Counter
from tests.api.test_round_trips import counted_shop as counted_shop  # noqa: PLC0414  (fixtures of this file, too)
from tests.api.test_round_trips import counter as counter  # noqa: PLC0414
from tests.factories import Shop
from tests.graph.documents import NODE, age, taken

HEADER_AND_NODES = f"query ($first: Int) {{ latestGraphSnapshot {{ id memberCount svgUrl dataUrl nodes(first: $first) {{ edges {{ node {{ {NODE} }} }} }} }} }}"  # noqa: E501
FIRST_NODES = f"query ($first: Int) {{ latestGraphSnapshot {{ nodes(first: $first) {{ edges {{ cursor node {{ {NODE} }} }} }} }} }}"  # noqa: E501
LIST = "query ($first: Int) { graphSnapshots(first: $first) { edges { node { id takenOn nodes(first: 2) { edges { node { label } } } } } } }"  # noqa: E501


#: What some years leave of a merchant.
OLD_JOBS = """
INSERT INTO graph_job (merchant_id, id, status, is_large, taken_on, actor, attempts, requested_at, lease_until,
    finished_at)
SELECT $1, gen_random_uuid(), 'DONE', false, current_date - day, 'system', 1, now(), now(), now()
FROM generate_series(1, 2000) day
"""


async def _buffers(statement: Statement[Any], **values: object) -> int:
    explained = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement.text}"
    (row,) = await database().rows(explained, *statement.arguments(values))
    plan = json.loads(row["QUERY PLAN"])[0]["Plan"]
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


async def test_a_snapshot_and_its_hubs_are_three_round_trips_for_1_and_100(
    counter: Counter, counted_shop: Shop
) -> None:
    await store(counted_shop.merchant_id, grown(200))
    await taken(counted_shop)

    async def asked(document: str, first: int) -> int:
        return len(await counter.during(lambda: counted_shop.data(document, {"first": first})))

    await asked(HEADER_AND_NODES, 1)
    await asked(LIST, 1)

    assert [await asked(HEADER_AND_NODES, first) for first in (1, 100)] == [3, 3]
    await age(counted_shop)
    await taken(counted_shop)
    assert [await asked(LIST, first) for first in (1, 100)] == [2, 2]


async def test_fifty_hubs_of_a_large_network_cost_what_fifty_of_a_small_one_cost(shop: Shop, other_shop: Shop) -> None:
    touched: list[list[int]] = []
    for each, members in ((shop, 200), (other_shop, 5000)):
        await store(each.merchant_id, grown(members))
        snapshot: Any = await taken(each)
        assert snapshot["memberCount"] in {members, members + 1}
        await database().row("ANALYZE graph_snapshot, graph_node, graph_edge, graph_file")
        (row,) = await database().rows(
            "SELECT id, drawing_id FROM graph_snapshot WHERE merchant_id = $1", each.merchant_id
        )
        touched.append(
            [
                await _buffers(LATEST, merchant_id=each.merchant_id),
                await _buffers(pages.HUBS, merchant_id=each.merchant_id, drawing_ids=[row["drawing_id"]]),
                await _buffers(READ, merchant_id=each.merchant_id, snapshot_id=row["id"], form="svg"),
                await _buffers(STANDING, merchant_id=each.merchant_id, taken_on=date.max),
            ]
        )

    # An entry may be the last one of its block, and the look goes on to the next.
    assert all(abs(large - small) <= 1 for small, large in zip(*touched, strict=True)), touched
    # What is stored together is what the rows say.
    stored, read = [
        (await other_shop.data(FIRST_NODES, {"first": first}))["latestGraphSnapshot"]["nodes"]["edges"]
        for first in (50, 100)
    ]
    assert (len(stored), len(read)) == (50, 100)
    assert stored == read[:50]


async def test_looking_for_the_days_snapshots_reads_no_old_jobs(shop: Shop) -> None:
    await store(shop.merchant_id, grown(20))
    await taken(shop)
    # Twice, because a table of few rows is read otherwise.
    await database().row(OLD_JOBS, shop.merchant_id)
    before = await _buffers(jobs.DUE, turns=1)
    await database().row(OLD_JOBS, shop.merchant_id)

    assert await _buffers(jobs.DUE, turns=1) <= before + 5
