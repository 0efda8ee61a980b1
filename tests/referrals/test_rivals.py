"""A rival between two looks of a verb. Without this a batch could be told of a quota that its rival has used."""

from typing import Any

import pytest

from app import ids
from app.referrals import invite_members
from tests.factories import Shop
from tests.referrals.documents import INVITE_MEMBERS, address, program, viewer_of


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
