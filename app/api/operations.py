"""What operations share: refusals, faults, and the edge every query and mutation passes."""

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, ParamSpec, TypeVar
from uuid import UUID

import strawberry
from graphql import GraphQLError
from strawberry.types import get_object_definition
from strawberry.utils.str_converters import to_camel_case

from app import ids
from app.api.access import admitted
from app.api.context import Context, Viewer
from app.api.standing import ErasedError, stand_in
from app.storage.fences import MerchantClosedError, opened
from app.storage.gone import MemberGoneError, forfeiting
from app.storage.restarts import ENDED, RESTARTS_MAX
from app.telemetry.observed import refused as note_refusal

Info = strawberry.Info[Context, None]
P = ParamSpec("P")
T = TypeVar("T")

Id = Annotated[strawberry.ID, strawberry.argument(description="The id of a node.")]


@strawberry.interface(description="Anything with an id of its own, to be read again by `node`.")
class Node:
    """A thing with an opaque id."""

    id: strawberry.ID = strawberry.field(description="Opaque and stable.")


@strawberry.interface(description="An answer that says no: a sentence for people and its own facts for programs.")
class Refusal:
    """Refusals are answers. Verbs raise them as `Refused`; the edge returns them."""

    message: str = strawberry.field(description="Why not, for people.")

    def depends_on_whom(self) -> bool:
        """Whether the answer could be another one for a member that stands for one that was named."""
        return True


@strawberry.type(description="Something in the input can't be.")
class InputProblem:
    """One field's problem."""

    path: list[str] = strawberry.field(description="Where in the input, outermost first; list positions as digits.")
    message: str = strawberry.field(description="What is wrong there.")


@strawberry.type(description="The input can't be carried out whoever asks and whenever; nothing was changed.")
class InvalidInput(Refusal):
    """All problems of an input at once."""

    problems: list[InputProblem] = strawberry.field(description="Every problem found.")


@strawberry.type(description="No such thing, or none that the caller may see; the two can't be told apart.")
class NotFound(Refusal):
    """An id that names nothing the viewer may see."""

    id: strawberry.ID = strawberry.field(description="The id as it was given, cut to 200 characters.")


@strawberry.type(description="The idempotency key was already used for something else.")
class IdempotencyKeyReused(Refusal):
    """The same key with another body."""


class Refused(Exception):  # noqa: N818  (not an error: an answer on its way to the edge)
    """Carries a refusal from wherever it is found to the edge; a transaction it passes rolls back."""

    def __init__(self, refusal: Refusal) -> None:
        """Take the answer."""
        super().__init__(refusal.message)
        self.refusal = refusal


class OutpacedError(Exception):
    """Something isn't any more what was read of it: the transaction rolls back, and the edge begins the verb anew."""


#: What a verb meets that isn't its answer yet: it may begin again, or refuses.
_MET: Final = (Refused, OutpacedError, MemberGoneError, MerchantClosedError, *ENDED)


def not_found(what: str, node_id: str) -> Refused:
    """Return the refusal for an id that names nothing visible."""
    return Refused(NotFound(message=f"There is no such {what}.", id=strawberry.ID(node_id[:200])))


def bad_user_input(message: str) -> GraphQLError:
    """Return the top-level error for a malformed argument outside a mutation's input."""
    return GraphQLError(message, extensions={"code": "BAD_USER_INPUT"})


async def _answer_met(info: Info, coordinate: str, ask: Callable[[], Any], met: Exception) -> Any:
    """Return what a verb answers that met what is no answer yet (_MET), or why it refuses.

    What was outpaced, or PostgreSQL ended so that another could go on, or because it had seen too little, has left
    nothing behind, and begins again. So does what met a merchant that was closed, once it is open, here or at another
    server; and what met a member that was merged, for the one that was kept. A refusal is the last word only once every
    member that was named stands.
    """
    before = forfeiting.get()
    first = [met]

    def ask_again() -> Any:
        if first:
            raise first.pop()
        return ask()

    try:
        while True:
            try:
                return await _answer_again(info, coordinate, ask_again)
            except MerchantClosedError:
                await opened(info.context.viewer.merchant_id)
    finally:
        forfeiting.set(before)


async def _answer_again(info: Info, coordinate: str, ask: Callable[[], Any]) -> Any:
    viewer = info.context.viewer
    restarts = 0
    while True:
        refusal: Refusal
        try:
            answer = ask()
            return await answer if inspect.isawaitable(answer) else answer
        except Refused as refused:
            refusal = refused.refusal
            try:
                if refusal.depends_on_whom() and await stand_in(viewer):
                    continue
            except ErasedError as erased:
                if _may_answer_not_found(info):
                    refusal = not_found("member", erased.node_id).refusal
        except (OutpacedError, *ENDED):
            restarts += 1
            if restarts == RESTARTS_MAX:
                raise
            continue
        except MemberGoneError as gone:
            restarts += 1
            if restarts == RESTARTS_MAX:
                raise
            erased_id = await _erased(viewer, gone.member_id)
            if erased_id is None:
                continue
            if not _may_answer_not_found(info):
                raise
            refusal = not_found("member", erased_id).refusal
        note_refusal(coordinate, type(refusal).__name__)
        return refusal


