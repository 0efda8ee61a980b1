"""Which process belongs where. Without these one could write a merchant's rows to a server that isn't its own."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from app import ids
from app.config import ConfigurationError, settings
from app.operate import places
from app.operate.doctor_servers import many_servers
from app.operate.migrate import migrate
from app.operate.places import Place, refuse_place
from app.operate.preflight import check_place
from app.storage import doorbell, master_keys
from app.storage.crypto import new_master_key
from app.storage.database import dsn
from app.storage.doorbell import queue_at
from app.storage.queues import queue_of, queues, worked_on, working
from tests.conftest import own_valkey, run_worker
from tests.operate.processes import eventually, refusal
from tests.scratch import MERCHANT
from tests.servers.pair import Server, fresh
from tests.servers.router import Router, router
from workers.settings import CRON_JOBS, cron_jobs_of

VALKEY = 13
FENCE = "INSERT INTO fence (merchant_id, move, state, peer, since) VALUES ($1, gen_random_uuid(), $2, 'x', now())"
ERASURE = """
INSERT INTO erasure (merchant_id, id, merged_ids, row_ids, invite_ids, ground, erased_at)
VALUES ($1, gen_random_uuid(), '{}', '{}', '{}', 'REQUEST', now())
"""


class Environment:
    """What configures this process; settings are read anew whenever it changes."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        """Take what undoes it."""
        self._patch = patch

    def set(self, **variables: str | None) -> None:
        for name, value in variables.items():
            self._patch.delenv(name, raising=False) if value is None else self._patch.setenv(name, value)
        settings.cache_clear()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[Environment]:
    """The variables of this process."""
    yield Environment(monkeypatch)
    monkeypatch.undo()
    settings.cache_clear()


@pytest_asyncio.fixture(loop_scope="session")
async def valkey() -> AsyncIterator[Redis]:
    """A database of Valkey in which no other test's worker is known."""
    async with queue_at(own_valkey(VALKEY)) as client:
        await client.flushdb()
        yield client
        await client.flushdb()


async def _do(url: str, sql: str, *values: object) -> Any:
    connection = await asyncpg.connect(dsn(url))
    try:
        return await connection.fetch(sql, *values)
    finally:
        await connection.close()


async def _waiting(server: str | None) -> int:
    """Return how many jobs wait in a server's queue."""
    async with queue_at(own_valkey(VALKEY)) as client:
        return int(await client.zcard(queue_of(server)))


async def _refused(place: Place) -> str:
    with pytest.raises(ConfigurationError) as refused:
        await check_place(place)
    return str(refused.value)


AT_SERVERS = (
    "This command works on one server at a time: unset FLASH_ROUTER, lead DATABASE_URL to the server, and set "
    "FLASH_SERVER to its name."
)
AT_THE_ROUTER = (
    "This command works at the router: unset FLASH_SERVER, lead DATABASE_URL to the router, and set FLASH_ROUTER."
)
BOTH = "FLASH_ROUTER and FLASH_SERVER are both set, but DATABASE_URL leads either to the router or to that server."


@pytest.mark.parametrize(
    ("place", "router_kind", "server", "said"),
    [
        (Place.SERVER, "pgdog", None, AT_SERVERS),
        (Place.ROUTER, None, "north", AT_THE_ROUTER),
        (Place.EITHER, "pgdog", "north", BOTH),
        (Place.SERVER, None, "north", None),
        (Place.ROUTER, "pgdog", None, None),
        (Place.EITHER, "pgdog", None, None),
        (Place.EITHER, None, "north", None),
        (Place.ROUTER, None, None, None),
    ],
)
def test_settings_say_where_a_process_is(
    environment: Environment, place: Place, router_kind: str | None, server: str | None, said: str | None
) -> None:
    environment.set(FLASH_ROUTER=router_kind, FLASH_SERVER=server, DATABASE_URL="postgresql://flash@localhost/flash")

    try:
        refuse_place(place)
        refused = None
    except ConfigurationError as error:
        refused = str(error)

    assert refused == said


def test_a_router_has_an_address(environment: Environment) -> None:
    environment.set(FLASH_ROUTER="pgdog", DATABASE_URL=None)

    with pytest.raises(ConfigurationError, match="but DATABASE_URL, which has to lead to the router"):
        refuse_place(Place.ROUTER)


async def test_a_process_is_refused_at_another_server_than_its_own(
    environment: Environment, databases: list[str], worker_database: str, way: Router
) -> None:
    environment.set(FLASH_SERVER="north", DATABASE_URL=databases[1])
    other = await _refused(Place.SERVER)
    environment.set(DATABASE_URL=worker_database)
    nameless = await _refused(Place.SERVER)
    environment.set(DATABASE_URL=way.url)
    no_server = await _refused(Place.SERVER)
    environment.set(DATABASE_URL=databases[1], FLASH_SERVER=None, FLASH_ROUTER="pgdog")
    no_router = await _refused(Place.ROUTER)

    assert other == (
        "FLASH_SERVER is 'north', but this server's cluster_name is 'south': lead DATABASE_URL to north, or correct "
        "the name."
    )
    assert nameless == (
        "FLASH_SERVER is 'north', but this server has no cluster_name: lead DATABASE_URL to north, or correct the name."
    )
    assert no_server == (
        "DATABASE_URL leads to a router: set FLASH_ROUTER if that is meant, or lead it to one of the servers."
    )
    assert no_router == (
        "FLASH_ROUTER is set, but DATABASE_URL leads to a PostgreSQL server: lead it to the router, or unset "
        "FLASH_ROUTER."
    )


