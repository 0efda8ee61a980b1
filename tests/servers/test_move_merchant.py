"""`flash merchant move`. Without these a merchant could arrive with a row less, or be served at two servers at once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from app import ids
from app.operate import move_merchant
from app.operate.move_merchant import Moved, abort, move, remove_moved
from app.operate.move_merchant_rows import differing, tables
from app.storage.database import dsn
from tests.servers.filled import drop_checks, filled
from tests.servers.pair import Server, fresh


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def urls(servers: tuple[Server, Server]) -> AsyncIterator[list[str]]:
    async with fresh(*servers) as found:
        for url in found:
            connection = await asyncpg.connect(dsn(url))
            await drop_checks(connection)
            await connection.close()
        yield found


async def test_every_row_moves(urls, tmp_path, monkeypatch):
    monkeypatch.setattr(move_merchant, "SETTLING_SECONDS", 0)
    north, south = [await asyncpg.connect(dsn(url)) for url in urls]
    mine = await filled(north)
    other = await filled(north)
    program = tmp_path / "switch"
    program.write_text("#!/bin/sh\necho $@ >> " + str(tmp_path / "log") + "\n")
    program.chmod(0o755)
    import time
    t = time.process_time(); w=time.monotonic()
    moved = await move(ids.encode("merchant", mine), *urls, str(program), print)
    print(moved, time.process_time() - t, time.monotonic()-w)
    print(await differing(north, south, mine, dict.fromkeys(await tables(north))))
    print((tmp_path / "log").read_text())
    print(await remove_moved(ids.encode("merchant", mine), *urls))
    print(time.process_time() - t)
    raise AssertionError
