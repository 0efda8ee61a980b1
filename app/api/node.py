"""node: anything with an id, read again by the noun that its kind belongs to."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from app import ids
from app.api.context import Viewer
from app.api.operations import Id, Info, Node, query

Refetch = Callable[[Viewer, str], Awaitable[Node | None]]
AnyRefetch = TypeVar("AnyRefetch", bound=Refetch)

#: How a node of each kind is read again. The nouns fill it, so that this needs none of them.
REFETCHES: Final[dict[str, Refetch]] = {}


def refetches(kind: ids.Kind) -> Callable[[AnyRefetch], AnyRefetch]:
    """Say that a function returns the node of an id of this kind: None if the viewer may not see it, or it isn't."""

    def register(refetch: AnyRefetch) -> AnyRefetch:
        REFETCHES[kind] = refetch
        return refetch

    return register


@query(description="Anything with an id, if the caller may see it; null if not. Everyone.")
async def node(info: Info, id: Id) -> Node | None:
    refetch = REFETCHES.get(ids.kind_of(id))
    return None if refetch is None else await refetch(info.context.viewer, id)
