"""Snapshots. Without these the picture could show who never converted, change under its readers, or be taken twice."""

import asyncio
import gzip
import json
from typing import Any, TypedDict
from uuid import UUID

import pytest

from app import ids
from app.graph import jobs
from app.graph.advocates import ADVOCATES
from app.graph.take_snapshots import EDGES
from app.storage.database import database
from app.storage.statements import statement
from bench.networks import grown, store
from tests.factories import Shop
from tests.graph.documents import JOB, LATEST, TAKE, age, take_all, taken
from tests.referrals.documents import DECLINE_REFERRAL, HELD_REFERRALS, accepted, invited, program

SNAPSHOTS = "query ($first: Int, $after: String) { graphSnapshots(first: $first, after: $after) { edges { cursor node { id takenOn memberCount nodes(first: 2) { edges { node { degree } } } } } } }"  # noqa: E501
NODES = """
query ($first: Int, $after: String) {
  latestGraphSnapshot {
    nodes(first: $first, after: $after) {
      edges { cursor node { label degree member { id } } } pageInfo { hasNextPage hasPreviousPage endCursor }
    }
  }
}
"""


class _AdvocateRow(TypedDict):
    member_id: UUID
    recruited: int


async def _star(shop: Shop, leaves: int) -> tuple[Any, list[Any]]:
    await program(shop)
    hub = await shop.member(displayName="Ada Lovelace")
    return hub, [(await accepted(shop, hub))["member"] for _ in range(leaves)]


async def test_before_the_first_snapshot_there_is_none(shop: Shop) -> None:
    assert (await shop.data(LATEST))["latestGraphSnapshot"] is None


async def test_a_snapshot_has_exactly_the_converted_referrals(shop: Shop) -> None:
    hub, leaves = await _star(shop, 4)
    await invited(shop, hub)
    second = (await accepted(shop, leaves[0]))["member"]

    snapshot = await taken(shop)

    edges = [(edge["node"]["referrerId"], edge["node"]["refereeId"]) for edge in snapshot["edges"]["edges"]]
    assert edges == [(leaves[0]["id"], second["id"])] + [(hub["id"], leaf["id"]) for leaf in reversed(leaves)]
    nodes = [edge["node"] for edge in snapshot["nodes"]["edges"]]
    assert nodes[0]["member"]["id"] == hub["id"]
    assert [(n["degree"], n["recruited"], n["isHub"]) for n in nodes] == [
        (4, 4, True), (2, 1, False), (1, 0, False), (1, 0, False), (1, 0, False), (1, 0, False),
    ]  # fmt: skip
    counts = ("memberCount", "referralCount", "componentCount", "communityCount", "hubCount", "hubDegree")
    assert [snapshot[name] for name in counts] == [6, 5, 1, 1, 1, 4]
    assert snapshot["advocateCount"] == 1
    assert (snapshot["comparedWith"], snapshot["newReferralCount"], snapshot["newHubCount"]) == (None, 0, 0)


async def test_an_empty_network_is_a_snapshot_too(shop: Shop) -> None:
    snapshot = await taken(shop)

    assert (snapshot["memberCount"], snapshot["referralCount"], snapshot["hubDegree"]) == (0, 0, 3)
    assert snapshot["nodes"]["edges"] == snapshot["edges"]["edges"] == []


async def test_reversed_referrals_and_those_held_or_declined_by_a_review_are_no_edges(shop: Shop) -> None:
    hub, leaves = await _star(shop, 3)
    await program(shop, reviewPolicy="ALL")
    for _ in range(2):
        await accepted(shop, hub)
    held = (await shop.data(HELD_REFERRALS))["answer"]["edges"][0]["node"]
    await shop.do(DECLINE_REFERRAL, referralId=held["id"], reason="fake")
    await database().row(
        "UPDATE referral SET reversed_at = now(), shortfall = 0, falls = 1 WHERE merchant_id = $1 AND referee_id = $2",
        shop.merchant_id, ids.decode("member", leaves[0]["id"]),
    )  # fmt: skip

    snapshot = await taken(shop)

    assert {edge["node"]["refereeId"] for edge in snapshot["edges"]["edges"]} == {leaf["id"] for leaf in leaves[1:]}


async def test_labels_tell_no_name_and_are_unique(shop: Shop) -> None:
    await _star(shop, 3)

    labels = [edge["node"]["label"] for edge in (await taken(shop))["nodes"]["edges"]]

    assert len(set(labels)) == 4
    assert all(label.startswith("Member ") and label.split()[1].isalnum() for label in labels)
    assert not any("Ada" in label for label in labels)


