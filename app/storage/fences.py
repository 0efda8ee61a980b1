"""Fences: that a merchant moves between servers. One that is closed here takes no writes, and who asks for it waits.

`flash merchant move` keeps them (app/operate/move_merchant.py). At the server that a merchant leaves it is LEAVING, and
open as any, until its last changes are to be copied; then it is CLOSED. At the other one it is ARRIVING, and closed,
until it is served there, where it has no fence any more. Sweeps pass over what is closed, and triggers refuse to write
it (`refuse_closed`).
"""

import asyncio
from typing import Final, TypedDict
from uuid import UUID

import asyncpg

from app.storage.database import database, is_away
from app.storage.statements import statement

_PAUSE_SECONDS: Final = 0.02

_CLOSED: Final = "ARRAY(SELECT f.merchant_id FROM fence f WHERE f.state <> 'LEAVING')"


def stands(alias: str) -> str:
    """Return the condition of a sweep that a row's merchant isn't closed here. It is looked up once a statement."""
    return f"{alias}.merchant_id <> ALL ({_CLOSED})"


class MerchantClosedError(asyncpg.PostgresError):
    """The merchant takes no writes at this server. asyncpg raises it for the code that triggers raise."""

    sqlstate = "FL002"


class _StateRow(TypedDict):
    is_closed: bool


IS_CLOSED: Final = statement(
    _StateRow, "SELECT state <> 'LEAVING' AS is_closed FROM fence WHERE merchant_id = :merchant_id"
)

#: Who waits in this process, by merchant: one asks for all of them.
_opening: dict[UUID, "asyncio.Task[None]"] = {}


async def opened(merchant_id: UUID) -> None:
    """Wait until the merchant is open at the server that answers for it, as of a moment after this call."""
    while await _is_closed(merchant_id):
        opening = _opening.get(merchant_id)
        if opening is None:
            opening = _opening[merchant_id] = asyncio.create_task(_look_until_open(merchant_id))
            opening.add_done_callback(lambda _: _opening.pop(merchant_id))
        # Whoever's time is over leaves the others waiting.
        await asyncio.shield(opening)


async def _is_closed(merchant_id: UUID) -> bool:
    row = await database().row(IS_CLOSED, merchant_id=merchant_id)
    return row is not None and row["is_closed"]


async def _look_until_open(merchant_id: UUID) -> None:
    is_closed = True
    while is_closed:
        await asyncio.sleep(_PAUSE_SECONDS)
        try:
            is_closed = await _is_closed(merchant_id)
        except Exception as error:
            # A router that is told of the move may end connections.
            if not is_away(error):
                raise
