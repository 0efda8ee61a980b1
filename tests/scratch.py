"""Databases of their own for tests that break one, migrate one or count what is asked of one."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg

from app.database import dsn
from app.migrate import create_database
from tests.conftest import _clone, database_url


@asynccontextmanager
async def scratch_database(*, migrated: bool = True) -> AsyncIterator[str]:
    """Return the URL of a new database, cloned from the migrated template unless told; dropped after the block."""
    template = os.environ["FLASH_TEST_TEMPLATE"]
    name = f"{template}_scratch_{uuid4().hex[:12]}"
    if migrated:
        await _clone(template, name)
    else:
        await create_database(os.environ["DATABASE_URL"], name)
    try:
        yield database_url(name)
    finally:
        connection = await asyncpg.connect(dsn(os.environ["DATABASE_URL"]), database="postgres")
        try:
            await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        finally:
            await connection.close()