async def test_another_server_is_not_migrated(environment: Environment, servers: tuple[Server, Server]) -> None:
    url = servers[1].url("postgres")
    environment.set(FLASH_SERVER="north", DATABASE_URL=url)

    with pytest.raises(ConfigurationError, match="FLASH_SERVER is 'north', but"):
        await migrate(url)

    (row,) = await _do(url, "SELECT to_regclass('tortoise_migrations') AS tables")
    assert row["tables"] is None


async def test_who_takes_one_of_many_servers_for_the_only_one_is_refused(
    environment: Environment, databases: list[str], valkey: Redis
) -> None:
    environment.set(DATABASE_URL=databases[0], REDIS_URL=own_valkey(VALKEY))
    await check_place(Place.ROUTER)

    async with working(valkey, "south", "another database"), working(valkey, "north", "yet another"):
        served = await _refused(Place.ROUTER)
        worked = await _refused(Place.SERVER)
        environment.set(FLASH_SERVER="north")
        twice = await _refused(Place.SERVER)

    assert served == (
        "Workers of north and south use this Valkey: set FLASH_ROUTER, and lead DATABASE_URL to the router."
    )
    assert worked == "Workers of north and south use this Valkey: set FLASH_SERVER to the cluster_name of this one."
    assert twice == (
        "Two databases are called north, and workers of the other one run, or ran a minute ago: give each server a "
        "cluster_name of its own."
    )


async def test_commands_end_with_these_sentences(databases: list[str], way: Router, tmp_path: Path) -> None:
    variables = {"FLASH_MASTER_KEYS": new_master_key("k"), "REDIS_URL": own_valkey(VALKEY), "FLASH_DATA": tmp_path}

    def said() -> list[str]:
        at_router: dict[str, Any] = variables | {"DATABASE_URL": way.url, "FLASH_ROUTER": "pgdog"}
        at_server: dict[str, Any] = variables | {"DATABASE_URL": databases[0], "FLASH_SERVER": "north"}
        return [
            refusal("audit", **at_router),
            refusal("worker", **at_router),
            refusal("merchant", "create", "--name", "Shop", "--currency", "USD", **at_server),
            refusal("api", "--port", "0", **at_server),
            refusal("up", **at_server),
        ]

    audit, worker, create, api, up = await asyncio.to_thread(said)

    assert audit.startswith("This command works on one server at a time: unset FLASH_ROUTER")
    assert worker.startswith("Workers work on one server at a time: unset FLASH_ROUTER")
    assert create.startswith("This command works at the router: unset FLASH_SERVER")
    assert api.startswith("API processes work at the router: unset FLASH_SERVER")
    assert up.startswith("`flash up` runs an engine on one server: unset FLASH_ROUTER and FLASH_SERVER")


