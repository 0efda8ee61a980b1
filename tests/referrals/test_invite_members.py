"""inviteMembers. Without these a few accounts could flood strangers, or find out who is a member."""

from typing import Any

import pytest

from app.storage.database import database
from tests.factories import Shop, problems
from tests.points.documents import CONFIGURE
from tests.referrals import documents
from tests.referrals.documents import (
    CANCEL_INVITE,
    INVITE_MEMBERS,
    accepted,
    address,
    broken,
    happened,
    invited,
    program,
    quota,
    reasons,
)

SKIPPED_ALONE = [
    ("nobody", "INVALID_EMAIL"),
    ("", "INVALID_EMAIL"),
    ("a@b", "INVALID_EMAIL"),
    ("two@example.com, three@example.com", "INVALID_EMAIL"),
    ("x@mailinator.com", "DISPOSABLE_EMAIL"),
    ("X@Sub.Mailinator.COM", "DISPOSABLE_EMAIL"),
    ("x@yopmail.com", "DISPOSABLE_EMAIL"),
]
OWN = [
    ("ada@example.com", "ada@example.com"),
    ("ada@example.com", " ADA@Example.com "),
    ("ada@example.com", "ada+friend@example.com"),
    ("ada+shop@example.com", "ada@example.com"),
    ("ada+shop@example.com", "ada+friend@example.com"),
    ("ada.l@gmail.com", "a.d.a.l@gmail.com"),
    ("ada.l@gmail.com", "adal+x@googlemail.com"),
    ("ada@example.com", "\uff41\uff44\uff41@example.com"),
    ("ada@bücher.example", "ada+1@xn--bcher-kva.example"),
]
NOT_OWN = [
    ("ada@example.com", "a.da@example.com"),
    ("ada@gmail.com", "ada@example.com"),
    ("+x@example.com", "+y@example.com"),
]


async def send(shop: Shop, member: Any, *emails: str, **how: Any) -> Any:
    """Invite addresses as the member, and return the answer."""
    return await shop.do(INVITE_MEMBERS, emails=list(emails), key=await shop.token(member["id"]), **how)


async def test_invites_are_sent_in_the_order_given(shop: Shop) -> None:
    await program(shop, inviteLifetimeDays=7)
    member = await shop.member()

    answer = await send(shop, member, "zoe@example.com", "Abe@example.com")

    assert [invite["maskedEmail"] for invite in answer["invites"]] == ["z•••@example.com", "a•••@example.com"]
    assert [invite["status"] for invite in answer["invites"]] == ["PENDING", "PENDING"]
    assert [invite["referrer"] for invite in answer["invites"]] == [{"id": member["id"]}] * 2
    assert len({invite["token"] for invite in answer["invites"]}) == 2
    for invite in answer["invites"]:
        lifetime = documents.instant(invite["expiresAt"]) - documents.instant(invite["createdAt"])
        assert lifetime.total_seconds() == 7 * 86_400
    assert answer["skipped"] == []
    assert (
        answer["quota"]
        == {"perBatch": 100, "remainingToday": 998, "remainingLifetime": 9998}
        == await quota(shop, member)
    )
    assert (await happened(shop))[-2:] == ["invite.sent"] * 2
    assert await broken(shop) == []


async def test_a_key_invites_for_the_member_it_names_and_sees_no_token(shop: Shop) -> None:
    await program(shop)
    member = await shop.member()

    answer = await shop.do(INVITE_MEMBERS, emails=[address()], memberId=member["id"], key=await shop.key("CHECKOUT"))

    assert [(each["referrer"]["id"], each["token"]) for each in answer["invites"]] == [(member["id"], None)]
    assert (await quota(shop, member))["remainingToday"] == 999


async def test_a_member_may_name_itself_and_nobody_else(shop: Shop) -> None:
    await program(shop)
    member, other = await shop.member(), await shop.member()

    own = await send(shop, member, address(), memberId=member["id"])
    answer = await shop.refused(
        INVITE_MEMBERS, emails=[address()], memberId=other["id"], key=await shop.token(member["id"])
    )

    assert len(own["invites"]) == 1
    assert answer == {"__typename": "NotFound", "message": "There is no such member.", "id": other["id"]}


@pytest.mark.parametrize(("email", "reason"), SKIPPED_ALONE)
async def test_an_address_that_cannot_be_invited_is_skipped_at_no_cost(shop: Shop, email: str, reason: str) -> None:
    await program(shop, invitesPerBatch=1)
    member = await shop.member()
    before = await shop.state()

    answer = await send(shop, member, email)

    assert (answer["invites"], reasons(answer)) == ([], [(email, reason)])
    assert answer["quota"] == {"perBatch": 1, "remainingToday": 1000, "remainingLifetime": 10_000}
    assert (await shop.state()).since(before) == {"event": 1}


