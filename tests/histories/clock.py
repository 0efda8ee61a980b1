"""The database's clock, as histories need it: a minute's hold is over at once where its time is made to pass."""

import asyncio
from typing import Final

import asyncpg

from app import ids
from app.storage.database import dsn
from app.stress.clients import Unanswered

SECONDS_MAX: Final = 6.0
#: As if it had been held long before: from the commit on, whoever looks finds that its time has passed.
LAPSE: Final = """
UPDATE hold SET held_until = held_at + interval '1 microsecond'
WHERE id = $1 AND status = 'HELD' AND held_until > now() AND held_points = points RETURNING held_until
"""
#: What it has by then: nothing comes or goes while its row is locked.
LAPSE_CODES: Final = """
WITH locked AS (SELECT id FROM code WHERE hold_id = $1 ORDER BY id FOR UPDATE)
UPDATE code SET held_until = $2 WHERE id IN (SELECT id FROM locked)
"""


class Clock:
    """Lets the time of holds pass in a database."""

    def __init__(self, database: str) -> None:
        self._database = dsn(database)

    async def lapse(self, hold: str) -> bool:
        """Let the time of a hold without rewards pass; returns whether it was HELD until then.

        Raises Unanswered if nobody knows.
        """
        try:
            async with asyncio.timeout(SECONDS_MAX):
                connection = await asyncpg.connect(self._database)
                try:
                    async with connection.transaction():
                        # What the constraints of time and versions say of it needn't hold for a clock.
                        await connection.execute("SET LOCAL session_replication_role = replica")
                        hold_id = ids.decode("hold", hold)
                        held_until = await connection.fetchval(LAPSE, hold_id)
                        if held_until is not None:
                            await connection.execute(LAPSE_CODES, hold_id, held_until)
                    return held_until is not None
                finally:
                    connection.terminate()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            raise Unanswered("the clock") from None
