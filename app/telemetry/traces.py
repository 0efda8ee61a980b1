"""Traces of operations and their statements, by OpenTelemetry; none of it is imported unless FLASH_TRACES_URL is set.

Spans name operations, fields and SQL as this code spells them. Variables, addresses and codes are in none: statements
take their values as parameters, and those are never looked at. What a caller says of a trace of its own isn't followed:
strangers would decide what is recorded.
"""

import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from app.config import Settings
from app.errors import ConfigurationError

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.connection import LoggedQuery
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

_SQL_LENGTH_MAX: Final = 2_000

_provider: "TracerProvider | None" = None
_tracer: "Tracer | None" = None


def configure(chosen: Settings) -> None:
    """Send traces of this process, if that is configured. Raises ConfigurationError without OpenTelemetry."""
    global _provider, _tracer  # noqa: PLW0603  (one provider per process)
    if chosen.traces_url is None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import TraceIdRatioBased  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError(
            "FLASH_TRACES_URL is set, and OpenTelemetry isn't installed: install flash-engine[otel], or unset it."
        ) from None
    resource = Resource.create({"service.name": "flash-api", "service.version": version("flash-engine")})
    _provider = TracerProvider(sampler=TraceIdRatioBased(chosen.traces_share), resource=resource)
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=chosen.traces_url)))
    _tracer = _provider.get_tracer("flash")


def are_on() -> bool:
    """Whether this process traces."""
    return _tracer is not None


def flush() -> None:
    """Send what waits to be sent, and end. Blocks."""
    if _provider is not None:
        _provider.shutdown()


class Trace:
    """The span of one operation, current until it ends."""

    __slots__ = ("_span", "_token")

    def __init__(self, tracer: "Tracer") -> None:
        """Begin. What it is called is known at its end."""
        from opentelemetry import context, trace  # noqa: PLC0415

        self._span = tracer.start_span("operation", context=context.Context())
        self._token = context.attach(trace.set_span_in_context(self._span))

    def end(self, name: str, attributes: dict[str, str], *, failed: bool) -> None:
        """End under a name; an attribute without a value is left out."""
        from opentelemetry import context  # noqa: PLC0415
        from opentelemetry.trace import StatusCode  # noqa: PLC0415

        self._span.update_name(name)
        self._span.set_attributes({key: value for key, value in attributes.items() if value})
        if failed:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()
        context.detach(self._token)


def begin() -> Trace | None:
    """Begin the span of an operation, if this process traces."""
    return None if _tracer is None else Trace(_tracer)


async def watch(connection: "asyncpg.Connection") -> None:
    """Make each statement of a connection a span of the operation that sends it."""
    connection.add_query_logger(_statement)


def _statement(logged: "LoggedQuery") -> None:
    """Record a statement that has ended; called in the context in which it was sent."""
    from opentelemetry.trace import StatusCode, get_current_span  # noqa: PLC0415

    if _tracer is None or not get_current_span().is_recording():
        return
    ended = time.time_ns()
    sql = logged.query.strip()
    attributes = {"db.system.name": "postgresql", "db.query.text": sql[:_SQL_LENGTH_MAX]}
    span = _tracer.start_span(
        sql.split(None, 1)[0].upper() if sql else "statement",
        attributes=attributes,
        start_time=ended - int(logged.elapsed * 1e9),
    )
    if logged.exception is not None:
        span.set_attribute("error.type", type(logged.exception).__name__)
        span.set_status(StatusCode.ERROR)
    span.end(ended)
