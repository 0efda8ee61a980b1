"""`pytest -n 0 -p tests.cpu`: tells which tests took the most CPU, that of all servers and browsers included."""

from collections import defaultdict
from collections.abc import Generator
from typing import Final

import psutil
import pytest

TOLD: Final = 40
_ME: Final = psutil.Process()
_tests: list[tuple[float, str]] = []


def _spent() -> float:
    """Return the seconds of CPU that this process and all that it started have had, as far as they still run."""
    spent = sum(_ME.cpu_times()[:4])
    for each in _ME.children(recursive=True):
        # One that ends meanwhile is counted with its parent.
        try:
            spent += sum(each.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return float(spent)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Count what a test takes, with the fixtures that it is the first to need."""
    before = _spent()
    try:
        return (yield)
    finally:
        _tests.append((_spent() - before, item.nodeid))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the dearest files and tests."""
    files: defaultdict[str, float] = defaultdict(float)
    for seconds, nodeid in _tests:
        files[nodeid.partition("::")[0]] += seconds
    terminalreporter.section("seconds of CPU")
    for dearest in ([(seconds, file) for file, seconds in files.items()], _tests):
        for seconds, name in sorted(dearest, reverse=True)[:TOLD]:
            terminalreporter.write_line(f"{seconds:8.2f} {name}")
        terminalreporter.write_line("")
