"""cancelInvite. Without these an invite could be taken from the person that accepted it, or by a stranger."""

from tests.factories import Shop
from tests.referrals.documents import (
    ACCEPT_INVITE,
    CANCEL_INVITE,
    accepted,
    broken,
    happened,
    invited,
    invites_age,
    program,
)


async def test_a_member_takes_its_own_invite_back(shop: Shop) -> None:
    await program(shop)
    member = await shop.member()
    invite, _ = await invited(shop, member)

    answer = await shop.do(CANCEL_INVITE, inviteId=invite["id"], key=await shop.token(member["id"]))

    assert answer["invite"] == invite | {"status": "CANCELLED"}
    assert (await happened(shop))[-2:] == ["invite.sent", "invite.cancelled"]
    assert await broken(shop) == []


async def test_a_till_takes_any_invite_back(shop: Shop) -> None:
    await program(shop)
    invite, _ = await invited(shop, await shop.member())

    answer = await shop.do(CANCEL_INVITE, inviteId=invite["id"], key=await shop.key("CHECKOUT"))

    assert answer["invite"]["status"] == "CANCELLED"


async def test_others_invites_are_not_found(shop: Shop, other_shop: Shop) -> None:
    for each in (shop, other_shop):
        await program(each)
    own, _ = await invited(shop, await shop.member())
    theirs, _ = await invited(other_shop, await other_shop.member())
    stranger = await shop.token((await shop.member())["id"])

    for node, key in ((own["id"], stranger), (theirs["id"], shop.admin), ("nonsense", shop.admin)):
        answer = await shop.refused(CANCEL_INVITE, inviteId=node, key=key)
        assert answer == {"__typename": "NotFound", "message": "There is no such invite.", "id": node}


async def test_an_accepted_or_ended_invite_stays_as_it_is(shop: Shop) -> None:
    await program(shop, convertsOn="FIRST_PURCHASE")
    member = await shop.member()
    waiting = (await accepted(shop, member))["invite"]
    await program(shop)
    converted = (await accepted(shop, member))["invite"]
    cancelled, email = await invited(shop, member)
    await shop.do(CANCEL_INVITE, inviteId=cancelled["id"])

    refusals = [await shop.refused(CANCEL_INVITE, inviteId=invite["id"]) for invite in (waiting, converted, cancelled)]

    assert {refusal["__typename"] for refusal in refusals} == {"InviteNotCancellable"}
    assert [refusal["status"] for refusal in refusals] == ["PENDING", "CONVERTED", "CANCELLED"]
    answer = await shop.refused(ACCEPT_INVITE, token=cancelled["token"], email=email)
    assert answer["status"] == "CANCELLED"


async def test_a_late_invite_that_was_not_swept_yet_can_be_cancelled(shop: Shop) -> None:
    await program(shop)
    invite, _ = await invited(shop, await shop.member())
    await invites_age(shop, 31)

    answer = await shop.do(CANCEL_INVITE, inviteId=invite["id"])

    assert answer["invite"]["status"] == "CANCELLED"