async def test_a_later_snapshot_of_the_day_takes_the_place_of_the_earlier_one(shop: Shop) -> None:
    hub, _ = await _star(shop, 2)
    first = await taken(shop)
    await accepted(shop, hub)

    second = await taken(shop)

    listed = [edge["node"]["id"] for edge in (await shop.data(SNAPSHOTS))["graphSnapshots"]["edges"]]
    assert listed == [second["id"]]
    assert second["id"] != first["id"]
    assert second["referralCount"] == 3
    node = "query ($id: ID!) { node(id: $id) { id } }"
    assert (await shop.data(node, {"id": first["id"]}))["node"] is None
    assert (await shop.http.get(_address(shop, first["svgUrl"]))).status_code == 404


async def test_what_is_new_is_counted_against_an_earlier_day(shop: Shop) -> None:
    hub, leaves = await _star(shop, 2)
    before = await taken(shop)
    await age(shop)
    newcomer = (await accepted(shop, hub))["member"]

    snapshot = await taken(shop)

    assert snapshot["comparedWith"] < before["takenOn"]
    assert (snapshot["newReferralCount"], snapshot["lostReferralCount"], snapshot["newHubCount"]) == (1, 0, 1)
    assert [edge["node"]["refereeId"] for edge in snapshot["newEdges"]["edges"]] == [newcomer["id"]]
    assert [edge["node"]["label"] for edge in snapshot["newHubs"]["edges"]] == [
        snapshot["nodes"]["edges"][0]["node"]["label"]
    ]
    assert [edge["node"]["isNew"] for edge in snapshot["edges"]["edges"]] == [True, False, False]
    assert len(leaves) == 2
    listed = (await shop.data(SNAPSHOTS, {"first": 1}))["graphSnapshots"]["edges"]
    rest = await shop.data(SNAPSHOTS, {"after": listed[0]["cursor"]})
    assert [edge["node"]["id"] for edge in (*listed, *rest["graphSnapshots"]["edges"])] == [
        snapshot["id"], before["id"],
    ]  # fmt: skip
    assert listed[0]["node"]["nodes"]["edges"] == [{"node": {"degree": 3}}, {"node": {"degree": 1}}]


async def test_pages_of_nodes_hold_everybody_once_the_highest_degree_first(shop: Shop) -> None:
    edges = grown(240)
    await store(shop.merchant_id, edges)
    await taken(shop)
    nodes, after = [], None
    while True:
        page = (await shop.data(NODES, {"first": 100, "after": after}))["latestGraphSnapshot"]["nodes"]
        nodes += [edge["node"] for edge in page["edges"]]
        assert page["pageInfo"]["hasPreviousPage"] == (after is not None)
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]

    degrees = [node["degree"] for node in nodes]
    assert degrees == sorted(degrees, reverse=True)
    assert len({node["member"]["id"] for node in nodes}) == len({m for edge in edges for m in edge[:2]}) == len(nodes)
    assert await shop.error_code(NODES, {"after": "AAAA"}) == "BAD_USER_INPUT"
    assert await shop.error_code(NODES, {"first": 101}) == "BAD_USER_INPUT"


async def test_the_advocates_are_read_by_one_statement(shop: Shop) -> None:
    hub, _ = await _star(shop, 3)
    await taken(shop)

    async def advocates(referrals_min: int) -> list[tuple[UUID, int]]:
        reading = statement(_AdvocateRow, ADVOCATES)
        rows = await database().rows(reading, merchant_id=shop.merchant_id, referrals_min=referrals_min)
        return [(row["member_id"], row["recruited"]) for row in rows]

    assert await advocates(3) == [(ids.decode("member", hub["id"]), 3)]
    assert await advocates(4) == []


async def test_a_job_that_waits_is_joined_and_tells_how_far_it_is(shop: Shop) -> None:
    answers = await asyncio.gather(*(shop.data(TAKE) for _ in range(5)))
    (job_id,) = {answer["answer"]["jobId"] for answer in answers}
    waiting = (await shop.data(JOB, {"id": job_id}))["graphSnapshotJob"]
    await take_all()
    done = (await shop.data(JOB, {"id": job_id}))["graphSnapshotJob"]

    assert (waiting["status"], waiting["startedAt"], waiting["snapshot"]) == ("QUEUED", None, None)
    assert done["status"] == "DONE"
    assert done["requestedAt"] < done["startedAt"] < done["finishedAt"]
    assert done["snapshot"] == {"id": job_id.replace("graphjob_", "graph_"), "memberCount": 0}
    assert (await shop.event_types())[-2:] == ["graph_job.requested", "graph_snapshot.taken"]


