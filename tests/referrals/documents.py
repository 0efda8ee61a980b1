"""The documents of referrals, and what their tests look at."""

import itertools
from datetime import datetime
from typing import Any
from uuid import UUID

from app import ids
from app.api.context import Role, Viewer
from app.merchants.tenants import tenant
from app.storage.database import database
from tests.factories import REFUSALS, Shop
from tests.points.documents import ENTRY

_numbers = itertools.count(1)

QUOTA = "perBatch remainingToday remainingLifetime"
PROGRAM = """
  referrerPoints refereePoints invitesPerBatch invitesPerDay invitesLifetime inviteLifetimeDays convertsOn
  minimumPurchase { amountMinor currency } oneRewardPerMailbox
  safeguards { reportsMembers reviewPolicy refundWindowDays }
"""
INVITE = "id status obstacle maskedEmail token createdAt expiresAt acceptedAt convertedAt referrer { id }"
REFERRAL = f"""
  id convertedAt releasedAt reversedAt shortfall reviewFlags referrer {{ id }} referee {{ id }}
  referrerEntry {{ {ENTRY} }} refereeEntry {{ {ENTRY} }}
"""
HELD = """
  id convertedAt reversedAt declinedAt referrerPoints refereePoints reviewFlags referrer { id } referee { id }
"""
CONFIGURE_PROGRAM = f"""
mutation ($input: ConfigureReferralProgramInput!) {{
  answer: configureReferralProgram(input: $input) {{
    __typename ... on ConfigureReferralProgramSuccess {{ program {{ {PROGRAM} }} }} {REFUSALS}
  }}
}}
"""
INVITE_MEMBERS = f"""
mutation ($input: InviteMembersInput!) {{
  answer: inviteMembers(input: $input) {{
    __typename
    ... on InviteMembersSuccess {{ invites {{ {INVITE} }} skipped {{ email reason }} quota {{ {QUOTA} }} }}
    {REFUSALS} ... on InviteQuotaExceeded {{ requested quota {{ {QUOTA} }} }}
  }}
}}
"""
ACCEPT_INVITE = f"""
mutation ($input: AcceptInviteInput!) {{
  answer: acceptInvite(input: $input) {{
    __typename
    ... on AcceptInviteSuccess {{
      member {{ id externalId displayName maskedEmail emailVerified source wallet {{ version points }} }}
      invite {{ {INVITE} }} referral {{ {REFERRAL} }} obstacle
    }}
    {REFUSALS} ... on InviteNotUsable {{ status }} ... on MemberAlreadyExists {{ existing {{ id }} }}
  }}
}}
"""
CANCEL_INVITE = f"""
mutation ($input: CancelInviteInput!) {{
  answer: cancelInvite(input: $input) {{
    __typename ... on CancelInviteSuccess {{ invite {{ {INVITE} }} }}
    {REFUSALS} ... on InviteNotCancellable {{ status }}
  }}
}}
"""
RELEASE_REFERRAL = f"""
mutation ($input: ReleaseReferralInput!) {{
  answer: releaseReferral(input: $input) {{
    __typename ... on ReleaseReferralSuccess {{ referral {{ {REFERRAL} }} }} {REFUSALS}
  }}
}}
"""
DECLINE_REFERRAL = f"""
mutation ($input: DeclineReferralInput!) {{
  answer: declineReferral(input: $input) {{
    __typename ... on DeclineReferralSuccess {{ referral {{ {HELD} }} }} {REFUSALS}
  }}
}}
"""
RECORD_PURCHASE = f"""
mutation ($input: RecordPurchaseInput!) {{
  answer: recordPurchase(input: $input) {{
    __typename
    ... on RecordPurchaseSuccess {{
      replayed purchase {{ id reversedAt }} entry {{ amount balanceAfter reason }} referral {{ {REFERRAL} }}
    }}
    {REFUSALS}
  }}
}}
"""
READ_PROGRAM = f"{{ referralProgram {{ {PROGRAM} }} }}"
READ_QUOTA = f"{{ inviteQuota {{ {QUOTA} }} }}"
INVITES = f"""
query ($first: Int, $after: String, $status: InviteStatus) {{
  answer: invites(first: $first, after: $after, status: $status) {{
    edges {{ cursor node {{ {INVITE} }} }} pageInfo {{ hasNextPage endCursor }}
  }}
}}
"""
REFERRALS = f"""
query ($first: Int, $after: String) {{
  answer: referrals(first: $first, after: $after) {{
    edges {{ cursor node {{ {REFERRAL} }} }} pageInfo {{ hasNextPage endCursor }}
  }}
}}
"""
HELD_REFERRALS = f"""
query ($declined: Boolean) {{ answer: heldReferrals(declined: $declined) {{ edges {{ node {{ {HELD} }} }} }} }}
"""
REFERRED_BY = f"query ($id: ID!) {{ member(id: $id) {{ referredBy {{ {REFERRAL} }} }} }}"
#: Everything that must hold of a merchant's referrals at any time; each is a list of offenders. Entries exist exactly
#: for conversions that were released, all of them stand, or nothing of those that fell; quotas are what was sent; edges
#: are a forest.
BROKEN = """
WITH RECURSIVE due AS (
    SELECT reason, origin, member_id, amount FROM referral r CROSS JOIN LATERAL (VALUES
        ('REFERRAL_REFERRER', replace(r.invite_id::text, '-', ''), r.referrer_id, r.referrer_points),
        ('REFERRAL_REFEREE', replace(r.invite_id::text, '-', ''), r.referee_id, r.referee_points)
    ) AS each (reason, origin, member_id, amount)
    WHERE r.merchant_id = $1 AND r.released_at IS NOT NULL
), given AS (
    SELECT reason, origin, member_id, amount FROM points_entry
    WHERE merchant_id = $1 AND reason IN ('REFERRAL_REFERRER', 'REFERRAL_REFEREE') AND spendable_at IS NOT NULL
), above AS (
    SELECT referee_id AS origin, referrer_id AS member_id, 1 AS depth FROM referral WHERE merchant_id = $1
    UNION ALL
    SELECT above.origin, r.referrer_id, depth + 1 FROM above
    JOIN referral r ON r.merchant_id = $1 AND r.referee_id = above.member_id WHERE depth < 1000
)
(SELECT 'not credited' AS broken, member_id FROM (TABLE due EXCEPT ALL TABLE given) missing)
UNION ALL (SELECT 'credited', member_id FROM (TABLE given EXCEPT ALL TABLE due) surplus)
UNION ALL
SELECT 'stands', l.member_id FROM points_lot l JOIN points_entry e ON e.merchant_id = $1 AND e.id = l.entry_id
JOIN referral r ON r.merchant_id = $1 AND e.id IN (r.referrer_entry_id, r.referee_entry_id)
WHERE l.merchant_id = $1 AND l.returned <> CASE WHEN r.reversed_at IS NULL THEN 0 ELSE l.amount END
UNION ALL
-- Net of what was given back, what the falls took is what they could.
SELECT 'reversal', r.referrer_id FROM referral r WHERE r.merchant_id = $1 AND r.falls > 0 AND r.released_at IS NOT NULL
    AND CASE WHEN r.reversed_at IS NULL THEN 0 ELSE r.referrer_points + r.referee_points - r.shortfall END < coalesce((
        SELECT -sum(amount) FROM points_entry e WHERE e.merchant_id = $1
            AND starts_with(e.origin, replace(r.invite_id::text, '-', '') || '/')
    ), 0)
UNION ALL
SELECT 'taken back', e.member_id FROM points_entry e
WHERE e.merchant_id = $1 AND e.origin ~ '/(referrer|referee)/[1-9]' AND NOT EXISTS (
    SELECT FROM referral r WHERE r.merchant_id = $1 AND r.falls >= split_part(e.origin, '/', 3)::int
        AND replace(r.invite_id::text, '-', '') = split_part(e.origin, '/', 1)
)
UNION ALL
SELECT 'purchase', r.referee_id FROM referral r JOIN purchase b ON b.merchant_id = $1 AND b.id = r.purchase_id
WHERE r.merchant_id = $1 AND (r.reversed_at IS NULL)
    AND b.amount - b.refunded < coalesce(r.minimum_purchase, 1)
    AND r.converted_at > now() - r.refund_window_days * interval '24 hours'
UNION ALL
SELECT 'fallen', r.referee_id FROM referral r JOIN invite i ON i.merchant_id = $1 AND i.id = r.invite_id
JOIN member m ON m.merchant_id = $1 AND m.id = r.referee_id JOIN purchase b ON b.merchant_id = $1
    AND b.member_id = m.id
WHERE r.merchant_id = $1 AND r.reversed_at IS NOT NULL AND r.declined_at IS NULL
    AND b.amount - b.refunded >= coalesce(r.minimum_purchase, 1)
    AND b.occurred_at BETWEEN m.joined_at - interval '1 day' AND i.expires_at
UNION ALL
SELECT 'edge', i.referrer_id FROM invite i WHERE i.merchant_id = $1 AND (i.status = 'CONVERTED') <> EXISTS (
    SELECT FROM referral r WHERE r.merchant_id = $1 AND r.invite_id = i.id
)
UNION ALL
SELECT 'lifetime', q.member_id FROM invite_quota q WHERE q.merchant_id = $1 AND q.sent_lifetime <> (
    SELECT count(*) FROM invite i WHERE i.merchant_id = $1 AND i.referrer_id = q.member_id AND i.status <> 'EXPIRED'
)
UNION ALL
SELECT 'day', q.member_id FROM invite_quota q JOIN merchant USING (merchant_id)
WHERE q.merchant_id = $1 AND q.sent_today <> (
    SELECT count(*) FROM invite i WHERE i.merchant_id = $1 AND i.referrer_id = q.member_id
        AND (i.created_at AT TIME ZONE time_zone)::date = q.day
)
UNION ALL SELECT 'forest', origin FROM above WHERE origin = member_id OR depth >= 1000
"""
AGE_INVITES = """
UPDATE invite SET expires_at = expires_at - make_interval(secs => $2) WHERE merchant_id = $1
"""
SEND_EARLIER = """
UPDATE invite SET created_at = created_at - make_interval(secs => $2) WHERE merchant_id = $1
"""
AGE_REFERRALS = """
UPDATE referral SET converted_at = converted_at - make_interval(secs => $2) WHERE merchant_id = $1
"""


