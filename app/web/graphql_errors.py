"""Errors as clients see them: each has a code, and none shows the insides of the engine."""

import logging
import secrets
from collections.abc import Iterable
from typing import Any

from graphql import GraphQLError

from app.storage.database import is_away, took_too_long
from app.telemetry.observed import failed

log = logging.getLogger("flash.graphql")

Shown = dict[str, Any]


class NotExecutedError(Exception):
    """There is no answer but these errors: nothing was executed, or its result can't be sent."""

    def __init__(self, errors: list[GraphQLError]) -> None:
        super().__init__(errors[0].message)
        self.errors = errors


def fault(code: str, message: str, **told: Any) -> GraphQLError:
    """Return an error with a code and other extensions."""
    return GraphQLError(message, extensions={"code": code, **told})


def coded(errors: list[GraphQLError], code: str) -> list[GraphQLError]:
    """Add a code to errors that have none."""
    for error in errors:
        error.extensions = {"code": code} | (error.extensions or {})
    return errors


def told(error: Exception) -> list[Shown]:
    """Return what clients are told when an operation ends in an exception. Unexpected ones are masked."""
    if isinstance(error, NotExecutedError):
        return presented(error.errors)
    return presented([GraphQLError("", path=[], original_error=error)])


def presented(errors: Iterable[GraphQLError]) -> list[Shown]:
    """Return errors as clients see them, and note their codes for the log and the counters.

    A resolver's unexpected exception becomes "Internal error." with a reference that the log has too.
    """
    presenting = Presenting()
    return presenting.done([presenting.one(error) for error in errors])


class Presenting:
    """Presents the errors of one answer. An exception that many fields end with is logged once."""

    def __init__(self) -> None:
        self._masked: dict[int, Shown] = {}

    def one(self, error: GraphQLError) -> Shown:
        """Return an error as clients see it."""
        shown: Shown = {"message": error.message}
        if error.locations:
            shown["locations"] = [location.formatted for location in error.locations]
        if error.path:
            shown["path"] = error.path
        extensions = error.extensions or {}
        if "code" in extensions:
            return shown | {"extensions": extensions}
        cause = error.original_error or error
        if isinstance(cause, GraphQLError) and cause.message.startswith("Argument "):
            # A variable that is null where the argument has a default and mustn't be: only executing shows it.
            return shown | {"extensions": {"code": "BAD_USER_INPUT"}}
        masked = self._masked.get(id(cause))
        if masked is None:
            masked = self._masked[id(cause)] = _masked(cause, error)
        return shown | masked

    def done(self, shown: list[Shown]) -> list[Shown]:
        """Note the codes of these errors, and return them."""
        failed({each["extensions"]["code"] for each in shown})
        return shown


def _masked(cause: Exception, error: GraphQLError) -> Shown:
    if took_too_long(cause):
        log.warning("an operation takes too long at %.200s: %r", error.path, cause)
        return {
            "message": "This takes too long; ask for less, or try again.",
            "extensions": {"code": "TIMEOUT"},
        }
    if is_away(cause):
        log.warning("the database is away: %r", cause)
        return {
            "message": "The engine can't reach its database; try again.",
            "extensions": {"code": "UNAVAILABLE"},
        }
    reference = secrets.token_hex(8)
    log.error("internal error %s at %.200s", reference, error.path, exc_info=cause)
    return {
        "message": "Internal error.",
        "extensions": {"code": "INTERNAL_SERVER_ERROR", "reference": reference},
    }
