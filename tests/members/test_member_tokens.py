"""Member tokens at the door. Without these a forged, expired or borrowed token could open somebody's wallet."""

import asyncio
import base64
import json
import time
from typing import Any

import jwt
import pytest

from app import ids
from app.api.context import Tenant
from app.members import tokens
from app.merchants.tenants import tenant
from tests.factories import Shop
from tests.wallets.sockets import address, opened

VIEWER = "{ viewer { role member { id } } }"


async def _tenant(shop: Shop) -> Tenant:
    found = await tenant(shop.merchant_id)
    assert found is not None
    return found


async def _signed(shop: Shop, changes: dict[str, Any] | None = None, *, algorithm: str = "HS256") -> str:
    """Return a token under the shop's key with these claims in the place of good ones; None leaves one out."""
    member = await shop.member()
    now = int(time.time())
    claims = {
        "iss": ids.encode("merchant", shop.merchant_id),
        "sub": member["id"],
        "iat": now,
        "exp": now + 600,
    } | (changes or {})
    kept = {name: value for name, value in claims.items() if value is not None}
    payload = json.dumps(kept).encode()
    return jwt.PyJWS().encode(payload, (await _tenant(shop)).keys.token_keys[0], algorithm=algorithm)


def _segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def _refused(shop: Shop, token: str) -> bool:
    answer = await shop.post(VIEWER, key=token)
    return [error["extensions"]["code"] for error in answer.get("errors", [])] == ["UNAUTHENTICATED"]


async def test_a_token_with_all_claims_is_taken(shop: Shop) -> None:
    assert (await shop.data(VIEWER, key=await _signed(shop)))["viewer"]["role"] == "MEMBER"


async def test_a_token_in_its_last_second_stops_when_it_expires(shop: Shop) -> None:
    member = await shop.member()
    member_id = ids.decode("member", member["id"])
    assert member_id is not None
    token, expires_at = tokens.issue(await _tenant(shop), member_id, 2, generation=0)
    taken = await shop.post(VIEWER, key=token)
    deadline = time.monotonic() + 10

    while not await _refused(shop, token):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)

    assert "data" in taken
    assert time.time() >= expires_at.timestamp()


async def test_a_token_from_a_clock_that_is_a_little_ahead_is_taken(shop: Shop) -> None:
    token = await _signed(shop, {"iat": time.time() + 5})

    assert (await shop.data(VIEWER, key=token))["viewer"]["role"] == "MEMBER"


async def test_an_expired_token_proves_nobody(shop: Shop) -> None:
    member_id = ids.decode("member", (await shop.member())["id"])
    assert member_id is not None
    token, _ = tokens.issue(await _tenant(shop), member_id, -1, generation=0)

    assert await _refused(shop, token)


@pytest.mark.parametrize("claim", ["iss", "sub", "iat", "exp"])
async def test_a_token_without_one_of_its_claims_proves_nobody(shop: Shop, claim: str) -> None:
    assert await _refused(shop, await _signed(shop, {claim: None}))


@pytest.mark.parametrize(
    "changes",
    [
        {"sub": ids.encode("apikey", ids.new())},
        {"sub": "member_"},
        {"sub": "ADMIN"},
        {"sub": ""},
        {"sub": 7},
        {"sub": ["member"]},
        {"exp": "soon"},
        {"exp": [1]},
        {"exp": float("nan")},
        {"iat": "x"},
        {"iat": int(time.time()) + 3600},
        {"nbf": int(time.time()) + 3600},
        {"iss": ids.encode("merchant", ids.new())},
        {"iss": 7},
        {"sub": ids.encode("member", ids.new())},
        {"gen": 1},
        {"gen": -1},
        {"gen": "0"},
        {"gen": True},
        {"gen": 0.0},
        {"gen": 2**70},
    ],
    ids="-".join,
)
async def test_a_token_with_a_wrong_claim_proves_nobody(shop: Shop, changes: dict[str, Any]) -> None:
    assert await _refused(shop, await _signed(shop, changes))