async def program(shop: Shop, **change: Any) -> Any:
    """Open the shop's program: 100 points for the referrer, 50 for the referee, on joining, with wide quotas."""
    values: dict[str, Any] = {
        "referrerPoints": 100,
        "refereePoints": 50,
        "invitesPerBatch": 100,
        "invitesPerDay": 1000,
        "invitesLifetime": 10_000,
        "inviteLifetimeDays": 30,
        "convertsOn": "JOIN",
    } | change
    return (await shop.do(CONFIGURE_PROGRAM, **values))["program"]


def address(domain: str = "example.com") -> str:
    """Return an address that nobody was given before."""
    return f"friend-{next(_numbers)}@{domain}"


async def invited(shop: Shop, referrer: Any, email: str | None = None) -> tuple[Any, str]:
    """Let a member invite one address. Returns the invite, as its referrer sees it, and the address."""
    email = email or address()
    answer = await shop.do(INVITE_MEMBERS, emails=[email], key=await shop.token(referrer["id"]))
    return answer["invites"][0], email


async def accepted(shop: Shop, referrer: Any, **input: Any) -> Any:
    """Let a member invite somebody who accepts, with a proven address unless told. Returns the answer."""
    invite, email = await invited(shop, referrer, input.pop("email", None))
    return await shop.do(ACCEPT_INVITE, **({"token": invite["token"], "email": email, "emailVerified": True} | input))