async def test_the_days_snapshot_is_planned_once_however_often(shop: Shop) -> None:
    await _star(shop, 2)
    await asyncio.gather(jobs.plan(), jobs.plan(), jobs.plan())
    await asyncio.gather(take_all(), take_all())
    await jobs.plan()
    statement = "SELECT status, actor FROM graph_job WHERE merchant_id = $1"

    assert [tuple(row) for row in await _rows(statement, shop)] == [("DONE", "system")]


async def test_the_days_snapshots_are_taken_in_turns_that_are_over_by_noon(shop: Shop) -> None:
    """Of so many turns a merchant's is years away, unless its clock shows noon and the turns are those of a night."""
    await _star(shop, 2)
    waiting = "SELECT taken_on = (now() AT TIME ZONE $2)::date AS is_today FROM graph_job WHERE merchant_id = $1"
    (clock,) = await database().rows("SELECT extract(hour FROM now() AT TIME ZONE 'UTC')::int AS hour")
    # The signs of these zones are those of POSIX: this one is ahead of UTC.
    ahead = 12 - clock["hour"]
    zone = f"Etc/GMT{-ahead:+d}" if ahead else "Etc/GMT"
    await database().row("UPDATE merchant SET time_zone = $2 WHERE merchant_id = $1", shop.merchant_id, zone)

    await jobs.plan(turns=2**31 - 1)
    early = await database().rows(waiting, shop.merchant_id, zone)
    await jobs.plan(turns=jobs.TURNS)

    assert early == []
    assert [row["is_today"] for row in await database().rows(waiting, shop.merchant_id, zone)] == [True]


async def test_a_merchant_that_was_never_referred_to_gets_no_daily_snapshot(shop: Shop) -> None:
    await jobs.plan()

    assert await _rows("SELECT status, actor FROM graph_job WHERE merchant_id = $1", shop) == []


async def test_the_day_is_that_of_the_merchants_time_zone(shop: Shop) -> None:
    day = "SELECT (now() AT TIME ZONE time_zone)::date::text AS day FROM merchant WHERE merchant_id = $1"
    for zone in ("Pacific/Pago_Pago", "Pacific/Kiritimati"):
        await database().row("UPDATE merchant SET time_zone = $2 WHERE merchant_id = $1", shop.merchant_id, zone)
        (expected,) = await _rows(day, shop)

        assert (await taken(shop))["takenOn"] == expected["day"]


async def test_a_job_of_a_worker_that_died_is_taken_over_and_the_dead_one_stores_nothing(shop: Shop) -> None:
    await shop.data(TAKE)
    held = await _taken_on(shop)
    await jobs.release(held)
    await take_all()

    assert await jobs.advance(database(), held, "DONE") is False
    assert [
        tuple(row) for row in await _rows("SELECT status, attempts FROM graph_job WHERE merchant_id = $1", shop)
    ] == [("DONE", 2)]
    assert (await shop.data(LATEST))["latestGraphSnapshot"]["memberCount"] == 0


async def test_a_job_that_kills_every_worker_fails_after_three(shop: Shop) -> None:
    asked = (await shop.data(TAKE))["answer"]["jobId"]
    for _ in range(3):
        await jobs.release(await _taken_on(shop))
    await take_all()
    await jobs.plan()

    job = (await shop.data(JOB, {"id": asked}))["graphSnapshotJob"]
    assert (job["status"], job["failure"], job["snapshot"]) == ("FAILED", "ABANDONED", None)
    assert (await shop.event_types())[-1] == "graph_job.failed"


async def _taken_on(shop: Shop) -> Any:
    """Take this shop's job on; others that wait are let go again."""
    statement = """
    UPDATE graph_job SET status = 'READING', attempts = attempts + 1, started_at = now(),
        lease_until = now() + interval '5 minutes'
    WHERE merchant_id = $1 RETURNING merchant_id, id, taken_on, actor, attempts
    """
    row = await database().row(statement, shop.merchant_id)
    assert row is not None
    return row


async def _rows(statement: str, shop: Shop) -> list[Any]:
    return await database().rows(statement, shop.merchant_id)


