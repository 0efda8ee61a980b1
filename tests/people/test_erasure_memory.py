"""What is remembered of who was erased. Without these forgetting would be a way to a second welcome gift."""

from pathlib import Path
from typing import Any

from app.people.erasure_log import erase_again, write_log
from app.people.erasure_memory import forget_batch
from app.storage.database import database
from tests.coupons.ownership import claim_by_email
from tests.coupons.test_audience import claimed
from tests.coupons.test_offers import offered
from tests.factories import CLAIM_CODE, CREATE_CAMPAIGN, Shop
from tests.moving.conftest import mover as mover  # noqa: PLC0414
from tests.moving.files import Mover
from tests.orders.test_first_orders import OK, presented
from tests.people.test_erase_member import ERASE, erase
from tests.people.test_erasure_log import copied, restored
from tests.points.documents import CONFIGURE, purchase
from tests.referrals.documents import accepted, program

ADA, OTHER_SPELLING = "ada.lovelace@gmail.com", "adalovelace+2@gmail.com"
KINDS = "SELECT kind, count(*)::int AS rows FROM erasure_memory WHERE merchant_id = $1 GROUP BY kind ORDER BY kind"
MEMORY = "SELECT hmac, kind, pool_ids, erased_at FROM erasure_memory WHERE merchant_id = $1 ORDER BY hmac"
AGE = "UPDATE erasure_memory SET erased_at = erased_at - make_interval(days => $2) WHERE merchant_id = $1"


async def ada(shop: Shop, email: str = ADA, **told: Any) -> Any:
    return await shop.member(email=email, emailVerified=True, **told)


async def kinds(shop: Shop) -> dict[str, int]:
    return {row["kind"]: row["rows"] for row in await database().rows(KINDS, shop.merchant_id)}


async def erased_with_a_code(shop: Shop, pool: Any) -> None:
    member = await ada(shop, externalId="card-1")
    await shop.claim(pool, member)
    await erase(shop, member)


async def test_who_comes_back_has_had_a_code_of_the_pool(shop: Shop) -> None:
    pool, other = await shop.pool(listed=True, name="listed"), await shop.pool()
    empty = await shop.pool(codes=1, fallbackPoolId=pool["id"])
    await shop.claim(empty, await shop.member())
    await erased_with_a_code(shop, pool)
    assert await kinds(shop) == {"ADDRESS": 1, "EXTERNAL_ID": 1, "MAILBOX": 1}

    back = await ada(shop, OTHER_SPELLING, externalId="card-1")

    assert await claimed(shop, pool, memberId=back["id"]) == "MAILBOX"
    assert await claimed(shop, pool, memberId=back["id"], idempotencyKey="again") == "MAILBOX"
    assert await claimed(shop, pool, email="adalove.lace@gmail.com") == "MAILBOX"
    assert (await claimed(shop, other, memberId=back["id"])).startswith("code_")
    assert (await shop.refused(CLAIM_CODE, poolId=empty["id"], memberId=back["id"]))["__typename"] == "PoolExhausted"
    assert await offered(shop, await shop.token(back["id"])) == {"listed": "MAILBOX"}


async def test_campaigns_pass_over_who_has_had_a_code(shop: Shop) -> None:
    pool = await shop.pool()
    await erased_with_a_code(shop, pool)

    sent = await shop.do(
        CREATE_CAMPAIGN, poolId=pool["id"], name="again", recipients=[{"email": ADA}, {"email": "bob@example.com"}],
        idempotencyKey="again",
    )  # fmt: skip
    assert (sent["campaign"]["recipientCount"], sent["campaign"]["allocatedCount"]) == (2, 1)


async def test_an_address_that_was_no_members_is_remembered(shop: Shop) -> None:
    pool = await shop.pool()
    await claim_by_email(shop, pool, ADA)
    assert (await shop.do(ERASE, email=ADA, ground="REQUEST"))["__typename"] == "EraseMemberSuccess"

    assert await kinds(shop) == {"ADDRESS": 1, "MAILBOX": 1}
    assert await claimed(shop, pool, email=OTHER_SPELLING) == "MAILBOX"


async def test_who_comes_back_has_ordered_before(shop: Shop) -> None:
    first, quiet = await ada(shop), await ada(shop, "bob@example.com")
    await purchase(shop, first, "o-1")
    for each in (first, quiet):
        await erase(shop, each)
    pool = await shop.pool(firstOrderOnly=True)

    back, bob = await ada(shop, OTHER_SPELLING), await ada(shop, "bob@example.com")
    codes = [await shop.claim(pool, each) for each in (back, bob)]

    assert await presented(shop, codes[0], "o-2", memberId=back["id"]) == "NOT_FIRST_ORDER"
    assert await presented(shop, codes[1], "o-3", memberId=bob["id"]) == OK


async def test_a_mailbox_that_an_invite_was_paid_for_is_not_paid_for_again(shop: Shop) -> None:
    await program(shop)
    referrer = await ada(shop, "charles@example.com")
    first = await accepted(shop, referrer, email=ADA)
    assert first["referral"] is not None
    await erase(shop, first["member"])

    again = await accepted(shop, referrer, email=OTHER_SPELLING)

    assert (again["referral"], again["obstacle"]) == (None, "MAILBOX_REWARDED")
    await erase(shop, again["member"])
    await program(shop, oneRewardPerMailbox=False)
    third = await accepted(shop, referrer, email="a.dalovelace@gmail.com")
    assert third["obstacle"] is None


