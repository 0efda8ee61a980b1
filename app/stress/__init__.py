"""`flash stress`: fires races at a running deployment, and says whether the promises held.

races.py        the races, and the outcome that each must have
report.py       what is printed of them
histories.py    histories of small worlds at a running deployment, written to a file
worlds.py       small worlds that a few clients use at once, and the histories of what these saw
operations.py   histories as they are written down
clients.py      clients that say whether a call was answered, never sent, or neither
things.py       what a code, a quota, a stock is to those who use it, and the moves of each
wallet.py       what a wallet is: points in lots
order.py        what an order is: codes that take off a percentage, what was recorded for it, and its holds
aims.py         what orders are to budgets, and to people whose first one is asked for
people.py       who stands for whom, once records are merged, and who is gone
becoming.py     what merging, erasing and a proof make of a whole world
verb.py         what a verb declares: what it needs, how it is called, what answers mean
verbs.py        all of them, from claims.py, redemptions.py, orders.py, holds.py, jobs.py, gone.py and their neighbours
"""

import asyncio
import importlib.util
import sys
from pathlib import Path

from app.errors import ConfigurationError


async def stress(urls: list[str], key: str, members: int, history: Path | None = None) -> int:
    """Fire the races, and record histories if told where. Returns the exit status.

    0 if every promise held, 130 if it was stopped. Raises ConfigurationError when httpx isn't installed.
    """
    if importlib.util.find_spec("httpx") is None:
        raise ConfigurationError("The races need httpx: install flash-engine[stress].")
    from app.replay.engine import CannotGoOn, Fault  # noqa: PLC0415  (needs an optional dependency)
    from app.stress.histories import record  # noqa: PLC0415
    from app.stress.races import run  # noqa: PLC0415

    try:
        held = await run(urls, key, members)
        recorded = history is None or await record(urls, key, history)
    except CannotGoOn as error:
        print(f"flash: {error}", file=sys.stderr)
    except Fault as fault:
        print(f"flash: The server failed ({fault}); its log says why.", file=sys.stderr)
    except asyncio.CancelledError:
        print("flash: Stopped before the verdict; the pools that it activated are archived.", file=sys.stderr)
        return 130
    else:
        return 0 if held and recorded else 1
    return 1