async def both_spellings(shop: Shop, referrer: Any, local: str) -> list[Any]:
    """Let a member invite two spellings of a mailbox, and both accept. Returns the answers."""
    sent = [await invited(shop, referrer, f"{local}+{number}@gmail.com") for number in range(2)]
    return [
        await shop.do(ACCEPT_INVITE, token=invite["token"], email=email, emailVerified=True) for invite, email in sent
    ]


async def broken(shop: Shop) -> list[Any]:
    """Return what doesn't hold of this shop's referrals: an empty list."""
    return [tuple(row.values()) for row in await database().rows(BROKEN, shop.merchant_id)]


async def invites_age(shop: Shop, days: float) -> None:
    """Bring the shop's invites so many days nearer to their end."""
    await database().row(AGE_INVITES, shop.merchant_id, days * 86_400)


async def sent_earlier(shop: Shop, days: float) -> None:
    """Let the shop's invites have been sent so many days earlier."""
    await database().row(SEND_EARLIER, shop.merchant_id, days * 86_400)


async def referrals_age(shop: Shop, days: float) -> None:
    """Let the shop's referrals have converted so many days earlier."""
    await database().row(AGE_REFERRALS, shop.merchant_id, days * 86_400)


async def quota(shop: Shop, member: Any) -> dict[str, int]:
    """Return what a member may still send."""
    found: dict[str, int] = (await shop.data(READ_QUOTA, key=await shop.token(member["id"])))["inviteQuota"]
    return found


async def viewer_of(shop: Shop, member_id: UUID) -> Viewer:
    """Return a member as the engine sees it, to call what takes an instant."""
    owner = await tenant(shop.merchant_id)
    assert owner is not None
    return Viewer(Role.MEMBER, owner, ids.encode("member", member_id), member_id)


async def happened(shop: Shop) -> list[str]:
    """Return the shop's events about members, invites, referrals and points, oldest first."""
    return [
        kind for kind in await shop.event_types()
        if kind.startswith(("member.enrolled", "invite.", "referral.", "points."))
    ]  # fmt: skip


def reasons(answer: Any) -> list[tuple[str, str]]:
    """Return the skipped addresses of an answer and why."""
    return [(each["email"], each["reason"]) for each in answer["skipped"]]


def instant(text: str) -> datetime:
    """Return a time as the API writes it."""
    return datetime.fromisoformat(text)