@pytest.mark.parametrize(("own", "other"), OWN)
async def test_the_senders_own_mailbox_is_skipped_whichever_way_it_is_spelt(shop: Shop, own: str, other: str) -> None:
    await program(shop)

    answer = await send(shop, await shop.member(email=own), other)

    assert reasons(answer) == [(other, "SELF")]


@pytest.mark.parametrize(("own", "other"), NOT_OWN)
async def test_somebody_elses_mailbox_is_not_the_senders(shop: Shop, own: str, other: str) -> None:
    await program(shop)

    answer = await send(shop, await shop.member(email=own), other)

    assert (len(answer["invites"]), answer["skipped"]) == (1, [])


async def test_each_address_is_skipped_for_the_first_reason_that_applies(shop: Shop) -> None:
    await program(shop, invitesPerBatch=1)
    member = await shop.member(email="me@example.com")
    for known in ("known@example.com", "known@mailinator.com"):
        await shop.member(email=known, emailVerified=True)
    await invited(shop, await shop.member(), "pending@example.com")

    answer = await send(
        shop, member, "me@example.com", "ME+1@example.com", "me@example.com", "known@example.com", "KNOWN@example.com",
        "known@mailinator.com", "pending@example.com", "new@example.com", " New@Example.com", "no", "no",
    )  # fmt: skip

    assert [invite["maskedEmail"] for invite in answer["invites"]] == ["n•••@example.com"]
    assert reasons(answer) == [
        ("me@example.com", "SELF"), ("ME+1@example.com", "SELF"), ("me@example.com", "DUPLICATE"),
        ("known@example.com", "ALREADY_MEMBER"), ("KNOWN@example.com", "DUPLICATE"),
        ("known@mailinator.com", "DISPOSABLE_EMAIL"), ("pending@example.com", "ALREADY_INVITED"),
        (" New@Example.com", "DUPLICATE"), ("no", "INVALID_EMAIL"), ("no", "INVALID_EMAIL"),
    ]  # fmt: skip
    assert answer["quota"]["remainingToday"] == 999


async def test_an_address_can_be_invited_again_once_its_invite_has_ended(shop: Shop) -> None:
    await program(shop)
    member, email = await shop.member(), address()
    first, _ = await invited(shop, member, email)
    assert reasons(await send(shop, member, email)) == [(email, "ALREADY_INVITED")]

    await shop.do(CANCEL_INVITE, inviteId=first["id"])

    assert (await send(shop, member, email))["skipped"] == []


async def test_where_members_are_not_reported_their_invites_look_like_any_other(shop: Shop) -> None:
    await program(shop, reportsMembers=False)
    sender = await shop.member()
    await shop.member(email="known@example.com")

    answer = await send(shop, sender, "known@example.com", "new@example.com")

    assert answer["skipped"] == []
    assert answer["quota"]["remainingToday"] == 998
    shapes = [{name: value is None for name, value in invite.items()} for invite in answer["invites"]]
    assert shapes[0] == shapes[1]
    assert reasons(await send(shop, sender, "known@example.com")) == [("known@example.com", "ALREADY_INVITED")]


async def test_who_only_wrote_an_address_down_keeps_nobody_from_being_invited_by_it(shop: Shop) -> None:
    await program(shop)
    sender, email = await shop.member(), address()
    await shop.member(email=email)

    answer = await send(shop, sender, email)

    # What somebody wrote down isn't told, either.
    assert (answer["skipped"], len(answer["invites"])) == ([], 1)


async def test_trying_out_who_is_a_member_is_limited(shop: Shop) -> None:
    await program(shop, invitesPerBatch=5000)
    sender, other = await shop.member(), await shop.member()
    own = [address() for _ in range(250)]
    await send(shop, sender, *own)
    await send(shop, other, *(strangers := [address() for _ in range(201)]))

    # Its own invites tell it nothing, however often it sends them.
    assert len((await send(shop, sender, *own))["skipped"]) == 250
    assert len((await send(shop, sender, *strangers[:200]))["skipped"]) == 200
    refused = await shop.refused(INVITE_MEMBERS, emails=[strangers[200], address()], key=await shop.token(sender["id"]))
    assert refused["__typename"] == "TooManyInviteAttempts"
    assert (await send(shop, sender, address()))["skipped"] == []
    assert len((await shop.do(INVITE_MEMBERS, emails=strangers, memberId=sender["id"]))["skipped"]) == 201


