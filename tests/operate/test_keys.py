"""Rotation of master keys and data keys. Without these a rotation could cost a request, a restart, or all the codes."""

import asyncio
import contextlib
import json
import os
import random
import stat
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import jwt
import pytest
import pytest_asyncio

from app import ids
from app.merchants import tenants
from app.merchants.reencrypt import BATCH
from app.storage.crypto import MasterKeyring, new_master_key
from tests.conftest import Api, run_api
from tests.coupons.test_revoke_code import REVOKE
from tests.factories import CLAIM_CODE, ENROLL_MEMBER, Shop
from tests.guides import blocks
from tests.merchants.vault import Vault, spellings
from tests.operate.processes import environment, flash, refusal
from tests.scratch import scratch_database
from tests.sizes import FULL, size
from tests.starts import start
from tests.wire import Wire

CLIENTS = 4
#: Seconds between a customer's visits: other tests need the machine.
VISITS_APART = 0.2
CODES = size(2500, 5000)
# The commands of the guide, without the merchant's id that it can't know.
REENCRYPT_ALL, (*REENCRYPT_ONE, _) = (
    line.partition("#")[0].split()[1:] for line in blocks("docs/keys.md", "New data keys", "sh")[0].text.splitlines()
)
ROTATE_TOKENS, ROTATE_TOKENS_OF_ONE, _AT_ONCE = (
    line.partition("#")[0].partition("merchant_")[0].split()[1:]
    for line in blocks("docs/keys.md", "New token keys", "sh")[0].text.splitlines()
)
OWN_ID = "{ viewer { member { id } } }"
REVERSE = """
mutation ($input: ReverseRedemptionInput!) {
  answer: reverseRedemption(input: $input) { __typename ... on ReverseRedemptionSuccess { code { state } } }
}
"""
OWN = "{ wallet { member { displayName maskedEmail } codes { edges { node { text } } } } }"
READ = """
query ($id: ID!) {
  member(id: $id) { displayName maskedEmail }
  members(first: 20) { edges { node { displayName maskedEmail } } }
  events(first: 20) { edges { node { type reason } } }
}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def vault(database_pool: object, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Vault]:
    """A database of its own, with its master keys in a file."""
    file = tmp_path_factory.mktemp("keys") / "master.keys"
    file.write_text(new_master_key("first") + "\n")
    file.chmod(0o640)
    async with scratch_database() as url:
        yield Vault(url, file)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def apis(vault: Vault) -> AsyncIterator[list[Api]]:
    """Two API processes on it."""
    with _api(vault) as first, _api(vault) as second:
        yield [first, second]


@pytest_asyncio.fixture(loop_scope="session")
async def customers(vault: Vault, apis: list[Api]) -> AsyncIterator[Shop]:
    """A merchant on it."""
    made = json.loads((await _flash(vault, "merchant", "create", "--name", "N", "--currency", "USD", "--json")).stdout)
    merchant_id = ids.decode("merchant", made["merchantId"])
    assert merchant_id is not None
    limits = httpx.Limits(max_connections=50, keepalive_expiry=None)
    async with httpx.AsyncClient(timeout=30, limits=limits, verify=False) as http, contextlib.aclosing(Wire()) as wire:
        yield Shop(http, wire, f"{apis[0].url}/graphql", merchant_id, made["apiKey"])


def _api(vault: Vault) -> Any:
    """Run an API process that reads its master keys from the file."""
    return run_api(vault.url, FLASH_MASTER_KEYS="", FLASH_MASTER_KEYS_FILE=str(vault.file))


async def _flash(vault: Vault, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command that must succeed."""
    ended: subprocess.CompletedProcess[str] = await asyncio.to_thread(vault.flash, *arguments)
    assert ended.returncode == 0, ended
    return ended


