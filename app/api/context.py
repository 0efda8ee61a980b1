"""Who is asking, and what is shared by the resolvers of one request."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain
from math import inf
from typing import Any, Final, TypeVar
from uuid import UUID

import strawberry

from app.api.scalars import described
from app.api.turns import FIELDS_PER_TURN, Turn
from app.storage.crypto import MerchantKeys

Key = TypeVar("Key", bound=Hashable)
Row = TypeVar("Row")

#: For how many rounds of the event loop no field may wait for its turn before what they ask for is read: a list's
#: items come to their own fields a round after their list is complete.
_QUIET_ROUNDS: Final = 2


@strawberry.enum(description="What a caller may do.")
class Role(Enum):
    """The five roles; access.py says what each may call."""

    ADMIN = described("ADMIN", "Everything.")
    CHECKOUT = described(
        "CHECKOUT",
        description="Enrols members, records purchases and proofs of addresses, accepts invites, claims and redeems "
        "for members, issues member tokens.",
    )
    SUPPORT = described(
        "SUPPORT",
        description="Finds people, reads histories with reasons, repairs; makes no key, pool, campaign, webhook or "
        "reward.",
    )
    ANALYST = described("ANALYST", "Reads everything masked and changes nothing.")
    MEMBER = described(
        "MEMBER",
        "A member: sees its own wallet, invites and referrals; claims, redeems rewards and invites for itself.",
    )


@dataclass(frozen=True, slots=True)
class Tenant:
    """A merchant as requests need it: its row and its unwrapped keys."""

    id: UUID
    name: str
    currency: str
    keys: MerchantKeys
    #: Whether it is moving to another server, or arrives here: then it may be closed (app/storage/fences.py).
    is_moving: bool = False


@dataclass(slots=True)
class Named:
    """The members that an operation named by their ids, and who stands for those of them that were merged."""

    ids: set[UUID] = field(default_factory=set)
    kept: dict[UUID, UUID] = field(default_factory=dict)

    def stands(self, kept_id: UUID, merged_id: UUID) -> None:
        """Note that a member stands for one that was merged, and for whoever that one stood for."""
        self.kept |= {each: kept_id for each, standing in self.kept.items() if standing == merged_id}
        self.kept[merged_id] = kept_id

    def called(self, member_id: UUID) -> UUID | None:
        """Return the member that the operation named and for which this one stands, None if it named none."""
        if member_id in self.ids:
            return member_id
        return next((each for each in self.ids if self.kept.get(each) == member_id), None)


@dataclass(frozen=True, slots=True)
class Viewer:
    """An authenticated caller. `actor` is how events name it; a member also has its own id.

    An operation has a viewer of its own, which notes the members that it names.
    """

    role: Role
    tenant: Tenant
    actor: str
    member_id: UUID | None = None
    named: Named = field(default_factory=Named, compare=False, repr=False)

    def for_operation(self) -> "Viewer":
        """Return the same caller, who has named nobody yet."""
        return Viewer(self.role, self.tenant, self.actor, self.member_id)

    def standing(self, member_id: UUID) -> UUID:
        """Return a member that the caller named, or who stands for it, as far as the operation knows."""
        self.named.ids.add(member_id)
        return self.named.kept.get(member_id, member_id)

    def found(self, member_id: UUID) -> None:
        """Note that a member that the caller named was read, and is here: nobody stands for it."""
        self.named.ids.discard(member_id)

    @property
    def merchant_id(self) -> UUID:
        """The tenant's id: the first column of every key."""
        return self.tenant.id


@dataclass(slots=True)
class Context:
    """One operation: its viewer (None only for introspection in development), its turn, and what its fields load."""

    caller: Viewer | None
    #: How large the answer may be, in bytes of JSON.
    answer_bytes_max: float = inf
    turn: Turn = field(default_factory=Turn)
    _loading: "_Loading | None" = None

    def __post_init__(self) -> None:
        """Let the operation note for itself whom it names: a viewer is kept for all that its credential asks."""
        if self.caller is not None:
            self.caller = self.caller.for_operation()

    @property
    def viewer(self) -> Viewer:
        """The caller; the edge answers UNAUTHENTICATED before a resolver could ask without one."""
        if self.caller is None:
            raise RuntimeError("a resolver ran without a viewer")
        return self.caller

    def load(self, batch: Callable[..., Awaitable[Mapping[Key, Row]]], key: Key, *args: Hashable) -> Awaitable[Row]:
        """Return `batch`'s row for `key`, read together with those of all siblings that pass the same `args`."""
        if self._loading is None:
            self._loading = _Loading(self.viewer, self.turn)
        return self._loading.load(batch, args, key)

    def stop(self) -> None:
        """Read nothing more: the operation has ended."""
        if self._loading is not None:
            self._loading.stop()


class _Loading:
    """The rows that an operation's fields have asked for, batch by batch."""

    def __init__(self, viewer: Viewer, turn: Turn) -> None:
        self._viewer = viewer
        self._turn = turn
        self._loaded: dict[Hashable, dict[Any, Any]] = {}
        #: Of each batch that isn't read yet: who waits for each of its keys.
        self._waiting: dict[Hashable, dict[Any, list[asyncio.Future[Any]]]] = {}
        self._reading: set[asyncio.Task[None]] = set()

    async def load(
        self, batch: Callable[..., Awaitable[Mapping[Any, Any]]], args: tuple[Hashable, ...], key: Any
    ) -> Any:
        loaded = self._loaded.get((batch, args))
        if loaded is not None and key in loaded:
            return loaded[key]
        waiting = self._waiting.get((batch, args))
        if waiting is None:
            waiting = self._waiting[batch, args] = {}
            self._read_soon(batch, args)
        found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        waiting.setdefault(key, []).append(found)
        row = await found
        if self._turn.left <= 0:
            await self._turn.next()
        return row

    def stop(self) -> None:
        for task in self._reading:
            task.cancel()

    def _read_soon(self, batch: Callable[..., Awaitable[Mapping[Any, Any]]], args: tuple[Hashable, ...]) -> None:
        """Read a batch when every field that would ask for a part of it has: not while some wait for their turn."""

        def begin(quiet: int = 0) -> None:
            quiet = 0 if self._turn.waiting else quiet + 1
            if quiet < _QUIET_ROUNDS:
                loop.call_soon(begin, quiet)
                return
            task = loop.create_task(self._read(batch, args))
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)

        loop = asyncio.get_running_loop()
        loop.call_soon(begin)

    async def _read(self, batch: Callable[..., Awaitable[Mapping[Any, Any]]], args: tuple[Hashable, ...]) -> None:
        waiting = self._waiting.pop((batch, args))
        try:
            rows = await batch(self._viewer, list(waiting), *args)
            loaded = {key: rows[key] for key in waiting}
        except Exception as error:  # noqa: BLE001  (whatever it is, it is for who waits)
            for found in chain.from_iterable(waiting.values()):
                if not found.done():
                    found.set_exception(error)
            return
        self._loaded.setdefault((batch, args), {}).update(loaded)
        for number, (key, found) in enumerate((key, found) for key, those in waiting.items() for found in those):
            if number % FIELDS_PER_TURN == FIELDS_PER_TURN - 1:
                await asyncio.sleep(0)
            if not found.done():
                found.set_result(loaded[key])
