"""Data keys by version. Without these a new version could be used before everybody knows it, or a column forgotten."""

import asyncio
import math
import os
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from rich.progress import Progress

from app import ids
from app.api.context import Tenant
from app.config import Settings, settings
from app.merchants import rotate_master_key, tenants
from app.merchants.data_keys import next_key
from app.merchants.reencrypt import SEALED, Reencryption, find_merchants, reencrypt
from app.storage import master_keys
from app.storage.crypto import DecryptionError, MasterKeyring, new_master_key
from app.storage.database import database
from tests.factories import EDIT_MEMBER, ENROLL_MEMBER, VERIFY_MEMBER_EMAIL, Shop
from tests.people.documents import addresses

CIPHERTEXT_COLUMNS = """
SELECT c.relname || '.' || a.attname AS name FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND c.relnamespace = 'public'::regnamespace AND a.atttypid = 'bytea'::regtype
    AND a.attnum > 0 AND NOT a.attisdropped
"""
#: Bytes that aren't ciphertexts under data keys: hashes, fingerprints, blind indexes, and the wrapped keys themselves.
OTHER_BYTES = {
    "address.email_index",
    "api_key.secret_hash",
    "bulk_job.idempotency_key",
    "bulk_job.request_hash",
    "campaign.idempotency_key",
    "campaign.request_hash",
    "claim.email_index",
    "claim.idempotency_key",
    "code.email_index",
    "code.fingerprint",
    "code.folded",
    "code_batch.idempotency_key",
    "code_batch.request_hash",
    "data_key.wrapped",
    "graph_file.body",
    "erasure_memory.hmac",
    "first_order.person",
    "invite.domain_index",
    "hold.email_index",
    "import_file.digest",
    "import_row.email_index",
    "import_row.fingerprint",
    "import_row.folded",
    "import_row.mailbox_index",
    "hold.presented_by",
    "hold_request.idempotency_key",
    "invite.email_index",
    "claim.mailbox_index",
    "claim.told_of",
    "invite.mailbox_index",
    "invite.token_hash",
    "member.email_index",
    "member.mailbox_index",
    "member.pending_email_index",
    "member.pending_mailbox_index",
    "order_amendment.idempotency_key",
    "order_amendment.request_hash",
    "points_entry.reference_index",
    "points_entry.told_of",
    "purchase.told_of",
    "redemption.presented_by",
    "reward_redemption.idempotency_key",
    "rewarded_mailbox.mailbox_index",
    "sales_order.mailbox_index",
}
AGE = """
UPDATE data_key SET created_at = created_at - interval '1 minute'
WHERE merchant_id = $1 AND purpose = 'ENCRYPTION' RETURNING version
"""
OLDER = "SELECT count(*) AS codes FROM code WHERE merchant_id = $1 AND ciphertext < '\\x0002'"


async def _fresh(merchant_id: UUID) -> Tenant:
    """Return a tenant that was read just now, whatever is kept."""
    tenants._kept.drop(merchant_id)
    found = await tenants.tenant(merchant_id)
    assert found is not None
    return found


def _version(owner: Tenant) -> int:
    return int.from_bytes(owner.keys.encrypt(ids.new(), "code", "text")[:2])


async def test_every_column_of_bytes_is_re_encrypted_or_is_no_ciphertext(database_pool: Settings) -> None:
    columns = {row["name"] for row in await database().rows(CIPHERTEXT_COLUMNS)}

    assert columns == {f"{sealed.table}.{sealed.column}" for sealed in SEALED} | OTHER_BYTES


async def test_a_version_encrypts_only_once_it_has_settled(shop: Shop) -> None:
    at_first = await _fresh(shop.merchant_id)
    made = await next_key(shop.merchant_id, "ENCRYPTION")
    just_made = await _fresh(shop.merchant_id)
    await database().rows(AGE, shop.merchant_id)
    settled = await _fresh(shop.merchant_id)

    assert made == 2
    assert [_version(each) for each in (at_first, just_made, settled)] == [1, 1, 2]


