"""walletChanged. Without these a member could miss a change, get one twice, or see one that isn't as it was."""

import asyncio
import gc
import itertools
import sys
from typing import Any
from uuid import UUID

import pytest

from app import ids
from app.api.scalars import serialize_date_time
from app.api.turns import TurnTaking
from app.config import settings
from app.coupons.expire_codes import expire_batch
from app.coupons.revive_codes import revive_batch
from app.points.types import PointsReason
from app.storage.database import database
from app.storage.events import WALLET_EVENTS
from app.wallets.wallet_changed import WalletChange
from app.wallets.wallet_feed import LAST_EVENTS, WalletFeed
from app.web.authentication import authenticate
from app.web.graphql_documents import Asked, Documents
from app.web.graphql_execution import answers
from tests.coupons.test_discard_pool import DISCARD
from tests.coupons.test_import_codes import imported
from tests.coupons.test_reissue_code import REISSUE
from tests.coupons.test_revoke_code import REVOKE
from tests.factories import CLAIM_CODE, CREATE_CAMPAIGN, EDIT_POOL, REDEEM_CODES, VERIFY_MEMBER_EMAIL, Shop, usd
from tests.orders.holding import EXTEND, hold
from tests.orders.presented import end_pool
from tests.orders.test_reverse_redemption import REVERSE
from tests.people.documents import merge
from tests.points.documents import CONFIGURE, days_later, grant, purchase
from tests.points.documents import REVERSE as REVERSE_PURCHASE
from tests.points.holds import freed, held
from tests.points.ledger import put_back_again, taken_back
from tests.unguarded import unguarded
from tests.wallets.sockets import CHANGED, Socket, address, joined

_numbers = itertools.count(1)

AGE_EVENTS = """
UPDATE event SET occurred_at = now() - make_interval(days => $3)
WHERE merchant_id = $1 AND member_id = $2 AND wallet_version <= $4
"""
AGE_CODES = "UPDATE code SET expires_at = now() WHERE merchant_id = $1 AND state = 'ALLOCATED'"
OWN_CODE = """
UPDATE code SET state = 'ALLOCATED', member_id = $3, allocated_at = now() WHERE merchant_id = $1 AND pool_id = $2
"""
WALLET = "{ wallet { version codes { edges { node { id text state } } } } }"


async def _member(shop: Shop, *, pools: int = 1, **terms: Any) -> tuple[Any, str, list[Any]]:
    """Return a member, its token and pools to claim from."""
    email = f"live-{next(_numbers)}@example.com"
    member = await shop.member(email=email) | {"email": email}
    return member, await shop.token(member["id"]), [await shop.pool(**terms) for _ in range(pools)]


async def test_a_claim_is_told_as_it_happened(shop: Shop) -> None:
    member, token, (pool,) = await _member(shop)
    async with joined(address(shop), token) as socket:
        await socket.follow(0)
        code = await shop.claim(pool, member)
        change = await socket.change()

    row = await database().row("SELECT * FROM event WHERE merchant_id = $1 AND type = 'code.claimed'", shop.merchant_id)
    assert row is not None
    assert change == {
        "version": 1,
        "wallet": {"id": member["wallet"]["id"], "version": 1, "points": 0, "member": {"id": member["id"]}},
        "event": {
            "id": ids.encode("event", row["id"]),
            "type": "code.claimed",
            "subjectId": code["id"],
            "actor": row["actor"],
            "occurredAt": serialize_date_time(row["occurred_at"]),
            "reason": None,
        },
        "code": code | {"owner": {"id": member["id"]}},
        "entry": None,
    }


