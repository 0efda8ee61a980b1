"""`python -m migrations`: fail when the models say something that no migration does."""

import asyncio
import sys

from tortoise.context import TortoiseContext
from tortoise.migrations.autodetector import MigrationAutodetector

from app.config import TORTOISE


async def missing() -> list[str]:
    """Return the names of the migrations that `make migration` would write. Opens no connection."""
    async with TortoiseContext() as context:
        await context.init(config=TORTOISE, init_connections=False)
        if context.apps is None:
            raise RuntimeError("Tortoise found no models")
        writers = await MigrationAutodetector(context.apps, TORTOISE["apps"]).changes()
        return [writer.name for writer in writers]


if __name__ == "__main__":
    names = asyncio.run(missing())
    if names:
        sys.exit(f"The models have changes without a migration ({', '.join(names)}): make migration name=...")