async def shop_a_while(
    shop: Shop, pool: Any, number: int, urls: list[str], stop: asyncio.Event, outcomes: Counter[str]
) -> None:
    """Do what customers do until the stop, each request at the next process. Counts the requests by outcome."""
    visits = 0

    async def ask(document: str, variables: dict[str, Any], key: str | None = None) -> Any:
        url = urls[outcomes.total() % len(urls)]
        try:
            answer = await shop.post(document, variables, key=key, url=url)
        except (httpx.HTTPError, ValueError) as error:
            outcomes[repr(error)] += 1
            return None
        outcomes["answered" if "errors" not in answer else str(answer["errors"])] += 1
        return answer.get("data")

    while not stop.is_set():
        await asyncio.sleep(VISITS_APART)
        visits += 1
        name = f"Customer {number}/{visits}"
        made = await ask(
            ENROLL_MEMBER,
            {"input": {"source": "STORE", "displayName": name, "email": f"c{number}.{visits}@example.com"}},
        )
        member = made["answer"]["member"]
        claimed = await ask(CLAIM_CODE, {"input": {"poolId": pool["id"], "memberId": member["id"]}})
        code = claimed["answer"]["code"]
        read = await ask(READ, {"id": member["id"]})
        own = await ask(OWN, {}, await shop.token(member["id"], url=urls[visits % 2]))
        right = own["wallet"] == {
            "member": {"displayName": name, "maskedEmail": "c•••@example.com"},
            "codes": {"edges": [{"node": {"text": code["text"]}}]},
        }
        outcomes["read what was written"] += right and read["member"]["displayName"] == name
        outcomes["read something else"] += not (right and read["member"]["displayName"] == name)
        if visits % 3 == 0:
            await ask(REVOKE, {"input": {"codeId": code["id"], "reason": "a reason", "recycle": True}})
            continue
        spent = await shop.redeem([code["text"]], member, order=f"order-{number}-{visits}")
        outcomes[spent["__typename"]] += 1
        redemption = spent["redemptions"][0]["id"]
        await ask(REVERSE, {"input": {"redemptionId": redemption, "reason": "sent back", "reinstate": True}})


async def test_both_rotations_under_load_cost_no_request_and_then_the_old_key_can_go(
    vault: Vault, apis: list[Api], customers: Shop
) -> None:
    """With data keys that every process has known for an hour; `make full` waits the half-minute until they know it."""
    if not FULL:
        await vault.add_version(customers.merchant_id, 2)
    pool = await customers.pool(codes=CODES)
    before = vault.keyring()
    indexes = await vault.rows("SELECT fingerprint FROM code WHERE merchant_id = $1", customers.merchant_id)
    stop = asyncio.Event()
    urls = [f"{api.url}/graphql" for api in apis]
    outcomes: Counter[str] = Counter()
    loads = [asyncio.create_task(shop_a_while(customers, pool, n, urls, stop, outcomes)) for n in range(CLIENTS)]

    async def visited(count: int) -> None:
        """Wait for more visits, so that each step is under load."""
        wanted = outcomes["read what was written"] + count
        while outcomes["read what was written"] < wanted:
            assert not any(load.done() for load in loads), outcomes
            await asyncio.sleep(0.01)

    try:
        await visited(CLIENTS)
        rotated = await _flash(vault, "keys", "rotate", "--name", "second")
        both = vault.keyring()
        await visited(CLIENTS)
        removed = await _flash(vault, "keys", "remove", "first")
        await visited(CLIENTS)
        reencrypted = await _flash(vault, *REENCRYPT_ALL)
        await visited(4 * CLIENTS)
        pending = [load for load in loads if not load.done()]
    finally:
        stop.set()
    await asyncio.gather(*loads)

    print(outcomes)
    assert set(+outcomes) == {"answered", "read what was written", "RedeemCodesSuccess"}, outcomes
    assert len(pending) == CLIENTS
    assert (before.current, both.current, vault.keyring()) == ("first", "second", both.without("first"))
    assert stat.S_IMODE(vault.file.stat().st_mode) == 0o640
    versions = {version for _, version in await vault.values(customers.merchant_id)}
    assert versions == {2}
    assert {row["fingerprint"] for row in indexes} <= {
        row["fingerprint"]
        for row in await vault.rows("SELECT fingerprint FROM code WHERE merchant_id = $1", customers.merchant_id)
    }
    with _api(vault) as new:
        own = await customers.data(
            READ, {"id": (await customers.member(displayName="Late"))["id"]}, url=f"{new.url}/graphql"
        )
        assert own["member"]["displayName"] == "Late"
        assert len(own["members"]["edges"]) == 20
        reasons = {edge["node"]["reason"] for edge in own["events"]["edges"]} - {None}
        assert reasons
        assert reasons <= {"sent back", "a reason"}
    said = "".join(text for ended in (rotated, removed, reencrypted) for text in (ended.stdout, ended.stderr))
    said += "".join(api.log.read_text() for api in apis)
    assert [secret for secret in spellings(before, both) if secret in said] == []


