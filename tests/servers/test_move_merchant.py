"""`flash merchant move`. Without these a merchant could arrive with a row less, or be served at two servers at once."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from app import ids
from app.errors import ConfigurationError
from app.operate import (
    move_merchant,
    move_merchant_changes,
    move_merchant_fence,
    move_merchant_router,
    move_merchant_rows,
    move_merchant_servers,
)
from app.operate.move_merchant import Moved, abort, move, remove_moved
from app.operate.move_merchant_rows import delete_all, differing, tables
from app.operate.move_merchant_webhooks import make_deliveries
from app.storage.database import dsn
from app.storage.fences import MerchantClosedError
from tests.guides import blocks
from tests.guides import run as run_block
from tests.scratch import MERCHANT, scratch_database
from tests.servers.filled import drop_checks, filled
from tests.servers.pair import Server, fresh
from tests.servers.router import router
from tests.servers.world import make_merchant
from tests.sizes import size
from tests.web.frozen import way_to

#: What a move leaves at a server while it is under way.
TRACES = """
SELECT (SELECT count(*) FROM fence) + (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'flash_move%')
    + (SELECT count(*) FROM pg_publication)
    + (SELECT count(*) FROM pg_replication_slots WHERE database = current_database())
"""
#: What a run ends with whose connections are cut.
FAILED = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, ConfigurationError)
EVENT = """
INSERT INTO event (merchant_id, id, type, subject_kind, subject_id, actor, occurred_at)
VALUES ($1, gen_random_uuid(), 'pool.created', 'pool', gen_random_uuid(), 'system', now())
"""


@dataclass
class Pair:
    """Two databases at two servers, and a look at each."""

    urls: list[str]
    north: asyncpg.Connection
    south: asyncpg.Connection

    async def equal(self, merchant_id: UUID) -> bool:
        """Whether both have the same rows of a merchant."""
        return not await differing(self.north, self.south, merchant_id, dict.fromkeys(await tables(self.north)))

    async def move(self, merchant_id: UUID, switch: str = "true", *, back: bool = False) -> Moved:
        """Move a merchant from the north to the south."""
        source, target = self.urls[::-1] if back else self.urls
        return await move(ids.encode("merchant", merchant_id), source, target, switch, lambda _line: None)

    async def abort(self, merchant_id: UUID) -> None:
        """Undo that."""
        await abort(ids.encode("merchant", merchant_id), self.urls[0], self.urls[1], "true", lambda _line: None)

    async def cut(self) -> None:
        """End every connection but these two, as if who has them were killed."""
        for connection in (self.north, self.south):
            await connection.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pair(servers: tuple[Server, Server]) -> AsyncIterator[Pair]:
    """Databases whose rows may be of any values, for all tests here."""
    async with fresh(*servers) as urls:
        north, south = [await asyncpg.connect(dsn(url)) for url in urls]
        try:
            for connection in (north, south):
                await drop_checks(connection)
            yield Pair(urls, north, south)
        finally:
            await north.close()
            await south.close()


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process has to learn of these merchants, whose data keys nobody made; and nothing is late."""

    async def accept(*_given: object) -> None:
        return

    monkeypatch.setattr(move_merchant, "SETTLING_SECONDS", 0)
    monkeypatch.setattr(move_merchant, "CLOSED_SECONDS_MAX", 60)
    monkeypatch.setattr(move_merchant, "_TRY_AGAIN_SECONDS", 0)
    monkeypatch.setattr(move_merchant_servers, "refuse_other_keys", accept)


def before(monkeypatch: pytest.MonkeyPatch, where: object, name: str, act: Callable[[], Awaitable[object]]) -> None:
    """Do something once, before a function is first called."""
    original: Any = getattr(where, name)

    async def replaced(*given: Any, **named: Any) -> Any:
        monkeypatch.setattr(where, name, original)
        await act()
        return await original(*given, **named)

    monkeypatch.setattr(where, name, replaced)


