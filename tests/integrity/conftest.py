"""A merchant at which everything happened, and ways to break what is promised to it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from app.segments import refresh
from tests.advisor.documents import advised
from tests.conftest import Api
from tests.coupons.ownership import send
from tests.coupons.test_import_codes import imported
from tests.coupons.test_issue_codes import ISSUE
from tests.coupons.test_reissue_code import REISSUE
from tests.coupons.test_revoke_code import REVOKE
from tests.factories import CREATE_CAMPAIGN, EDIT_POOL, Shop, open_shop
from tests.jobs.documents import CANCEL, FILL, REVOKE_CODES, carried_out
from tests.moving.files import staged
from tests.orders.documents import AMEND, amendment, stackable
from tests.orders.holding import CAPTURE, EXTEND, RELEASE, hold
from tests.people.documents import merge
from tests.people.test_erase_member import ERASE
from tests.points.documents import REVERSE, REVERSE_REWARD, grant, purchase, redeem, refund, reward
from tests.referrals.documents import accepted, invited, program
from tests.webhooks.documents import delivery_made


async def carts(shop: Shop) -> None:
    """Hold codes for orders of a new member, of which one each is captured, released, taken over and stays held."""
    dora = await shop.member()
    codes = await stackable(shop, dora, 4)
    captured, released, _, live = [
        await hold(shop, [code], dora, order=f"cart-{number}", idempotencyKey="key")
        for number, code in enumerate(codes)
    ]
    await shop.do(CAPTURE, holdId=captured["id"])
    await shop.do(RELEASE, holdId=released["id"])
    await hold(shop, [codes[2]], dora, order="cart-4")
    await shop.do(EXTEND, holdId=live["id"], lifetimeSeconds=604_800)
    await grant(shop, dora, 100, "to hold")
    voucher = await reward(shop, cost=5, poolId=(await shop.pool(claimsPerMember=2))["id"])
    paid = await hold(shop, [], dora, order="cart-5", points=7, rewardIds=[voucher["id"]])
    await shop.do(CAPTURE, holdId=paid["id"])
    await hold(shop, [], dora, order="cart-6", points=4, rewardIds=[voucher["id"]])


async def merged(shop: Shop, pool: Any) -> None:
    """Make one member of two that have points, codes, a reward and an address each."""
    two = [await shop.member(email=f"{name}@example.com", emailVerified=True) for name in ("eve", "eva")]
    for number, member in enumerate(two):
        await purchase(shop, member, f"order-{number}", 5000)
        await redeem(shop, await reward(shop, cost=10), member, f"cup {number}")
        await shop.claim(pool, member)
    await merge(shop, *two)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def lively(api: Api, database_pool: Any) -> AsyncIterator[Shop]:
    """A merchant at which everything happened; made once for all tests of this folder, which leave it as it is."""
    async with open_shop(f"{api.url}/graphql") as shop:
        anna, ben, cleo = [await shop.member() for _ in range(3)]
        summer = await shop.pool(maximumTotalDiscount={"amountMinor": 100_000, "currency": "USD"})
        winter = await shop.pool(codes=4, fallbackPoolId=summer["id"])
        await shop.member(email="verified@example.com", emailVerified=True)
        code = await shop.claim(summer, anna)
        await shop.redeem([code["text"]], anna, order="A-1")
        await shop.do(AMEND, **amendment([code], amount=20_000))
        spent = await shop.claim(summer, ben)
        redeemed = await shop.redeem([spent["text"]], ben)
        await shop.do(
            """mutation ($input: ReverseRedemptionInput!) { answer: reverseRedemption(input: $input) {
                __typename } }""",
            redemptionId=redeemed["redemptions"][0]["id"], reinstate=True, reason="a return",
        )  # fmt: skip
        await send(shop, winter, {"memberId": cleo["id"]}, {"email": "stranger@example.com"})
        await shop.do(EDIT_POOL, poolId=(await shop.pool(endsAt="2999-01-01T00:00:00Z"))["id"], endsAt=None)
        lost = await shop.claim(await shop.pool(), ben)
        await shop.do(REVOKE, codeId=lost["id"], reason="lost", recycle=False)
        await shop.do(REISSUE, codeId=lost["id"], reason="lost")
        draft = await shop.pool(active=False, codes=1, transferable=True, claimsPerMember=2)
        await imported(shop, draft, {"text": "PRINTED-IN-2019-1"}, inCirculation=True)
        await imported(shop, draft, {"text": "XMAS19"}, {"text": "WINTER-2019-AB", "memberId": anna["id"]},
                       {"text": "WINTER-2019-AC", "email": "somebody@example.com"})  # fmt: skip
        await shop.do(ISSUE, poolId=(await shop.pool(transferable=True))["id"], count=3, reason="print",
                      idempotencyKey="print")  # fmt: skip
        for change, pool in (("pausePool", summer), ("archivePool", winter)):
            await shop.do(
                f"mutation ($input: PoolIdInput!) {{ answer: {change}(input: $input) {{ __typename }} }}",
                poolId=pool["id"],
            )
        await purchase(shop, anna, "order-a")
        await purchase(shop, ben, "order-b")
        await grant(shop, anna, 100, "gift")
        await redeem(shop, await reward(shop, cost=50, poolId=(await shop.pool())["id"]), anna, "mug")
        # What comes back of a reward fills what a return lacks, which a later purchase had paid in part.
        back = await redeem(shop, await reward(shop, cost=60), anna, "bag")
        await shop.do(REVERSE, source="STORE", orderId="order-a", reason="a return")
        await purchase(shop, anna, "order-c", 400)
        await refund(shop, "order-c", "refund-1", 150)
        await shop.do(REVERSE_REWARD, redemptionId=back["redemption"]["id"], reason="a return")
        await shop.do(AMEND, **amendment([code], anna, amount=20_000, points=40))
        await carts(shop)
        await program(shop, convertsOn="JOIN")
        await accepted(shop, anna)
        await invited(shop, anna)
        await merged(shop, await shop.pool())
        await shop.do(ERASE, memberId=(await shop.member(email="gone@example.com"))["id"], ground="REQUEST")
        await refresh.refresh(shop.merchant_id)
        await delivery_made(shop)
        suggestion = (await advised(shop))["suggestions"][0]
        await shop.pool(codes=0, active=False, suggestionId=suggestion["id"])
        filling = await shop.do(FILL, poolId=draft["id"], available=9, idempotencyKey="fill")
        await carried_out(shop, filling["job"])
        waiting = await shop.do(FILL, poolId=(await shop.pool())["id"], available=99, idempotencyKey="fill more")
        await shop.data(CANCEL, {"input": waiting["job"]["id"]})
        await shop.do(CREATE_CAMPAIGN, name="Welcome", poolId=(await shop.pool())["id"], segment="NEW")
        await shop.do(REVOKE_CODES, poolId=summer["id"], expectedCount=99, reason="leaked", idempotencyKey="leaked")
        await staged(shop)
        yield shop