async def use_tokens(shop: Shop, member: Any, urls: list[str], stop: asyncio.Event) -> list[str]:
    """Issue tokens at one process and use the first, the one before and the new one at the next, until the stop."""
    issued: list[str] = []
    while not stop.is_set():
        issued.append(await shop.token(member["id"], url=urls[len(issued) % 2]))
        for token in (issued[0], issued[-2:][0], issued[-1]):
            own = await shop.data(OWN_ID, key=token, url=urls[(len(issued) + 1) % 2])
            assert own == {"viewer": {"member": {"id": member["id"]}}}
        await asyncio.sleep(VISITS_APART)
    return issued


async def test_a_rotation_of_token_keys_under_load_ends_no_token_before_its_time(
    vault: Vault, apis: list[Api], customers: Shop
) -> None:
    members = [await customers.member() for _ in range(CLIENTS)]
    urls, stop = [f"{api.url}/graphql" for api in apis], asyncio.Event()
    merchant = ids.encode("merchant", customers.merchant_id)

    def is_signed_by(token: str, key: bytes) -> bool:
        with contextlib.suppress(jwt.InvalidSignatureError):
            return bool(jwt.decode(token, key, algorithms=["HS256"], options={"verify_exp": False}))
        return False

    (old,) = (await vault.keys(customers.merchant_id)).token_keys
    loads = [asyncio.create_task(use_tokens(customers, member, urls, stop)) for member in members]
    try:
        said = await _flash(vault, *ROTATE_TOKENS_OF_ONE, merchant)
        _, new = (await vault.keys(customers.merchant_id)).token_keys
        deadline = time.monotonic() + 60
        while not is_signed_by(await customers.token(members[0]["id"], url=urls[0]), new):
            assert time.monotonic() < deadline
            await asyncio.sleep(VISITS_APART)
        # As long again as it may take until every process signs with the new key.
        await asyncio.wait(loads, timeout=tenants.KEPT_SECONDS + 1)
    finally:
        stop.set()
    issued = await asyncio.gather(*loads)

    assert said.stdout == (
        "New keys sign the member tokens of 1 merchants. "
        "Tokens that older keys signed are good until they end, a day at most.\n"
    )
    for tokens in issued:
        assert is_signed_by(tokens[0], old)
        assert is_signed_by(tokens[-1], new)
    await vault.rows(
        "UPDATE data_key SET created_at = created_at - interval '25 hours' "
        "WHERE merchant_id = $1 AND purpose = 'TOKEN' AND version = 2",
        customers.merchant_id,
    )
    deadline = time.monotonic() + 60
    while "data" in await customers.post(OWN_ID, key=issued[0][0]):
        assert time.monotonic() < deadline
        await asyncio.sleep(VISITS_APART)
    assert await customers.error_code(OWN_ID, key=issued[0][0]) == "UNAUTHENTICATED"
    assert await customers.data(OWN_ID, key=issued[0][-1]) == {"viewer": {"member": {"id": members[0]["id"]}}}


