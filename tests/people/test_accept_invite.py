"""acceptInvite. Without these an invite could be used twice, by somebody else, or pay for a member that was there."""

from typing import Any

import pytest

from app import ids
from app.config import Settings
from app.storage.database import database
from tests.conftest import run_api
from tests.factories import Shop, open_shop, problems
from tests.points.documents import broken as broken_points
from tests.points.documents import entries, points
from tests.referrals.documents import (
    ACCEPT_INVITE,
    CANCEL_INVITE,
    INVITE_MEMBERS,
    READ_PROGRAM,
    accepted,
    address,
    broken,
    happened,
    invited,
    invites_age,
    program,
)

UNKNOWN = f"inv_{'A' * 32}"


async def test_joining_converts_and_credits_both(shop: Shop) -> None:
    await program(shop)
    referrer = await shop.member()
    invite, _ = await invited(shop, referrer, " Ada.Lovelace@Example.COM ")

    answer = await shop.do(
        ACCEPT_INVITE,
        token=f" {invite['token']} ",
        email="ada.LOVELACE@example.com",
        emailVerified=True,
        displayName="Ada",
        externalId="c-ada",
    )

    member, referral = answer["member"], answer["referral"]
    assert {name: member[name] for name in member if name != "id"} == {
        "externalId": "c-ada", "displayName": "Ada", "maskedEmail": "a•••@example.com", "emailVerified": True,
        "source": "REFERRAL", "wallet": {"version": 1, "points": 50},
    }  # fmt: skip
    assert (answer["invite"]["status"], answer["invite"]["token"]) == ("CONVERTED", None)
    assert answer["invite"]["acceptedAt"] == answer["invite"]["convertedAt"] == referral["convertedAt"]
    assert (referral["referrer"], referral["referee"]) == ({"id": referrer["id"]}, {"id": member["id"]})
    assert [
        {name: entry[name] for name in ("amount", "balanceAfter", "reason", "reference")}
        for entry in (referral["referrerEntry"], referral["refereeEntry"])
    ] == [
        {"amount": 100, "balanceAfter": 100, "reason": "REFERRAL_REFERRER", "reference": invite["id"]},
        {"amount": 50, "balanceAfter": 50, "reason": "REFERRAL_REFEREE", "reference": invite["id"]},
    ]
    assert (referral["reviewFlags"], referral["reversedAt"], referral["shortfall"]) == ([], None, None)
    assert await happened(shop) == [
        "member.enrolled", "invite.sent", "member.enrolled", "invite.accepted", "points.credited", "points.credited",
        "referral.converted",
    ]  # fmt: skip
    assert await broken(shop) == await broken_points(shop) == []


async def test_nothing_is_credited_before_a_conversion(shop: Shop) -> None:
    await program(shop, convertsOn="FIRST_PURCHASE")
    referrer = await shop.member()

    answer = await accepted(shop, referrer)

    assert (answer["invite"]["status"], answer["referral"]) == ("PENDING", None)
    assert answer["invite"]["acceptedAt"] is not None
    assert answer["invite"]["convertedAt"] is None
    assert await entries(shop, referrer) == await entries(shop, answer["member"]) == []
    assert await shop.count("referral") == 0


async def test_a_verified_address_is_verified(shop: Shop) -> None:
    await program(shop)

    answer = await accepted(shop, await shop.member(), emailVerified=True)

    assert answer["member"]["emailVerified"] is True


async def test_malformed_input_is_refused_with_every_problem(shop: Shop) -> None:
    answer = await shop.refused(
        ACCEPT_INVITE, token="x", email="nobody", displayName=" ", externalId="x" * 101, key=await shop.key("CHECKOUT")
    )

    assert problems(answer) == {
        "email": "must be an e-mail address",
        "displayName": "must not be blank",
        "externalId": "must be at most 100 characters",
    }


async def test_an_unknown_token_is_not_usable_and_says_no_more(shop: Shop, other_shop: Shop) -> None:
    await program(other_shop)
    theirs, email = await invited(other_shop, await other_shop.member())

    for token in (UNKNOWN, "", "nonsense", theirs["token"], theirs["token"][:-1], "💥"):
        answer = await shop.refused(ACCEPT_INVITE, token=token, email=email)
        assert (answer["__typename"], answer["status"]) == ("InviteNotUsable", None)


async def test_a_person_joins_with_another_address_than_the_invited_one(shop: Shop) -> None:
    await program(shop)
    invite, _ = await invited(shop, await shop.member(), "ada@work.example")

    answer = await shop.do(ACCEPT_INVITE, token=invite["token"], email="ada@home.example", emailVerified=True)

    assert (answer["member"]["maskedEmail"], answer["invite"]["maskedEmail"]) == (
        "a•••@home.example", "a•••@work.example"
    )  # fmt: skip
    assert answer["referral"] is not None
    assert await broken(shop) == []


async def test_an_invite_is_used_once(shop: Shop) -> None:
    for trigger, status in (("JOIN", "CONVERTED"), ("FIRST_PURCHASE", "PENDING")):
        await program(shop, convertsOn=trigger)
        invite, email = await invited(shop, await shop.member())
        await shop.do(ACCEPT_INVITE, token=invite["token"], email=email, emailVerified=True)

        answer = await shop.refused(ACCEPT_INVITE, token=invite["token"], email=email)

        assert (answer["__typename"], answer["status"]) == ("InviteNotUsable", status)