async def test_a_version_that_is_not_adopted_is_joined_and_an_adopted_one_followed(shop: Shop) -> None:
    versions = [await next_key(shop.merchant_id, "ENCRYPTION") for _ in range(3)]
    await database().rows(
        "UPDATE data_key SET adopted_at = $2 WHERE merchant_id = $1", shop.merchant_id, datetime.now(UTC)
    )
    versions.append(await next_key(shop.merchant_id, "ENCRYPTION"))

    assert versions == [2, 2, 2, 3]
    assert (await shop.event_types())[-2:] == ["merchant.data_key_created"] * 2


async def test_a_value_under_a_version_made_since_is_read_with_the_keys_read_again(shop: Shop) -> None:
    old = await _fresh(shop.merchant_id)
    await next_key(shop.merchant_id, "ENCRYPTION")
    await database().rows(AGE, shop.merchant_id)
    row_id = ids.new()
    value = (await _fresh(shop.merchant_id)).keys.encrypt(row_id, "code", "text")

    with pytest.raises(DecryptionError):
        old.keys.decrypt(row_id, "code", value)
    by_the_kept_one = await tenants.decrypted(old, row_id, "code", value)
    tenants._kept.keep(shop.merchant_id, old, math.inf)
    by_a_fresh_one = await tenants.decrypted(old, row_id, "code", value)

    assert (by_the_kept_one, by_a_fresh_one) == ("text", "text")
    with pytest.raises(DecryptionError):
        await tenants.decrypted(old, row_id, "code", b"\0\7" + value[2:])


async def test_only_so_many_merchants_keys_are_kept(shop: Shop, other_shop: Shop) -> None:
    owner = await _fresh(shop.merchant_id)
    try:
        for _ in range(tenants.KEPT_MAX):
            tenants._kept.keep(ids.new(), owner, math.inf)
        before = len(tenants._kept)
        await _fresh(other_shop.merchant_id)

        assert (before, len(tenants._kept)) == (tenants.KEPT_MAX, tenants.KEPT_MAX)
        assert shop.merchant_id not in tenants._kept
        assert other_shop.merchant_id in tenants._kept
    finally:
        tenants._kept.clear()


async def test_those_who_miss_a_tenant_at_once_share_a_read(shop: Shop) -> None:
    tenants._kept.clear()

    found = await asyncio.gather(*(tenants.tenant(shop.merchant_id) for _ in range(20)))

    assert {id(each) for each in found} == {id(found[0])}
    assert found[0] is not None
    assert tenants._reading == {}


async def test_two_reencryptions_at_once_share_the_work(shop: Shop) -> None:
    await shop.pool(codes=3000)
    await next_key(shop.merchant_id, "ENCRYPTION")
    await database().rows(AGE, shop.merchant_id)
    with Progress(disable=True) as progress:
        runs = await asyncio.gather(*(reencrypt([shop.merchant_id], progress) for _ in range(2)))
    old = await database().row(OLDER, shop.merchant_id)

    assert sum(run.values for run in runs) == 3000
    assert [run.unreadable for run in runs] == [set(), set()]
    assert old is not None
    assert old["codes"] == 0
    assert await next_key(shop.merchant_id, "ENCRYPTION") == 3


async def test_the_keys_of_a_merchant_that_is_closed_here_are_left_alone(shop: Shop, other_shop: Shop) -> None:
    """It has moved to another server, or is about to."""
    moved, other = shop.merchant_id, other_shop.merchant_id
    guard = "flash_move_closed"

    async def found() -> list[set[UUID]]:
        rotated = await database().rows(rotate_master_key.FIND_MERCHANTS, current="another")
        return [{row["merchant_id"] for row in rotated}, set(await find_merchants(None))]

    begun = [each & {moved, other} for each in await found()]
    await database().row(
        f"CREATE TRIGGER {guard} BEFORE INSERT ON data_key FOR EACH ROW EXECUTE FUNCTION refuse_closed('{moved}')"
    )
    try:
        await database().row(
            "INSERT INTO fence (merchant_id, move, state, peer, since) "
            "VALUES ($1, gen_random_uuid(), 'CLOSED', 'x', now())",
            moved,
        )
        left = [each & {moved, other} for each in await found()]
        # One that is closed after it was found.
        done = await reencrypt([moved], Progress(disable=True))
    finally:
        await database().row("DELETE FROM fence")
        await database().row(f"DROP TRIGGER {guard} ON data_key")

    assert begun == [{moved, other}] * 2
    assert left == [{other}] * 2
    assert done == Reencryption(closed={moved})


