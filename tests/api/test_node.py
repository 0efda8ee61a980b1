"""Reading nodes again. Without these an id could name nothing, or open more than the answer that showed it.

Walks the schema as every role, on a shop that has some of everything, and reads again whatever any answer showed. An id
that an answer only names (an event's subject, the pools that an exhausted one tried) showed nothing.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, get_args

import pytest
import pytest_asyncio
from graphql import (
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLUnionType,
    get_named_type,
    get_nullable_type,
    is_leaf_type,
    is_required_argument,
)

from app import ids, schema
from app.api.access import ACCESS, Otherwise
from app.api.context import Role
from app.api.node import REFETCHES
from app.web.graphql_documents import SCHEMA
from tests.advisor.documents import advised
from tests.conftest import Api
from tests.factories import CHANGE_STATUS, CREATE_API_KEY, CREATE_CAMPAIGN, GENERATE_CODES, Shop, open_shop
from tests.graph.documents import taken
from tests.orders.holding import hold
from tests.points.documents import RETIRE_REWARD, purchase, redeem, reward
from tests.referrals.documents import accepted, invited, program
from tests.web.test_event_streams import streaming
from tests.web.walk import Operation, operations
from tests.webhooks.documents import delivery_made

DEPTH = 4
PAGE_SIZE = 4
#: How many nodes one document reads again.
NODES_PER_DOCUMENT = 20
#: Types that a path may come through more than once, so that a member is met from the other side of its referral.
PER_PATH_MAX = 2


def _members_of(kind: GraphQLObjectType, role: Role) -> Iterator[tuple[str, str, GraphQLNamedType]]:
    """Yield each field that a role may select without arguments: its name, how to ask for it, and its type."""
    for name, field in kind.fields.items():
        rule = ACCESS.get(f"{kind.name}.{name}")
        is_open = rule is None or role in rule or rule.otherwise is not Otherwise.FORBIDDEN
        if is_open and not any(is_required_argument(argument) for argument in field.args.values()):
            yield name, f"{name}(first: {PAGE_SIZE})" if "first" in field.args else name, get_named_type(field.type)


def shown(kind: GraphQLNamedType, role: Role, depth: int, path: Counter[str] | None = None) -> str:
    """Return a selection of all that a role may read of a type, down to a depth."""
    if isinstance(kind, GraphQLUnionType | GraphQLInterfaceType):
        kinds = SCHEMA.get_possible_types(kind)
        return f"{{ __typename {' '.join(f'... on {each.name} {shown(each, role, depth)}' for each in kinds)} }}"
    assert isinstance(kind, GraphQLObjectType)
    path = (path or Counter()) + Counter([kind.name])
    parts = ["__typename"]
    for _, asked, named in _members_of(kind, role):
        if is_leaf_type(named):
            parts.append(asked)
        elif depth and path[named.name] < PER_PATH_MAX:
            # A list's own levels are none.
            is_list = named.name.endswith(("Connection", "Edge"))
            parts.append(f"{asked} {shown(named, role, depth - (not is_list), path)}")
    return f"{{ {' '.join(parts)} }}"


@dataclass(frozen=True)
class Seen:
    """A node as an answer showed it."""

    kind: str
    id: str
    plain: tuple[tuple[str, Any], ...]


def seen(answer: Any) -> Iterator[Seen]:
    """Yield every node in an answer, with its plain fields."""
    if isinstance(answer, list):
        for each in answer:
            yield from seen(each)
    elif isinstance(answer, dict):
        kind = SCHEMA.type_map.get(answer.get("__typename", ""))
        if isinstance(kind, GraphQLObjectType) and SCHEMA.type_map["Node"] in kind.interfaces:
            plain = [name for name in sorted(kind.fields) if is_leaf_type(get_nullable_type(kind.fields[name].type))]
            yield Seen(kind.name, answer["id"], tuple((name, answer[name]) for name in plain))
        for value in answer.values():
            yield from seen(value)


@dataclass(frozen=True)
class World:
    """A filled shop: the callers, and an id of every kind for the operations that take one."""

    shop: Shop
    callers: dict[str, tuple[Role, str]]
    known: dict[ids.Kind, str]
    #: What no answer shows to the first of the members.
    foreign: dict[ids.Kind, str]
    #: What that member can do.
    inputs: dict[str, dict[str, Any]]


#: A member that brought another one and was brought by a third; the one that it brought; and one that did nothing.
MEMBERS = ["MEMBER", "MEMBER who was brought", "MEMBER with nothing"]
#: Each caller, and what its queries must at least have shown for the test to mean something.
CALLERS = {
    "ADMIN": {
        "Webhook",
        "WebhookDelivery",
        "HeldReferral",
        "GraphSnapshot",
        "AdviceRun",
        "OfferSuggestion",
        "Campaign",
        "Event",
    },
    "CHECKOUT": {"Pool", "Code", "Redemption", "Member", "Wallet", "PointsEntry", "Reward", "Invite", "Referral"},
    "SUPPORT": {
        "HeldReferral",
        "Member",
        "Wallet",
        "PointsEntry",
        "Code",
        "Redemption",
        "Event",
        "Campaign",
        "Referral",
    },
    "ANALYST": {"HeldReferral", "GraphSnapshot", "AdviceRun", "Event", "Redemption"},
    "MEMBER": {"Merchant", "Member", "Wallet", "Code", "Pool", "PointsEntry", "Reward", "Invite", "Referral"},
    "MEMBER who was brought": {"Merchant", "Member", "Wallet", "Pool", "PointsEntry", "Reward", "Referral"},
    "MEMBER with nothing": {"Merchant", "Member", "Wallet", "Pool", "Reward"},
}
REVERSE = 'mutation ($id: ID!) { reverseRedemption(input: { redemptionId: $id, reason: "returned" }) { __typename } }'
REVOKE = 'mutation ($id: ID!) { revokeCode(input: { codeId: $id, reason: "lost" }) { __typename } }'


async def _filled(shop: Shop) -> World:
    await program(shop)
    top = await shop.member(displayName="Hidden top", email="hidden-top@example.com", emailVerified=True)
    me = (await accepted(shop, top, displayName="Hidden me", externalId="hidden-me"))["member"]
    brought = await accepted(shop, me, displayName="Hidden friend", externalId="hidden-friend")
    stranger = await shop.member(displayName="Hidden stranger", email="hidden-stranger@example.com")
    invite, _ = await invited(shop, me)
    fallback = await shop.pool(codes=20, name="Fallback", claimsPerMember=9)
    pool = await shop.pool(name="Pool", fallbackPoolId=fallback["id"])
    for member in (stranger, me):
        claimed = await shop.claim(pool, member)
        bought = await purchase(shop, member, f"order of {member['id']}", 900_000)
    redeemed = (await shop.redeem([claimed["text"]], me))["redemptions"][0]
    await shop.data(REVERSE, {"id": redeemed["id"]})
    carts = [
        await hold(shop, [await shop.claim(await shop.pool(name="Held"), each)], each, order=f"cart of {each['id']}")
        for each in (me, stranger)
    ]
    revoked = await shop.claim(await shop.pool(name="Revoked"), me)
    await shop.data(REVOKE, {"id": revoked["id"]})
    empty = await shop.pool(codes=0, active=False, name="Empty", fallbackPoolId=fallback["id"])
    batch = (await shop.do(GENERATE_CODES, poolId=empty["id"], count=1))["batch"]
    await shop.do(CHANGE_STATUS % "activatePool", poolId=empty["id"])
    retired = await reward(shop, name="Retired", cost=10, poolId=empty["id"])
    theirs = (await redeem(shop, retired, stranger, "theirs"))["redemption"]
    # Its code is one of the fallback pool.
    mine = (await redeem(shop, retired, me, "mine"))["redemption"]
    await shop.do(RETIRE_REWARD, rewardId=retired["id"])
    never_had = await reward(shop, name="Never had")
    await shop.do(RETIRE_REWARD, rewardId=never_had["id"])
    backed = await reward(shop, name="Backed", cost=10, poolId=(await shop.pool(name="Backs a reward"))["id"])
    await program(shop, reviewPolicy="ALL")
    await accepted(shop, me)
    held = "{ heldReferrals { edges { node { id } } } }"
    held_id = (await shop.data(held))["heldReferrals"]["edges"][0]["node"]["id"]
    await program(shop, reviewPolicy="NONE")
    recipients = [{"memberId": me["id"]}, {"email": "hidden-recipient@example.com"}]
    sent_of = await shop.pool(name="Sent")
    campaign = await shop.do(CREATE_CAMPAIGN, name="Spring", poolId=sent_of["id"], recipients=recipients)
    snapshot, advice = await taken(shop), await advised(shop)
    webhook_id, delivery_id = await delivery_made(shop)
    api_key = (await shop.do(CREATE_API_KEY, label="hidden", role="ANALYST"))["apiKey"]
    last_event = (await shop.data("{ events(first: 1) { edges { node { id } } } }"))["events"]["edges"][0]["node"]
    nobody = await shop.member()
    tokens = [await shop.token(member["id"]) for member in (me, brought["member"], nobody)]
    callers = {name: (Role.MEMBER, token) for name, token in zip(MEMBERS, tokens, strict=True)}
    callers |= {role.value: (role, await shop.key(role.value)) for role in Role if role is not Role.MEMBER}
    found: dict[ids.Kind, str] = {
        "advicerun": advice["id"], "apikey": api_key["id"], "batch": batch["id"],
        "campaign": campaign["campaign"]["id"], "code": claimed["id"], "entry": mine["entry"]["id"],
        "event": last_event["id"], "graph": snapshot["id"], "graphjob": snapshot["id"].replace("graph_", "graphjob_"),
        "hold": carts[0]["id"], "invite": invite["id"], "member": me["id"],
        "merchant": ids.encode("merchant", shop.merchant_id),
        "pool": fallback["id"], "purchase": bought["purchase"]["id"], "redemption": redeemed["id"],
        "referral": brought["referral"]["id"], "reward": retired["id"], "rewardredemption": mine["id"],
        "suggestion": advice["suggestions"][0]["id"],
        "wallet": me["id"].replace("member", "wallet"), "webhook": webhook_id, "webhookdelivery": delivery_id,
    }  # fmt: skip
    foreign = found | {
        "code": theirs["code"]["id"], "entry": theirs["entry"]["id"], "hold": carts[1]["id"], "member": stranger["id"],
        "pool": (await shop.pool(name="Nobody's"))["id"], "referral": held_id, "reward": never_had["id"],
        "rewardredemption": theirs["id"], "wallet": stranger["id"].replace("member", "wallet"),
    }  # fmt: skip
    for own in ("invite", "merchant", "purchase"):
        del foreign[own]
    inputs = {
        "cancelInvite": {"inviteId": invite["id"]},
        "claimCode": {"poolId": fallback["id"], "idempotencyKey": "another"},
        "inviteMembers": {"emails": ["hidden-invitee@example.com"]},
        "redeemReward": {"rewardId": backed["id"], "idempotencyKey": "another"},
    }
    return World(shop, callers, found, foreign, inputs)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(api: Api, database_pool: Any) -> AsyncIterator[World]:
    """A filled shop; tests add to it at most."""
    async with open_shop(f"{api.url}/graphql") as shop:
        yield await _filled(shop)


async def _read_again(world: World, caller: str, nodes: set[Seen]) -> None:
    """Read nodes again. None may be missing, and none may show what the answer that they are of didn't."""
    role, key = world.callers[caller]
    each = sorted(nodes, key=lambda node: (node.id, repr(node.plain)))
    for start in range(0, len(each), NODES_PER_DOCUMENT):
        some = each[start : start + NODES_PER_DOCUMENT]
        asked = [
            f'n{number}: node(id: "{node.id}") {{ ... on {node.kind} {shown(SCHEMA.type_map[node.kind], role, 0)} }}'
            for number, node in enumerate(some)
        ]
        answer = await world.shop.data(f"{{ {' '.join(asked)} }}", key=key)
        for number, node in enumerate(some):
            again = answer[f"n{number}"]
            assert again is not None, f"{caller} saw {node}"
            for name, value in node.plain:
                assert again[name] in (value, None), f"{caller} saw {node}, and reads {again}"


