"""`flash stress`: the races that the engine's promises are about, fired at a running deployment, and a verdict.

races.py    what is fired, and what has to come of it
report.py   what came of it
"""

import asyncio
import importlib.util
import sys

from app.errors import ConfigurationError


async def stress(urls: list[str], key: str, members: int) -> int:
    """Fire the races. Returns the exit status: 0 when every promise held, 130 when it was stopped.

    Raises ConfigurationError without httpx.
    """
    if importlib.util.find_spec("httpx") is None:
        raise ConfigurationError("The races need httpx: install flash-engine[stress].")
    from app.replay.engine import CannotGoOn, Fault  # noqa: PLC0415  (needs an optional dependency)
    from app.stress.races import run  # noqa: PLC0415

    try:
        return 0 if await run(urls, key, members) else 1
    except CannotGoOn as error:
        print(f"flash: {error}", file=sys.stderr)
    except Fault as fault:
        print(f"flash: The server failed ({fault}); its log says why.", file=sys.stderr)
    except asyncio.CancelledError:
        print("flash: Stopped before the verdict; the pools that it had activated are archived.", file=sys.stderr)
        return 130
    return 1