async def test_addresses_and_tokens_outlive_a_new_data_key(shop: Shop) -> None:
    member = await shop.member(email="ada@example.com", emailVerified=True)
    before = await _fresh(shop.merchant_id)
    await next_key(shop.merchant_id, "ENCRYPTION")
    await database().rows(AGE, shop.merchant_id)
    after = await _fresh(shop.merchant_id)

    assert before.keys.code_fingerprint("PCT-1") == after.keys.code_fingerprint("PCT-1")
    assert before.keys.token_keys == after.keys.token_keys
    again = await shop.do(ENROLL_MEMBER, email="ada@example.com", source="STORE")
    assert again["existing"]["id"] == member["id"]


async def test_a_pending_address_is_re_encrypted_and_proved_under_the_new_key(shop: Shop) -> None:
    member = await shop.member(email="ada@example.com", emailVerified=True)
    await shop.do(EDIT_MEMBER, memberId=member["id"], email="new@example.com")
    await next_key(shop.merchant_id, "ENCRYPTION")
    await database().rows(AGE, shop.merchant_id)
    with Progress(disable=True) as progress:
        await reencrypt([shop.merchant_id], progress)
    (stored,) = await database().rows(
        "SELECT email, pending_email FROM member WHERE merchant_id = $1", shop.merchant_id
    )

    await shop.do(VERIFY_MEMBER_EMAIL, memberId=member["id"], email="new@example.com")

    assert {stored["email"][:2], stored["pending_email"][:2]} == {b"\0\2"}
    assert await addresses(shop, member) == ("n•••@example.com", True, None)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of one master key, from which this process takes its keys for one test."""
    path = tmp_path / "master.keys"
    path.write_text(new_master_key("one"))
    monkeypatch.setattr(master_keys, "_known", master_keys._Known())
    changed = settings().model_copy(update={"master_keys": None, "master_keys_file": path})
    monkeypatch.setattr(master_keys, "settings", lambda: changed)
    return path


def test_an_unknown_master_key_is_looked_for_in_the_file_again(file: Path) -> None:
    master_keys.keyring()
    both = MasterKeyring.parse(file.read_text()).led_by("two")
    name, wrapped = both.wrap(b"d" * 32, b"identity")
    with pytest.raises(DecryptionError, match="'two', which is not configured"):
        master_keys.unwrap(name, wrapped, b"identity")

    master_keys.replace_file(file, both)

    assert master_keys.unwrap(name, wrapped, b"identity") == b"d" * 32
    assert master_keys.keyring() == both


def test_a_removed_master_key_stays_known_to_the_process_that_knew_it(file: Path) -> None:
    name, wrapped = master_keys.keyring().wrap(b"d" * 32, b"identity")
    two = MasterKeyring.parse(file.read_text()).led_by("two").without("one")

    master_keys.replace_file(file, two)

    assert master_keys.read_again().current == "two"
    assert master_keys.unwrap(name, wrapped, b"identity") == b"d" * 32
    assert master_keys.configured() == two


def test_a_file_is_replaced_with_its_mode_and_through_a_link(file: Path, tmp_path: Path) -> None:
    file.chmod(0o440)
    if os.geteuid() == 0:
        os.chown(file, 65534, 65533)
    before = file.stat()
    link = tmp_path / "link"
    link.symlink_to(file)

    master_keys.replace_file(link, MasterKeyring.parse(file.read_text()).led_by("two"))

    assert link.is_symlink()
    after = file.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "master.keys"]
    assert list(MasterKeyring.parse(file.read_text()).keys) == ["two", "one"]