def _asked(operation: Operation, role: Role) -> str:
    arguments = {name: argument for name, argument in operation.field.args.items() if name != "first"}
    # What has a default may be left out, also where it can't be null.
    declared = ", ".join(
        f"${name}: {argument.type if is_required_argument(argument) else str(argument.type).removesuffix('!')}"
        for name, argument in arguments.items()
    )
    passed = [f"{name}: ${name}" for name in arguments]
    if "first" in operation.field.args:
        passed.append(f"first: {PAGE_SIZE}")
    called = f"{operation.name}({', '.join(passed)})" if passed else operation.name
    selected = shown(get_named_type(operation.field.type), role, DEPTH)
    return f"{operation.root.lower()} Walk{f'({declared})' if declared else ''} {{ answer: {called} {selected} }}"


async def _shown_by_queries(world: World, caller: str) -> set[Seen]:
    role, key = world.callers[caller]
    nodes: set[Seen] = set()
    for operation in operations("Query"):
        if role in ACCESS[operation.coordinate] and operation.name not in {"node", "checkCodes"}:
            answer = await world.shop.data(_asked(operation, role), operation.variables(world.known), key=key)
            nodes.update(seen(answer))
    return nodes


def test_every_kind_of_id_can_be_read_again() -> None:
    assert schema.schema is not None
    assert sorted(REFETCHES) == sorted(get_args(ids.Kind))


