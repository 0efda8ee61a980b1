"""Who is asking, and what is shared by the resolvers of one request."""

from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar, cast
from uuid import UUID

import strawberry
from strawberry.dataloader import DataLoader

from app.api.scalars import described
from app.storage.crypto import MerchantKeys

Key = TypeVar("Key", bound=Hashable)
Row = TypeVar("Row")


@strawberry.enum(description="What a caller may do.")
class Role(Enum):
    """The four roles; access.py says what each may call."""

    ADMIN = described("ADMIN", "Everything.")
    CHECKOUT = described(
        "CHECKOUT",
        description="Enrols members, records purchases, accepts invites, claims and redeems for members, issues member "
        "tokens.",
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


@dataclass(frozen=True, slots=True)
class Viewer:
    """An authenticated caller. `actor` is how events name it; a member also has its own id."""

    role: Role
    tenant: Tenant
    actor: str
    member_id: UUID | None = None

    @property
    def merchant_id(self) -> UUID:
        """The tenant's id: the first column of every key."""
        return self.tenant.id


@dataclass(slots=True)
class Context:
    """One request: its viewer (None only for introspection in development) and its batching loaders."""

    caller: Viewer | None
    _loaders: dict[Hashable, DataLoader[Any, Any]] = field(default_factory=dict)

    @property
    def viewer(self) -> Viewer:
        """The caller; the edge answers UNAUTHENTICATED before a resolver could ask without one."""
        if self.caller is None:
            raise RuntimeError("a resolver ran without a viewer")
        return self.caller

    def load(self, batch: Callable[..., Awaitable[Mapping[Key, Row]]], key: Key, *args: Hashable) -> Awaitable[Row]:
        """Return `batch`'s row for `key`, read together with those of all siblings that pass the same `args`."""
        loader = self._loaders.get((batch, args))
        if loader is None:
            viewer = self.viewer

            async def read(keys: list[Key]) -> list[Row]:
                rows = await batch(viewer, keys, *args)
                return [rows[key] for key in keys]

            loader = self._loaders[batch, args] = DataLoader(load_fn=read)
        return cast("Awaitable[Row]", loader.load(key))
