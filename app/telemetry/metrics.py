"""What this process counts for Prometheus; docs/operations.md is the table of it, and says what to watch.

Labels are words of the schema and of this code, never a merchant, a pool or a person: however many there are, the
series stay a few hundred. `flash up` lets several processes of one address count together, in files that any of them
adds up (PROMETHEUS_MULTIPROC_DIR, which prometheus_client reads when it is imported).
"""

import os
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

#: Where the processes that share an address count together.
SHARED: Final = os.environ.get("PROMETHEUS_MULTIPROC_DIR")

_registry: Final = CollectorRegistry()
#: From a claim on an idle machine to the deadline of an operation.
_SECONDS: Final = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

OPERATIONS: Final = Counter(
    "flash_operations",
    "Operations and requests that ended: answered, refused, mistaken (by the client), failed, or left (by the client).",
    ["kind", "field", "outcome"],
    registry=_registry,
)
SECONDS: Final = Histogram(
    "flash_operation_seconds",
    "How long queries and mutations took, from the request to its answer.",
    ["kind", "field"],
    buckets=_SECONDS,
    registry=_registry,
)
REFUSALS: Final = Counter(
    "flash_refusals", "Answers that said no, by the type of the refusal.", ["field", "type"], registry=_registry
)
ERRORS: Final = Counter(
    "flash_errors", "Operations that ended with an error of this code.", ["code"], registry=_registry
)
SUBSCRIPTIONS: Final = Gauge(
    "flash_subscriptions_open",
    "Subscriptions that are followed now.",
    ["field"],
    multiprocess_mode="livesum",
    registry=_registry,
)
STREAMS: Final = Gauge(
    "flash_streams_open",
    "WebSockets and event streams that are open now.",
    multiprocess_mode="livesum",
    registry=_registry,
)
CONNECTIONS: Final = Gauge(
    "flash_database_connections",
    "Connections to the database, as of two seconds ago at most.",
    ["state"],
    multiprocess_mode="livesum",
    registry=_registry,
)
RINGS_LOST: Final = Counter(
    "flash_rings_lost", "Changes that Valkey couldn't be told of; subscribers heard of them a sweep later.",
    registry=_registry,
)  # fmt: skip

#: By labels: prometheus_client looks a labelled metric up under a lock, at the cost of the count itself.
_operations: Final[dict[tuple[str, str, str], Counter]] = {}
_seconds: Final[dict[tuple[str, str], Histogram]] = {}


def operation_ended(kind: str, field: str, outcome: str, seconds: float) -> None:
    """Count an operation. `field` is its root field, empty for what never became an operation."""
    kind, field = kind or "none", field or "none"
    operations = _operations.get((kind, field, outcome))
    if operations is None:
        operations = _operations[kind, field, outcome] = OPERATIONS.labels(kind, field, outcome)
    operations.inc()
    if kind not in {"query", "mutation"}:
        return
    timed = _seconds.get((kind, field))
    if timed is None:
        timed = _seconds[kind, field] = SECONDS.labels(kind, field)
    timed.observe(seconds)


def count_refusal(field: str, refusal: str) -> None:
    """Count an answer that says no."""
    REFUSALS.labels(field, refusal).inc()


def count_error(code: str) -> None:
    """Count an error that a client was told."""
    ERRORS.labels(code).inc()


def subscription_begun(field: str) -> None:
    """Count a subscriber."""
    SUBSCRIPTIONS.labels(field).inc()


def subscription_ended(field: str) -> None:
    """Count one less."""
    SUBSCRIPTIONS.labels(field).dec()


def exposition(facts: Collector) -> bytes:
    """Return everything in Prometheus's text format, with facts that are nobody's count."""
    shown = CollectorRegistry()
    shown.register(facts)
    if SHARED is None:
        ProcessCollector(registry=shown)
        return generate_latest(_registry) + generate_latest(shown)
    _forget_the_dead(Path(SHARED))
    MultiProcessCollector(shown, path=SHARED)  # type: ignore[no-untyped-call]
    return generate_latest(shown)


def _forget_the_dead(directory: Path) -> None:
    """Let what processes had open end with them; what they counted stays."""
    for file in directory.glob("gauge_live*_*.db"):
        try:
            os.kill(int(file.stem.rpartition("_")[2]), 0)
        except ProcessLookupError:
            file.unlink(missing_ok=True)
