"""Keys of requests. Without these a key that somebody made of an address could be read in a dump."""

from app import ids
from tests.dump import dump, traces
from tests.factories import CLAIM_CODE, CREATE_CAMPAIGN, GENERATE_CODES, Shop
from tests.points.documents import grant, redeem, reward

KEY = "for-ada@example.com"


async def test_no_idempotency_key_is_in_the_database_and_each_is_known_again(shop: Shop) -> None:
    member = await shop.member()
    pool = await shop.pool(codes=0, active=False)

    async def ask() -> list[bool]:
        return [
            (await shop.do(GENERATE_CODES, poolId=pool["id"], count=5, idempotencyKey=KEY))["replayed"],
            (await grant(shop, member, 200, KEY))["replayed"],
            (await redeem(shop, mug, member, KEY))["replayed"],
            (await shop.do(CLAIM_CODE, poolId=other["id"], memberId=member["id"], idempotencyKey=KEY))["replayed"],
            (
                await shop.do(
                    CREATE_CAMPAIGN, poolId=other["id"], name="All", recipients=[{"email": "bob@example.com"}],
                    idempotencyKey=KEY,
                )
            )["replayed"],
        ]  # fmt: skip

    mug, other = await reward(shop), await shop.pool(codes=5)

    assert await ask() == [False] * 5
    assert await ask() == [True] * 5
    assert traces(await dump(shop.merchant_id), KEY) == []


async def test_a_members_key_is_its_own(shop: Shop) -> None:
    ada, bob = await shop.member(), await shop.member()
    pool = await shop.pool(codes=5)

    claims = [
        await shop.do(CLAIM_CODE, poolId=pool["id"], idempotencyKey="mine", key=await shop.token(member["id"]))
        for member in (ada, bob)
    ]

    assert [claim["code"]["owner"]["id"] for claim in claims] == [ada["id"], bob["id"]]
    assert len({ids.decode("code", claim["code"]["id"]) for claim in claims}) == 2