async def test_a_subscription_that_waits_keeps_nothing_of_what_it_told(shop: Shop) -> None:
    member, token, (pool,) = await _member(shop)
    await shop.claim(pool, member)
    viewer = await authenticate(f"Bearer {token}")
    assert viewer is not None
    feed = WalletFeed(settings())
    async with feed.running():
        bodies = await answers(Documents(settings()), Asked(CHANGED, None, {"after": 0}), viewer)
        body = await anext(bodies)
        following = asyncio.create_task(anext(bodies))
        await asyncio.sleep(0)
        gc.collect()
        kept = [each for each in gc.get_objects() if isinstance(each, WalletChange | TurnTaking) and _is_told(each)]
        references = sys.getrefcount(body)
        following.cancel()
        await asyncio.wait([following])

    assert kept == []
    # This function's, and that of the call that counts.
    assert references == 2


def _is_told(kept: WalletChange | TurnTaking) -> bool:
    """Whether something is a change, or what showed one."""
    return isinstance(kept, WalletChange) or isinstance(kept.root_value, WalletChange)


async def test_without_after_changes_come_from_now_on(shop: Shop) -> None:
    member, token, (first, second) = await _member(shop, pools=2)
    await shop.claim(first, member)
    async with joined(address(shop), token) as socket:
        await socket.follow()
        # What is answered after the subscription began was asked after it: one socket's operations begin in order,
        # and an operation that waits for the database twice has followed by then.
        for number in range(5):
            await socket.subscribe(WALLET, id=f"q{number}")
            assert (await socket.receive())["payload"]["data"]["wallet"]["version"] == 1
            assert (await socket.receive())["type"] == "complete"
        await shop.claim(second, member)
        change = await socket.change()

    assert (change["version"], change["code"]["pool"]["id"]) == (2, second["id"])


async def test_what_was_missed_comes_first_and_in_order(shop: Shop) -> None:
    member, token, pools = await _member(shop, pools=4)
    codes = [await shop.claim(pool, member) for pool in pools[:3]]
    async with joined(address(shop), token) as socket:
        await socket.follow(1)
        missed = await socket.changes(2)
        codes.append(await shop.claim(pools[3], member))
        live = await socket.change()

    assert [(change["version"], change["code"]["id"]) for change in (*missed, live)] == [
        (version, codes[version - 1]["id"]) for version in (2, 3, 4)
    ]


async def test_a_long_absence_is_replayed_in_batches_without_a_gap(shop: Shop) -> None:
    member, token, (pool,) = await _member(shop, codes=130, claimsPerMember=130)
    for number in range(130):
        await shop.claim(pool, member, idempotencyKey=f"k-{number}")
    async with joined(address(shop), token) as socket:
        await socket.follow(0)
        changes = await socket.changes(130)

    assert [change["version"] for change in changes] == list(range(1, 131))
    assert len({change["code"]["id"] for change in changes}) == 130


async def _claimed(shop: Shop, member: Any, pool: Any) -> Any:
    return await shop.claim(pool, member)


async def _redeemed(shop: Shop, member: Any, pool: Any) -> Any:
    code = await shop.claim(pool, member)
    return (await shop.redeem([code["text"]], member))["redemptions"][0]


async def _expired(shop: Shop, member: Any, pool: Any) -> None:
    await shop.claim(pool, member)
    await database().row(AGE_CODES, shop.merchant_id)
    await expire_batch(shop.merchant_id)


async def _revived(shop: Shop, member: Any, pool: Any) -> None:
    ending = await shop.pool(endsAt="2999-01-01T00:00:00Z")
    await shop.claim(ending, member)
    await end_pool(shop, ending)
    await expire_batch(shop.merchant_id)
    await shop.do(EDIT_POOL, poolId=ending["id"], endsAt=None)
    await revive_batch(shop.merchant_id, ids.decode("pool", ending["id"]) or UUID(int=0))


async def _reissued(shop: Shop, member: Any, pool: Any) -> None:
    code = await shop.claim(pool, member)
    await shop.do(REVOKE, codeId=code["id"], reason="leaked")
    await shop.do(REISSUE, codeId=code["id"], reason="leaked")