async def test_every_row_moves_there_and_back(pair: Pair, tmp_path: Path) -> None:
    merchant_id, other = await filled(pair.north), await filled(pair.north)
    quiet = "SELECT count(*) FROM event WHERE merchant_id = $1 AND txid IS NULL"
    log, program = tmp_path / "log", tmp_path / "tell the router"
    program.write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
    program.chmod(0o700)

    moved = await pair.move(merchant_id, f"'{program}' --pool flash")

    assert moved.tables == len(await tables(pair.north))
    assert await pair.equal(merchant_id)
    assert log.read_text() == f"--pool flash {merchant_id} to\n"
    assert await pair.south.fetchval(quiet, merchant_id) == 1
    assert await pair.south.fetchval(TRACES) == 0
    assert await pair.south.fetchval("SELECT count(*) FROM merchant") == 1
    await _refuses_writes(pair.north, merchant_id)
    await pair.north.execute(EVENT, other)

    again = await pair.move(merchant_id)
    assert again == Moved()

    assert await remove_moved(ids.encode("merchant", merchant_id), *pair.urls) >= moved.rows
    assert await pair.north.fetchval(TRACES) == 0
    assert await pair.north.fetchval("SELECT count(*) FROM merchant") == 1

    await pair.move(merchant_id, back=True)
    assert await pair.equal(merchant_id)
    await remove_moved(ids.encode("merchant", merchant_id), *pair.urls[::-1])
    assert await pair.south.fetchval(TRACES) == 0


async def _refuses_writes(connection: asyncpg.Connection, merchant_id: UUID) -> None:
    guarded = "SELECT count(DISTINCT tgrelid) FROM pg_trigger WHERE tgname = $1 AND tgparentid = 0"
    count = len(await tables(connection))
    for suffix in ("", "_rows"):
        assert await connection.fetchval(guarded, f"flash_move_{merchant_id.hex}{suffix}") == count
    for statement in (
        EVENT,
        "UPDATE member SET display_name = NULL WHERE merchant_id = $1",
        "DELETE FROM stock_change WHERE merchant_id = $1",
    ):
        with pytest.raises(MerchantClosedError):
            await connection.execute(statement, merchant_id)