async def test_a_cancelled_or_late_invite_is_not_usable(shop: Shop) -> None:
    await program(shop)
    referrer = await shop.member()
    cancelled, first = await invited(shop, referrer)
    await shop.do(CANCEL_INVITE, inviteId=cancelled["id"])
    late, second = await invited(shop, referrer)
    await invites_age(shop, 30)

    answers = [
        await shop.refused(ACCEPT_INVITE, token=invite["token"], email=email)
        for invite, email in ((cancelled, first), (late, second))
    ]

    assert [answer["status"] for answer in answers] == ["CANCELLED", "EXPIRED"]


async def test_a_member_is_never_referred(shop: Shop) -> None:
    await program(shop)
    referrer = await shop.member()
    invite, email = await invited(shop, referrer)
    member = await shop.member(email=email, emailVerified=True, source="REFERRAL")
    till = await shop.key("CHECKOUT")

    answer = await shop.refused(ACCEPT_INVITE, token=invite["token"], email=email, key=till)
    taken, other = await invited(shop, referrer)
    again = await shop.refused(
        ACCEPT_INVITE, token=taken["token"], email=other, externalId=member["externalId"], key=till
    )

    assert [each["__typename"] for each in (answer, again)] == ["MemberAlreadyExists"] * 2
    assert [each["existing"] for each in (answer, again)] == [{"id": member["id"]}] * 2
    assert await points(shop, referrer) == 0


async def test_an_invite_to_a_member_that_is_not_reported_can_never_convert(shop: Shop) -> None:
    await program(shop, reportsMembers=False)
    referrer, email = await shop.member(), address()
    await shop.member(email=email, emailVerified=True)
    invite, _ = await invited(shop, referrer, email)

    answer = await shop.refused(ACCEPT_INVITE, token=invite["token"], email=email)

    assert answer["__typename"] == "MemberAlreadyExists"


async def test_the_points_are_those_of_the_conversion(shop: Shop) -> None:
    await program(shop)
    referrer = await shop.member()
    invite, email = await invited(shop, referrer)
    await program(shop, referrerPoints=7, refereePoints=3)

    answer = await shop.do(ACCEPT_INVITE, token=invite["token"], email=email, emailVerified=True)

    assert (await points(shop, referrer), answer["member"]["wallet"]["points"]) == (7, 3)


async def test_tokens_and_addresses_are_kept_where_they_cannot_be_read(shop: Shop) -> None:
    await program(shop)
    invite, email = await invited(shop, await shop.member())

    row = await database().row("SELECT * FROM invite WHERE merchant_id = $1", shop.merchant_id)

    assert row is not None
    stored = b"".join(value for value in row.values() if isinstance(value, bytes))
    assert invite["token"].encode() not in stored
    assert email.encode() not in stored
    assert invite["token"].startswith("inv_")
    assert len(invite["token"]) == 36


async def test_guessing_tokens_is_limited_and_then_only_whom_an_invite_names_is_told_of_it(
    worker_database: str, database_pool: Settings
) -> None:
    with run_api(worker_database, FLASH_ATTEMPTS_PER_KEY_MAX="3") as api:
        async with open_shop(f"{api.url}/graphql") as shop:
            await program(shop)
            referrer = await shop.member()
            (first, email), (second, _) = await invited(shop, referrer), await invited(shop, referrer)
            till = await shop.key("CHECKOUT")

            async def tried(token: str, key: str = till, **input: Any) -> Any:
                answer = await shop.do(ACCEPT_INVITE, token=token, email=email, key=key, **input)
                return answer["__typename"], answer.get("status", "none")

            # What can't be a token is no guess.
            assert [await tried(token) for token in ("", "inv_", "x" * 36, UNKNOWN + "x")] == [
                ("InviteNotUsable", None)
            ] * 4
            own = {"memberId": referrer["id"]}
            assert await tried(second["token"], **own) == ("InvalidInput", "none")
            assert [await tried(UNKNOWN) for _ in range(4)] == [("InviteNotUsable", None)] * 4
            assert await tried(second["token"], **own) == ("InviteNotUsable", None)
            assert (await tried(second["token"], shop.admin, **own)) == ("InvalidInput", "none")
            assert (await tried(first["token"]))[0] == "AcceptInviteSuccess"


@pytest.mark.parametrize("role", ["MEMBER", "ANALYST"])
async def test_only_tills_and_admins_accept(shop: Shop, role: str) -> None:
    key = await shop.token((await shop.member())["id"]) if role == "MEMBER" else await shop.key(role)

    assert await shop.failed(ACCEPT_INVITE, token=UNKNOWN, email="a@example.com", key=key) == "FORBIDDEN"


