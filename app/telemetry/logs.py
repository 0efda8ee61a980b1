"""The log of a process: lines for people or for machines, each with the request, operation or job that it is about.

No line but the first of an entry begins where an entry may begin, so nobody can write one by what they send.
"""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from app import ids
from app.config import Settings
from app.telemetry.observed import Observed, at_hand, job_id, request_id

#: Where errors of the database and its driver begin to quote values.
_QUOTED: Final = re.compile(
    r"(?<=invalid input for query argument )(\$\d+).*?$|(DETAIL:).*?(?=\n\n(?:The above|During handling of)|\Z)",
    re.DOTALL | re.MULTILINE,
)


def configure(chosen: Settings) -> None:
    """Write to stderr, in the configured form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if chosen.log_format == "json" else TextLines())
    # What is in no line isn't looked up for each: the thread, the process, and the caller's frame.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    logging.basicConfig(level=chosen.log_level.upper(), handlers=[handler])


class TextLines(logging.Formatter):
    """`time LEVEL logger [request field duration] message`; tracebacks follow, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return an entry: one line, and those of its traceback."""
        observed = at_hand()
        seconds = getattr(record, "seconds", None)
        about = [
            _request_of(record) or job_id.get(),
            observed.field if observed else "",
            "" if seconds is None else f"{seconds * 1000:.1f}ms",
        ]
        place = f" [{' '.join(filter(None, about))}]" if any(about) else ""
        line = f"{_time(record)} {record.levelname} {record.name}{place} {_escaped(_message(record))}"
        trace = _trace(self, record)
        return line if trace is None else line + "".join(f"\n  {_escaped(each)}" for each in trace.splitlines())


class JsonLines(logging.Formatter):
    """One JSON object per entry, and per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return an entry: what isn't known is left out."""
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        if request := _request_of(record):
            entry["request_id"] = request
        if job := job_id.get():
            entry["job"] = job
        observed = at_hand()
        if observed is not None:
            entry |= _about(observed)
        if hasattr(record, "outcome"):
            entry["outcome"] = record.outcome
        if hasattr(record, "seconds"):
            entry["duration_ms"] = round(record.seconds * 1000, 3)
        trace = _trace(self, record)
        if trace is not None:
            entry["error"] = trace
        try:
            return orjson.dumps(entry).decode()
        except TypeError:
            # A lone surrogate isn't UTF-8.
            return json.dumps(entry, default=str)


def _about(observed: Observed) -> dict[str, Any]:
    """Return what is known of an operation, as the keys of an entry."""
    known: dict[str, Any] = {
        "transport": observed.transport,
        "kind": observed.kind,
        "field": observed.field,
        "operation": observed.name,
        "merchant": observed.merchant_id and ids.encode("merchant", observed.merchant_id),
        "role": observed.role,
        "status": observed.status,
    }
    return {name: value for name, value in known.items() if value}


def _request_of(record: logging.LogRecord) -> str:
    """Return the id of the request: what isn't in the hands of the application yet names its own."""
    given: str = getattr(record, "request_id", "") or request_id.get()
    return given


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    said = record.getMessage()
    return _without_values(said) if record.exc_info else said


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    return _without_values(formatter.formatException(record.exc_info)) if record.exc_info else None


def _without_values(text: str) -> str:
    return _QUOTED.sub(lambda found: f"{found[1] or found[2]} …", text)


def _escaped(text: str) -> str:
    """Return a text in which nothing ends the line or moves a terminal's cursor."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
