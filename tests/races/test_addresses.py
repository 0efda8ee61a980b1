"""Proofs, edits, enrolments and claims of one address that meet at two processes.

Without these somebody could end with an address that another has proved, or with another's codes.
"""

from typing import Any

import pytest

from tests.conftest import Api
from tests.coupons.ownership import breaches
from tests.factories import (
    CLAIM_CODE,
    CREATE_CAMPAIGN,
    EDIT_MEMBER,
    ENROLL_MEMBER,
    REDEEM_CODES,
    VERIFY_MEMBER_EMAIL,
    Shop,
    usd,
)
from tests.people.documents import addresses
from tests.races.storm import Processes, at_once, kinds
from tests.races.test_ownership import owned
from tests.sizes import size

#: Three members a round, of whom a page shows a hundred.
ROUNDS = size(12, 30)
MASKED = "s•••@example.com"


@pytest.fixture
def processes(shop: Shop, api: Api, second_api: Api) -> Processes:
    return Processes(shop, api, second_api)


def emails(count: int) -> list[str]:
    """Return addresses, one for each round."""
    return [f"shared-{number}@example.com" for number in range(count)]


async def test_of_members_that_prove_one_address_at_once_one_has_it(shop: Shop, processes: Processes) -> None:
    """Each has written it down, and codes wait for it."""
    pool = await shop.pool(codes=ROUNDS)
    rivals = [[await shop.member(email=email) for _ in range(3)] for email in emails(ROUNDS)]
    claimed = await at_once(processes.do(CLAIM_CODE, poolId=pool["id"], email=email) for email in emails(ROUNDS))

    answers = await at_once(
        (
            processes.do(VERIFY_MEMBER_EMAIL, memberId=member["id"], email=email)
            for email, three in zip(emails(ROUNDS), rivals, strict=True)
            for member in three
        ),
        most=30,
    )

    assert kinds(answers) == {"VerifyMemberEmailSuccess": ROUNDS, "MemberAlreadyExists": 2 * ROUNDS}
    wallets = await owned(shop)
    for turn, (three, code) in enumerate(zip(rivals, claimed, strict=True)):
        mine = answers[3 * turn : 3 * turn + 3]
        (winner,) = [each["member"]["id"] for each in mine if "member" in each]
        (lost,) = [{each["id"] for each in answer["displaced"]} for answer in mine if "member" in answer]
        assert lost == {member["id"] for member in three} - {winner}
        assert {answer["existing"]["id"] for answer in mine if "existing" in answer} == {winner}
        assert {member["id"]: wallets[member["id"]] for member in three} == {
            member["id"]: [code["code"]["id"]] if member["id"] == winner else [] for member in three
        }
    assert await breaches(shop) == {}


async def test_a_proof_against_an_edit_of_its_address_counts_for_what_it_names(
    shop: Shop, processes: Processes
) -> None:
    members = [(await shop.member(email=email), email) for email in emails(ROUNDS)]

    answers = await at_once(
        (
            call
            for member, email in members
            for call in (
                processes.do(VERIFY_MEMBER_EMAIL, memberId=member["id"]),
                processes.do(EDIT_MEMBER, memberId=member["id"], email=f"new-{email}"),
                processes.do(VERIFY_MEMBER_EMAIL, memberId=member["id"], email=email),
            )
        ),
        most=30,
    )

    new = "n•••@example.com"
    for turn, (member, _) in enumerate(members):
        nameless, edited, named = [answer["__typename"] for answer in answers[3 * turn : 3 * turn + 3]]
        assert edited == "EditMemberSuccess"
        is_proven = {nameless, named} != {"InvalidInput"}
        # Either a proof came first, and the new address waits beside the old one; or the edit did, and none counts.
        assert await addresses(shop, member) == ((MASKED, True, new) if is_proven else (new, False, None))
    assert await breaches(shop) == {}