async def _discarded(shop: Shop, member: Any, pool: Any) -> None:
    draft = await shop.pool(codes=1, active=False)
    where = shop.merchant_id, ids.decode("pool", draft["id"]), ids.decode("member", member["id"])
    await database().row(OWN_CODE, *where)
    await shop.do(DISCARD, poolId=draft["id"])


async def _imported(shop: Shop, member: Any, pool: Any) -> None:
    draft = await shop.pool(codes=0, active=False)
    await imported(shop, draft, {"text": "PCT-OLD-2019-01", "memberId": member["id"]})


async def _revoked(shop: Shop, member: Any, pool: Any) -> None:
    code = await shop.claim(pool, member)
    await shop.do(REVOKE, codeId=code["id"], reason="leaked")


async def _reversed(shop: Shop, member: Any, pool: Any) -> None:
    redemption = await _redeemed(shop, member, pool)
    await shop.do(REVERSE, redemptionId=redemption["id"], reason="returned", reinstate=True)


async def _sent(shop: Shop, member: Any, pool: Any) -> None:
    await shop.do(CREATE_CAMPAIGN, name="Spring", poolId=pool["id"], recipients=[{"memberId": member["id"]}])


async def _adopted(shop: Shop, member: Any, pool: Any) -> None:
    await shop.do(CLAIM_CODE, poolId=pool["id"], email=member["email"])
    await shop.do(VERIFY_MEMBER_EMAIL, memberId=member["id"])


async def _adopted_after_end(shop: Shop, member: Any, pool: Any) -> None:
    code = (await shop.do(CLAIM_CODE, poolId=pool["id"], email=member["email"]))["code"]
    await shop.do(REDEEM_CODES, codes=[code["text"]], orderId="guest", orderAmount=usd(1000), email=member["email"])
    await shop.do(VERIFY_MEMBER_EMAIL, memberId=member["id"])


async def _credited(shop: Shop, member: Any, pool: Any) -> None:
    await shop.claim(pool, member)
    await grant(shop, member, 70, "k-1")


async def _debited(shop: Shop, member: Any, pool: Any) -> None:
    await grant(shop, member, 70, "k-1")
    await shop.claim(pool, member)
    await grant(shop, member, -30, "k-2")


async def _fell_short(shop: Shop, member: Any, pool: Any) -> None:
    await purchase(shop, member, "o-1", 7000)
    await grant(shop, member, -70, "k-1")
    await shop.do(REVERSE_PURCHASE, source="STORE", orderId="o-1", reason="returned")


async def _placed(shop: Shop, member: Any, pool: Any) -> UUID:
    await grant(shop, member, 70, "k-1")
    return (await held(shop, member, 50))[0]


async def _hold_changed(shop: Shop, member: Any, pool: Any) -> None:
    await held(shop, member, 30, hold_id=await _placed(shop, member, pool), event_type="hold.changed")


async def _hold_captured(shop: Shop, member: Any, pool: Any) -> None:
    await freed(shop, member, await _placed(shop, member, pool), "hold.captured")


async def _hold_released(shop: Shop, member: Any, pool: Any) -> None:
    await freed(shop, member, await _placed(shop, member, pool), "hold.released")


async def _hold_expired(shop: Shop, member: Any, pool: Any) -> None:
    await freed(shop, member, await _placed(shop, member, pool), "hold.expired")


async def _hold_extended(shop: Shop, member: Any, pool: Any) -> None:
    cart = await hold(shop, [await shop.claim(pool, member)], member)
    await shop.do(EXTEND, holdId=cart["id"], lifetimeSeconds=3_600)


async def _matured(shop: Shop, member: Any, pool: Any) -> None:
    await shop.do(CONFIGURE, pointsPendingDays=14)
    await purchase(shop, member, "o-1", 7000)
    await days_later(shop, member, 15)


