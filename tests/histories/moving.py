"""Balances that are moved in while histories are recorded: by `flash import`, or by what it calls, in this process."""

import asyncio
import tempfile
from pathlib import Path

from app import ids
from app.errors import ConfigurationError
from app.moving.bring_in import Options, Screen, bring_in
from app.stress.clients import Unanswered
from app.stress.gone import told_of
from tests.factories import Shop
from tests.operate.processes import flash


class _Heard(Screen):
    """A screen that keeps what it would show."""

    def __init__(self) -> None:
        super().__init__()
        self.progress.disable = True
        self.heard: list[str] = []

    def say(self, answer: str) -> None:
        self.heard.append(answer)

    def wrong(self, file: str, line: int, why: str) -> None:
        self.heard.append(f"{file}:{line}: {why}")

    def note(self, said: str) -> None:
        self.heard.append(said)

    def told(self) -> None:
        """Print nothing."""


class Mover:
    """Brings files of balances in for a shop, one after the other, as an operator does."""

    def __init__(self, shop: Shop) -> None:
        self._merchant = ids.encode("merchant", shop.merchant_id)
        self._alone = asyncio.Lock()

    async def bring(self, text: str) -> tuple[int, str]:
        """Bring a file of this text in. Returns the exit status, and what was said."""
        screen = _Heard()
        with tempfile.TemporaryDirectory(prefix="flash-histories-") as folder:
            path = Path(folder) / "balances.csv"
            path.write_text(text)
            async with self._alone:
                try:
                    status = await bring_in("balances", path, self._merchant, Options({}), screen)
                except ConfigurationError as error:
                    return 1, str(error)
        return status, "\n".join(screen.heard)


class Operator:
    """Brings files in for a merchant of a deployment, with a process for each."""

    def __init__(self, merchant: str, data: Path) -> None:
        self._merchant = merchant
        self._data = data
        self._alone = asyncio.Lock()

    async def bring(self, text: str) -> tuple[int, str]:
        """Bring a file of this text in. Returns the exit status, and what was said.

        Raises Unanswered when it failed, which may have been at any point.
        """
        with tempfile.TemporaryDirectory(prefix="flash-histories-") as folder:
            path = Path(folder) / "balances.csv"
            path.write_text(text)
            asked = ("import", "balances", str(path), "--merchant", self._merchant, "--data", str(self._data))
            async with self._alone:
                ended = await asyncio.to_thread(flash, *asked)
        said = f"{ended.stdout}\n{ended.stderr}"
        if told_of(ended.returncode, said) is None:
            raise Unanswered("an import failed")
        return ended.returncode, said
