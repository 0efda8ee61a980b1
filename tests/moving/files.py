"""Files to bring in, and how tests bring them in: in this process, on the worker's database."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app import ids
from app.moving.bring_in import Options, Screen, bring_in
from app.storage.database import database
from tests.factories import Shop

Names = dict[str, str] | None


@dataclass
class Brought:
    """What an operator is told: the exit status, what is wrong by line, and the answer."""

    status: int
    wrong: list[str]
    said: list[str]


async def staged(shop: Shop) -> None:
    """Leave what a run leaves that was killed while it staged a file of members with one row."""
    await database().rows(
        """INSERT INTO import_file (merchant_id, id, kind, name, digest, status, corrects, tells, staged_line, begun_at)
        VALUES ($1, gen_random_uuid(), 'MEMBERS', 'a.csv', 'x', 'STAGING', false, false, 2, now())""",
        shop.merchant_id,
    )
    await database().rows(
        """INSERT INTO import_row (merchant_id, import_id, line, id)
        SELECT merchant_id, id, 2, gen_random_uuid() FROM import_file WHERE merchant_id = $1""",
        shop.merchant_id,
    )


class Mover:
    """Brings files in for a shop."""

    def __init__(self, shop: Shop, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Take where files are written to."""
        self.shop = shop
        self.path = folder / "export.csv"
        self._capsys = capsys

    async def move(self, kind: str, text: str | bytes, names: Names = None, **how: bool) -> Brought:
        """Bring a file of this text in."""
        self.path.write_bytes(text if isinstance(text, bytes) else text.encode())
        self._capsys.readouterr()
        merchant = ids.encode("merchant", self.shop.merchant_id)
        status = await bring_in(kind, self.path, merchant, Options(names or {}, **how), Screen())
        printed = self._capsys.readouterr()
        wrong = [line.removeprefix(f"{self.path}:") for line in printed.err.splitlines()]
        return Brought(status, wrong, printed.out.splitlines())

    async def refused(
        self, kind: str, text: str | bytes, names: dict[str, str] | None = None, **how: bool
    ) -> list[str]:
        """Bring in a file that must be refused without a trace. Returns what is wrong, by line."""
        before = await self.shop.state()
        brought = await self.move(kind, text, names, **how)
        assert brought.status == 1, brought
        assert await self.shop.state() == before
        return brought.wrong

    async def applied(
        self, kind: str, text: str | bytes, names: dict[str, str] | None = None, **how: bool
    ) -> list[str]:
        """Bring in a file that must be applied, or must have been. Returns the answer."""
        brought = await self.move(kind, text, names, **how)
        assert (brought.status, brought.wrong) == (0, []), brought
        assert await self.shop.broken_promises() == []
        assert await self.shop.count("import_row") == 0
        return brought.said

    async def member(self, external_id: str, source: str = "STORE") -> UUID:
        """Return the member that a source calls so."""
        (row,) = await self.rows(
            "SELECT member_id FROM external_id WHERE merchant_id = $1 AND source = $2 AND external_id = $3",
            source,
            external_id,
        )
        found: UUID = row["member_id"]
        return found

    async def rows(self, statement: str, *values: object) -> list[Any]:
        """Return rows of the merchant, which is the first value."""
        return list(await database().rows(statement, self.shop.merchant_id, *values))