async def test_a_rotation_of_token_keys_that_was_left_half_way_is_told_and_ended(vault: Vault, customers: Shop) -> None:
    await vault.rows(
        "UPDATE data_key SET adopted_at = NULL WHERE merchant_id = $1 AND purpose = 'TOKEN'", customers.merchant_id
    )

    looked = await asyncio.to_thread(vault.flash, "doctor", "--json")
    await _flash(vault, *ROTATE_TOKENS)

    data_keys = next(finding for finding in json.loads(looked.stdout) if finding["what"] == "data keys")
    assert data_keys["state"].endswith("a rotation of token keys was left half-way")
    assert data_keys["advice"] == "Run `flash keys rotate-tokens`, unless it is running; it goes on where it stopped."
    left = await vault.rows("SELECT FROM data_key WHERE adopted_at IS NULL")
    own = await vault.rows(
        "SELECT version FROM data_key WHERE merchant_id = $1 AND purpose = 'TOKEN'", customers.merchant_id
    )
    assert (left, [row["version"] for row in own]) == ([], [1])


async def test_a_killed_reencryption_is_ended_by_the_next_one(vault: Vault, customers: Shop) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    await customers.pool(codes=CODES)
    killed_at = random.Random(seed).randrange(500, CODES - 1000)
    await vault.add_version(customers.merchant_id, 2)
    command = [*REENCRYPT_ONE, ids.encode("merchant", customers.merchant_id)]

    process = start(*command, environment=environment(**vault.variables))
    connection = await asyncpg.connect(vault.url)
    done = "SELECT count(*) FROM code WHERE merchant_id = $1 AND ciphertext >= '\\x0002'"
    while await connection.fetchval(done, customers.merchant_id) < killed_at:
        assert process.poll() is None
    process.kill()
    process.wait()
    await connection.close()
    halfway = await vault.values(customers.merchant_id)
    looked = await asyncio.to_thread(vault.flash, "doctor", "--json")
    ended = await _flash(vault, *command)
    after = await vault.values(customers.merchant_id)

    assert halfway.keys() == {("code.ciphertext", 1), ("code.ciphertext", 2)}
    assert halfway.total() == CODES
    assert after == {("code.ciphertext", 2): CODES}
    data_keys = next(finding for finding in json.loads(looked.stdout) if finding["what"] == "data keys")
    assert data_keys["state"].endswith("1 merchants have values under older data keys")
    assert data_keys["advice"] == "Run `flash keys reencrypt`, unless it is running; it goes on where it stopped."
    changed = int(ended.stdout.split()[0])
    # The statement that was under way at the kill may have ended just after we looked.
    assert halfway["code.ciphertext", 1] - changed in {0, BATCH}
    adopted = (
        "SELECT version FROM data_key WHERE merchant_id = $1 AND purpose = 'ENCRYPTION' AND adopted_at IS NOT NULL"
    )
    assert {row["version"] for row in await vault.rows(adopted, customers.merchant_id)} == {1, 2}


