"""Work that begins anew: what PostgreSQL ended so that another could go on has left nothing behind."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import asyncpg

T = TypeVar("T")
#: How often something is begun at most.
RESTARTS_MAX: Final = 20
#: How PostgreSQL ends a transaction so that another could go on, or because it had seen too little.
ENDED: Final = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


async def begun_anew(work: Callable[[], Awaitable[T]], *others: type[Exception]) -> T:
    """Do work that a transaction of its own begins and ends; again when it was ended, or raised one of the others.

    Raises the last of these when it was begun too often. Verbs need none of this: their edge does it.
    """
    again: tuple[type[Exception], ...] = (*ENDED, *others)
    restarts = 0
    while True:
        try:
            return await work()
        except again:
            restarts += 1
            if restarts == RESTARTS_MAX:
                raise
