"""Who may call and read what. Without these a new operation could be open to everyone, or to nobody, unseen.

Walks the schema and the table: what is added to either is tested here without being named.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from graphql import GraphQLNonNull, GraphQLObjectType

from app import ids
from app.api.access import ACCESS, Otherwise
from app.api.context import Role
from app.config import Settings
from app.merchants.tenants import tenant
from app.operate.roles_page import page
from app.storage.database import database
from app.web.graphql_documents import SCHEMA
from tests.advisor.documents import advised
from tests.conftest import Api
from tests.factories import CREATE_CAMPAIGN, GENERATE_CODES, Shop, open_shop
from tests.graph.documents import taken
from tests.orders.documents import order_of
from tests.orders.holding import hold
from tests.points.documents import GRANT
from tests.referrals.documents import ACCEPT_INVITE, accepted, invited, program
from tests.web.walk import Operation, operations
from tests.webhooks.documents import delivery_made

#: What domain.md says about the roles, independently of the table in access.py.
MUTATIONS_OF_MEMBERS = {"claimCode", "redeemReward", "inviteMembers", "cancelInvite"}
MUTATIONS_OF_CHECKOUTS = {
    "claimCode", "redeemCodes", "reverseRedemption", "enrollMember", "verifyMemberEmail", "issueMemberToken",
    "recordPurchase", "refundPurchase", "reversePurchase", "redeemReward", "reverseRewardRedemption", "inviteMembers",
    "acceptInvite", "cancelInvite", "amendOrder", "cancelOrder",
    "holdCheckout", "captureHold", "releaseHold", "extendHold",
}  # fmt: skip
MUTATIONS_OF_SUPPORT = {
    "reverseRedemption", "refundPurchase", "reversePurchase", "reverseRewardRedemption", "verifyMemberEmail",
    "grantPoints", "revokeMemberTokens", "editMember", "mergeMembers", "amendOrder", "cancelOrder", "reissueCode",
    "eraseMember",
}  # fmt: skip
ROOTS = {"Query", "Mutation", "Subscription"}

#: Of each field that not everyone may read: what is selected on the object that has it.
SELECTED: Final = {
    "AdviceRun.rawAnswer": "rawAnswer",
    "Campaign.job": "job { id }",
    "Campaign.deliveries": "deliveries { pageInfo { hasNextPage } }",
    "CodeBatch.texts": "texts { pageInfo { hasNextPage } }",
    "Event.reason": "reason",
    "Invite.obstacle": "obstacle",
    "Member.displayName": "displayName",
    "Merchant.settings": "settings { timeZone }",
    "Pool.audience": "audience",
    "Pool.discountGiven": "discountGiven { amountMinor }",
    "Pool.maximumTotalDiscount": "maximumTotalDiscount { amountMinor }",
    "Pool.batches": "batches { pageInfo { hasNextPage } }",
    "Pool.codes": "codes { pageInfo { hasNextPage } }",
    "Pool.fallbackPool": "fallbackPool { id }",
    "Pool.stock": "stock { total }",
    "Pool.suggestion": "suggestion { id }",
}
#: Of those whose object has no id: where it is.
READ: Final = {
    "ReferralProgram.safeguards": "{ referralProgram { read: safeguards { reviewPolicy } } }",
    "Viewer.member": "{ viewer { read: member { id } } }",
}
REVERSE_WITH_A_REASON = """
mutation ($input: ReverseRedemptionInput!) { answer: reverseRedemption(input: $input) { __typename } }
"""


def _made_up() -> dict[ids.Kind, str]:
    return {kind: ids.encode(kind, ids.new()) for kind in ids.Kind.__args__}  # type: ignore[attr-defined]


async def _keys(shop: Shop) -> dict[Role, str]:
    keys = {role: await shop.key(role.value) for role in Role if role is not Role.MEMBER}
    return keys | {Role.MEMBER: await shop.token((await shop.member())["id"])}


def _is_field(coordinate: str) -> bool:
    owner, dot, _ = coordinate.partition(".")
    return bool(dot) and owner not in ROOTS


def test_every_operation_is_in_the_table() -> None:
    every = {operation.coordinate for operation in operations(*ROOTS)}

    assert every == {
        coordinate for coordinate in ACCESS if coordinate.partition(".")[0] in ROOTS and "(" not in coordinate
    }


@pytest.mark.parametrize("coordinate", ACCESS)
def test_a_rule_is_about_something_that_can_answer_as_it_says(coordinate: str) -> None:
    type_name, dot, field_name = coordinate.partition(".")
    kind = SCHEMA.get_type(type_name)
    rule = ACCESS[coordinate]

    assert isinstance(kind, GraphQLObjectType)
    assert rule.roles
    assert (rule.otherwise is Otherwise.MASKED) == (coordinate == "Member.displayName")
    if dot and rule.otherwise is Otherwise.NULL:
        assert not isinstance(kind.fields[field_name].type, GraphQLNonNull)
    if not dot:
        assert rule.otherwise is Otherwise.NULL
        assert "Node" in {interface.name for interface in kind.interfaces}


def test_an_admin_may_do_everything_but_what_only_a_member_has() -> None:
    closed = [coordinate for coordinate, rule in ACCESS.items() if Role.ADMIN not in rule]

    assert closed == [
        "Query.offers",
        "Subscription.walletChanged",
        "Query.wallet",
        "Query.inviteQuota",
        "Viewer.member",
    ]


def test_each_role_may_do_what_is_its_own_and_nothing_else() -> None:
    def may(role: Role) -> set[str]:
        return {operation.name for operation in operations("Mutation") if role in ACCESS[operation.coordinate]}

    assert may(Role.ANALYST) == {"checkIntegrity"}
    assert may(Role.MEMBER) == MUTATIONS_OF_MEMBERS
    assert may(Role.CHECKOUT) == MUTATIONS_OF_CHECKOUTS
    assert may(Role.SUPPORT) == MUTATIONS_OF_SUPPORT


def test_reasons_are_read_by_admin_and_support_alone() -> None:
    assert ACCESS["Event.reason"].roles == {Role.ADMIN, Role.SUPPORT}


def test_the_page_about_roles_is_current() -> None:
    assert (Path(__file__).parents[2] / "docs" / "roles.md").read_text() == page(), "run make roles"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def asked(api: Api, database_pool: Settings) -> AsyncIterator[tuple[Shop, dict[Role, str]]]:
    """A shop that is asked for everything, and a key of each role; keys of others are what a mutation may end."""
    async with open_shop(f"{api.url}/graphql") as shop:
        yield shop, await _keys(shop)


@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.coordinate)
async def test_a_role_that_is_not_allowed_is_forbidden_and_writes_nothing_and_another_is_not(
    asked: tuple[Shop, dict[Role, str]], operation: Operation
) -> None:
    shop, keys = asked
    rule = ACCESS[operation.coordinate]
    document = {role: operation.document(role=role) for role in Role}
    before = await shop.state()

    for role in set(Role) - rule.roles:
        answer = await shop.post(document[role], operation.variables(_made_up()), key=keys[role])
        codes = {(*error.get("path", []), error["extensions"]["code"]) for error in answer.get("errors", [])}
        if rule.otherwise is Otherwise.NULL:
            assert answer == {"data": {"answer": None}}
        else:
            assert codes == {("answer", "FORBIDDEN")}
            assert answer["errors"][0]["message"] == f"{operation.coordinate} is not for the role {role.value}."
            assert not (answer["data"] or {}).get("answer")
    assert await shop.state() == before
    for role in rule.roles:
        answer = await shop.post(document[role], operation.variables(_made_up()), key=keys[role])
        assert "errors" not in answer, answer


#: What lets a subscription that a role may follow end at once: it asks for what isn't there.
ENDS_AT_ONCE: Final[dict[str, dict[str, Any]]] = {
    "Subscription.adviceRunChanged": {},
    "Subscription.walletChanged": {"after": 1_000_000},
}


@pytest.mark.parametrize("operation", operations("Subscription"), ids=lambda operation: operation.coordinate)
async def test_a_subscription_begins_for_the_roles_that_may_follow_it(
    asked: tuple[Shop, dict[Role, str]], operation: Operation
) -> None:
    shop, keys = asked
    rule = ACCESS[operation.coordinate]
    variables = operation.variables(_made_up()) | ENDS_AT_ONCE[operation.coordinate]
    for role, key in keys.items():
        headers = {"accept": "text/event-stream", "authorization": f"Bearer {key}"}
        body = {"query": operation.document(role=role), "variables": variables}
        told = (await shop.http.post(shop.url, json=body, headers=headers)).text
        assert ("FORBIDDEN" in told) is (role not in rule), told
        assert ("NOT_FOUND" in told or "VERSION_UNKNOWN" in told) is (role in rule), told


@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.coordinate)
async def test_nobody_is_unauthenticated(asked: tuple[Shop, dict[Role, str]], operation: Operation) -> None:
    shop, _ = asked
    body = {"query": operation.document(), "variables": operation.variables(_made_up())}

    answer = (await shop.http.post(shop.url, json=body)).json()

    assert [error["extensions"]["code"] for error in answer["errors"]] == ["UNAUTHENTICATED"]
    assert answer.keys() == {"errors"}


async def _world(shop: Shop) -> tuple[dict[str, str], str]:
    """Make what the table's fields and types are about. Returns ids by type, and the token of a member that has it."""
    fallback = await shop.pool(codes=1)
    budget = {"amountMinor": 100_000, "currency": "USD"}
    run = await advised(shop)
    suggestion_id = run["suggestions"][0]["id"]
    pool = await shop.pool(
        codes=0,
        active=False,
        fallbackPoolId=fallback["id"],
        maximumTotalDiscount=budget,
        suggestionId=suggestion_id,
    )
    batch = (await shop.do(GENERATE_CODES, poolId=pool["id"], count=3))["batch"]
    await shop.data("mutation ($id: ID!) { activatePool(input: { poolId: $id }) { __typename } }", {"id": pool["id"]})
    member = await shop.member(displayName="Mia", email="mia@example.com", emailVerified=True)
    code = await shop.claim(pool, member)
    redeemed = (await shop.redeem([code["text"]], member))["redemptions"][0]
    await shop.do(REVERSE_WITH_A_REASON, redemptionId=redeemed["id"], reason="She told me why.")
    event = await database().row(
        "SELECT id FROM event WHERE merchant_id = $1 AND reason IS NOT NULL AND member_id IS NOT NULL",
        shop.merchant_id,
    )
    assert event is not None
    campaign = await shop.do(CREATE_CAMPAIGN, name="All", poolId=pool["id"], segment="NEW")
    job = await database().row("SELECT id FROM bulk_job WHERE merchant_id = $1", shop.merchant_id)
    assert job is not None
    await program(shop, reviewPolicy="ALL")
    await accepted(shop, member)
    held = await database().row("SELECT id FROM referral WHERE merchant_id = $1", shop.merchant_id)
    assert held is not None
    old = await shop.member()
    invite, email = await invited(shop, member)
    await shop.do(ACCEPT_INVITE, token=invite["token"], email=email, memberId=old["id"])
    snapshot = await taken(shop)
    cart = await hold(shop, [await shop.claim(await shop.pool(), member)], member)
    run_id, owner = ids.decode("advicerun", run["id"]), await tenant(shop.merchant_id)
    assert run_id is not None
    assert owner is not None
    await database().row(
        "UPDATE advice_run SET raw_answer = $3 WHERE merchant_id = $1 AND id = $2",
        shop.merchant_id, run_id, owner.keys.encrypt(run_id, "raw_answer", "Word for word."),
    )  # fmt: skip
    webhook_id, delivery_id = await delivery_made(shop)
    (key,) = await database().rows(
        "SELECT id FROM api_key WHERE merchant_id = $1 ORDER BY id LIMIT 1", shop.merchant_id
    )
    world = {
        "AdviceRun": run["id"],
        "BulkJob": ids.encode("job", job["id"]),
        "ApiKey": ids.encode("apikey", key["id"]),
        "Campaign": campaign["campaign"]["id"],
        "CodeBatch": batch["id"],
        "Event": ids.encode("event", event["id"]),
        "GraphSnapshot": snapshot["id"],
        "GraphSnapshotJob": snapshot["id"].replace("graph_", "graphjob_"),
        "Hold": cart["id"],
        "HeldReferral": ids.encode("referral", held["id"]),
        "Invite": invite["id"],
        "Member": member["id"],
        "Merchant": ids.encode("merchant", shop.merchant_id),
        "OfferSuggestion": suggestion_id,
        "Order": (await order_of(shop, redeemed["orderId"]))["id"],
        "Pool": pool["id"],
        "Redemption": redeemed["id"],
        "Webhook": webhook_id,
        "WebhookDelivery": delivery_id,
    }
    return world, await shop.token(member["id"])