async def test_an_invite_is_for_who_has_never_bought(shop: Shop) -> None:
    await program(shop)
    member = await ada(shop)
    await purchase(shop, member, "o-1")
    await erase(shop, member)

    back = await accepted(shop, await ada(shop, "charles@example.com"), email=OTHER_SPELLING)

    assert (back["referral"], back["obstacle"]) == (None, "EXISTING_CUSTOMER")


async def test_imports_pass_over_who_was_erased_and_count_them(shop: Shop, mover: Mover) -> None:
    await erase(shop, await ada(shop, externalId="card-1"))
    await shop.pool(codes=0, active=False, name="Moved")
    await shop.member(externalId="card-2")

    members = await mover.applied(
        "members", f"externalId,email\ncard-1,new@example.com\ncard-9,{ADA}\ncard-3,grace@example.com\n"
    )
    balances = await mover.applied("balances", "externalId,points\ncard-1,5\ncard-2,5\n")
    purchases = await mover.applied(
        "purchases",
        "source,orderId,externalId,amountMinor,currency,occurredAt\nSTORE,A-1,card-1,500,USD,2024-01-01\n",
    )
    codes = await mover.applied(
        "codes", f"pool,text,externalId,email\nMoved,OLD-0000-0001,card-1,\nMoved,OLD-0000-0002,,{ADA}\n"
    )

    assert members == ["members: 1 new, 0 to correct, 0 there already, 2 skipped as erased.", members[-1]]
    assert balances[0] == "balances: 1 new, 0 to correct, 0 there already, 1 skipped as erased."
    assert purchases[0] == "purchases: 0 new, 0 to correct, 0 there already, 1 skipped as erased."
    assert codes[0] == "codes: 0 new, 0 to correct, 0 there already, 2 skipped as erased."


async def test_what_was_brought_to_somebody_who_was_erased_since_is_passed_over_whatever_it_says(
    shop: Shop, mover: Mover
) -> None:
    member = await ada(shop, externalId="card-1")
    await shop.pool(codes=0, active=False, name="Moved")
    purchases = "source,orderId,externalId,amountMinor,currency,occurredAt\nSTORE,A-1,card-1,{0},USD,2024-01-01\n"
    codes = f"pool,text,email\nMoved,OLD-0000-0001,{ADA}\n"
    await mover.applied("purchases", purchases.format(500))
    await mover.applied("codes", codes)
    await erase(shop, member)

    for kind, text in (("purchases", purchases.format(600)), ("codes", codes + "\n")):
        said = await mover.applied(kind, text)
        assert said[0] == f"{kind}: 0 new, 0 to correct, 0 there already, 1 skipped as erased."


async def test_who_enrols_again_is_brought_in_again(shop: Shop, mover: Mover) -> None:
    await erase(shop, await ada(shop, externalId="card-1"))
    await shop.pool(codes=0, active=False, name="Moved")
    await ada(shop, externalId="card-1")

    assert (await mover.applied("balances", "externalId,points\ncard-1,5\n"))[0].startswith("balances: 1 new")
    codes = await mover.applied("codes", f"pool,text,email\nMoved,OLD-0000-0002,{ADA}\n")
    assert codes[0] == "codes: 1 new, 0 to correct, 0 there already."


async def test_the_memory_ends_with_its_days(shop: Shop) -> None:
    pool = await shop.pool()
    await erased_with_a_code(shop, pool)
    await database().row(AGE, shop.merchant_id, 100)
    back = await ada(shop)
    assert await claimed(shop, pool, memberId=back["id"]) == "MAILBOX"

    await shop.do(CONFIGURE, erasureMemoryDays=90)
    assert (await claimed(shop, pool, memberId=back["id"])).startswith("code_")
    while await forget_batch():
        pass

    assert await kinds(shop) == {}


async def test_what_is_too_old_is_not_kept_on_by_another_erasure(shop: Shop) -> None:
    pool, other = await shop.pool(), await shop.pool()
    await erased_with_a_code(shop, pool)
    await database().row(AGE, shop.merchant_id, 731)
    await erased_with_a_code(shop, other)

    assert await claimed(shop, other, email=ADA) == "MAILBOX"
    assert (await claimed(shop, pool, email=ADA)).startswith("code_")


async def test_who_is_erased_twice_has_had_what_it_had_twice(shop: Shop) -> None:
    pool, other = await shop.pool(), await shop.pool()
    await erased_with_a_code(shop, pool)
    await erased_with_a_code(shop, other)

    assert [await claimed(shop, each, email=ADA) for each in (pool, other)] == ["MAILBOX"] * 2


async def test_a_merchant_may_remember_nothing(shop: Shop) -> None:
    pool = await shop.pool()
    await shop.do(CONFIGURE, erasureMemoryDays=0)
    await erased_with_a_code(shop, pool)

    assert await kinds(shop) == {}
    assert (await claimed(shop, pool, email=ADA)).startswith("code_")


async def test_a_restored_copy_remembers_again_as_of_when_it_was(
    shop: Shop, worker_database: str, tmp_path: Path
) -> None:
    pool = await shop.pool()
    member = await ada(shop, externalId="card-1")
    await shop.claim(pool, member)
    kept = await copied(worker_database, shop.merchant_id)
    await erase(shop, member)
    before = await database().rows(MEMORY, shop.merchant_id)
    log = tmp_path / "erasures.jsonl"
    await write_log(log)
    await restored(worker_database, shop.merchant_id, kept)
    assert await kinds(shop) == {}

    await erase_again(log)

    after = await database().rows(MEMORY, shop.merchant_id)
    assert [[*row.values()] for row in after] == [[*row.values()] for row in before]
    assert len(after) == 3
