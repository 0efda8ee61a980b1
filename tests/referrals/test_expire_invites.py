"""Expiry of invites, and a year of quotas. Without these a lapsed invite could pay, or a quota leak a place a day."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from app.api.operations import Refused
from app.members.types import MemberSource
from app.referrals.expire_invites import BATCH, expire_batch, expire_invites
from app.referrals.invite_members import InviteQuotaExceeded, send_invites
from app.referrals.queries import quota_of
from app.storage.database import database
from tests.factories import Shop
from tests.points.documents import CONFIGURE, member_uuid
from tests.referrals.documents import (
    INVITE_MEMBERS,
    INVITES,
    accepted,
    address,
    broken,
    happened,
    invited,
    invites_age,
    program,
    quota,
    viewer_of,
)
from tests.sizes import FULL
from workers.settings import CRON_JOBS

MADE = """
INSERT INTO invite (merchant_id, id, referrer_id, status, email, email_index, mailbox_index, token, token_hash,
                    created_at, expires_at)
SELECT $1, gen_random_uuid(), $2, 'PENDING', '', sha256(n::text::bytea), '', '', sha256(n::text::bytea),
    now() - interval '2 days', now() - interval '1 day'
FROM generate_series(1, $3::int) AS n
"""
COUNT = """
INSERT INTO invite_quota (merchant_id, member_id, day, sent_today, sent_lifetime, day_max, lifetime_max)
VALUES ($1, $2, (now() - interval '2 days')::date, $3, $3, 100000, 100000)
"""


async def statuses(shop: Shop) -> list[str]:
    """Return the status of all invites, newest first."""
    return [edge["node"]["status"] for edge in (await shop.data(INVITES))["answer"]["edges"]]


async def test_invites_past_their_lifetime_expire_and_give_the_lifetime_quota_back(shop: Shop) -> None:
    await program(shop, invitesPerDay=10, invitesLifetime=10, inviteLifetimeDays=7)
    member = await shop.member()
    emails = [address() for _ in range(3)]
    await shop.do(INVITE_MEMBERS, emails=emails, memberId=member["id"])
    await invites_age(shop, 6)
    await invited(shop, member)
    assert await expire_batch(shop.merchant_id) == 0

    await database().row(
        "UPDATE invite SET expires_at = now() WHERE merchant_id = $1 AND expires_at < now() + interval '2 days'",
        shop.merchant_id,
    )
    assert await expire_batch(shop.merchant_id) == 3

    assert await statuses(shop) == ["PENDING", "EXPIRED", "EXPIRED", "EXPIRED"]
    # The ages are of this test alone: the four were sent today, and the day's quota is not given back.
    assert await quota(shop, member) == {"perBatch": 100, "remainingToday": 6, "remainingLifetime": 9}
    assert (await happened(shop)).count("invite.expired") == 3
    answer = await shop.do(INVITE_MEMBERS, emails=emails, memberId=member["id"])
    assert len(answer["invites"]) == 3


async def test_an_accepted_invite_that_did_not_convert_expires_and_a_converted_one_does_not(shop: Shop) -> None:
    await program(shop, convertsOn="FIRST_PURCHASE")
    member = await shop.member()
    await accepted(shop, member)
    await program(shop)
    await accepted(shop, member)
    await invites_age(shop, 31)

    assert await expire_batch(shop.merchant_id) == 1

    assert await statuses(shop) == ["CONVERTED", "EXPIRED"]
    assert (await quota(shop, member))["remainingLifetime"] == 9999


async def test_many_are_expired_in_batches_by_several_workers_at_once(shop: Shop) -> None:
    await program(shop)
    members = [await shop.member() for _ in range(2)]
    for offset, member in enumerate(members):
        arguments = (shop.merchant_id, member_uuid(member), BATCH + 10)
        await database().row(MADE.replace("n::text", f"({offset} * 1000000 + n)::text"), *arguments)
        await database().row(COUNT, *arguments)

    # Other shops' invites may be due, too.
    first = await asyncio.gather(*[expire_invites() for _ in range(4)])
    again = await expire_invites()

    assert (sum(first) >= 2 * (BATCH + 10), again) == (True, 0)
    assert [(await quota(shop, member))["remainingLifetime"] for member in members] == [10_000, 10_000]
    assert (await happened(shop)).count("invite.expired") == 2 * (BATCH + 10)


def test_the_timetable_expires_invites_every_minute() -> None:
    jobs = {job.name: job for job in CRON_JOBS}

    assert jobs["cron:expire_invites"].second == 15
    assert jobs["cron:expire_invites"].minute is None


@pytest.mark.parametrize("zone", ["America/New_York", "Australia/Lord_Howe"])
async def test_a_year_of_quotas_resets_at_local_midnight_and_reclaims_what_expired(shop: Shop, zone: str) -> None:
    """The last second of each day has no place left, the first of the next has all; days of 23, 24 and 25 hours.

    In `make test` ten days around each day that isn't of 24 hours.
    """
    await program(shop, invitesPerBatch=2, invitesPerDay=2, invitesLifetime=5, inviteLifetimeDays=3)
    await shop.do(CONFIGURE, timeZone=zone)
    member = member_uuid(await shop.member(source=MemberSource.IMPORT.value))
    viewer = await viewer_of(shop, member)
    model = Model()
    lengths = set()
    first = datetime(2027, 1, 1, tzinfo=ZoneInfo(zone))
    year = [first + timedelta(days=number) for number in range(365)]
    days = [
        day for day in year if FULL or (day - timedelta(days=5)).utcoffset() != (day + timedelta(days=5)).utcoffset()
    ]

    for day in days:
        begin, end = day.astimezone(UTC), (day + timedelta(days=1)).astimezone(UTC)
        lengths.add((end - begin).total_seconds())
        for at, wanted in ((begin, 1), (end - timedelta(hours=2), 1), (end - timedelta(seconds=1), 1)):
            gone = await expire_batch(shop.merchant_id, at)
            assert gone == model.expire(at)
            room = model.room(at, day.date())
            left = await quota_of(shop.merchant_id, member, at)
            assert (left.remaining_today, left.remaining_lifetime) == room, at
            if wanted <= min(room):
                sent = await send_invites(viewer, member, [address()], at)
                assert sent is not None
                assert len(sent.invites) == wanted
                model.send(at, day.date())
            else:
                with pytest.raises(Refused) as refused:
                    await send_invites(viewer, member, [address()], at)
                assert isinstance(refused.value.refusal, InviteQuotaExceeded)

    assert len(lengths) == 3
    # Both limits were met, and five at a time in three days are what reclaiming allows.
    assert min(model.refused_today, model.refused_ever) > 0
    assert model.total > 1.6 * len(days)
    assert await broken(shop) == []


class Model:
    """What a member sent, each as an instant and a day."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.pending: list[datetime] = []
        self.days: list[Any] = []
        self.total = 0
        self.refused_today = 0
        self.refused_ever = 0

    def expire(self, at: datetime) -> int:
        """End what is three days old."""
        due = [sent for sent in self.pending if sent + timedelta(days=3) <= at]
        self.pending = [sent for sent in self.pending if sent not in due]
        return len(due)

    def room(self, at: datetime, day: Any) -> tuple[int, int]:
        """Return what is left of the day's two and of the five ever."""
        left = 2 - self.days.count(day), 5 - len(self.pending)
        self.refused_today += left[0] == 0
        self.refused_ever += left[1] == 0
        return left

    def send(self, at: datetime, day: Any) -> None:
        """Send one."""
        self.pending.append(at)
        self.days.append(day)
        self.total += 1