async def test_a_router_is_refused_that_is_lax_or_leads_to_servers_that_differ(
    environment: Environment, databases: list[str], servers: tuple[Server, Server], way: Router,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    environment.set(DATABASE_URL=way.url, FLASH_ROUTER="pgdog")
    await check_place(Place.ROUTER)
    way.refuse(1)
    await check_place(Place.ROUTER)
    way.refuse(0)
    away = await _refused(Place.ROUTER)
    with router([databases[0], servers[1].url("postgres")]) as older:
        environment.set(DATABASE_URL=older.url)
        differing = await _refused(Place.ROUTER)
    with router([databases[0], databases[0]]) as twins:
        environment.set(DATABASE_URL=twins.url)
        same = await _refused(Place.ROUTER)
    way.accept(0)
    environment.set(DATABASE_URL=way.url)
    monkeypatch.setattr(places, "CROSSING", ("SELECT 1",))
    lax = await _refused(Place.ROUTER)

    assert away == "No server behind the router answers: checkout timeout."
    assert differing == ("south lacks migrations (0001_initial, 0002_keys_and_promises): run `flash migrate` at it.")
    assert same == "2 of its servers are called north: give each a cluster_name of its own."
    assert lax == f"The router isn't strict. {places.BE_STRICT}"


async def test_each_server_has_a_queue_and_a_timetable_of_its_own(
    environment: Environment, databases: list[str], valkey: Redis, tmp_path: Path
) -> None:
    """What waits at one server is done there, by its own workers, whoever else is running."""
    url = own_valkey(VALKEY)
    for database in databases:
        merchant_id = uuid4()
        await _do(database, MERCHANT, merchant_id)
        await _do(database, ERASURE, merchant_id)

    def variables(name: str, database: str) -> dict[str, str]:
        named = {"FLASH_ROUTER": "", "FLASH_SERVER": name, "DATABASE_URL": database}
        return named | {"FLASH_ERASURE_LOG": str(tmp_path / name)}

    def lines(name: str) -> int:
        log = tmp_path / name
        return len(log.read_text().splitlines()) if log.exists() else 0

    environment.set(FLASH_ROUTER="pgdog", REDIS_URL=url, DATABASE_URL="postgresql://router/flash")
    with run_worker(url, **variables("south", databases[1])):
        await asyncio.to_thread(eventually, lambda: lines("south") == 1)
        await valkey.enqueue_job("revive_codes", _queue_name=queue_of("north"))  # type: ignore[attr-defined]
        assert list(await worked_on(valkey)) == ["south"]
        assert (lines("north"), await _waiting("north")) == (0, 1)
        with run_worker(url, **variables("north", databases[0])):
            await asyncio.to_thread(eventually, lambda: lines("north") == 1)
            assert await queues(valkey) == ["flash:queue:north", "flash:queue:south"]
            await asyncio.to_thread(eventually, lambda: not asyncio.run(_waiting("north")))
    assert (lines("north"), lines("south")) == (1, 1)
    for database in databases:
        assert [
            row["count"] for row in await _do(database, "SELECT count(*) FROM erasure WHERE logged_at IS NULL")
        ] == [0]


async def test_a_ring_at_the_router_is_heard_by_the_workers_of_every_server(
    environment: Environment, valkey: Redis
) -> None:
    environment.set(FLASH_ROUTER="pgdog", REDIS_URL=own_valkey(VALKEY), DATABASE_URL="postgresql://router/flash")

    await doorbell.wake_workers("revive_codes")
    assert await valkey.keys() == []
    async with working(valkey, "north", "1"), working(valkey, "south", "2"):
        await doorbell.wake_workers("revive_codes")
        environment.set(FLASH_ROUTER=None, FLASH_SERVER="south")
        await doorbell.wake_workers("revive_codes")

    assert [await _waiting(name) for name in ("north", "south", None)] == [1, 2, 0]


def test_a_cron_job_has_the_same_times_at_every_server_and_an_id_for_each() -> None:
    alone, north, south = ({job.name: job for job in cron_jobs_of(name)} for name in (None, "north", "south"))

    assert list(alone) == [job.name for job in CRON_JOBS]
    assert list(north) == [f"{name}@north" for name in alone]
    assert not north.keys() & south.keys()
    assert [(job.second, job.unique) for job in north.values()] == [(job.second, job.unique) for job in alone.values()]


async def test_doctor_finds_merchants_on_two_servers_and_where_nobody_looks(
    environment: Environment, servers: tuple[Server, Server], valkey: Redis
) -> None:
    well, twice, lost = (ids.new() for _ in range(3))
    async with fresh(*servers) as urls:
        with router(urls) as way:
            for merchant_id, on in ((well, urls[:1]), (twice, urls), (lost, urls[1:])):
                for url in on:
                    await _do(url, MERCHANT, merchant_id)
            environment.set(DATABASE_URL=way.url, FLASH_ROUTER="pgdog", REDIS_URL=own_valkey(VALKEY))
            keyring = master_keys.configured()
            async with working(valkey, "north", "1"):
                found = {each.what: each for each in await many_servers(keyring)}
            await _do(urls[1], FENCE, twice, "CLOSED")
            way.places[lost] = 1
            # Their rows stay behind until they are removed.
            await _do(urls[0], MERCHANT, lost)
            await _do(urls[0], FENCE, lost, "CLOSED")
            async with working(valkey, "north", "1"), working(valkey, "south", "2"):
                mended = await many_servers(keyring)
            await _do(urls[1], FENCE, lost, "ARRIVING")
            stopped = (await many_servers(keyring))[-1]
            way.refuse(1)
            gone = {each.what: each for each in await many_servers(keyring)}

    def named(merchant_id: UUID) -> str:
        return ids.encode("merchant", merchant_id)

    assert (found["router"].state, found["router"].advice) == ("pgdog, strict, before 2 servers", "")
    assert (found["server north"].state, found["server north"].advice) == ("PostgreSQL 18, answers, 2 merchants", "")
    assert found["server south"].advice == (
        "Run a worker with FLASH_SERVER=south: nothing expires and no job is done there."
    )
    assert set(found["merchants"].state.split("; ")) == {
        f"{named(twice)} is on north and south",
        f"{named(lost)} is on south, but the router looks where it isn't",
    }
    assert [each.advice for each in mended] == [""] * 4
    assert mended[1].state.endswith(", 2 merchants, 1 more are moving here, or have moved away")
    assert stopped.state == f"{named(lost)} is closed, as in a move that stopped"
    assert mended[-1].state == "3, each on one server, where the router looks for it"
    assert gone["server 1"].state == "away (checkout timeout)"
    assert gone["merchants"].state == "2, each on one server, where the router looks for it"
