"""Erasing while a person lives on at two processes. Without these it would get something after it was forgotten."""

import asyncio
from typing import Any

import pytest

from app import ids
from app.storage.database import database, transaction
from tests.conftest import Api
from tests.coupons.test_revoke_code import REVOKE
from tests.dump import dump, traces
from tests.factories import CLAIM_CODE, ENROLL_MEMBER, REDEEM_CODES, Shop, usd
from tests.orders.holding import CAPTURE, HOLD, cart, hold, read
from tests.people.lives import EMAIL, TRACES, indexes
from tests.people.test_erase_member import ERASE
from tests.points.documents import GRANT, RECORD, REDEEM_REWARD, REFUND, asked_refund, grant, purchase, reward
from tests.races.storm import BEHIND_IT, LOCK_WALLET, Processes, at_once, kinds, until_somebody_waits
from tests.races.test_jobs import LOCK_CODES, another_session, until_so_many_wait
from tests.referrals.documents import INVITE_MEMBERS, accepted, program
from tests.sizes import size

ROUNDS = size(2, 8)
LEFT = """
SELECT (SELECT count(*) FROM code WHERE merchant_id = $1 AND member_id = $2 AND state = 'ALLOCATED') AS codes,
    (SELECT count(*) FROM hold WHERE merchant_id = $1 AND member_id = $2 AND status = 'HELD') AS holds,
    (SELECT count(*) FROM invite WHERE merchant_id = $1 AND referrer_id = $2 AND status = 'PENDING'
        AND accepted_at IS NULL) AS invites,
    (SELECT points FROM wallet WHERE merchant_id = $1 AND member_id = $2) AS points,
    (SELECT closed_at IS NOT NULL FROM wallet WHERE merchant_id = $1 AND member_id = $2) AS is_closed
"""


@pytest.fixture
def processes(shop: Shop, api: Api, second_api: Api) -> Processes:
    return Processes(shop, api, second_api)


async def test_whatever_a_person_does_while_it_is_erased_nothing_is_left(shop: Shop, processes: Processes) -> None:
    await program(shop, convertsOn="FIRST_PURCHASE")
    mug = await reward(shop, cost=5)
    for number in range(ROUNDS):
        # Of one pool her mailbox would be remembered.
        pool = await shop.pool(codes=20, claimsPerMember=10, stacking="STACKABLE")
        ada = await shop.member(email=EMAIL, emailVerified=True, displayName="Ada Lovelace", externalId="card-1815")
        friend = (await accepted(shop, ada, email=f"friend-{number}@example.com"))["member"]
        await grant(shop, ada, 500, f"g-{number}")
        await purchase(shop, ada, f"bought-{number}", 5_000)
        codes = [await shop.claim(pool, ada, idempotencyKey=f"c-{number}-{each}") for each in range(4)]
        held = await hold(shop, codes[:1], ada, order=f"held-{number}", points=10)
        who: dict[str, Any] = {"memberId": ada["id"]}

        answers = await at_once([
            processes.do(CLAIM_CODE, **who, poolId=pool["id"], idempotencyKey=f"late-{number}"),
            processes.do(GRANT, **who, amount=7, reference="late", idempotencyKey=f"late-{number}"),
            processes.do(REDEEM_REWARD, **who, rewardId=mug["id"], idempotencyKey=f"late-{number}"),
            processes.do(ERASE, **who, ground="REQUEST"),
            processes.do(CAPTURE, holdId=held["id"]),
            processes.do(HOLD, **cart(codes[1:2], ada, order=f"late-{number}", points=20)),
            processes.do(REDEEM_CODES, **who, codes=[codes[2]["text"]], orderId=f"o-{number}", orderAmount=usd(500)),
            processes.do(REVOKE, codeId=codes[3]["id"], reason="Lovelace", recycle=True),
            processes.do(REFUND, **asked_refund(f"bought-{number}", "r", 1_000)),
            processes.do(RECORD, source="STORE", orderId=f"friend-{number}", amount=usd(3_000), memberId=friend["id"]),
            processes.do(INVITE_MEMBERS, **who, emails=[f"late-{number}@example.com"]),
            processes.do(ERASE, **who, ground="SHOP"),
        ])  # fmt: skip

        assert kinds(answer for answer in (answers[3], answers[11])) == {"EraseMemberSuccess": 1, "NotFound": 1}
        (row,) = await database().rows(LEFT, shop.merchant_id, ids.decode("member", ada["id"]))
        assert tuple(row.values()) == (0, 0, 0, 0, True)
    dumped = await dump(shop.merchant_id)
    assert traces(dumped, *TRACES, *await indexes(shop, EMAIL)) == []
    assert await shop.broken_promises() == []


