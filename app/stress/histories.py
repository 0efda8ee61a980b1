"""Records histories at a running deployment: small worlds, one after the other, on all its addresses at once."""

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from app.stress.clients import Client, Fault, Http, Socket, Unanswered
from app.stress.worlds import Terms, World, play

WORLDS: Final = 20
#: Of every three one is over a WebSocket.
CLIENTS: Final = 6


async def record(urls: list[str], key: str, file: Path) -> bool:
    """Write the histories of some worlds to a file, a line each, and say so. Returns whether nothing failed.

    What the worlds made stays, archived, retired and cancelled.
    """
    clients = [
        Client(f"client {number}", (Http if number % 3 else Socket)(urls[number % len(urls)], key))
        for number in range(1, CLIENTS + 1)
    ]
    name, faults, operations = f"stress-{datetime.now(UTC):%Y%m%d-%H%M%S}", [], 0
    try:
        terms = await Terms.of(clients[0])
        with file.open("w") as written:
            for number in range(1, WORLDS + 1):
                world = World(f"{name}-{number}", terms, random.SystemRandom())
                try:
                    await play(world, clients)
                finally:
                    await world.tidy_up(clients[0])
                world.history.write(written)
                faults += world.faults
                operations += len(world.history.operations)
    except (Fault, Unanswered) as failed:
        faults.append(f"A world couldn't be made: {failed}")
    finally:
        for client in clients:
            await client.close()
    print(*faults, f"{operations:,} operations of {WORLDS} small worlds are written to {file}.", sep="\n")
    return not faults
