"""What the database answers to a change of a member that is gone: merged into another one, or erased."""

from uuid import UUID

import asyncpg


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
