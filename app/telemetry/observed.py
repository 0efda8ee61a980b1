"""What is known of the request, the operation or the job at hand: for lines of the log, counters and traces.

One operation is one object from its arrival to its last answer. When it ends it is counted, and is one line of the log.
"""

import asyncio
import logging
import time
from contextvars import ContextVar, Token
from typing import Final, Literal
from uuid import UUID

from app import ids
from app.config import settings
from app.telemetry import metrics, traces

log = logging.getLogger("flash.graphql")

Transport = Literal["http", "event-stream", "websocket"]

#: What isn't a client's mistake: it is told to the log where it is found.
FAULTS: Final = frozenset({"INTERNAL_SERVER_ERROR", "TIMEOUT", "UNAVAILABLE"})
#: Clients choose the names of operations; no more than this of one is kept.
_NAME_LENGTH_MAX: Final = 80

#: The X-Request-Id that the request is answered with; that of its handshake, for whatever a socket does.
request_id: ContextVar[str] = ContextVar("request_id", default="")
#: What a worker works at, as its queue calls it.
job_id: ContextVar[str] = ContextVar("job_id", default="")

_at_hand: "ContextVar[Observed | None]" = ContextVar("operation", default=None)


class Observed:
    """An operation, or a request that never becomes one, for the length of a block."""

    __slots__ = (
        "_begun", "_token", "_trace", "actor", "client_left", "codes", "field", "kind", "merchant_id", "name",
        "refusals", "role", "status", "transport",
    )  # fmt: skip

    def __init__(self, transport: Transport) -> None:
        """Begin with nothing known but what brought it."""
        self.transport = transport
        self.kind = ""
        self.field = ""
        self.name = ""
        self.role = ""
        self.actor = ""
        self.merchant_id: UUID | None = None
        #: Of errors, and of refusals: types of answers.
        self.codes: set[str] = set()
        self.refusals: list[str] = []
        #: Of an answer below GraphQL.
        self.status: int | None = None
        self.client_left = False

    def __enter__(self) -> "Observed":
        """Be what is at hand."""
        self._token: Token[Observed | None] = _at_hand.set(self)
        self._begun = time.perf_counter()
        self._trace = traces.begin()
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """Count it, and tell the log."""
        seconds = time.perf_counter() - self._begun
        if isinstance(error, asyncio.CancelledError) and self.kind != "subscription":
            self.client_left = True
        if isinstance(error, Exception):
            # Nobody has told a client of it: it is a fault all the same.
            self.codes.add("INTERNAL_SERVER_ERROR")
        if self.kind == "subscription":
            metrics.subscription_ended(self.field)
        ended = self._class
        metrics.operation_ended(self.kind, self.field, ended, seconds)
        for code in self.codes:
            metrics.count_error(code)
        if self._trace is not None:
            self._trace.end(f"{self.kind} {self.field}".strip() or "request", self._told, failed=ended == "failed")
        self._tell(ended, seconds)
        _at_hand.reset(self._token)

    def is_of(self, kind: str, field: str, name: str | None) -> None:
        """Learn which operation it is: query, mutation or subscription; its root field; what its client calls it."""
        self.kind = kind
        self.field = field
        self.name = (name or "")[:_NAME_LENGTH_MAX]
        if kind == "subscription":
            metrics.subscription_begun(field)

    def is_by(self, role: str, actor: str, merchant_id: UUID) -> None:
        """Learn who asks."""
        self.role = role
        self.actor = actor
        self.merchant_id = merchant_id

    @property
    def outcome(self) -> str:
        """The codes of its errors, the types of its refusals, or OK."""
        if self.client_left:
            return "CLIENT_LEFT"
        return ", ".join(sorted(self.codes) or sorted(set(self.refusals))) or "OK"

    @property
    def _class(self) -> str:
        if self.client_left:
            return "left"
        if self.codes:
            return "failed" if self.codes & FAULTS else "mistaken"
        return "refused" if self.refusals else "answered"

    @property
    def _told(self) -> dict[str, str]:
        """What a span says of it."""
        return {
            "graphql.operation.type": self.kind,
            "graphql.operation.name": self.name,
            "flash.field": self.field,
            "flash.transport": self.transport,
            "flash.role": self.role,
            "flash.merchant": ids.encode("merchant", self.merchant_id) if self.merchant_id else "",
            "flash.outcome": self.outcome,
            "flash.request_id": request_id.get(),
        }

    def _tell(self, ended: str, seconds: float) -> None:
        """Write one line: always of a client's mistake, and of anything else where operations are logged."""
        is_mistake = ended == "mistaken"
        if not is_mistake and not settings().logs_operations:
            return
        outcome = self.outcome
        if is_mistake:
            said = f"refused to {self.actor or 'a caller'}: {outcome}"
            said += f", {self.status}" if self.status else ""
        else:
            said = f"{'answered' if ended == 'refused' else ended}: {outcome}"
        log.info(said, extra={"outcome": outcome, "seconds": seconds})


def at_hand() -> Observed | None:
    """Return the operation that this task works at."""
    return _at_hand.get()


def refused(coordinate: str, refusal: str) -> None:
    """Take note that a field, `Mutation.claimCode`, was answered with a refusal of this type."""
    metrics.count_refusal(coordinate.partition(".")[2], refusal)
    observed = _at_hand.get()
    if observed is not None:
        observed.refusals.append(refusal)


def failed(codes: set[str]) -> None:
    """Take note of errors that were told to a client."""
    observed = _at_hand.get()
    if observed is not None:
        observed.codes |= codes
    elif mistakes := sorted(codes - FAULTS):
        log.info("refused to a caller: %s", ", ".join(mistakes))