@pytest.mark.parametrize(
    ("change", "before", "batch", "left"),
    [
        ({"invitesPerBatch": 3}, 2, 4, {"perBatch": 3, "remainingToday": 998, "remainingLifetime": 9998}),
        ({"invitesPerDay": 5}, 3, 3, {"perBatch": 100, "remainingToday": 2, "remainingLifetime": 9997}),
        ({"invitesLifetime": 5}, 3, 3, {"perBatch": 100, "remainingToday": 997, "remainingLifetime": 2}),
    ],
)
async def test_a_batch_beyond_a_quota_is_refused_whole(
    shop: Shop, change: dict[str, int], before: int, batch: int, left: dict[str, int]
) -> None:
    await program(shop, **change)
    member = await shop.member(email="me@example.com")
    await send(shop, member, *(address() for _ in range(before)))

    answer = await shop.refused(
        INVITE_MEMBERS,
        emails=["me@example.com", "no", *(address() for _ in range(batch))],
        key=await shop.token(member["id"]),
    )

    assert answer["__typename"] == "InviteQuotaExceeded"
    assert (answer["requested"], answer["quota"]) == (batch, left)
    assert len((await send(shop, member, *(address() for _ in range(batch - 1))))["invites"]) == batch - 1
    assert await broken(shop) == []


async def test_lower_quotas_leave_nothing_and_higher_ones_the_difference(shop: Shop) -> None:
    await program(shop)
    member = await shop.member()
    await send(shop, member, *(address() for _ in range(5)))

    await program(shop, invitesPerDay=3, invitesLifetime=4)
    none = await quota(shop, member)
    refused = await shop.refused(INVITE_MEMBERS, emails=[address()], memberId=member["id"])
    await program(shop, invitesPerDay=6, invitesLifetime=7)

    assert none == refused["quota"] == {"perBatch": 100, "remainingToday": 0, "remainingLifetime": 0}
    assert await quota(shop, member) == {"perBatch": 100, "remainingToday": 1, "remainingLifetime": 2}
    assert len((await send(shop, member, address()))["invites"]) == 1


async def test_a_cancelled_or_converted_invite_keeps_its_quota(shop: Shop) -> None:
    await program(shop)
    member = await shop.member()
    invite, _ = await invited(shop, member)
    await shop.do(CANCEL_INVITE, inviteId=invite["id"])
    await accepted(shop, member)

    assert await quota(shop, member) == {"perBatch": 100, "remainingToday": 998, "remainingLifetime": 9998}
    assert await broken(shop) == []


async def test_a_zone_that_is_behind_gives_no_day_back(shop: Shop) -> None:
    """A day that was begun stays the latest one: moving the clocks west must not make a second quota of it."""
    await program(shop, invitesPerDay=3)
    member = await shop.member()
    await shop.do(CONFIGURE, timeZone="Pacific/Kiritimati")
    await send(shop, member, address(), address())

    await shop.do(CONFIGURE, timeZone="Pacific/Niue")

    assert (await quota(shop, member))["remainingToday"] == 1
    await shop.refused(INVITE_MEMBERS, emails=[address(), address()], memberId=member["id"])
    assert len((await send(shop, member, address()))["invites"]) == 1
    rows = await database().rows("SELECT sent_today FROM invite_quota WHERE merchant_id = $1", shop.merchant_id)
    assert [row["sent_today"] for row in rows] == [3]


async def test_an_input_that_makes_no_sense_is_refused(shop: Shop) -> None:
    await program(shop)
    member = await shop.member()

    assert problems(await shop.refused(INVITE_MEMBERS, emails=[])) == {
        "emails": "must hold 1 to 5,000 addresses", "memberId": "must name the member that invites"
    }  # fmt: skip
    many = await shop.refused(INVITE_MEMBERS, emails=["a@example.com"] * 5001, memberId=member["id"])
    assert problems(many) == {"emails": "must hold 1 to 5,000 addresses"}


async def test_an_unknown_member_is_not_found(shop: Shop, other_shop: Shop) -> None:
    theirs = await other_shop.member()

    for node in (theirs["id"], f"member_{'0' * 32}", "nonsense"):
        answer = await shop.refused(INVITE_MEMBERS, emails=[address()], memberId=node)
        assert answer == {"__typename": "NotFound", "message": "There is no such member.", "id": node}


async def test_two_merchants_invite_one_address(shop: Shop, other_shop: Shop) -> None:
    email = address()
    for each in (shop, other_shop):
        await program(each)
        assert (await send(each, await each.member(), email))["skipped"] == []
