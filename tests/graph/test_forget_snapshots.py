"""Old snapshots. Without these a large merchant's would fill the disk, or its last picture be thrown away."""

from typing import Any

from app.graph.forget_snapshots import forget_batch
from app.storage.database import database
from tests.factories import Shop
from tests.graph.documents import JOB, age, taken
from tests.referrals.documents import accepted, program

LEFT = """
SELECT (SELECT count(*) FROM graph_snapshot WHERE merchant_id = $1) AS snapshots,
    (SELECT count(*) FROM graph_node WHERE merchant_id = $1) AS nodes,
    (SELECT count(*) FROM graph_edge WHERE merchant_id = $1) AS edges,
    (SELECT count(*) FROM graph_file WHERE merchant_id = $1) AS files,
    (SELECT count(*) FROM graph_job WHERE merchant_id = $1) AS jobs
"""
SNAPSHOTS = "{ graphSnapshots { edges { node { id nodes { edges { node { degree } } } } } } }"


async def aged(shop: Shop, days: int) -> Any:
    """Take a snapshot of a pair of members, and let all that the shop has be so many days older. Returns its id."""
    await program(shop)
    await accepted(shop, await shop.member())
    snapshot = await taken(shop)
    await age(shop, days)
    return snapshot["id"]


async def left(shop: Shop) -> tuple[int, ...]:
    """Return how many snapshots, nodes, edges, files and jobs a shop has."""
    row = await database().row(LEFT, shop.merchant_id)
    assert row is not None
    return tuple(row.values())


async def forget(days: int) -> None:
    """Forget until nothing is too old."""
    while await forget_batch(days):
        pass


async def test_what_is_too_old_goes_whole_and_the_rest_stays_as_it_is(shop: Shop) -> None:
    old = await aged(shop, 1)
    await aged(shop, 400)
    kept = (await taken(shop))["id"]
    before = (await shop.data(SNAPSHOTS))["graphSnapshots"]["edges"]
    # Pairs were added one a day: of 2, 4 and 4 members. The first is 401 days old by now, the second 400.
    assert await left(shop) == (3, 10, 5, 9, 3)

    await forget(400)

    assert await left(shop) == (2, 8, 4, 6, 2)
    assert (await shop.data(SNAPSHOTS))["graphSnapshots"]["edges"] == before[:2]
    assert (await shop.data(JOB, {"id": old.replace("graph_", "graphjob_")}))["graphSnapshotJob"] is None
    await forget(1)
    assert [edge["node"]["id"] for edge in (await shop.data(SNAPSHOTS))["graphSnapshots"]["edges"]] == [kept]


async def test_a_merchants_newest_snapshot_stays_however_old(shop: Shop, other_shop: Shop) -> None:
    for each in (shop, other_shop):
        await aged(each, 5000)
    await taken(other_shop)

    await forget(400)

    assert [(await left(each))[0] for each in (shop, other_shop)] == [1, 1]
