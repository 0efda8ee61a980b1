"""A Valkey of a test's own, to be killed, frozen and started again, and an API on it."""

import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.operate.embedded import DataDirectory
from tests.conftest import Api, run_api


class Valkey:
    """A Valkey of its own, to be killed, frozen and started again."""

    def __init__(self, data: DataDirectory) -> None:
        """Start it."""
        self.data = data
        data.create()
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        command = self.data.valkey_command()
        with command.log.open("ab") as log:
            self.process = subprocess.Popen(command.arguments, stdout=log, stderr=log)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()

    def send(self, what: signal.Signals) -> None:
        """Freeze it or let it go on."""
        self.process.send_signal(what)


@asynccontextmanager
async def api_with_own_valkey(database_url: str, **environment: str) -> AsyncIterator[tuple[Api, Valkey]]:
    """Run an API on a Valkey of its own for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="flash-valkey-", ignore_cleanup_errors=True) as directory:
        valkey = Valkey(DataDirectory(Path(directory)))
        try:
            with run_api(database_url, REDIS_URL=valkey.data.redis_url, **environment) as api:
                yield api, valkey
        finally:
            valkey.kill()