async def test_a_value_that_is_locked_and_then_changed_is_neither_waited_for_nor_overwritten(
    vault: Vault, customers: Shop
) -> None:
    ada, grace = [await customers.member(displayName=name) for name in ("Ada", "Grace")]
    ada_id, grace_id = (ids.decode("member", each["id"]) for each in (ada, grace))
    old_keys = await vault.keys(customers.merchant_id)
    await vault.add_version(customers.merchant_id, 2)
    command = [*REENCRYPT_ONE, ids.encode("merchant", customers.merchant_id)]
    name_of = "SELECT display_name FROM member WHERE merchant_id = $1 AND id = $2"

    connection = await asyncpg.connect(vault.url)
    change = connection.transaction()
    await change.start()
    assert ada_id is not None
    renamed = old_keys.encrypt(ada_id, "display_name", "Ada Lovelace")
    await connection.execute(
        "UPDATE member SET display_name = $3 WHERE merchant_id = $1 AND id = $2", customers.merchant_id, ada_id, renamed
    )
    running = asyncio.create_task(_flash(vault, *command))
    while (await connection.fetchval(name_of, customers.merchant_id, grace_id))[:2] != b"\0\2":
        assert not running.done()
    await change.commit()
    await running
    stored = await connection.fetchval(name_of, customers.merchant_id, ada_id)
    await connection.close()

    assert stored[:2] == b"\0\2"
    assert (await vault.keys(customers.merchant_id)).decrypt(ada_id, "display_name", stored) == "Ada Lovelace"


async def test_what_can_not_be_decrypted_is_told_and_left_alone(vault: Vault, customers: Shop) -> None:
    ada = ids.decode("member", (await customers.member(displayName="Ada"))["id"])
    await vault.add_version(customers.merchant_id, 2)
    await vault.rows(
        "DELETE FROM data_key WHERE merchant_id = $1 AND purpose = 'ENCRYPTION' AND version = 1", customers.merchant_id
    )
    name = "SELECT display_name FROM member WHERE merchant_id = $1"
    before = await vault.rows(name, customers.merchant_id)

    ended = await asyncio.to_thread(
        vault.flash, "keys", "reencrypt", "--merchant", ids.encode("merchant", customers.merchant_id)
    )

    assert ended.returncode == 1
    assert f"can't be decrypted: member.display_name of {ada}\n" in ended.stdout
    assert ended.stderr.splitlines()[-1] == (
        "flash: 1 values can't be decrypted with the keys of their rows; they were left as they are."
    )
    assert await vault.rows(name, customers.merchant_id) == before


async def test_a_rotation_that_was_killed_is_ended_by_the_next_one(vault: Vault, customers: Shop) -> None:
    begun = vault.keyring().led_by("begun")
    vault.file.write_text(begun.spelled())

    ended = await _flash(vault, "keys", "rotate")
    found = await asyncio.to_thread(vault.flash, "doctor", "--json")

    assert "were put under master key 'begun'; all data keys are under it now." in ended.stdout
    assert vault.keyring() == begun
    data_keys = next(finding for finding in json.loads(found.stdout) if finding["what"] == "data keys")
    assert " under 'begun'" in data_keys["state"]
    assert f"none under {next(name for name in begun.keys if name != 'begun')!r}" in data_keys["state"]


async def test_two_rotations_at_once_leave_every_data_key_under_the_current_master_key(
    vault: Vault, customers: Shop
) -> None:
    await asyncio.gather(
        _flash(vault, "keys", "rotate", "--name", "left"), _flash(vault, "keys", "rotate", "--name", "right")
    )

    assert {"left", "right"} <= vault.keyring().keys.keys()
    rows = await vault.rows("SELECT DISTINCT master_key FROM data_key")
    assert [row["master_key"] for row in rows] == [vault.keyring().current]


async def test_a_master_key_that_is_needed_or_unknown_is_not_removed(vault: Vault, customers: Shop) -> None:
    keyring = vault.keyring().led_by("needless")
    vault.file.write_text(keyring.spelled())
    await asyncio.to_thread(vault.flash, "merchant", "create", "--name", "N", "--currency", "USD")
    used = next(name for name in keyring.keys if name != "needless")
    in_use = await vault.rows("SELECT count(*) FROM data_key WHERE master_key = $1", used)

    def refused(name: str) -> str:
        return refusal("keys", "remove", name, cwd=None, **vault.variables)

    said = [await asyncio.to_thread(refused, name) for name in (used, "needless", "nobody")]

    assert said == [
        f"The master key {used!r} still wraps {in_use[0]['count']} data key(s); run `flash keys rotate` first.",
        "'needless' is the current master key; `flash keys rotate` makes another one.",
        f"There is no master key 'nobody' in {vault.file}.",
    ]
    assert vault.keyring() == keyring


