"""Members that are gone, merged into another one or erased: what the database answers to a change, and who may make it.

What others take back (a refund, a referral that falls) may change the wallet of an erased member. Such a transaction
says whose, and leaves nothing in it: what came back is forfeited before it commits.
"""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final
from uuid import UUID

import asyncpg

from app.storage.statements import NoRow, statement

#: The erased members whose wallets the operation that is under way may change.
forfeiting: Final[ContextVar[frozenset[UUID]]] = ContextVar("forfeiting", default=frozenset())
#: Tells the triggers of the transaction.
LET: Final = statement(
    NoRow,
    """
SELECT FROM merchant WHERE merchant_id = :merchant_id AND set_config('flash.erased', :member_ids, true) IS NOT NULL
""",
)
#: Takes what came back to an erased member: (transaction, merchant, member).
Forfeit = Callable[[Any, UUID, UUID], Awaitable[None]]
_forfeits: Final[list[Forfeit]] = []


def forfeits(forfeit: Forfeit) -> Forfeit:
    """Let `forfeit` call a function; transactions lie below those who know codes and points."""
    _forfeits.append(forfeit)
    return forfeit


async def forfeit(tx: Any, merchant_id: UUID, member_id: UUID) -> None:
    """Take what came back to an erased member in this transaction."""
    for each in _forfeits:
        await each(tx, merchant_id, member_id)


class MemberGoneError(asyncpg.PostgresError):
    """The member takes no change. asyncpg raises it for the code that the triggers raise (`refuse_gone`)."""

    sqlstate = "FL001"

    @classmethod
    def of(cls, member_id: UUID) -> "MemberGoneError":
        """Return the error for a member whose row said that it is gone."""
        error = cls("the member is gone")
        error.detail = str(member_id)
        return error

    @property
    def member_id(self) -> UUID:
        """Who is gone."""
        return UUID(str(self.detail))
