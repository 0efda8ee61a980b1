"""Starts `flash`: a fork of one process that has imported everything, because imports are most of a start.

`make full` starts each process as an operator does; so does macOS, where such a fork isn't safe.
"""

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import IO, Any, Final, NoReturn, Protocol

from tests.sizes import FULL

FLASH: Final = (sys.executable, "-m", "app")
FORKS: Final = not FULL and sys.platform != "darwin"
#: Where the process that is forked listens.
ADDRESS: Final = "FLASH_TEST_STARTS"
#: Names the bug that a process is to have (tests/histories/broken.py).
BROKEN: Final = "FLASH_TEST_BROKEN"
#: What is read when a module is imported: a process for which these are others must import by itself.
READ_AT_IMPORT: Final = {"PYTHONPATH", "PROMETHEUS_MULTIPROC_DIR"}
#: `flash` for a shell. It imports next to nothing.
_COMMAND: Final = """
import json, os, socket, struct, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
asked = json.dumps({{"arguments": sys.argv[1:], "environment": dict(os.environ), "cwd": os.getcwd()}}).encode()
socket.send_fds(connection, [struct.pack("=i", len(asked))], [0, 1, 2])
connection.sendall(asked)
connection.recv(4)
sys.exit(os.waitstatus_to_exitcode(struct.unpack("=i", connection.recv(4))[0]))
"""
_PACKAGES: Final = ("app", "workers", "migrations")
_SECONDS_MAX: Final = 90.0


class Process(Protocol):
    """What tests use of a process: subprocess.Popen has it all."""

    pid: int
    returncode: int | Any

    def poll(self) -> int | None:
        """Return the exit status, None while the process runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status. Raises subprocess.TimeoutExpired."""

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless the process has ended."""

    def terminate(self) -> None:
        """Send SIGTERM."""

    def kill(self) -> None:
        """Send SIGKILL."""


class _Forked:
    """A process that another process forked for us; its connection tells when it has ended, and how."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self.pid = self._told()
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with self._lock:
            if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
                self.returncode = os.waitstatus_to_exitcode(self._told())
                self._connection.close()
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise subprocess.TimeoutExpired("flash", timeout or 0)
            with contextlib.suppress(OSError, ValueError):  # another thread has seen the end, and closed it
                select.select([self._connection], [], [], left)
        return status

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _told(self) -> int:
        said = self._connection.recv(4)
        if len(said) < 4:
            raise RuntimeError("the process that starts `flash` for tests has ended; its log is beside the API's")
        (number,) = struct.unpack("=i", said)
        return int(number)


def start(
    *arguments: str | Path,
    environment: dict[str, str],
    output: IO[Any] | None = None,
    errors: IO[Any] | None = None,
    cwd: Path | None = None,
    listening: socket.socket | None = None,
) -> Process:
    """Start a command. Its output is thrown away unless told where to; a socket that it is to listen at is `--fd`."""
    words = [str(each) for each in arguments]
    other = any(environment.get(name) != os.environ.get(name) for name in READ_AT_IMPORT)
    if ADDRESS not in os.environ or other:
        inherits = () if listening is None else (listening.fileno(),)
        command = FLASH if BROKEN not in environment else (sys.executable, "-m", "tests.histories.broken")
        return subprocess.Popen(
            [*command, *words, *(word for each in inherits for word in ("--fd", str(each)))],
            env=environment, cwd=cwd, pass_fds=inherits, stdin=subprocess.DEVNULL,
            stdout=output or subprocess.DEVNULL, stderr=errors or subprocess.DEVNULL,
        )  # fmt: skip
    with Path(os.devnull).open("r+b") as nothing:
        descriptors = [each.fileno() for each in (nothing, output or nothing, errors or nothing)]
        if listening is not None:
            descriptors.append(listening.fileno())
        asked = json.dumps({"arguments": words, "environment": environment, "cwd": str(cwd or Path.cwd())}).encode()
        connection = _connected()
        socket.send_fds(connection, [struct.pack("=i", len(asked))], descriptors)
        connection.sendall(asked)
        return _Forked(connection)