def _asks(coordinate: str, world: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """Return the document that reads a type or a field of the table, as `read`, and its variables."""
    if coordinate in READ:
        return READ[coordinate], {}
    owner, dot, _ = coordinate.partition(".")
    if not dot:
        return "query ($id: ID!) { read: node(id: $id) { __typename } }", {"id": world[owner]}
    selected = f"node(id: $id) {{ ... on {owner} {{ read: {SELECTED[coordinate]} }} }}"
    return f"query ($id: ID!) {{ {selected} }}", {"id": world[owner]}


def _read(answer: dict[str, Any]) -> Any:
    """Return what was read, or None where it or what it is on can't be."""
    data = answer.get("data") or {}
    return data["read"] if "read" in data else (next(iter(data.values()), None) or {}).get("read")


def test_every_guarded_field_is_walked() -> None:
    assert {coordinate for coordinate in ACCESS if _is_field(coordinate)} == {*SELECTED, *READ}


async def test_every_role_reads_the_fields_and_finds_the_types_that_the_table_says(shop: Shop) -> None:
    world, token = await _world(shop)
    keys = await _keys(shop) | {Role.MEMBER: token}
    wrong: list[tuple[str, str, Any]] = []

    for coordinate, rule in ACCESS.items():
        if coordinate.partition(".")[0] in ROOTS:
            continue
        document, variables = _asks(coordinate, world)
        for role, key in keys.items():
            answer = await shop.post(document, variables, key=key)
            codes = [error["extensions"]["code"] for error in answer.get("errors", [])]
            read = _read(answer)
            if role in rule:
                is_right = codes == [] and read not in (None, "M•••")
            elif rule.otherwise is Otherwise.MASKED:
                is_right = codes == [] and read == "M•••"
            else:
                # What can't be found by its id shows none of its fields either.
                is_found = _may_be_found(coordinate, role)
                forbidden = rule.otherwise is Otherwise.FORBIDDEN and is_found
                is_right = read is None and codes == (["FORBIDDEN"] if forbidden else [])
            if not is_right:
                wrong.append((coordinate, role.value, answer))

    assert wrong == []


def _may_be_found(coordinate: str, role: Role) -> bool:
    """Whether a role finds the object of a field by its id."""
    rule = ACCESS.get(coordinate.partition(".")[0])
    return rule is None or role in rule


async def test_an_alias_or_a_fragment_opens_no_door(shop: Shop) -> None:
    token = await shop.token((await shop.member())["id"])
    document = """
    query { viewer: members { edges { cursor } } }
    """
    spread = "query { ...f } fragment f on Query { wallet: pools { edges { cursor } } }"

    assert await shop.error_code(document, key=token) == "FORBIDDEN"
    assert await shop.error_code(spread, key=token) == "FORBIDDEN"


async def test_a_forbidden_field_beside_an_allowed_one_is_still_forbidden(shop: Shop) -> None:
    token = await shop.token((await shop.member())["id"])

    answer = await shop.post("{ wallet { version } events { edges { cursor } } }", key=token)

    assert answer["data"] is None
    assert [error["extensions"]["code"] for error in answer["errors"]] == ["FORBIDDEN"]


CLAIM_AND = """
mutation Claim($input: ClaimCodeInput!, $stock: Boolean! = true) {
  claimCode(input: $input) { ... on ClaimCodeSuccess { code { state @include(if: $stock) %s } } }
}
"""
LOSING = [
    pytest.param(CLAIM_AND % "pool { stock { total } }", "Pool.stock", id="field"),
    pytest.param(CLAIM_AND % "pool { left: stock { total } }", "Pool.stock", id="alias"),
    pytest.param(CLAIM_AND % "pool { ... { codes { pageInfo { hasNextPage } } } }", "Pool.codes", id="inline fragment"),
    pytest.param(CLAIM_AND % "pool { ...f }" + "fragment f on Pool { stock { total } }", "Pool.stock", id="fragment"),
    pytest.param(CLAIM_AND % "pool { stock @include(if: $stock) { total } }", "Pool.stock", id="included by default"),
    pytest.param(
        CLAIM_AND % "id" + 'mutation Other { activatePool(input: { poolId: "" }) { __typename } }', None, id="other"
    ),
    pytest.param(
        CLAIM_AND.replace("claimCode", 'second: activatePool(input: { poolId: "" }) { __typename } claimCode') % "id",
        "Mutation.activatePool",
        id="second mutation",
    ),
]


@pytest.mark.parametrize(("document", "coordinate"), LOSING)
async def test_a_mutation_whose_answer_would_be_lost_does_nothing(
    shop: Shop, document: str, coordinate: str | None
) -> None:
    pool, member = await shop.pool(), await shop.member()
    token = await shop.token(member["id"])
    body = {"query": document, "variables": {"input": {"poolId": pool["id"]}}, "operationName": "Claim"}
    before = await shop.state()

    answer = (await shop.http.post(shop.url, json=body, headers={"authorization": f"Bearer {token}"})).json()

    if coordinate is None:
        assert "errors" not in answer
        return
    assert answer.keys() == {"errors"}
    assert [(error["message"], error["extensions"]) for error in answer["errors"]] == [
        (f"{coordinate} is not for the role MEMBER.", {"code": "FORBIDDEN"})
    ]
    assert await shop.state() == before


async def test_what_a_document_leaves_out_keeps_nobody_from_claiming(shop: Shop) -> None:
    pool = await shop.pool()
    variables = {"input": {"poolId": pool["id"]}, "stock": False}
    spread = CLAIM_AND % "pool { id ...f @skip(if: true) stock @include(if: $stock) { total } }"
    spread += "fragment f on Pool { stock { total } }"

    answer = await shop.data(spread, variables, key=await shop.token((await shop.member())["id"]))

    assert answer["claimCode"]["code"]["pool"] == {"id": pool["id"]}


async def test_a_till_may_ask_for_what_a_member_may_not(shop: Shop) -> None:
    pool, member = await shop.pool(codes=3), await shop.member()
    variables = {"input": {"poolId": pool["id"], "memberId": member["id"]}}

    answer = await shop.data(CLAIM_AND % "pool { stock { available } }", variables, key=await shop.key("CHECKOUT"))

    assert answer["claimCode"]["code"]["pool"]["stock"] == {"available": 2}


async def test_a_support_agent_reads_why_and_repairs(shop: Shop) -> None:
    support = await shop.key("SUPPORT")
    pool, member = await shop.pool(), await shop.member(displayName="Mia")
    code = await shop.claim(pool, member)
    redeemed = await shop.redeem([code["text"]], member)
    reversing = {"redemptionId": redeemed["redemptions"][0]["id"], "reason": "The till rang twice."}

    repaired = await shop.do(REVERSE_WITH_A_REASON, **reversing, key=support)
    granted = await shop.do(GRANT, memberId=member["id"], amount=50, reference="sorry", idempotencyKey="k", key=support)
    events = await shop.data("{ events(first: 10) { edges { node { type reason actor } } } }", key=support)
    told = [edge["node"]["reason"] for edge in events["events"]["edges"] if edge["node"]["reason"]]

    assert (repaired["__typename"], granted["__typename"]) == ("ReverseRedemptionSuccess", "GrantPointsSuccess")
    assert set(told) == {"The till rang twice."}
    assert (await shop.data("query ($id: ID!) { member(id: $id) { displayName } }", {"id": member["id"]}, key=support))[
        "member"
    ] == {"displayName": "Mia"}
