"""`flash up` as a process of its own, to be measured from outside."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

STOP_SECONDS_MAX = 30


@contextlib.asynccontextmanager
async def whole_engine(data: Path, *options: str) -> AsyncIterator[dict[str, Any]]:
    """Run the whole engine until the block ends. Yields what it printed when it was ready."""
    process = await flash("up", "--port", "0", "--json", "--data", str(data), *options)
    try:
        assert process.stdout is not None
        yield json.loads(await process.stdout.readline())
    finally:
        process.terminate()
        async with asyncio.timeout(STOP_SECONDS_MAX):
            await process.wait()


async def flash(*arguments: str) -> asyncio.subprocess.Process:
    """Start a `flash` command without this process's own configuration, its output readable."""
    ours = {"DATABASE_URL", "REDIS_URL"}
    kept = {name: value for name, value in os.environ.items() if name not in ours and not name.startswith("FLASH_")}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", *arguments,
        env=kept, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
