"""Holds whose time has passed: whoever lacks a code or a reward that they have aside ends them first."""

from collections.abc import Awaitable, Callable, Collection
from typing import Final, TypeVar
from uuid import UUID

#: Ends all holds of a merchant whose time has passed and that have one of these rewards from its stock, or a code of
#: one of these pools or of the rewards' pools, each in a transaction of its own. Returns whether there was one.
Ending = Callable[[UUID, Collection[UUID], Collection[UUID]], Awaitable[bool]]
EndingT = TypeVar("EndingT", bound=Ending)

_endings: Final[list[Ending]] = []


def ends_what_is_aside(ending: EndingT) -> EndingT:
    """Let `end_overdue` call a function; claims and rewards lie below those who know holds."""
    _endings.append(ending)
    return ending


async def end_overdue(merchant_id: UUID, *, reward_ids: Collection[UUID] = (), pool_ids: Collection[UUID] = ()) -> bool:
    """End holds whose time has passed that have such rewards or codes. Returns whether there was one.

    Not in a transaction: it waits for others, and whoever calls it begins again.
    """
    return any([await ending(merchant_id, reward_ids, pool_ids) for ending in _endings])
