"""The `flash` command as an operator runs it: a process, with an environment of which the test says every part."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from tests.starts import FLASH, run

T = TypeVar("T")


def environment(**variables: str | Path) -> dict[str, str]:
    """Return this process's environment without what configures the engine, and with these variables."""
    ours = {"DATABASE_URL", "REDIS_URL"}
    kept = {name: value for name, value in os.environ.items() if name not in ours and not name.startswith("FLASH_")}
    return kept | {name: str(value) for name, value in variables.items()}


def flash(
    *arguments: str | Path, cwd: Path | None = None, **variables: str | Path
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return run(*arguments, environment=environment(**variables), cwd=cwd)


def refusal(*arguments: str | Path, cwd: Path | None = None, **variables: str | Path) -> str:
    """Run a command that must end with exit 1, and return its one sentence."""
    ended = flash(*arguments, cwd=cwd, **variables)
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("flash: starting")]
    assert ended.returncode == 1, ended
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("flash: ")
    return lines[0].removeprefix("flash: ")


@dataclass
class Up:
    """A `flash up` that said that it is ready."""

    process: "subprocess.Popen[str]"
    facts: dict[str, Any]
    errors: Path

    @property
    def url(self) -> str:
        """The address without a path."""
        url: str = self.facts["url"]
        return url.removesuffix("/graphql")

    def ask(self, document: str, key: str) -> Any:
        """Send a document over a connection of its own. Returns the whole answer."""
        headers = {"authorization": f"Bearer {key}"}
        return httpx.post(self.facts["url"], json={"query": document}, headers=headers, verify=False, timeout=30).json()

    def ready(self) -> dict[str, str] | None:
        """Return what /readyz says of the servers, None while it is not ready."""
        try:
            answer = httpx.get(f"{self.url}/readyz", verify=False, timeout=10)
        except httpx.TransportError:
            return None
        found: dict[str, str] = answer.json()
        return found if answer.status_code == 200 else None

    def family(self) -> list[psutil.Process]:
        """Return every process that this one started and that still runs."""
        children: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return children

    def end(self, by: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(by)
        return self.process.wait(timeout=40)


@contextmanager
def starting(data: Path, *options: str, errors: Path, **variables: str | Path) -> Iterator["subprocess.Popen[str]"]:
    """Start a `flash up` of its own, which is stopped after the block."""
    arguments = [*FLASH, "up", "--port", "0", "--json", "--data", str(data), *options]
    with (
        errors.open("a") as output,
        subprocess.Popen(
            arguments, env=environment(**variables), stdout=subprocess.PIPE, stderr=output, text=True
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            process.wait(timeout=40)


@contextmanager
def up(data: Path, *options: str, errors: Path, **variables: str | Path) -> Iterator[Up]:
    """Run `flash up` for the length of the block."""
    with starting(data, *options, errors=errors, **variables) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, errors.read_text()
        yield Up(process, json.loads(line), errors)


def eventually(ask: Callable[[], T | None], *, within_seconds: float = 40.0) -> T:
    """Return the first answer that isn't empty."""
    deadline = time.monotonic() + within_seconds
    while time.monotonic() < deadline:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"no answer within {within_seconds} s")


def is_listening(path: str) -> bool:
    """Whether a server listens at a Unix socket."""
    with socket.socket(socket.AF_UNIX) as looking:
        return looking.connect_ex(path) == 0


@contextmanager
def reserved_port() -> Iterator[int]:
    """Yield a port that nobody else is given for the length of the block; who says SO_REUSEADDR may listen at it."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


def all_gone(processes: list[psutil.Process]) -> bool:
    """Whether all have ended, with a moment for those that are ending."""
    _, alive = psutil.wait_procs(processes, timeout=20)
    return not alive
