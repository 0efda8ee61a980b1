"""Identities that meet at once at two processes. Without these one person could get a code under each of its names."""

from typing import Any

import pytest

from tests.conftest import Api
from tests.coupons.ownership import breaches
from tests.factories import CLAIM_CODE, ENROLL_MEMBER, REDEEM_CODES, VERIFY_MEMBER_EMAIL, Shop, usd
from tests.races.storm import Processes, at_once, kinds
from tests.sizes import size

ROUNDS = size(15, 40)


@pytest.fixture
def processes(shop: Shop, api: Api, second_api: Api) -> Processes:
    return Processes(shop, api, second_api)


def addresses(count: int) -> list[str]:
    """Return addresses of strangers."""
    return [f"stranger-{number}@example.com" for number in range(count)]


async def owned(shop: Shop) -> dict[str, list[str]]:
    """Return the codes of each member, by its id."""
    document = "{ members(first: 100) { edges { node { id wallet { version codes { edges { node { id } } } } } } } }"
    members = (await shop.data(document))["members"]["edges"]
    return {
        edge["node"]["id"]: [code["node"]["id"] for code in edge["node"]["wallet"]["codes"]["edges"]]
        for edge in members
    }


async def test_fifty_taps_by_member_and_fifty_by_address_are_one_code(shop: Shop, processes: Processes) -> None:
    pool = await shop.pool(codes=100)
    member = await shop.member(email="jane@example.com", emailVerified=True)
    names = [{"memberId": member["id"]}, {"email": "Jane@Example.com "}]

    answers = await at_once(processes.do(CLAIM_CODE, poolId=pool["id"], **names[turn // 2 % 2]) for turn in range(100))

    assert kinds(answers) == {"ClaimCodeSuccess": 100}
    assert len({answer["code"]["id"] for answer in answers}) == 1
    assert {answer["code"]["owner"]["id"] for answer in answers} == {member["id"]}
    assert sum(not answer["replayed"] for answer in answers) == 1
    assert await shop.wallet_versions(member) == [1]
    assert (await shop.stock(pool))["allocated"] == 1
    assert await breaches(shop) == {}


async def test_keys_by_member_and_by_address_share_the_limit(shop: Shop, processes: Processes) -> None:
    pool = await shop.pool(codes=100, claimsPerMember=5)
    member = await shop.member(email="jane@example.com", emailVerified=True)
    names = [{"memberId": member["id"]}, {"email": "jane@example.com"}]

    answers = await at_once(
        processes.do(CLAIM_CODE, poolId=pool["id"], idempotencyKey=f"key {turn}", **names[turn // 2 % 2])
        for turn in range(60)
    )

    assert kinds(answers) == {"ClaimCodeSuccess": 60}
    assert len({answer["code"]["id"] for answer in answers}) == 5
    assert sum(not answer["replayed"] for answer in answers) == 5
    assert await shop.wallet_versions(member) == [1, 2, 3, 4, 5]
    assert await breaches(shop) == {}


async def test_forty_taps_of_an_unknown_address_are_one_code(shop: Shop, processes: Processes) -> None:
    pool = await shop.pool(codes=40)

    answers = await at_once(
        processes.do(CLAIM_CODE, poolId=pool["id"], email="stranger@example.com") for _ in range(40)
    )

    assert kinds(answers) == {"ClaimCodeSuccess": 40}
    assert len({answer["code"]["id"] for answer in answers}) == 1
    assert {answer["code"]["owner"] for answer in answers} == {None}
    assert sum(not answer["replayed"] for answer in answers) == 1
    assert await breaches(shop) == {}


async def test_a_claim_by_address_and_the_enrolment_of_its_owner_leave_one_code_in_the_wallet(
    shop: Shop, processes: Processes
) -> None:
    pool = await shop.pool(codes=3 * ROUNDS)

    def round_of(address: str) -> list[Any]:
        return [
            processes.do(CLAIM_CODE, poolId=pool["id"], email=address),
            processes.do(ENROLL_MEMBER, source="STORE", email=address, emailVerified=True),
            processes.do(CLAIM_CODE, poolId=pool["id"], email=address.upper()),
        ]

    answers = await at_once((call for address in addresses(ROUNDS) for call in round_of(address)), most=40)

    assert kinds(answers) == {"ClaimCodeSuccess": 2 * ROUNDS, "EnrollMemberSuccess": ROUNDS}
    wallets = await owned(shop)
    for first, enrolled, second in zip(answers[0::3], answers[1::3], answers[2::3], strict=True):
        assert first["code"]["id"] == second["code"]["id"]
        assert wallets[enrolled["member"]["id"]] == [first["code"]["id"]]
    assert (await shop.stock(pool))["allocated"] == ROUNDS
    assert await breaches(shop) == {}


@pytest.mark.parametrize("limit", [1, 3])
async def test_claims_under_both_names_while_the_address_is_verified_keep_to_the_limit(
    shop: Shop, processes: Processes, limit: int
) -> None:
    pool = await shop.pool(codes=8 * ROUNDS, claimsPerMember=limit)
    members = [(await shop.member(email=address), address) for address in addresses(ROUNDS)]

    def round_of(member: Any, address: str) -> list[Any]:
        return [
            processes.do(CLAIM_CODE, poolId=pool["id"], email=address, idempotencyKey=f"a {address}"),
            processes.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"], idempotencyKey=f"b {address}"),
            processes.do(VERIFY_MEMBER_EMAIL, memberId=member["id"]),
            processes.do(CLAIM_CODE, poolId=pool["id"], memberId=member["id"], idempotencyKey=f"c {address}"),
            processes.do(CLAIM_CODE, poolId=pool["id"], email=address, idempotencyKey=f"d {address}"),
        ]

    answers = await at_once((call for each in members for call in round_of(*each)), most=40)

    assert kinds(answers) == {"ClaimCodeSuccess": 4 * ROUNDS, "VerifyMemberEmailSuccess": ROUNDS}
    wallets = await owned(shop)
    document = "query ($id: ID!) { node(id: $id) { ... on Code { state } } }"
    for member, _ in members:
        states = [(await shop.data(document, {"id": each}))["node"]["state"] for each in wallets[member["id"]]]
        assert states.count("ALLOCATED") == limit
        assert set(states) <= {"ALLOCATED", "REVOKED"}
    stock = await shop.stock(pool)
    assert (stock["allocated"], stock["available"]) == (limit * ROUNDS, (8 - limit) * ROUNDS)
    assert await breaches(shop) == {}


async def test_a_code_that_is_redeemed_by_address_while_it_is_adopted_is_spent_once_and_the_members(
    shop: Shop, processes: Processes
) -> None:
    pool = await shop.pool(codes=ROUNDS)
    members = [(await shop.member(email=address), address) for address in addresses(ROUNDS)]
    claimed = await at_once(processes.do(CLAIM_CODE, poolId=pool["id"], email=address) for _, address in members)

    def round_of(member: Any, address: str, text: str) -> list[Any]:
        presented = {"codes": [text], "orderAmount": usd(1000)}
        return [
            processes.do(REDEEM_CODES, orderId=f"first {address}", email=address, **presented),
            processes.do(VERIFY_MEMBER_EMAIL, memberId=member["id"]),
            processes.do(REDEEM_CODES, orderId=f"second {address}", email=address, **presented),
        ]

    answers = await at_once(
        (
            call
            for each, answer in zip(members, claimed, strict=True)
            for call in round_of(*each, answer["code"]["text"])
        ),
        most=40,
    )

    assert kinds(answers) == {
        "RedeemCodesSuccess": ROUNDS, "CodesRejected": ROUNDS, "VerifyMemberEmailSuccess": ROUNDS
    }  # fmt: skip
    assert (await shop.stock(pool))["redeemed"] == ROUNDS
    wallets = await owned(shop)
    for (member, _), answer in zip(members, claimed, strict=True):
        assert wallets[member["id"]] == [answer["code"]["id"]]
    assert await breaches(shop) == {}


async def test_twenty_verifications_at_once_are_one(shop: Shop, processes: Processes) -> None:
    pool = await shop.pool(codes=5, claimsPerMember=5)
    for number in range(5):
        await shop.do(CLAIM_CODE, poolId=pool["id"], email="jane@example.com", idempotencyKey=f"{number}")
    member = await shop.member(email="jane@example.com")

    answers = await at_once(processes.do(VERIFY_MEMBER_EMAIL, memberId=member["id"]) for _ in range(20))

    assert kinds(answers) == {"VerifyMemberEmailSuccess": 20}
    assert {answer["member"]["wallet"]["version"] for answer in answers} == {5}
    events = await shop.event_types()
    assert (events.count("member.email_verified"), events.count("code.adopted")) == (1, 5)
    assert await breaches(shop) == {}
