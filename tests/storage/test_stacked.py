"""Stacked migrations while the version before serves. Without these a release could need the engine to be stopped."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from contextvars import Context
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from app import ids
from app.config import Settings, tortoise_config
from app.errors import ConfigurationError
from app.operate import migrate
from app.operate.preflight import missing_migrations
from app.storage.crypto import new_master_key
from tests.conftest import run_api
from tests.guides import blocks
from tests.guides import run as in_shell
from tests.operate.processes import refusal
from tests.scratch import scratch_database
from tests.starts import run
from tests.storage.test_migrations import MIGRATIONS
from tests.upgrade.load import Load
from tests.wire import Wire

#: A column, a promise about rows that are there, and an index, as a release may add them: by the name of each file.
STACKED = {
    "0003_column": """
    operations = [
        ops.RunSQL("SET LOCAL lock_timeout = '100ms'"),
        ops.RunSQL("ALTER TABLE claim ADD COLUMN note text"),
        ops.RunSQL("ALTER TABLE claim ADD CONSTRAINT claim_note CHECK (note <> '') NOT VALID"),
    ]""",
    "0004_valid": """
    operations = [ops.RunSQL("ALTER TABLE claim VALIDATE CONSTRAINT claim_note")]""",
    "0005_index": """
    atomic = False
    operations = [
        ops.RunSQL("DROP INDEX CONCURRENTLY IF EXISTS claim_by_note"),
        ops.RunSQL("CREATE INDEX CONCURRENTLY claim_by_note ON claim (merchant_id, note)"),
    ]""",
}
HEAD = """from tortoise import migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    dependencies = [("flash", "{}")]
"""
INDEX = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('claim_by_note')"
WAITING = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE $1"
)
AGAIN = "end that one or wait for it, and run `flash migrate` again."
TOO_NEW = (
    "The database is too new for this version: 0012_drop_name_since_0009 took away what it needs; run a newer version."
)
APPLIED = "SELECT name FROM tortoise_migrations ORDER BY name"
Migrates = Callable[..., Coroutine[Any, Any, None]]


@pytest.fixture
def stacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Migrates:
    """Migrate a database to a version that has more migrations than this one."""
    package = tmp_path / f"stacked_{os.getpid()}"
    package.mkdir()
    (package / "__init__.py").write_text(f"__path__ = [*__path__, {str(MIGRATIONS)!r}]\n")
    before = "0002_keys_and_promises"
    for name, operations in STACKED.items():
        (package / f"{name}.py").write_text(HEAD.format(before) + operations)
        before = name

    def configured(url: str, **how: Any) -> dict[str, Any]:
        made = tortoise_config(url, **how)
        made["apps"]["flash"]["migrations"] = package.name
        return made

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(migrate, "tortoise_config", configured)

    async def run_it(url: str, **how: Any) -> None:
        # Tortoise keeps its pools in the context.
        await asyncio.to_thread(lambda: Context().run(asyncio.run, migrate.migrate(url, pause_seconds=0, **how)))

    return run_it


@asynccontextmanager
async def _connections(url: str) -> AsyncIterator[tuple[asyncpg.Connection, asyncpg.Connection]]:
    first, second = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        yield first, second
    finally:
        await first.close()
        await second.close()


async def _waiting(connection: asyncpg.Connection, sql: str) -> int:
    """Return the process whose statement waits for others."""
    while (pid := await connection.fetchval(WAITING, f"%{sql}%")) is None:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    found: int = pid
    return found


async def _make_merchant(variables: dict[str, str]) -> tuple[UUID, str]:
    made = await asyncio.to_thread(
        run, "merchant", "create", "--name", "Shop", "--currency", "USD", "--json", environment=variables
    )
    answer = json.loads(made.stdout)
    merchant_id = ids.decode("merchant", answer["merchantId"])
    assert merchant_id is not None
    return merchant_id, answer["apiKey"]


async def test_no_request_fails_while_a_newer_version_migrates(database_pool: Settings, stacked: Migrates) -> None:
    """Even while somebody reads for long, and though its migration is cut short twice before it is done."""
    async with scratch_database() as url, aclosing(Wire()) as wire, _connections(url) as (reader, looking):
        variables = os.environ | {"DATABASE_URL": url}
        shop = await _make_merchant(variables)
        pid = await reader.fetchval("SELECT pg_backend_pid()")
        with run_api(url) as api:
            load, ends = Load(wire, [api.url], *shop, pause_seconds=0.2), asyncio.Event()
            running = asyncio.create_task(load.run(2, ends, codes=2_000))
            await load.more(6, running)
            await reader.execute("SET application_name = 'a report'; BEGIN; SELECT FROM claim")
            with pytest.raises(ConfigurationError) as locked:
                await stacked(url, tries_max=1)
            assert await missing_migrations(looking) == []
            await reader.execute("COMMIT; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT")
            migrating = asyncio.create_task(stacked(url, tries_max=1))
            cut = await _waiting(looking, "CREATE INDEX CONCURRENTLY")
            await load.more(6, running)
            await looking.execute("SELECT pg_terminate_backend($1::int)", cut)
            with pytest.raises(ConfigurationError, match="The database can't be migrated: "):
                await migrating
            await reader.execute("COMMIT")
            left = await looking.fetchval(INDEX)

            await stacked(url, tries_max=1)

            await load.more(6, running)
            ends.set()
            await running
        audited = await asyncio.to_thread(run, "audit", environment=variables)

        assert (load.failures, await load.lost(url), audited.returncode) == ([], {}, 0)
        assert (left, await looking.fetchval(INDEX)) == (False, True)
        assert [row["name"] for row in await looking.fetch(APPLIED)][2:] == [*STACKED]
    said = str(locked.value)
    assert said.startswith(
        "The database can't be migrated yet: other transactions keep a table locked, the oldest of them"
    )
    assert said.endswith(f" s (process {pid}, a report). The engine goes on as it was; {AGAIN}")


async def test_a_migration_that_does_not_get_its_lock_is_tried_again(
    database_pool: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = iter([asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError, None])

    async def once(_url: str) -> None:
        if error := next(tries):
            raise error("canceling statement due to lock timeout")

    monkeypatch.setattr(migrate, "_migrate_once", once)

    await migrate.migrate(database_pool.database_url or "", pause_seconds=0)

    assert list(tries) == []


async def test_each_version_of_a_database_is_served_or_refused_in_one_sentence(
    database_pool: Settings, tmp_path: Path
) -> None:
    """By the commands of docs/upgrading.md where it is served."""
    variables: dict[str, Any] = {
        "REDIS_URL": os.environ["REDIS_URL"],
        "FLASH_MASTER_KEYS": new_master_key("k1"),
        "FLASH_DATA": str(tmp_path),
    }
    (dump,), (upgrade,) = (blocks("docs/upgrading.md", section, "sh") for section in ("Before", "Upgrade"))
    async with scratch_database() as url, _connections(url) as (connection, _):
        variables |= {"DATABASE_URL": url}
        add = "INSERT INTO tortoise_migrations (app, name, applied_at) VALUES ('flash', $1, now())"
        await connection.execute(add, "0009_drop_note_since_0002")
        served = await asyncio.to_thread(in_shell, f"{dump.text}{upgrade.text}", tmp_path, **variables)
        await connection.execute(add, "0012_drop_name_since_0009")
        too_new = await asyncio.to_thread(refusal, "api", "--port", "0", **variables)
        await connection.execute("COMMENT ON TABLE tortoise_migrations IS NULL")
        too_old = await asyncio.to_thread(refusal, "migrate", **variables)

    assert served.stdout.startswith("The database is up to date.\n")
    assert "has 0009_drop_note_since_0002 of a newer version" in served.stdout
    assert (tmp_path / "before.dump").stat().st_size > 100_000
    assert too_new == TOO_NEW
    assert too_old == "The database was made before 0.2.0 and can't be migrated: docs/upgrading.md says what to do."