async def test_until_it_is_configured_a_program_sends_nothing(shop: Shop) -> None:
    member = await shop.member()

    answer = await shop.refused(INVITE_MEMBERS, emails=[address()], memberId=member["id"])

    assert answer["__typename"] == "InviteQuotaExceeded"
    assert answer["quota"] == {"perBatch": 0, "remainingToday": 0, "remainingLifetime": 0}
    assert (await shop.data(READ_PROGRAM))["referralProgram"]["invitesLifetime"] == 0


async def test_a_member_that_joined_since_accepts_and_its_record_stays(shop: Shop) -> None:
    await program(shop)
    referrer = await shop.member()
    invite, email = await invited(shop, referrer)
    member = await shop.member(externalId="c-7", displayName="Ada", email="ada@home.example", emailVerified=True)

    answer = await shop.do(
        ACCEPT_INVITE, token=invite["token"], email=email, memberId=member["id"], displayName="Eve", externalId="c-8"
    )

    accepted_by = answer["member"]
    assert (accepted_by["id"], accepted_by["displayName"], accepted_by["externalId"], accepted_by["source"]) == (
        member["id"], "Ada", "c-7", "STORE"
    )  # fmt: skip
    assert (accepted_by["maskedEmail"], answer["obstacle"]) == ("a•••@home.example", None)
    assert answer["referral"]["referee"] == {"id": member["id"]}
    assert (await happened(shop))[-4:] == [
        "invite.accepted",
        "points.credited",
        "points.credited",
        "referral.converted",
    ]
    assert await broken(shop) == await broken_points(shop) == []


async def test_beside_a_member_only_the_invited_address_or_a_proven_one_fits(shop: Shop) -> None:
    await program(shop)
    invite, _ = await invited(shop, await shop.member())
    unproven = await shop.member(email="ada@home.example")
    told = "must be the address that was invited, or one that the member proved"

    for email in ("ada@home.example", "eve@home.example"):
        answer = await shop.refused(ACCEPT_INVITE, token=invite["token"], email=email, memberId=unproven["id"])
        assert problems(answer) == {"email": told}


async def test_who_sent_an_invite_and_who_is_nobody_accept_none(shop: Shop, other_shop: Shop) -> None:
    await program(shop)
    referrer = await shop.member()
    invite, email = await invited(shop, referrer)
    theirs = await other_shop.member()

    own = await shop.refused(ACCEPT_INVITE, token=invite["token"], email=email, memberId=referrer["id"])
    for member_id in (theirs["id"], ids.encode("member", ids.new()), "nobody"):
        answer = await shop.refused(ACCEPT_INVITE, token=invite["token"], email=email, memberId=member_id)
        assert (answer["__typename"], answer["id"]) == ("NotFound", member_id)

    assert problems(own) == {"memberId": "is who sent the invite"}


async def test_a_member_comes_by_one_invite_unless_that_expired(shop: Shop) -> None:
    await program(shop, convertsOn="FIRST_PURCHASE")
    anna, ben = await shop.member(), await shop.member()
    first, first_email = await invited(shop, anna)
    second, second_email = await invited(shop, ben)
    member = (await shop.do(ACCEPT_INVITE, token=first["token"], email=first_email, emailVerified=True))["member"]

    barred = await shop.refused(ACCEPT_INVITE, token=second["token"], email=second_email, memberId=member["id"])
    await database().row(
        "UPDATE invite SET expires_at = now() WHERE merchant_id = $1 AND id = $2",
        shop.merchant_id, ids.decode("invite", first["id"]),
    )  # fmt: skip
    # The job that ends it needn't have come.
    free = await shop.do(ACCEPT_INVITE, token=second["token"], email=second_email, memberId=member["id"])

    assert (barred["__typename"], barred["status"]) == ("InviteNotUsable", "PENDING")
    assert (free["__typename"], free["obstacle"]) == ("AcceptInviteSuccess", None)
    assert (await shop.event_types()).count("invite.expired") == 1
    assert await broken(shop) == []


async def test_one_invite_is_not_accepted_by_two_members(shop: Shop) -> None:
    await program(shop, convertsOn="FIRST_PURCHASE")
    invite, email = await invited(shop, await shop.member())
    first, second = [await shop.member() for _ in range(2)]
    await shop.do(ACCEPT_INVITE, token=invite["token"], email=email, memberId=first["id"])

    for member in (first, second):
        answer = await shop.refused(ACCEPT_INVITE, token=invite["token"], email=email, memberId=member["id"])
        assert (answer["__typename"], answer["status"]) == ("InviteNotUsable", "PENDING")


async def test_a_joining_persons_external_id_is_that_of_the_source_that_is_told(shop: Shop) -> None:
    await program(shop)
    invite, email = await invited(shop, await shop.member())
    bare = await shop.refused(ACCEPT_INVITE, token=invite["token"], email=email, externalSource="SHOPIFY")

    member = (
        await shop.do(ACCEPT_INVITE, token=invite["token"], email=email, externalId="s-1", externalSource="SHOPIFY")
    )["member"]

    found = await shop.data(
        '{ shop: member(externalId: "s-1", externalSource: SHOPIFY) { id } till: member(externalId: "s-1") { id } }'
    )
    assert problems(bare) == {"externalSource": "needs an externalId"}
    assert found == {"shop": {"id": member["id"]}, "till": None}