async def test_a_cart_that_becomes_somebody_elses_while_its_presenter_is_erased_stays_held(
    shop: Shop, processes: Processes
) -> None:
    ada, grace = await shop.member(), await shop.member()
    await grant(shop, ada, 100, "ada")
    await grant(shop, grace, 100, "grace")
    placed = await hold(shop, [], ada, points=10)
    async with transaction(shop.merchant_id) as tx:
        await tx.row(LOCK_WALLET, shop.merchant_id, ids.decode("member", grace["id"]))
        taking = asyncio.ensure_future(processes.do(HOLD, **cart([], grace, points=20)))
        await until_somebody_waits(tx)
        erasing = asyncio.ensure_future(processes.do(ERASE, memberId=ada["id"], ground="REQUEST"))
        await until_somebody_waits(tx, BEHIND_IT)

    assert (await taking)["hold"]["id"] == placed["id"]
    assert (await erasing)["__typename"] == "EraseMemberSuccess"
    held = await read(shop, placed)
    assert (held["status"], held["member"]["id"], held["points"]) == ("HELD", grace["id"], 20)


async def test_who_is_erased_while_a_cart_waits_for_its_codes_is_nobody(shop: Shop, worker_database: str) -> None:
    pool = await shop.pool()
    ada, bob = await shop.member(), await shop.member()
    await grant(shop, bob, 100, "g")
    code = await shop.claim(pool, ada)
    # A cart whose hold has points changes under locks.
    held = await hold(shop, [], bob, order="o", points=10)
    async with another_session(worker_database) as waited_for:
        await waited_for.execute(LOCK_CODES, shop.merchant_id)
        erasing = asyncio.create_task(shop.do(ERASE, memberId=ada["id"], ground="REQUEST"))
        await until_so_many_wait(waited_for, 1)
        holding = asyncio.create_task(shop.do(HOLD, **cart([code], ada, order="o")))
        await until_so_many_wait(waited_for, 2)
        await waited_for.execute("COMMIT")
        assert (await erasing)["__typename"] == "EraseMemberSuccess"
        answer = await holding

    assert (answer["__typename"], answer.get("id")) == ("NotFound", ada["id"])
    assert (await read(shop, held))["status"] == "HELD"


async def test_an_address_that_is_erased_while_it_claims_and_joins_is_one_or_the_other(
    shop: Shop, processes: Processes
) -> None:
    pool = await shop.pool(codes=50)
    for number in range(ROUNDS):
        email = f"{number}.{EMAIL}"
        await shop.do(CLAIM_CODE, poolId=pool["id"], email=email)

        answers = await at_once([
            processes.do(ERASE, email=email, ground="REQUEST"),
            processes.do(CLAIM_CODE, poolId=pool["id"], email=email, idempotencyKey=f"late-{number}"),
            processes.do(ENROLL_MEMBER, source="STORE", email=email, emailVerified=True),
        ])  # fmt: skip

        assert answers[0]["__typename"] in {"EraseMemberSuccess", "InvalidInput", "NotFound"}
        assert answers[2]["__typename"] == "EnrollMemberSuccess"
    assert await shop.broken_promises() == []
