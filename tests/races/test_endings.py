"""What ends a code, against what spends it. Without these a code could be spent and dead at once."""

import asyncio
from typing import Any

from app.coupons.expire_codes import expire_batch
from app.storage.database import database
from tests.conftest import Api
from tests.coupons.test_revoke_code import REVOKE
from tests.factories import REDEEM_CODES, Shop, usd

ROUNDS = 15
AGE = "UPDATE code SET expires_at = now() + interval '30 milliseconds' WHERE merchant_id = $1 AND state = 'ALLOCATED'"
STATE = "SELECT state FROM code WHERE merchant_id = $1 AND state IN ('REDEEMED', 'REVOKED', 'EXPIRED')"
REDEMPTIONS = "SELECT count(*) AS rows FROM redemption WHERE merchant_id = $1"


async def redeem(shop: Shop, code: Any, member: Any, order: str, url: str | None = None) -> str:
    """Redeem a code and return the kind of answer."""
    answer = await shop.do(
        REDEEM_CODES, codes=[code["text"]], orderId=order, orderAmount=usd(500), memberId=member["id"], url=url
    )
    kind: str = answer["__typename"]
    return kind


async def test_of_revoking_and_redeeming_one_wins(shop: Shop, second_api: Api) -> None:
    pool = await shop.pool(codes=ROUNDS)
    outcomes = set()
    for number in range(ROUNDS):
        member = await shop.member()
        code = await shop.claim(pool, member)
        redeemed, revoked = await asyncio.gather(
            redeem(shop, code, member, f"order-{number}", f"{second_api.url}/graphql"),
            shop.do(REVOKE, codeId=code["id"], reason="leaked", recycle=False),
        )
        outcomes.add((redeemed, revoked["__typename"]))
    assert outcomes <= {("RedeemCodesSuccess", "CodeNotRevocable"), ("CodesRejected", "RevokeCodeSuccess")}
    stock = await shop.stock(pool)
    assert stock["redeemed"] + stock["revoked"] == ROUNDS
    rows = await database().row(REDEMPTIONS, shop.merchant_id)
    assert rows is not None
    assert rows["rows"] == stock["redeemed"]


async def test_of_expiry_and_redeeming_one_wins(shop: Shop) -> None:
    pool = await shop.pool(codes=ROUNDS, codeLifetimeDays=1)
    members = [await shop.member() for _ in range(ROUNDS)]
    codes = [await shop.claim(pool, member) for member in members]
    await database().row(AGE, shop.merchant_id)

    async def expire_until_done() -> None:
        while (await shop.stock(pool))["allocated"]:
            await expire_batch(shop.merchant_id)

    answers, _ = await asyncio.gather(
        asyncio.gather(
            *[
                redeem(shop, code, member, f"order-{n}")
                for n, (code, member) in enumerate(zip(codes, members, strict=True))
            ]
        ),
        expire_until_done(),
    )

    stock = await shop.stock(pool)
    assert stock["redeemed"] == answers.count("RedeemCodesSuccess")
    assert stock["expired"] == answers.count("CodesRejected")
    assert stock["redeemed"] + stock["expired"] == ROUNDS
