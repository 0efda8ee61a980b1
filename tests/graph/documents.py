"""The documents of the network graph, and networks made at once."""

from typing import Any, Final

import pytest

from app.graph.draw import draw
from app.graph.drawing import Drawer
from app.graph.take_snapshots import take_waiting
from app.storage.database import database
from tests.factories import Shop
from tests.sizes import FULL

NODE: Final = "label degree recruited isHub isNewHub community x y member { id }"
EDGE: Final = "referrerId refereeId convertedAt isNew"
HEADER: Final = """
  id takenOn takenAt drawnOn comparedWith memberCount referralCount componentCount communityCount hubCount hubDegree
  newReferralCount lostReferralCount newHubCount advocateCount svgUrl dataUrl
"""
SNAPSHOT: Final = f"""
  {HEADER}
  nodes(first: 100) {{ edges {{ cursor node {{ {NODE} }} }} pageInfo {{ hasNextPage endCursor }} }}
  edges(first: 100) {{ edges {{ cursor node {{ {EDGE} }} }} pageInfo {{ hasNextPage endCursor }} }}
  newHubs {{ edges {{ node {{ label }} }} }}
  newEdges {{ edges {{ node {{ refereeId }} }} }}
"""
LATEST: Final = f"{{ latestGraphSnapshot {{ {SNAPSHOT} }} }}"
TAKE: Final = """
mutation { answer: takeGraphSnapshot { __typename ... on TakeGraphSnapshotSuccess { jobId } } }
"""
JOB: Final = """
query ($id: ID!) {
  graphSnapshotJob(id: $id) { id status failure requestedAt startedAt finishedAt snapshot { id memberCount } }
}
"""


async def taken(shop: Shop) -> Any:
    """Ask for a snapshot, take it here as a worker would, and return it as the API shows it."""
    job_id = (await shop.data(TAKE))["answer"]["jobId"]
    await take_all()
    job = (await shop.data(JOB, {"id": job_id}))["graphSnapshotJob"]
    assert job["status"] == "DONE", job
    return (await shop.data(LATEST))["latestGraphSnapshot"]


async def take_all() -> None:
    """Take everything that waits, in both lanes; more than one test may ask at once.

    It is drawn here, which `make full` leaves to processes, as a worker does.
    """
    with pytest.MonkeyPatch.context() as patched:
        if not FULL:
            patched.setattr(Drawer, "drawn", _drawn_here)
        for is_large in (False, True):
            await take_waiting(is_large=is_large, seconds_max=60)


async def _drawn_here(_drawer: Drawer, message: bytes) -> bytes:
    return draw(message)


AGE: Final = """
WITH r AS (UPDATE referral SET changed_at = changed_at - make_interval(days => $2::int) WHERE merchant_id = $1),
    d AS (UPDATE graph_drawing SET read_at = read_at - make_interval(days => $2::int) WHERE merchant_id = $1),
    j AS (UPDATE graph_job SET taken_on = taken_on - $2::int, started_at = started_at - make_interval(days => $2::int)
        WHERE merchant_id = $1)
UPDATE graph_snapshot SET taken_on = taken_on - $2::int - 20000, drawn_on = drawn_on - $2::int - 20000
WHERE merchant_id = $1
"""
#: By a detour, for no day may be that of another, whichever is moved first.
BACK: Final = """
UPDATE graph_snapshot SET taken_on = taken_on + 20000, drawn_on = drawn_on + 20000 WHERE merchant_id = $1
"""


async def age(shop: Shop, days: int = 1) -> None:
    """Let the shop's referrals, snapshots and their jobs be so many days older."""
    await database().row(AGE, shop.merchant_id, days)
    await database().row(BACK, shop.merchant_id)
