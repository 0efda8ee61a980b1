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
from app.integrity.promises import PROMISES
from app.people.erasure_log import erase_again, read_log, write_log
from app.storage.database import database
from tests.coupons.ownership import claim_by_email, send
from tests.coupons.test_reissue_code import REISSUE
from tests.coupons.test_revoke_code import REVOKE
from tests.dump import TABLES, dump, traces
from tests.factories import Shop
from tests.guides import run
from tests.moving.files import staged
from tests.operate.processes import flash
from tests.people.documents import merge
from tests.people.lives import EMAIL, PENDING, TRACES, indexes, told_of, whole_life
from tests.people.test_erase_member import ERASE, erase
from tests.referrals.documents import ACCEPT_INVITE, invited
from tests.scratch import scratch_database

UNLOGGED = "SELECT count(*) AS rows FROM erasure WHERE logged_at IS NULL"
TWIN, GUEST, LATE = "ada@lovelace.example", "guest.lovelace@example.com", "late.lovelace@gmail.com"
#: Where somebody was invited who joined with another address.
ELSEWHERE = "work@lovelace.example"


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


async def broken_in(url: str, merchant_id: UUID) -> list[str]:
    """Return which promises of a merchant another database breaks."""
    connection = await asyncpg.connect(dsn(url))
    try:
        return [each.name for each in PROMISES if await connection.fetchval(each.count.text, merchant_id)]
    finally:
        await connection.close()


async def test_a_restored_dump_forgets_again_whoever_was_erased_since(
    shop: Shop, worker_database: str, tmp_path: Path
) -> None:
    """As an operator does it: pg_dump, pg_restore into a new database, `flash erase --replay`."""
    life = await whole_life(shop)
    twin = await shop.member(email=TWIN, emailVerified=True, externalId="lovelace-2")
    charles = await shop.member(email="charles.b@example.com", emailVerified=True)
    pool = await shop.pool(oneClaimPerMailbox=True)
    # Who is no member yet: a guest, and a person that will be one. One code has taken another one's place.
    lost = await claim_by_email(shop, pool, GUEST)
    await shop.do(REVOKE, codeId=lost["id"], reason="Mr Lovelace lost it", recycle=False)
    assert (await shop.do(REISSUE, codeId=lost["id"], reason="for Lovelace"))["__typename"] == "ReissueCodeSuccess"
    await claim_by_email(shop, pool, LATE)
    await send(shop, await shop.pool(), {"email": GUEST}, {"email": LATE}, {"email": "bob@example.com"})
    invite, _ = await invited(shop, charles, ELSEWHERE)
    told = await told_of(shop, [life.member, twin], EMAIL, PENDING, TWIN, GUEST, LATE, ELSEWHERE)
    words: list[str | bytes] = [*TRACES, EMAIL, PENDING, TWIN, GUEST, LATE, ELSEWHERE, *told]
    own = dsn(worker_database)
    await asyncio.to_thread(run, "pg_dump --format=custom --file=older.dump $DATABASE_URL", tmp_path, DATABASE_URL=own)

    leaked = await claim_by_email(shop, pool, LATE)
    await shop.do(REVOKE, codeId=leaked["id"], reason="leaked", recycle=False)
    await shop.do(REISSUE, codeId=leaked["id"], reason="leaked")
    late = await shop.member(email=LATE, emailVerified=True, displayName="Ada Lovelace")
    joined = await shop.do(ACCEPT_INVITE, token=invite["token"], email="joined@lovelace.example", emailVerified=True)
    assert (await merge(shop, twin, life.member))["__typename"] == "MergeMembersSuccess"
    for member in (twin, late, joined["member"]):
        await erase(shop, member)
    assert (await shop.do(ERASE, email=GUEST, ground="SHOP"))["__typename"] == "EraseMemberSuccess"
    log = tmp_path / "log"
    log.mkdir()
    await write_log(log)
    (file,) = log.iterdir()
    lines = [line for line in file.read_text().splitlines() if ids.encode("merchant", shop.merchant_id) in line]
    assert traces("\n".join(lines), *words) == []
    file.write_text("".join(f"{line}\n" for line in lines))

    async with scratch_database(migrated=False) as url:
        # Constraints don't take what other tests have broken in this database.
        script = (
            "restore() { pg_restore --no-owner --dbname=$DATABASE_URL older.dump $@; }; "
            "restore --exit-on-error --section=pre-data --section=data; restore --section=post-data || true; "
            "pg_dump $DATABASE_URL"
        )
        older = (await asyncio.to_thread(run, script, tmp_path, DATABASE_URL=dsn(url))).stdout
        again = [
            await asyncio.to_thread(
                flash,
                "erase",
                "--replay",
                log,
                DATABASE_URL=url,
                FLASH_MASTER_KEYS=os.environ["FLASH_MASTER_KEYS"],
                FLASH_DATA=tmp_path,
            )
            for _ in range(2)
        ]
        broken = await broken_in(url, shop.merchant_id)
        left = (await asyncio.to_thread(run, "pg_dump $DATABASE_URL", tmp_path, DATABASE_URL=dsn(url))).stdout

    assert len(traces(older, *words)) > 30
    assert [ended.stderr for ended in again if ended.returncode] == []
    assert [ended.stdout for ended in again] == ["4 erased again.\n", "0 erased again.\n"]
    assert traces(left, *words) == []
    assert broken == []


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


async def test_what_an_import_had_staged_of_who_it_made_later_is_forgotten(shop: Shop, tmp_path: Path) -> None:
    await staged(shop)
    (row,) = await database().rows("SELECT id FROM import_row WHERE merchant_id = $1", shop.merchant_id)
    log = tmp_path / "erasures.jsonl"
    told = {
        "merchant": ids.encode("merchant", shop.merchant_id), "erasure": row["id"].hex,
        "members": [ids.encode("member", row["id"])], "rows": [], "invites": [], "ground": "SHOP",
        "erasedAt": "2026-11-30T00:00:00Z",
    }  # fmt: skip
    log.write_text(json.dumps(told))

    await erase_again(log)

    assert await shop.count("import_row") == 0