async def test_two_edits_at_once_leave_one_of_both(shop: Shop, processes: Processes) -> None:
    members = [await shop.member(email=email, emailVerified=True) for email in emails(ROUNDS)]

    answers = await at_once(
        (
            call
            for turn, member in enumerate(members)
            for call in (
                processes.do(EDIT_MEMBER, memberId=member["id"], email=f"a-{turn}@example.com", externalId=f"a {turn}"),
                processes.do(EDIT_MEMBER, memberId=member["id"], email=f"b-{turn}@example.com", externalId=f"b {turn}"),
            )
        ),
        most=30,
    )

    assert kinds(answers) == {"EditMemberSuccess": 2 * ROUNDS}
    for member in members:
        seen = await shop.data("query ($id: ID!) { member(id: $id) { externalIds { id } } }", {"id": member["id"]})
        (named,) = seen["member"]["externalIds"]
        assert await addresses(shop, member) == (MASKED, True, f"{named['id'][0]}•••@example.com")
    assert await breaches(shop) == {}


async def test_of_members_that_are_to_have_one_external_id_one_has_it(shop: Shop, processes: Processes) -> None:
    members = [await shop.member(externalId=f"old {number}") for number in range(6)]

    for turn in range(ROUNDS // 3):
        answers = await at_once([
            *(processes.do(EDIT_MEMBER, memberId=member["id"], externalId=f"{turn}") for member in members),
            processes.do(ENROLL_MEMBER, source="STORE", externalId=f"{turn}"),
        ])  # fmt: skip
        assert sum("member" in answer for answer in answers) == 1
        (winner,) = [answer["member"]["id"] for answer in answers if "member" in answer]
        assert {answer["existing"]["id"] for answer in answers if "existing" in answer} == {winner}


@pytest.mark.parametrize("way", ["edit", "withdraw", "remove"])
async def test_an_address_that_is_left_while_others_take_it_leaves_no_code_behind(
    shop: Shop, processes: Processes, way: str
) -> None:
    """Somebody leaves an address, another proves it, and it claims and redeems: all at once."""
    pool = await shop.pool(codes=6 * ROUNDS)
    leavers = [await shop.member(email=email, emailVerified=True) for email in emails(ROUNDS)]
    strangers = [await shop.member() for _ in leavers]
    before = await at_once(processes.do(CLAIM_CODE, poolId=pool["id"], email=email) for email in emails(ROUNDS))
    ways: dict[str, dict[str, Any]] = {
        "edit": {"email": "moved-{}@example.com", "emailVerified": True},
        "withdraw": {"emailVerified": False},
        "remove": {"email": None},
    }

    def round_of(turn: int, email: str) -> list[Any]:
        left = {name: each.format(turn) if isinstance(each, str) else each for name, each in ways[way].items()}
        presented = {"codes": [before[turn]["code"]["text"]], "orderAmount": usd(100), "email": email}
        return [
            processes.do(EDIT_MEMBER, memberId=leavers[turn]["id"], **left),
            processes.do(EDIT_MEMBER, memberId=strangers[turn]["id"], email=email, emailVerified=True),
            processes.do(CLAIM_CODE, poolId=pool["id"], email=email),
            processes.do(REDEEM_CODES, orderId=f"order {turn}", **presented),
            processes.do(CREATE_CAMPAIGN, name="Spring", poolId=pool["id"], recipients=[{"email": email}]),
            processes.do(CLAIM_CODE, poolId=pool["id"], memberId=strangers[turn]["id"]),
        ]

    answers = await at_once(
        (call for turn, email in enumerate(emails(ROUNDS)) for call in round_of(turn, email)), most=36
    )

    wallets = await owned(shop)
    for turn, (leaver, stranger) in enumerate(zip(leavers, strangers, strict=True)):
        left, taken, claimed, _, sent, own = answers[6 * turn : 6 * turn + 6]
        first = before[turn]["code"]["id"]
        assert (left["__typename"], sent["__typename"]) == ("EditMemberSuccess", "CreateCampaignSuccess")
        assert taken["__typename"] in {"EditMemberSuccess", "MemberAlreadyExists"}
        # What the leaver had is its own, and nothing that the stranger is shown.
        assert first in wallets[leaver["id"]]
        assert first not in wallets[stranger["id"]]
        assert own["code"]["id"] in wallets[stranger["id"]]
        assert claimed["code"]["id"] == first or claimed["code"]["id"] not in wallets[leaver["id"]]
    assert await breaches(shop) == {}
