"""Who may call what. Without these a new operation could be open to everyone, or to nobody, and no one would see it.

Walks the schema: what is added to it is tested here without being named.
"""

import pytest
from graphql import GraphQLObjectType

from app import ids
from app.api.access import ACCESS
from app.api.context import Role
from app.web.graphql_documents import SCHEMA
from tests.factories import Shop
from tests.web.walk import Operation, operations

#: What domain.md says about the roles, independently of the table in access.py.
MUTATIONS_OF_MEMBERS = {"claimCode", "redeemReward", "inviteMembers", "cancelInvite"}
MUTATIONS_OF_CHECKOUTS = {
    "claimCode", "redeemCodes", "reverseRedemption", "enrollMember", "issueMemberToken", "recordPurchase",
    "reversePurchase", "redeemReward", "reverseRewardRedemption", "inviteMembers", "acceptInvite", "cancelInvite",
}  # fmt: skip


def _made_up() -> dict[ids.Kind, str]:
    return {kind: ids.encode(kind, ids.new()) for kind in ids.Kind.__args__}  # type: ignore[attr-defined]


async def _keys(shop: Shop) -> dict[Role, str]:
    keys = {role: await shop.key(role.value) for role in Role if role is not Role.MEMBER}
    return keys | {Role.MEMBER: await shop.token((await shop.member())["id"])}


def test_every_operation_is_in_the_table() -> None:
    every = operations("Query", "Mutation", "Subscription")

    assert {operation.coordinate for operation in every} - set(ACCESS) == set()


def test_the_table_lists_nothing_that_does_not_exist() -> None:
    for coordinate in ACCESS:
        type_name, _, field_name = coordinate.partition(".")
        kind = SCHEMA.get_type(type_name)
        assert isinstance(kind, GraphQLObjectType), coordinate
        assert field_name in kind.fields, coordinate


def test_nothing_is_allowed_to_nobody() -> None:
    assert [coordinate for coordinate, roles in ACCESS.items() if not roles] == []


def test_an_admin_may_call_everything_but_follow_a_members_wallet() -> None:
    closed = [coordinate for coordinate, roles in ACCESS.items() if Role.ADMIN not in roles]

    assert closed == ["Subscription.walletChanged"]


def test_an_analyst_changes_nothing_and_a_member_and_a_till_only_what_is_theirs() -> None:
    def may(role: Role) -> set[str]:
        return {operation.name for operation in operations("Mutation") if role in ACCESS[operation.coordinate]}

    assert may(Role.ANALYST) == set()
    assert may(Role.MEMBER) == MUTATIONS_OF_MEMBERS
    assert may(Role.CHECKOUT) == MUTATIONS_OF_CHECKOUTS


@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.coordinate)
async def test_a_role_that_is_not_allowed_is_forbidden_and_another_is_not(shop: Shop, operation: Operation) -> None:
    for role, key in (await _keys(shop)).items():
        answer = await shop.post(operation.document(), operation.variables(_made_up()), key=key)
        codes = {(*error.get("path", []), error["extensions"]["code"]) for error in answer.get("errors", [])}
        if role in ACCESS[operation.coordinate]:
            assert codes == set(), answer
        else:
            assert codes == {("answer", "FORBIDDEN")}
            assert answer["errors"][0]["message"] == f"{operation.coordinate} is not for the role {role.value}."
            assert not (answer["data"] or {}).get("answer")


@pytest.mark.parametrize("operation", operations("Mutation"), ids=lambda operation: operation.coordinate)
async def test_a_forbidden_mutation_writes_nothing(shop: Shop, operation: Operation) -> None:
    keys = await _keys(shop)
    before = await shop.state()

    for role in set(Role) - ACCESS[operation.coordinate]:
        await shop.post(operation.document(), operation.variables(_made_up()), key=keys[role])

    assert await shop.state() == before


@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.coordinate)
async def test_nobody_is_unauthenticated(shop: Shop, operation: Operation) -> None:
    body = {"query": operation.document(), "variables": operation.variables(_made_up())}

    answer = (await shop.http.post(shop.url, json=body)).json()

    assert [error["extensions"]["code"] for error in answer["errors"]] == ["UNAUTHENTICATED"]
    assert answer.keys() == {"errors"}


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
