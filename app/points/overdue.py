"""Holds whose time has passed: whoever lacks points ends the member's first."""

from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from app.storage.database import Tx

#: Ends all holds of a member whose time has passed, whole, and returns whether there was one. The member's wallet is
#: locked, which comes last in every order of locks. So it waits for nothing: what others have locked stays as it is.
Ending = Callable[[Tx, UUID, UUID], Awaitable[bool]]

_endings: Final[list[Ending]] = []


def ends_overdue(ending: Ending) -> Ending:
    """Let `end_overdue` call a function; the ledger lies below those who know holds."""
    _endings.append(ending)
    return ending


async def end_overdue(tx: Tx, merchant_id: UUID, member_id: UUID) -> bool:
    """End the holds of a member whose time has passed, in a wallet that is locked. Returns whether there was one."""
    return any([await ending(tx, merchant_id, member_id) for ending in _endings])
