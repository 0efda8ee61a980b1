"""The log of erasures. Without these a restored dump would know again who asked to be forgotten."""

import asyncio
import io
import json
import os
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from app import ids
from app.config import ConfigurationError, dsn
from app.people.erasure_log import erase_again, read_log, write_log
from app.storage.database import database
from tests.coupons.ownership import claim_by_email
from tests.dump import TABLES, dump, traces
from tests.factories import Shop
from tests.operate.processes import flash
from tests.people.lives import EMAIL, PENDING, TRACES, indexes, whole_life
from tests.people.test_erase_member import ERASE, erase

UNLOGGED = "SELECT count(*) AS rows FROM erasure WHERE logged_at IS NULL"


async def copied(url: str, merchant_id: UUID) -> dict[str, bytes]:
    """Return a copy of a merchant's rows by table, as a dump would hold them."""
    connection = await asyncpg.connect(dsn(url))
    kept = {}
    try:
        for table in await connection.fetch(TABLES):
            to = io.BytesIO()
            await connection.copy_from_query(
                f"SELECT * FROM {table['name']} WHERE merchant_id = $1", merchant_id, output=to, format="binary"
            )
            kept[table["name"]] = to.getvalue()
    finally:
        await connection.close()
    return kept


async def restored(url: str, merchant_id: UUID, kept: dict[str, bytes]) -> None:
    """Put a merchant's rows back as they were copied, past all constraints, as a restore does."""
    connection = await asyncpg.connect(dsn(url))
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")
            for table, rows in kept.items():
                await connection.execute(f"DELETE FROM {table} WHERE merchant_id = $1", merchant_id)
                await connection.copy_to_table(table, source=io.BytesIO(rows), format="binary")
    finally:
        await connection.close()


async def found(shop: Shop) -> list[str]:
    return traces(await dump(shop.merchant_id), *TRACES, EMAIL, PENDING, *await indexes(shop, EMAIL, PENDING))


async def test_a_restored_older_copy_forgets_again_and_names_nobody_on_the_way(
    shop: Shop, worker_database: str, tmp_path: Path
) -> None:
    life = await whole_life(shop)
    other = await shop.member(displayName="Grace Hopper")
    kept = await copied(worker_database, shop.merchant_id)
    await erase(shop, life.member)
    log = tmp_path / "log"
    log.mkdir()

    await write_log(log)
    (file,) = log.iterdir()
    lines = [line for line in file.read_text().splitlines() if life.member["id"] in line]
    await restored(worker_database, shop.merchant_id, kept)
    assert await found(shop) != []
    again = await erase_again(log)
    once_more = await erase_again(log)

    told = json.loads(lines[0])
    assert told["merchant"] == ids.encode("merchant", shop.merchant_id)
    assert (told["members"], told["ground"]) == ([life.member["id"]], "REQUEST")
    assert traces(file.read_text(), *TRACES) == []
    assert (again >= 1, once_more) == (True, 0)
    assert await found(shop) == []
    assert await shop.broken_promises() == []
    shown = await shop.data("query ($id: ID!) { member(id: $id) { displayName } }", {"id": other["id"]})
    assert shown["member"]["displayName"] == "Grace Hopper"


async def test_an_address_is_found_again_by_its_rows(shop: Shop, worker_database: str, tmp_path: Path) -> None:
    await claim_by_email(shop, await shop.pool(), EMAIL)
    kept = await copied(worker_database, shop.merchant_id)
    await shop.do(ERASE, email=EMAIL, ground="RETENTION")
    log = tmp_path / "erasures.jsonl"

    await write_log(log)
    await restored(worker_database, shop.merchant_id, kept)
    await erase_again(log)

    assert await found(shop) == []


async def test_what_cannot_be_written_does_not_count_as_logged(shop: Shop, tmp_path: Path) -> None:
    await erase(shop, await shop.member())
    path = tmp_path / "nowhere" / "log.jsonl"

    with pytest.raises(OSError, match="nowhere"):
        await write_log(path)

    (row,) = await database().rows(f"{UNLOGGED} AND merchant_id = $1", shop.merchant_id)
    assert row["rows"] == 1


def test_a_line_that_was_cut_off_is_no_line_and_nonsense_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"merchant": "merch')
    assert list(read_log(log)) == []
    log.write_text("nonsense\n")

    with pytest.raises(ConfigurationError, match=r"log\.jsonl:1"):
        list(read_log(log))


async def test_the_command_says_how_many(shop: Shop, worker_database: str, tmp_path: Path) -> None:
    member = await shop.member(displayName="Ada Lovelace")
    kept = await copied(worker_database, shop.merchant_id)
    await erase(shop, member)
    log = tmp_path / "log.jsonl"
    await write_log(log)
    log.write_text("".join(f"{line}\n" for line in log.read_text().splitlines() if member["id"] in line))
    await restored(worker_database, shop.merchant_id, kept)

    ended = await asyncio.to_thread(
        flash, "erase", "--replay", log, DATABASE_URL=worker_database,
        FLASH_MASTER_KEYS=os.environ["FLASH_MASTER_KEYS"], FLASH_DATA=tmp_path,
    )  # fmt: skip

    assert (ended.returncode, ended.stdout) == (0, "1 erased again.\n"), ended.stderr
    assert traces(await dump(shop.merchant_id), "Lovelace") == []