async def _shortfall_lowered(shop: Shop, member: Any, pool: Any) -> None:
    await grant(shop, member, 70, "k-1")
    await grant(shop, member, -70, "k-2")
    await taken_back(shop, member, PointsReason.ADJUSTMENT, ["grant/k-1"], "falls")
    await put_back_again(shop, member, PointsReason.ADJUSTMENT, "grant/k-1", "stands again")


async def _moved(shop: Shop, member: Any, pool: Any) -> None:
    other = await shop.member()
    await shop.claim(pool, other)
    await merge(shop, member, other)


async def _moved_after_end(shop: Shop, member: Any, pool: Any) -> None:
    other = await shop.member()
    await shop.redeem([(await shop.claim(pool, other))["text"]], other)
    await merge(shop, member, other)


#: How each event that raises a wallet comes about, last. What ends a wallet: tests/people/test_merge_members.py.
MAKERS = {
    "code.adopted": _adopted,
    "code.adopted_after_end": _adopted_after_end,
    "code.claimed": _claimed,
    "code.discarded": _discarded,
    "code.expired": _expired,
    "code.imported": _imported,
    "code.moved": _moved,
    "code.moved_after_end": _moved_after_end,
    "code.redeemed": _redeemed,
    "code.reissued": _reissued,
    "code.revived": _revived,
    "code.revoked": _revoked,
    "code.sent": _sent,
    "hold.captured": _hold_captured,
    "hold.changed": _hold_changed,
    "hold.expired": _hold_expired,
    "hold.extended": _hold_extended,
    "hold.placed": _placed,
    "hold.released": _hold_released,
    "points.credited": _credited,
    "points.debited": _debited,
    "points.fell_short": _fell_short,
    "points.matured": _matured,
    "points.shortfall_lowered": _shortfall_lowered,
    "redemption.reversed": _reversed,
}


#: The events of points that change how many there are.
MOVING = {"points.credited", "points.debited"}


@pytest.mark.parametrize("event_type", [each for each in WALLET_EVENTS if each not in LAST_EVENTS])
async def test_every_change_is_told_live_and_replayed_alike(shop: Shop, event_type: str) -> None:
    member, token, (pool,) = await _member(shop, codeLifetimeDays=5)
    async with joined(address(shop), token) as live, joined(address(shop), token) as late:
        await live.follow(0)
        await MAKERS[event_type](shop, member, pool)
        versions = await shop.wallet_versions(member)
        told = await live.changes(len(versions))
        await late.follow(0)
        replayed = await late.changes(len(versions))

    assert versions == list(range(1, len(versions) + 1))
    assert [change["version"] for change in told] == versions
    for change in (*told, *replayed):
        if change["code"] is not None:
            # The test let codes expire before their time.
            del change["code"]["expiresAt"]
    assert told == replayed
    last = told[-1]
    assert last["event"]["type"] == event_type
    assert last["event"]["reason"] is None
    if event_type.startswith("points."):
        assert last["code"] is None
        moved = [change["entry"]["amount"] for change in told if change["event"]["type"] in MOVING]
        assert last["wallet"]["points"] == sum(moved)
        if event_type in MOVING:
            assert last["entry"]["balanceAfter"] == sum(moved)
        else:
            assert last["entry"] is None
        return
    if event_type.startswith("hold."):
        assert (last["code"], last["entry"]) == (None, None)
        return
    state = WALLET_EVENTS[event_type] or "REDEEMED"
    assert last["entry"] is None
    if event_type == "code.discarded":
        assert last["code"] is None
        return
    assert last["code"]["state"] == state
    assert last["code"]["text"].startswith("PCT-")
    assert (last["code"]["redeemedAt"] is not None) == (state == "REDEEMED")