@pytest.mark.parametrize(
    ("issued", "ends"),
    [
        (0, 86_401), (0, 2**40), (0, float("inf")), (0, 1e300), (-86_400, 600), (-(2**40), 600), (float("-inf"), 600),
        (float("nan"), 600), (False, 600),
    ],
    ids=str,
)  # fmt: skip
async def test_no_token_lives_longer_than_a_day_whatever_it_says(shop: Shop, issued: float, ends: float) -> None:
    now = int(time.time())
    issued_at = issued if issued is False else now + issued

    assert await _refused(shop, await _signed(shop, {"iat": issued_at, "exp": now + ends}))


async def test_a_token_may_live_for_a_day(shop: Shop) -> None:
    now = int(time.time())

    token = await _signed(shop, {"iat": now, "exp": now + 86_400})

    assert (await shop.data(VIEWER, key=token))["viewer"]["role"] == "MEMBER"


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
async def test_another_algorithm_proves_nobody(shop: Shop, algorithm: str) -> None:
    assert await _refused(shop, await _signed(shop, algorithm=algorithm))


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "HS256", "RS256"])
@pytest.mark.parametrize("signature", ["", "AAAA"])
async def test_an_unsigned_token_proves_nobody(shop: Shop, algorithm: str, signature: str) -> None:
    _, claims, _ = (await _signed(shop)).split(".")
    header = _segment({"alg": algorithm, "typ": "JWT"})

    assert await _refused(shop, f"{header}.{claims}.{signature}")


async def test_each_changed_part_of_a_token_breaks_it(shop: Shop) -> None:
    header, claims, signature = (await _signed(shop)).split(".")
    other_claims = (await _signed(shop)).split(".")[1]
    flipped = ("A" if signature[0] != "A" else "B") + signature[1:]

    assert await _refused(shop, f"{header}.{claims}.{flipped}")
    assert await _refused(shop, f"{header}.{other_claims}.{signature}")
    assert await _refused(shop, f"{header}.{claims}.{signature[:-4]}")
    assert await _refused(shop, f"{header}.{claims}")
    assert await _refused(shop, f"{header}.{claims}.{signature}.{signature}")


async def test_one_merchants_key_signs_nothing_for_another(shop: Shop, other_shop: Shop) -> None:
    claims = jwt.decode(await _signed(shop), options={"verify_signature": False})
    forged = jwt.encode(claims, (await _tenant(other_shop)).keys.token_keys[0], algorithm="HS256")

    assert await _refused(shop, forged)


async def test_a_token_that_names_another_merchants_member_proves_nobody(shop: Shop, other_shop: Shop) -> None:
    theirs = await other_shop.member()
    token = await _signed(shop, {"sub": theirs["id"]})

    assert await _refused(shop, token)
    async with opened(address(shop)) as socket:
        await socket.send(type="connection_init", payload={"token": token})
        assert (await socket.closed())[0] == 4403


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "..",
        "a.b.c",
        "eyJ.eyJ.eyJ",
        f"{_segment({'alg': 'HS256'})}.{_segment([])}.AAAA",
        f"{_segment({'alg': 'HS256'})}.{_segment({'iss': None})}.AAAA",
        f"{_segment({'alg': 'HS256'})}.{_segment({'iss': {'a': 1}})}.AAAA",
        f"{_segment({'alg': 'HS256', 'crit': ['x']})}.{_segment({})}.AAAA",
        f"{_segment({'alg': ['HS256']})}.{_segment({'iss': 'merchant_' + '0' * 32})}.AAAA",
        f"{_segment({'alg': 'HS256', 'kid': 7})}.{_segment({'iss': 'merchant_' + '0' * 32})}.AAAA",
        _segment({"alg": "HS256"}) + "." + base64.urlsafe_b64encode(b"[" * 2900).decode().rstrip("=") + ".AAAA",
        base64.urlsafe_b64encode(b"[" * 2900).decode().rstrip("=") + ".e30.AAAA",
        _segment({"alg": "HS256"}) + "." + base64.urlsafe_b64encode(b"\xff\xfe").decode() + ".AAAA",
        "flash_",
        f"flash_{'0' * 32}_",
        f"flash_{'0' * 32}_x",
        f"flash_{'g' * 32}_x",
        "a" * 5000,
    ],
    ids=lambda token: token[:20],
)
async def test_what_is_no_token_proves_nobody(shop: Shop, token: str) -> None:
    assert await _refused(shop, token)