async def test_a_file_that_can_not_be_written_is_one_sentence_and_changes_nothing(
    vault: Vault, customers: Shop
) -> None:
    await _flash(vault, "keys", "rotate")
    before = vault.file.read_text()
    (vault.file.parent / f".{vault.file.name}.new").mkdir()
    try:
        said = await asyncio.to_thread(lambda: refusal("keys", "rotate", cwd=None, **vault.variables))
    finally:
        (vault.file.parent / f".{vault.file.name}.new").rmdir()

    assert said.startswith(f"The master keys in {vault.file} can't be changed here (")
    assert vault.file.read_text() == before


async def test_keys_in_the_environment_are_rotated_by_putting_the_new_one_first(
    worker_database: str, tmp_path: Path
) -> None:
    old, new = new_master_key("old"), new_master_key("new")
    async with scratch_database() as url:

        def run(keys: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
            return flash(*arguments, DATABASE_URL=url, REDIS_URL=os.environ["REDIS_URL"], FLASH_MASTER_KEYS=keys)

        def work() -> list["subprocess.CompletedProcess[str]"]:
            create = ("merchant", "create", "--name", "N", "--currency", "EUR")
            return [
                run(old, *create),
                run(f"{old},{new}", "keys", "rotate"),
                run(f"{new},{old}", "keys", "rotate"),
                run(f"{new},{old}", "keys", "rotate"),
                run(new, *create),
                run(old, *create),
                run(f"{new},{old}", "keys", "remove", "old"),
            ]

        made, not_yet, rotated, again, with_new, with_old, removing = await asyncio.to_thread(work)

    assert [each.returncode for each in (made, not_yet, rotated, again, with_new)] == [0] * 5
    assert not_yet.stdout.startswith("0 data keys were put under master key 'old'; ")
    assert rotated.stdout.startswith("3 data keys were put under master key 'new'; ")
    assert "Nothing is under 'old' any more" in rotated.stdout
    assert again.stdout.startswith("0 data keys were put under master key 'new'; ")
    assert with_old.returncode == 1
    assert with_old.stderr.startswith("flash: The master keys don't fit this database: ")
    assert removing.stderr.startswith("flash: The master keys are in FLASH_MASTER_KEYS: remove this one there, ")
    said = "".join(each.stdout + each.stderr for each in (made, not_yet, rotated, again, with_new, with_old, removing))
    assert not [secret for secret in spellings(MasterKeyring.parse(f"{old},{new}")) if secret in said]


@pytest.mark.parametrize(
    ("arguments", "variables", "sentence"),
    [
        (["keys", "rotate", "--name", "a:b"], {}, "A key's name is 1 to 50 letters and digits."),
        (["keys", "reencrypt", "--merchant", "merchant_0"], {}, "There is no merchant 'merchant_0'."),
        (
            ["keys", "rotate"],
            {"FLASH_MASTER_KEYS": "k:x"},
            "Set FLASH_MASTER_KEYS or FLASH_MASTER_KEYS_FILE, not both.",
        ),
        (["keys", "rotate"], {"FLASH_MASTER_KEYS_FILE": "/no"}, "The master keys in /no can't be read (no such file"),
        (["keys", "rotate"], {"FLASH_DATABASE_CONNECTIONS_MAX": "2"}, "This needs 3 connections: raise FLASH_DATA"),
    ],
)
async def test_wrong_use_is_one_sentence(
    vault: Vault, arguments: list[str], variables: dict[str, str], sentence: str
) -> None:
    said = await asyncio.to_thread(lambda: refusal(*arguments, cwd=None, **(vault.variables | variables)))

    assert said.startswith(sentence)