async def test_a_change_shows_the_points_as_of_then_whatever_became_of_them(shop: Shop) -> None:
    member, token, pools = await _member(shop, pools=2)
    await grant(shop, member, 50, "k-1")
    await shop.claim(pools[0], member)
    await grant(shop, member, -20, "k-2")
    await shop.claim(pools[1], member)
    await grant(shop, member, 5, "k-3")
    async with joined(address(shop), token) as socket:
        await socket.follow(0)
        changes = await socket.changes(5)

    assert [change["wallet"]["points"] for change in changes] == [50, 50, 30, 30, 35]
    entries = [change["entry"]["member"]["wallet"] for change in changes if change["entry"] is not None]
    assert entries == [{"version": 1, "points": 50}, {"version": 3, "points": 30}, {"version": 5, "points": 35}]


async def test_a_change_shows_the_code_as_of_then_whatever_became_of_it(shop: Shop) -> None:
    member, token, (pool,) = await _member(shop)
    code = await shop.claim(pool, member)
    redemption = (await shop.redeem([code["text"]], member))["redemptions"][0]
    await shop.do(REVERSE, redemptionId=redemption["id"], reason="returned", reinstate=True)
    await shop.do(REVOKE, codeId=code["id"], reason="leaked")
    async with joined(address(shop), token) as socket:
        await socket.follow(0)
        changes = await socket.changes(4)

    assert [(change["code"]["state"], change["wallet"]["version"]) for change in changes] == [
        ("ALLOCATED", 1),
        ("REDEEMED", 2),
        ("ALLOCATED", 3),
        ("REVOKED", 4),
    ]
    assert [change["code"]["redeemedAt"] is None for change in changes] == [True, False, True, True]


async def test_codes_of_one_order_are_changes_of_their_own(shop: Shop) -> None:
    member, token, pools = await _member(shop, pools=3, stacking="STACKABLE")
    codes = [await shop.claim(pool, member) for pool in pools]
    async with joined(address(shop), token) as socket:
        await socket.follow(3)
        await shop.redeem([code["text"] for code in codes], member)
        changes = await socket.changes(3)

    assert [change["version"] for change in changes] == [4, 5, 6]
    assert {change["code"]["id"] for change in changes} == {code["id"] for code in codes}
    assert {change["code"]["state"] for change in changes} == {"REDEEMED"}


async def test_a_member_is_told_of_its_own_wallet_only(shop: Shop, other_shop: Shop) -> None:
    member, token, (pool, second) = await _member(shop, pools=2)
    stranger, _, _ = await _member(shop)
    foreigner, _, (foreign,) = await _member(other_shop)
    async with joined(address(shop), token) as socket:
        await socket.follow(0)
        await shop.claim(pool, stranger)
        await other_shop.claim(foreign, foreigner)
        await shop.claim(second, member)
        change = await socket.change()

    assert (change["version"], change["code"]["pool"]["id"]) == (1, second["id"])
    assert change["wallet"]["member"]["id"] == member["id"]


async def test_all_sockets_of_a_member_are_told(shop: Shop) -> None:
    member, token, (pool,) = await _member(shop)
    async with joined(address(shop), token) as phone, joined(address(shop), token) as desk:
        for socket in (phone, desk):
            await socket.follow(0)
            await socket.follow(0, id="2")
        await shop.claim(pool, member)
        messages = [await socket.receive() for socket in (phone, phone, desk, desk)]

    assert sorted(message["id"] for message in messages) == ["1", "1", "2", "2"]
    assert [message["payload"] for message in messages] == [messages[0]["payload"]] * 4


@pytest.mark.parametrize("after", [-1, -(2**31), 2, 2**31 - 1])
async def test_a_version_that_the_wallet_does_not_have_is_unknown(shop: Shop, after: int) -> None:
    member, token, (pool,) = await _member(shop)
    await shop.claim(pool, member)
    async with joined(address(shop), token) as socket:
        await socket.follow(after)
        error = await socket.error()

    assert error["extensions"] == {"code": "VERSION_UNKNOWN", "version": 1}
    assert error["path"] == ["walletChanged"]


