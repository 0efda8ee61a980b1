"""What is due every night, and for which merchants a night has nothing to do."""

import logging
from typing import Final, TypedDict
from uuid import UUID

from app.storage.database import database, is_away
from app.storage.statements import Statement

#: Of so many merchants one statement finds out whether anything happened.
PASSED_AT_ONCE: Final = 500
FIRST: Final = UUID(int=0)


class MerchantRow(TypedDict):
    """Whose night it is."""

    merchant_id: UUID


def night_began(hour: int) -> str:
    """Return the SQL of a row with `began`, the instant of this hour of the day (UTC) that passed last."""
    return f"SELECT date_trunc('day', now() - interval '{hour} hours', 'UTC') + interval '{hour} hours' AS began"


async def pass_over(query: Statement[MerchantRow], log: logging.Logger, otherwise: str, **values: object) -> None:
    """Let a statement pass over merchants, PASSED_AT_ONCE after each `:after`, of whom it returns the last.

    Where that fails, nobody is passed over, and the log says what is done `otherwise`. Raises what a database that is
    away does.
    """
    looked: MerchantRow | None = {"merchant_id": FIRST}
    try:
        while looked is not None:
            looked = await database().row(query, **values, after=looked["merchant_id"])
    except Exception as error:
        if is_away(error):
            raise
        log.exception("nobody knows in which merchants nothing has happened: %s", otherwise)
