"""`python -m migrations`: fail when the models say something that no migration does, or a migration may not be so.

`python -m migrations --release` writes down that the migrations and the schema are released.
"""

import asyncio
import sys

from tortoise.context import TortoiseContext
from tortoise.migrations.autodetector import MigrationAutodetector

from app.config import TORTOISE
from migrations._released import changed, release, released
from migrations._rules import refusals, rendered


async def missing() -> list[str]:
    """Return the names of the migrations that `make migration` would write. Opens no connection."""
    async with TortoiseContext() as context:
        await context.init(config=TORTOISE, init_connections=False)
        if context.apps is None:
            raise RuntimeError("Tortoise found no models")
        writers = await MigrationAutodetector(context.apps, TORTOISE["apps"]).changes()
        return [writer.name for writer in writers]


async def problems() -> list[str]:
    """Return a sentence for each thing that is wrong with the migrations."""
    said = changed()
    if names := await missing():
        said.append(f"The models have changes without a migration ({', '.join(names)}): make migration name=...")
    if before := frozenset(released()):
        said += refusals(*await rendered(before))
    return said


if __name__ == "__main__":
    if sys.argv[1:] == ["--release"]:
        release()
    elif said := asyncio.run(problems()):
        sys.exit("\n".join(said))
