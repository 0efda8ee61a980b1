"""Keyset connections: pages are cut by where the last one ended, so they don't shift and cost the same at any depth.

Every list is newest first. A cursor is the sort key of its row: an instant for lists that are not ordered by id,
then the row's id.
"""

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Generic, TypeVar, cast
from uuid import UUID

import strawberry

from app.api.operations import bad_user_input

T = TypeVar("T")
Row = TypeVar("Row", bound=Mapping[str, object])

FIRST_MAX: Final = 100
FIRST_DEFAULT: Final = 50
#: Longer ones are none, and aren't decoded.
_CURSOR_LENGTH_MAX: Final = 32
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_ID: Final = UUID(int=2**128 - 1)
_LAST_INSTANT: Final = datetime(9999, 1, 1, tzinfo=UTC)

First = Annotated[int | None, strawberry.argument(description="How many, 1 to 100; 50 unless told.")]
After = Annotated[str | None, strawberry.argument(description="The cursor after which the page starts.")]


@strawberry.type(description="Where a page stands in its list.")
class PageInfo:
    """As in the Relay connection specification."""

    has_next_page: bool = strawberry.field(description="Whether more follow.")
    has_previous_page: bool = strawberry.field(description="Whether some came before.")
    start_cursor: str | None = strawberry.field(description="The first edge's cursor; null on an empty page.")
    end_cursor: str | None = strawberry.field(description="The last edge's cursor; null on an empty page.")


@strawberry.type(description="An item of a list and its place in it.")
class Edge(Generic[T]):
    """One item."""

    cursor: str = strawberry.field(description="The item's place, for `after`.")
    node: T = strawberry.field(description="The item.")


@strawberry.type(description="A page of a list, newest first.")
class Connection(Generic[T]):
    """One page."""

    edges: list[Edge[T]] = strawberry.field(description="The items of this page.")
    page_info: PageInfo = strawberry.field(description="Where this page stands.")


@dataclass(frozen=True, slots=True)
class Page:
    """What a list's SQL needs: rows strictly after (`instant`, `id`) in descending order, one more than `size`."""

    size: int
    instant: datetime
    id: UUID
    is_first: bool

    @property
    def limit(self) -> int:
        """One row more than asked tells whether another page follows."""
        return self.size + 1


def page(
    first: int | None,
    after: str | None,
    *,
    by_instant: bool = False,
    unless_told: int = FIRST_DEFAULT,
    most: int = FIRST_MAX,
) -> Page:
    """Read the arguments of a list, which is ordered by id or by an instant and the id.

    Raises BAD_USER_INPUT for a size outside 1 to `most` or a cursor of a list ordered otherwise.
    """
    size = unless_told if first is None else first
    if not 1 <= size <= most:
        raise bad_user_input(f"`first` must be between 1 and {most}.")
    if after is None:
        return Page(size, _LAST_INSTANT, _LAST_ID, is_first=True)
    if len(after) > _CURSOR_LENGTH_MAX:
        raise bad_user_input("`after` is not a cursor of this list.")
    try:
        raw = base64.urlsafe_b64decode(after.encode("ascii") + b"==")
        instant = _EPOCH + timedelta(microseconds=int.from_bytes(raw[16:], signed=True))
        row_id = UUID(bytes=raw[:16])
    except (ValueError, binascii.Error, OverflowError):
        raise bad_user_input("`after` is not a cursor of this list.") from None
    if after != cursor(row_id, instant if by_instant else None):
        raise bad_user_input("`after` is not a cursor of this list.")
    return Page(size, instant, row_id, is_first=False)


def cursor(row_id: UUID, instant: datetime | None = None) -> str:
    """Return the cursor of a row: its id, and the instant it is sorted by where that isn't the id."""
    raw = row_id.bytes
    if instant is not None:
        raw += ((instant - _EPOCH) // timedelta(microseconds=1)).to_bytes(8, signed=True)
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Lazily(Iterable[T]):
    """Items that are made when they are asked for: whoever reads a list lets others have a turn between them."""

    def __init__(self, rows: Sequence[Row], make: Callable[[Row], T]) -> None:
        """Take the rows, and what makes an item of one; a list may be read more than once, under several names."""
        self._rows = rows
        self._make = make

    def __iter__(self) -> Iterator[T]:
        """Make the items, one after the other."""
        return map(self._make, self._rows)


def connect(
    rows: Sequence[Row], asked: Page, node: Callable[[Row], T], *, key: str = "id", instant: str | None = None
) -> Connection[T]:
    """Return the connection of a page's rows, which are at most `asked.limit`; `key` and `instant` name fields."""

    def place(row: Row) -> str:
        return cursor(cast("UUID", row[key]), cast("datetime", row[instant]) if instant else None)

    kept = rows[: asked.size]
    edges = Lazily(kept, lambda row: Edge(cursor=place(row), node=node(row)))
    ends = [place(row) for row in (*kept[:1], *kept[-1:])]
    return Connection(edges=cast("list[Edge[T]]", edges), page_info=page_info(asked, ends, len(rows)))


def page_info(asked: Page, cursors: Sequence[str], found: int) -> PageInfo:
    """Return where a page stands that begins and ends with these cursors, when its SQL found so many rows."""
    return PageInfo(
        has_next_page=found > asked.size,
        has_previous_page=not asked.is_first,
        start_cursor=cursors[0] if cursors else None,
        end_cursor=cursors[-1] if cursors else None,
    )
