"""The statements that API processes send. A router before several PostgreSQL servers has to find one merchant in each.

Processes that tests start write each statement down once, in their data folder. When the run has ended, all are parsed,
and one that names no merchant, or two, fails the run. `tests/storage/test_routing.py` parses what stands in the code;
this finds what is put together elsewhere.
"""

import json
import os
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest

from tests.storage.routing import is_one, merchants_of, tables_of

_create_pool: Final = asyncpg.create_pool
_found: dict[str, set[str] | None] = {}
_counted: list[int] = []


def record() -> None:
    """Write down what this process sends, from now on."""
    asyncpg.create_pool = _recording_pool


def _folder() -> Path:
    return Path(os.environ["FLASH_TEST_STATEMENTS"])


def _recording_pool(*arguments: Any, **options: Any) -> Any:
    seen: set[str] = set()
    file = _folder() / f"{os.getpid()}.jsonl"
    begin = options.pop("init", None)

    def note(sent: Any) -> None:
        if sent.query not in seen:
            seen.add(sent.query)
            with file.open("a") as lines:
                lines.write(json.dumps(sent.query) + "\n")

    async def watch(connection: asyncpg.Connection) -> None:
        connection.add_query_logger(note)
        if begin is not None:
            await begin(connection)

    return _create_pool(*arguments, init=watch, **options)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Parse what was sent, and fail the run for what no router could place."""
    if hasattr(session.config, "workerinput") or "FLASH_TEST_STATEMENTS" not in os.environ:
        return
    sent = {json.loads(line) for file in _folder().glob("*.jsonl") for line in file.read_text().splitlines()}
    _found.update(_unplaced(sent))
    _counted.append(len(sent))
    if _found and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many statements were parsed, and which of them can't be placed."""
    for count in _counted:
        terminalreporter.line(f"parsed {count} different statements that API processes sent")
    if _found:
        terminalreporter.section("statements of API processes that name no merchant, or several")
    for statement, merchants in _found.items():
        terminalreporter.line(f"{sorted(merchants or ())}: {' '.join(statement.split())}"[:400])


def _unplaced(sent: set[str]) -> dict[str, set[str] | None]:
    from tests.storage.test_routing import sweeps

    passed = sweeps()
    found = {statement: merchants_of(statement) for statement in sent - passed if tables_of(statement)}
    return {statement: merchants for statement, merchants in found.items() if not is_one(merchants)}