async def test_what_changes_meanwhile_moves_too(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are made, changed, deleted, exchange what is unique, and have another key."""
    merchant_id = await filled(pair.north)

    async def change() -> None:
        async with pair.north.transaction():
            await pair.north.execute("SET LOCAL session_replication_role = replica")
            for statement in (
                EVENT,
                "UPDATE merchant SET name = 'Renamed' WHERE merchant_id = $1",
                "DELETE FROM claim WHERE merchant_id = $1",
                "UPDATE stock_change SET id = gen_random_uuid() WHERE merchant_id = $1",
                "UPDATE api_key SET secret_hash = id::text::bytea WHERE merchant_id = $1",
            ):
                await pair.north.execute(statement, merchant_id)

    async def exchange() -> None:
        hashes = """UPDATE api_key SET secret_hash = $3 WHERE merchant_id = $1 AND id = $2"""
        (one, first), (two, second) = await pair.north.fetch(
            "SELECT id, secret_hash FROM api_key WHERE merchant_id = $1", merchant_id
        )
        for key, secret in ((one, b"aside"), (two, first), (one, second)):
            await pair.north.execute(hashes, merchant_id, key, secret)

    before(monkeypatch, move_merchant._Run, "follow", change)
    before(monkeypatch, move_merchant._Run, "switch", exchange)

    moved = await pair.move(merchant_id)

    assert await pair.equal(merchant_id)
    assert await pair.south.fetchval("SELECT count(*) FROM claim WHERE merchant_id = $1", merchant_id) == 0
    # One event, the merchant, two claims, two changes of stock under both keys, two keys twice; and the webhook's feed.
    assert moved.changes >= 1 + 1 + 2 + 4 + 4


async def test_what_is_committed_between_two_looks_moves_too(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Just before the keys of changed rows are read, when the moment of the rows may be chosen already."""
    merchant_id = await filled(pair.north)
    before(monkeypatch, move_merchant_changes, "changed", lambda: pair.north.execute(EVENT, merchant_id))

    await pair.move(merchant_id)

    assert await pair.equal(merchant_id)
    await delete_all(pair.south, merchant_id)


#: Before rows are copied, before they are committed, after that, and while the merchant is closed.
KILLED = (
    (move_merchant_changes, "keep"),
    (move_merchant_rows, "differing"),
    (move_merchant._Run, "follow"),
    (move_merchant_router, "tell"),
)


@pytest.mark.parametrize(("where", "name"), size(KILLED[1::2], KILLED))
@pytest.mark.parametrize("then", ["resumed", "aborted"])
async def test_a_move_that_was_killed_is_resumed_or_undone(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, where: object, name: str, then: str
) -> None:
    merchant_id, traces = await filled(pair.north), await pair.north.fetchval(TRACES)
    before(monkeypatch, where, name, pair.cut)
    with pytest.raises(FAILED):
        await pair.move(merchant_id)
    assert await pair.north.fetchval(TRACES) > traces

    if then == "resumed":
        await pair.move(merchant_id)
        assert await pair.equal(merchant_id)
        await delete_all(pair.south, merchant_id)
        return
    await pair.abort(merchant_id)
    assert await pair.north.fetchval(TRACES) == traces
    assert await pair.south.fetchval(TRACES) == 0
    assert not await pair.south.fetchval("SELECT EXISTS (SELECT FROM merchant WHERE merchant_id = $1)", merchant_id)
    await pair.north.execute(EVENT, merchant_id)


async def test_killed_after_it_was_opened_a_merchant_has_moved(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    merchant_id = await filled(pair.north)
    before(monkeypatch, move_merchant, "_tidy", pair.cut)
    with pytest.raises(FAILED):
        await pair.move(merchant_id)

    with pytest.raises(ConfigurationError, match="has moved"):
        await pair.abort(merchant_id)
    assert await pair.move(merchant_id) == Moved()
    assert await pair.south.fetchval(TRACES) == 0


async def test_what_takes_too_long_or_fails_is_undone(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    merchant_id, log = await filled(pair.north), tmp_path / "log"
    failing = f"sh -c 'echo $1 >> {log}; test $1 = from || {{ echo No such pool.; exit 3; }}'"
    with pytest.raises(ConfigurationError, match=r"undone 3 times.*--switch failed \(3: No such pool\.\)"):
        await pair.move(merchant_id, failing)
    assert log.read_text().split() == ["to", "from"] * 3
    await pair.north.execute(EVENT, merchant_id)

    monkeypatch.setattr(move_merchant, "CLOSED_SECONDS_MAX", 0.2)
    with pytest.raises(ConfigurationError, match="it wasn't done within 200 ms"):
        await pair.move(merchant_id, "sh -c 'test $1 = from || sleep 60'")
    await pair.north.execute(EVENT, merchant_id)

    monkeypatch.setattr(move_merchant, "CLOSED_SECONDS_MAX", 60)
    moved = await pair.move(merchant_id)
    # Its rows were there.
    assert (moved.rows, moved.changes > 0) == (0, True)
    assert await pair.equal(merchant_id)


@pytest.mark.parametrize(
    ("where", "name", "seconds_max", "said"),
    [
        (move_merchant_fence, "wait_for_writers", 0.5, "--to doesn't answer, and the merchant is served at --from"),
        (move_merchant_router, "tell", 60, "so nobody knows whether it has"),
    ],
)
async def test_a_target_that_freezes_while_the_merchant_is_closed(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, where: object, name: str, seconds_max: float, said: str
) -> None:
    merchant_id = await filled(pair.north)
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
    async with way_to(dsn(pair.urls[1])) as way:

        async def freeze() -> None:
            way.flows.clear()

        before(monkeypatch, where, name, freeze)
        with monkeypatch.context() as patience:
            patience.setattr(move_merchant, "CLOSED_SECONDS_MAX", seconds_max)
            patience.setattr(move_merchant, "_END_SECONDS_MAX", 0.1)
            patience.setattr(move_merchant_servers, "_CLOSE_SECONDS_MAX", 0.1)
            with pytest.raises(ConfigurationError, match=said):
                await move(ids.encode("merchant", merchant_id), pair.urls[0], way.url, "true", lambda _line: None)
        if "served at --from" in said:
            await pair.north.execute(EVENT, merchant_id)
        way.flows.set()
        while await pair.south.fetchval(locks):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await pair.move(merchant_id)
    assert await pair.equal(merchant_id)
    assert await pair.south.fetchval(TRACES) == 0
    await _refuses_writes(pair.north, merchant_id)
    await delete_all(pair.south, merchant_id)


async def test_webhooks_are_told_of_everything_once(pair: Pair) -> None:
    """Of what happened before by deliveries that move, and at the other server of what happens there."""
    merchant_id = await filled(pair.north)
    told = "SELECT count(*) FROM webhook_delivery WHERE merchant_id = $1"
    await pair.north.execute("DELETE FROM webhook_delivery WHERE merchant_id = $1", merchant_id)
    await pair.north.execute("UPDATE webhook SET disabled_at = NULL WHERE merchant_id = $1", merchant_id)
    for _ in range(3):
        await pair.north.execute(EVENT, merchant_id)

    await pair.move(merchant_id)

    # Those three and the one of the merchant's rows that isn't quiet.
    assert await pair.south.fetchval(told, merchant_id) == 4
    await pair.south.execute(EVENT, merchant_id)
    await make_deliveries(pair.south, merchant_id)
    assert await pair.south.fetchval(told, merchant_id) == 5


async def test_what_cannot_be_is_refused_and_leaves_nothing(
    pair: Pair, servers: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    merchant_id = await filled(pair.north)
    named, traces = ids.encode("merchant", merchant_id), await pair.north.fetchval(TRACES)
    north, south = pair.urls
    elsewhere = servers[1].url("flash")

    async def refused(reason: str, source: str, target: str, *, merchant: str = named, switch: str = "true") -> None:
        with pytest.raises(ConfigurationError, match=reason):
            await move(merchant, source, target, switch, lambda _line: None)
        assert await pair.north.fetchval(TRACES) == traces
        assert await pair.south.fetchval(TRACES) == 0
        assert not await pair.south.fetchval("SELECT EXISTS (SELECT FROM merchant WHERE merchant_id = $1)", merchant_id)

    await refused("are one database", north, north)
    await refused("The database can't be reached: .*check --to", north, "postgresql://127.0.0.1:1/flash")
    await refused("is no merchant's id", north, south, merchant="pool_1")
    await refused("isn't at --from", south, elsewhere)
    await refused("is at --to already", south, north)
    await refused("names no program", north, south, switch="no-such-program")
    await refused("can't be read", north, south, switch="'")
    async with pair.south.transaction():
        lock = "SELECT pg_advisory_xact_lock(hashtextextended('move ' || $1, 0))"
        await pair.south.execute(lock, str(merchant_id))
        await refused("Another command is moving", north, south)

    await pair.south.execute("ALTER TABLE tortoise_migrations RENAME TO aside")
    await refused("--to lacks migrations", north, south)
    await pair.south.execute("ALTER TABLE aside RENAME TO tortoise_migrations")
    await pair.south.execute("ALTER TABLE wallet ADD more text")
    await refused("have different tables", north, south)
    await pair.south.execute("ALTER TABLE wallet DROP more")

    await pair.south.execute(
        """
CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON wallet FOR EACH ROW EXECUTE FUNCTION fill();
ALTER TABLE wallet ENABLE ALWAYS TRIGGER full_disk
"""
    )
    await refused("--to has no room", north, south)
    await pair.south.execute("DROP TRIGGER full_disk ON wallet; DROP FUNCTION fill()")

    await pair.south.execute(MERCHANT, merchant_id)
    with pytest.raises(ConfigurationError, match="is at both servers"):
        await move(named, north, south, "true", lambda _line: None)
    with pytest.raises(ConfigurationError, match="hasn't moved away"):
        await remove_moved(named, north, south)
    with pytest.raises(ConfigurationError, match="No move of"):
        await abort(named, north, south, None, lambda _line: None)

    # The north is a backup of before a move, as its operator says.
    assert await remove_moved(named, north, south, is_restored=True) > 100
    assert await pair.north.fetchval(TRACES) == traces
    await delete_all(pair.south, merchant_id)


async def test_a_server_that_keeps_no_changes_is_left_alone(pair: Pair) -> None:
    """The run's own server is one."""
    async with scratch_database() as url:
        connection = await asyncpg.connect(dsn(url))
        merchant_id = uuid4()
        await connection.execute(MERCHANT, merchant_id)
        with pytest.raises(ConfigurationError, match="set wal_level = logical"):
            await move(ids.encode("merchant", merchant_id), url, pair.urls[1], "true", lambda _line: None)
        assert await connection.fetchval(TRACES) == 0
        await connection.close()


async def test_the_guide_moves_a_merchant(servers: tuple[Server, Server], tmp_path: Path) -> None:
    """With its program for the router, whose folder and whose `psql` are others here."""
    commands, program = blocks("docs/scaling.md", "Moving a merchant", "sh")
    folder, told = tmp_path / "pgdog", tmp_path / "told"
    (folder / "moved").mkdir(parents=True)
    (folder / "base.toml").write_text("base\n")
    (tmp_path / "tell-pgdog").write_text(
        program.text.replace("/etc/pgdog", str(folder)).replace("psql ", f"echo >> {told} ")
    )
    (tmp_path / "tell-pgdog").chmod(0o700)
    async with fresh(*servers) as urls:
        with router(urls) as way:
            merchant_id, _ = make_merchant(way, 0)
        named = ids.encode("merchant", merchant_id)
        moved = await asyncio.to_thread(
            run_block,
            commands.text.replace("merchant_…", named),
            tmp_path,
            NORTH=urls[0],
            SOUTH=urls[1],
            FLASH_MASTER_KEYS=os.environ["FLASH_MASTER_KEYS"],
        )

    assert re.search(f"{named} has moved. It was closed for \\d+ ms.\n\\d+ rows were deleted.", moved.stdout)
    assert "8 rows of 5 tables were copied, and are equal." in moved.stderr
    base, _, values, shard = (folder / "pgdog.toml").read_text().splitlines()
    assert (base, shard) == ("base", "shard = 1")
    assert values == f'values = ["{merchant_id}"]'
    assert "--command=RELOAD" in told.read_text()
