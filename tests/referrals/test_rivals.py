"""A rival between two looks of a verb. Without these a batch could be told of a quota that its rival has used."""

from typing import Any

import pytest

from app import ids
from app.referrals import invite_members
from tests.factories import Shop
from tests.referrals.documents import INVITE_MEMBERS, accepted, address, invited, program, viewer_of


async def test_a_batch_that_a_rival_has_sent_is_told_of_the_quota_that_is_left(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await program(shop, invitesLifetime=10)
    member, email = await shop.member(), address()
    member_id = ids.decode("member", member["id"])
    assert member_id is not None
    sends = invite_members.send

    async def rival(*arguments: Any) -> Any:
        await shop.do(INVITE_MEMBERS, memberId=member["id"], emails=[email])
        return await sends(*arguments)

    monkeypatch.setattr(invite_members, "send", rival)

    sent = await invite_members.send_invites(await viewer_of(shop, member_id), member_id, [email])

    assert sent is not None
    assert (sent.invites, [skipped.reason.value for skipped in sent.skipped]) == ([], ["ALREADY_INVITED"])
    assert sent.quota.remaining_lifetime == 9


async def test_who_has_joined_since_the_addresses_were_looked_up_is_not_invited_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await program(shop, invitesLifetime=10)
    member, other = await shop.member(), await shop.member()
    member_id = ids.decode("member", member["id"])
    assert member_id is not None
    joins, waits = address(), address()
    sends = invite_members.send

    async def rival(*arguments: Any) -> Any:
        monkeypatch.setattr(invite_members, "send", sends)
        await accepted(shop, other, email=joins)
        await invited(shop, other, waits)
        return await sends(*arguments)

    monkeypatch.setattr(invite_members, "send", rival)

    sent = await invite_members.send_invites(await viewer_of(shop, member_id), member_id, [joins, waits, address()])

    assert sent is not None
    assert [skipped.reason.value for skipped in sent.skipped] == ["ALREADY_MEMBER", "ALREADY_INVITED"]
    assert (len(sent.invites), sent.quota.remaining_lifetime) == (1, 9)


async def test_a_program_that_does_not_report_members_invites_who_has_joined_since(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await program(shop, reportsMembers=False)
    member, other = await shop.member(), await shop.member()
    member_id = ids.decode("member", member["id"])
    assert member_id is not None
    joins, sends = address(), invite_members.send

    async def rival(*arguments: Any) -> Any:
        monkeypatch.setattr(invite_members, "send", sends)
        await accepted(shop, other, email=joins)
        return await sends(*arguments)

    monkeypatch.setattr(invite_members, "send", rival)

    sent = await invite_members.send_invites(await viewer_of(shop, member_id), member_id, [joins])

    assert sent is not None
    assert (len(sent.invites), sent.skipped) == (1, [])
