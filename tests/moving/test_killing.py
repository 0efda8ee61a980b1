"""Imports that are killed. Without these a row could be lost or be applied twice."""

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app import ids
from app.config import settings
from app.errors import ConfigurationError
from app.moving import bring_in
from app.moving.members import Members
from app.storage.database import database
from tests.factories import Shop
from tests.moving.files import Mover
from tests.operate.processes import environment
from tests.sizes import size
from tests.starts import start

ROWS = size(3_000, 100_000)
STAGED = "SELECT FROM import_file WHERE merchant_id = $1 AND status = 'STAGING' AND staged_line > 0"
APPLYING = "SELECT FROM import_file WHERE merchant_id = $1 AND status = 'APPLYING' AND applied > 0"
TOTALS = """
SELECT count(*)::int AS members, sum(points)::bigint AS points, sum(version)::bigint AS versions FROM wallet
WHERE merchant_id = $1
"""


async def _kill_when(shop: Shop, kind: str, path: Path, statement: str) -> None:
    """Start an import in a process of its own, and kill it when the statement finds something, if it does in time."""
    variables = {
        "DATABASE_URL": settings().database_url or "",
        "FLASH_MASTER_KEYS": os.environ["FLASH_MASTER_KEYS"],
        "FLASH_DATA": os.environ["FLASH_DATA"],
    }
    merchant = ids.encode("merchant", shop.merchant_id)
    process = start("import", kind, str(path), "--merchant", merchant, environment=environment(**variables))
    try:
        while process.poll() is None and not await database().rows(statement, shop.merchant_id):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)


def _members() -> str:
    rows = (f"C{n},c{n}@example.com,{'true' if n % 2 else ''},Customer {n}" for n in range(ROWS))
    return "externalId,email,emailVerified,displayName\n" + "\n".join(rows)


def _balances() -> str:
    year = datetime.now(UTC).year + 1
    rows = (f"C{n},{n + 1},\nC{n},1,{year}-12-31" for n in range(ROWS // 2))
    return "externalId,points,expiresAt\n" + "\n".join(rows)


async def test_what_was_killed_anywhere_ends_as_if_it_had_not_been(shop: Shop, mover: Mover) -> None:
    for kind, text, moments, totals in (
        ("members", _members(), (STAGED, APPLYING), (ROWS, 0, 0)),
        ("balances", _balances(), (APPLYING,), (ROWS, ROWS // 2 * (ROWS // 2 + 1) // 2 + ROWS // 2, ROWS // 2 * 2)),
    ):
        mover.path.write_text(text)
        for moment in moments:
            await _kill_when(shop, kind, mover.path, moment)

        brought = await mover.move(kind, text)

        assert brought.status == 0, brought
        assert tuple((await mover.rows(TOTALS))[0].values()) == totals
        assert await shop.count("import_row") == 0
        assert await shop.broken_promises() == []
        assert (await mover.move(kind, text)).said[0].startswith("Nothing to do")


async def test_a_merchant_has_one_import_at_a_time(shop: Shop, mover: Mover, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bring_in, "ALONE_SECONDS_MAX", 0.1)
    judge = Members.judge

    async def judged(self: Members, of: Any) -> None:
        with pytest.raises(ConfigurationError, match="Another import of this merchant is running"):
            await bring_in.discard(ids.encode("merchant", shop.merchant_id))
        await judge(self, of)

    monkeypatch.setattr(Members, "judge", judged)

    assert (await mover.applied("members", "externalId\n1\n"))[-1] == "members: 1 made, 0 corrected."