def run(
    *arguments: str | Path, environment: dict[str, str], cwd: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = start(*arguments, environment=environment, output=output, errors=errors, cwd=cwd)
        try:
            status = process.wait(_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess([str(each) for each in arguments], status, output.read(), errors.read())


def _connected() -> socket.socket:
    """Connect to the process that is forked, which may still be importing."""
    deadline = time.monotonic() + _SECONDS_MAX
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(os.environ[ADDRESS])
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return connection


def path_with_flash() -> str:
    """Return a PATH for shells, on which `flash` is started as `start` does."""
    ours = [str(Path(sys.executable).parent), os.environ["PATH"]]
    if ADDRESS in os.environ:
        ours.insert(0, str(Path(os.environ[ADDRESS]).parent / "bin"))
    return os.pathsep.join(ours)


def _write_command(address: str) -> None:
    command = Path(address).parent / "bin" / "flash"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable} -SE\n{_COMMAND.format(address=address)}")
    command.chmod(0o755)


def serve(address: str) -> None:
    """Import everything, then fork whatever is asked for until stdin ends."""
    _import_everything()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    woken, wakes = socket.socketpair()
    wakes.settimeout(0)
    signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    running: dict[int, socket.socket] = {}
    with socket.socket(socket.AF_UNIX) as listening, selectors.DefaultSelector() as waiting:
        _write_command(address)
        # Whoever connects as soon as the file is there must not be refused.
        listening.bind(f"{address}.new")
        listening.listen(100)
        Path(f"{address}.new").rename(address)
        for each in (listening, woken, sys.stdin):
            waiting.register(each, selectors.EVENT_READ)
        while True:
            for ready, _ in waiting.select():
                if ready.fileobj is sys.stdin:
                    # Nobody is left who would stop them.
                    for pid in running:
                        os.kill(pid, signal.SIGKILL)
                    return
                if ready.fileobj is woken:
                    woken.recv(1 << 12)
                    _tell_ends(running)
                else:
                    connection, _ = listening.accept()
                    pid = _fork(connection)
                    connection.send(struct.pack("=i", pid))
                    running[pid] = connection
                    # One that ended before we knew of it.
                    _tell_ends(running)


def _import_everything() -> None:
    gc.disable()
    for package in _PACKAGES:
        found = importlib.import_module(package)
        for module in pkgutil.walk_packages(found.__path__, f"{package}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    importlib.import_module("tests.recorded")
    gc.collect()
    gc.freeze()
    gc.enable()


def _tell_ends(running: dict[int, socket.socket]) -> None:
    for pid in list(running):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with running.pop(pid) as connection, contextlib.suppress(BrokenPipeError):
                connection.send(struct.pack("=i", status))


def _fork(connection: socket.socket) -> int:
    """Read what is asked for and fork it. Returns the process's id."""
    header, descriptors, _, _ = socket.recv_fds(connection, 4, 4)
    (size,) = struct.unpack("=i", header)
    asked = b""
    while len(asked) < size:
        asked += connection.recv(size - len(asked))
    pid = os.fork()
    if pid == 0:
        _become(descriptors, **json.loads(asked))
    for each in descriptors:
        os.close(each)
    return pid


def _become(descriptors: list[int], arguments: list[str], environment: dict[str, str], cwd: str) -> NoReturn:
    """Be the command, and end as a process of its own would."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, each in enumerate(descriptors[:3]):
            os.dup2(each, number)
        kept = os.dup(descriptors[3]) if len(descriptors) > 3 else 2
        os.closerange(3, kept)
        os.closerange(kept + 1, 1 << 10)
        if kept > 2:
            arguments = [*arguments, "--fd", str(kept)]
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environment)
        time.tzset()
        sys.argv = ["flash", *arguments]
        if arguments[:1] == ["api"] and "FLASH_TEST_STATEMENTS" in environment:
            importlib.import_module("tests.recorded").record()
        if BROKEN in environment:
            importlib.import_module("tests.histories.broken").break_engine()
        importlib.import_module("app.cli").main()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001  # whatever it is, this process ends here
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve(sys.argv[1])