def _address(shop: Shop, path: str) -> str:
    return shop.url.removesuffix("/graphql") + path


@pytest.mark.parametrize("form", ["svg", "json"])
async def test_a_file_is_immutable_compressed_and_not_sent_twice(shop: Shop, form: str) -> None:
    await _star(shop, 3)
    url = _address(shop, (await taken(shop))["svgUrl" if form == "svg" else "dataUrl"])

    zipped = await shop.http.get(url, headers={"accept-encoding": "br, gzip"})
    plain = await shop.http.get(url, headers={"accept-encoding": "identity"})
    codings = {
        accepted: (await shop.http.get(url, headers={"accept-encoding": accepted})).headers.get("content-encoding")
        for accepted in ("*", "GZIP;q=0.5", "*;q=0, gzip", "gzip;q=0", "gzip; q=0.000", "*, gzip;q=0", "")
    }

    assert zipped.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert zipped.content == plain.content
    assert list(codings.values()) == ["gzip"] * 3 + [None] * 4
    assert zipped.headers["content-type"].startswith("image/svg+xml" if form == "svg" else "application/json")
    assert zipped.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert zipped.headers["etag"] != plain.headers["etag"]
    for answer in (zipped, plain):
        again = await shop.http.get(url, headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    if form == "svg":
        assert plain.text.count("<circle") == 1
        assert "4 members · 3 converted referrals · 1 hubs" in plain.text
    else:
        columns = json.loads(plain.text)
        assert columns["nodes"]["degree"] == [3, 1, 1, 1]
        assert columns["edges"] == {"referrer": [0, 0, 0], "referee": columns["edges"]["referee"]}
        assert sorted(columns["edges"]["referee"]) == [1, 2, 3]


async def test_a_url_that_is_wrong_in_any_way_is_as_good_as_one_of_nothing(shop: Shop, other_shop: Shop) -> None:
    snapshot, foreign = await taken(shop), await taken(other_shop)
    url = _address(shop, snapshot["svgUrl"])
    head, _, signature = url.rpartition("signature=")
    (expires,) = (part.removeprefix("expires=") for part in head.split("&") if part.startswith("expires="))
    wrong = {
        "another signature": head + "signature=" + signature[::-1],
        "no signature": head,
        "two signatures": f"{url}&signature={signature}",
        "not ASCII": head + "signature=%C3%A9",
        "another end": url.replace(expires, str(int(expires) + 900)),
        "an end that is no number": url.replace(expires, "soon"),
        "another file": url.replace(".svg", ".json"),
        "another snapshot": url.replace(snapshot["id"], foreign["id"]),
        "another merchant": url.replace(shop.merchant_id.hex, other_shop.merchant_id.hex),
        "no such file": url.replace(".svg", ".png"),
        "no such snapshot": url.replace(snapshot["id"], ids.encode("graph", ids.new())),
        "no merchant": url.replace("merchant=", "m="),
    }
    answers = {name: await shop.http.get(address) for name, address in wrong.items()}

    assert (await shop.http.get(url)).status_code == 200
    missing = (404, '{"error":"There is no such file."}', "no-store")
    seen = {name: (each.status_code, each.text, each.headers["cache-control"]) for name, each in answers.items()}
    assert seen == dict.fromkeys(wrong, missing)


async def test_a_url_ends(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.graph import signing
    from app.merchants.tenants import tenant

    owner = await tenant(shop.merchant_id)
    assert owner is not None
    name = "graph_0.svg"
    proofs = {
        expires: signing.signature(owner, owner.keys.token_keys[0], name, expires)
        for expires in ("9999999999", "1000000000")
    }

    assert signing.is_signed(owner, name, "9999999999", proofs["9999999999"])
    assert not signing.is_signed(owner, name, "1000000000", proofs["1000000000"])


async def test_the_stored_file_is_what_is_sent(shop: Shop) -> None:
    url = _address(shop, (await taken(shop))["svgUrl"])
    statement = "SELECT body FROM graph_file WHERE merchant_id = $1 AND format = 'svg'"

    assert gzip.decompress((await _rows(statement, shop))[0]["body"]).decode() == (await shop.http.get(url)).text


async def test_only_converted_referrals_are_read_wherever_they_are_read() -> None:
    assert "released_at IS NOT NULL AND r.reversed_at IS NULL" in EDGES.text
    assert EDGES.text.count("referral r") == 1
