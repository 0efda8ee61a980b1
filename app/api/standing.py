"""Who stands for members that are gone: looked up when an operation met one, never before.

A verb acts for the members that it is given. Where one of them was merged, its statements find nothing of it, or the
database refuses the change (`MemberGoneError`): the operation begins again then, with the kept member in its place.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, TypedDict
from uuid import UUID

import strawberry
from graphql import GraphQLError

from app import ids
from app.api.context import Viewer
from app.storage.database import database
from app.storage.statements import statement


class GoneRow(TypedDict):
    """A member that is gone: merged into another one, or erased, or both."""

    id: UUID
    merged_into_id: UUID | None
    erased_at: datetime | None


GONE: Final = statement(
    GoneRow,
    """
SELECT id, merged_into_id, erased_at FROM member
WHERE merchant_id = :merchant_id AND id = ANY(:member_ids::uuid[])
    AND (merged_into_id IS NOT NULL OR erased_at IS NOT NULL)
""",
)


class ErasedError(Exception):
    """A member that an operation is for was erased: it is as unknown as an id that never was."""

    def __init__(self, member_id: UUID) -> None:
        """Take who."""
        super().__init__("the member was erased")
        self.node_id = strawberry.ID(ids.encode("member", member_id))


async def stand_in(viewer: Viewer, member_ids: Sequence[UUID] | None = None) -> bool:
    """Note who stands for members that are gone, of those that the operation named unless they are told.

    Whoever stood for one may be gone by now, too. Returns whether there are such that it didn't know of. Raises
    ErasedError, and GraphQLError when the viewer itself is gone: its token has ended.
    """
    named = viewer.named
    asked = list({named.kept.get(each, each) for each in named.ids}) if member_ids is None else member_ids
    if not asked:
        return False
    rows = await database().rows(GONE, merchant_id=viewer.merchant_id, member_ids=asked)
    for row in rows:
        if row["id"] == viewer.member_id:
            raise GraphQLError("This token has ended.", extensions={"code": "UNAUTHENTICATED"})
        if row["erased_at"] is not None or row["merged_into_id"] is None:
            raise ErasedError(named.called(row["id"]) or row["id"])
        named.stands(row["merged_into_id"], row["id"])
    return bool(rows)
