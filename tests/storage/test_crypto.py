"""Keys and ciphertexts. Without these a code could be read in another row, or a master key turn up in a log."""

import base64
import hashlib
import hmac
import os
from uuid import uuid4

import pytest

from app import ids
from app.config import ConfigurationError
from app.storage.crypto import DecryptionError, MasterKeyring, MerchantKeys, new_master_key
from app.storage.database import database
from tests.conftest import Api
from tests.factories import Shop

KEY = base64.b64encode(b"k" * 32).decode()
OTHER_KEY = base64.b64encode(b"o" * 32).decode()


def _keys(**changes: bytes) -> MerchantKeys:
    return MerchantKeys(
        uuid4(),
        encryption={1: changes.get("encryption", os.urandom(32))},
        lookup=changes.get("lookup", os.urandom(32)),
        tokens=[os.urandom(32)],
    )


def test_the_first_master_key_is_the_current_one() -> None:
    keyring = MasterKeyring.parse(f" new:{OTHER_KEY} , old:{KEY} ,")

    assert keyring.current == "new"
    assert keyring.keys == {"new": b"o" * 32, "old": b"k" * 32}


@pytest.mark.parametrize(
    "text",
    [
        "",
        " , ,",
        KEY,
        f":{KEY}",
        f"{'n' * 51}:{KEY}",
        f"a:{KEY},a:{OTHER_KEY}",
        f"a:{KEY},b:{OTHER_KEY[:-8]}",
        f"a:{KEY}{KEY}",
        f"a:{KEY[:-1]}",
        f"a:{KEY[:-2]}!=",
        f"a:{KEY} {OTHER_KEY}",
        f"a:{KEY[:20]}\n{KEY[20:]}",
        f"a:é{KEY}",
        f"a:{'k' * 32}",
        f"a:{(b'k' * 32).hex()}",
    ],
)
def test_a_keyring_that_cannot_be_read_is_refused_without_showing_a_key(text: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        MasterKeyring.parse(text)

    shown = f"{refused.value} {refused.value!r} {refused.value.__cause__!r}"
    for secret in (KEY, OTHER_KEY, KEY[:16], OTHER_KEY[:16], "k" * 32, (b"k" * 16).hex()):
        assert secret not in shown
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_a_keyring_is_spelled_as_it_is_read_and_shows_no_key() -> None:
    keyring = MasterKeyring.parse(f"old:{KEY}").led_by("new")

    assert list(MasterKeyring.parse(keyring.spelled()).keys) == ["new", "old"]
    assert MasterKeyring.parse(keyring.spelled()) == keyring
    assert list(keyring.without("old").keys) == ["new"]
    assert repr(keyring) == "MasterKeyring(current='new')"


def test_a_new_master_key_can_be_read_and_is_new_each_time() -> None:
    entries = [new_master_key("one") for _ in range(10)]

    assert len(set(entries)) == 10
    assert all(len(MasterKeyring.parse(entry).keys["one"]) == 32 for entry in entries)


def test_a_data_key_wrapped_by_the_old_master_key_unwraps_after_the_new_one_came() -> None:
    old = MasterKeyring.parse(f"old:{KEY}")
    both = MasterKeyring.parse(f"new:{OTHER_KEY},old:{KEY}")
    data_key = os.urandom(32)

    name, wrapped = old.wrap(data_key, b"identity")
    new_name, rewrapped = both.wrap(data_key, b"identity")

    assert (name, new_name) == ("old", "new")
    assert data_key not in wrapped + rewrapped
    assert both.unwrap(name, wrapped, b"identity") == data_key
    assert both.unwrap(new_name, rewrapped, b"identity") == data_key


def test_a_data_key_does_not_unwrap_without_its_master_key_or_elsewhere() -> None:
    keyring = MasterKeyring.parse(f"one:{KEY},two:{OTHER_KEY}")
    name, wrapped = keyring.wrap(b"d" * 32, b"merchant/ENCRYPTION/1")
    attempts = [
        ("three", wrapped, b"merchant/ENCRYPTION/1"),
        ("two", wrapped, b"merchant/ENCRYPTION/1"),
        (name, wrapped, b"merchant/ENCRYPTION/2"),
        (name, wrapped, b"another/ENCRYPTION/1"),
        (name, wrapped[:-1] + bytes([wrapped[-1] ^ 1]), b"merchant/ENCRYPTION/1"),
        (name, wrapped[:20], b"merchant/ENCRYPTION/1"),
        (name, b"", b"merchant/ENCRYPTION/1"),
    ]

    for attempt in attempts:
        with pytest.raises(DecryptionError):
            keyring.unwrap(*attempt)


def test_what_is_encrypted_decrypts_in_its_place_only() -> None:
    row, column = uuid4(), "code"
    shared = os.urandom(32)
    keys = _keys(encryption=shared)
    another_merchant = _keys(encryption=shared)
    ciphertext = keys.encrypt(row, column, "PCT-0123ABCD")

    assert keys.decrypt(row, column, ciphertext) == "PCT-0123ABCD"
    for reader, where, named in (
        (keys, uuid4(), column),
        (keys, row, "email"),
        (another_merchant, row, column),
        (_keys(), row, column),
    ):
        with pytest.raises(DecryptionError):
            reader.decrypt(where, named, ciphertext)


def test_no_byte_of_a_ciphertext_can_be_flipped_or_cut() -> None:
    row = uuid4()
    keys = _keys()
    ciphertext = keys.encrypt(row, "email", "ada@example.com")

    for position in range(len(ciphertext)):
        flipped = bytearray(ciphertext)
        flipped[position] ^= 1
        with pytest.raises(DecryptionError):
            keys.decrypt(row, "email", bytes(flipped))
    for length in range(len(ciphertext)):
        with pytest.raises(DecryptionError):
            keys.decrypt(row, "email", ciphertext[:length])


def test_equal_values_have_different_ciphertexts() -> None:
    row = uuid4()
    keys = _keys()

    assert len({keys.encrypt(row, "email", "ada@example.com") for _ in range(100)}) == 100


def test_an_older_data_key_goes_on_decrypting_and_the_newest_encrypts() -> None:
    merchant_id, row = uuid4(), uuid4()
    first, second = os.urandom(32), os.urandom(32)
    lookup, token = os.urandom(32), os.urandom(32)
    before = MerchantKeys(merchant_id, encryption={1: first}, lookup=lookup, tokens=[token])
    after = MerchantKeys(merchant_id, encryption={1: first, 2: second}, lookup=lookup, tokens=[token])

    assert after.decrypt(row, "code", before.encrypt(row, "code", "text")) == "text"
    with pytest.raises(DecryptionError):
        before.decrypt(row, "code", after.encrypt(row, "code", "text"))


def test_fingerprints_are_stable_and_differ_between_merchants_and_purposes() -> None:
    keys, others = _keys(), _keys()

    assert keys.code_fingerprint("PCT-1") == keys.code_fingerprint("PCT-1")
    assert len(keys.code_fingerprint("PCT-1")) == len(keys.email_index("a@example.com")) == 32
    assert keys.code_fingerprint("PCT-1") != others.code_fingerprint("PCT-1")
    assert keys.email_index("a@example.com") != others.email_index("a@example.com")
    assert keys.code_fingerprint("a@example.com") != keys.email_index("a@example.com")


async def test_two_merchants_store_one_address_under_different_indexes(shop: Shop, other_shop: Shop) -> None:
    await shop.member(email="ada@example.com")
    await other_shop.member(email="ada@example.com")

    rows = await database().rows(
        "SELECT email_index, email FROM member WHERE merchant_id = ANY($1::uuid[])",
        [shop.merchant_id, other_shop.merchant_id],
    )

    assert len(rows) == 2
    assert rows[0]["email_index"] != rows[1]["email_index"]
    assert rows[0]["email"] != rows[1]["email"]


async def test_a_name_moved_to_another_row_or_column_is_not_shown(shop: Shop, api: Api) -> None:
    ada = await shop.member(displayName="Ada Moved", email="ada.moved@example.com")
    grace = await shop.member(displayName="Grace")
    move = "UPDATE member SET display_name = (SELECT {} FROM member WHERE merchant_id = $1 AND id = $2) WHERE id = $3"
    document = "query ($id: ID!) { member(id: $id) { displayName } }"

    for column, source, target in (("display_name", ada, grace), ("email", ada, ada)):
        arguments = (ids.decode("member", source["id"]), ids.decode("member", target["id"]))
        await database().row(move.format(column), shop.merchant_id, *arguments)
        answer = await shop.post(document, {"id": target["id"]})
        (error,) = answer["errors"]
        assert answer["data"] == {"member": {"displayName": None}}
        assert (error["message"], error["extensions"]["code"]) == ("Internal error.", "INTERNAL_SERVER_ERROR")
        assert error["extensions"]["reference"] in api.log.read_text()
    assert "Ada Moved" not in api.log.read_text()
    assert "ada.moved" not in api.log.read_text()


def test_the_erased_are_remembered_by_a_key_of_their_own() -> None:
    lookup, told = os.urandom(32), b"MAILBOX and its index"
    made = MerchantKeys(uuid4(), encryption={1: os.urandom(32)}, lookup=lookup, tokens=[os.urandom(32)])
    inner, outer = made.memory_pads[:64], made.memory_pads[64:]

    key = hmac.digest(lookup, b"erasure memory", "sha256")
    assert hashlib.sha256(outer + hashlib.sha256(inner + told).digest()).digest() == hmac.digest(key, told, "sha256")
