"""docs/moving-in.md: each block as a reader runs it."""

import os
from pathlib import Path

from app import ids
from app.config import settings
from app.storage.database import database
from tests.factories import Shop
from tests.guides import blocks, files, run

GUIDE = "docs/moving-in.md"


def _run(shop: Shop, section: str, folder: Path) -> str:
    """Run the commands of a section beside the files of the guide. Returns what they print."""
    for name, text in files(GUIDE).items():
        (folder / name).write_text(text)
    (block,) = blocks(GUIDE, section, "sh")
    script = block.text.replace("merchant_…", ids.encode("merchant", shop.merchant_id))
    return run(
        script,
        folder,
        DATABASE_URL=settings().database_url or "",
        FLASH_MASTER_KEYS=os.environ["FLASH_MASTER_KEYS"],
        FLASH_DATA=os.environ["FLASH_DATA"],
    ).stdout


async def test_customers_and_vouchers_move_in(shop: Shop, tmp_path: Path) -> None:
    await shop.pool(codes=0, active=False, name="Spring 10")

    assert _run(shop, "From a system like Voucherify", tmp_path).splitlines() == [
        "members: 3 new, 0 to correct, 0 there already.",
        "members: 3 made, 0 corrected.",
        "codes: 2 new, 0 to correct, 0 there already.",
        "codes: 2 made, 0 corrected.",
    ]
    assert await shop.broken_promises() == []


async def test_members_points_and_transactions_move_in(shop: Shop, tmp_path: Path) -> None:
    assert _run(shop, "From a system like Open Loyalty", tmp_path).splitlines()[1::2] == [
        "members: 2 made, 0 corrected.",
        "balances: 3 made, 0 corrected.",
        "purchases: 2 made, 0 corrected.",
    ]
    rows = await database().rows(
        "SELECT order_id, amount FROM purchase WHERE merchant_id = $1 ORDER BY id", shop.merchant_id
    )
    assert [tuple(row.values()) for row in rows] == [("T-1001", 5990), ("T-1002", 1200)]
    wallets = await database().rows("SELECT points FROM wallet WHERE merchant_id = $1 ORDER BY 1", shop.merchant_id)
    assert [row["points"] for row in wallets] == [290, 1200]
    assert await shop.broken_promises() == []


async def test_what_is_staged_is_given_up(shop: Shop, tmp_path: Path) -> None:
    assert _run(shop, "Killed half-way", tmp_path) == "Nothing is staged.\n"
