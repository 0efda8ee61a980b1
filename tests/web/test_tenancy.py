"""Tenancy. Without these an id of another merchant or member could be read, used, or told from one that isn't there.

Walks the schema: every argument and input field of type ID gets the ids of another merchant's nodes of every kind.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio
from graphql import get_named_type

from app import ids
from app.api.context import Role
from app.storage.database import database
from tests.advisor.documents import advised
from tests.conftest import Api
from tests.factories import CREATE_API_KEY, CREATE_CAMPAIGN, GENERATE_CODES, REDEEM_CODES, Shop, open_shop, usd
from tests.graph.documents import taken
from tests.jobs.documents import CANCEL, FILL
from tests.orders.documents import order_of
from tests.orders.holding import hold
from tests.points.documents import purchase, redeem, refund, reward
from tests.referrals.documents import accepted, invited, program
from tests.sizes import size
from tests.web.walk import Operation, operations, placed
from tests.webhooks.documents import delivery_made

World = tuple[Shop, dict[ids.Kind, str]]
#: How many kinds of ids are tried at a place beside the one that it is for; each is tried at some places.
OTHER_KINDS = size(1, len(ids.Kind.__args__))  # type: ignore[attr-defined]
#: What a member has of its own, or sees of others.
KINDS_OF_MEMBERS: tuple[ids.Kind, ...] = (
    "member", "wallet", "code", "redemption", "event", "apikey", "batch", "entry", "purchase", "refund",
    "rewardredemption", "hold", "invite", "referral", "webhook", "webhookdelivery",
)  # fmt: skip
PLACES = [(operation, path) for operation in operations() for path in operation.id_paths()]
ID_PLACES = [
    pytest.param(operation, path, id=f"{operation.coordinate}({'.'.join(path)})") for operation, path in PLACES
]


async def _world(shop: Shop) -> dict[ids.Kind, str]:
    """Make one node of every kind and return their ids."""
    pool = await shop.pool(codes=0, active=False, name="Hidden pool")
    batch = (await shop.do(GENERATE_CODES, poolId=pool["id"], count=5))["batch"]
    await shop.data("mutation ($id: ID!) { activatePool(input: { poolId: $id }) { __typename } }", {"id": pool["id"]})
    member = await shop.member(displayName="Hidden", email="hidden@example.com", emailVerified=True)
    code = await shop.claim(pool, member)
    redeemed = await shop.do(
        REDEEM_CODES, codes=[code["text"]], orderId="hidden", orderAmount=usd(1000), memberId=member["id"]
    )
    cart = await hold(shop, [await shop.claim(await shop.pool(), member)], member)
    campaign = await shop.do(
        CREATE_CAMPAIGN, name="Hidden", poolId=pool["id"], recipients=[{"email": "hidden-too@example.com"}]
    )
    bought = await purchase(shop, member, "hidden", 50_000)
    returned = await refund(shop, "hidden", "part", 100)
    prize = await reward(shop, name="Hidden reward", cost=100)
    draft = await shop.pool(codes=0, active=False)
    filling = await shop.do(FILL, poolId=draft["id"], available=1, idempotencyKey="hidden")
    # No worker is to come by it.
    await shop.data(CANCEL, {"input": filling["job"]["id"]})
    exchanged = (await redeem(shop, prize, member, "hidden"))["redemption"]
    await program(shop, reviewPolicy="ALL")
    await accepted(shop, member)
    await program(shop, reviewPolicy="NONE")
    invite, _ = await invited(shop, member)
    brought = (await accepted(shop, member, displayName="Hidden too"))["referral"]
    snapshot = await taken(shop)
    key = (await shop.do(CREATE_API_KEY, label="hidden", role="ANALYST"))["apiKey"]
    event = await database().row("SELECT id FROM event WHERE merchant_id = $1 ORDER BY id DESC", shop.merchant_id)
    assert event is not None
    advice = await advised(shop)
    webhook_id, delivery_id = await delivery_made(shop)
    return {
        "advicerun": advice["id"],
        "apikey": key["id"],
        "batch": batch["id"],
        "campaign": campaign["campaign"]["id"],
        "code": code["id"],
        "entry": exchanged["entry"]["id"],
        "event": ids.encode("event", event["id"]),
        "graph": snapshot["id"],
        "graphjob": snapshot["id"].replace("graph_", "graphjob_"),
        "hold": cart["id"],
        "invite": invite["id"],
        "job": filling["job"]["id"],
        "member": member["id"],
        "order": (await order_of(shop, "hidden"))["id"],
        "merchant": ids.encode("merchant", shop.merchant_id),
        "pool": pool["id"],
        "purchase": bought["purchase"]["id"],
        "refund": returned["purchase"]["refunds"][0]["id"],
        "redemption": redeemed["redemptions"][0]["id"],
        "referral": brought["id"],
        "reward": prize["id"],
        "rewardredemption": exchanged["id"],
        "suggestion": advice["suggestions"][0]["id"],
        "wallet": member["wallet"]["id"],
        "webhook": webhook_id,
        "webhookdelivery": delivery_id,
    }


def _without(answer: dict[str, Any], echoed: str) -> str:
    return str(answer).replace(echoed, "ECHOED")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def worlds(api: Api, database_pool: Any) -> AsyncIterator[tuple[World, World]]:
    """Two merchants that have one of everything; made once, as tests leave them as they are."""
    url = f"{api.url}/graphql"
    async with open_shop(url) as mine, open_shop(url) as theirs:
        yield (mine, await _world(mine)), (theirs, await _world(theirs))


def _kinds(operation: Operation, path: tuple[str, ...], among: Sequence[ids.Kind]) -> list[ids.Kind]:
    """Return the kind that a place is for and some others, which are others at the next place."""
    first = OTHER_KINDS * PLACES.index((operation, path))
    others = [among[(first + number) % len(among)] for number in range(min(OTHER_KINDS, len(among)))]
    return list(dict.fromkeys(each for each in (operation.kind_of(path[-1]), *others) if each in among))


def _codes(answer: dict[str, Any]) -> set[str]:
    return {error["extensions"]["code"] for error in answer.get("errors", [])}


async def test_a_world_has_a_node_of_every_kind_and_its_owner_reads_them_all(shop: Shop) -> None:
    world = await _world(shop)

    for kind, node_id in world.items():
        assert (await shop.data("query ($id: ID!) { node(id: $id) { id } }", {"id": node_id}))["node"] == {
            "id": node_id
        }, kind
    assert set(world) == set(ids.Kind.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("operation", "path"), ID_PLACES)
async def test_another_merchants_id_reads_as_a_missing_one_and_writes_nothing(
    worlds: tuple[World, World], operation: Operation, path: tuple[str, ...]
) -> None:
    (shop, mine), (other_shop, theirs) = worlds
    member_id = ids.decode("member", mine["member"])
    callers: dict[Role, str] = {role: await shop.key(role.value) for role in Role if role is not Role.MEMBER}
    callers[Role.MEMBER] = await shop.token(mine["member"])
    before = await shop.state(), await other_shop.state()
    assert member_id is not None

    for role, key in callers.items():
        for kind in _kinds(operation, path, list(theirs)):
            answers = []
            for node_id in (theirs[kind], ids.encode(kind, ids.new())):
                variables = placed(operation.variables(mine), path, node_id)
                answer = await shop.post(operation.document(role=role), variables, key=key)
                assert _codes(answer) <= {"FORBIDDEN"}, answer
                answers.append(_without(answer, node_id))
            assert answers[0] == answers[1], (kind, role)
            assert "Hidden" not in answers[0]
    assert (await shop.state(), await other_shop.state()) == before


@pytest.mark.parametrize(("operation", "path"), ID_PLACES)
async def test_another_members_id_reads_as_a_missing_one_to_a_member(
    worlds: tuple[World, World], operation: Operation, path: tuple[str, ...]
) -> None:
    shop, theirs = worlds[0]
    me = await shop.member()
    mine: dict[ids.Kind, str] = theirs | {"member": me["id"], "wallet": me["wallet"]["id"]}
    token = await shop.token(me["id"])
    before = await shop.state()

    for kind in _kinds(operation, path, KINDS_OF_MEMBERS):
        answers = []
        for node_id in (theirs[kind], ids.encode(kind, ids.new())):
            variables = placed(operation.variables(mine), path, node_id)
            answer = await shop.post(operation.document(role=Role.MEMBER), variables, key=token)
            assert _codes(answer) <= {"FORBIDDEN"}, answer
            answers.append(_without(answer, node_id))
        assert answers[0] == answers[1], kind
        assert "Hidden" not in answers[0]
    assert await shop.state() == before


async def test_lists_hold_nothing_of_another_merchant(shop: Shop, other_shop: Shop) -> None:
    _, theirs = await _world(shop), await _world(other_shop)
    fields = [
        operation.name
        for operation in operations("Query")
        # Offers are a member's, and have no id: tests/coupons/test_offers.py.
        if get_named_type(operation.field.type).name.endswith("Connection") and operation.name != "offers"
    ]

    assert {
        "pools",
        "codes",
        "redemptions",
        "members",
        "events",
        "pointsEntries",
        "rewards",
        "invites",
        "referrals",
        "reportCodes",
        "webhooks",
        "webhookDeliveries",
    } <= set(fields)
    for name in fields:
        document = f"{{ answer: {name}(first: 100) {{ edges {{ node {{ id }} }} }} }}"
        listed, others = [
            {edge["node"]["id"] for edge in (await each.data(document))["answer"]["edges"]}
            for each in (shop, other_shop)
        ]
        assert listed
        assert not listed & (others | set(theirs.values()))


async def test_another_merchants_cursor_shows_nothing_of_it(shop: Shop, other_shop: Shop) -> None:
    await _world(shop)
    await _world(other_shop)
    document = "query ($after: String) { members(after: $after) { edges { cursor node { id } } } }"
    cursor = (await other_shop.data(document))["members"]["edges"][0]["cursor"]

    own, theirs, listed = [
        {edge["node"]["id"] for edge in (await each.data(document, {"after": after}))["members"]["edges"]}
        for each, after in ((shop, None), (other_shop, None), (shop, cursor))
    ]

    assert listed <= own
    assert not listed & theirs


async def test_another_merchants_code_is_as_unknown_as_a_made_up_one(shop: Shop, other_shop: Shop) -> None:
    pool, member = await other_shop.pool(transferable=True), await other_shop.member()
    theirs = (await other_shop.claim(pool, member))["text"]
    before = await other_shop.state()

    answer = await shop.do(REDEEM_CODES, codes=[theirs], orderId="o-1", orderAmount=usd(1000))

    assert answer["__typename"] == "CodesRejected"
    assert [rejection["reason"] for rejection in answer["rejections"]] == ["UNKNOWN"]
    assert await other_shop.state() == before