@pytest.mark.parametrize("caller", list(CALLERS))
async def test_what_a_query_shows_is_read_again_and_not_more_of_it(world: World, caller: str) -> None:
    nodes = await _shown_by_queries(world, caller)

    await _read_again(world, caller, nodes)
    assert {node.kind for node in nodes} >= CALLERS[caller]


async def test_what_a_members_own_mutations_show_is_read_again(world: World) -> None:
    role, key = world.callers["MEMBER"]
    mine = [operation for operation in operations("Mutation") if role in ACCESS[operation.coordinate]]

    for operation in mine:
        answer = await world.shop.data(_asked(operation, role), {"input": world.inputs[operation.name]}, key=key)
        assert answer["answer"]["__typename"].endswith("Success"), answer
        await _read_again(world, "MEMBER", set(seen(answer)))


async def test_what_a_stream_shows_is_read_again(world: World) -> None:
    role, key = world.callers["MEMBER"]
    (operation,) = [each for each in operations("Subscription") if each.name == "walletChanged"]
    version = (await world.shop.data("{ wallet { version } }", key=key))["wallet"]["version"]
    nodes: set[Seen] = set()
    async with streaming(world.shop, key, _asked(operation, role), after=0) as events:
        for _ in range(version):
            _, told = await events.next()
            # As they were then: only that they are there is compared.
            nodes |= {Seen(node.kind, node.id, ()) for node in seen(told["data"])}

    await _read_again(world, "MEMBER", nodes)
    assert {node.kind for node in nodes} >= {"Event", "Code", "Pool", "PointsEntry", "Member", "Wallet"}


