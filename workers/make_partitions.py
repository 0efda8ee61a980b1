"""Makes the months to come of events."""

import logging
from typing import Any, Final

from app.storage import event_partitions
from app.storage.database import database
from app.storage.event_partitions import months_ahead

log = logging.getLogger("flash.worker")

_CONNECT_SECONDS_MAX: Final = 10.0


async def make_partitions(_ctx: dict[Any, Any]) -> int:
    connection = await database().connect(_CONNECT_SECONDS_MAX)
    try:
        made, waiting = await event_partitions.make_partitions(connection, months_ahead())
    finally:
        await connection.close()
    if made:
        log.info("made the months %s for events", ", ".join(f"{month:%Y-%m}" for month in made))
    for month in waiting:
        log.warning("events are being read, so the month %s waits for the next time", f"{month:%Y-%m}")
    return len(made)
