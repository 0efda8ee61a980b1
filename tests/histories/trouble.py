"""What goes wrong while histories are recorded: a plan that a seed repeats."""

import asyncio
import itertools
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.chaos.test_whole_engine import named, signalled
from tests.histories.network import Network
from tests.operate.processes import Up

#: What is done to what. Each happens once, then any of them.
KINDS: Final = (
    "kill api", "freeze api", "kill worker", "kill valkey", "freeze valkey", "kill postgres", "freeze postgres",
    "cut network", "silence network",
)  # fmt: skip
#: The first time something freezes or falls silent, longer than a client or the engine waits.
LONG_SECONDS: Final = 8.0
#: How often it is as long again.
AGAIN: Final = 0.2


@dataclass(frozen=True)
class Trouble:
    """One trouble, of which of several processes, for how long, and how long nothing else happens after it."""

    kind: str
    place: float
    seconds: float
    pause: float


def plan(seed: int) -> Iterator[Trouble]:
    """Return the troubles of a seed, without end."""
    rolls = random.Random(seed)
    first = rolls.sample(KINDS, k=len(KINDS))
    for number in itertools.count():
        is_first = number < len(first)
        kind = first[number] if is_first else rolls.choice(KINDS)
        long = (is_first or rolls.random() < AGAIN) and kind in {"freeze api", "freeze postgres", "silence network"}
        seconds = LONG_SECONDS if long else rolls.uniform(0.2, 2.5)
        yield Trouble(kind, rolls.random(), seconds, rolls.uniform(1.0, 4.0))


async def make(trouble: Trouble, engine: Up, network: Network) -> None:
    """Make a trouble, and wait until it and its pause are over."""
    what, part = trouble.kind.split()
    if part == "network":
        if what == "cut":
            network.cut()
        else:
            await network.fall_silent(trouble.seconds)
    else:
        processes = await asyncio.to_thread(named, engine, part)
        hit = [processes[int(trouble.place * len(processes))]] if processes else []
        if what == "kill":
            # Of PostgreSQL only the first process is killed: the others end when they notice.
            await asyncio.to_thread(signalled, hit, signal.SIGKILL, with_children=part != "postgres")
        else:
            await asyncio.to_thread(signalled, hit, signal.SIGSTOP)
            try:
                await asyncio.sleep(trouble.seconds)
            finally:
                await asyncio.to_thread(signalled, hit, signal.SIGCONT)
    await asyncio.sleep(trouble.pause)