async def test_what_nothing_shows_a_member_stays_hidden(world: World) -> None:
    everything = [*world.known.items(), *world.foreign.items()]

    for caller, hidden in (("MEMBER", world.foreign.items()), ("MEMBER with nothing", everything)):
        for kind, node_id in hidden:
            document = "query ($id: ID!) { node(id: $id) { id } }"
            found = (await world.shop.data(document, {"id": node_id}, key=world.callers[caller][1]))["node"]
            assert (found is not None) == (kind == "merchant"), (caller, kind)


async def test_another_member_of_a_referral_is_shown_without_what_tells_who_it_is(world: World) -> None:
    document = """
    {
      referrals { edges { node { referee { id } refereeEntry { id balanceAfter member { wallet { id } } } } } }
      viewer { member { referredBy { referrer { id wallet { id } } referrerEntry { id balanceAfter } } } }
    }
    """
    again = """
    query ($member: ID!, $entry: ID!) {
      member: node(id: $member) {
        ... on Member { externalId displayName maskedEmail wallet { id } referredBy { id } }
      }
      entry: node(id: $entry) {
        ... on PointsEntry { amount balanceAfter member { externalId displayName maskedEmail wallet { id } } }
      }
      byId: member(id: $member) { id }
    }
    """
    key = world.callers["MEMBER"][1]
    unnamed = {"externalId": None, "displayName": None, "maskedEmail": None, "wallet": None}

    answer = await world.shop.data(document, key=key)
    below = answer["referrals"]["edges"][0]["node"]
    above = answer["viewer"]["member"]["referredBy"]

    assert below["refereeEntry"] | {"id": None} == {"id": None, "balanceAfter": None, "member": {"wallet": None}}
    assert above["referrer"]["wallet"] is None
    assert above["referrerEntry"]["balanceAfter"] is None
    for member, entry, amount in (
        (below["referee"], below["refereeEntry"], 50), (above["referrer"], above["referrerEntry"], 100)
    ):  # fmt: skip
        assert await world.shop.data(again, {"member": member["id"], "entry": entry["id"]}, key=key) == {
            "member": unnamed | {"referredBy": None},
            "entry": {"amount": amount, "balanceAfter": None, "member": unnamed},
            "byId": None,
        }