async def test_what_is_too_long_ago_is_gone_and_the_rest_is_not(shop: Shop) -> None:
    member, token, pools = await _member(shop, pools=3)
    for pool in pools:
        await shop.claim(pool, member)
    async with unguarded("event") as tx:
        await tx.row(AGE_EVENTS, shop.merchant_id, ids.decode("member", member["id"]), 91, 2)
        # As if it had been archived.
        await tx.row("DELETE FROM event WHERE merchant_id = $1 AND wallet_version = 1", shop.merchant_id)
    async with joined(address(shop), token) as socket:
        errors = []
        for after in (0, 1):
            await socket.follow(after)
            errors.append((await socket.error())["extensions"])
        await socket.follow(2)
        change = await socket.change()
        await socket.follow(3, id="2")

    assert errors == [{"code": "HISTORY_GONE", "version": 3}] * 2
    assert change["version"] == 3


@pytest.mark.parametrize("role", ["ADMIN", "CHECKOUT", "ANALYST"])
async def test_keys_have_no_wallet_to_follow(shop: Shop, role: str) -> None:
    async with joined(address(shop), await shop.key(role)) as socket:
        await socket.follow()
        error = await socket.error()

    assert error["extensions"]["code"] == "FORBIDDEN"


async def test_a_field_that_is_not_for_members_is_an_error_within_the_change(shop: Shop) -> None:
    member, token, pools = await _member(shop, pools=2)
    document = "subscription { walletChanged(after: 0) { version code { pool { stock { total } } } } }"
    async with joined(address(shop), token) as socket:
        await socket.subscribe(document)
        for pool in pools:
            await shop.claim(pool, member)
        payloads = [(await socket.receive())["payload"] for _ in pools]

    assert [payload["data"]["walletChanged"] for payload in payloads] == [
        {"version": 1, "code": None},
        {"version": 2, "code": None},
    ]
    assert [payload["errors"][0]["extensions"]["code"] for payload in payloads] == ["FORBIDDEN"] * 2


async def test_what_resolvers_load_is_as_of_each_change(shop: Shop) -> None:
    member, token, pools = await _member(shop, pools=3)
    document = """
    subscription { walletChanged(after: 0) { version wallet { codes { edges { node { id } } } } } }
    """
    counted = []
    async with joined(address(shop), token) as socket:
        await socket.subscribe(document)
        for pool in pools:
            await shop.claim(pool, member)
            change = await socket.change()
            counted.append((change["version"], len(change["wallet"]["codes"]["edges"])))

    assert counted == [(1, 1), (2, 2), (3, 3)]


async def test_many_changes_at_once_come_once_and_in_order(shop: Shop) -> None:
    member, token, (pool,) = await _member(shop, codes=60, claimsPerMember=60)
    async with joined(address(shop), token) as socket:
        await socket.follow(0)
        await asyncio.gather(*(shop.claim(pool, member, idempotencyKey=f"k-{number}") for number in range(60)))
        versions = [change["version"] for change in await socket.changes(60)]

    assert versions == list(range(1, 61))


async def test_a_subscription_that_was_completed_is_silent(shop: Shop) -> None:
    member, token, (pool, second) = await _member(shop, pools=2)

    async def versions(socket: Socket) -> list[tuple[str, int]]:
        message = await socket.receive()
        return [(message["id"], message["payload"]["data"]["walletChanged"]["version"])]

    async with joined(address(shop), token) as socket:
        await socket.follow(0, id="ended")
        await socket.follow(0, id="going on")
        await shop.claim(pool, member)
        first = sorted(await versions(socket) + await versions(socket))
        await socket.send(type="complete", id="ended")
        await socket.send(type="ping")
        assert await socket.receive() == {"type": "pong"}
        await shop.claim(second, member)
        then = await versions(socket)
        await socket.follow(0, id="ended")
        again = await versions(socket) + await versions(socket)

    assert first == [("ended", 1), ("going on", 1)]
    assert then == [("going on", 2)]
    assert again == [("ended", 1), ("ended", 2)]