async def _erased(viewer: Viewer, member_id: UUID) -> str | None:
    """Return the id of a member that is gone if it was erased and the operation named it.

    Otherwise it can begin again: for the member that was kept, or, where nobody asked for the erased one, as what
    others take back, which forfeits what that one is due.
    """
    try:
        await stand_in(viewer, [member_id])
    except ErasedError:
        named_id = viewer.named.called(member_id)
        if named_id is not None:
            return ids.encode("member", named_id)
        forfeiting.set(forfeiting.get() | {member_id})
    return None


def _may_answer_not_found(info: Info) -> bool:
    return NotFound in getattr(info.return_type, "types", ())


def mutation(*, description: str) -> Callable[[Callable[P, Awaitable[T]]], Any]:
    """Turn a verb into a field of Mutation: the role is checked, and a refusal becomes the answer."""

    def decorate(verb: Callable[P, Awaitable[T]]) -> Any:
        coordinate = f"Mutation.{to_camel_case(verb.__name__)}"

        @functools.wraps(verb)
        async def edge(info: Info, *args: Any, **kwargs: Any) -> Any:
            admitted(info.context.viewer, coordinate)
            try:
                return await verb(info, *args, **kwargs)  # type: ignore[arg-type]
            except _MET as met:
                return await _answer_met(info, coordinate, lambda: verb(info, *args, **kwargs), met)  # type: ignore[arg-type]

        return strawberry.mutation(resolver=edge, description=description)

    return decorate


def query(*, description: str, name: str | None = None) -> Callable[[Callable[P, Any]], Any]:
    """Turn a resolver into a field of Query: the role is checked, and a refusal becomes the answer."""

    def decorate(resolver: Callable[P, Any]) -> Any:
        coordinate = f"Query.{name or to_camel_case(resolver.__name__)}"

        @functools.wraps(resolver)
        async def edge(info: Info, *args: Any, **kwargs: Any) -> Any:
            if not admitted(info.context.viewer, coordinate):
                return None
            try:
                answer = resolver(info, *args, **kwargs)  # type: ignore[arg-type]
                return await answer if inspect.isawaitable(answer) else answer
            except _MET as met:
                return await _answer_met(info, coordinate, lambda: resolver(info, *args, **kwargs), met)  # type: ignore[arg-type]

        return strawberry.field(resolver=edge, description=description, name=name)

    return decorate


def subscription(*, description: str) -> Callable[[Callable[P, Awaitable[T]]], Any]:
    """Turn a resolver that returns its events into a field of Subscription: the role is checked before the first."""

    def decorate(resolver: Callable[P, Awaitable[T]]) -> Any:
        coordinate = f"Subscription.{to_camel_case(resolver.__name__)}"

        @functools.wraps(resolver)
        async def edge(info: Info, *args: Any, **kwargs: Any) -> T:
            admitted(info.context.viewer, coordinate)
            return await resolver(info, *args, **kwargs)  # type: ignore[arg-type]

        return strawberry.subscription(resolver=edge, description=description)

    return decorate


def field(*, description: str) -> Callable[[Callable[..., Any]], Any]:
    """Turn a method into a field of its object; `strawberry.field`, with a type that strict checking accepts."""

    def decorate(resolver: Callable[..., Any]) -> Any:
        return strawberry.field(resolver=resolver, description=description)

    return decorate


def guarded(coordinate: str, *, description: str) -> Callable[[Callable[..., Any]], Any]:
    """Turn a method into a field of its object that not every role may read: FORBIDDEN or null, as the table says."""

    def decorate(resolver: Callable[..., Any]) -> Any:
        @functools.wraps(resolver)
        async def edge(self: Any, info: Info, *args: Any, **kwargs: Any) -> Any:
            if not admitted(info.context.viewer, coordinate):
                return None
            answer = resolver(self, info, *args, **kwargs)
            return await answer if inspect.isawaitable(answer) else answer

        return strawberry.field(resolver=edge, description=description)

    return decorate


def extends(kind: type) -> Callable[[type], type]:
    """Add a class's fields to another noun's object, as `extend type` does: that noun needn't know of this one."""

    def decorate(extension: type) -> type:
        added = get_object_definition(strawberry.type(extension), strict=True)
        get_object_definition(kind, strict=True).fields.extend(added.fields)
        return extension

    return decorate
